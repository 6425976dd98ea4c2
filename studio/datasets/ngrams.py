"""Texts as numbers, many rows at once with numpy: words, n-grams of words or characters, and sets of them.

Case and punctuation do not count. Words are runs of letters and digits; in scripts written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) every character is a word.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_TOP = 0x32000  # letters beyond it do not exist
_ALONE = ((0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000),
          (0xF900, 0xFB00), (0x20000, 0x32000))
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_ROW = 16  # bits that name the row where numbers of several rows are sorted at once
MOST_ROWS = 1 << _ROW  # of one call
PORTION = 2_000_000  # characters worked on at once, about 200 bytes of memory each


class Sets(NamedTuple):
    """A set of numbers for each row: those of row i are ``values[offsets[i]:offsets[i + 1]]``, rising."""

    values: np.ndarray  # uint64
    offsets: np.ndarray  # int64, one more than rows


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(small letter of every character, its kind: 0 none, 1 part of a word, 2 a word by itself)."""
    small, kind = np.arange(_TOP, dtype=np.uint32), np.zeros(_TOP, np.uint8)
    for code in range(_TOP):
        char = chr(code)
        if unicodedata.category(char)[0] in "LNM":
            kind[code] = 1
            low = char.lower()
            if len(low) == 1:
                small[code] = ord(low)
    for low, high in _ALONE:
        kind[low:high] *= 2
    return small, kind


def _codes(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(characters in small letters, their kind, the row of each); rows are parted by a character of kind 0."""
    small, kind = _tables()
    data = "\x00".join([text.replace("\x00", " ") if "\x00" in text else text for text in texts]) + "\x00"
    codes = np.minimum(np.frombuffer(data.encode("utf-32-le", "replace"), np.uint32), _TOP - 1)
    rows = np.cumsum(codes == 0) - (codes == 0)
    return small[codes], kind[codes], rows.astype(np.int32)


def mixed(values: np.ndarray) -> np.ndarray:
    """Numbers spread over all 64 bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def words(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(number of every word, its row) of a list of texts, in order."""
    codes, kind, rows = _codes(texts)
    inside = kind > 0
    begins = inside & ((np.concatenate(([0], kind[:-1])) != 1) | (kind == 2))
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.empty(0, np.uint64), np.empty(0, np.int32)
    every = np.arange(len(codes))
    place = every - np.maximum.accumulate(np.where(begins, every, 0))
    terms = mixed((codes.astype(np.uint64) << np.uint64(32)) + place.astype(np.uint64) + np.uint64(1))
    terms[~inside] = 0
    return mixed(np.add.reduceat(terms, starts)), rows[starts]


def characters(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(number of every letter or digit, its row); what stands between words counts as one space."""
    codes, kind, rows = _codes(texts)
    inside = kind > 0
    after = np.flatnonzero(inside & np.concatenate(([True], ~inside[:-1])))  # a letter that follows something else
    gaps = after[1:][rows[after[1:]] == rows[after[:-1]]] - 1  # within a text only
    space = np.zeros(len(codes), bool)
    space[gaps] = True
    wanted = inside | space
    return np.where(inside, codes, 32)[wanted].astype(np.uint64), rows[wanted]


def ngrams(ids: np.ndarray, rows: np.ndarray, n: int, short: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(number of every n-gram, its row). A row of fewer than ``n`` ids is one n-gram by itself where ``short``."""
    total = len(ids) - n + 1
    if total > 0:
        made = np.zeros(total, np.uint64)
        for i in range(n):
            made = made * _PRIME + ids[i:i + total]
        whole = rows[:total] == rows[n - 1:]
        made, where = mixed(made[whole]), rows[:total][whole]
    else:
        made, where = np.empty(0, np.uint64), np.empty(0, rows.dtype)
    if not short or not len(ids):
        return made, where
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    sizes = np.diff(np.append(firsts, len(rows)))
    few = sizes < n
    if few.any():
        place = np.arange(len(ids)) - np.repeat(firsts, sizes)
        sums = np.add.reduceat(mixed(ids * _PRIME + place.astype(np.uint64) + np.uint64(7)), firsts)[few]
        made, where = np.concatenate((made, mixed(sums))), np.concatenate((where, rows[firsts[few]]))
    return made, where


def shingles(texts: list[str], n: int, unit: str = "characters", most: int = 0) -> Sets:
    """The set of n-grams of every text.

    Args:
        unit: ``characters`` or ``words``.
        most: Keep only so many of the smallest numbers of a row, a fair sample of its set (Broder 1997); 0 = all.
    """
    ids, rows = (characters if unit == "characters" else words)(texts)
    return sets_of(*ngrams(ids, rows, n), len(texts), most)


def sets_of(values: np.ndarray, rows: np.ndarray, total: int, most: int = 0) -> Sets:
    """Numbers with their rows as one rising set without doubles for each of ``total`` rows."""
    shift, bits = np.uint64(64 - _ROW), np.uint64(_ROW)
    keys = (rows.astype(np.uint64) << shift) | (values >> bits)
    keys.sort()
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    rows = (keys >> shift).astype(np.int64)
    if most:
        firsts = np.searchsorted(rows, np.arange(total))
        keep = np.arange(len(rows)) - firsts[rows] < most
        keys, rows = keys[keep], rows[keep]
    return Sets(keys << bits, np.searchsorted(rows, np.arange(total + 1)))


def portions(texts: list[str], most: int = PORTION) -> Iterator[slice]:
    """Stretches of a list of texts that are worked on at once: about ``most`` characters each, however long single texts are."""
    begin = size = 0
    for i, text in enumerate(texts):
        if size and size + len(text) > most:
            yield slice(begin, i)
            begin, size = i, 0
        size += len(text)
    if begin < len(texts):
        yield slice(begin, len(texts))


def digest(text: str) -> bytes:
    """Eight bytes that name a text."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()


def fingerprints(texts: list[str]) -> np.ndarray:
    """One number a text that is the same for texts of the same words; 0 for a text without words."""
    made = np.zeros(len(texts), np.uint64)
    parts = list(portions(texts))
    if len(parts) > 1:
        for part in parts:
            made[part] = fingerprints(texts[part])
        return made
    ids, rows = words(texts)
    if len(ids):
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        sizes = np.diff(np.append(firsts, len(rows)))
        place = np.arange(len(ids)) - np.repeat(firsts, sizes)
        made[rows[firsts]] = mixed(np.add.reduceat(mixed(ids * _PRIME + place.astype(np.uint64)), firsts)) | np.uint64(1)
    return made
