"""How much memory a chat engine will take, told before it is loaded. No torch here.

Weights and the memory of the conversation follow from the model's own files; what the runtime takes for itself is measured: each
engine writes down what it held when it was ready, and the next estimate uses that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil

from studio import hardware
from studio.chat import records
from studio.errors import StudioError
from studio.library.refs import ModelRef, resolve_model

# Bytes that an engine held beyond its weights when it was ready; measured on two cores with torch 2.13 for CPUs and xllamacpp of
# October 2026, and replaced by what engines of this workspace measure.
FIRST_GUESS = {"torch": 530_000_000, "llama": 90_000_000}
_FILE = "measured"


def needs(ref: str) -> dict[str, Any]:
    """What loading ``ref`` will take, in bytes.

    Returns:
        ``weights``, ``cache`` (of one conversation as long as the model reads), ``context`` (its tokens), ``overhead`` of the runtime,
        ``total``, ``free`` now, ``device`` (``cpu`` | ``gpu``), ``fits``, ``kind`` (``torch`` | ``llama`` | ``remote``), ``measured``:
        whether the overhead was measured here, ``loaded``: whether an engine has it already, ``label``. What cannot be known
        (a model of the Hub that was not downloaded) is ``None``.

    Raises:
        StudioError: unknown model.
    """
    from studio.chat import address, manager

    if address.is_address(ref):
        return {"kind": "remote", "label": address.label(ref), "weights": 0, "cache": 0, "context": None, "overhead": 0, "total": 0,
                "free": None, "device": "", "fits": True, "measured": False, "loaded": False}
    model = resolve_model(ref)
    base = manager.base_of(model)
    gguf = base.meta.get("format") == "gguf"
    card = not gguf and hardware.some_gpu()
    kind = "llama" if gguf else "torch"
    width = 2 if card else 4  # an engine computes with 16 bits on a card and with 32 on a processor
    cache, context = _gguf_cache(base) if gguf else _cache(base, width)
    weights = _weights(base, width)
    if model.is_adapter and weights is not None:
        weights += _folder(model.path)
    overhead, measured = runtime(kind)
    total = None if weights is None else weights + (cache or 0) + overhead
    free = _card_free() if card else hardware.free_memory()
    loaded = any(engine["base"] == base.ref for engine in manager.engines())
    return {"kind": kind, "label": model.label, "weights": weights, "cache": cache, "context": context, "overhead": overhead,
            "total": total, "free": free, "device": "gpu" if card else "cpu", "measured": measured, "loaded": loaded,
            "fits": loaded or total is None or free is None or total <= free}


def runtime(kind: str) -> tuple[int, bool]:
    """(bytes that an engine takes besides its weights, whether that was measured in this workspace)."""
    found = _measured().get(kind)
    return (int(found), True) if isinstance(found, (int, float)) and found > 0 else (FIRST_GUESS[kind], False)


def measure(kind: str, base: str) -> None:
    """Called by an engine that is ready: writes down what it holds besides its weights."""
    try:
        weights = _weights(resolve_model(base), 4) or 0
        beyond = psutil.Process().memory_info().rss - weights
        path = records.folder() / _FILE
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(_measured() | {kind: max(1, beyond)}))
        new.replace(path)
    except (OSError, StudioError):
        return  # an estimate is a courtesy


def _measured() -> dict[str, Any]:
    try:
        found = json.loads((records.folder() / _FILE).read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _weights(base: ModelRef, width: int) -> int | None:
    if base.meta.get("format") in ("gguf", "bitsandbytes"):
        return base.meta.get("size") or _folder(base.path) or None
    if base.meta.get("parameters"):
        return int(base.meta["parameters"]) * width
    return int(_folder(base.path) * width / 2) or None  # of unknown precision: most are stored in 16 bits


def _folder(path: Path | None) -> int:
    if path is None:
        return 0
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for kind in ("*.safetensors", "*.gguf") for file in path.glob(kind))


def _cache(base: ModelRef, width: int) -> tuple[int | None, int | None]:
    """(bytes of keys and values of a whole context, tokens of it)."""
    try:
        config = json.loads((base.path / "config.json").read_text()) if base.path else {}
    except (OSError, ValueError):
        config = {}
    config = config.get("text_config") or config

    def number(*names: str) -> int:
        return next((int(config[name]) for name in names if isinstance(config.get(name), (int, float))), 0)

    context, heads = number("max_position_embeddings", "n_positions"), number("num_attention_heads", "n_head")
    layers, hidden = number("num_hidden_layers", "n_layer"), number("hidden_size", "n_embd")
    size = number("head_dim") or (hidden // heads if heads else 0)
    token = 2 * layers * (number("num_key_value_heads") or heads) * size * width
    return (token * context or None), (context or None)


def _gguf_cache(base: ModelRef) -> tuple[int | None, int | None]:
    """As llama.cpp is started for it: several conversations at once, each as long as memory allows."""
    from studio.chat import llama
    from studio.gguf import read

    try:
        file = read.only(base.path) if base.path.is_dir() else base.path
        facts = read.facts(file)
        slots, context = llama._room(file, facts["context"], llama.SLOTS, None)
        head = read.read(file)
    except (StudioError, OSError, AttributeError):
        return None, None
    heads = head.number("attention.head_count") or 1
    width = head.number("attention.key_length") or (head.number("embedding_length") or 0) // heads
    token = int((head.number("block_count") or 1) * (head.number("attention.head_count_kv") or heads) * width * 2 * 2)
    return token * context * slots, context


def _card_free() -> int | None:
    cards = hardware.gpus()
    return cards[0]["total"] - cards[0]["used"] if cards and cards[0].get("total") and cards[0].get("used") is not None else None
