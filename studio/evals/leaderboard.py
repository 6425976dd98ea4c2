"""All models of the workspace by what evaluations found, with where each came from and what it cost. No torch here."""

from __future__ import annotations

from collections import Counter
from typing import Any

from studio.evals.finished import Evaluation
from studio.evals.results import COLUMN

# What makes scores of one task comparable, of the recipes that have it.
SETTINGS = ("num_fewshot", "limit", "samples", "apply_chat_template", "system_instruction", "max_new_tokens", "max_gen_toks")
HELD_OUT = "heldout"  # a task whose questions are those of the recipe's dataset
_DATA_ROLES = ("data", "dataset", "validation", "calibration")


def board(models: list[dict[str, Any]], evaluations: list[Evaluation], runs: dict[str, dict[str, Any]], edges: dict[str, list[tuple[str, str]]],
          names: dict[str, str], places: dict[str, str] | None = None) -> dict[str, Any]:
    """See :func:`studio.api.insight.leaderboard`.

    Args:
        models: As :func:`studio.api.models` gives them.
        evaluations: The newest first.
        runs: All runs by id.
        edges: Reference -> (reference, role) of what it was made from.
        names: Reference -> name, of everything known.
        places: Run -> where it computed, for those that were not on this machine.
    """
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    tasks: dict[str, dict[str, Any]] = {}
    labels: dict[str, str] = {}
    for one in evaluations:
        for number, model in enumerate(one.models):
            if model["ref"].startswith(COLUMN):
                continue
            labels.setdefault(model["ref"], model["label"])
            for task, facts in one.tasks.items():
                if (score := one.score(number, task, facts["main"])) is None or score["value"] is None:
                    continue
                key, title = _column(one, task, facts, names)
                own = scores.setdefault(model["ref"], {})
                if key in own:
                    own[key]["times"] += 1
                    continue
                how = facts["metrics"].get(facts["main"], {})
                own[key] = {"value": score["value"], "stderr": score["stderr"], "n": score["n"], "run": one.id, "metric": facts["main"],
                            "settings": _settings(one), "times": 1, "made": one.figures.get("made")}
                tasks.setdefault(key, {"name": key, "task": task, "title": title, "metric": facts["main"],
                                       "higher_is_better": how.get("higher_is_better", True), "low": how.get("low"), "high": how.get("high")})
    _mark(scores, tasks)
    listed = {model["ref"]: model for model in models if model["kind"] != "checkpoint" or model["ref"] in scores}
    rows = [_row(ref, listed.get(ref), scores.get(ref, {}), runs, edges, names | labels, labels, places or {})
            for ref in [*listed, *(ref for ref in scores if ref not in listed)]]
    shared = _shared(rows, tasks)
    for row in rows:
        row["mean"] = sum(row["scores"][key]["value"] for key in shared) / len(shared) if shared and all(
            key in row["scores"] for key in shared) else None
    rows.sort(key=lambda row: (-(row["mean"] if row["mean"] is not None else -1), -len(row["scores"]), row["label"]))
    order = sorted(tasks.values(), key=lambda task: (-task["models"], task["title"]))
    return {"rows": rows, "tasks": order, "mean_of": shared}


def _column(one: Evaluation, task: str, facts: dict[str, Any], names: dict[str, str]) -> tuple[str, str]:
    """(key, title) of the column a score stands in; held-out sets of other data are other tasks."""
    data = str((one.run["recipe"] or {}).get("dataset") or "") if task == HELD_OUT else ""
    if not data:
        return task, facts["title"]
    return f"{task}@{data}", f"{facts['title']} · {names.get(data) or data.rpartition(':')[2].rpartition('/')[2]}"


def _settings(one: Evaluation) -> dict[str, Any]:
    recipe = one.run["recipe"] or {}
    return {name: recipe[name] for name in SETTINGS if recipe.get(name) not in (None, "")}


def _mark(scores: dict[str, dict[str, dict[str, Any]]], tasks: dict[str, dict[str, Any]]) -> None:
    """Say of each score whether it was measured like most of its column: metric, number of questions, settings."""
    for key, task in tasks.items():
        column = [own[key] for own in scores.values() if key in own]
        ways = Counter(_way(score) for score in column)
        usual = ways.most_common(1)[0][0]
        task["models"] = len(column)
        task["ways"] = len(ways)
        for score in column:
            score["differs"] = _way(score) != usual
        known = [score["value"] for score in column if not score["differs"] and score["metric"] == task["metric"]]
        task["best"] = (max if task["higher_is_better"] else min)(known) if len(set(known)) > 1 else None


def _way(score: dict[str, Any]) -> str:
    return repr((score["metric"], score["n"], sorted((key, str(value)) for key, value in score["settings"].items())))


def _shared(rows: list[dict[str, Any]], tasks: dict[str, dict[str, Any]]) -> list[str]:
    """Tasks scored from 0 to 1 that every evaluated model was asked: a mean over others would compare different things."""
    asked = [row for row in rows if row["scores"]]
    return [key for key, task in tasks.items() if task["low"] == 0.0 and task["high"] == 1.0 and task["higher_is_better"]
            and asked and all(key in row["scores"] for row in asked)]


def _row(ref: str, model: dict[str, Any] | None, scores: dict[str, Any], runs: dict[str, dict[str, Any]], edges: dict[str, list[tuple[str, str]]],
         names: dict[str, str], labels: dict[str, str], places: dict[str, str]) -> dict[str, Any]:
    model = model or {"label": labels.get(ref, ref), "kind": _outside(ref), "created": None, "size": None, "meta": {}, "id": None, "run_id": None}
    line = ancestors(ref, edges)
    made_by = dict.fromkeys(run for one in [ref, *line] if (run := _maker(one, runs, names)))
    own = _maker(ref, runs, names)
    costs = [_seconds(runs[run]) for run in made_by]
    main = [ref]
    while (parents := [p for p, role in edges.get(main[-1], []) if role not in _DATA_ROLES and p not in main]):
        main.append(next((p for p, role in edges[main[-1]] if role == "base" and p in parents), parents[0]))
    row = runs.get(own) if own else None
    return {"ref": ref, "label": model["label"], "kind": model["kind"], "id": model["id"], "run": own, "method": _method(model, row),
            "created": model["created"], "size": model["size"], "parameters": model["meta"].get("parameters"),
            "line": [{"ref": one, "label": names.get(one) or one.rpartition("/")[2] or one} for one in main[:0:-1]],
            "parents": [{"ref": p, "label": names.get(p) or p, "role": role} for p, role in edges.get(ref, [])],
            "cost": {"seconds": _seconds(row) if row else None, "all_seconds": sum(filter(None, costs)) if any(costs) else None,
                     "runs": len(made_by), "device": _device(row, places)}, "scores": scores}


def _method(model: dict[str, Any], row: dict[str, Any] | None) -> str:
    return str(model["meta"].get("method") or "") or (f"{row['kind']}/{row['method']}" if row else "")


def ancestors(ref: str, edges: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Models that a model came from, near ones first; data are no ancestors."""
    found: dict[str, None] = {}
    left = [ref]
    while left:
        for parent, role in edges.get(left.pop(0), []):
            if role not in _DATA_ROLES and parent not in found and parent != ref:
                found[parent] = None
                left.append(parent)
    return list(found)


def _maker(ref: str, runs: dict[str, dict[str, Any]], names: dict[str, str]) -> str | None:
    """The run that made a model; ``names`` also maps ``run of REF`` to it for artifacts."""
    run = ref[4:].partition("/")[0] if ref.startswith("run:") else names.get(f"run of {ref}")
    return run if run in runs else None


def _seconds(row: dict[str, Any]) -> float | None:
    """Seconds of computing a run reports, else from its start to its end."""
    told = (row["summary"] or {}).get("seconds")
    if isinstance(told, (int, float)) and told > 0:
        return float(told)
    return row["ended"] - row["started"] if row["ended"] and row["started"] else None


def _device(row: dict[str, Any] | None, places: dict[str, str]) -> str:
    if row is None:
        return ""
    summary = row["summary"] or {}
    many = summary.get("processes")
    device = str(summary.get("device") or "")
    parts = [f"{many} × {device}".rstrip(" ×") if many and many > 1 else device, places.get(row["id"], "")]
    return " · ".join(part for part in parts if part)


def _outside(ref: str) -> str:
    """What a reference is that no list of models has."""
    head, _, _ = ref.partition(":")
    return {"library": "deleted", "run": "checkpoint", "hub": "hub", "http": "address", "https": "address"}.get(head, "path")
