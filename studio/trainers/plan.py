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
    batches = math.ceil(samples / recipe.per_device_train_batch_size)
    return max(1, math.ceil(recipe.num_train_epochs * max(1, math.ceil(batches / recipe.gradient_accumulation_steps))))


def intervals(recipe: Any, steps: int) -> tuple[int, int]:
    """(validate every, checkpoint every); 0 in the recipe means ten times in a run, and with every validation."""
    every = recipe.eval_steps or max(1, math.ceil(steps / 10))
    return every, recipe.save_steps or every


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


# Training speed in floating point operations a second and thread, measured with the studio's own loop on small Llamas
# (1 to 10 M parameters, AVX-512, float32): 2.0e10 to 4.5e10. Used only where the machine has not been measured.
CPU_FLOPS = 3.0e10
GPU_FLOPS = 5.0e13
STARTUP = 2.0  # seconds: load, read, prepare, save


def samples_of(recipe: Any) -> tuple[int | None, float]:
    """(rows or ``None`` when not known cheaply, mean characters a row) of the recipe's dataset file."""
    from studio.datasets import formats

    try:
        info = formats.inspect(recipe.dataset, recipe.columns) if hasattr(formats, "inspect") else {}
    except Exception:  # an estimate never stops a person from typing; check() refuses bad data
        return None, 0.0
    return info.get("rows"), float(info.get("mean_chars") or 0.0)
