"""P-Tuning: learned tokens before the text, made by a small network. Liu et al. 2021."""

from __future__ import annotations

from typing import ClassVar, Literal

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, VirtualTokens, epochs, rate
from studio.trainers.common import SFTRecipe

_LIB = "peft.PromptEncoderConfig"


class PTuningRecipe(VirtualTokens, SFTRecipe):
    """Fields of a P-Tuning run."""

    method: ClassVar[str] = "p_tuning"

    learning_rate: float = rate(1e-2, "1e-3 to 5e-3")
    num_train_epochs: float = epochs()
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = field(
        "MLP", "Network", "The network that makes the learned tokens.", group="adapter", library=_LIB,
        choices={"MLP": "MLP", "LSTM": "LSTM (two layers)"})
    encoder_hidden_size: int = field(128, "Width of the network", "Larger learns more and takes more memory.", group="adapter", library=_LIB, ge=1,
                                     le=16384)


class PTuning(AdapterMethod):
    """Tokens that a small network makes."""

    title = "P-Tuning"
    summary = "Learns a short sequence of tokens put before every text, through a small network. The model stays as it is."
    paper = "https://arxiv.org/abs/2103.10385"
    group = "tokens"
    Recipe = PTuningRecipe
    peft = "PromptEncoderConfig"
    arguments = ("num_virtual_tokens", "encoder_reparameterization_type", "encoder_hidden_size")
