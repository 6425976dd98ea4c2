"""Recipe and contract that all sweeps share: the base recipe, what is varied, how a trial is judged. No Optuna here."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator

from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import Recipe, RecipeError, field, parse
from studio.sweeps import space as spaces

SWEPT = ("sft", "pretrain", "align")  # kinds whose recipes can be varied
UPWARDS = ("accurac", "reward", "margin", "win_rate", "score", "f1")  # of a metric's name: more is better
ESTIMATED = 60  # combinations that are estimated one by one


class SweepRecipe(Recipe):
    """Fields of every sweep."""

    kind: ClassVar[str] = "sweep"

    recipe: dict[str, Any] = field({}, "Base recipe", "The whole recipe that is run again and again, with its kind and "
                                   "method; what is not varied stays as it says.", widget="hidden")
    space: list[dict[str, Any]] = field(
        [], "What is varied", "Fields of the base recipe, each with a list of values, or with a low and a high end "
        "(and log or a step). Two or three fields are plenty.", widget="hidden", max_length=spaces.MOST_AXES)
    trials: int = field(12, "Trials", "How many settings are tried. More finds better ones and takes longer; a grid "
                        "is tried whole and must not be larger than this.", ge=1, le=500)
    parallel: int = field(1, "At once in the queue", "Trials that may wait or run at the same time. More than there "
                          "are GPUs brings no speed, and guided search learns less.", ge=1, le=64)
    metric: str = field("auto", "Judged by", "The curve by whose best point a trial is judged. Keep automatic unless "
                        "your method has a better one, such as eval_rewards/accuracies.",
                        choices={"auto": "Automatic: validation loss, training loss where nothing is validated",
                                 "eval_loss": "Validation loss", "loss": "Training loss",
                                 "eval_mean_token_accuracy": "Validation token accuracy"}, max_length=120)
    direction: Literal["auto", "minimize", "maximize"] = field(
        "auto", "Better is", "Whether a lower or a higher figure wins. Automatic knows that losses should fall and "
        "accuracies and rewards rise.", choices={"auto": "Automatic", "minimize": "Lower", "maximize": "Higher"})
    pruner: Literal["none", "median", "successive_halving"] = field(
        "none", "Stop hopeless trials", "Median stops a trial whose best point is worse than half of the others at "
        "the same place; halving keeps only the best few at each stage, which saves most and errs most.",
        choices={"none": "Never", "median": "Worse than the median", "successive_halving": "Successive halving"})
    n_warmup_steps: int = field(2, "Points before a verdict", "A trial is not stopped at its first points of the "
                                "curve. Raise it where settings that win in the end begin slowly.",
                                library="optuna.pruners.MedianPruner",
                                when={"pruner": ["median", "successive_halving"]}, ge=0, le=1000)
    n_startup_trials: int = field(3, "Trials before the first verdict", "So many trials run to their end before the "
                                  "median stops one. Higher is safer and slower.",
                                  library="optuna.pruners.MedianPruner", when={"pruner": ["median"]}, ge=0, le=500)
    reduction_factor: int = field(3, "Keep one of", "Halving lets the best one of this many go on to the next stage. "
                                  "Lower keeps more trials.", library="optuna.pruners.SuccessiveHalvingPruner",
                                  when={"pruner": ["successive_halving"]}, ge=2, le=10)
    promote: bool = field(True, "Promote the best", "On: the best model is renamed to the best of this sweep, so that "
                          "it is found in the Library at once. Off: all keep their names.")
    only_best: bool = field(False, "Keep only the best model", "On: models and checkpoints of beaten trials are "
                            "deleted as soon as they are beaten, which saves disk; their curves stay. Off: all stay.")
    seed: int = field(42, "Seed", "The same seed gives the same suggestions. The training seed is a field of the base "
                      "recipe.", ge=0, le=2**32 - 1)

    @field_validator("recipe")
    @classmethod
    def _a_recipe(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            return value  # nothing chosen yet; the check refuses it
        if value.get("kind") not in SWEPT:
            raise ValueError(f"the base recipe must be of the kind {', '.join(SWEPT[:-1])} or {SWEPT[-1]}")
        try:
            return parse(value).to_dict()
        except RecipeError as err:
            name, message = next(iter(err.fields.items()))
            raise ValueError(f"in the base recipe, {name}: {message}") from err
        except StudioError as err:
            raise ValueError(f"{err.message} {err.hint}".strip()) from err

    @field_validator("space")
    @classmethod
    def _lines(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{str(key): item for key, item in row.items() if item is not None} for row in value]


def metric_of(recipe: SweepRecipe) -> tuple[str, str]:
    """(name of the curve, ``minimize`` or ``maximize``) with both automatics decided."""
    from studio.datasets import formats

    name = recipe.metric
    if name == "auto":
        base = recipe.recipe
        held = base.get("eval_share") or base.get("eval_dataset") or (
            base.get("dataset") and formats.own_validation(base["dataset"]))
        name = "eval_loss" if held else "loss"
    if recipe.direction != "auto":
        return name, recipe.direction
    return name, "maximize" if any(word in name for word in UPWARDS) else "minimize"


class Sweep(Method):
    """What the three ways of searching share. A subclass says what the next trial is: :meth:`suggest`."""

    Recipe = SweepRecipe

    @classmethod
    def suggest(cls, study: Any, recipe: SweepRecipe, axes: list[spaces.Axis], number: int,
                known: list[dict[str, Any]]) -> Any:
        """The next trial, as an Optuna trial of ``study`` (``optuna.Study.ask``).

        Args:
            number: Of the trial, from 0; with the seed it fixes what is drawn, so that a resumed sweep goes on alike.
            known: Settings of the trials so far.
        """
        raise AssertionError("a sweep without suggestions")

    @classmethod
    def total(cls, recipe: SweepRecipe, axes: list[spaces.Axis]) -> int:
        """Trials of the whole sweep: no more than there are combinations."""
        return min(recipe.trials, spaces.count(axes) or recipe.trials)

    @classmethod
    def inner(cls, recipe: SweepRecipe) -> list[Recipe]:
        """Every recipe whose references a person must own: the base, and each model or dataset that is varied."""
        base = recipe.recipe
        return [parse(base)] * bool(base) + [parse(base | {row["field"]: value}) for row in recipe.space
                                             if row.get("field") in ("model", "dataset", "eval_dataset")
                                             for value in row.get("values") or [] if isinstance(value, str)]

    @classmethod
    def axes(cls, recipe: SweepRecipe) -> list[spaces.Axis]:
        """
        Raises:
            StudioError: no base recipe, or a space that does not fit it.
        """
        if not recipe.recipe:
            raise StudioError("A sweep needs a recipe to vary.",
                              "Put a whole recipe under 'recipe:', with its kind and method.", "recipe")
        return spaces.axes(parse(recipe.recipe), recipe.space)

    @classmethod
    def check(cls, recipe: SweepRecipe) -> None:
        from studio import registry

        axes = cls.axes(recipe)
        base = parse(recipe.recipe)
        method = registry.method(base.kind, base.method)
        method.check(base)
        for axis in axes:
            for value in axis.values or (axis.low, axis.high):
                try:
                    method.check(parse(recipe.recipe | {axis.field: value}))
                except StudioError as err:
                    raise StudioError(f"{axis.field} = {value}: {err.message}", err.hint, "space") from err

    @classmethod
    def estimate(cls, recipe: SweepRecipe) -> Estimate:
        from studio import registry
        from studio.jobs.supervisor import slots

        axes = cls.axes(recipe)
        base, total = parse(recipe.recipe), cls.total(recipe, axes)
        method = registry.method(base.kind, base.method)
        some = [{axis.field: axis.middle() for axis in axes}]
        if (spaces.count(axes) or ESTIMATED + 1) <= min(total, ESTIMATED):
            some = spaces.combinations(axes) or some
        each = [method.estimate(parse(recipe.recipe | values)) for values in some]
        once = max(1, min(recipe.parallel, slots()))

        def add(name: str) -> float | None:
            found = [getattr(one, name) for one in each]
            return None if None in found else sum(found) * total / len(found)

        def most(name: str) -> int | None:
            return max((value for one in each if (value := getattr(one, name)) is not None), default=None)

        seconds, steps, memory, disk = add("seconds"), add("steps"), most("memory"), add("disk")
        if disk and recipe.only_best:
            disk = (most("disk") or 0) * (recipe.parallel + 1)
        notes = [f"{total} runs, one after the other." if once == 1 else f"{total} runs, {once} at once."]
        if recipe.pruner != "none":
            notes.append("Stopping hopeless trials makes it shorter; by how much is not known before.")
        return Estimate(steps=round(steps) if steps else None, seconds=seconds / once if seconds else None,
                        memory=memory * once if memory else None, disk=round(disk) if disk else None,
                        device=each[0].device, notes=notes)

    @classmethod
    def run(cls, recipe: SweepRecipe, ctx: Any) -> dict[str, Any]:
        from studio.sweeps import trials

        return trials.run(cls, recipe, ctx)
