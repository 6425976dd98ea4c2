"""Which tensor gets which type: the mixes of ``llama-quantize``, from its documented and observed behaviour.

A variant's base type is for most tensors. Those that hurt more when rounded (the output layer, ``attn_v``, ``ffn_down``
of the first and last layers) get more bits; which and how many differs by variant and is in the tables below. Files equal
llama-quantize's tensor by tensor: ``tests/gguf/test_quantize.py`` compares every variant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from studio.gguf.read import BLOCKS
from studio.gguf.types import TYPES

BLOCK = {name: (values, size) for name, values, size in BLOCKS.values()}
FLOATS = ("F32", "F16", "BF16")
VERY_LOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")  # two bits and less have rules of their own
NEED = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")  # types of tensors that are noise without importance
NARROW = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
          **dict.fromkeys((*NEED, "IQ3_S", "IQ4_XS"), "IQ4_NL")}  # for rows that are no multiple of 256
_LAYER = re.compile(r"blk\.(\d+)\.")
_ROLES = (("attn_qkv.weight", "value"), ("attn_kv_b.weight", "value"), ("attn_v.weight", "value"),
          ("attn_k.weight", "key"), ("attn_q.weight", "query"), ("attn_output.weight", "out"), ("ffn_up", "up"),
          ("ffn_gate", "gate"), ("ffn_down", "down"))

# role -> variant -> type, where it is the same for every layer
_VALUE_SHARED = {"Q2_K": "Q4_K", "Q2_K_S": "Q4_K", "IQ3_XXS": "Q4_K", "IQ3_XS": "Q4_K", "IQ3_S": "Q4_K", "IQ4_NL": "Q5_K",
                 "IQ4_XS": "Q5_K"}  # four heads and more read one value
_VALUE = {"Q2_K": "Q3_K", "IQ3_M": "Q4_K", "Q3_K_L": "Q5_K"}
_KEY_QUERY = {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}
_OUT = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
_OUT_OF_EIGHT = ("Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS")
_EMBEDDING = {"IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K", "IQ1_S": "Q2_K", "IQ1_M": "Q2_K", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S",
              "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K"}


@dataclass(frozen=True)
class Model:
    """What the mixes depend on. ``kv_heads``: heads of keys and values; ``experts``: 0 for an ordinary model."""

    architecture: str
    layers: int
    heads: int = 1
    kv_heads: int = 1
    experts: int = 0

    @property
    def shared(self) -> bool:
        """Four heads and more read the same keys and values."""
        return bool(self.kv_heads) and self.heads // self.kv_heads >= 4


@dataclass
class Choice:
    """Types of a whole file.

    Attributes:
        types: Tensor -> type, in the order in which llama-quantize writes them.
        fallbacks: Tensor -> (wanted, taken), where rows cannot be divided into the blocks of the wanted type.
        needing: Tensors that are noise without an importance matrix.
    """

    types: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, tuple[str, str]] = field(default_factory=dict)
    needing: list[str] = field(default_factory=list)


def order(name: str) -> tuple[int, str]:
    """Sorts tensors as llama-quantize writes them: those outside the layers, then layer by layer, by name."""
    return layer(name), name


def layer(name: str) -> int:
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def choose(tensors: Iterable[tuple[str, tuple[int, ...], str]], variant: str, model: Model, *, imatrix: bool = False,
           output_tensor_type: str | None = None, token_embedding_type: str | None = None, pure: bool = False,
           leave_output_tensor: bool = False) -> Choice:
    """Types for every tensor of a file.

    Args:
        tensors: (name, shape with the length of a row first, its type now).
        imatrix: An importance matrix will be used; some mixes then need fewer bits.
        output_tensor_type, token_embedding_type: A type for these two, as llama-quantize's options of that name.
        pure: One type for all, no mix.
        leave_output_tensor: ``output.weight`` stays as it is.
    """
    found = sorted(tensors, key=lambda t: order(t[0]))
    mix = _Mix(variant, model, imatrix, output_tensor_type, found)
    made = Choice()
    for name, shape, now in found:
        if not quantizable(name, shape) or leave_output_tensor and name == "output.weight":
            made.types[name] = now
            continue
        if token_embedding_type and name == "token_embd.weight":
            kind = token_embedding_type
        elif output_tensor_type and name == "output.weight":
            kind = output_tensor_type
        else:
            kind = mix.base
            if kind not in FLOATS:
                kind = kind if pure else mix.type(name, shape)
        if shape[0] % BLOCK[kind][0]:
            narrow = NARROW.get(kind, "F16")
            taken = "F16" if shape[0] % BLOCK[narrow][0] else narrow
            made.fallbacks[name], kind = (kind, taken), taken
        made.types[name] = kind
        if name not in ("token_embd.weight", "output.weight") and (kind in NEED or kind == "Q2_K" and variant == "Q2_K_S"):
            made.needing.append(name)
    return made


def quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Weights of a layer are; biases, norms, gates of experts and tables of positions stay as they are."""
    return (sum(size > 1 for size in shape[1:]) > 0 and name.endswith("weight") and "_norm.weight" not in name
            and "ffn_gate_inp.weight" not in name and name != "position_embd.weight")


def size(tensors: Iterable[tuple[str, tuple[int, ...], str]], types: dict[str, str]) -> int:
    """Bytes of the tensors in these types, padding included."""
    total = 0
    for name, shape, _ in tensors:
        values, length = BLOCK[types[name]]
        total += -(-(math.prod(shape) // values * length) // 32) * 32
    return total


class _Mix:
    """One pass over the tensors of a file; counts which of a kind it is at, as the first and last ones get more bits."""

    def __init__(self, variant: str, model: Model, imatrix: bool, output: str | None, tensors: list):
        self.variant, self.base, self.model, self.imatrix, self.output = variant, TYPES[variant].base, model, imatrix, output
        names = [name for name, _, _ in tensors]
        self.tied = "output.weight" not in names  # the embeddings serve as the output layer
        self.values = sum(role(name) == "value" for name in names)
        self.seen = {"value": 0, "down": 0}

    def type(self, name: str, shape: tuple[int, ...]) -> str:
        kind = role(name)
        if kind == "output" or kind == "embedding" and self.tied:
            return self.output or self._output(shape[0])
        if kind == "embedding":
            return _EMBEDDING.get(self.variant, self.base)
        if self.variant in VERY_LOW:
            return self._very_low(kind)
        if kind == "value":
            return self._value()
        if kind in ("key", "query"):
            eight = kind == "key" and self.model.experts == 8
            return "Q8_0" if eight else _KEY_QUERY.get(self.variant, self.base)
        if kind == "down":
            return self._down(name)
        if kind == "out":
            if self.model.experts == 8:
                return "Q5_K" if self.variant in _OUT_OF_EIGHT else self.base
            return _OUT.get(self.variant, self.base)
        if kind in ("up", "gate") and self.variant == "IQ3_XS":
            return self._middle(kind, name)
        return self.base

    def _output(self, width: int) -> str:
        if width % BLOCK[self.base][0] or self.base == "Q8_0":
            return "Q8_0"
        return "Q5_K" if self.variant in (*VERY_LOW, "IQ3_XXS") else "Q6_K"

    def _very_low(self, kind: str) -> str:
        better = "IQ3_S" if self.variant in ("IQ2_S", "IQ2_M") else "Q2_K"
        if kind == "value":
            return "Q4_K" if self.model.shared or self.model.experts >= 4 else better
        if kind == "key" and self.model.experts == 8:
            return "Q4_K"
        if kind == "down":
            return better if self._next("down") < self.model.layers // 8 else self.base
        if kind == "out":
            if self.model.experts == 8:
                return "Q5_K"
            return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(self.variant, self.base)
        return self.base

    def _value(self) -> str:
        number, kind = self._next("value"), self.base
        if self.model.shared and self.variant in _VALUE_SHARED:
            kind = _VALUE_SHARED[self.variant]
        elif self.variant in _VALUE:
            kind = _VALUE[self.variant]
        elif self.variant == "IQ3_XXS":
            kind = "IQ3_XXS" if self.imatrix else "IQ3_S"
        elif self.variant == "Q3_K_M":
            kind = "Q5_K" if number < 2 else "Q4_K"
        elif self.variant in ("Q4_K_M", "Q5_K_M") and _more(number, self.values):
            kind = "Q6_K"
        elif self.variant == "Q4_K_S" and number < 4:
            kind = "Q5_K"
        seventy = self.model.architecture == "llama" and self.model.layers == 80 and self.model.heads != self.model.kv_heads
        if seventy and kind in ("Q3_K", "Q4_K"):  # Llama 70B: eight heads read one value
            kind = "Q5_K"
        return "Q8_0" if self.model.experts == 8 else kind

    def _down(self, name: str) -> str:
        at, layers = self._at("down", name), self.model.layers
        early, variant = at < layers // 8, self.variant
        if variant == "Q2_K":
            return "Q3_K"
        if variant == "Q3_K_L":
            return "Q5_K"
        if variant == "Q3_K_M":
            return "Q5_K" if at < layers // 16 else "Q4_K"
        if variant in ("Q4_K_M", "Q5_K_M"):
            return "Q6_K" if _more(at, layers) else self.base
        if variant == "IQ3_XXS" and not self.imatrix:
            return "Q4_K" if early else "Q3_K"
        if variant == "IQ3_M" and (early or self.model.experts == 8 and _more(at, layers)):
            return "Q4_K"
        if early and variant in ("IQ4_NL", "IQ4_XS") and not self.imatrix:
            return "Q5_K"
        if early and self.imatrix and variant in ("Q4_0", "Q5_0"):
            return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[variant]
        return {"Q4_K_S": "Q5_K", "Q2_K_S": "Q4_K"}.get(variant, self.base) if early else self.base

    def _middle(self, kind: str, name: str) -> str:
        at, layers = self._at(kind, name), self.model.layers
        return "IQ3_XXS" if layers // 8 <= at < 7 * layers // 8 else self.base

    def _at(self, kind: str, name: str) -> int:
        """The layer. Counted where each has one of its kind; read from the name among experts, as llama-quantize does."""
        return layer(name) if self.model.experts > 1 else self._next(kind)

    def _next(self, kind: str) -> int:
        self.seen[kind] = self.seen.get(kind, 0) + 1
        return self.seen[kind] - 1


def role(name: str) -> str:
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "embedding"
    return next((kind for part, kind in _ROLES if part in name), "other")


def _more(at: int, of: int) -> bool:
    """The first and the last eighth, and every third between."""
    return at < of // 8 or at >= 7 * of // 8 or (at - of // 8) % 3 == 2
