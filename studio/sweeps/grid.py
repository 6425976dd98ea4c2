"""Every combination of the listed values, once."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.errors import StudioError
from studio.sweeps import space as spaces
from studio.sweeps.common import Sweep, SweepRecipe


class GridRecipe(SweepRecipe):
    """Fields of a grid."""

    method: ClassVar[str] = "grid"


class Grid(Sweep):
    """Every combination."""

    title = "Every combination"
    summary = "Tries every combination of the values listed: thorough, and best for two or three settings."
    Recipe = GridRecipe

    @classmethod
    def check(cls, recipe: GridRecipe) -> None:
        axes = cls.axes(recipe)
        wanted = spaces.count(axes)
        if wanted is None:
            endless = next(axis.field for axis in axes if axis.listed() is None)
            raise StudioError(f"{endless} has a range without a step, so its combinations have no end.",
                              "List its values, give a step, or choose random or guided search.", "space")
        if wanted > recipe.trials:
            raise StudioError(f"These values make {wanted} combinations, more than the {recipe.trials} trials allowed.",
                              "Raise the trials, leave values out, or choose random or guided search.", "trials")
        super().check(recipe)

    @classmethod
    def suggest(cls, study: Any, recipe: GridRecipe, axes: list[spaces.Axis], number: int,
                known: list[dict[str, Any]]) -> Any:
        study.enqueue_trial(spaces.combinations(axes, number + 1)[number])
        return study.ask({axis.field: axis.distribution() for axis in axes})
