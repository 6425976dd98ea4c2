"""How near the models of a merge are, layer by layer: cosine of their weights, and how often their changes of the base pull
in opposite directions (the sign conflict of TIES, https://arxiv.org/abs/2306.01708).

Reads a piece of each weight at a time, at most some hundred million values in all, so memory stays small. Run by a probe.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.library import bases
from studio.mergers import config, shards
from studio.mergers import plan as plans

MOST = 400_000_000  # values that are read over all models; more are sampled
_PIECE = 4_000_000  # values of a weight that are held at once
_LAYER = re.compile(r"\.(\d+)\.")
_OUTSIDE = "outside the layers"


def look(values: dict[str, Any]) -> dict[str, Any]:
    """See :func:`studio.api.merge.merge_look`. Layers are compared by their place in each model, also where slices stack them
    otherwise.

    Raises:
        StudioError: a configuration with errors, or a model that is not on this disk yet.
    """
    plan = plans.make(values, {"allow_crimes": True, "unsafe_truncate_embeddings": True})
    if errors := [one for one in plan.errors() if one.path != "tokenizer"]:
        raise StudioError(f"{errors[0].path}: {errors[0].message}".removeprefix(": "), errors[0].hint, "config")
    if missing := [one.label for one in plan.parents.values() if one.folder is None]:
        raise StudioError(f"{missing[0]} is not on this machine yet.", "It is downloaded when the merge starts.", "config")
    base = next((one.base for one in config.slices(values) if one.base), None)
    pairs = list(plan.parents)
    kept = settings.home() / "cache" / "merge-look" / f"{_key(plan, base)}.json"
    if known := read_json(kept):
        return known | {"models": [plan.parents[pair].label for pair in pairs],
                        "base": plan.parents[base].label if base else None}
    work = Path(tempfile.mkdtemp(prefix="merge-look-", dir=settings.home()))
    try:
        sources = {pair: _weights(one, work) for pair, one in plan.parents.items()}
        found = _compare(sources, base, {pair: one.label for pair, one in plan.parents.items()})
    finally:
        shutil.rmtree(work, ignore_errors=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, found)
    return found


def _key(plan: Any, base: str | None) -> str:
    """Changes when any weight of any model does."""
    told = [base]
    for pair, one in plan.parents.items():
        told += [pair, bases.fingerprint(one.folder)]
        if one.adapter is not None and one.adapter.path is not None:
            told += [hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
                     for path in sorted(one.adapter.path.glob("adapter_*"))]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=12).hexdigest()


def _weights(parent: Any, work: Path) -> dict[str, shards.Tensor]:
    """Where the weights of a model lie; an adapter is folded into a copy first, as mergekit does it."""
    if parent.adapter is None:
        return parent.tensors
    from mergekit.common import ModelPath, ModelReference

    from studio.library import refs

    pair = ModelReference(model=ModelPath(path=str(parent.folder)),
                          lora=ModelPath(path=str(refs.fetched(parent.adapter).path)))
    return shards.tensors(Path(pair.merged(cache_dir=str(work)).model.path))


def _compare(sources: dict[str, dict[str, shards.Tensor]], base: str | None, labels: dict[str, str]) -> dict[str, Any]:
    import torch

    pairs = list(combinations(sources, 2))
    changed = [pair for pair in pairs if base is not None and base not in pair]
    names = [name for name, one in next(iter(sources.values())).items()
             if len(one.shape) > 1 and all(name in other and other[name].shape == one.shape for other in sources.values())]
    total = sum(next(iter(sources.values()))[name].values for name in names) * len(sources)
    share = min(1.0, MOST / max(1, total))
    layers: dict[str, dict[str, Any]] = {}
    for name in names:
        match = _LAYER.search(name)
        layer = layers.setdefault(match[1] if match else _OUTSIDE, {"dots": {}, "norms": {}, "signs": {}})
        for begin, end in _pieces(next(iter(sources.values()))[name].values, share):
            held = {pair: _read(weights[name], begin, end) for pair, weights in sources.items()}
            for pair, piece in held.items():
                layer["norms"][pair] = layer["norms"].get(pair, 0.0) + float(torch.dot(piece, piece))
            for a, b in pairs:
                layer["dots"][a, b] = layer["dots"].get((a, b), 0.0) + float(torch.dot(held[a], held[b]))
            signs = {pair: (piece - held[base]).sign() for pair, piece in held.items()} if changed else {}
            for a, b in changed:
                both = signs[a] * signs[b]
                old = layer["signs"].get((a, b), (0, 0))
                layer["signs"][a, b] = (old[0] + int((both < 0).sum()), old[1] + int((both != 0).sum()))
    order = sorted(layers, key=lambda key: (key == _OUTSIDE, int(key) if key.isdigit() else 0))

    def cosine(layer: dict[str, Any], a: str, b: str) -> float | None:
        length = (layer["norms"][a] * layer["norms"][b]) ** 0.5
        return round(layer["dots"][a, b] / length, 6) if length else None

    def conflict(layer: dict[str, Any], pair: tuple[str, str]) -> float | None:
        against, both = layer["signs"].get(pair, (0, 0))
        return round(against / both, 6) if both else None

    def label(pair: tuple[str, str]) -> str:
        return f"{labels[pair[0]]} · {labels[pair[1]]}"

    return {"layers": [f"layer {key}" if key.isdigit() else key for key in order], "models": list(labels.values()),
            "base": labels.get(base) if base else None, "sampled": round(share, 6),
            "similarity": [[label(pair), [cosine(layers[key], *pair) for key in order]] for pair in pairs],
            "conflict": [[label(pair), [conflict(layers[key], pair) for key in order]] for pair in changed]}


def _pieces(count: int, share: float) -> list[tuple[int, int]]:
    """Parts of a weight of ``count`` values to read, spread over it when only a ``share`` is."""
    if share >= 1:
        return [(begin, min(count, begin + _PIECE)) for begin in range(0, count, _PIECE)]
    size = max(1024, min(_PIECE, int(count * share / 16)))
    number = max(1, min(16, count // size))
    return [(begin, min(count, begin + size)) for begin in
            (i * max(0, count - size) // max(1, number - 1) for i in range(number))]


def _read(one: shards.Tensor, begin: int, end: int) -> Any:
    """Values ``begin`` to ``end`` of a weight as float32, shape ``(end - begin,)``.

    Raises:
        StudioError: of a kind that is no number to compare.
    """
    import torch

    kind = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.get(one.dtype)
    if kind is None:
        raise StudioError(f"Weights of the kind {one.dtype} cannot be compared.", "Choose unquantized models.", "config")
    width = shards.BYTES[one.dtype]
    with one.file.open("rb") as file:
        file.seek(one.begin + begin * width)
        data = bytearray(file.read((end - begin) * width))
    return torch.frombuffer(data, dtype=kind).float()
