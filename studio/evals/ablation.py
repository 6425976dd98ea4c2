"""What changed in the recipe and what changed in the score, over any set of runs. No torch here."""

from __future__ import annotations

import json
import math
from typing import Any

from studio.errors import StudioError
from studio.evals import paired
from studio.evals.finished import Evaluation
from studio.recipe import Recipe, fields, parse

MOST = 60  # entries of one table
MOST_EFFECTS = 40
_BESIDE = ("name", "schema_version")
# Figures of a training run itself that are told beside the evaluations: which way is better.
OWN = {"eval_loss": False, "train_loss": False, "eval_reward": True, "eval_accuracy": True, "seconds": False, "tokens_per_second": True}
_COST = ("seconds", "tokens_per_second")


def table(rows: list[dict[str, Any]], evaluations: list[Evaluation], made: dict[str, list[str]], labels: dict[str, str],
          resamples: int = 1000) -> dict[str, Any]:
    """See :func:`studio.api.insight.ablation`.

    Args:
        rows: The runs, the first is what the others are compared with.
        evaluations: All that may be read, the newest first.
        made: Run -> references of the models it made.
        labels: Run -> what to call it.

    Raises:
        StudioError: fewer than two entries.
    """
    entries = _entries(rows, evaluations, made, labels)[:MOST]
    if len(entries) < 2:
        raise StudioError("An ablation needs at least two runs.", "Choose runs that differ in what you want to know about.", "runs")
    changed = changes([entry["recipe"] for entry in entries])
    known = _tasks(entries)
    scores = [_score(key, facts, entries, resamples) for key, facts in known.items()] + _own(entries)
    told = [{key: entry[key] for key in ("run", "label", "kind", "method", "state", "model")} for entry in entries]
    return {"entries": told, "fields": changed, "scores": scores, "effects": _effects(entries, changed, scores, resamples)}


def _entries(rows: list[dict[str, Any]], evaluations: list[Evaluation], made: dict[str, list[str]],
             labels: dict[str, str]) -> list[dict[str, Any]]:
    """One entry a run; one for each model of a run that is itself an evaluation."""
    by_run = {one.id: one for one in evaluations}
    newest: dict[tuple[str, str], tuple[Evaluation, int]] = {}
    for one in evaluations:
        for number, model in enumerate(one.models):
            for task in one.tasks:
                newest.setdefault((model["ref"], task), (one, number))
    found = []
    for row in rows:
        base = {"run": row["id"], "kind": row["kind"], "method": row["method"], "state": row["state"], "summary": row["summary"] or {},
                "recipe": recipe_of(row), "label": labels.get(row["id"]) or row["id"], "model": None}
        if own := by_run.get(row["id"]):
            for number, model in enumerate(own.models):
                recipe = {key: value for key, value in base["recipe"].items() if key != "models"} | {"model": model["ref"]}
                label = f"{model['label']}" if len(rows) == 1 else f"{model['label']} · {base['label']}"
                found.append(base | {"recipe": recipe, "model": model["ref"], "label": label,
                                     "evals": {task: (own, number) for task in own.tasks}})
        else:
            refs = made.get(row["id"], [])
            checkpoints = sorted({ref for ref, _ in newest if ref.startswith(f"run:{row['id']}/")}, reverse=True)
            found.append(base | {"evals": {task: newest[ref, task] for ref in [*checkpoints, *refs] for _, task in newest
                                           if (ref, task) in newest}})
    return found


def recipe_of(row: dict[str, Any]) -> dict[str, Any]:
    """Every field of a run's recipe, those that were left alone with the defaults of today."""
    values = dict(row["recipe"] or {})
    try:
        return parse(values).to_dict()
    except StudioError:  # of a method that is no longer there, or an older form of it
        return values


def changes(recipes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fields that are not the same in all recipes: ``{name, title, values, default}``; ``None`` where a method has no such field."""
    specs: dict[str, Any] = {}
    for recipe in recipes:
        specs |= {spec.name: spec for spec in fields(cls)} if (cls := _class(recipe)) else {}
    names = dict.fromkeys(["kind", "method", *specs, *(name for recipe in recipes for name in recipe)])
    found = []
    for name in names:
        values = [recipe.get(name) for recipe in recipes]
        if name in _BESIDE or len({_text(value) for value in values}) == 1:
            continue
        spec = specs.get(name)
        found.append({"name": name, "title": spec.title if spec else name.capitalize(), "values": values,
                      "default": spec.default if spec else None})
    return found


def _class(recipe: dict[str, Any]) -> type[Recipe] | None:
    from studio.registry import method

    try:
        return method(str(recipe.get("kind")), str(recipe.get("method"))).Recipe
    except StudioError:
        return None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _tasks(entries: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(task, main metric) -> facts, of tasks that at least two entries were asked, or one where no task has two."""
    counted: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        for task, (one, _) in entry["evals"].items():
            facts = one.tasks[task]
            kept = counted.setdefault((task, facts["main"]), {"title": facts["title"], "n": 0} | facts["metrics"].get(facts["main"], {}))
            kept["n"] += 1
    several = {key: facts for key, facts in counted.items() if facts["n"] > 1}
    return several or counted


def _score(key: tuple[str, str], facts: dict[str, Any], entries: list[dict[str, Any]], resamples: int) -> dict[str, Any]:
    task, metric = key
    higher = facts.get("higher_is_better", True)
    values = []
    for entry in entries:
        score = entry["evals"][task][0].score(entry["evals"][task][1], task, metric) if task in entry["evals"] else None
        value = {"value": score["value"], "stderr": score["stderr"], "n": score["n"]} if score else None
        if value and entry is not entries[0]:
            value |= _change(entries[0], entry, task, metric, higher, resamples)
        values.append(value)
    return {"task": task, "title": facts["title"], "metric": metric, "higher_is_better": higher, "values": values, "best": _best(values, higher),
            "low_bound": facts.get("low"), "high_bound": facts.get("high")}


def _change(one: dict[str, Any], two: dict[str, Any], task: str, metric: str, higher: bool, resamples: int) -> dict[str, Any]:
    """Delta from one entry to another, with its interval where both answered the same questions."""
    if task not in one["evals"] or task not in two["evals"]:
        return {}
    (a, x), (b, y) = one["evals"][task], two["evals"][task]
    left, right = a.score(x, task, metric), b.score(y, task, metric)
    if not left or not right or left["value"] is None or right["value"] is None:
        return {}
    return paired.change(a, x, b, y, task, metric, higher, resamples)


def _best(values: list[dict[str, Any] | None], higher: bool) -> int | None:
    known = [(one["value"], number) for number, one in enumerate(values) if one and one["value"] is not None]
    if len(known) < 2 or len({value for value, _ in known}) < 2:
        return None
    return (max if higher else min)(known)[1]


def _own(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the runs themselves measured. Losses on other data do not compare, so they are told only where the data are the same."""
    found = []
    for name, higher in OWN.items():
        if name not in _COST and len({_text((e["recipe"].get("eval_dataset"), e["recipe"].get("dataset"))) for e in entries}) > 1:
            continue
        raw = [entry["summary"].get(name) if entry["model"] is None else None for entry in entries]
        known = [value for value in raw if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)]
        if len(known) < 2:
            continue
        values = [{"value": value, "stderr": None, "n": None} if value in known else None for value in raw]
        first = values[0]
        for value in values[1:]:
            if value and first:
                delta = value["value"] - first["value"]
                value |= {"delta": delta, "low": None, "high": None, "sure": False, "worse": (delta < 0) == higher and delta != 0}
        found.append({"task": "", "title": "", "metric": name, "higher_is_better": higher, "values": values,
                      "best": _best(values, higher), "low_bound": None, "high_bound": None})
    return found


def _effects(entries: list[dict[str, Any]], changed: list[dict[str, Any]], scores: list[dict[str, Any]], resamples: int) -> list[dict[str, Any]]:
    """Pairs of entries that differ in one field alone: there the change of the score is that field's doing (and chance's)."""
    found = []
    for a in range(len(entries)):
        for b in range(a + 1, len(entries)):
            differ = [field for field in changed if _text(field["values"][a]) != _text(field["values"][b])]
            if len(differ) != 1 or len(found) >= MOST_EFFECTS:
                continue
            told = []
            for score in scores:
                left, right = score["values"][a], score["values"][b]
                if not left or not right or left["value"] is None or right["value"] is None:
                    continue
                delta = right["value"] - left["value"]
                line = {"delta": delta, "low": None, "high": None, "sure": False, "worse": (delta < 0) == score["higher_is_better"] and delta != 0}
                if score["task"]:
                    line |= _change(entries[a], entries[b], score["task"], score["metric"], score["higher_is_better"], resamples)
                told.append({"task": score["task"], "metric": score["metric"], "title": score["title"]} | line)
            if told:
                field = differ[0]
                found.append({"field": field["name"], "title": field["title"], "a": a, "b": b, "from": field["values"][a],
                              "to": field["values"][b], "scores": told})
    return found
