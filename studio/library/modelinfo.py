"""What a model folder holds, read from its JSON files and safetensors headers. Loads no weights and runs no code."""

from __future__ import annotations

import json
import math
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.library import quantized

MAX_JSON = 32 * 1024 * 1024  # a sane config or weight index; a larger one is not read
MAX_HEADER = 100 * 1024 * 1024  # the limit of the safetensors format itself
PROMPT_TYPES = ("PREFIX_TUNING", "P_TUNING", "PROMPT_TUNING")  # adapters that are learned tokens, not changes of weights
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def describe(path: Path) -> dict[str, Any]:
    """Facts about the model or adapter in a folder, or of one GGUF file.

    Returns:
        ``architecture``, ``model_type``, ``parameters``, ``size`` (bytes of weights), ``dtype``, ``context`` (tokens),
        ``vocab_size``, ``widths`` and number of ``layers``, ``chat_template`` (bool), ``tokenizer`` (bool), ``reward`` (bool:
        it gives a number instead of writing), ``adapter`` (bool), ``format`` (``gguf``, ``bitsandbytes``, ... and
        ``quantization``, what its kind is called; empty for plain weights); for an adapter also ``peft_type``, ``r`` and
        ``base`` (as written in its config). Unknown ones are ``None``.

    Raises:
        StudioError: no model there, broken or truncated files, or weights only as pickles, which can run code.
    """
    if path.is_file():
        return _gguf(path)
    return dict(_describe(path, _stamp(path)))


def _gguf(path: Path) -> dict[str, Any]:
    """Facts of a GGUF file, or of the only one in a folder."""
    from studio.gguf import read

    found = read.facts(path)
    if found["adapter"]:
        raise StudioError(f"{found['file']} is an adapter for llama.cpp, not a whole model.",
                          "Choose a whole model in GGUF.", "model")
    found.pop("template")  # as long as it likes, and only wanted where it is read
    return found | {"model_type": found["architecture"], "reward": False, "quantization": found["quantization"] or ""}


def _stamp(path: Path) -> tuple:
    """Changes when any file of the folder does, so that facts are read once per state of the folder."""
    try:
        return tuple(sorted((p.name, s.st_mtime_ns, s.st_size) for p in path.iterdir() if (s := p.stat())))
    except OSError:
        return ()


@lru_cache(maxsize=128)
def _describe(path: Path, stamp: tuple) -> dict[str, Any]:
    names = {entry[0] for entry in stamp}
    if "adapter_config.json" in names:
        config = _json(path / "adapter_config.json")
        facts = {"adapter": True, "architecture": None, "peft_type": config.get("peft_type"), "r": config.get("r"),
                 "start": config.get("init_lora_weights"), "rope": _rope(path, names),
                 "base": config.get("base_model_name_or_path"), "reward": config.get("task_type") == "SEQ_CLS"}
        weights = ["adapter_model.safetensors"] if "adapter_model.safetensors" in names else []
    elif any(n.endswith(".gguf") for n in names) and not any(n.endswith(".safetensors") for n in names):
        return _gguf(path)
    elif "config.json" in names:
        config = _json(path / "config.json")
        facts = {"adapter": False, "architecture": (config.get("architectures") or [None])[0]}
        facts["reward"] = str(facts["architecture"]).endswith(("ForSequenceClassification", "RewardModel"))
        weights = _weight_files(path, names)
    else:
        raise StudioError(f"{path.name or path} is not a model folder: there is no config.json in it.",
                          "Choose a folder saved by transformers or PEFT (save_pretrained), or a GGUF file.", "model")
    if not weights:
        if pickles := sorted(n for n in names if n.endswith(PICKLES) and n not in ("training_args.bin",)):
            raise StudioError(f"The weights of {path.name} are only a pickle file ({pickles[0]}), which can run code.",
                              "Get the model as .safetensors, or convert it on a machine you trust.", "model")
        raise StudioError(f"{path.name} has no weights (.safetensors).",
                          "Copy the whole folder, or choose another model.", "model")
    tensors = [(name, *held) for file in weights for name, held in _tensors(path / file).items()]
    dtypes: dict[str, int] = {}
    for _, dtype, count in tensors:
        dtypes[dtype] = dtypes.get(dtype, 0) + count
    packed = quantized.facts({} if facts["adapter"] else config)
    sizes = {entry[0]: entry[2] for entry in stamp}
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    tokenizer = _json(path / "tokenizer_config.json") if "tokenizer_config.json" in names else {}
    return facts | packed | {
        "model_type": config.get("model_type"),
        "widths": [text[key] for key in ("hidden_size", "intermediate_size") if isinstance(text.get(key), int)],
        "layers": text.get("num_hidden_layers") or text.get("n_layer"),
        "parameters": quantized.parameters(tensors, config) if packed["format"] else sum(n for *_, n in tensors),
        "dtype": max(dtypes, key=dtypes.get) if dtypes else None,
        "size": sum(sizes.get(n, 0) for n in weights),
        "context": _context(text),
        "vocab_size": text.get("vocab_size"),
        "tokenizer": bool(names & {"tokenizer.json", "tokenizer.model", "vocab.json"}),
        "chat_template": "chat_template.jinja" in names or bool(tokenizer.get("chat_template")),
    }


def _rope(path: Path, names: set[str]) -> dict[str, Any] | None:
    """How the positions of an adapter's base are stretched; see :mod:`studio.trainers.rope`."""
    found = _json(path / "rope.json") if "rope.json" in names else {}
    return found if isinstance(found.get("factor"), (int, float)) and isinstance(found.get("rope_type"), str) else None


def _context(config: dict[str, Any]) -> int | None:
    """Tokens a model reads. Dynamic RoPE stretches behind the length that the config names."""
    longest = config.get("max_position_embeddings") or config.get("n_positions")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    dynamic = isinstance(rope, dict) and rope.get("rope_type") == "dynamic" and isinstance(rope.get("factor"), (int, float))
    return int(longest * rope["factor"]) if dynamic and isinstance(longest, int) else longest


def _weight_files(path: Path, names: set[str]) -> list[str]:
    if "model.safetensors.index.json" in names:
        index = _json(path / "model.safetensors.index.json").get("weight_map")
        parts = sorted({str(n) for n in index.values()}) if isinstance(index, dict) else []
        if missing := [n for n in parts if n not in names]:
            raise StudioError(f"{path.name} lacks {len(missing)} of {len(parts)} weight files ({missing[0]}).",
                              "Download the model again or copy the missing files.", "model")
        return parts
    if "model.safetensors" in names:
        return ["model.safetensors"]
    return sorted(n for n in names if n.endswith(".safetensors") and not n.startswith("adapter"))


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise StudioError(f"{path.name} is too large to be a model's settings.", "Choose another folder.", "model")
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as err:
        raise StudioError(f"{path.parent.name}/{path.name} is broken: it is not valid JSON.",
                          "Download or save the model again.", "model") from err
    except OSError as err:
        raise StudioError(f"{path} cannot be read: {err.strerror}.", "Check its permissions.", "model") from err
    if not isinstance(value, dict):
        raise StudioError(f"{path.parent.name}/{path.name} is broken: it holds no settings.",
                          "Download or save the model again.", "model")
    return value


def _tensors(path: Path) -> dict[str, tuple[str, int]]:
    """Name -> (dtype, number of values) of every tensor in a safetensors file, from its header.

    Format: https://github.com/huggingface/safetensors#format (8 bytes length, JSON header, data).
    """
    broken = StudioError(f"{path.parent.name}/{path.name} is broken or cut short.",
                         "Download or save the model again.", "model")
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER, total - 8):
                raise broken
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
        if 8 + length + end > total:
            raise broken
        return {name: (t["dtype"], math.prod(t["shape"])) for name, t in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as err:
        raise broken from err


def weights(path: Path) -> dict[str, int]:
    """Name -> number of values of every weight of a whole model.

    Raises:
        StudioError: a file is broken or missing.
    """
    names = {entry[0] for entry in _stamp(path)}
    return {name: size for file in _weight_files(path, names) for name, (_, size) in _tensors(path / file).items()}


def count(parameters: int | None) -> str:
    """``1234567`` -> ``"1.2M"``; empty when unknown."""
    if not parameters:
        return ""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= limit:
            return f"{parameters / limit:.3g}{unit}"
    return str(parameters)
