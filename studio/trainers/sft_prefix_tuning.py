"""Prefix tuning: learned keys and values before the text in every layer. Li and Liang 2021."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, VirtualTokens, epochs, rate
from studio.trainers.common import SFTRecipe

_LIB = "peft.PrefixTuningConfig"


class PrefixTuningRecipe(VirtualTokens, SFTRecipe):
    """Fields of a prefix tuning run."""

    method: ClassVar[str] = "prefix_tuning"

    learning_rate: float = rate(1e-2, "1e-3 to 1e-2")
    num_train_epochs: float = epochs()
    prefix_projection: bool = field(False, "Through a network", "Makes the keys and values by a small network while training: "
                                    "steadier, more to train.", group="adapter", library=_LIB)

    @model_validator(mode="after")
    def _no_checkpointing(self) -> PrefixTuningRecipe:
        if self.gradient_checkpointing:
            raise ValueError("gradient checkpointing does not work with prefix tuning; turn it off")
        return self


class PrefixTuning(AdapterMethod):
    """Learned keys and values."""

    title = "Prefix tuning"
    summary = "Learns keys and values that every layer reads before the text: stronger than prompt tuning, still small."
    paper = "https://arxiv.org/abs/2101.00190"
    group = "tokens"
    Recipe = PrefixTuningRecipe
    peft = "PrefixTuningConfig"
    arguments = ("num_virtual_tokens", "prefix_projection")
