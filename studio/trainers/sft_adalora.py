"""AdaLoRA: begins with more rank than it may keep, and leaves it where it matters. Zhang et al. 2023."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import field_validator, model_validator

from studio.errors import StudioError
from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, epochs, rate, targets
from studio.trainers.common import SFTRecipe

_LIB = "peft.AdaLoraConfig"


class AdaLoraRecipe(SFTRecipe):
    """Fields of an AdaLoRA run."""

    method: ClassVar[str] = "adalora"

    learning_rate: float = rate(2e-2, "5e-4 to 2e-3")
    num_train_epochs: float = epochs()
    init_r: int = field(12, "Rank at the start", "Rank of each layer before any is taken away. Usually one and a half times the "
                        "rank in the end.", group="adapter", library=_LIB, ge=2, le=1024)
    target_r: int = field(8, "Rank in the end, on average", "What is left: layers that matter keep more than this, others less, "
                          "down to none.", group="adapter", library=_LIB, ge=1, le=1023)
    lora_alpha: int = field(32, "Alpha", "Strength of the adapter. Higher acts like a higher learning rate.", group="adapter",
                            library=_LIB, ge=1, le=4096)
    lora_dropout: float = field(0.0, "Dropout", "Turns off this share of the adapter at random while training.",
                                group="adapter", library=_LIB, ge=0, lt=1)
    target_modules: str = targets(_LIB)
    tinit: float = field(0.1, "Steps before ranks are taken", "In the beginning all ranks learn, so that what matters can show "
                         "itself. Below 1 it is a share of the run.", group="adapter", library=_LIB, ge=0, le=10_000_000)
    tfinal: float = field(0.3, "Steps after", "At the end the ranks stay as they are and learn on. Below 1 it is a share of the "
                          "run. Only weights from here on can be the best.", group="adapter", library=_LIB, ge=0, le=10_000_000)
    deltaT: int = field(1, "Steps between two cuts", "How often ranks are given and taken. Seldom is steadier where batches are "
                        "small.", group="advanced", library=_LIB, ge=1, le=100_000)
    beta1: float = field(0.85, "Memory of importance", "How slowly the importance of a rank follows its gradients.",
                         group="advanced", library=_LIB, gt=0, lt=1)
    beta2: float = field(0.85, "Memory of uncertainty", "How slowly the spread of that importance follows.", group="advanced",
                         library=_LIB, gt=0, lt=1)
    orth_reg_weight: float = field(0.5, "Orthogonality", "Weight of the term in the training loss that keeps the ranks apart from "
                                   "each other. It is part of the loss shown, not of the validation loss.", group="advanced",
                                   library=_LIB, ge=0, le=100)

    @field_validator("tinit", "tfinal")
    @classmethod
    def _whole_or_share(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("at 1 or more it is a number of steps, so it must be whole")
        return value

    @model_validator(mode="after")
    def _something_is_taken(self) -> AdaLoraRecipe:
        if self.target_r >= self.init_r:
            raise ValueError("the rank in the end must be smaller than the one at the start; with equal ones choose LoRA")
        if self.tinit < 1 and self.tfinal < 1 and self.tinit + self.tfinal >= 1:
            raise ValueError("the steps before and after the cuts leave none for them")
        return self


class AdaLora(AdapterMethod):
    """Ranks go where they matter."""

    title = "AdaLoRA"
    summary = "LoRA that spreads its ranks itself: important layers keep more, the others give theirs up."
    paper = "https://arxiv.org/abs/2303.10512"
    Recipe = AdaLoraRecipe
    peft = "AdaLoraConfig"
    arguments = ("init_r", "target_r", "lora_alpha", "lora_dropout", "target_modules", "deltaT", "beta1", "beta2",
                 "orth_reg_weight")

    @classmethod
    def check(cls, recipe: AdaLoraRecipe) -> None:
        super().check(recipe)
        if recipe.strategy != "ddp":
            raise StudioError("AdaLoRA looks at whole weights and their gradients, which sharding takes apart.",
                              "Choose copies of the model (DDP).", "strategy")
        if recipe.max_steps > 0:
            schedule(recipe, recipe.max_steps)

    @classmethod
    def peft_config(cls, recipe: AdaLoraRecipe, steps: int) -> Any:
        import peft

        return peft.AdaLoraConfig(**super().config(recipe), **schedule(recipe, steps))

    @classmethod
    def config(cls, recipe: AdaLoraRecipe) -> dict[str, Any]:
        """For the script, which knows the steps when it runs."""
        from studio.trainers.script import Code

        times = {name: Code(f"int({value} * steps)") if 0 < value < 1 else int(value)
                 for name in ("tinit", "tfinal") if (value := getattr(recipe, name)) is not None}
        return super().config(recipe) | times | {"total_step": Code("steps")}


def schedule(recipe: AdaLoraRecipe, steps: int) -> dict[str, int]:
    """``tinit``, ``tfinal`` and ``total_step`` of a run of so many steps.

    Raises:
        StudioError: they leave too few steps in which ranks are taken.
    """
    tinit, tfinal = (int(value * steps) if value < 1 else int(value) for value in (recipe.tinit, recipe.tfinal))
    if tinit + tfinal > steps - 2:  # ranks are weighed in one step, and first taken in the next
        raise StudioError(f"The run has {steps} steps; {tinit} before and {tfinal} after the cuts leave too few for them.",
                          "Lower one of them, or train longer.", "tfinal")
    return {"tinit": tinit, "tfinal": tfinal, "total_step": steps}
