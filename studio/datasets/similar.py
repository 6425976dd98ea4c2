"""Which of many texts are nearly the same: MinHash signatures by rensa, locality-sensitive hashing, and then the true
Jaccard similarity of every pair that is found, so that chance never drops a row.

What is kept in memory is a few numbers a row; signatures and n-grams lie in files.
Broder, On the resemblance and containment of documents, 1997; Leskovec et al., Mining of Massive Datasets, chapter 3.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from studio.datasets import ngrams

PERMUTATIONS = 128
RECALL = 0.98  # chance that a pair exactly at the threshold is looked at; more similar ones nearly surely
SKETCH = 4096  # n-grams kept of a long text; beyond that the similarity is that of two fair samples
LONGEST = 4_000_000  # characters of a text that are looked at
LEVELS = 6  # how often the rest of a bucket is compared with another of its rows
ROUNDS = 4
CHUNK = 4_000_000  # n-grams compared at once
_NONE = np.empty(0, np.uint64)


def bands_for(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """(bands, rows of a band): the most selective that still finds :data:`RECALL` of the pairs at the threshold."""
    best = (permutations, 1)
    for rows in range(1, permutations + 1):
        bands = permutations // rows
        if 1 - (1 - threshold ** rows) ** bands < RECALL:
            break
        best = (bands, rows)
    return best


class Similar:
    """An index of texts, filled with :meth:`add` in order and then asked once.

        with Similar(folder, threshold=0.8) as index:
            index.add(texts)  # as often as needed, at most 65,536 at a time
            parent, likeness = index.duplicates()

    Args:
        folder: For working files; it is removed at the end.
        threshold: Least Jaccard similarity of two texts that count as nearly the same.
        ngram, unit: What is compared, see :func:`studio.datasets.ngrams.shingles`.
    """

    def __init__(self, folder: Path, threshold: float = 0.8, ngram: int = 5, unit: str = "characters", seed: int = 0):
        self.folder, self.threshold, self.ngram, self.unit, self.seed = folder, threshold, ngram, unit, seed
        self.bands, self.width = bands_for(threshold)
        self.compared = 0  # pairs whose similarity was worked out
        folder.mkdir(parents=True, exist_ok=True)
        self._keys = [(folder / f"band{i}").open("wb") for i in range(self.bands)]
        self._grams = (folder / "ngrams").open("wb")
        self._sizes: list[np.ndarray] = []
        self._store: Any = None

    def __enter__(self) -> Similar:
        return self

    def __exit__(self, *_: Any) -> None:
        self._store = None
        for file in [*self._keys, self._grams]:
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, texts: list[str]) -> None:
        for part in ngrams.portions([text[:LONGEST] for text in texts]):
            self._add([text[:LONGEST] for text in texts[part]])

    def _add(self, texts: list[str]) -> None:
        from rensa import RMinHash

        full = ngrams.shingles(texts, self.ngram, self.unit)
        made = RMinHash.digest_matrix_from_flat_token_hashes(full.values, full.offsets.astype(np.uint64),
                                                             self.bands * self.width, self.seed)
        digests = np.array(made.to_rows(), np.uint64).reshape(len(texts), self.bands, self.width)
        keys = np.zeros(digests.shape[:2], np.uint64)
        for i in range(self.width):
            keys = ngrams.mixed(keys + digests[:, :, i] + np.uint64(i + 1))
        for band, file in enumerate(self._keys):
            file.write(np.ascontiguousarray(keys[:, band]).tobytes())
        sizes = np.diff(full.offsets)
        values = full.values
        if sizes.max(initial=0) > SKETCH:
            place = np.arange(len(values)) - np.repeat(full.offsets[:-1], sizes)
            values = values[place < SKETCH]
        self._grams.write((values >> np.uint64(32)).astype(np.uint32).tobytes())
        self._sizes.append(np.minimum(sizes, SKETCH).astype(np.int32))

    def duplicates(self, rank: np.ndarray | None = None,
                   tell: Callable[[float], None] = lambda part: None) -> tuple[np.ndarray, np.ndarray]:
        """For every text the one it is a near duplicate of, or -1 where it stays; and how similar the two are.

        The texts are gone through from the best on: one is left out if it is similar to one that stays. So whatever is
        left out has its likeness among what stays, and a chain of small differences is not swallowed whole.

        Args:
            rank: Lower is better; the order of the texts where none is given.
            tell: Is told the part that is done, 0 to 1.
        """
        self._open()
        total = len(self.sizes)
        rank = np.arange(total) if rank is None else rank
        parent, likeness = np.full(total, -1), np.zeros(total, np.float32)
        alive, known = self.sizes > 0, _NONE
        for turn in range(ROUNDS):
            better, worse, how, known = self._edges(alive, rank, known, lambda p, t=turn: tell(min(1, t + p)))
            if not len(better):
                break
            fallen = _settle(parent, likeness, better, worse, how, rank)
            alive = (parent < 0) & (self.sizes > 0)
            if not fallen:
                break
        return parent, likeness

    def clusters(self, tell: Callable[[float], None] = lambda part: None) -> np.ndarray:
        """A number for every text; texts that are linked by near likeness, directly or through others, share it."""
        self._open()
        root = list(range(len(self.sizes)))

        def top(i: int) -> int:
            while root[i] != i:
                root[i] = root[root[i]]
                i = root[i]
            return i

        better, worse, _, _ = self._edges(self.sizes > 0, np.arange(len(root)), _NONE, tell)
        for a, b in zip(better.tolist(), worse.tolist(), strict=True):
            if (x := top(a)) != (y := top(b)):
                root[max(x, y)] = min(x, y)
        return np.array([top(i) for i in range(len(root))], np.int64)

    def _open(self) -> None:
        for file in [*self._keys, self._grams]:
            file.close()
        self.sizes = np.concatenate(self._sizes) if self._sizes else np.empty(0, np.int32)
        self._starts = np.concatenate(([0], np.cumsum(self.sizes, dtype=np.int64)))[:-1]
        path = self.folder / "ngrams"
        self._store = np.memmap(path, np.uint32, "r") if path.stat().st_size else np.empty(0, np.uint32)

    def _edges(self, alive: np.ndarray, rank: np.ndarray, failed: np.ndarray, tell: Callable[[float], None],
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Verified pairs among the rows ``alive``: (better row, worse row, similarity, pairs known to be too different)."""
        rows = np.flatnonzero(alive)
        passed, found = _NONE, []
        for band in range(self.bands):
            tell(band / self.bands)
            keys = np.fromfile(self.folder / f"band{band}", np.uint64)[rows]
            order = np.argsort(keys)
            same = keys[order[1:]] == keys[order[:-1]]
            shared = order[np.concatenate((same, [False])) | np.concatenate(([False], same))]
            shared = shared[np.lexsort((rank[rows[shared]], keys[shared]))]
            members, group = rows[shared], keys[shared]
            for _ in range(LEVELS):
                first = np.concatenate(([True], group[1:] != group[:-1])) if len(group) else np.empty(0, bool)
                if first.all():
                    break
                leader = members[first][np.cumsum(first) - 1][~first]
                others, group = members[~first], group[~first]
                pairs = (leader.astype(np.uint64) << np.uint64(32)) | others.astype(np.uint64)
                linked = _in(pairs, passed)
                new = ~linked & ~_in(pairs, failed)
                how = self._jaccard(leader[new], others[new])
                good = how >= self.threshold
                found.append((leader[new][good], others[new][good], how[good]))
                passed = np.union1d(passed, pairs[new][good])
                failed = np.union1d(failed, pairs[new][~good])
                linked[np.flatnonzero(new)[good]] = True
                members, group = others[~linked], group[~linked]
        tell(1.0)
        columns = list(zip(*found, strict=True)) or [[_NONE.astype(np.int64)]] * 2 + [[np.empty(0)]]
        return *(np.concatenate(column) for column in columns), failed

    def _jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Similarity of pairs of rows; 0 where the sizes alone already say that it is below the threshold."""
        made = np.zeros(len(a))
        sizes_a, sizes_b = self.sizes[a].astype(np.int64), self.sizes[b].astype(np.int64)
        capped = (sizes_a == SKETCH) | (sizes_b == SKETCH)
        able = capped | (np.minimum(sizes_a, sizes_b) >= self.threshold * np.maximum(sizes_a, sizes_b))
        self.compared += int(able.sum())
        for i in np.flatnonzero(capped):
            made[i] = _sampled(self._of(a[i]), self._of(b[i]))
        todo = np.flatnonzero(able & ~capped)
        ends = np.cumsum((sizes_a + sizes_b)[todo])
        begin = 0
        while begin < len(todo):
            until = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + CHUNK)))
            part = todo[begin:until]
            shared = self._shared(a[part], b[part])
            made[part] = shared / (sizes_a[part] + sizes_b[part] - shared)
            begin = until
        return made

    def _of(self, row: int) -> np.ndarray:
        return np.asarray(self._store[self._starts[row]:self._starts[row] + self.sizes[row]])

    def _shared(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How many n-grams the rows of each pair have in common."""
        keys = []
        for side in (a, b):
            sizes = self.sizes[side].astype(np.int64)
            pair = np.repeat(np.arange(len(side)), sizes)
            place = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            values = self._store[self._starts[side][pair] + place]
            keys.append((pair.astype(np.uint64) << np.uint64(32)) | values)
        both = np.concatenate(keys)
        both.sort()
        twice = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
        return np.bincount(twice.astype(np.int64), minlength=len(a))


def settled(total: int, better: np.ndarray, worse: np.ndarray, how: np.ndarray, rank: np.ndarray,
            ) -> tuple[np.ndarray, np.ndarray]:
    """(row each is left out for, or -1; their likeness) from pairs of alike rows: best first, only for one that stays."""
    parent, likeness = np.full(total, -1), np.zeros(total, np.float32)
    _settle(parent, likeness, better, worse, how, rank)
    return parent, likeness


def _settle(parent: np.ndarray, likeness: np.ndarray, better: np.ndarray, worse: np.ndarray, how: np.ndarray,
            rank: np.ndarray) -> int:
    """Mark rows as left out; gives how many."""
    order, fallen = np.lexsort((-how, rank[worse])), 0
    for a, b, similar in zip(better[order].tolist(), worse[order].tolist(), how[order].tolist(), strict=True):
        if parent[b] < 0 and parent[a] < 0:
            parent[b], likeness[b] = a, similar
            fallen += 1
    return fallen


def _in(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are in a sorted array."""
    if not len(known):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return known[place] == values


def _sampled(a: np.ndarray, b: np.ndarray) -> float:
    """Similarity of two long texts from the smallest n-gram numbers of each: both cut at the same number."""
    limit = min(a[-1] if len(a) == SKETCH else np.uint32(0xFFFFFFFF), b[-1] if len(b) == SKETCH else np.uint32(0xFFFFFFFF))
    a, b = np.unique(a[a <= limit]), np.unique(b[b <= limit])
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)
