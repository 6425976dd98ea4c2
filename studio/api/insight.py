"""What evaluations say together: differences of two models, groups of failures, ablations, the leaderboard."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope
from studio.errors import StudioError


def eval_pairs(a: dict[str, Any], b: dict[str, Any], owner: str | None = None) -> list[dict[str, Any]]:
    """Two models on the questions that both were asked.

    Args:
        a, b: ``{"run": id, "model": its place in the run or its reference}``; the runs may be two.

    Returns:
        A line for each task and metric: ``{task, title, metric, main, a, b, delta, low, high, p, n, sure, worse, better_answers,
        worse_answers, same, left_out, higher_is_better, low_bound, high_bound, flips: [{id, kind, prompt, target, a, b, a_score, b_score, tags}]}``.
        ``delta`` is b minus a, ``low`` to ``high`` its 95 % paired bootstrap interval; ``sure`` where that does not hold 0,
        ``worse`` where b is worse. Both are ``None`` where the figure is no mean over answers.

    Raises:
        StudioError: a run without results, or a model that it did not ask.
    """
    from studio.evals import finished, paired

    sides = [finished.opened(str(side.get("run") or ""), scope(owner)) for side in (a, b)]
    return paired.pairs(sides[0], sides[0].number(a.get("model", 0)), sides[1], sides[1].number(b.get("model", 0)))


def errors(run: str, owner: str | None = None) -> dict[str, Any]:
    """A finished error analysis.

    Returns:
        ``{sides: [{run, model, ref, label}], rules: {task: {title, metric, limit, words}}, questions, failed, by_all, topics, groups: [{id, by,
        name, title, questions, failed, rate, others, p, stands_out, sides: [{answers, failures}]}]}``; ``by`` is ``tag``, ``length``, ``topic``, ``task``
        or ``kind``; ``rate`` the share of the group's questions that a model failed, ``others`` that share elsewhere.

    Raises:
        StudioError: no such run, or no analysis.
    """
    from studio.evals import analysis

    _own(run, owner)
    return analysis.read(run)


def errors_answers(run: str, group: str = "", text: str = "", offset: int = 0, limit: int = 20,
                   owner: str | None = None) -> dict[str, Any]:
    """Failed questions of a group: ``{total, rows: [{task, id, question, prompt, target, tags, answers: [{side, answer, score, failed, kind}],
    failed, groups}]}``.

    Args:
        text: Only those with these words in question, answer or target.

    Raises:
        StudioError: no such run, or no analysis.
    """
    from studio.evals import analysis

    _own(run, owner)
    analysis.read(run)
    wanted = text.strip().lower()
    found = [row for row in analysis.failures(run, group) if not wanted or wanted in " ".join(
        [row["question"], row["target"], *(answer["answer"] for answer in row["answers"])]).lower()]
    offset, limit = max(0, offset), min(max(1, limit), 100)
    return {"total": len(found), "rows": found[offset:offset + limit]}


def errors_dataset(run: str, group: str = "", shape: str = "messages", name: str = "", owner: str | None = None) -> dict[str, Any]:
    """A group of failures as a new dataset with the right answers filled in: ``{ref, id, name, rows, left_out}``.

    Args:
        group: Id of the group; empty: every failure.
        shape: ``messages`` (to fine-tune on) or ``preference`` (right answers preferred to the wrong ones).

    Raises:
        StudioError: no such run, no analysis, or no right answer is known.
    """
    import secrets

    from studio import settings
    from studio.api.who import signed_in
    from studio.evals import analysis, mending
    from studio.library import artifacts

    person = signed_in(owner)
    _own(run, owner)
    told = analysis.read(run)
    if shape not in mending.SHAPES:
        raise StudioError(f"There is no shape '{shape}' for this.", f"Choose {' or '.join(mending.SHAPES)}.", "shape")
    one = next((each for each in told["groups"] if each["id"] == group), None)
    if group and one is None:
        raise StudioError("There is no such group in this analysis.", "Choose one of its groups.", "group")
    rows, left = mending.rows(analysis.failures(run, group), shape)
    if not rows:
        raise StudioError("No right answer is known for these questions.", "Write the answers by hand, or choose another group.", "group")
    folder = settings.home() / "datasets" / f"mend-{secrets.token_hex(5)}"
    step = {"method": "errors", "run": run, "group": one["title"] if one else "all", "shape": shape}
    version = mending.written(folder, rows, left, step)
    title = " ".join(name.split())[:80] or f"To mend: {one['title'] if one else 'all failures'}"[:80]
    made = artifacts.add("dataset", title, folder, owner=person, made_from=[(f"run:{run}", "analysed")], meta={
        "version": True, "stage": "final", "format": version.meta["format"], "rows": version.meta["rows"], "hash": version.hash,
        "summary": f"{len(rows):,} rows of failed questions"})
    return {"ref": made["ref"], "id": made["id"], "name": made["name"], "rows": len(rows), "left_out": left}


def ablation(runs: list[str], owner: str | None = None) -> dict[str, Any]:
    """What changed in the recipe and what changed in the score, over any set of runs. A sweep stands for its trials, an evaluation for
    each of its models.

    Args:
        runs: The first is what the others are compared with.

    Returns:
        ``{entries: [{run, label, kind, method, state, model}], fields: [{name, title, values, default}], scores: [{task, title, metric,
        higher_is_better, best, values: [{value, stderr, n, delta, low, high, p, sure, worse} | None]}], effects: [{field, title, a, b, from, to,
        scores: [{task, metric, delta, low, high, sure, worse}]}]}``. ``fields`` are those alone that are not the same everywhere; ``values``
        stand in the order of the entries; ``effects`` are pairs of entries that differ in one field; a score of task ``""`` is
        the run's own.

    Raises:
        StudioError: an unknown run, or fewer than two.
    """
    from studio.api.runs import _label
    from studio.evals import ablation as table
    from studio.evals import finished
    from studio.jobs import store
    from studio.library import artifacts

    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        row = _own(run, owner)
        found = sorted(store.find(parent=run, limit=1000), key=lambda one: one["created"]) if row["kind"] == "sweep" else [row]
        rows |= {one["id"]: one for one in found if one["state"] == "succeeded" or row["kind"] != "sweep"}
    made = {run: [one["ref"] for one in artifacts.listed(("model", "adapter"), run_id=run)] for run in rows}
    labels = {run: f"{row['tag']}" if row["parent"] and row["tag"] else row["name"] or _label(row) for run, row in rows.items()}
    for run in [run for run, label in labels.items() if list(labels.values()).count(label) > 1]:
        labels[run] = f"{labels[run]} · {run[-4:]}"
    return table.table(list(rows.values()), finished.every(scope(owner)), made, labels)


def leaderboard(owner: str | None = None) -> dict[str, Any]:
    """Every model of the workspace, and every one that was evaluated, with its newest score on each task.

    Returns:
        ``{tasks: [{name, task, title, metric, higher_is_better, low, high, models, ways, best}], mean_of: [task names], rows: [{ref, label, kind, id,
        run, method, created, size, parameters, line: [{ref, label}], parents: [{ref, label, role}], cost: {seconds, all_seconds, runs, device},
        mean, scores: {task name: {value, stderr, n, run, metric, settings, times, differs}}}]}``. ``line`` leads from the first ancestor to
        the model's base; ``all_seconds`` counts its ancestors' runs; ``mean`` is over the tasks of ``mean_of``, which all evaluated
        models were asked; ``differs`` marks a score that was measured unlike most of its column (questions, settings).
    """
    from studio.api.family import _library
    from studio.api.library import datasets, models
    from studio.evals import finished
    from studio.evals import leaderboard as board
    from studio.jobs import backends, store

    nodes, found = _library(owner, True)
    edges: dict[str, list[tuple[str, str]]] = {}
    for edge in found.values():
        edges.setdefault(edge["child"], []).append((edge["parent"], edge["role"]))
    every = models(owner)
    names = {ref: node["label"] for ref, node in nodes.items() if node["label"]} | {one["ref"]: one["label"] for one in [*datasets(owner), *every]}
    names |= {f"run of {one['ref']}": one["run_id"] for one in every if one["run_id"]}
    runs = {row["id"]: row for row in store.find(owner=scope(owner), limit=10_000)}
    places = {run: place for run, row in runs.items() if (place := backends.label(row["backend"]))}
    return board.board(every, finished.every(scope(owner)), runs, edges, names, places)




def insight_runs(owner: str | None = None, limit: int = 500) -> list[dict[str, Any]]:
    """Finished runs that can be compared, analysed, put into an ablation or reported, the newest first.

    Returns:
        ``{id, label, kind, method, title, state, ended, part, models: [{ref, label}], tasks: [titles]}``; ``models`` and ``tasks`` of evaluations with
        results alone; ``part`` is ``evaluation``, ``analysis``, ``report``, ``making`` or ``sweep``.
    """
    from studio import registry
    from studio.api.runs import _label
    from studio.evals import finished
    from studio.evals.reporting.facts import MAKES
    from studio.jobs import store

    known = {one.id: one for one in finished.every(scope(owner), limit)}
    parts = {"analyse": "analysis", "report": "report"}
    found = []
    for row in store.find(owner=scope(owner), limit=limit):
        one = known.get(row["id"])
        part = "evaluation" if one else parts.get(row["method"]) if row["kind"] == "eval" else "sweep" if row["kind"] == "sweep" else \
            "making" if row["kind"] in MAKES and not row["parent"] else None
        if part is None or row["state"] != "succeeded" and not (part == "making" and row["state"] == "stopped"):
            continue
        family = registry.FAMILIES.get(row["kind"])
        title = family.get(row["method"]).title if family and row["method"] in family else row["method"]
        found.append({"id": row["id"], "label": row["name"] or _label(row), "kind": row["kind"], "method": row["method"], "title": title,
                      "state": row["state"], "ended": row["ended"], "part": part,
                      "models": [{"ref": model["ref"], "label": model["label"]} for model in one.models] if one else [],
                      "tasks": [task["title"] or name for name, task in one.tasks.items()] if one else []})
    return found


def report(run: str, owner: str | None = None) -> dict[str, Any]:
    """A finished report: ``{title, made, pages, files: [{name, path, size}]}``; the first file is the one to open.

    Raises:
        StudioError: no such run, or no report.
    """
    from studio.evals import report as written

    _own(run, owner)
    found = written.read(run)
    files = [{"name": path.name, "path": str(path), "size": path.stat().st_size} for path in found["files"]]
    return {"title": found["title"], "made": found["made"], "pages": found["pages"], "files": files}


def _own(run: str, owner: str | None) -> dict[str, Any]:
    """A run this person may see.

    Raises:
        StudioError: if there is none.
    """
    from studio.jobs import store

    row = store.get(run)
    if scope(owner) not in (None, row["owner"]):
        raise StudioError(f"There is no run {run}.", "It may have been removed; see the list of runs.")
    return row
