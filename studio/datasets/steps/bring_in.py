"""Bring in: files, folders, archives, documents, shipped sets and Hub sets become one dataset of the library."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from studio.datasets import formats, packed
from studio.datasets.convert import MENDS, REJECTS
from studio.datasets.readers import ManyReader, open_rows
from studio.datasets.roles import extras_of
from studio.datasets.rows import BAD
from studio.datasets.step import Step, StepRecipe, report
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

LOOK = 0.8  # seconds for checking all sources before the job starts


class BringInRecipe(StepRecipe):
    method = "import"

    sources: list[str] = field([], "Sources",
                               "What to bring in, one a line: a file, a folder, a ZIP archive, shipped:polite, "
                               "hub:owner/name, hub:owner/name#config/train[:1000], or the address of a file on the Hub.",
                               widget="lines", max_length=1000)
    format: Literal["auto", *formats.FORMATS] = field(  # type: ignore[valid-type]
        "auto", "Format", "What the rows are. Automatic looks at the columns and says why.",
        choices={"auto": "Automatic"} | formats.FORMATS)
    columns: dict[str, str] = field({}, "Columns",
                                    "Which column plays which role, e.g. prompt: question. Left empty, it "
                                    "is detected.", widget="table")
    limit: int = field(0, "At most", "Only the first so many rows of each source; 0 = all.", unit="rows", ge=0,
                       le=1_000_000_000)
    keep_tags: bool = field(True, "Keep other columns as tags",
                            "Short values of columns that play no role, such as a site, a "
                            "level or a page, stay with their row and can be filtered by. Off: they are left out.")

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
                formats.check(ref, recipe.columns, recipe.format, LOOK / len(recipe.sources), purpose="as_is")
            except StudioError as err:
                raise StudioError(err.message, err.hint, "columns" if err.field == "columns" else "sources") from err

    @classmethod
    def estimate(cls, recipe: BringInRecipe) -> Estimate:
        from studio.library import artifacts

        sizes = [artifacts.size_of(path) for ref in recipe.sources if (path := refs.resolve_dataset(ref).path)]
        return Estimate(disk=sum(sizes) or None)

    @classmethod
    def work(cls, recipe: BringInRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        began, said, left = time.monotonic(), [], []
        names = Counter(refs.resolve_dataset(ref).label for ref in recipe.sources)
        for place, ref in enumerate(recipe.sources):
            whole, label = formats.open_source(ref)
            label = label if names[label] == 1 else ref  # two files of one name are told apart by where they lie
            parts = list(_parts(whole, label))
            many = isinstance(whole, ManyReader)
            if many:
                left += [f"{label}: {name}" for name in whole.left_out]
            taken = 0
            for number, (name, opened) in enumerate(parts):
                def done(share: float, number: int = number, parts: list[Any] = parts, place: int = place) -> None:
                    report(ctx, place + (number + share) / len(parts), len(recipe.sources), began)

                had = out.rows_out
                try:
                    most = recipe.limit - taken if recipe.limit else 0
                    rows, count = _bring(opened(), name, recipe, most, out, done)
                except StudioError as err:
                    if len(parts) == 1 or err.field != "dataset":
                        raise StudioError(err.message, err.hint, "columns" if err.field == "columns"
                                          else "sources") from err
                    out.reject("unreadable", str(err.message), name)  # one bad file does not spoil a folder
                    count = out.rows_out - had  # the rows before the broken place are whole
                    taken += count
                    why = f"{'Only its beginning is in' if count else 'Left out'}: {err.message}"
                    ctx.log(f"{name}: {why}")
                    said.append({"source": name, "format": "", "evidence": [why], "roles": {}, "rows": count})
                    continue
                taken += count
                said.append({"source": name, "format": rows.detected.format, "evidence": rows.detected.evidence,
                             "roles": rows.detected.roles, "rows": count})
                if recipe.limit and taken >= recipe.limit:
                    break
        return {"sources": said[:200]} | ({"more_sources": len(said) - 200} if len(said) > 200 else {}) | (
            {"left_out_files": left[:50]} if left else {})


def _parts(whole: Any, label: str) -> Iterator[tuple[str, Any]]:
    """(label, opener) of every file of a source: each is detected on its own."""
    if not isinstance(whole, ManyReader):
        yield label, lambda: whole
        return
    for file in whole.files:
        inner = file.info.filename if isinstance(file, packed.Member) else file.relative_to(whole.path).as_posix()
        yield f"{label}/{inner}", lambda file=file: open_rows(file)


def _bring(source: Any, label: str, recipe: BringInRecipe, most: int, out: Writer, done: Any) -> tuple[Any, int]:
    """Write the rows of one file. Returns its :class:`~studio.datasets.formats.Rows` and how many there were."""
    if isinstance(source, ManyReader):  # an archive in a folder
        raise StudioError(f"{label} is an archive inside of a folder.", "Name it as a source of its own.", "dataset")
    rows = formats.rows_of(source, recipe.columns, recipe.format, "as_is")
    rows.remembers = False  # duplicates are the business of a later step
    rows.on_reject = lambda row, reason, detail: out.reject(reason, detail, label, row)
    rest = None
    number = 0
    for number, row in enumerate(rows, 1):
        if rest is None and recipe.keep_tags:
            rest = _rest(rows)
        out.add(row, label, tags=extras_of(rows.raw, rest) if rest else None)
        out.rows_in += 1
        if number % 256 == 0:
            done(min(1.0, (getattr(source, "consumed", 0) or 0) / max(1, getattr(source, "size", 0) or 1)))
        if number == most:
            break
    for code, count in source.bad.items():
        out.reject(code, ", ".join(source.examples[code]), label, count=count)
    out.mended.update(rows.mended)
    return rows, number


def _rest(rows: Any) -> list[str]:
    """Columns that play no role. Rated answers carry theirs in the row already; rows made here their own."""
    found = rows.detected
    if found.canonical or found.format == "rated":
        return []
    named = set(found.roles.values()) | {found.unfold}
    kind = getattr(rows.source, "kind", "")
    names = dict.fromkeys([*found.columns, *rows.raw])
    return [name for name in names if name not in named and not (kind in ("pdf", "docx", "html") and name == "source")]
