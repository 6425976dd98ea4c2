"""Bring in: files, shipped sets and Hub sets become one dataset of the library."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from studio.datasets import formats
from studio.datasets.convert import MENDS, REJECTS
from studio.datasets.rows import BAD
from studio.datasets.step import Step, StepRecipe, report
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class BringInRecipe(StepRecipe):
    method = "import"

    sources: list[str] = field([], "Sources", "What to bring in, one a line: files, shipped:polite, hub:owner/name.",
                               widget="lines", max_length=1000)
    format: Literal["auto", *formats.FORMATS] = field(  # type: ignore[valid-type]
        "auto", "Format", "What the rows are. Automatic looks at the columns and says why.",
        choices={"auto": "Automatic"} | formats.FORMATS)
    columns: dict[str, str] = field({}, "Columns", "Which column plays which role, e.g. prompt: question. Left empty, it "
                                    "is detected.", widget="table")
    limit: int = field(0, "At most", "Only the first so many rows of each source; 0 = all.", unit="rows", ge=0,
                       le=1_000_000_000)

    @field_validator("sources")
    @classmethod
    def _named(cls, value: list[str]) -> list[str]:
        return [ref.strip() for ref in value if ref.strip()]


class BringIn(Step):
    title, summary = "Bring in", "Reads files and datasets of any known format into one dataset of the library."
    Recipe = BringInRecipe
    group, starts, others = "bring_in", True, {"sources": "source"}
    texts = REJECTS | MENDS | BAD

    @classmethod
    def check(cls, recipe: BringInRecipe) -> None:
        if not recipe.sources:
            raise StudioError("Nothing is chosen to bring in.", "Name at least one file or dataset.", "sources")
        for ref in recipe.sources:
            try:
                formats.check(ref, recipe.columns, recipe.format, purpose="as_is")
            except StudioError as err:
                raise StudioError(err.message, err.hint, "columns" if err.field == "columns" else "sources") from err

    @classmethod
    def estimate(cls, recipe: BringInRecipe) -> Estimate:
        from studio.library import artifacts

        sizes = [artifacts.size_of(path) for ref in recipe.sources if (path := refs.resolve_dataset(ref).path)]
        return Estimate(disk=sum(sizes) or None)

    @classmethod
    def work(cls, recipe: BringInRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        began, said = time.monotonic(), []
        for place, ref in enumerate(recipe.sources):
            rows = formats.load_rows(ref, recipe.columns, recipe.format, purpose="as_is")
            label = refs.resolve_dataset(ref).label
            rows.on_reject = lambda row, reason, detail, label=label: out.reject(reason, detail, label, row)
            for number, row in enumerate(rows, 1):
                out.add(row, label)
                out.rows_in += 1
                if number % 256 == 0:
                    size = max(1, getattr(rows.source, "size", 0) or 1)
                    part = min(1.0, getattr(rows.source, "consumed", 0) / size)
                    report(ctx, place + part, len(recipe.sources), began)
                if number == recipe.limit:
                    break
            for code, count in rows.source.bad.items():
                out.reject(code, ", ".join(rows.source.examples[code]), label, count=count)
            out.mended.update(rows.mended)
            said.append({"source": label, "format": rows.detected.format, "evidence": rows.detected.evidence,
                         "rows": number})
        return {"sources": said}
