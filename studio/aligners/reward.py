"""A reward model: one number for an answer, higher for the better one. Bradley and Terry 1952, Ouyang et al. 2022."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.aligners.base import AlignMethod
from studio.aligners.common import PreferenceRecipe, epochs, rate
from studio.errors import StudioError
from studio.recipe import field

LIB = "trl.RewardConfig"


class RewardRecipe(PreferenceRecipe):
    """Fields of a reward model's run."""

    method: ClassVar[str] = "reward"
    config: ClassVar[str] = LIB

    learning_rate: float = rate(1e-3, "5e-6 to 1e-5 (LoRA: 1e-4)")
    num_train_epochs: float = epochs(2.0)
    center_rewards_coefficient: float = field(
        0.01, "Centring", "Holds the numbers around 0 (arXiv 2312.09244), so that several models and rewards can be "
        "compared. 0.01 is usual; 0 = off.", group="method", library=LIB, ge=0, le=10)
    use_margin: bool = field(
        True, "Use the margins of the data", "Where every pair says how much better its answer is, the numbers have "
        "to lie that far apart. Turn off where the margins are on a scale of tens.", group="method")


class Reward(AlignMethod):
    """A model with one number as its answer."""

    title = "Reward model"
    summary = "Learns to give the better answer the higher number. It cannot chat: it scores data or serves as a reward."
    paper = "https://arxiv.org/abs/2203.02155"
    group = "scorer"
    Recipe = RewardRecipe
    trainer = "trl.RewardTrainer"
    shape = "pairs"
    head = "reward"
    whole = True
    arguments = ("max_length",)

    @classmethod
    def settings(cls, recipe: RewardRecipe) -> dict[str, Any]:
        return super().settings(recipe) | {"center_rewards_coefficient": recipe.center_rewards_coefficient or None}

    @classmethod
    def check(cls, recipe: RewardRecipe) -> None:
        if recipe.chat_template == "none":
            raise StudioError("A reward model needs a chat template, to tell what is asked from what is answered.",
                              "Set 'Chat template' to automatic.", "chat_template")
        if cls.quantization(recipe) and recipe.bf16 == "off":
            raise StudioError("A reward model on a base held in fewer bits needs bfloat16.",
                              "Set it to automatic or on.", "bf16")
        super().check(recipe)

    @classmethod
    def result(cls, recipe: RewardRecipe, model: Any, ref: Any) -> Any:
        """An adapter is folded into its base: a whole model can be read by all that uses reward models."""
        if not hasattr(model, "peft_config"):
            return model
        if not cls.quantization(recipe):
            return model.merge_and_unload()
        # What is folded into 4 bits would be rounded to them, so the base is read again as it is.
        import tempfile

        from peft import PeftModel

        from studio.trainers import load

        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            base = load.model(ref, "float32", recipe.trust_remote_code, head="reward")
            return PeftModel.from_pretrained(base, folder).merge_and_unload()

    @classmethod
    def fitting(cls, recipe: RewardRecipe, ctx: Any, tokenizer: Any, rows: list) -> list:
        kept = super().fitting(recipe, ctx, tokenizer, rows)
        return kept if recipe.use_margin else [{k: v for k, v in row.items() if k != "margin"} for row in kept]
