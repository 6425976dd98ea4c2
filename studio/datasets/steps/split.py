"""Split: part of the rows is held back for validation and for a last test, and nothing stands on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator

from studio.datasets import ngrams, passes
from studio.datasets.similar import Similar
from studio.datasets.step import Step, StepRecipe
from studio.datasets.steps.dedup import keys_of
from studio.datasets.steps.sample import values_of
from studio.datasets.texts import first_question, whole
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

NAMES = ("validation", "test")


class SplitRecipe(StepRecipe):
    method = "split"

    validation: float = field(0.05, "Validation share", "Part of the rows that training is checked on as it goes.", ge=0.0, le=0.9)
    test: float = field(0.0, "Test share", "Part of the rows that is kept for a last test and never looked at before.", ge=0.0, le=0.9)
    validation_rows: int = field(0, "Validation rows", "Number of validation rows instead of a share; 0 = the share.", unit="rows",
                                 ge=0, le=100_000_000, group="advanced")
    test_rows: int = field(0, "Test rows", "Number of test rows instead of a share; 0 = the share.", unit="rows", ge=0,
                           le=100_000_000, group="advanced")
    group: Literal["row", "first", "near", "source", "tag"] = field(
        "first", "Kept together", "Rows that belong together are never on both sides. The same opening is right for chats cut into "
        "pieces; nearly the same is the strictest.",
        choices={"row": "The same row", "first": "The same first question", "near": "Nearly the same rows", "source": "The same "
                 "source", "tag": "The same tag"})
    tag: str = field("", "Tag", "Name of the tag, such as user or session, whose rows are kept together.", max_length=200,
                     when={"group": ["tag"]})
    threshold: float = field(0.7, "Similarity", "Rows at least this similar (Jaccard) are kept together.", gt=0.3, lt=1.0,
                             when={"group": ["near"]})
    seed: int = field(0, "Seed", "Another seed holds other rows back.", ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _room(self) -> SplitRecipe:
        if self.validation + self.test > 0.9:
            raise ValueError("at least a tenth of the rows must be left for training")
        return self


class Split(Step):
    title, summary = "Split", "Holds rows back for validation and test, so that rows of one group are never on both sides."
    Recipe = SplitRecipe
    group = "shape"

    @classmethod
    def check(cls, recipe: SplitRecipe) -> None:
        super().check(recipe)
        if not (recipe.validation or recipe.test or recipe.validation_rows or recipe.test_rows):
            raise StudioError("No row is held back.", "Give validation or test a share.", "validation")
        if recipe.group == "tag" and not recipe.tag:
            raise StudioError("Rows of the same tag are kept together, but no tag is named.", "Name one, e.g. user.", "tag")

    @classmethod
    def work(cls, recipe: SplitRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        """All splits of the input are put together and split anew."""
        total = sum(map(source.count, source.splits))
        groups = _groups(recipe, source, ctx, total)
        sizes = np.bincount(groups)
        if len(sizes) < 2:
            raise StudioError("All rows belong to one group, so none can be held back.",
                              "Keep other rows together, e.g. those with the same first question.", "group")
        wanted = [recipe.validation_rows or round(total * recipe.validation), recipe.test_rows or round(total * recipe.test)]
        if sum(wanted) >= total:
            raise StudioError(f"{sum(wanted):,} rows are to be held back, but there are only {total:,}.", "Hold back fewer.",
                              "validation_rows")
        side = _assigned(sizes, wanted, recipe)
        work, first = passes.Work(ctx, total), 0
        for _, _, batch in passes.batches(source, work):
            where = side[groups[first:first + batch.num_rows]]
            first += batch.num_rows
            for number, name in enumerate(("train", *NAMES)):
                out.split = name
                if (mine := np.flatnonzero(where == number)).size:
                    out.keep_batch(batch.take(mine) if mine.size < batch.num_rows else batch)
        out.split = "train"
        out.seen.update(source.splits)  # none of them is copied as it was
        held = {name: int(sizes[side == number].sum()) for number, name in enumerate(NAMES, 1) if wanted[number - 1]}
        return {"groups": len(sizes), "largest_group": int(sizes.max()), "held_back": held}


def _groups(recipe: SplitRecipe, source: Version, ctx: Context, total: int) -> np.ndarray:
    """A number from 0 on for every row of all splits, the same for rows that are kept together."""
    keys = np.empty(total, np.uint64)
    work, first, names = passes.Work(ctx, 3 * total), 0, {}
    index = Similar(ctx.run_dir / "near", recipe.threshold) if recipe.group == "near" else None
    try:
        for _, _, batch in passes.batches(source, work):
            part = slice(first, first := first + batch.num_rows)
            if recipe.group == "row":
                keys[part] = keys_of(batch)
            elif recipe.group == "first":
                made = ngrams.fingerprints([first_question(row) for row in passes.rows_of(batch)])
                keys[part] = np.where(made == 0, keys_of(batch), made)
            elif index is not None:
                index.add([whole(row) for row in passes.rows_of(batch)])
            else:
                values = values_of(batch, "source" if recipe.group == "source" else recipe.tag)
                own = keys_of(batch)  # a row without the tag is a group by itself
                keys[part] = [_name(names, value) if value else own[i] for i, value in enumerate(values)]
        if index is not None:
            keys = index.clusters(work.part(2 * total))
    finally:
        if index is not None:
            index.__exit__()
    return np.unique(keys, return_inverse=True)[1]


def _name(names: dict[str, int], value: str) -> int:
    """A number of 64 bits for a text."""
    if value not in names:
        names[value] = int.from_bytes(ngrams.digest(value), "little")
    return names[value]


def _assigned(sizes: np.ndarray, wanted: list[int], recipe: SplitRecipe) -> np.ndarray:
    """0 train, 1 validation, 2 test for every group: groups in the order of chance, taken where they still fit."""
    side = np.zeros(len(sizes), np.int8)
    order = np.random.default_rng(recipe.seed).permutation(len(sizes)).tolist()
    left = list(wanted)
    for group in order:
        fits = [i for i in (0, 1) if sizes[group] <= left[i]]
        if fits:
            side[group] = fits[0] + 1
            left[fits[0]] -= int(sizes[group])
        if not any(left):
            break
    for i in (0, 1):
        if wanted[i] and not (side == i + 1).any():  # every group is larger than the share: the smallest one
            smallest = min((g for g in order if not side[g]), key=lambda g: sizes[g])
            side[smallest] = i + 1
    if not (side == 0).any():
        raise StudioError("Every group is held back, none is left to train on.", "Hold back fewer rows.", "validation")
    return side
