"""Export: a dataset of the library as files that other programs read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import orjson

from studio.datasets import formats, typed
from studio.datasets.export import WRITERS
from studio.datasets.step import Stopped, StepRecipe, name_of, report
from studio.datasets.version import META, SPLITS, Version, dump
from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import field

if TYPE_CHECKING:
    from pathlib import Path

    from studio.jobs.context import Context

FORMATS = {"as_is": "As they are", "messages": "Chats (messages)", "sharegpt": "Chats (ShareGPT)",
           "alpaca": "Instructions (Alpaca)", "prompt_completion": "Prompts and completions", "text": "Plain text",
           "preference": "Preference pairs", "reward": "Pairs for a reward model", "rated": "Rated answers"}


class ExportRecipe(StepRecipe):
    method = "export"

    format: Literal["as_is", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference", "reward",
                    "rated"] = field("as_is", "Format",
                                     "How a row is written. Rows that the format cannot hold are left out and "
                                     "counted: a chat with tools as Alpaca, an answer marked bad as a chat.",
                                     choices=FORMATS)
    file: Literal["jsonl", "parquet", "csv"] = field(
        "jsonl", "File", "JSONL keeps every detail. Parquet is typed and small. CSV is for spreadsheets: lists become JSON text.",
        choices={"jsonl": "JSONL", "parquet": "Parquet", "csv": "CSV"})
    split: Literal["all", "train", "validation", "test"] = field(
        "all", "Rows of", "Every split makes a file of its own.",
        choices={"all": "All splits", "train": "Train", "validation": "Validation", "test": "Test"})
    with_tags: bool = field(False, "With tags and source",
                            "Write the tags and the source of every row in columns of their own.")
    safe_cells: bool = field(True, "Safe for spreadsheets",
                             "A text that begins with = + - or @ gets an apostrophe before it, so "
                             "that no spreadsheet runs it as a formula. Off: exactly the text.",
                             when={"file": ["csv"]})


class Export(Method):
    title, summary = "Export", "Writes a dataset as JSONL, Parquet or CSV in the format another program wants."
    Recipe = ExportRecipe

    @classmethod
    def check(cls, recipe: ExportRecipe) -> None:
        path = refs.resolve_dataset(recipe.dataset).path
        if path is not None and (path / META).exists():
            splits = Version(path).splits
            if recipe.split != "all" and recipe.split not in splits:
                raise StudioError(f"This dataset has no split '{recipe.split}'.", f"It has {', '.join(splits)}.",
                                  "split")

    @classmethod
    def estimate(cls, recipe: ExportRecipe) -> Estimate:
        from studio.library import artifacts

        try:
            path = refs.resolve_dataset(recipe.dataset).path
        except StudioError:
            return Estimate()
        grows = {"jsonl": 3, "csv": 3, "parquet": 1}[recipe.file]  # the library packs its rows
        return Estimate(disk=artifacts.size_of(path) * grows if path else None)

    @classmethod
    def run(cls, recipe: ExportRecipe, ctx: Context) -> dict[str, Any] | None:
        source = Source(recipe.dataset, recipe.with_tags)
        splits = source.splits if recipe.split == "all" else [recipe.split]
        stem = _file_name(recipe.name or name_of(recipe))
        made: dict[str, Any] = {}
        misfits: dict[str, int] = {}
        try:
            for split in splits:
                path = ctx.output / f"{stem}{f'.{split}' if len(source.splits) > 1 else ''}.{recipe.file}"
                count = write(source, split, recipe.format, recipe.file, path, ctx, misfits, recipe.safe_cells)
                if not count:
                    path.unlink(missing_ok=True)
                    continue
                made[split] = count
                ctx.artifact("file", path, path.name, {"format": recipe.format, "file": recipe.file, "rows": count,
                                                       "split": split}, [(recipe.dataset, "dataset")])
        except Stopped:
            return None
        if not made:
            why = "; ".join(f"{count:,} × {said}" for said, count in sorted(misfits.items(), key=lambda m: -m[1])[:3])
            raise StudioError(f"No row fits the format: {why}",
                              "Choose another format; 'as they are' holds everything.", "format")
        for said, count in misfits.items():
            ctx.warning("rows-left-out", f"{count:,} row{'s are' if count > 1 else ' is'} left out: {said}",
                        "Choose 'as they are' to keep them.")
        return {"rows": sum(made.values()), "left_out": sum(misfits.values()), "files": len(made)}


class Source:
    """Rows of a version, or of anything else that can be read, as often as needed."""

    def __init__(self, ref: str, with_tags: bool = False):
        self.ref, self.with_tags = ref, with_tags
        path = refs.resolve_dataset(ref).path
        self.version = Version(path) if path is not None and (path / META).exists() else None
        one = ref.partition("#")[2] if self.version else ""  # library:ID#validation is that split alone
        self.splits = [one] if one in SPLITS else self.version.splits if self.version else ["train"]

    def count(self, split: str) -> int:
        return self.version.count(split) if self.version else 0

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        if self.version is None:
            for row in formats.load_rows(self.ref, purpose="as_is"):
                yield orjson.loads(dump(row))  # as it would be stored: without what no file can hold
            return
        for item in self.version.items(split):
            yield item.row if not self.with_tags else _Tagged(item.row, item)


class _Tagged(dict):
    """A row that remembers the columns it was stored with."""

    def __init__(self, row: dict[str, Any], item: Any):
        super().__init__(row)
        self.item = item


def write(source: Source, split: str, format: str, file: str, path: Path, ctx: Context, misfits: dict[str, int],
          safe: bool = True) -> int:
    """Write one split; what its rows have in common is found out in a first pass. Returns the number of rows.

    Raises:
        Stopped: as asked.
    """
    shape, long = typed.Shape(), 0
    for row in _passing(source, split, format, ctx, 0, misfits):
        shape.see(row)
        long += file == "csv" and typed.long_cells(row)
    if not shape.columns:
        return 0
    if long:
        ctx.warning("long-cells", f"{long:,} rows have a cell of more than {typed.LONGEST_CELL:,} characters, which Excel cuts.",
                    "Use JSONL or Parquet for other programs.")
    again = _passing(source, split, format, ctx, 1, {})
    more = {"safe": safe} if file == "csv" else {}
    return typed.FILES[file](path, again, shape, **more)


def _passing(source: Source, split: str, format: str, ctx: Context, turn: int,
             misfits: dict[str, int]) -> Iterator[dict[str, Any]]:
    """One of the two passes over the rows, written in the format."""
    total, began = source.count(split), time.monotonic()
    writer = WRITERS[format]

    def as_written(row: dict[str, Any]) -> dict[str, Any]:
        made = writer(row)
        if isinstance(row, _Tagged):
            made = made | {"source": row.item.source} | ({"tags": dict(row.item.tags)} if row.item.tags else {})
        return made

    def watched() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(source.rows(split), 1):
            if number % 512 == 0:
                report(ctx, turn * total + number, 2 * total, began)
            yield row

    yield from typed.fitting(watched(), as_written, misfits)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w. -]+", "_", name).strip(" .") or "dataset"
