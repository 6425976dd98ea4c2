"""What a report tells, gathered from chosen runs: their lineage, their curves, their evaluations. No words are put together here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from studio import series, settings
from studio.errors import StudioError
from studio.evals import analysis, finished
from studio.jobs import store
from studio.library import artifacts

MAKES = ("pretrain", "sft", "align", "merge", "quantize")
MOST_POINTS = 600  # of one curve
_DATA = ("data", "dataset", "validation", "calibration")


@dataclass
class Facts:
    """Attributes:
    runs: Every run told of, the oldest first.
    making: Those that made models.
    evaluations: Those with results.
    analyses: (run, error analysis) of those.
    models: Reference -> artifact of what the runs made.
    subject: Reference of the model the report is about, or empty.
    nodes, edges: The family of the models, placed.
    """

    runs: list[dict[str, Any]]
    making: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[finished.Evaluation] = field(default_factory=list)
    analyses: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    subject: str = ""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)


def gathered(ids: list[str], subject: str = "", ancestors: bool = True) -> Facts:
    """Everything of these runs.

    Args:
        subject: Reference of the model it is about; empty: what the last of the runs made, or the last model evaluated.
        ancestors: Tell of the runs as well that made the models evaluated, and their ancestors.

    Raises:
        StudioError: an unknown run (``runs``).
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in ids:
        try:
            rows[run] = store.get(run)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "runs") from err
    found = Facts(runs=[])
    found.evaluations = [made for row in rows.values() if (made := _evaluation(row))]
    wanted = [model["ref"] for one in found.evaluations for model in one.models]
    wanted += [one["ref"] for row in rows.values() for one in artifacts.listed(("model", "adapter"), run_id=row["id"])]
    _family(found, [*wanted, *([subject] if subject else [])])
    if ancestors:
        for row in found.models.values():
            if row["run_id"] and row["run_id"] not in rows:
                try:
                    rows[row["run_id"]] = store.get(row["run_id"])
                except StudioError:
                    continue  # the run was removed, its model stayed
    found.runs = sorted(rows.values(), key=lambda row: row["created"])
    found.making = [row for row in found.runs if row["kind"] in MAKES]
    for row in found.runs:
        if (row["kind"], row["method"]) == ("eval", "analyse") and row["state"] == "succeeded":
            found.analyses.append((row, analysis.read(row["id"])))
    found.subject = subject or _subject(found)
    found.labels |= {model["ref"]: model["label"] for one in found.evaluations for model in one.models}
    return found


def _evaluation(row: dict[str, Any]) -> finished.Evaluation | None:
    try:
        return finished.opened(row["id"])
    except StudioError:
        return None


def _subject(found: Facts) -> str:
    made = [ref for row in reversed(found.making) for ref, one in found.models.items() if one["run_id"] == row["id"]]
    if made:
        return made[0]
    return found.evaluations[-1].models[-1]["ref"] if found.evaluations and found.evaluations[-1].models else ""


def _family(found: Facts, refs: list[str]) -> None:
    """Models, and what each came from, upwards; data as they were used."""
    from studio.api.family import _outsider, arranged

    nodes: dict[str, dict[str, Any]] = {}
    edges: list[dict[str, Any]] = []
    left = list(dict.fromkeys(refs))
    while left:
        ref = left.pop(0)
        if ref in nodes:
            continue
        try:
            row = artifacts.get(ref[8:].partition("#")[0]) if ref.startswith("library:") else None
        except StudioError:
            row = None
        if row:
            found.models |= {ref: row} if row["kind"] in ("model", "adapter") else {}
            nodes[ref] = {"ref": ref, "label": row["name"], "kind": row["kind"], "created": row["created"], "method": row["meta"].get("method", "")}
            parents = [(one["ref"], one["role"]) for one in row["parents"]]
        else:
            nodes[ref] = _outsider(ref, "data" if ref.startswith("shipped:") else "")
            parents = [(one["ref"], one["role"]) for one in artifacts.checkpoint_parents(ref)]
        for parent, role in parents:
            edges.append({"parent": parent, "child": ref, "role": role})
            if role in _DATA and parent not in nodes and not parent.startswith("library:"):
                nodes[parent] = _outsider(parent, role)
            elif parent not in nodes:
                left.append(parent)
    found.labels |= {ref: _named(ref, node["label"]) for ref, node in nodes.items()}
    for ref, node in nodes.items():
        node["label"] = found.labels[ref]
    placed = arranged(nodes, edges) if nodes else {"nodes": [], "edges": []}
    found.nodes, found.edges = placed["nodes"], placed["edges"]


def _named(ref: str, label: str) -> str:
    from studio.library.refs import shipped_datasets

    if ref.startswith("shipped:"):
        return shipped_datasets().get(ref[8:], {}).get("title", ref[8:])
    return label or ref


def curves(row: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Series of a run: name -> [(step, value)], what is no finite number left out."""
    told = series.snapshot(settings.run_dir(row["id"]), 0, MOST_POINTS)["series"]
    found = {name: [(step, value) for step, value in points if isinstance(value, (int, float))] for name, points in told.items()}
    return {name: points for name, points in found.items() if points}


def said(row: dict[str, Any]) -> dict[str, Any]:
    """Warnings and sample answers of a run: ``{warnings, samples}``."""
    told = series.snapshot(settings.run_dir(row["id"]), 0, 10)
    return {"warnings": told["warnings"], "samples": told["samples"]}


def seconds(row: dict[str, Any]) -> float | None:
    told = (row["summary"] or {}).get("seconds")
    if isinstance(told, (int, float)) and told > 0:
        return float(told)
    return row["ended"] - row["started"] if row["ended"] and row["started"] else None


def label(found: Facts, ref: str) -> str:
    return found.labels.get(ref) or (_named(ref, "") if ref else "")
