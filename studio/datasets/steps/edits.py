"""Apply what a person changed: edits, deletions, review marks, notes and tags become a new version."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.datasets import edits as logs
from studio.datasets.edits import Edits, Mark
from studio.datasets.step import Step, StepRecipe, report
from studio.datasets.table import edited
from studio.datasets.version import COLUMNS, Item, Version, Writer
from studio.errors import StudioError
from studio.library import artifacts
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class EditsRecipe(StepRecipe):
    method = "edits"

    log: str = field("", "Edits of", "The dataset whose edits are applied; left empty, this dataset's own. Edits of "
                     "an older version find their rows again by what those came in as.", group="advanced",
                     widget="dataset", max_length=1000)
    until: int = field(0, "Up to", "How many lines of the log count, so that later edits change nothing here; 0 = all "
                       "there are now.", group="advanced", unit="lines", ge=0, le=1_000_000_000)
    reviewed_only: bool = field(False, "Only reviewed rows", "On: rows that nobody marked or edited are left out.")


class ApplyEdits(Step):
    title, summary = "Apply edits", "Makes a new version of your edits, deletions and review marks."
    Recipe = EditsRecipe
    group = "shape"
    texts = {"deleted": "were deleted by hand", "review_drop": "were dropped in review",
             "not_reviewed": "were not reviewed", "edited": "were edited by hand",
             "rewritten": "got a new answer in review", "swapped": "have the worse answer first: the two were swapped",
             "relabelled": "got another mark in review", "tagged": "got tags, notes or review marks"}

    @classmethod
    def check(cls, recipe: EditsRecipe) -> None:
        super().check(recipe)
        ref = recipe.log or recipe.dataset
        if not _log(ref, recipe.until).marks:
            raise StudioError("Nothing was edited in this dataset.", "Edit or review some rows first.",
                              "log" if recipe.log else "dataset")

    @classmethod
    def work(cls, recipe: EditsRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        ref = recipe.log or recipe.dataset or _ref_of(source.path)
        log = _log(ref, recipe.until)
        if not log.marks:
            raise StudioError("Nothing was edited in this dataset.", "Edit or review some rows first.", "log")
        recipe.log, recipe.until = ref.partition("#")[0], log.stamp  # so that the history says which edits these were
        found = _ByPosition(log) if _hash_of(ref) == source.hash else _ById(log)
        began, total, done = time.monotonic(), sum(source.count(split) for split in source.splits), 0
        for split in source.splits:
            out.split, start = split, 0
            for batch in source.batches(split, list(COLUMNS)):
                if not found.any(batch, split, start):
                    out.keep_batch(batch, [False] * len(batch) if recipe.reviewed_only else None, "not_reviewed")
                else:
                    columns = (batch.column(name).to_pylist() for name in COLUMNS)
                    for pos, values in enumerate(zip(*columns, strict=True), start):
                        item = Item(*values)
                        apply(out, item, found.take(item, split, pos), recipe.reviewed_only)
                start += len(batch)
                done += len(batch)
                report(ctx, done, total, began)
        lost = len(log.marks) - found.used
        if lost:
            ctx.warning("edits-without-row", f"{lost:,} edited rows are not in this dataset any more.",
                        "An earlier step left them out.")
        return {"edits": log.summary(), **({"not_found": lost} if lost else {})}


def apply(out: Writer, item: Item, mark: Mark | None, reviewed_only: bool = False) -> None:
    """Write one row as its mark wants it."""
    if mark is None:
        out.drop(item, "not_reviewed") if reviewed_only else out.keep(item)
        return
    if mark.deleted or mark.review == "drop":
        out.drop(item, "deleted" if mark.deleted else "review_drop", mark.note)
        return
    made = edited(item, mark)
    row, reason = made.row, "tagged"
    if mark.row is not None:
        reason = "rewritten" if mark.review == "rewrite" else "edited"
    if mark.review == "worse" and "rejected" in row:
        row, reason = row | {"chosen": row["rejected"], "rejected": row["chosen"]}, "swapped"
    elif mark.review in ("better", "worse") and "label" in row and row["label"] != (mark.review == "better"):
        row, reason = row | {"label": mark.review == "better"}, "relabelled"
    tags = dict(made.tags or [])
    if mark.review:
        tags["review"] = mark.review
    if mark.note:
        tags["note"] = mark.note
    out.change(replace(item, tags=list(tags.items()) or None), row, reason)


class _ByPosition:
    """Marks of a log made on these very rows."""

    def __init__(self, log: Edits):
        self.marks, self.used = log.marks, 0
        self.places: dict[str, list[int]] = defaultdict(list)
        for split, pos in sorted(log.marks):
            self.places[split].append(pos)

    def any(self, batch: Any, split: str, start: int) -> bool:
        from bisect import bisect_left

        places = self.places[split]
        at = bisect_left(places, start)
        return at < len(places) and places[at] < start + len(batch)

    def take(self, item: Item, split: str, pos: int) -> Mark | None:
        mark = self.marks.get((split, pos))
        self.used += mark is not None
        return mark


class _ById:
    """Marks of a log made on other rows: each is given to the first row with the id that it was made on."""

    def __init__(self, log: Edits):
        self.queues: dict[str, deque[Mark]] = defaultdict(deque)
        for _, mark in sorted(log.marks.items()):
            self.queues[mark.id].append(mark)
        self.used = 0

    def any(self, batch: Any, split: str, start: int) -> bool:
        return not self.queues.keys().isdisjoint(batch.column("id").to_pylist())

    def take(self, item: Item, split: str, pos: int) -> Mark | None:
        queue = self.queues.get(item.id)
        if not queue:
            return None
        self.used += 1
        mark = queue.popleft()
        if not queue:
            del self.queues[item.id]
        return mark


def _log(ref: str, until: int = 0) -> Edits:
    kind, _, rest = ref.partition(":")
    if kind != "library":
        raise StudioError("Only a dataset of the library has edits.", "Bring it in and edit some rows first.",
                          "dataset")
    return logs.of(rest.partition("#")[0], until)


def _hash_of(ref: str) -> str | None:
    """Hash of the version a log belongs to; ``None`` when it is gone."""
    try:
        return artifacts.get(ref.partition(":")[2].partition("#")[0])["meta"].get("hash")
    except StudioError:
        return None


def _ref_of(path: Path) -> str:
    """Reference of a version that a pipeline hands on by its files."""
    for row in artifacts.listed(("dataset",)):
        if Path(row["path"]) == path:
            return row["ref"]
    return ""
