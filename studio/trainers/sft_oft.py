"""OFT: rotates the weights by learned orthogonal matrices. Qiu et al. 2023; Cayley-Neumann form of Qiu et al. 2025."""

from __future__ import annotations

from typing import ClassVar

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, epochs, rate, targets
from studio.trainers.common import SFTRecipe

_LIB = "peft.OFTConfig"


class OftRecipe(SFTRecipe):
    """Fields of an OFT run."""

    method: ClassVar[str] = "oft"

    learning_rate: float = rate(1e-2, "4e-4 to 1e-3")
    num_train_epochs: float = epochs()
    oft_block_size: int = field(32, "Block size", "Size of the rotated blocks. Larger learns more and is larger; every layer's "
                                "width must be a multiple of it.", group="adapter", library=_LIB, ge=2, le=1024)
    module_dropout: float = field(0.0, "Dropout", "Turns off this share of the rotations at random while training.",
                                  group="adapter", library=_LIB, ge=0, lt=1)
    target_modules: str = targets(_LIB)


class Oft(AdapterMethod):
    """Rotations instead of additions."""

    title = "OFT"
    summary = "Rotates the weights instead of adding to them: keeps more of what the model knew. Slower than LoRA."
    paper = "https://arxiv.org/abs/2306.07280"
    Recipe = OftRecipe
    peft = "OFTConfig"
    arguments = ("oft_block_size", "module_dropout", "target_modules")
