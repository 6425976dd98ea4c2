"""Which settings of a run are not the defaults, and where each came from: a preset, a sweep, the offer of a full memory, or a person."""

from __future__ import annotations

from typing import Any

from studio.errors import StudioError
from studio.evals.ablation import recipe_of
from studio.recipe import fields

OBVIOUS = ("name", "model", "models", "dataset", "kind", "method", "schema_version", "columns", "runs")
_NEAR = 0.7  # share of a preset's settings a run must have to be called after it


def changed(row: dict[str, Any]) -> list[dict[str, Any]]:
    """``{name, title, value, default, why}`` of every field that is not its default, and of those that a sweep confirmed; references
    are told elsewhere."""
    from studio.registry import method

    values = recipe_of(row)
    try:
        specs = fields(method(row["kind"], row["method"]).Recipe)
    except StudioError:  # of a plugin that is no longer there
        return []
    preset, sweep = nearest_preset(row, values), of_sweep(row)
    found = []
    for spec in specs:
        value = values.get(spec.name)
        swept = bool(sweep) and sweep["params"].get(spec.name) == value and spec.name in sweep["params"]
        if spec.name in OBVIOUS or value == spec.default and not swept:
            continue
        if swept:
            why = sweep["why"]
        elif preset and preset["values"].get(spec.name) == value:
            why = f"preset '{preset['title']}'"
        else:
            why = "set by hand"
        found.append({"name": spec.name, "title": spec.title, "value": value, "default": spec.default, "why": why})
    if offer := (row["summary"] or {}).get("offer"):
        for one in found:
            if one["name"] in offer:
                one["why"] = "lowered because the memory was full"
    return found


def nearest_preset(row: dict[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    """The preset of the same method that most of whose settings the run has."""
    from studio.api.recipes import presets

    best, least = None, (_NEAR, 0)
    for preset in presets(row["kind"]):
        own = {key: value for key, value in preset["values"].items() if key not in OBVIOUS}
        if preset["values"].get("method") != row["method"] or not own:
            continue
        hits = sum(values.get(key) == value for key, value in own.items())
        if (hits / len(own), hits) > least:
            best, least = preset, (hits / len(own), hits)
    return best


def of_sweep(row: dict[str, Any]) -> dict[str, Any] | None:
    """The sweep whose trial this run is, or whose best settings it has: ``{params, why, run}``."""
    from studio.jobs import store

    values = recipe_of(row)
    if row["parent"]:
        try:
            parent = store.get(row["parent"])
        except StudioError:
            return None
        return _told(parent, row, values) if parent["kind"] == "sweep" else None
    for sweep in store.find(kind="sweep", owner=row["owner"]):
        base = (sweep["recipe"] or {}).get("recipe") or {}
        same = all(base.get(key) in (None, values.get(key)) for key in ("kind", "method", "model", "dataset"))
        if same and (sweep["ended"] or 0) <= row["created"] and (told := _told(sweep, row, values)):
            return told
    return None


def _told(sweep: dict[str, Any], row: dict[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    summary = sweep["summary"] or {}
    best = summary.get("best_params") or {}
    label = sweep["name"] or f"sweep {sweep['id']}"
    if best and all(values.get(key) == value for key, value in best.items()):
        value = summary.get("best_value")
        told = f" ({summary.get('metric')} {value:.4g})" if isinstance(value, (int, float)) else ""
        return {"params": best, "run": sweep["id"], "why": f"best of {len(summary.get('trials') or [])} trials of '{label}'{told}"}
    varied = {axis.get("field"): values.get(axis.get("field")) for axis in (sweep["recipe"] or {}).get("space") or [] if isinstance(axis, dict)}
    return {"params": varied, "run": sweep["id"], "why": f"varied by '{label}'"} if row["parent"] == sweep["id"] else None


def estimated(row: dict[str, Any]) -> str:
    """What the studio says before such a run starts, beside what it took; empty where it says nothing."""
    from studio import hardware
    from studio.evals.reporting.blocks import duration
    from studio.recipe import parse
    from studio.registry import method

    try:
        made = method(row["kind"], row["method"]).estimate(parse(row["recipe"]))
    except StudioError:  # its data or its model is gone
        return ""
    parts = [f"{made.steps:,} steps" if made.steps else "", duration(made.seconds) if made.seconds else "",
             f"{hardware.size(made.memory)} of memory" if made.memory else ""]
    said = ", ".join(part for part in parts if part)
    took = (row["summary"] or {}).get("seconds") or ((row["ended"] - row["started"]) if row["ended"] and row["started"] else None)
    notes = " ".join(made.notes[:3])
    return f"Estimated: {said}; it took {duration(took)}. {notes}".strip() if said else notes
