"""DPO: raises the better answer of a pair above the worse one. Rafailov et al. 2023."""

from __future__ import annotations

from typing import ClassVar

from studio.aligners.base import AlignMethod
from studio.aligners.common import PreferenceRecipe, epochs, rate
from studio.recipe import field


class DpoRecipe(PreferenceRecipe):
    """Fields of a DPO run."""

    method: ClassVar[str] = "dpo"
    config: ClassVar[str] = "trl.DPOConfig"

    learning_rate: float = rate(5e-4, "5e-7 to 5e-6 (LoRA: ten times that)")
    num_train_epochs: float = epochs()
    beta: float = field(0.1, "Beta", "How strongly the model is held to what it was. Higher changes less; 0.1 is usual, up "
                        "to 0.5 where the answers become odd.", group="method", library="trl.DPOConfig", gt=0, le=10)


class Dpo(AlignMethod):
    """Direct preference optimization."""

    title = "DPO"
    summary = "Learns from pairs of a better and a worse answer, without a reward model. The one to begin with."
    paper = "https://arxiv.org/abs/2305.18290"
    Recipe = DpoRecipe
    trainer = "trl.DPOTrainer"
    shape = "pairs"
    arguments = ("beta", "max_length")
    forwards = 2.7
