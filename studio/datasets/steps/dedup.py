"""Deduplicate: rows that say the same as another, word for word or up to case and punctuation."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson

from studio.datasets import ngrams, passes
from studio.datasets.cells import compact
from studio.datasets.step import Step, StepRecipe
from studio.datasets.texts import Row, answer, asked
from studio.datasets.version import Version, Writer, dump
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

KEEP = {"first": "The first", "longest": "The longest", "best": "The best: score, then a good mark, then length"}
NO_CONTENT = ("tags", "comment")  # said about a row, not by it


class DedupRecipe(StepRecipe):
    method = "dedup"

    by: Literal["row", "conversation", "question", "answer"] = field(
        "row", "Same", "What must be the same for two rows to be duplicates.",
        choices={"row": "The whole row with its mark", "conversation": "Question and answer, whatever the mark",
                 "question": "The question (all before the last answer)", "answer": "The last answer"})
    ignore: Literal["nothing", "case"] = field("nothing", "Ignore", "Whether small and capital letters, blanks and punctuation "
                                               "make a difference.",
                                               choices={"nothing": "Nothing: word for word", "case": "Case, blanks and punctuation"})
    keep: Literal["first", "longest", "best", "agreed"] = field(
        "first", "Keep", "Which row of several stays.",
        choices={**KEEP, "agreed": "The first, or none where their marks contradict each other"})


class Dedup(Step):
    title, summary = "Deduplicate", "Leaves out rows that repeat another, word for word or up to case and punctuation."
    Recipe = DedupRecipe
    texts = {"duplicate": "repeat another row", "contradiction": "are marked good here and bad there"}

    @classmethod
    def work(cls, recipe: DedupRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        total = source.count()
        work = passes.Work(ctx, 2 * total)
        keys, facts = np.empty(total, np.uint64), Ranking(total, recipe.keep)
        for _, first, batch in passes.batches(source, work, ["train"]):
            keys[first:first + batch.num_rows] = keys_of(batch, recipe.by, recipe.ignore == "case")
            facts.add(first, batch)
        stays = best_of(keys, facts.rank())
        reasons = np.where(stays == np.arange(total), "", "duplicate").astype(object)
        if recipe.keep == "agreed":
            reasons[facts.contradict(keys)] = "contradiction"
        for _, first, batch in passes.batches(source, work, ["train"]):
            part = slice(first, first + batch.num_rows)
            details = [f"of row {n + 1:,}" for n in stays[part].tolist()]
            out.keep_batch(batch, reasons[part] == "", reasons[part], details)
        return {"groups": int(len(np.unique(stays[reasons != ""])))}


class Ranking:
    """Which of several rows is the one to keep: numbers to rank all rows by, gathered batch by batch."""

    def __init__(self, total: int, keep: str):
        self.keep = keep
        self.chars, self.score = np.zeros(total, np.int32), np.full(total, -np.inf, np.float32)
        self.good = np.zeros(total, np.int8)  # 1 good, -1 bad, 0 no mark

    def add(self, first: int, batch: Any) -> None:
        import pyarrow.compute as pc

        part = slice(first, first + batch.num_rows)
        self.chars[part] = batch.column("chars").to_numpy(zero_copy_only=False)
        score = batch.column("score").to_numpy(zero_copy_only=False).astype(np.float32)
        self.score[part] = np.where(np.isnan(score), -np.inf, score)
        label = batch.column("label")
        for word, value in (("good", 1), ("bad", -1)):
            hit = pc.fill_null(pc.equal(label, word), False).to_numpy(zero_copy_only=False)
            self.good[part][hit] = value

    def rank(self) -> np.ndarray:
        """The place of every row, the best first; earlier rows win a tie."""
        place, total = np.arange(len(self.chars)), len(self.chars)
        if self.keep in ("first", "agreed"):
            return place
        keys = (place, -self.chars) if self.keep == "longest" else (place, -self.chars, -self.good, -self.score)
        made = np.empty(total, np.int64)
        made[np.lexsort(keys)] = place
        return made

    def contradict(self, keys: np.ndarray) -> np.ndarray:
        """Rows whose like is marked good in one place and bad in another."""
        _, group = np.unique(keys, return_inverse=True)
        seen = [np.bincount(group[self.good == value], minlength=group.max(initial=-1) + 1) > 0 for value in (1, -1)]
        return (seen[0] & seen[1])[group] & (self.good != 0)


def best_of(keys: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """For every row the number of the row that stays for it: the best of those with its key. Key 0 is like no other."""
    total = len(keys)
    order = np.lexsort((rank, keys))
    head = np.ones(total, bool)
    head[1:] = (keys[order][1:] != keys[order][:-1]) | (keys[order][1:] == 0)
    made = np.empty(total, np.int64)
    made[order] = order[head][np.cumsum(head) - 1]
    return made


def keys_of(batch: Any, by: str = "row", normalise: bool = False) -> np.ndarray:
    """A number for every row of a batch, the same for rows that are duplicates; 0 for nothing to compare."""
    texts = batch.column("row").to_pylist()
    if by == "row" and not normalise:
        return np.array([_number(_bare(text)) for text in texts], np.uint64)
    parts = [content(row, by) for row in passes.rows_of(batch)]
    if not normalise:
        return np.array([_number(part) if part else 0 for part in parts], np.uint64)
    made = ngrams.fingerprints(parts)
    bare = (made == 0) & np.array([bool(part) for part in parts], bool)
    if bare.any():  # nothing but signs: these are compared as they are
        made[bare] = [_number(parts[i]) for i in np.flatnonzero(bare)]
    return made


def content(row: Row, by: str = "row") -> str:
    """The text of a row by which duplicates are told."""
    if by == "question":  # with what there was to answer from: other contexts make it another question
        return "\n".join([asked(row), *row.get("contexts", ())])
    if by == "answer":
        return answer(row)
    left_out = NO_CONTENT if by == "row" else (*NO_CONTENT, "label")
    return compact({key: value for key, value in row.items() if key not in left_out})


def _bare(text: str) -> str:
    """A stored row without what is only said about it."""
    if not any(f'"{key}":' in text for key in NO_CONTENT):
        return text
    return dump({key: value for key, value in orjson.loads(text).items() if key not in NO_CONTENT})


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little") or 1
