"""Steps, seconds and memory of a run, from formulas. No torch here: the form shows these while a person types."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any


def total_steps(recipe: Any, samples: int) -> int:
    """Optimiser steps, counted as transformers' Trainer counts them."""
    if recipe.max_steps > 0:
        return recipe.max_steps
    batches = math.ceil(math.ceil(samples / recipe.per_device_train_batch_size) / recipe.num_processes)
    return max(1, math.ceil(recipe.num_train_epochs * max(1, math.ceil(batches / recipe.gradient_accumulation_steps))))


def intervals(recipe: Any, steps: int, held: bool = True) -> tuple[int, int]:
    """(validate every, checkpoint every); 0 in the recipe means ten times in a run, and with every validation.

    Without validation (``held`` false) checkpoints are at least 50 steps apart.
    """
    every = recipe.eval_steps or max(1, math.ceil(steps / 10))
    return every, recipe.save_steps or (every if held else max(every, 50))


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """The processor multiplies bfloat16 in hardware (AVX512-BF16, AMX or the Arm equivalent)."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8", "replace")[:20000]
    except OSError:
        return False
    return any(word in flags for word in ("avx512_bf16", "amx_bf16", " bf16"))


def uses_bf16(recipe: Any, gpu: bool | None) -> bool:
    """Whether to compute in bfloat16. ``gpu``: ``None`` without one, else whether it can."""
    if recipe.bf16 != "auto":
        return recipe.bf16 == "on"
    return cpu_has_bf16() if gpu is None else gpu


def load_dtype(recipe: Any, gpu: bool, lora: bool) -> str:
    """In which precision the weights are held: 16 bits for the frozen base of an adapter on a GPU, else 32."""
    return "bfloat16" if gpu and lora and recipe.bf16 != "off" else "float32"


# Floating point operations a second of training, per thread, measured with the studio's own loop on the starter and
# its relatives (1 to 10 M parameters, sequences of 128 to 256) on one core of an AVX-512 server.
CPU_FLOPS = {False: 3.0e10, True: 5.0e10}
CPU_STEP = 0.02  # seconds a step costs however small the model is
CPU_START = 2.0  # seconds to load, prepare and save, once the libraries are there
CHARACTERS = 3.5  # in a token, where nobody has counted them
LOOKED_AT = 2000  # rows read for an estimate


def estimate(recipe: Any, lora: bool = False, parameters: int | None = None,
             counted: tuple[int | None, float] | None = None, sides: int = 1) -> Any:
    """Steps, seconds, memory and disk of a run. Time and memory are estimates; what is not known stays ``None``.

    Args:
        lora: Only an adapter is trained.
        parameters: Size of a model that does not exist yet.
        counted: (rows, mean characters of a side) where a row is not what plain training reads of it.
        sides: Sequences that a row is made of.
    """
    from studio.datasets import formats
    from studio.errors import StudioError
    from studio.hardware import cores, gpus
    from studio.library import refs
    from studio.method import Estimate

    gpu = bool(gpus())
    made = Estimate(device="gpu" if gpu else "cpu")
    if parameters is None:
        try:
            model = refs.resolve_model(recipe.model)
            parameters = model.meta.get("parameters")
            if model.is_adapter and model.base:
                parameters = refs.resolve_model(model.base).meta.get("parameters")
        except StudioError:
            return made
    rows, characters = counted or _measure(recipe)
    if rows is not None and not recipe.eval_dataset and not formats.own_validation(recipe.dataset):
        rows -= round(rows * recipe.eval_share)
    length = min(recipe.max_length, characters / CHARACTERS) if characters else recipe.max_length
    if rows:
        packed = max(1, math.ceil(rows * (characters / CHARACTERS
                                          or length) / recipe.max_length)) if getattr(recipe, "packing", False) else rows
        made.steps = total_steps(recipe, packed)
    elif recipe.max_steps > 0:
        made.steps = recipe.max_steps
    if not parameters:
        return made
    if getattr(recipe, "packing", False):
        length = recipe.max_length
    batch = recipe.per_device_train_batch_size
    tokens = batch * recipe.gradient_accumulation_steps * length * sides
    half = uses_bf16(recipe, True if gpu else None)
    if made.steps and not gpu:
        # 6 operations a weight and token: 2 forward, 4 backward; an adapter saves the weights' own third.
        work = (4 if lora else 6) * parameters * tokens * (4 / 3 if recipe.gradient_checkpointing else 1)
        # 15 % more for validations and checkpoints
        made.seconds = CPU_START + made.steps * (CPU_STEP + work / CPU_FLOPS[half]) * 1.15
        made.notes.append(f"Time is an estimate for one of {cores()} cores with nothing else running.")
    made.memory = _memory(recipe, parameters, batch * length * sides, lora, gpu, half)
    trained = _adapter_size(recipe, parameters) if lora else parameters
    checkpoint = trained * 12 + (1 << 17)
    made.disk = int(checkpoint * (recipe.save_total_limit + 1) + trained * 4)
    return made


def _measure(recipe: Any) -> tuple[int | None, float]:
    """(rows, mean characters a row) of the dataset, from its first rows where it is long."""
    from studio.errors import StudioError
    from studio.library import refs

    try:
        path = refs.resolve_dataset(recipe.dataset).path
        if path is None:
            return None, 0.0
        state = path.stat()
        return _measured(recipe.dataset, tuple(sorted(recipe.columns.items())), state.st_mtime_ns, state.st_size)
    except StudioError:
        return None, 0.0  # check() is what refuses bad data; an estimate never keeps a person from typing


@lru_cache(maxsize=32)
def _measured(ref: str, columns: tuple, stamp: int, size: int) -> tuple[int | None, float]:
    from itertools import islice

    from studio.datasets import formats
    from studio.datasets.convert import turns_of

    rows = formats.load_rows(ref, dict(columns))
    found = list(islice(rows, LOOKED_AT))
    lengths = [sum(len(m.get("content") or "") for m in turns_of(row)) for row in found]
    mean = sum(lengths) / max(1, len(lengths))
    if len(found) < LOOKED_AT:
        return len(found), mean
    if rows.detected.canonical:
        return rows.source.count(), mean
    return int(size / max(1.0, mean + 40)), mean  # 40: names of columns and quotes around each row


def _adapter_size(recipe: Any, parameters: int) -> int:
    """Weights of an adapter on all linear layers; it grows with the root of the model."""
    return int(min(parameters, 28 * recipe.r * math.sqrt(parameters)))


def _memory(recipe: Any, parameters: int, tokens: float, lora: bool, gpu: bool, half: bool) -> int:
    """Bytes at the peak: weights, gradients, AdamW's two moments, activations and logits."""
    trained = _adapter_size(recipe, parameters) if lora else parameters
    bits = {"nf4": 4.5, "fp4": 4.5, "int8": 8.5}.get(getattr(recipe, "quant_type", ""))  # with their constants
    weights = parameters * (bits / 8 if bits else 2 if gpu and lora and half else 4)
    state = trained * (4 + 8)
    width = math.sqrt(parameters) / 8
    layers = 24 if parameters > 1e8 else 6
    activations = tokens * width * layers * (4 if recipe.gradient_checkpointing else 34) * (2 if half else 4)
    return int(weights + state + activations + (0 if gpu else 650e6))  # what a process with the libraries holds
