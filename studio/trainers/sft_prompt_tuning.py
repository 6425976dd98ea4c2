"""Prompt tuning: the embeddings of a few tokens before the text are learned. Lester et al. 2021."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.library import refs
from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, VirtualTokens, epochs, rate
from studio.trainers.common import SFTRecipe

_LIB = "peft.PromptTuningConfig"


class PromptTuningRecipe(VirtualTokens, SFTRecipe):
    """Fields of a prompt tuning run."""

    method: ClassVar[str] = "prompt_tuning"

    learning_rate: float = rate(5e-2, "1e-2 to 3e-1")
    num_train_epochs: float = epochs()
    prompt_tuning_init_text: str = field("", "Begin with", "A text whose tokens the learned ones begin as, e.g. what the model "
                                         "is to do. Empty: at random.", group="adapter", library=_LIB, max_length=2000,
                                         widget="text")


class PromptTuning(AdapterMethod):
    """Learned embeddings before the text."""

    title = "Prompt tuning"
    summary = "Learns the embeddings of a few tokens put before every text: a few kilobytes. Works best on large models."
    paper = "https://arxiv.org/abs/2104.08691"
    group = "tokens"
    Recipe = PromptTuningRecipe
    peft = "PromptTuningConfig"
    arguments = ("num_virtual_tokens",)

    @classmethod
    def config(cls, recipe: PromptTuningRecipe) -> dict[str, Any]:
        values = super().config(recipe)
        if recipe.prompt_tuning_init_text:
            model = refs.resolve_model(recipe.model)
            values |= {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": recipe.prompt_tuning_init_text,
                       "tokenizer_name_or_path": model.source}
        return values
