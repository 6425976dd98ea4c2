"""Which rows of a training set hold something of an evaluation set: a question word for word, or most of a message.

As for PaLM (arXiv 2204.02311, section 8) a message counts as given away when most of it is there in runs of n words, not when
one run is: texts made from a template share runs without sharing content. As for GPT-3 (arXiv 2005.14165, appendix C) runs
that many training rows share are phrases of the trade and do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from studio.datasets import ngrams
from studio.datasets.texts import Row, last_question, texts_of

LEAST_WORDS = 5  # of a question, for its mere presence to say something
LEAST_ANSWER = 13  # words of any other message that is looked for; shorter ones are said every day
LONG = 30  # runs in common that are enough however long the message is: a stretch of about forty words
COMMON = 10  # training rows that share a run from which on it is a phrase of the trade
COMMON_SHARE = 0.001  # ... and of all training rows
COMMON_EVAL = 50  # evaluation messages that share a run


class Hit(NamedTuple):
    """What a training row has in common with an evaluation row."""

    how: str  # "question" | "run"
    source: int  # number of the evaluation set
    row: int  # its row there
    shared: int  # runs in common
    share: float  # of the words of that message


class Overlap:
    """An index of evaluation rows, and a count over the training rows, for which two passes are needed.

        index = Overlap(8, 0.7)
        index.learn(0, rows)          # evaluation rows, as often as needed
        index.count(rows)             # every training row, once
        hits = index.find(rows)       # and again

    Args:
        n: Words of a run.
        share: Part of the words of an evaluation message that a training row must hold in runs.
    """

    def __init__(self, n: int = 8, share: float = 0.7):
        self.n, self.share = n, share
        self.rows = 0  # training rows counted
        self._learned: list[tuple[np.ndarray, ...]] = []
        self._sizes: list[int] = []  # rows learned of each source
        self._messages = 0
        self._counted = self._closed = False

    def learn(self, source: int, rows: Iterable[Row]) -> None:
        rows = list(rows)
        while len(self._sizes) <= source:
            self._sizes.append(0)
        texts, owner = _messages(rows, LEAST_ANSWER)
        made, where = _runs(texts, self.n)
        pairs = np.unique(np.stack([made, where.astype(np.uint64)]), axis=1) if len(made) else np.empty((2, 0), np.uint64)
        at = np.array([(source, self._sizes[source] + number) for number in owner], np.int64).reshape(-1, 2)
        asked = np.array([(source, self._sizes[source] + number) for number in range(len(rows))], np.int64).reshape(-1, 2)
        self._learned.append((pairs[0], pairs[1].astype(np.int64) + self._messages, at, _questions(rows), asked))
        self._messages += len(texts)
        self._sizes[source] += len(rows)

    def count(self, rows: list[Row]) -> None:
        """Count in how many training rows each run of the evaluation sets stands."""
        self._open()
        self.rows += len(rows)
        _, grams = self._hits(rows)
        np.add.at(self.seen, grams, 1)

    def find(self, rows: list[Row]) -> list[Hit | None]:
        """What each training row has in common with the evaluation rows."""
        self._close()
        out: list[Hit | None] = [None] * len(rows)
        where, grams = self._hits(rows)
        where, grams = where[self.rare[grams]], grams[self.rare[grams]]
        sizes = self.ends[grams] - self.starts[grams]
        place = np.repeat(self.starts[grams], sizes) + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs, shared = np.unique((np.repeat(where, sizes) << 32) | self.message[place], return_counts=True)
        row, message = pairs >> 32, pairs & 0xFFFFFFFF
        share = (shared + self.n - 1) / (self.total[message] + self.n - 1)  # of words, where the runs follow each other
        good = (share >= self.share) | (shared >= LONG)
        order = np.flatnonzero(good)[np.argsort(share[good], kind="stable")]
        for i in order.tolist():  # the largest share of a row comes last and stays
            out[row[i]] = Hit("run", *self.message_at[message[i]].tolist(), int(shared[i]), float(share[i]))
        asked = _questions(rows)
        same = _places(self.questions, asked)
        for i in np.flatnonzero((same >= 0) & (asked > 0)).tolist():
            out[i] = Hit("question", *self.asked_at[same[i]].tolist(), 0, 1.0)
        return out

    def _hits(self, rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
        """(row, index of an evaluation run that stands in it), each pair once."""
        texts, owner = _messages(rows)
        made, where = _runs(texts, self.n)
        place = _places(self.grams, made)
        found = place >= 0
        pairs = np.unique((np.array(owner, np.int64)[where[found]] << 40) | place[found])
        return pairs >> 40, pairs & ((1 << 40) - 1)

    def _open(self) -> None:
        if self._counted:
            return
        self._counted = True
        columns = list(zip(*self._learned, strict=True)) or [[np.empty(0, np.uint64)], [np.empty(0, np.int64)],
                                                              [np.empty((0, 2), np.int64)], [np.empty(0, np.uint64)],
                                                              [np.empty((0, 2), np.int64)]]
        grams, message, self.message_at, asked, asked_at = (np.concatenate(column) for column in columns)
        order = np.argsort(grams, kind="stable")
        self.message = message[order]
        self.grams, self.starts = np.unique(grams[order], return_index=True)
        self.ends = np.append(self.starts[1:], len(grams))
        self.questions, first = np.unique(asked, return_index=True)
        self.asked_at = asked_at[first]
        self.seen = np.zeros(len(self.grams), np.int32)
        self._learned = []

    def _close(self) -> None:
        """Which runs are no phrases of the trade, and how many of them each message has."""
        self._open()
        if self._closed:
            return
        self._closed = True
        self.rare = (self.seen <= max(COMMON, COMMON_SHARE * self.rows)) & (self.ends - self.starts <= COMMON_EVAL)
        kept = self.message[np.repeat(self.rare, self.ends - self.starts)]
        self.total = np.maximum(1, np.bincount(kept, minlength=self._messages))


def _messages(rows: list[Row], least: int = 0) -> tuple[list[str], list[int]]:
    """(texts, number of the row of each): all but system messages; of those no user wrote only the longer ones."""
    texts, owner = [], []
    for number, row in enumerate(rows):
        for role, text in texts_of(row):
            if role != "system" and text and (role == "user" or not least or _longer(text, least)):
                texts.append(text)
                owner.append(number)
    return texts, owner


def _runs(texts: list[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of n words of every text, and the text of each."""
    parts = [(part.start, *ngrams.ngrams(*ngrams.words(texts[part]), n, short=False)) for part in ngrams.portions(texts)]
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate([made for _, made, _ in parts]), np.concatenate([where.astype(np.int64) + first for first, _, where in parts])


def _longer(text: str, words: int) -> bool:
    return len(text.split(None, words)) >= words or (not text.isascii() and len(text) >= words)


def _questions(rows: list[Row]) -> np.ndarray:
    """A number for the last question of each row (a plain text as a whole); 0 where it is too short to say anything."""
    texts = [row["text"] if "text" in row else last_question(row) for row in rows]
    made = ngrams.fingerprints(texts)
    made[[not _longer(text, LEAST_WORDS) for text in texts]] = 0
    return made


def _places(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of each value in a sorted array, -1 where it is not there."""
    if not len(known):
        return np.full(len(values), -1)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[place] == values, place, -1)
