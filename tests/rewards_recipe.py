"""A method with rewards that trains nothing, for tests of the form and the bench; see ``ATELIER_PLUGINS``."""

from __future__ import annotations

from typing import Any, ClassVar

from studio import rewards
from studio.method import Method
from studio.recipe import Recipe, field


class PracticeRecipe(Recipe):
    kind: ClassVar[str] = "align"
    method: ClassVar[str] = "practice"

    model: str = field("starter", "Model", "The model that would learn.", widget="model", max_length=1000)
    dataset: str = field("", "Dataset", "Its questions and answers.", widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column is what.", group="advanced", widget="table")
    rewards: list[dict[str, Any]] = field([], "Rewards", "What a good answer scores.", widget="rewards")


class Practice(Method):
    title, summary = "Practice", "Trains nothing."
    Recipe = PracticeRecipe

    @classmethod
    def check(cls, recipe: PracticeRecipe) -> None:
        rewards.check(recipe.rewards)

    @classmethod
    def run(cls, recipe: PracticeRecipe, ctx: Any) -> dict[str, Any]:
        return {}


def register(families: dict[str, Any]) -> None:
    families["align"].add("practice", "tests.rewards_recipe:Practice")
