"""The contract of an aligning method: which trainer of TRL it is, what rows it reads, which fields are its arguments."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.method import Estimate, Method


class AlignMethod(Method):
    """A trainer of TRL as a method of the studio; ``studio/aligners/dpo.py`` is the shortest example.

    Attributes:
        trainer: The trainer, ``module.Class``. Its config class is the recipe's ``config``.
        shape: What rows it reads: ``pairs`` | ``unpaired`` | ``prompts`` | ``chats``; see :mod:`studio.aligners.data`.
        arguments: Recipe fields that the config takes under their own names.
        head: What the model ends in: ``causal`` (it writes) or ``reward`` (it gives one number).
        forwards: How many times the work of plain training on the same tokens a step costs, for the estimate.
        reference: It compares with a frozen model, which is a second copy in memory where all weights are trained.
        whole: Its trainer leaves out samples longer than ``max_length``, instead of cutting them.
        spare: Tokens of an answer that must be left behind the cut, or its loss is not a number.
    """

    trainer: ClassVar[str]
    shape: ClassVar[str] = "pairs"
    arguments: ClassVar[tuple[str, ...]] = ()
    head: ClassVar[str] = "causal"
    forwards: ClassVar[float] = 1.0
    reference: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    spare: ClassVar[int] = 0

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        """Arguments of the config beyond those that all trainings share."""
        return {name: getattr(recipe, name) for name in cls.arguments}

    @classmethod
    def parts(cls, recipe: Any, ctx: Any, tokenizer: Any) -> dict[str, Any]:
        """Arguments of the trainer itself (reward functions, a teacher); made in the worker. Imports what it needs."""
        return {}

    @classmethod
    def wrap(cls, trainer: type) -> type:
        """The trainer class with what this method adds to it; ``Kept`` is in it already."""
        return trainer

    @classmethod
    def steps(cls, recipe: Any, samples: int) -> int:
        """Optimiser steps of the whole run."""
        from studio.trainers import plan

        return plan.total_steps(recipe, samples)

    @classmethod
    def fitting(cls, recipe: Any, ctx: Any, tokenizer: Any, rows: list) -> list:
        """The rows that this method can read with this model; says what is cut or left out."""
        from studio.aligners import cut

        return cut.told(rows, cls, recipe, tokenizer, ctx.warning) if cls.shape in cut.SIDES else rows

    @classmethod
    def result(cls, recipe: Any, model: Any, ref: Any) -> Any:
        """What is stored of the trained model: itself, or what is made of it."""
        return model

    @classmethod
    def end(cls, trainer: Any) -> None:
        """Ends what ``parts`` began; called however the training went."""

    @classmethod
    def outcome(cls, recipe: Any, trainer: Any) -> dict[str, Any]:
        """What the run's summary says beyond losses, and what else its result came from."""
        return {}

    @classmethod
    def lora(cls, recipe: Any) -> dict[str, Any] | None:
        """Arguments of PEFT's ``LoraConfig``, or ``None`` if all weights are trained."""
        from studio.trainers.sft_lora import Lora

        if recipe.train == "full":
            return None
        return Lora.config(recipe) | {"task_type": "SEQ_CLS" if cls.head == "reward" else "CAUSAL_LM"}

    @classmethod
    def quantization(cls, recipe: Any) -> dict[str, Any]:
        """Arguments of ``BitsAndBytesConfig`` for the frozen base; empty: it is not quantized."""
        if recipe.train == "full" or recipe.quant_type == "none":
            return {}
        if recipe.quant_type == "int8":
            return {"load_in_8bit": True}
        return {"load_in_4bit": True, "bnb_4bit_quant_type": recipe.quant_type, "bnb_4bit_use_double_quant": True}

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.aligners import data
        from studio.library import refs
        from studio.library.modelinfo import PROMPT_TYPES
        from studio.trainers import optimizers, spread

        model = refs.resolve_model(recipe.model)
        if cls.head == "causal":
            refs.check_writes(model)
        refs.check_weights(model, frozen=getattr(recipe, "train", "full") == "lora")
        data.check(recipe, cls.shape)
        spread.check(recipe)
        optimizers.check(recipe, getattr(recipe, "train", "full") == "lora")
        if model.meta.get("peft_type") in PROMPT_TYPES:
            raise StudioError(f"{model.label} is made of learned tokens, which cannot be trained further.",
                              "Start from the model it belongs to.", "model")
        base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
        context, longest = base.meta.get("context"), getattr(recipe, "max_length", None)
        if context and longest and longest > context:
            raise StudioError(f"{model.label} reads at most {context} tokens; the longest sample is set to {longest}.",
                              f"Set 'Longest sample' to {context} or less.", "max_length")
        odd = [size for size in base.meta.get("widths") or [] if size % 64]
        if odd and recipe.train == "lora" and recipe.quant_type in ("nf4", "fp4"):
            raise StudioError(f"{base.label} has layers {odd[0]} wide; 4 bits need multiples of 64.",
                              "Choose 8 bits, or its own precision.", "quant_type")

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        from studio import environments
        from studio.aligners import plan

        made = plan.estimate(cls, recipe)
        if cls.environment and (told := environments.note(cls.environment)):
            made.notes.append(told)
        return made

    @classmethod
    def measured(cls, recipe: Any) -> Any:
        if cls.environment:
            raise StudioError(f"{cls.title} cannot be measured before the start.", "It runs with another release of TRL "
                              "than the one that measures.")
        return super().measured(recipe)

    @classmethod
    def script(cls, recipe: Any) -> str:
        from studio.aligners import script

        return script.write(cls, recipe)

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        from studio.aligners import run

        return run.run(cls, recipe, ctx)


def imported(target: str) -> Any:
    """The object that ``module.Class`` names."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)
