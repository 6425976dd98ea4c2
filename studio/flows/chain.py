"""A chain: data, training, alignment, merge and whatever else there is, in the queue one after the other."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.flows import links
from studio.jobs.model import State
from studio.method import Estimate, Method
from studio.recipe import Recipe, field


class ChainRecipe(Recipe):
    """Fields of a chain."""

    kind: ClassVar[str] = "flow"
    method: ClassVar[str] = "chain"

    steps: list[dict[str, Any]] = field(
        [], "Steps", "Whole recipes, each with an id. A later step takes what an earlier one made by writing step: and its "
        "id in place of a model or dataset.", widget="hidden", max_length=30)


class Chain(Method):
    """Steps one after the other."""

    title = "Pipeline"
    summary = "Runs several recipes one after the other, each going on with what an earlier one made."
    Recipe = ChainRecipe

    @classmethod
    def inner(cls, recipe: ChainRecipe) -> list[Recipe]:
        """Every recipe whose references a person must own."""
        return [_without_links(step) for _, step in links.checked(recipe.steps)]

    @classmethod
    def check(cls, recipe: ChainRecipe) -> None:
        """Every step is refused now that would be refused then; what depends on an earlier result waits until it is there.

        Raises:
            StudioError: naming the step.
        """
        from studio import registry

        if not recipe.steps:
            raise StudioError("A pipeline needs steps.", "Add at least one recipe.", "steps")
        for number, (name, step) in enumerate(links.checked(recipe.steps), 1):
            if links.links(step):
                continue
            try:
                registry.method(step.kind, step.method).check(step)
            except StudioError as err:
                raise StudioError(f"Step {number} ({name}): {err.message}", err.hint, "steps") from err

    @classmethod
    def estimate(cls, recipe: ChainRecipe) -> Estimate:
        from studio import registry

        known = [registry.method(step.kind, step.method).estimate(step) for _, step in links.checked(recipe.steps)
                 if not links.links(step)]
        made = Estimate(notes=[f"{len(recipe.steps)} steps, one after the other."])
        if len(known) < len(recipe.steps):
            made.notes.append("What the later steps take is known when the earlier ones are through.")
            return made
        made.seconds = sum(one.seconds for one in known) if all(one.seconds is not None for one in known) else None
        made.memory = max((one.memory for one in known if one.memory), default=None)
        made.disk = sum(one.disk or 0 for one in known) or None
        return made

    @classmethod
    def run(cls, recipe: ChainRecipe, ctx: Any) -> dict[str, Any]:
        from studio.jobs import children

        steps = links.checked(recipe.steps)
        again = (State.FAILED, State.STOPPED, State.LOST)
        done = {row["tag"]: row for row in children.adopt(ctx, lambda row: row["state"] in again)}
        results: dict[str, str] = {}
        told: list[dict[str, Any]] = []
        for number, (name, step) in enumerate(steps):
            ctx.progress(number, len(steps))
            if ctx.stop_requested:
                break
            run_id = done[name]["id"] if name in done else cls._begin(step, name, number, results, ctx)
            row = cls._see_through(run_id, number, len(steps), ctx)
            told.append({"step": name, "run": run_id, "state": row["state"]})
            if ctx.stop_requested:
                break
            if row["state"] != State.SUCCEEDED:
                raise StudioError(f"Step {number + 1} ({name}) {_FAILED.get(row['state'], row['state'])}: {row['reason']}",
                                  f"{row['hint']} Resume goes on at this step.".strip())
            if made := _result(run_id, links.made_by(step.kind)):
                results[name] = told[-1]["result"] = made
        ctx.progress(len(results), len(steps))
        return {"steps": told, "results": results}

    @classmethod
    def _begin(cls, step: Recipe, name: str, number: int, results: dict[str, str], ctx: Any) -> str:
        from studio.jobs import children

        if missing := [target for _, target, _ in links.links(step) if target not in results]:
            raise StudioError(f"Step {number + 1} ({name}) goes on with what '{missing[0]}' makes, and that made nothing.",
                              "See the log of that step.", "steps")
        try:
            run_id = children.submit(ctx, links.filled(step, results), name)
        except StudioError as err:
            raise StudioError(f"Step {number + 1} ({name}): {err.message}", err.hint, "steps") from err
        ctx.log(f"Step {number + 1}: {name} is run {run_id}.")
        return run_id

    @classmethod
    def _see_through(cls, run_id: str, number: int, total: int, ctx: Any) -> dict[str, Any]:
        """Wait for a step; a stop of the pipeline stops it first."""
        from studio.jobs import children
        from studio.series import snapshot
        from studio.settings import run_dir

        row: dict[str, Any] = {"state": State.LOST, "reason": "Its run was removed.", "hint": ""}
        asked, looked = False, 0.0
        for rows in children.watch([run_id]):
            row = rows.get(run_id, row)
            if ctx.stop_requested and not asked:
                children.stop([run_id])
                asked = True
            if time.monotonic() - looked > 1:
                looked = time.monotonic()
                inner = snapshot(run_dir(run_id))["progress"] or {}
                share = min(1.0, inner["done"] / inner["total"]) if inner.get("total") else 0.0
                ctx.progress(number + share, total)
        return row


_FAILED = {State.FAILED: "failed", State.STOPPED: "was stopped", State.LOST: "was lost"}


def _result(run_id: str, kind: str | None) -> str | None:
    """Reference of the newest that a run left in the library."""
    from studio.library import artifacts

    kinds = {"dataset": ("dataset",), "model": ("model", "adapter")}.get(kind or "", ())
    return next((f"library:{row['id']}" for row in artifacts.listed(run_id=run_id) if row["kind"] in kinds), None)


def _without_links(step: Recipe) -> Recipe:
    from studio.recipe import parse

    return parse(step.referring({links.PREFIX + target: "" for _, target, _ in links.links(step)}))
