"""Finished runs for the tests: rows of the queue, folders with results and events, artifacts; without computing anything."""

from __future__ import annotations

import time
from typing import Any

from studio import settings
from studio.evals.results import NUMBER, SHARE, Results, Sample
from studio.jobs import store
from studio.jobs.context import Context
from studio.jobs.files import write_json
from studio.library import artifacts
from studio.recipe import parse


def finished(values: dict[str, Any], work: Any, seconds: float = 10.0, parent: str | None = None, owner: str | None = None,
             tag: str = "") -> tuple[str, list[dict]]:
    """(id, artifacts) of a run whose ``work(recipe, ctx)`` was done in this process and gave its summary."""
    recipe = parse(values)
    run = store.submit(recipe, owner, parent, tag)
    ctx = Context(settings.run_dir(run["id"]))
    summary = work(recipe, ctx)
    ctx.close()
    write_json(ctx.run_dir / "result.json", {"state": "succeeded", "summary": summary, "artifacts": ctx.artifacts})
    store.claim(1)
    store.close(run["id"], "succeeded", summary=summary)
    now = time.time()
    store.note(run["id"], started=now - seconds, ended=now)
    return run["id"], artifacts.register_run(store.get(run["id"]), {"artifacts": ctx.artifacts})


def evaluated(models: dict[str, str], tasks: dict[str, dict[str, list[Sample]]], name: str = "", owner: str | None = None,
              corpus: dict | None = None, more: dict | None = None) -> str:
    """A finished evaluation: ``models`` are reference -> label, ``tasks`` task -> {reference: samples}; its run's id."""
    def work(recipe: Any, ctx: Context) -> dict[str, Any]:
        results = Results(ctx, recipe)
        for ref, label in models.items():
            number = results.model(ref, label)
            for task, answers in tasks.items():
                if ref not in answers:
                    continue
                metric = next(iter(answers[ref][0].scores))
                results.task(task, task.capitalize(), metric, {metric: NUMBER if metric in ("bleu", "words") else SHARE})
                results.add(number, task, answers[ref], (corpus or {}).get((ref, task)))
        return results.finish([("shipped:sums", "data")])

    values = {"kind": "eval", "method": "compare", "models": list(models), "name": name} | (more or {})
    return finished(values, work, owner=owner)[0]


def answers(right: list[float], metric: str = "exact_match", prompt: str = "Question {i}?", target: str = "{i}", wrong: str = "no",
            tags: Any = None) -> list[Sample]:
    """One sample for each score; where it is 1 the answer is the target."""
    return [Sample(str(i), prompt.format(i=i), target.format(i=i) if score >= 1 else wrong, target.format(i=i), {metric: score},
                   tags(i) if tags else {}) for i, score in enumerate(right)]
