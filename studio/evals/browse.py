"""What the page shows of one evaluation, finished or not: its scores, and its answers question by question. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.evals import finished, results
from studio.jobs.files import read_json

WHERE = ("all", "right", "wrong", "worse", "better", "flips")
ORDERS = ("", "worst", "change")
MOST_TEXT, MOST_ROWS, MOST_TAGS = 12_000, 100, 60  # characters of one text, questions of a page, values of one tag
_PLAIN = ("model", "label")
_LESS = ("perplexity", "loss", "bits_per_byte")
_BESIDE = ("tokens_per_second", "loss", "seconds")  # of the line, but no score of the answers
_parts: dict[str, tuple[int, list[dict[str, Any]]]] = {}


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """Scores of a run as far as it is: ``{method, models, tasks, scores, facts, whole}``; empty lists before its first pair.

    ``whole`` says whether they are final. Answers are there (:func:`answers`) where ``answers`` is true.
    """
    folder = settings.run_dir(row["id"])
    if row["kind"] == "look":
        return _inside(row)
    if found := results.opened(folder / "output"):
        return found | {"whole": True, "answers": (folder / "output" / results.SAMPLES).is_file()}
    plan = read_json(folder / results.PLAN)
    if plan:
        scores = [{"model": model, "task": task, "metric": metric, "value": value, "stderr": error, "n": count}
                  for model, task, kept in _kept(folder, plan) for metric, (value, error, count) in kept["scores"].items()]
        return plan | {"scores": scores, "facts": {}, "whole": False, "answers": bool(scores)}
    return _of_table(row) | {"answers": False}


def _inside(row: dict[str, Any]) -> dict[str, Any]:
    """A look inside one model: no scores, all of it ``facts``."""
    from studio.library import refs
    from studio.look import inside

    found = inside.found(settings.run_dir(row["id"]) / "output")
    ref = str((row["recipe"] or {}).get("model") or "")
    try:
        model = found["model"] if found else {"ref": ref, "label": refs.resolve_model(ref).label}
    except StudioError:
        model = {"ref": ref, "label": ref}
    return {"method": f"{row['kind']}/{row['method']}", "models": [model], "tasks": {}, "scores": [], "facts": found["facts"] if found else {},
            "whole": bool(found), "answers": False}


def _of_table(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run that kept a table alone, as the first comparisons did."""
    table = (row.get("summary") or {}).get("table") or []
    names = [name for name in (table[0] if table else {}) if name not in _PLAIN and not name.endswith("_stderr")
             and name not in _BESIDE and any(isinstance(line.get(name), (int, float)) for line in table)]
    metrics = {name: {"higher_is_better": name not in _LESS} for name in names}
    scores = [{"model": number, "task": "heldout", "metric": name, "value": line.get(name), "stderr": line.get(f"{name}_stderr"),
               "n": (row.get("summary") or {}).get("samples")} for number, line in enumerate(table) for name in names]
    tasks = {"heldout": {"title": "", "main": names[0], "metrics": metrics}} if names else {}
    return {"method": f"{row['kind']}/{row['method']}", "models": [{"ref": line["model"], "label": line.get("label") or line["model"]}
                                                                    for line in table],
            "tasks": tasks, "scores": scores, "facts": {}, "whole": row["state"] == "succeeded"}


def _kept(folder: Any, plan: dict[str, Any]) -> Iterable[tuple[int, str, dict[str, Any]]]:
    for number in range(len(plan["models"])):
        for task in plan["tasks"]:
            if kept := read_json(results.place(folder / results.KEPT, number, task)):
                yield number, task, kept


def lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """All answers of a run as far as it is, each ``{model, task, **Sample}``. Not to be changed."""
    folder = settings.run_dir(row["id"])
    if results.opened(folder / "output"):
        return finished.lines(folder / "output")
    plan = read_json(folder / results.PLAN)
    if not plan:
        return []
    stamp = max((os.stat(path).st_mtime_ns for path in (folder / results.KEPT).glob("*.json")), default=0)
    if _parts.get(row["id"], (None,))[0] != stamp:
        _parts.clear()  # one running evaluation is looked at, as a rule
        _parts[row["id"]] = stamp, [{"model": model, "task": task} | line
                                    for model, task, kept in _kept(folder, plan) for line in kept["samples"]]
    return _parts[row["id"]][1]


def answers(row: dict[str, Any], task: str = "", models: list[int] | None = None, where: str = "all", text: str = "",
            tag: str = "", offset: int = 0, limit: int = 20, order: str = "") -> dict[str, Any]:
    """Questions of one task with the answers of some models side by side.

    Args:
        task: Name of the task; the first that has answers where it is empty.
        models: Places of the models; all where it is empty. The first is what ``worse`` and ``better`` compare with.
        where: ``right`` or ``wrong`` (of any of the models; only where every score is 0 or 1), ``worse`` or ``better`` than
            the first model's, ``flips``: the models' scores differ; ``all``.
        text: Words to be found in a question, a right answer or an answer; case does not matter.
        tag: ``name=value``.
        order: ``worst`` score first, or the largest ``change`` from the first model; else as they were asked.

    Returns:
        ``{task, metric, higher, binary, models, total, counts: {where: n}, tags: {name: {value: n}}, rows: [{id, prompt,
        target, tags, answers: [{model, answer, score, right, scores, more, prompt}]}]}``; ``counts`` are of what text and tag
        leave. A prompt stands with an answer only where that model saw another one.

    Raises:
        StudioError: a task or a model that is not of this run, or a filter that there is not.
    """
    if where not in WHERE or order not in ORDERS:
        raise StudioError("There is no such filter.", f"Choose one of {', '.join(WHERE)}.", "where")
    found, every = figures(row), lines(row)
    asked = list(dict.fromkeys(line["task"] for line in every))
    task = task or (asked[0] if asked else "")
    if task and task not in found["tasks"]:
        raise StudioError(f"This evaluation has no task '{task}'.", "Choose one of its tasks.", "task")
    chosen = list(dict.fromkeys(models or range(len(found["models"]))))
    if any(not 0 <= number < len(found["models"]) for number in chosen):
        raise StudioError("This evaluation did not ask that model.", "Choose some of its models.", "models")
    about = found["tasks"].get(task) or {"main": "", "metrics": {}}
    metric = about["main"]
    questions: dict[str, dict[int, dict[str, Any]]] = {}
    for line in every:
        if line["task"] == task and line["model"] in chosen:
            questions.setdefault(line["id"], {})[line["model"]] = line
    seen = {name for by in questions.values() for line in by.values() for name in line["scores"]}
    if metric not in seen and seen:  # the main one is of the whole, as a corpus BLEU: questions are told apart by another
        metric = next((name for name in about["metrics"] if name in seen), min(seen))
    higher = about["metrics"].get(metric, {}).get("higher_is_better", True)
    scores = {id: {number: line["scores"].get(metric) for number, line in by.items()} for id, by in questions.items()}
    values = {value for by in scores.values() for value in by.values() if value is not None}
    binary = bool(values) and values <= {0, 1, 0.0, 1.0} and higher
    name, _, wanted = tag.partition("=")
    words = text.strip().lower()
    tags: dict[str, dict[str, int]] = {}
    kept: list[str] = []
    for id, by in questions.items():
        if words and not any(words in part.lower() for line in by.values() for part in (line["prompt"], line["answer"], line["target"])):
            continue
        own = next(iter(by.values()))["tags"]
        for key, value in own.items():
            tags.setdefault(key, {})
            tags[key][value] = tags[key].get(value, 0) + 1
        if not tag or own.get(name) == wanted:
            kept.append(id)
    judged = {id: _kinds(scores[id], chosen, higher, binary) for id in kept}
    counts = {kind: sum(kind in judged[id] for id in kept) for kind in WHERE}
    shown = [id for id in kept if where in judged[id]]
    if order:
        shown.sort(key=lambda id: _rank(scores[id], chosen, higher, order))
    limit = max(1, min(int(limit), MOST_ROWS))
    rows = [_row(id, questions[id], chosen, scores[id], binary) for id in shown[max(0, offset):max(0, offset) + limit]]
    return {"task": task, "metric": metric, "higher": higher, "binary": binary, "models": chosen, "total": len(shown),
            "counts": counts, "asked": asked, "rows": rows,
            "tags": {key: dict(sorted(by.items(), key=lambda pair: -pair[1])[:MOST_TAGS]) for key, by in tags.items()}}


def _kinds(by: dict[int, float | None], chosen: list[int], higher: bool, binary: bool) -> set[str]:
    known = [value for value in by.values() if value is not None]
    kinds = {"all"}
    if binary:
        kinds |= {"right" if value else "wrong" for value in known}
    if len(set(known)) > 1:
        kinds.add("flips")
    first = by.get(chosen[0]) if chosen else None
    for number, value in by.items():
        if first is not None and value is not None and number != chosen[0] and value != first:
            kinds.add("better" if (value > first) == higher else "worse")
    return kinds


def _rank(by: dict[int, float | None], chosen: list[int], higher: bool, order: str) -> float:
    known = [value if higher else -value for value in by.values() if value is not None]
    if order == "worst":
        return min(known, default=float("inf"))
    first = by.get(chosen[0])
    return -max((abs(value - first) for value in by.values() if None not in (value, first)), default=-1.0)


def _row(id: str, by: dict[int, dict[str, Any]], chosen: list[int], scores: dict[int, float | None], binary: bool) -> dict[str, Any]:
    one = next(by[number] for number in chosen if number in by)
    made = []
    for number in chosen:
        if number not in by:
            continue
        line, score = by[number], scores[number]
        made.append({"model": number, "answer": line["answer"][:MOST_TEXT], "score": score, "scores": line["scores"],
                     "right": bool(score) if binary and score is not None else None, "more": line["more"],
                     "prompt": line["prompt"][:MOST_TEXT] if line["prompt"] != one["prompt"] else ""})
    return {"id": id, "prompt": one["prompt"][:MOST_TEXT], "target": one["target"][:MOST_TEXT], "tags": one["tags"], "answers": made}
