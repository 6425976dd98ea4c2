"""LoKr: a Kronecker product with a low-rank factor. Edalati et al. 2022 (KronA); Yeh et al. 2023 (LyCORIS)."""

from __future__ import annotations

from typing import ClassVar

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, epochs, rate, targets
from studio.trainers.common import SFTRecipe

_LIB = "peft.LoKrConfig"


class LokrRecipe(SFTRecipe):
    """Fields of a LoKr run."""

    method: ClassVar[str] = "lokr"

    learning_rate: float = rate(5e-3, "1e-4 to 5e-4")
    num_train_epochs: float = epochs()
    r: int = field(8, "Rank (r)", "Rank of the larger factor.", group="adapter", library=_LIB, ge=1, le=1024)
    alpha: int = field(16, "Alpha", "Strength of the adapter; higher acts like a higher learning rate.", group="adapter",
                       library=_LIB, ge=1, le=4096)
    decompose_factor: int = field(-1, "Factor", "Where each weight is cut into the two parts of the product; -1 = as near the "
                                  "square root as it goes, which is the smallest.", group="adapter", library=_LIB, ge=-1,
                                  le=4096)
    rank_dropout: float = field(0.0, "Dropout", "Turns off this share of the ranks at random while training.",
                                group="adapter", library=_LIB, ge=0, lt=1)
    target_modules: str = targets(_LIB)


class Lokr(AdapterMethod):
    """Kronecker product."""

    title = "LoKr"
    summary = "Builds the change as a Kronecker product: very small files, full rank."
    paper = "https://arxiv.org/abs/2309.14859"
    Recipe = LokrRecipe
    peft = "LoKrConfig"
    arguments = ("r", "alpha", "decompose_factor", "rank_dropout", "target_modules")
