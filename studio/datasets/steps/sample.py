"""Sample: some of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator

from studio.datasets import passes
from studio.datasets.step import Step, StepRecipe
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class SampleRecipe(StepRecipe):
    method = "sample"

    rows: int = field(1000, "Rows", "How many rows are taken; 0 = the share below. All of them if there are fewer.", unit="rows",
                      ge=0, le=1_000_000_000)
    share: float = field(0.0, "Share", "Part of the rows that is taken, where the number of rows is 0.", ge=0.0, le=1.0,
                         when={"rows": [0]})
    how: Literal["random", "first", "best"] = field("random", "Which", "Which rows are taken; they stay in their order.",
                                                    choices={"random": "By chance", "first": "The first", "best": "The best scores"})
    evenly: str = field("", "Evenly by", "Take equally many of each value: source, language, label, or the name of a tag. Empty = as "
                        "it comes.", max_length=200)
    seed: int = field(0, "Seed", "Another seed takes other rows.", ge=0, le=2**31 - 1, when={"how": ["random"]})

    @model_validator(mode="after")
    def _some(self) -> SampleRecipe:
        if not self.rows and not self.share:
            raise ValueError("say how many rows, or which share")
        return self


class Sample(Step):
    title, summary = "Sample", "Takes some of the rows: by chance, the first or the best, evenly by source, language or tag."
    Recipe = SampleRecipe
    group = "shape"
    texts = {"not_taken": "are not in the sample"}

    @classmethod
    def work(cls, recipe: SampleRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        total = source.count()
        wanted = min(total, recipe.rows or max(1, round(total * recipe.share)))
        work = passes.Work(ctx, 2 * total)
        score, groups = np.full(total, -np.inf), np.zeros(total, np.int64)
        names: dict[str, int] = {}
        for _, first, batch in passes.batches(source, work, ["train"]):
            part = slice(first, first + batch.num_rows)
            found = batch.column("score").to_numpy(zero_copy_only=False).astype(float)
            score[part] = np.where(np.isnan(found), -np.inf, found)
            if recipe.evenly:
                groups[part] = [names.setdefault(value, len(names)) for value in values_of(batch, recipe.evenly)]
        if recipe.how == "best" and not np.isfinite(score).any():
            raise StudioError("No row has a score.", "Score the rows first, or take another sample.", "how")
        if recipe.how == "random":
            rank = np.random.default_rng(recipe.seed).permutation(total)
        else:
            rank = np.arange(total) if recipe.how == "first" else np.argsort(np.argsort(-score, kind="stable"))
        taken = np.zeros(total, bool)
        taken[_fair(rank, groups, wanted) if recipe.evenly else np.argsort(rank)[:wanted]] = True
        for _, first, batch in passes.batches(source, work, ["train"]):
            out.keep_batch(batch, taken[first:first + batch.num_rows], "not_taken")
        sizes = np.bincount(groups[taken], minlength=len(names))
        return {"values": {name: int(sizes[i]) for name, i in list(names.items())[:50]}} if recipe.evenly else {}


def values_of(batch: Any, key: str) -> list[str]:
    """What each row of a batch has under ``source``, ``language``, ``label``, or as the tag of that name."""
    column = {"source": "source", "language": "lang", "lang": "lang", "label": "label"}.get(key)
    if column:
        return [value or "" for value in batch.column(column).to_pylist()]
    return [dict(tags or ()).get(key) or "" for tags in batch.column("tags").to_pylist()]


def _fair(rank: np.ndarray, groups: np.ndarray, wanted: int) -> np.ndarray:
    """The best of each group in turns, so that small groups are taken whole and large ones share the rest."""
    order = np.lexsort((rank, groups))
    sorted_groups = groups[order]
    firsts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    turn = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    return order[np.lexsort((rank[order], turn))][:wanted]
