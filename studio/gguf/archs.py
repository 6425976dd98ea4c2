"""What each architecture needs in a GGUF file: its facts, and how its tensors become llama.cpp's.

A converter that leaves something out (a window, a scaling, a cap) gives a file that runs and answers wrongly, so whatever
llama.cpp cannot compute is refused, and what it computes a little differently is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studio.errors import StudioError
from studio.gguf.weights import Piece, Stored, whole

NEEDLESS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")  # tables that are computed anew
OTHER_PARTS = ("vision", "audio", "visual.", "multi_modal_projector", "projector.")  # of models that also see or hear
_EXPERT = re.compile(r"model\.layers\.(\d+)\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight")
_FUSED = re.compile(r"model\.layers\.(\d+)\.(?:block_sparse_moe|mlp)\.experts\.(gate_up_proj|down_proj)(?:\.weight)?")
_ROUTER = re.compile(r"model\.layers\.(\d+)\.(?:block_sparse_moe|mlp)\.gate\.weight")
_PART = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


@dataclass
class Facts:
    """Facts of a model: methods of :class:`gguf.GGUFWriter` (without ``add_``) with their values, and notes for the person."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any) -> None:
        if value is not None:
            self.calls.append((name, value))


@dataclass(frozen=True)
class Architecture:
    """One of transformers' architectures.

    Attributes:
        name: llama.cpp's word for it.
        facts: Adds what only this one has.
        turned: Rows of queries and keys lie in the order of halves and are brought into the order of pairs.
        plus: Norms are stored less one.
        head: Its output layer is a tensor of its own where the file has one.
    """

    name: str
    facts: Callable[[dict[str, Any], Facts], None]
    turned: bool = False
    plus: bool = False
    head: bool = True


def of(config: dict[str, Any], label: str) -> Architecture:
    """The architecture that a config names.

    Raises:
        StudioError: none, one that is not known here, or weights that are rounded already.
    """
    word = (config.get("architectures") or [None])[0]
    if config.get("quantization_config"):
        raise StudioError(f"{label} is quantized already.", "Choose the model it was made from, in 16 or 32 bits.", "model")
    if word not in KNOWN:
        raise StudioError(f"{label} is a {word}, which cannot be converted to GGUF here.",
                          f"Known are {', '.join(sorted(name.removesuffix('ForCausalLM') for name in KNOWN))}.", "model")
    return KNOWN[word]


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the part about text at the top, and the values that older files leave out."""
    made = dict(config)
    if isinstance(config.get("text_config"), dict):
        made |= config["text_config"] | {"architectures": config.get("architectures")}
    made = _DEFAULTS.get(str(made.get("model_type")), {}) | {k: v for k, v in made.items() if v is not None}
    try:
        heads, width = int(made["num_attention_heads"]), int(made["hidden_size"])
        made.setdefault("num_key_value_heads", heads)
        made.setdefault("width_of_head", made.get("head_dim") or width // heads)
        if made.get("model_type") not in ("qwen2", "phi3", "mixtral"):  # their config has none unless it is written
            made.setdefault("head_dim", width // heads)
        for name in ("num_hidden_layers", "intermediate_size", "vocab_size", "max_position_embeddings"):
            made[name] = int(made[name])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as err:
        raise StudioError(f"config.json lacks a number the model needs ({err}).", "Download or save the model again.",
                          "model") from err
    rope = made.get("rope_parameters") or made.get("rope_scaling") or {}
    rope = dict(rope) if isinstance(rope, dict) else {}
    if not {"full_attention", "sliding_attention"} & set(rope):
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
            if name in made:
                rope.setdefault(name, made[name])
        if "type" in rope:
            rope.setdefault("rope_type", rope["type"])
        if made.get("rope_local_base_freq") is not None:
            rope["sliding_attention"] = {"rope_theta": made["rope_local_base_freq"]}
    return made | {"rope": rope}


_BASE = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}
_DEFAULTS: dict[str, dict[str, Any]] = {  # of transformers' config classes, for files that leave them out
    "llama": _BASE | {"max_position_embeddings": 2048}, "mistral": _BASE | {"max_position_embeddings": 131072},
    "mixtral": _BASE | {"rope_theta": 1e6, "rms_norm_eps": 1e-5, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2": _BASE | {"max_position_embeddings": 32768}, "qwen3": _BASE | {"head_dim": 128},
    "qwen3_moe": _BASE | {"num_experts_per_tok": 8}, "phi3": _BASE | {"original_max_position_embeddings": 4096,
                                                                     "rms_norm_eps": 1e-5},
    "gemma": _BASE | {"head_dim": 256, "max_position_embeddings": 8192},
    "gemma2": _BASE | {"head_dim": 256, "max_position_embeddings": 8192, "attn_logit_softcapping": 50.0,
                       "final_logit_softcapping": 30.0, "sliding_window": 4096, "query_pre_attn_scalar": 256},
    "gemma3_text": _BASE | {"head_dim": 256, "max_position_embeddings": 131072, "sliding_window": 4096, "rope_theta": 1e6,
                            "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 256, "num_attention_heads": 8,
                            "num_key_value_heads": 4, "vocab_size": 262208, "hidden_size": 2304},
}


def facts(config: dict[str, Any], kind: Architecture) -> Facts:
    """All facts of a model.

    Args:
        config: From :func:`flat`.

    Raises:
        StudioError: llama.cpp would compute something else.
    """
    made = Facts()
    for call, key in (("block_count", "num_hidden_layers"), ("context_length", "max_position_embeddings"),
                      ("embedding_length", "hidden_size"), ("feed_forward_length", "intermediate_size"),
                      ("head_count", "num_attention_heads"), ("head_count_kv", "num_key_value_heads")):
        made.put(call, config.get(key))
    made.put("layer_norm_rms_eps", float(config["rms_norm_eps"]))
    kind.facts(config, made)
    return made


def _rope(config: dict[str, Any], made: Facts) -> None:
    """Positions and how they are stretched."""
    rope = config["rope"].get("full_attention", config["rope"])
    made.put("rope_freq_base", rope.get("rope_theta"))
    made.put("rope_freq_base_swa", config["rope"].get("sliding_attention", {}).get("rope_theta"))
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if kind in (None, "default", "llama3"):  # Llama 3's factors are a tensor
        return
    if kind == "dynamic":
        made.notes.append("Positions beyond the length the model was trained for are stretched by transformers, not by "
                          "llama.cpp; up to that length both are the same.")
        return
    if kind not in ("linear", "yarn") or not factor:
        raise StudioError(f"The model stretches its positions in a way that GGUF files cannot hold for it ({kind}).",
                          "Models with linear, yarn or Llama 3 scaling can be converted.", "model")
    import gguf

    made.put("rope_scaling_type", gguf.RopeScalingType(kind))
    made.put("rope_scaling_factor", float(factor))
    if kind == "yarn":
        made.put("rope_scaling_orig_ctx_len", rope.get("original_max_position_embeddings")
                 or config["max_position_embeddings"])
        made.put("rope_scaling_yarn_ext_factor", rope.get("extrapolation_factor"))
        made.put("rope_scaling_yarn_attn_factor", rope.get("attention_factor", rope.get("attn_factor")))
        made.put("rope_scaling_yarn_beta_fast", rope.get("beta_fast"))
        made.put("rope_scaling_yarn_beta_slow", rope.get("beta_slow"))


def _window_ignored(config: dict[str, Any], made: Facts, key: str = "sliding_window") -> None:
    window = config.get(key)
    layers = set(config.get("layer_types") or ["sliding_attention"])
    if isinstance(window, int) and window < config["max_position_embeddings"] and "sliding_attention" in layers:
        made.notes.append(f"The model looks back {window} tokens; llama.cpp lets it look back over all of the text. Up to "
                          f"{window} tokens both are the same.")


def _llama(config: dict[str, Any], made: Facts) -> None:
    made.put("vocab_size", config["vocab_size"])
    made.put("rope_dimension_count", config["width_of_head"])
    made.put("key_length", config.get("head_dim"))
    made.put("value_length", config.get("head_dim"))
    made.put("expert_count", config.get("num_local_experts"))
    made.put("expert_used_count", config.get("num_experts_per_tok"))
    _rope(config, made)
    _window_ignored(config, made)


def _qwen(config: dict[str, Any], made: Facts) -> None:
    made.put("key_length", config.get("head_dim"))
    made.put("value_length", config.get("head_dim"))
    _rope(config, made)
    if config.get("use_sliding_window"):
        _window_ignored(config, made)


def _qwen_moe(config: dict[str, Any], made: Facts) -> None:
    _qwen(config, made)
    if config.get("mlp_only_layers") or (config.get("decoder_sparse_step") or 1) != 1:
        raise StudioError("Only some layers of the model have experts, which GGUF files of this kind cannot hold.",
                          "Choose a model that has experts in every layer.", "model")
    made.put("expert_count", config.get("num_experts") or config.get("num_local_experts"))
    made.put("expert_used_count", config.get("num_experts_per_tok"))
    made.put("expert_feed_forward_length", config.get("moe_intermediate_size"))
    if not config.get("norm_topk_prob", False):
        made.notes.append("The model does not bring the weights of its chosen experts to one; llama.cpp does.")


def _gemma(config: dict[str, Any], made: Facts) -> None:
    made.put("key_length", config["head_dim"])
    made.put("value_length", config["head_dim"])


def _gemma2(config: dict[str, Any], made: Facts) -> None:
    _gemma(config, made)
    _scaled(config, 46)
    made.put("attn_logit_softcapping", config.get("attn_logit_softcapping"))
    made.put("final_logit_softcapping", config.get("final_logit_softcapping"))
    made.put("sliding_window", config["sliding_window"])
    _pattern(config, 2)


def _gemma3(config: dict[str, Any], made: Facts) -> None:
    _gemma(config, made)
    _rope(config, made)
    _scaled(config, 62)
    if config.get("attn_logit_softcapping"):
        raise StudioError("The model caps its attention, which llama.cpp does not do for Gemma 3.",
                          "Choose a Gemma 3 as it was published, or a tune of one.", "model")
    made.put("final_logit_softcapping", config.get("final_logit_softcapping"))
    if config.get("sliding_window_pattern") != 1:
        made.put("sliding_window", config["sliding_window"])
    _pattern(config, 6)


def _scaled(config: dict[str, Any], layers: int) -> None:
    """llama.cpp divides by the root of the head's width, and of the model's width by head for the largest of a family."""
    wanted = config.get("query_pre_attn_scalar")
    own = config["hidden_size"] // config["num_attention_heads"] if config["num_hidden_layers"] == layers else config["head_dim"]
    if wanted is not None and wanted != own:
        raise StudioError(f"The model scales its attention by {wanted}, llama.cpp would by {own}: its answers would differ.",
                          "Choose a Gemma as it was published, or a tune of one.", "model")


def _pattern(config: dict[str, Any], every: int) -> None:
    """Every second (sixth) layer looks back over all of the text; llama.cpp takes that from the architecture."""
    kinds = config.get("layer_types")
    wanted = ["full_attention" if (at + 1) % every == 0 else "sliding_attention" for at in range(config["num_hidden_layers"])]
    if kinds and list(kinds) != wanted:
        raise StudioError("Layers with a short view stand elsewhere in this model than llama.cpp supposes.",
                          "Choose a Gemma as it was published, or a tune of one.", "model")


def _phi3(config: dict[str, Any], made: Facts) -> None:
    rope, heads = config["rope"], config["num_attention_heads"]
    original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
    part = rope.get("partial_rotary_factor", 1.0)
    made.put("rope_dimension_count", int(part * config["hidden_size"]) // heads)
    made.put("rope_freq_base", rope.get("rope_theta"))
    made.put("rope_scaling_orig_ctx_len", original)
    made.put("sliding_window", config.get("sliding_window") or 0)
    kind = rope.get("rope_type")
    if kind not in (None, "default", "su", "longrope"):
        raise StudioError(f"The model stretches its positions in a way that GGUF files cannot hold for Phi-3 ({kind}).",
                          "Phi-3 with longrope or without scaling can be converted.", "model")
    if rope.get("long_factor"):
        half = int(part * config["hidden_size"]) // heads // 2
        if len(rope["long_factor"]) != half or len(rope.get("short_factor") or []) != half:
            raise StudioError(f"The factors of longrope are not {half}, half of what a head turns.",
                              "Download the model again.", "model")
        scale = config["max_position_embeddings"] / original
        made.put("rope_scaling_attn_factors", math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)


KNOWN: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", _llama, turned=True),
    "MistralForCausalLM": Architecture("llama", _llama, turned=True),
    "MixtralForCausalLM": Architecture("llama", _llama, turned=True),
    "Qwen2ForCausalLM": Architecture("qwen2", _qwen),
    "Qwen3ForCausalLM": Architecture("qwen3", _qwen),
    "Qwen3MoeForCausalLM": Architecture("qwen3moe", _qwen_moe),
    "GemmaForCausalLM": Architecture("gemma", _gemma, plus=True, head=False),
    "Gemma2ForCausalLM": Architecture("gemma2", _gemma2, plus=True, head=False),
    "Gemma3ForCausalLM": Architecture("gemma3", _gemma3, plus=True, head=False),
    "Gemma3ForConditionalGeneration": Architecture("gemma3", _gemma3, plus=True, head=False),
    "Phi3ForCausalLM": Architecture("phi3", _phi3),
}


def tensors(config: dict[str, Any], kind: Architecture, found: dict[str, Stored]) -> dict[str, Piece]:
    """Every tensor of the GGUF file, by llama.cpp's name.

    Raises:
        StudioError: one has no place in it, or one that the model needs is missing.
    """
    import gguf

    arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == kind.name)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    made: dict[str, Piece] = _extra(config, kind)
    experts: dict[tuple[int, str], dict[int, Stored]] = {}
    for name, stored in found.items():
        name = name.replace("language_model.", "")
        name = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
        if name.endswith(NEEDLESS) or any(part in name for part in OTHER_PARTS):
            continue
        if name == "lm_head.weight" and (not kind.head or config.get("tie_word_embeddings")):
            continue  # the embeddings serve as the output layer
        if match := _EXPERT.fullmatch(name):
            experts.setdefault((int(match[1]), _PART[match[3]]), {})[int(match[2])] = stored
        elif match := _FUSED.fullmatch(name):
            made |= _fused(int(match[1]), match[2], stored)
        elif match := _ROUTER.fullmatch(name):
            made[f"blk.{match[1]}.ffn_gate_inp.weight"] = whole(stored)
        else:
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if new is None:
                raise StudioError(f"The model has the tensor {name[:80]}, for which a GGUF file of {kind.name} has no place.",
                                  "It may be a variant of the architecture that llama.cpp does not know.", "model")
            made[new] = _piece(config, kind, name, stored)
    for (layer, part), each in experts.items():
        count = config.get("num_local_experts") or config.get("num_experts") or len(each)
        if sorted(each) != list(range(count)):
            raise StudioError(f"Layer {layer} has {len(each)} of {count} experts.", "Download the model again.", "model")
        parts = tuple(each[at] for at in range(count))
        made[f"blk.{layer}.ffn_{part}_exps.weight"] = Piece(parts, (count, *parts[0].shape))
    _complete(config, kind, made)
    return made


def _piece(config: dict[str, Any], kind: Architecture, name: str, stored: Stored) -> Piece:
    if kind.plus and name.endswith("norm.weight"):
        return Piece((stored,), stored.shape, add=1.0)
    if kind.turned and name.endswith(("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")):
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        if stored.shape[0] % (2 * heads):
            raise StudioError(f"{name} has {stored.shape[0]} rows, which {heads} heads cannot share.",
                              "config.json belongs to another model; download or save it again.", "model")
        return Piece((stored,), stored.shape, rows=_paired(stored.shape[0], heads))
    return whole(stored)


def _paired(rows: int, heads: int) -> Any:
    """Rows in the order of pairs: of each head the first of the first half, the first of the second half, and so on."""
    import numpy as np

    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def _fused(layer: int, part: str, stored: Stored) -> dict[str, Piece]:
    """Experts that lie in one tensor: ``(experts, 2 x inner, width)`` for gate and up, ``(experts, width, inner)``."""
    import numpy as np

    if part == "down_proj":
        return {f"blk.{layer}.ffn_down_exps.weight": whole(stored)}
    count, double, width = stored.shape
    half = double // 2
    first = (np.arange(count)[:, None] * double + np.arange(half)[None, :]).reshape(-1)
    shape = (count, half, width)
    return {f"blk.{layer}.ffn_gate_exps.weight": Piece((stored,), shape, rows=first),
            f"blk.{layer}.ffn_up_exps.weight": Piece((stored,), shape, rows=first + half)}


def _extra(config: dict[str, Any], kind: Architecture) -> dict[str, Piece]:
    """Tensors that are in no file: factors by which positions are stretched."""
    rope = config["rope"].get("full_attention", config["rope"])
    if kind.name == "phi3" and rope.get("long_factor"):
        return {f"rope_factors_{word}.weight": Piece((), (len(rope[f"{word}_factor"]),), values=rope[f"{word}_factor"])
                for word in ("long", "short")}
    if kind.name == "llama" and rope.get("rope_type") == "llama3":
        factors = _llama3(rope, config["width_of_head"])
        return {"rope_freqs.weight": Piece((), (len(factors),), values=factors)}
    return {}


def _llama3(rope: dict[str, Any], width: int) -> Any:
    """Llama 3.1's factors: short waves stay, long ones are stretched, between them it goes over smoothly."""
    import numpy as np

    one = np.float32
    base, factor = one(rope.get("rope_theta", 10000.0)), one(rope.get("factor", 8.0))
    low, high = one(rope.get("low_freq_factor", 1.0)), one(rope.get("high_freq_factor", 4.0))
    length = one(rope.get("original_max_position_embeddings", 8192))
    waves = one(2 * math.pi) / (one(1) / base ** (np.arange(0, width, 2, dtype=np.float32) / one(width)))
    smooth = (length / waves - low) / (high - low)
    middle = one(1) / ((one(1) - smooth) / factor + smooth)
    return np.where(waves < length / high, one(1), np.where(waves > length / low, factor, middle)).astype(np.float32)


def _complete(config: dict[str, Any], kind: Architecture, made: dict[str, Piece]) -> None:
    """Refuse a model of which a layer is missing: llama.cpp would say no only when it is loaded."""
    needed = ["token_embd.weight", "output_norm.weight"]
    needed += [f"blk.{at}.attn_norm.weight" for at in range(config["num_hidden_layers"])]
    if kind.head and not config.get("tie_word_embeddings") and "output.weight" not in made:
        needed.append("output.weight")
    if missing := [name for name in needed if name not in made]:
        raise StudioError(f"The model lacks {len(missing)} of its tensors ({missing[0]}).",
                          "Download or save the model again.", "model")
    rows = made["token_embd.weight"].shape[0]
    if rows != config["vocab_size"]:
        raise StudioError(f"The model has {rows} embeddings, its config says {config['vocab_size']}.",
                          "Save the model again after its vocabulary was changed.", "model")
