"""Several steps in one run: each reads what the one before it made, each leaves a version of its own in the library.

A pipeline is the history of a dataset written down: save it, change a step, run it on other rows. What was made before by
the same step from the same rows is taken from the library instead of being made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from studio.datasets import step as steps
from studio.datasets.step import Step, StepRecipe, Stopped
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import RecipeError, field, parse

if TYPE_CHECKING:
    from studio.jobs.context import Context

MOST = 50  # steps


class PipelineRecipe(StepRecipe):
    method = "pipeline"

    steps: list[dict[str, Any]] = field([], "Steps", "What is done, in order: the method of each step and its fields, "
                                        "e.g. {method: dedup}.", widget="hidden", max_length=MOST)

    @field_validator("steps")
    @classmethod
    def _known_steps(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, values in enumerate(value, 1):
            try:
                made = step_recipe(values)
            except StudioError as err:
                where = f", {err.field}" if err.field else ""
                raise ValueError(f"step {number} ({values.get('method', 'no method')}{where}): {err.message}") from err
            if made.method == cls.method:
                raise ValueError(f"step {number} is a pipeline itself; write its steps here instead")
            if not issubclass(method_of(made), Step):
                raise ValueError(f"step {number} ({made.method}) makes no dataset; start it by itself")
        return value


class Pipeline(Method):
    title, summary = "Pipeline", "Runs several steps one after the other; unchanged ones are taken from the library."
    Recipe = PipelineRecipe

    @classmethod
    def check(cls, recipe: PipelineRecipe) -> None:
        if not recipe.steps:
            raise StudioError("A pipeline needs at least one step.", "Add one, e.g. 'method: dedup'.", "steps")
        first = step_recipe(recipe.steps[0])
        if not recipe.dataset and not method_of(first).starts:
            raise StudioError("No dataset is chosen.", "Choose one, or begin with a step that brings rows in.", "dataset")
        if recipe.dataset:
            from studio.library import refs

            refs.resolve_dataset(recipe.dataset)
        for number, values in enumerate(recipe.steps, 1):
            made = step_recipe(values | {"dataset": recipe.dataset or "shipped:polite"})
            try:
                method_of(made).check(made)
            except StudioError as err:
                raise StudioError(f"Step {number} ({method_of(made).title}): {err.message}", err.hint, "steps") from err

    @classmethod
    def estimate(cls, recipe: PipelineRecipe) -> Estimate:
        if not recipe.steps:
            return Estimate()
        first = step_recipe(recipe.steps[0] | {"dataset": recipe.dataset})
        one = method_of(first).estimate(first)
        return Estimate(disk=one.disk * len(recipe.steps) if one.disk else None)

    @classmethod
    def run(cls, recipe: PipelineRecipe, ctx: Context) -> dict[str, Any] | None:
        source, parents = steps.opened(recipe.dataset, ctx) if recipe.dataset else (None, [])
        name, total = recipe.name or steps.name_of(_first(recipe)), len(recipe.steps)
        done: list[dict[str, Any]] = []
        for number, values in enumerate(recipe.steps, 1):
            made = step_recipe(values)
            method = method_of(made)
            folder = ctx.run_dir / "steps" / f"{number:02d}-{made.method}"
            ctx.log(f"Step {number} of {total}: {method.title}")
            if row := _made_before(method, made, source):
                version, ref = Version(row["path"]), row["ref"]
                ctx.log("  unchanged: taken from the library")
            else:
                try:
                    version = _complete(folder) or steps.execute(method, made, source, folder, ctx)
                except Stopped:
                    return None
                except StudioError as err:
                    raise StudioError(f"Step {number} ({method.title}): {err.message}", err.hint, "steps") from err
                parents += steps.others_of(method, made)
                if number == total:
                    steps.register(version, made.name or name, ctx, parents)
                else:
                    ref = steps.keep(version, made.name or f"{name} · {method.title}", ctx, parents)
            entry = version.meta["history"][-1]
            ctx.log(f"  {entry['rows_in']:,} rows in, {entry['rows_out']:,} out")
            done.append({"method": made.method, **steps.summary(version)})
            source = version
            if number < total:
                parents = [(ref, "dataset")]
        return {"steps": done, **steps.summary(source)}


def step_recipe(values: dict[str, Any]) -> StepRecipe:
    """The checked recipe of a step.

    Raises:
        StudioError: an unknown step, or bad fields.
    """
    if not isinstance(values, dict):
        raise StudioError("A step is written as 'method: ...' and its fields.", "", "steps")
    try:
        return parse({key: value for key, value in values.items() if key != "kind"}, "data")
    except RecipeError as err:
        name, message = next(iter(err.fields.items()))
        raise StudioError(message, err.hint, name) from err


def method_of(recipe: StepRecipe) -> type[Step]:
    from studio import registry

    return registry.method("data", recipe.method)


def _first(recipe: PipelineRecipe) -> StepRecipe:
    return recipe if recipe.dataset else step_recipe(recipe.steps[0])


def _complete(folder: Any) -> Version | None:
    """A step that this run finished before it was stopped or killed."""
    try:
        return Version(folder)
    except StudioError:
        return None


def _made_before(method: type[Step], recipe: StepRecipe, source: Version | None) -> dict[str, Any] | None:
    """What the same step once made of the same rows, if its files are still there and it gives the same each time."""
    from studio.library import artifacts

    if source is None or not method.repeatable:
        return None
    wanted, inputs = steps.entry_of(recipe), steps.inputs_of(method, recipe)
    for row in artifacts.listed(("dataset",)):
        if not row["meta"].get("version"):
            continue
        try:
            history = Version(row["path"]).meta["history"]
        except StudioError:
            continue  # its files are gone
        if len(history) > 1 and history[-2]["hash"] == source.hash and history[-1]["step"] == wanted \
                and history[-1]["inputs"] == inputs:
            return row
    return None
