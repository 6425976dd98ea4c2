"""Full fine-tuning: every weight of the model is trained."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.method import Estimate, Method
from studio.recipe import field
from studio.trainers.adapters import epochs
from studio.trainers.common import SFT, SFTRecipe


class FullRecipe(SFTRecipe):
    """Fields of a full fine-tuning run."""

    method: ClassVar[str] = "full"

    learning_rate: float = field(1e-3, "Learning rate", "How large each step is. Too high: the loss jumps and old "
                                 "skills are lost. Too low: it hardly falls. 1e-3 suits the starter; 1e-5 to 2e-5 "
                                 "is usual for models of a billion and more.", group="training", widget="log",
                                 library=SFT, gt=0, le=1.0)
    num_train_epochs: float = epochs()


class Full(Method):
    """All weights."""

    title = "Full fine-tuning"
    summary = "Trains every weight: learns the most, needs about eight times the memory, makes a new model."
    paper = "https://arxiv.org/abs/1801.06146"
    group = "all"
    Recipe = FullRecipe

    @classmethod
    def check(cls, recipe: FullRecipe) -> None:
        from studio.trainers import sft

        sft.check(recipe)

    @classmethod
    def estimate(cls, recipe: FullRecipe) -> Estimate:
        from studio.trainers import plan

        return plan.estimate(recipe, lora=False)

    @classmethod
    def script(cls, recipe: FullRecipe) -> str:
        from studio.trainers import script

        return script.write(recipe)

    @classmethod
    def run(cls, recipe: FullRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import sft

        return sft.run(recipe, ctx)
