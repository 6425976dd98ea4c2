"""GRPO: answers to the same prompt compete, and what scored above their mean becomes likelier. Shao et al. 2024."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.aligners.common import rate
from studio.aligners.online import GRPO, GroupMethod, GroupRecipe
from studio.errors import StudioError
from studio.recipe import field


class GrpoRecipe(GroupRecipe):
    """Fields of a GRPO run."""

    method: ClassVar[str] = "grpo"
    config: ClassVar[str] = GRPO

    learning_rate: float = rate(5e-4, "1e-6 to 5e-6 (LoRA: ten times that)")
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = field(
        "dapo", "Loss", "How the words of long and short answers are weighed, and how far an answer may be pushed. "
        "DAPO suits nearly all; the plain one prefers short good answers and long bad ones.", group="method",
        library=GRPO,
        choices={"dapo": "DAPO: every word alike, over the whole batch", "grpo": "GRPO: every answer alike",
                 "dr_grpo": "Dr. GRPO: a fixed length, no bias by length", "bnpo": "BNPO: every word alike, a batch at "
                 "a time",
                 "cispo": "CISPO: clips the weight, not the word (clipping upwards: 5)",
                 "sapo": "SAPO: a soft gate in place of clipping", "luspo": "LUSPO: whole answers, long ones not held "
                 "back",
                 "vespo": "VESPO: soft weights for whole answers"})
    scale_rewards: Literal["group", "batch", "none"] = field(
        "group", "Scale rewards", "Divides by how much the rewards differ. By group, hard and easy prompts count "
        "alike; not at all, prompts on which the model is undecided count most.", group="method", library=GRPO,
        choices={"group": "Among the answers to a prompt", "batch": "Among all answers of a step", "none": "Not at "
                 "all"})
    importance_sampling_level: Literal["token", "sequence"] = field(
        "token", "Compared by", "Whether old and new likelihood are compared for each word or for the whole answer. "
        "Whole answers (GSPO) are steadier for mixtures of experts; use the plain GRPO loss with it.", group="method",
        library=GRPO,
        choices={"token": "Word", "sequence": "Whole answer (GSPO)"})
    beta: float = field(
        0.0, "KL penalty (beta)", "Holds the model to what it was. 0 = not at all, which is usual where rewards cannot "
        "be cheated; 0.001 to 0.04 where the answers become odd.", group="method", library=GRPO, ge=0, le=10)


class Grpo(GroupMethod):
    """Group relative policy optimization."""

    title = "GRPO"
    summary = "Tries several answers to a prompt, learns from those that score above the rest. For what can be checked."
    paper = "https://arxiv.org/abs/2402.03300"
    Recipe = GrpoRecipe
    trainer = "trl.GRPOTrainer"
    arguments = (*GroupMethod.arguments, "loss_type", "scale_rewards", "importance_sampling_level")

    @classmethod
    def check(cls, recipe: Any) -> None:
        if recipe.loss_type == "luspo" and recipe.importance_sampling_level != "sequence":
            raise StudioError("LUSPO compares whole answers.", "Set 'Compared by' to the whole answer.",
                              "importance_sampling_level")
        if recipe.loss_type == "vespo" and recipe.importance_sampling_level != "token":
            raise StudioError("VESPO weighs whole answers by itself.", "Set 'Compared by' to the word.",
                              "importance_sampling_level")
        super().check(recipe)
