"""VeRA: shared random matrices, only two vectors a layer are learned. Kopiczko et al. 2023."""

from __future__ import annotations

from typing import ClassVar

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, epochs, rate, targets
from studio.trainers.common import SFTRecipe

_LIB = "peft.VeraConfig"


class VeraRecipe(SFTRecipe):
    """Fields of a VeRA run."""

    method: ClassVar[str] = "vera"

    learning_rate: float = rate(2e-2, "1e-3 to 4e-3")
    num_train_epochs: float = epochs()
    r: int = field(256, "Rank (r)", "Rank of the shared random matrices. It costs little, since they are not trained.",
                   group="adapter", library=_LIB, ge=1, le=8192)
    vera_dropout: float = field(0.0, "Dropout", "Turns off this share of the adapter at random while training.",
                                group="adapter", library=_LIB, ge=0, lt=1)
    target_modules: str = targets(_LIB, "q_proj,v_proj")


class Vera(AdapterMethod):
    """Two vectors a layer."""

    title = "VeRA"
    summary = "Like LoRA with shared frozen random matrices: ten times fewer numbers to store."
    paper = "https://arxiv.org/abs/2310.11454"
    Recipe = VeraRecipe
    peft = "VeraConfig"
    arguments = ("r", "vera_dropout", "target_modules")
