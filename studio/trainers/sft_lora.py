"""LoRA fine-tuning: trains small matrices beside the frozen weights. Hu et al. 2021."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from studio.recipe import field
from studio.trainers.adapters import LoraMethod, epochs, rate
from studio.trainers.common import DeeperLoraFields, SFTRecipe
from studio.trainers.starts import MOVED


class LoraRecipe(DeeperLoraFields, SFTRecipe):
    """Fields of a LoRA run."""

    method: ClassVar[str] = "lora"

    learning_rate: float = rate(3e-3, "1e-4 to 2e-4")
    num_train_epochs: float = epochs()
    init_lora_weights: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = field(
        "default", "Start of the adapter", "From where it begins to learn. PiSSA (arXiv 2404.02948) and OLoRA (2406.01775) "
        "begin with the main directions of the weights and learn faster; use a lower learning rate with them.",
        group="adapter", library="peft.LoraConfig",
        choices={"default": "From nothing (usual)", "gaussian": "From nothing, normally distributed",
                 "orthogonal": "From nothing, orthogonal", "pissa": "PiSSA: the weights' main directions",
                 "olora": "OLoRA: orthonormal"})

    @model_validator(mode="after")
    def _start_can_be_taken_off(self) -> LoraRecipe:
        if self.init_lora_weights in MOVED and (self.use_dora or self.modules_to_save or self.bias != "none"):
            raise ValueError("PiSSA and OLoRA are saved as a plain LoRA, which holds neither DoRA nor whole modules nor biases")
        return self


class Lora(LoraMethod):
    """Adapter on a frozen model."""

    title = "LoRA"
    summary = "Trains a small adapter beside the frozen model: little memory, small files, the base stays as it is."
    paper = "https://arxiv.org/abs/2106.09685"
    Recipe = LoraRecipe
