"""LoRA fine-tuning: trains small matrices beside the frozen weights. Hu et al. 2021."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.method import Estimate, Method
from studio.recipe import field
from studio.trainers.common import SFT, LoraFields, SFTRecipe


class LoraRecipe(LoraFields, SFTRecipe):
    """Fields of a LoRA run."""

    method: ClassVar[str] = "lora"

    learning_rate: float = field(3e-3, "Learning rate", "How large each step is. Too high: the loss jumps or becomes "
                                 "NaN. Too low: it hardly falls. 3e-3 suits the starter; 1e-4 to 2e-4 is usual for "
                                 "models of a billion and more.", group="training", widget="log", library=SFT, gt=0,
                                 le=1.0)
    num_train_epochs: float = field(6.0, "Epochs", "How often each example is seen. Small models need more (6 suits "
                                    "the starter), models of a billion and more 1 to 3. Too many learn by heart: stop "
                                    "when the validation loss rises.", group="training", library=SFT, gt=0, le=1000)


class Lora(Method):
    """Adapter on a frozen model."""

    title = "LoRA"
    summary = "Trains a small adapter beside the frozen model: little memory, small files, the base stays as it is."
    paper = "https://arxiv.org/abs/2106.09685"
    Recipe = LoraRecipe

    @classmethod
    def check(cls, recipe: LoraRecipe) -> None:
        from studio.trainers import sft

        sft.check(recipe)

    @classmethod
    def estimate(cls, recipe: LoraRecipe) -> Estimate:
        from studio.trainers import plan

        return plan.estimate(recipe, lora=True)

    @classmethod
    def script(cls, recipe: LoraRecipe) -> str:
        from studio.trainers import script

        return script.write(recipe, lora=True)

    @classmethod
    def run(cls, recipe: LoraRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import sft

        return sft.run(recipe, ctx, adapter=sft.lora_config)
