"""Texts as vectors by a static embedding model on this disk (model2vec's format), and which of them mean nearly the same.

A static model has one vector a token; a text is their mean. That takes microseconds and no torch, so a million rows can be
compared (van Dongen & Tulkens, model2vec, 2024). Alike rows are looked for within clusters, as SemDeDup does (arXiv 2303.09540).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from studio.datasets.similar import settled
from studio.errors import StudioError

MOST_TOKENS = 512  # of a text, as the library does
MOST_CHARS = 20_000
EXACT = 20_000  # rows up to which every pair is compared
CLUSTER = 1_500  # rows of a cluster beyond that, on average
BLOCK = 2_048
_TABLES = ("embeddings", "embedding.weight")


class StaticModel:
    """A static embedding model, opened.

    Raises:
        StudioError: with ``field="model"``: the folder is not one.
    """

    def __init__(self, folder: Path):
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        check(folder)
        try:
            tensors = load_file(folder / "model.safetensors")
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as err:  # both libraries raise bare exceptions
            raise StudioError(f"The embedding model in {folder.name} cannot be read: {err}.", "Save or copy it again.", "model") from err
        self.table = next(tensors[name] for name in _TABLES if name in tensors).astype(np.float32)
        self.mapping, self.weights = tensors.get("mapping"), tensors.get("weights")
        unknown = json.loads(self.tokenizer.to_str())["model"].get("unk_token")
        self.unknown = self.tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)

    @property
    def width(self) -> int:
        return self.table.shape[1]

    def embed(self, texts: list[str]) -> np.ndarray:
        """Vectors of length 1, one a text; zeros for a text without a known token."""
        made = np.zeros((len(texts), self.width), np.float32)
        for row, encoded in enumerate(self.tokenizer.encode_batch_fast([t[:MOST_CHARS] for t in texts], add_special_tokens=False)):
            ids = np.array([i for i in encoded.ids if i != self.unknown], np.int64)
            if len(ids):
                vectors = self.table[ids if self.mapping is None else self.mapping[ids]]
                if self.weights is not None:
                    vectors = vectors * self.weights[ids][:, None].astype(np.float32)
                made[row] = vectors.mean(axis=0)
        return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)


def check(folder: Path) -> None:
    """Refuse a folder that holds no static embedding model, reading only the head of its weights.

    Raises:
        StudioError: with ``field="model"``, saying what is missing.
    """
    from safetensors import SafetensorError, safe_open

    hint = "Choose a folder saved by model2vec, such as a download of minishlab/potion-base-8M."
    if missing := [name for name in ("model.safetensors", "tokenizer.json") if not (folder / name).is_file()]:
        raise StudioError(f"{folder.name} holds no embedding model: {missing[0]} is missing.", hint, "model")
    try:
        with safe_open(folder / "model.safetensors", "numpy") as file:
            found = any(name in file.keys() for name in _TABLES)  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as err:
        raise StudioError(f"The weights in {folder.name} cannot be read: {err}.", hint, "model") from err
    if not found:
        raise StudioError(f"{folder.name} is a model, but not one of static embeddings.", hint, "model")


def duplicates(vectors: Any, threshold: float, rank: np.ndarray, seed: int = 0,
               tell: Callable[[float], None] = lambda part: None) -> tuple[np.ndarray, np.ndarray]:
    """For every row the one it means nearly the same as, or -1 where it stays; and the cosine of the two.

    Args:
        vectors: (rows, width), of length 1 or 0; may lie on disk.
        threshold: Least cosine.
        rank: Lower is better; the better row stays.
    """
    total = len(vectors)
    alive = np.concatenate([np.any(vectors[i:i + BLOCK], axis=1) for i in range(0, total, BLOCK)] or [np.empty(0, bool)])
    groups = [np.flatnonzero(alive)] if total <= EXACT else _clusters(vectors, np.flatnonzero(alive), seed, lambda p: tell(p / 2))
    start, found = (0.0 if total <= EXACT else 0.5), []
    for number, members in enumerate(groups):
        tell(start + (1 - start) * number / len(groups))
        found.append(_within(vectors, members[np.argsort(rank[members])], threshold, tell if len(groups) == 1 else None))
    tell(1.0)
    better, worse, how = (np.concatenate(column) for column in zip(*found, strict=True)) if found else (np.empty(0, np.int64),) * 3
    return settled(total, better, worse, how, rank)


def _within(vectors: Any, members: np.ndarray, threshold: float, tell: Callable[[float], None] | None,
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (row that stays, row like it, cosine) among ``members``, which stand in order of rank."""
    gone = np.zeros(len(members), bool)
    kept: list[np.ndarray] = []
    better, worse, how = [], [], []
    mine = np.asarray(vectors[members], np.float32)
    for begin in range(0, len(members), BLOCK):
        if tell:
            tell(begin / len(members))
        block = mine[begin:begin + BLOCK]
        if kept:  # first against all that stay already
            before = np.concatenate(kept)
            for part in range(0, len(before), BLOCK):
                scores = block @ mine[before[part:part + BLOCK]].T
                best = scores.argmax(axis=1)
                top = scores[np.arange(len(block)), best]
                hit = (top >= threshold) & ~gone[begin:begin + len(block)]
                better.append(members[before[part:part + BLOCK][best[hit]]])
                worse.append(members[begin + np.flatnonzero(hit)])
                how.append(top[hit])
                gone[begin + np.flatnonzero(hit)] = True
        scores = block @ block.T
        for i in range(len(block)):
            if gone[begin + i]:
                continue
            like = i + 1 + np.flatnonzero((scores[i, i + 1:] >= threshold) & ~gone[begin + i + 1:begin + len(block)])
            if len(like):
                gone[begin + like] = True
                better.append(np.full(len(like), members[begin + i]))
                worse.append(members[begin + like])
                how.append(scores[i, like])
        kept.append(begin + np.flatnonzero(~gone[begin:begin + len(block)]))
    if not better:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    return np.concatenate(better), np.concatenate(worse), np.concatenate(how)


def _clusters(vectors: Any, rows: np.ndarray, seed: int, tell: Callable[[float], None]) -> list[np.ndarray]:
    """Rows by direction (k-means on the sphere); each stands in the two nearest clusters, so that few pairs are parted."""
    chance = np.random.default_rng(seed)
    count = max(2, len(rows) // CLUSTER)
    sample = np.asarray(vectors[np.sort(chance.choice(rows, min(len(rows), 40 * count), replace=False))], np.float32)
    centres = sample[chance.choice(len(sample), count, replace=False)].copy()
    for turn in range(8):
        tell(turn / 16)
        nearest = np.concatenate([(sample[i:i + BLOCK] @ centres.T).argmax(axis=1) for i in range(0, len(sample), BLOCK)])
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        filled = np.any(sums, axis=1)
        centres[filled] = sums[filled] / np.linalg.norm(sums[filled], axis=1, keepdims=True)
    two = np.empty((len(rows), 2), np.int32)
    for begin in range(0, len(rows), BLOCK):
        tell(0.5 + begin / len(rows) / 2)
        scores = np.asarray(vectors[rows[begin:begin + BLOCK]], np.float32) @ centres.T
        two[begin:begin + BLOCK] = np.argpartition(-scores, 1, axis=1)[:, :2]
    places = np.argsort(two.ravel(), kind="stable")
    return [rows[part // 2] for part in np.split(places, np.cumsum(np.bincount(two.ravel(), minlength=count))[:-1]) if len(part) > 1]
