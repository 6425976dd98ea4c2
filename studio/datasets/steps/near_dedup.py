"""Near-deduplicate: rows that say nearly the same as another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from studio.datasets import passes
from studio.datasets.similar import Similar
from studio.datasets.step import Step, StepRecipe
from studio.datasets.steps.dedup import KEEP, Ranking
from studio.datasets.texts import Row, answer, last_question, whole
from studio.datasets.version import Version, Writer
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

PARTS = {"row": whole, "question": last_question, "answer": answer}


class NearDedupRecipe(StepRecipe):
    method = "near_dedup"

    threshold: float = field(0.8, "Similarity", "Rows whose sets of word pieces overlap by at least this share (Jaccard) are the "
                             "same; lower leaves out more.", gt=0.3, lt=1.0)
    by: Literal["row", "question", "answer"] = field(
        "row", "Compare", "Which text of a row is compared; the system message never is.",
        choices={"row": "The whole row", "question": "The last question", "answer": "The last answer"})
    keep: Literal["first", "longest", "best"] = field("longest", "Keep", "Which row of several stays.", choices=KEEP)
    unit: Literal["characters", "words"] = field(
        "characters", "Pieces of", "Runs of characters suit short rows and any script; runs of words suit long texts and are "
        "faster.", choices={"characters": "Characters", "words": "Words"}, group="advanced")
    ngram: int = field(5, "Length of a piece", "How many characters or words make one piece; 5 characters or 3 words are "
                       "usual.", ge=1, le=20, group="advanced")
    seed: int = field(0, "Seed", "Seed of the hash functions; it only matters for rows right at the threshold.", ge=0, le=2**31 - 1,
                      group="advanced")


class NearDedup(Step):
    title, summary = "Near-deduplicate", "Leaves out rows that say nearly the same as another (MinHash, verified)."
    paper = "https://arxiv.org/abs/2107.06499"
    Recipe = NearDedupRecipe
    texts = {"near_duplicate": "say nearly the same as another row"}

    @classmethod
    def work(cls, recipe: NearDedupRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        total = source.count()
        work = passes.Work(ctx, 3 * total)
        facts = Ranking(total, recipe.keep)
        with Similar(ctx.run_dir / "near", recipe.threshold, recipe.ngram, recipe.unit, recipe.seed) as index:
            for _, first, batch in passes.batches(source, work, ["train"]):
                facts.add(first, batch)
                index.add(parts_of(passes.rows_of(batch), recipe.by))
            parent, likeness = index.duplicates(facts.rank(), work.part(total))
            compared = index.compared
        for _, first, batch in passes.batches(source, work, ["train"]):
            part = slice(first, first + batch.num_rows)
            details = [f"{like:.0%} like row {of + 1:,}" if of >= 0 else ""
                       for of, like in zip(parent[part].tolist(), likeness[part].tolist(), strict=True)]
            out.keep_batch(batch, parent[part] < 0, "near_duplicate", details)
        return {"groups": int(len(np.unique(parent[parent >= 0]))), "compared": compared}


def parts_of(rows: list[Row], by: str = "row") -> list[str]:
    """The texts that are compared."""
    part = PARTS[by]
    return [part(row) for row in rows]
