"""Evaluations: what there is to measure, the scores of a run, its answers side by side, and a model against what it came from."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope
from studio.errors import StudioError

_NO_MODEL = ("data", "dataset", "validation", "tokenizer", "teacher", "scored")  # roles of what is no ancestor of the weights


def eval_methods() -> list[dict[str, Any]]:
    """The evaluating methods with their fields, as :func:`studio.api.methods` gives them."""
    from studio.api.recipes import methods

    return methods("eval")


def look_methods() -> list[dict[str, Any]]:
    """The methods that look inside a model, with their fields, as :func:`studio.api.methods` gives them."""
    from studio.api.recipes import methods

    return methods("look")


def eval_tasks(owner: str | None = None) -> list[dict[str, Any]]:
    """What models can be asked: the studio's suite, a person's own benchmarks, well-known tasks of lm-evaluation-harness.

    Returns:
        ``{name, title, about, kind, items, source, main}`` each; ``kind`` is ``choice``, ``text`` or ``loss``, ``source``
        ``suite``, ``own`` or ``harness``, ``items`` how many questions where it is known.
    """
    from studio.evals import tasks

    return tasks.catalogue(scope(owner))


def eval_runs(owner: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """Evaluations and looks inside models, the newest first: ``{id, kind, method, title, label, state, created, ended, models, tasks}``, the last two as words."""
    from studio.api.library import models
    from studio.api.runs import runs

    known = {model["ref"]: model["label"] for model in models(owner)}
    found = []
    for run in sorted([*runs("eval", owner, limit), *runs("look", owner, limit)], key=lambda run: run["created"], reverse=True)[:limit]:
        table, tasks = (run["summary"] or {}).get("table") or [], (run["summary"] or {}).get("tasks") or {}
        asked = [known.get(str(ref), str(ref)) for ref in run["recipe"].get("models") or [run["recipe"].get("model")] if ref]
        found.append({key: run[key] for key in ("id", "kind", "method", "label", "state", "created", "ended", "parent")}
                     | {"models": [line.get("label") or line.get("model") for line in table] or asked,
                        "tasks": [task.get("title") or name for name, task in tasks.items()] if isinstance(tasks, dict) else []})
    return found


def eval_results(run: str, owner: str | None = None) -> dict[str, Any]:
    """The scores of a run as far as it is.

    Returns:
        ``{method, models: [{ref, label}], tasks: {name: {title, main, metrics}}, scores: [{model, task, metric, value, stderr,
        n}], facts, whole, answers}``; ``model`` is a place in ``models``, ``whole`` says that the scores are final,
        ``answers`` that :func:`eval_samples` has something to show.

    Raises:
        StudioError: there is no such run, or it is another person's.
    """
    from studio.evals import browse

    return browse.figures(_row(run, owner))


def eval_samples(run: str, owner: str | None = None, task: str = "", models: list[int] | None = None, where: str = "all",
                 text: str = "", tag: str = "", offset: int = 0, limit: int = 20, order: str = "") -> dict[str, Any]:
    """Questions of one task with the answers of several models side by side; see :func:`studio.evals.browse.answers`.

    Raises:
        StudioError: there is no such run, task, model or filter.
    """
    from studio.evals import browse

    return browse.answers(_row(run, owner), task, models, where, text, tag, offset, limit, order)


def eval_against(ref: str, owner: str | None = None) -> dict[str, Any]:
    """What a model made here is compared with: what it came from, on rows that it was not trained on.

    Args:
        ref: ``library:ID`` or ``run:ID/checkpoint-N``.

    Returns:
        ``{model: {ref, label}, bases: [{ref, label}], held_out: {ref, kind, rows} | None, note}``; ``bases`` nearest first,
        empty for a model that was made from nothing; ``note`` says why there are no held-out rows where reading them failed.

    Raises:
        StudioError: no such model, or another person's.
    """
    from studio.evals import held_out
    from studio.jobs import store
    from studio.library import artifacts, refs

    refs.check_owner(ref, scope(owner), "models")
    model = refs.resolve_model(ref)
    kind, _, rest = ref.partition(":")
    if kind == "library":
        made = artifacts.get(rest.partition("#")[0])
        run_id, near = made["run_id"], [parent["ref"] for parent in sorted(made["parents"], key=lambda one: one["role"] != "base")
                                        if parent["role"] not in _NO_MODEL]
    else:
        run_id, near = rest.partition("/")[0] if kind == "run" else None, []
    row, note, held = None, "", None
    if run_id:
        try:
            row = store.get(run_id)
        except StudioError:
            pass  # its run was removed; the model stays
    if row:
        near = near or [ref for ref in [(row["recipe"] or {}).get("model")] if ref and kind == "run"]
        try:
            held = held_out.of_run(row, scope(owner))
        except StudioError as err:
            note = f"{err.message} {err.hint}".strip()
    bases = []
    for one in [*near, *([model.base] if model.base else [])]:
        try:
            found = {"ref": one, "label": refs.resolve_model(one).label}
        except StudioError:
            continue  # deleted since
        if found not in bases:
            bases.append(found)
    return {"model": {"ref": ref, "label": model.label}, "bases": bases, "held_out": held, "note": note}


def _row(run: str, owner: str | None) -> dict[str, Any]:
    from studio.jobs import store

    row = store.get(run)
    if scope(owner) not in (None, row["owner"]):
        raise StudioError(f"There is no run {run}.", "It may have been removed; see the list of runs.", "run")
    return row
