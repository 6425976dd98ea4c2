"""Rejection sampling: draw answers, score them, learn from the best against the worst by DPO, and again.

Several rounds in one run; see iterative DPO (Xu et al. 2023, Dong et al. 2024).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from studio.aligners.common import AlignRecipe, rate
from studio.aligners.dpo import LIB as DPO
from studio.aligners.online import GRPO, OnlineMethod, RewardFields
from studio.errors import StudioError
from studio.method import Estimate
from studio.recipe import field


class RejectionSamplingRecipe(RewardFields, AlignRecipe):
    """Fields of a rejection sampling loop."""

    method: ClassVar[str] = "rejection_sampling"
    config: ClassVar[str] = DPO

    learning_rate: float = rate(5e-4, "5e-7 to 5e-6 (LoRA: ten times that)")
    rounds: int = field(
        3, "Rounds", "How often answers are drawn from the model as it is by then, and learned from. More goes "
        "further; stop where the win rate no longer rises.", group="method", ge=1, le=50)
    num_generations: int = field(
        8, "Answers a prompt", "How many answers to each prompt are drawn in a round. More finds a better best one and "
        "costs as much more time; 4 to 16 is usual.", group="method", library=GRPO, ge=2, le=256)
    prompts_a_round: int = field(
        0, "Prompts a round", "How many prompts of the data a round answers, others each time; 0 = all of them. Fewer "
        "makes the rounds shorter.", group="method", ge=0, le=10_000_000)
    least_difference: float = field(
        0.05, "Least difference", "A pair is made only where the best answer scores this much more than the worst. "
        "Higher keeps fewer and clearer pairs.", group="method", ge=0, le=1000)
    max_completion_length: int = field(
        48, "Longest answer", "The model writes at most this many tokens. Writing takes most of the time: as short as "
        "the task allows. 48 suits the starter; 256 to 2048 is usual for large models.", group="method", library=GRPO,
        unit="tokens",
        ge=1, le=131072)
    temperature: float = field(
        1.0, "Temperature", "How freely words are drawn. Lower makes the answers alike, so that there is nothing to "
        "choose between; 0.7 to 1.2 is usual.", group="method", library=GRPO, gt=0, le=5)
    top_p: float = field(
        1.0, "Top p", "Only the likeliest words that together make up this share are drawn; 1 = all. A little less "
        "keeps nonsense out.", group="method", library=GRPO, gt=0, le=1)
    beta: float = field(
        0.1, "Beta", "How strongly each round's DPO holds the model to what it was before the round. Higher changes "
        "less; 0.1 is usual.", group="method", library=DPO, gt=0, le=10)
    num_train_epochs: float = field(
        1.0, "Epochs a round", "How often each pair is seen in its round. More learns a round's pairs by heart; 1 to 2 "
        "is usual.",
        group="training", library=DPO, gt=0, le=100)
    per_device_train_batch_size: int = field(
        8, "Batch size", "Pairs that a step looks at together. More is steadier and needs more memory.",
        group="training",
        library=DPO, ge=1, le=4096)


class RejectionSampling(OnlineMethod):
    """Draw, score, pair, learn, repeat."""

    title = "Rejection sampling"
    summary = "Rounds of drawing answers, scoring them and learning the best against the worst; with a win rate."
    paper = "https://arxiv.org/abs/2312.16682"
    Recipe = RejectionSamplingRecipe
    trainer = "trl.DPOTrainer"
    forwards = 2.7
    written = 8.0

    @classmethod
    def check(cls, recipe: Any) -> None:
        super().check(recipe)
        if recipe.num_processes > 1 or recipe.strategy != "ddp":
            raise StudioError("The rounds run in one process.", "Set 'Processes' to 1.", "num_processes")
        if not (recipe.eval_share or recipe.eval_dataset):
            raise StudioError("The win rate needs prompts to validate on.", "Keep a share of the data for validation.",
                              "eval_share")

    @classmethod
    def planned(cls, recipe: Any) -> int | None:
        """At most: every prompt of every round gives a pair."""
        from studio.trainers import plan

        rows, _ = plan._measure(recipe)
        if not rows:
            return None
        rows -= 0 if recipe.eval_dataset else round(rows * recipe.eval_share)
        mine = min(recipe.prompts_a_round or rows, rows)
        return recipe.rounds * max(1, math.ceil(recipe.num_train_epochs * mine / recipe.per_device_train_batch_size))

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        made = super().estimate(recipe)
        made.notes.append("Steps and time are at most: prompts whose answers are alike give no pair.")
        return made

    @classmethod
    def measured(cls, recipe: Any) -> Any:
        raise StudioError(f"{cls.title} cannot be measured before the start.", "How long a round takes depends on the "
                          "answers it draws.")

    @classmethod
    def script(cls, recipe: Any) -> str:
        raise StudioError("Rounds that draw, score, pair and learn are no short script.", "Copy the script of Online "
                          "DPO or GRPO, which learn from the same rewards in one go.", "method")

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        from studio.aligners import rounds

        return rounds.run(recipe, ctx)
