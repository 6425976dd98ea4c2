"""ORPO: imitates the better answer and keeps the worse one unlikely, in one stage. Hong, Lee and Thorne 2024."""

from __future__ import annotations

from typing import ClassVar

from studio.aligners.common import PreferenceRecipe, epochs, rate
from studio.aligners.unreferenced import Unreferenced
from studio.recipe import field

LIB = "trl.experimental.orpo.ORPOConfig"


class OrpoRecipe(PreferenceRecipe):
    """Fields of an ORPO run."""

    method: ClassVar[str] = "orpo"
    config: ClassVar[str] = LIB

    learning_rate: float = rate(1e-3, "5e-6 to 1e-5 (LoRA: ten times that)")
    num_train_epochs: float = epochs()
    beta: float = field(
        0.1, "Lambda (beta)", "How much the worse answer counts beside plain imitation of the better one. 0.1 is "
        "usual; raise it where the worse answer stays likely.", group="method", library=LIB, gt=0, le=10)


class Orpo(Unreferenced):
    """Odds ratio preference optimization."""

    title = "ORPO"
    summary = "Fine-tuning and preference in one stage, without a reference model: for a base that was not tuned yet."
    paper = "https://arxiv.org/abs/2403.07691"
    Recipe = OrpoRecipe
    trainer = "trl.experimental.orpo.ORPOTrainer"
    arguments = ("beta", "max_length")
