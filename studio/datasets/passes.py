"""Going through a dataset: batch by batch with progress over all passes, and with changes to single rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from studio.datasets.step import report
from studio.datasets.version import COLUMNS, Item, Version, Writer

if TYPE_CHECKING:
    from studio.jobs.context import Context

Row = dict[str, Any]
RUN = 32  # unchanged rows in a row from which they are written as a batch


class Work:
    """Progress and the stop over everything a step does; ``total`` and :meth:`more` count in the same unit."""

    def __init__(self, ctx: Context, total: float):
        self.ctx, self.total, self.done, self._began = ctx, max(1, total), 0.0, time.monotonic()

    def more(self, amount: float) -> None:
        """So much more is done.

        Raises:
            studio.datasets.step.Stopped: as the person asked.
        """
        self.done += amount
        report(self.ctx, self.done, self.total, self._began)

    def part(self, size: float) -> Callable[[float], None]:
        """A function that is told how much (0 to 1) of a piece of the work is done."""
        start = self.done

        def tell(share: float) -> None:
            self.more(start + share * size - self.done)

        return tell


class Drop(NamedTuple):
    """A row is left out, and why."""

    reason: str
    detail: str = ""


class Change(NamedTuple):
    """A row gets another content, and why."""

    row: Row
    reason: str


def batches(source: Version, work: Work, splits: Iterable[str] | None = None) -> Iterator[tuple[str, int, Any]]:
    """(split, number of the first row, record batch) of every split, with progress in rows."""
    for split in source.splits if splits is None else splits:
        first = 0
        for batch in source.batches(split, list(COLUMNS)):
            yield split, first, batch
            first += batch.num_rows
            work.more(batch.num_rows)


def rows_of(batch: Any) -> list[Row]:
    """The canonical rows of a record batch."""
    return [orjson.loads(text) for text in batch.column("row").to_pylist()]


def items_of(batch: Any) -> list[Item]:
    """The rows of a record batch with their columns."""
    return [Item(*values) for values in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True)]


def rewrite(source: Version, out: Writer, ctx: Context, decide: Callable[[Row], Drop | Change | None],
            splits: Iterable[str] | None = None) -> None:
    """Give every row to ``decide``: it stays as it is (``None``), is changed, or left out. All splits unless told."""
    names = list(source.splits if splits is None else splits)
    work = Work(ctx, sum(map(source.count, names)))
    for split, _, batch in batches(source, work, names):
        out.split = split
        made = [decide(row) for row in rows_of(batch)]
        place = 0
        while place < len(made):
            end = place
            while end < len(made) and made[end] is None:
                end += 1
            if end > place:
                _as_is(out, batch.slice(place, end - place))
            if end < len(made):
                (item,), one = items_of(batch.slice(end, 1)), made[end]
                if isinstance(one, Change):
                    out.change(item, one.row, one.reason)
                else:
                    out.drop(item, one.reason, one.detail)
            place = end + 1
    out.split = "train"


def _as_is(out: Writer, batch: Any) -> None:
    if batch.num_rows >= RUN:
        out.keep_batch(batch)
    else:
        for item in items_of(batch):
            out.keep(item)
