"""LoRA fine-tuning: trains small matrices beside the frozen weights. Hu et al. 2021."""

from __future__ import annotations

from typing import ClassVar

from studio.trainers.adapters import AdapterMethod, epochs, rate
from studio.trainers.common import LoraFields, SFTRecipe


class LoraRecipe(LoraFields, SFTRecipe):
    """Fields of a LoRA run."""

    method: ClassVar[str] = "lora"

    learning_rate: float = rate(3e-3, "1e-4 to 2e-4")
    num_train_epochs: float = epochs()


class Lora(AdapterMethod):
    """Adapter on a frozen model."""

    title = "LoRA"
    summary = "Trains a small adapter beside the frozen model: little memory, small files, the base stays as it is."
    paper = "https://arxiv.org/abs/2106.09685"
    Recipe = LoraRecipe
    peft = "LoraConfig"
    arguments = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")
