"""A recipe as the library's own config. Imports torch, so only ``run`` methods import this module."""

from __future__ import annotations

import os
import re
from typing import Any

import torch

from studio import settings
from studio.errors import StudioError
from studio.trainers import optimizers, spread
from studio.trainers.plan import intervals, uses_bf16

_TOLD = ("optim", "lr_scheduler_type", "report_to", "bf16")  # fields that the library's refusals name


def has_gpu() -> bool:
    return torch.cuda.is_available() and not os.environ.get("STUDIO_CPU")


def _tracker(name: str) -> None:
    """Where MLflow writes if its environment does not say: a database of the workspace; its file store is retired."""
    if name == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{settings.home() / 'mlflow.db'}")
        os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", "Atelier")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def shared(recipe: Any, ctx: Any, steps: int, held: bool) -> dict[str, Any]:
    """Arguments of ``transformers.TrainingArguments``, which every config of TRL takes.

    Args:
        steps: Optimiser steps of the whole run, for the intervals that are left to the studio.
        held: There are validation samples.
    """
    _tracker(recipe.report_to)
    gpu = has_gpu()
    eval_steps, save_steps = intervals(recipe, steps, held)
    return dict(output_dir=str(ctx.checkpoints), num_train_epochs=recipe.num_train_epochs,
                max_steps=recipe.max_steps, learning_rate=recipe.learning_rate,
                lr_scheduler_type=recipe.lr_scheduler_type, warmup_steps=recipe.warmup_steps,
                weight_decay=recipe.weight_decay, max_grad_norm=recipe.max_grad_norm,
                seed=recipe.seed, **optimizers.arguments(recipe),
                per_device_train_batch_size=recipe.per_device_train_batch_size,
                per_device_eval_batch_size=recipe.per_device_train_batch_size,
                gradient_accumulation_steps=recipe.gradient_accumulation_steps,
                neftune_noise_alpha=recipe.neftune_noise_alpha or None,
                bf16=uses_bf16(recipe, torch.cuda.is_bf16_supported() if gpu else None),
                use_cpu=not gpu, gradient_checkpointing=recipe.gradient_checkpointing,
                logging_steps=recipe.logging_steps, logging_first_step=True,
                eval_strategy="steps" if held else "no", eval_steps=eval_steps if held else None,
                save_strategy="steps", save_steps=save_steps, report_to=recipe.report_to,
                trust_remote_code=recipe.trust_remote_code, disable_tqdm=True, logging_nan_inf_filter=False,
                dataloader_pin_memory=gpu, **spread.arguments(recipe))


def make(config: type, values: dict[str, Any], recipe: Any) -> Any:
    """An instance of a config class, with what a recipe adds by ``beyond()`` and in its table of more settings.

    Raises:
        StudioError: the library refuses, in the field it names.
    """
    try:
        made = config(**(values | getattr(recipe, "beyond", dict)() | recipe.extra))
    except (ValueError, TypeError, ImportError) as err:
        told = str(err)
        named = [name for name in type(recipe).model_fields if "_" in name and re.search(rf"\b{name}\b", told)]
        field = next((name for name in (*_TOLD, *named) if name in told), "extra")
        raise StudioError(f"The library refuses these settings: {told.splitlines()[0]}", "Change the field.",
                          field) from err
    made.studio_optimizer = optimizers.maker(recipe)  # for Kept, which has no recipe
    return made
