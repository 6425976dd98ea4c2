"""RLOO: each answer is compared with the mean of the others to the same prompt. Ahmadian et al. 2024."""

from __future__ import annotations

from typing import ClassVar

from studio.aligners.common import rate
from studio.aligners.online import GroupMethod, GroupRecipe
from studio.recipe import field

RLOO = "trl.RLOOConfig"


class RlooRecipe(GroupRecipe):
    """Fields of an RLOO run."""

    method: ClassVar[str] = "rloo"
    config: ClassVar[str] = RLOO

    learning_rate: float = rate(5e-4, "1e-6 to 5e-6 (LoRA: ten times that)")
    num_generations: int = field(
        4, "Answers a prompt", "How many answers to each prompt are compared, each with the mean of the others. More "
        "is steadier and costs as much more time; 2 to 8 is usual.", group="method", library=RLOO, ge=2, le=1024)
    beta: float = field(
        0.05, "KL penalty (beta)", "Taken off the reward for moving away from the model it was. Higher changes less; 0 "
        "= not at all.", group="method", library=RLOO, ge=0, le=10)
    normalize_advantages: bool = field(
        False, "Normalise advantages", "Divides how much better an answer is by the spread of the whole step. Calms "
        "rewards of very different size.", group="method", library=RLOO)


class Rloo(GroupMethod):
    """REINFORCE, leave one out."""

    title = "RLOO"
    summary = "Compares each answer with the mean of the others to its prompt: the plainest way to learn from rewards."
    paper = "https://arxiv.org/abs/2402.14740"
    Recipe = RlooRecipe
    trainer = "trl.RLOOTrainer"
    arguments = (*GroupMethod.arguments, "normalize_advantages")
    eval_generations = 2
