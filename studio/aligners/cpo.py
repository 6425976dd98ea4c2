"""CPO: DPO without a reference model, held by imitation instead. Xu et al. 2024."""

from __future__ import annotations

from typing import ClassVar, Literal

from studio.aligners.common import PreferenceRecipe, epochs, rate
from studio.aligners.unreferenced import Unreferenced
from studio.recipe import field

LIB = "trl.experimental.cpo.CPOConfig"


class CpoRecipe(PreferenceRecipe):
    """Fields of a CPO run."""

    method: ClassVar[str] = "cpo"
    config: ClassVar[str] = LIB

    learning_rate: float = rate(5e-4, "1e-6 to 5e-6 (LoRA: ten times that)")
    num_train_epochs: float = epochs()
    beta: float = field(
        0.1, "Beta", "How sharply the two answers are told apart. 0.1 to 0.5 is usual; higher is sharper.",
        group="method", library=LIB, gt=0, le=10)
    loss_type: Literal["sigmoid", "hinge", "ipo"] = field(
        "sigmoid", "Loss", "How a pair is learned from. Keep the original to begin with.", group="method", library=LIB,
        choices={"sigmoid": "CPO (sigmoid)", "hinge": "Hinge (SLiC): stops at a margin",
                 "ipo": "IPO: does not run away on easy pairs"})
    cpo_alpha: float = field(
        1.0, "Imitation", "How much plain imitation of the better answer counts, which keeps the model from "
        "drifting. 1 is usual; 0 turns it off.", group="method", library=LIB, ge=0, le=100)
    label_smoothing: float = field(
        0.0, "Pairs the wrong way round", "The share of pairs that you expect to be the wrong way round; 0.1 for "
        "noisy ones.", group="method", library=LIB, ge=0, lt=0.5)


class Cpo(Unreferenced):
    """Contrastive preference optimization."""

    title = "CPO"
    summary = "Pairs without a reference model, which saves memory and time; made for translation, where both are good."
    paper = "https://arxiv.org/abs/2401.08417"
    Recipe = CpoRecipe
    trainer = "trl.experimental.cpo.CPOTrainer"
    arguments = ("beta", "max_length", "loss_type", "cpo_alpha", "label_smoothing")
