"""Decontaminate: training rows that give away what the model will be tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets import formats, passes
from studio.datasets.overlap import Hit, Overlap
from studio.datasets.step import Step, StepRecipe
from studio.datasets.texts import Row
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.library import refs
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

CHUNK = 4096


class DecontaminateRecipe(StepRecipe):
    method = "decontaminate"

    own_splits: bool = field(True, "Against its own splits", "Compare with the validation and test rows that the dataset itself "
                             "brings.")
    against: list[str] = field([], "Against", "Evaluation sets to compare with, one a line: datasets made here, files, shipped:KEY, "
                               "hub:owner/name.", widget="lines", max_length=200)
    ngram: int = field(8, "Words in a row", "Length of the runs of words that are compared. 8 suits chats, 13 long texts.", ge=4, le=50)
    share: float = field(0.7, "Share of a message", "A training row that holds this part of the words of an evaluation message is "
                         "contaminated; lower finds more, and more by chance.", gt=0.0, le=1.0)
    found: Literal["drop", "report"] = field("drop", "What is found", "Leave contaminated rows out, or keep them and only say how "
                                             "many there are.", choices={"drop": "Leave out", "report": "Only report"})


class Decontaminate(Step):
    title, summary = "Decontaminate", "Leaves out training rows that hold a question or most of a message of an evaluation set."
    paper = "https://arxiv.org/abs/2204.02311"
    Recipe = DecontaminateRecipe
    others = {"against": "reference"}
    texts = {"question": "ask what an evaluation row asks", "run": "hold most of a message of an evaluation row"}

    @classmethod
    def check(cls, recipe: DecontaminateRecipe) -> None:
        super().check(recipe)
        for ref in recipe.against:
            try:
                refs.resolve_dataset(ref)
            except StudioError as err:
                raise StudioError(err.message, err.hint, "against") from err
        if not recipe.against and not recipe.own_splits:
            raise StudioError("There is nothing to compare with.", "Name an evaluation set, or use the dataset's own splits.",
                              "against")

    @classmethod
    def work(cls, recipe: DecontaminateRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        index, names = learned(source, recipe.against, recipe.own_splits, recipe.ngram, recipe.share)
        if not names:
            raise StudioError("This dataset has no validation or test rows, and no evaluation set is named.",
                              "Split it first, or name a set under 'Against'.", "against")
        work = passes.Work(ctx, 2 * source.count())
        for _, _, batch in passes.batches(source, work, ["train"]):
            index.count(passes.rows_of(batch))
        by, examples, total = Counter(), [], 0
        for _, first, batch in passes.batches(source, work, ["train"]):
            hits = index.find(passes.rows_of(batch))
            for place, hit in enumerate(hits):
                if hit:
                    total += 1
                    by[names[hit.source]] += 1
                    if len(examples) < 20:
                        examples.append({"pos": first + place, "found": said(hit, names)})
            if recipe.found == "report":
                out.keep_batch(batch)
            else:
                out.keep_batch(batch, [hit is None for hit in hits], [hit.how if hit else "" for hit in hits],
                               [said(hit, names) if hit else "" for hit in hits])
        return {"contaminated": total, "against": dict(by), "examples": examples}


def learned(source: Version, against: list[str], own_splits: bool, n: int, share: float,
            ) -> tuple[Overlap, list[str]]:
    """The index of the evaluation rows, and the name of each set in it."""
    index, names = Overlap(n, share), []
    sets: list[tuple[str, Iterator[Row]]] = []
    if own_splits:
        sets += [(split, source.rows(split)) for split in source.splits if split != "train"]
    sets += [(refs.resolve_dataset(ref).label, iter(formats.load_rows(ref, purpose="as_is"))) for ref in against]
    for number, (name, rows) in enumerate(sets):
        names.append(name)
        while part := list(islice(rows, CHUNK)):
            index.learn(number, part)
    return index, names


def said(hit: Hit, names: list[str]) -> str:
    """A hit in words."""
    what = "the question" if hit.how == "question" else f"{hit.share:.0%} of the words"
    return f"{what} of row {hit.row + 1:,} of {names[hit.source]}"
