"""What a quantized model folder holds: which library packed its weights, how, and how many there really are.

The format is read from ``quantization_config`` in config.json, as transformers does.
"""

from __future__ import annotations

from typing import Any

TITLES = {"gguf": "GGUF", "bitsandbytes": "bitsandbytes", "compressed-tensors": "compressed-tensors", "gptq": "GPTQ",
          "awq": "AWQ", "hqq": "HQQ", "exl2": "EXL2", "exl3": "EXL3", "fp8": "FP8", "mxfp4": "MXFP4"}
_SCALES = ("_scale", "_zero_point", "_g_idx", "_shape", ".g_idx", ".scales", ".qzeros", ".SCB", ".weight_format")


def facts(config: dict[str, Any]) -> dict[str, Any]:
    """``format`` and ``quantization`` (what a person calls it) of a config.json; both empty for plain weights."""
    told = config.get("quantization_config")
    if not isinstance(told, dict):
        return {"format": "", "quantization": ""}
    kind = str(told.get("quant_method") or ("bitsandbytes" if told.get("load_in_4bit") or told.get("load_in_8bit")
                                            else "unknown"))[:40]
    if kind == "bitsandbytes":
        double = " double" if told.get("bnb_4bit_use_double_quant") else ""
        word = f"{told.get('bnb_4bit_quant_type') or 'fp4'}{double}" if told.get("load_in_4bit") else "int8"
    elif kind == "compressed-tensors":
        word = _scheme(told)
    else:
        bits = told.get("bits") or told.get("w_bit")
        word = f"{bits} bits" if isinstance(bits, (int, float)) else ""
    return {"format": kind, "quantization": word[:40]}


def _groups(told: dict[str, Any]) -> list[dict[str, Any]]:
    groups = told.get("config_groups")
    return [g for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []


def _scheme(told: dict[str, Any]) -> str:
    """``W4A16``, ``W8A8``, ``FP8`` ... of the first group of layers of compressed-tensors."""
    for group in _groups(told):
        weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
        if not isinstance(weights, dict) or not isinstance(bits := weights.get("num_bits"), int):
            continue
        if weights.get("type") == "float":
            return f"{'NV' if bits == 4 else ''}FP{bits}" + ("" if inputs else "A16")
        reads = inputs.get("num_bits") if isinstance(inputs, dict) else None
        return f"W{bits}A{reads or 16}"
    return ""


def parameters(tensors: list[tuple[str, str, int]], config: dict[str, Any]) -> int:
    """How many weights a quantized model has: packed ones are counted as what they hold, scales not at all.

    Args:
        tensors: (name, dtype, number of values) of each in the files.
        config: Its config.json.
    """
    told = config["quantization_config"]
    kind = facts(config)["format"]
    bits = next((g["weights"].get("num_bits") for g in _groups(told) if isinstance(g.get("weights"), dict)), None) \
        or told.get("bits") or 4
    bits = bits if isinstance(bits, int) and 1 <= bits <= 16 else 4
    total = 0
    hqq = {name.removesuffix("W_q") for name, *_ in tensors if name.endswith(".W_q")}
    for name, dtype, count in tensors:
        layer, _, part = name.rpartition(".")
        if hqq and f"{layer}." in hqq and part not in ("W_q", "bias"):
            continue
        if name.endswith(_SCALES) or ".weight." in name:  # bitsandbytes keeps its tables below the weight's name
            continue
        if kind == "bitsandbytes" and dtype == "U8" and told.get("load_in_4bit"):
            count *= 2
        elif name.endswith(("weight_packed", ".qweight", ".W_q")):
            count *= (32 if dtype == "I32" else 8) // bits
        total += count
    return total


def called(meta: dict[str, Any]) -> str:
    """``"GGUF Q4_K_M"``: what a model's format is called on the page; empty for plain weights."""
    kind, word = str(meta.get("format") or ""), str(meta.get("quantization") or "")
    return f"{TITLES.get(kind, kind)} {word}".strip() if kind else ""
