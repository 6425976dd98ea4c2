"""What every reader of rows shares: the pass over a file, its counts, and a JSON value as a row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from studio.datasets import sniff
from studio.datasets.packed import File, size_of
from studio.datasets.sniff import refuse

MAX_DEPTH = 64  # nesting of one row; training data needs about six levels
EXAMPLES = 5
Row = dict[str, Any]

# Code -> why a piece of a file is no row. Such pieces are counted and left out.
BAD = {
    "broken_line": "the line is not valid JSON", "cut_line": "the file ends in the middle of the line",
    "too_deep": f"it is nested more than {MAX_DEPTH} levels deep", "no_object": "it is not an object with fields",
    "no_text": "the page has no text, it may be a picture", "unreadable": "the file cannot be read",
    "extra_cells": "it has more cells than the header", "missing_cells": "it has fewer cells than the header",
}


class Reader:
    """One pass or several over a file's rows.

    Attributes:
        kind: ``json`` | ``jsonl`` | ``csv`` | ``tsv`` | ``parquet`` | ``text`` | ``pdf`` | ``docx`` | ``html`` | ``zip`` |
            ``folder``.
        rows: Rows given so far in the newest pass.
        bad: Code (of :data:`BAD`) -> how many pieces of the file are no row, in the newest pass.
        examples: Code -> the first few places, e.g. ``line 7``.
        size: Bytes on disk; ``consumed``: bytes of them read so far.
        encoding: Of the text; ``mended`` bytes were read as Windows-1252 because they are no UTF-8.
    """

    kind = ""

    def __init__(self, path: File, text: sniff.Text | None = None):
        self.path, self.text = path, text
        self.size = size_of(path)
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    @property
    def consumed(self) -> int:
        return self.text.consumed if self.text else 0

    @property
    def encoding(self) -> str:
        return self.text.encoding if self.text else ""

    @property
    def mended(self) -> int:
        return self.text.mended if self.text else 0

    def __iter__(self) -> Iterator[Row]:
        self.rows, self.bad, self.examples = 0, Counter(), {}
        if self.text:
            self.text.mended = self.text.consumed = 0
        for row in self._read():
            self.rows += 1
            yield row
        if not self.rows:
            why = next((f": {BAD[code]} ({places[0]})" for code, places in self.examples.items()), "")
            raise refuse(f"{self.path.name} has no rows{why}.", "Choose a file with rows in it.")

    def _read(self) -> Iterator[Row]:
        raise TypeError(f"{type(self).__name__} must say how it reads")

    def count(self) -> int | None:
        """Number of rows when it is known without reading them, else ``None``."""
        return None

    def _bad(self, code: str, place: str) -> None:
        self.bad[code] += 1
        places = self.examples.setdefault(code, [])
        if len(places) < EXAMPLES:
            places.append(place)


def loads(text: str) -> Any:
    """JSON text -> value.

    Raises:
        ValueError: not JSON, nested too deep, or a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Nested deeper than ``limit``; walks without recursion, level by level."""
    level = [value]
    for _ in range(limit):
        level = [child for item in level if isinstance(item, (dict, list))
                 for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def as_row(value: Any) -> Row | str:
    """A JSON value as a row, or the code (of :data:`BAD`) of why it is none."""
    if isinstance(value, dict):
        row = value
    elif isinstance(value, str):
        row = {"text": value}
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        row = {"messages": value}
    else:
        row = {}
    if not row:
        return "no_object"
    return "too_deep" if too_deep(row) else row


def names_of(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    shown = ", ".join(f"'{str(n)[:40]}'" for n in names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
