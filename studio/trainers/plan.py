"""Steps, seconds and memory of a run, from formulas. No torch here: the form shows these while a person types."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple


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


# Fitted to tests/benchmarks/estimate.py (docs/measured.md): random models of 3, 10 and 40 million weights and the starter,
# sequences of 64 to 256, one core of an AVX-512 server. Floating point operations a second of training, per thread:
CPU_FLOPS = {False: 4.2e10, True: 5.0e10}
CPU_SMALL, CPU_GAIN, CPU_MOST = 3e6, 0.2, 2.0  # larger matrices are multiplied faster, up to so many times
CPU_STEP = 0.02  # seconds a step costs however small the model is
CPU_START = 1.2  # seconds to load, prepare and save, once the libraries are there
LARGE = 8e6  # weights from which an adapter saves the work for the frozen ones; below, other work hides it
LIBRARIES = 485e6  # bytes a process with the libraries holds
# Numbers kept for the backward pass: of each token and layer so many widths and inner widths, for an adapter on each
# linear layer so many more; of each token so many times the vocabulary (logits, their gradient, loss, accuracy and entropy).
KEPT, KEPT_BESIDE, KEPT_LOGITS = (16, 5), (6, 3), 8.5
PLAIN_LOSS_BYTES = 1 << 30  # logits beyond this are never built whole
TILE = 1 << 28  # what they take in tiles
STATES = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0.1, "sgd": 0, "lion": 4, "muon": 4, "galore": 2,
          "apollo": 1}  # bytes of the optimizer's state a weight; AdamW's two moments: 8
CHARACTERS = 3.5  # in a token, where nobody has counted them
LOOKED_AT = 2000  # rows read for an estimate


class Shape(NamedTuple):
    """What a language model is made of, as far as its memory goes."""

    width: int
    inner: int
    layers: int
    vocabulary: int


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
    meta: dict[str, Any] = {}
    if parameters is None:
        try:
            model = refs.resolve_model(recipe.model)
            meta = (refs.resolve_model(model.base) if model.is_adapter and model.base else model).meta
            parameters = meta.get("parameters")
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
        work = (4 if lora and parameters > LARGE else 6) * parameters * tokens * (4 / 3 if recipe.gradient_checkpointing else 1)
        # 15 % more for validations and checkpoints
        speed = CPU_FLOPS[half] * min(CPU_MOST, max(1.0, (parameters / CPU_SMALL) ** CPU_GAIN))
        made.seconds = CPU_START + made.steps * (CPU_STEP + work / speed) * 1.15
        made.notes.append(f"Time is an estimate for one of {cores()} cores with nothing else running.")
    shape = shape_of(recipe, meta, parameters)
    longest = length if counted or getattr(recipe, "packing", False) else _longest(recipe, length)
    made.memory = _memory(recipe, parameters, shape, batch * longest * sides, lora, gpu, half)
    trained = _adapter_size(recipe, shape, parameters) if lora else parameters
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
        return _measured(recipe.dataset, tuple(sorted(recipe.columns.items())), state.st_mtime_ns, state.st_size)[:2]
    except StudioError:
        return None, 0.0  # check() is what refuses bad data; an estimate never keeps a person from typing


def _longest(recipe: Any, mean: float) -> float:
    """Tokens of the longest sample: memory has to do for a batch of those, time for the mean."""
    from studio.errors import StudioError
    from studio.library import refs

    try:
        path = refs.resolve_dataset(recipe.dataset).path
        state = path.stat() if path else None
        found = _measured(recipe.dataset, tuple(sorted(recipe.columns.items())), state.st_mtime_ns, state.st_size)[2] \
            if state else 0
    except StudioError:
        return mean
    return min(recipe.max_length, max(mean, found / CHARACTERS))


@lru_cache(maxsize=32)
def _measured(ref: str, columns: tuple, stamp: int, size: int) -> tuple[int | None, float, int]:
    from itertools import islice

    from studio.datasets import formats
    from studio.datasets.convert import turns_of

    rows = formats.load_rows(ref, dict(columns))
    found = list(islice(rows, LOOKED_AT))
    lengths = [sum(len(m.get("content") or "") for m in turns_of(row)) for row in found]
    mean = sum(lengths) / max(1, len(lengths))
    if len(found) < LOOKED_AT:
        return len(found), mean, max(lengths, default=0)
    if rows.detected.canonical:
        return rows.source.count(), mean, max(lengths)
    return int(size / max(1.0, mean + 40)), mean, max(lengths)  # 40: names of columns and quotes around each row


def shape_of(recipe: Any, meta: dict[str, Any], parameters: int) -> Shape:
    """The shape of a model from its facts, of one from scratch from its recipe, of an unknown one from its size alone."""
    if hasattr(recipe, "num_hidden_layers"):
        return Shape(recipe.hidden_size, recipe.intermediate_size, recipe.num_hidden_layers, recipe.vocab_size)
    widths, layers = meta.get("widths") or [], meta.get("layers")
    if len(widths) == 2 and layers and meta.get("vocab_size"):
        return Shape(*widths, layers, meta["vocab_size"])
    layers, vocabulary = (24, 32_000) if parameters > LARGE else (6, 8_000)
    width = int(math.sqrt(parameters / (13 * layers)))
    return Shape(width, 3 * width, layers, vocabulary)


# Widths and inner widths that go into a matrix and come out of it, by what Llama and its kin call them; others: (2, 0).
_SIDES = {"gate_proj": (1, 1), "up_proj": (1, 1), "down_proj": (1, 1), "gate_up_proj": (1, 2), "qkv_proj": (4, 0),
          "fc1": (1, 1), "fc2": (1, 1), "c_fc": (1, 1), "c_attn": (4, 0)}
_ALL_SIDES = (11, 3)  # four of attention, three of the feed-forward part


def _adapter_size(recipe: Any, shape: Shape, parameters: int) -> int:
    """Weights that are trained beside a frozen model: an adapter on the layers named, and the parts trained whole."""
    from studio.trainers.common import numbers

    rank = getattr(recipe, "r", None) or getattr(recipe, "init_r", None) or 16
    only = numbers(getattr(recipe, "layers_to_transform", ""))
    layers = len([n for n in only if n < shape.layers]) if only else shape.layers
    names = _names(getattr(recipe, "target_modules", ""))
    sides = [_SIDES.get(name, (2, 0)) for name in names] if names and names != ["all-linear"] else [_ALL_SIDES]
    beside = rank * layers * sum(wide * shape.width + inner * shape.inner for wide, inner in sides)
    saved = _names(getattr(recipe, "modules_to_save", ""))
    ends = [name for name in saved if name in ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")]
    whole = len(ends) * shape.width * shape.vocabulary
    whole += shape.layers * shape.width * sum(1 if "norm" in name else shape.inner if _SIDES.get(name) == (1, 1) else shape.width
                                              for name in saved if name not in ends)
    return int(min(parameters, beside + whole))


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _memory(recipe: Any, parameters: int, shape: Shape, tokens: float, lora: bool, gpu: bool, half: bool) -> int:
    """Bytes at the peak: weights, gradients, the optimizer's state, what the backward pass needs, and logits.

    Args:
        tokens: Of one batch, before any is added up.
    """
    trained = _adapter_size(recipe, shape, parameters) if lora else parameters
    bits = {"nf4": 4.5, "fp4": 4.5, "int8": 8.5}.get(getattr(recipe, "quant_type", ""))  # with their constants
    weights = parameters * (bits / 8 if bits else 2 if gpu and lora and half else 4)
    state = trained * (4 + next((size for name, size in STATES.items() if recipe.optim.startswith(name)), 8))
    wide, inner = (a + b * lora for a, b in zip(KEPT, KEPT_BESIDE, strict=True))
    layers = 1 if recipe.gradient_checkpointing else shape.layers
    numbers = layers * (wide * shape.width + inner * shape.inner) + shape.layers * shape.width
    logits = tokens * shape.vocabulary * 4
    logits = logits * KEPT_LOGITS if logits <= PLAIN_LOSS_BYTES else TILE
    return int(weights + state + tokens * numbers * (2 if half else 4) + logits + (0 if gpu else LIBRARIES))
