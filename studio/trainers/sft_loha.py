"""LoHa: a product of two low-rank matrices, element by element. Hyeon-Woo et al. 2021 (FedPara)."""

from __future__ import annotations

from typing import ClassVar

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, epochs, rate, targets
from studio.trainers.common import SFTRecipe

_LIB = "peft.LoHaConfig"


class LohaRecipe(SFTRecipe):
    """Fields of a LoHa run."""

    method: ClassVar[str] = "loha"

    learning_rate: float = rate(5e-3, "1e-4 to 5e-4")
    num_train_epochs: float = epochs()
    r: int = field(8, "Rank (r)", "Rank of each of the two factors; the product reaches its square.", group="adapter",
                   library=_LIB, ge=1, le=1024)
    alpha: int = field(16, "Alpha", "Strength of the adapter; higher acts like a higher learning rate.", group="adapter",
                       library=_LIB, ge=1, le=4096)
    rank_dropout: float = field(0.0, "Dropout", "Turns off this share of the ranks at random while training.",
                                group="adapter", library=_LIB, ge=0, lt=1)
    target_modules: str = targets(_LIB)


class Loha(AdapterMethod):
    """Hadamard product of two low-rank changes."""

    title = "LoHa"
    summary = "Multiplies two low-rank changes: a higher rank for the same size as LoRA."
    paper = "https://arxiv.org/abs/2108.06098"
    Recipe = LohaRecipe
    peft = "LoHaConfig"
    arguments = ("r", "alpha", "rank_dropout", "target_modules")
