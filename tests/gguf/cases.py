"""Small GGUF files whose every byte follows from a seed, for comparing with llama-quantize. Needs numpy and gguf only.

Used by the tests and by ``make_reference.py``, which runs in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np


class Case(NamedTuple):
    """A model. ``inner``: length of the rows of ``ffn_down``; ``experts``: 0 for an ordinary one."""

    architecture: str = "llama"
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    width: int = 256
    inner: int = 512
    experts: int = 0
    tied: bool = False
    fused: bool = False


WEIGHTS = Case()  # its weights are compared bit by bit
MIXES = {  # for these only which tensor gets which type
    "shared heads": Case(layers=8, heads=8, kv_heads=2, inner=256),
    "own heads": Case(layers=16, heads=4, kv_heads=4, inner=256),
    "tied": Case(architecture="qwen3", layers=9, inner=256, tied=True),
    "odd rows": Case(layers=3, width=192, inner=320),
    "odd inner": Case(layers=4, inner=320, tied=True),
    "eight experts": Case(layers=8, inner=256, experts=8),
    "four experts": Case(architecture="qwen3moe", layers=8, inner=256, experts=4, heads=8, kv_heads=1),
    "fused": Case(architecture="phi3", layers=8, inner=256, fused=True),
    "seventy": Case(layers=80, heads=8, kv_heads=1, inner=256),
}


def write(case: Case, path: Path) -> dict[str, np.ndarray]:
    """Writes a case in F32; returns the importance of each input by tensor, as different by input as in a real model."""
    random = np.random.RandomState(7)  # the old generator: its stream never changes
    writer = gguf.GGUFWriter(str(path), case.architecture)
    writer.add_type("model")
    writer.add_name("case")
    writer.add_context_length(128)
    writer.add_embedding_length(case.width)
    writer.add_block_count(case.layers)
    writer.add_feed_forward_length(case.inner)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(case.width // case.heads)
    writer.add_vocab_size(64)
    if case.architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(128)
    if case.experts:
        writer.add_expert_count(case.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(case.inner)
    writer.add_file_type(0)
    importance = {}
    for name, shape in shapes(case).items():
        values = random.standard_normal(shape).astype(np.float32) * np.float32(0.05)
        if len(shape) > 1:
            values *= random.gamma(2.0, 1.0, shape[-1]).astype(np.float32)
            inputs = (case.experts, shape[-1]) if len(shape) > 2 else (shape[-1],)
            if name not in ("token_embd.weight", "output.weight") and "gate_inp" not in name:
                importance[name] = random.gamma(0.7, 2.0, inputs).astype(np.float32)
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return importance


def shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Tensors with their shapes as in torch."""
    width, inner, kv = case.width, case.inner, case.width // case.heads * case.kv_heads
    made: dict[str, tuple[int, ...]] = {"token_embd.weight": (64, width), "output_norm.weight": (width,)}
    if not case.tied:
        made["output.weight"] = (64, width)
    for at in range(case.layers):
        layer: dict[str, Any] = {"attn_norm": (width,), "ffn_norm": (width,), "attn_output": (width, width)}
        if case.fused:
            layer |= {"attn_qkv": (width + 2 * kv, width)}
        else:
            layer |= {"attn_q": (width, width), "attn_k": (kv, width), "attn_v": (kv, width)}
        if case.experts:
            e = case.experts
            layer |= {"ffn_gate_inp": (e, width), "ffn_gate_exps": (e, inner, width), "ffn_up_exps": (e, inner, width),
                      "ffn_down_exps": (e, width, inner)}
        elif case.fused:
            layer |= {"ffn_up": (2 * inner, width), "ffn_down": (width, inner)}
        else:
            layer |= {"ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
        made |= {f"blk.{at}.{name}.weight": shape for name, shape in layer.items()}
    return made
