"""A version of a dataset as a table that filters, sorts and scrolls at once, whatever its length.

DuckDB looks through the Parquet files where they lie. The answer to a query is a list of row numbers (four bytes a
row), kept for the next page; a page reads only the rows it shows. Rows that a person changed are looked at as they are
now.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.datasets.duck import columns, counts, cursor, escaped, fetched, first, one, tag_counts
from studio.datasets.edits import REVIEWS, Edits, Mark
from studio.datasets.query import NONE, STATES, Query
from studio.datasets.version import COLUMNS, Item, Version, item_of
from studio.errors import StudioError

if TYPE_CHECKING:
    import numpy as np

MOST_ROWS = 200  # of a page
PAGE_TEXT = 4 << 20  # characters of a page; longer rows are shown cut
CUT = 2000  # characters that are left of a text of such a row
CACHED = 64 << 20  # bytes of row numbers kept

_positions: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_facts: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
_lock = threading.Lock()
_working: dict[tuple[Any, ...], threading.Lock] = {}


class Table:
    """A version with its edits.

    Raises:
        StudioError: with ``field="split"``, for a split it does not have.
    """

    def __init__(self, version: Version, edits: Edits | None = None):
        self.version, self.edits = version, edits
        self.key = (str(version.path), version.hash, version.meta["created"])

    def count(self, split: str) -> int:
        """Rows of a split or of what was dropped."""
        path = self.version.file(split)
        if split not in self.version.splits and (split != "dropped" or not path.is_file()):
            if split == "dropped":
                return 0
            raise StudioError(f"This dataset has no split '{split[:40]}'.",
                              f"It has {', '.join(self.version.splits)}.", "split")
        return self._footer(split) if split == "dropped" else self.version.count(split)

    def _footer(self, split: str) -> int:
        with cursor() as con:
            return one(con, "SELECT count(*) FROM read_parquet(?)", [escaped(self.version.file(split))])

    def page(self, query: Query, offset: int = 0, limit: int = 100) -> dict[str, Any]:
        """``{total, matching, ms, rows}``; see :func:`studio.api.data_rows`."""
        began = time.perf_counter()
        offset, limit = max(0, int(offset)), min(max(0, int(limit)), MOST_ROWS)
        total = self.count(query.split)
        found = self.matching(query) if total else range(0)
        part = found[offset:offset + limit]
        rows = self.rows(query.split, list(part) if isinstance(part, range) else part.tolist())
        return {"total": total, "matching": len(found), "rows": rows,
                "ms": round(1000 * (time.perf_counter() - began), 1)}

    def matching(self, query: Query) -> range | np.ndarray:
        """Row numbers in the order asked for.

        Raises:
            StudioError: a regular expression that cannot be read, or a query too large for this machine.
        """
        total = self.count(query.split)
        if query.plain:
            return range(total - 1, -1, -1) if query.desc else range(total)
        marks = self.marks(query.split)
        if not query.states:
            return self._content(query, marks)
        found = self._content(query.without("state"), marks)
        return found[_in_state(query.states, marks, found)]

    def _content(self, query: Query, marks: dict[int, Mark]) -> np.ndarray:
        """Row numbers of the rows whose content is asked for, with changed rows as they are now.

        The file is looked through once for a question, whatever is changed afterwards; only another order than that of
        the file has to be worked out again.
        """
        import numpy as np

        changed = {pos: mark for pos, mark in marks.items() if mark.content}
        if query.sort != "pos":
            stamp = self.edits.content_stamp if changed else 0
            return self._remembered(query, stamp, lambda: self._search(query, changed))
        upward = replace(query, desc=False)
        if query.plain:
            found = np.arange(self.count(query.split), dtype=np.int32)
            return found[::-1] if query.desc else found
        found = self._remembered(upward, 0, lambda: self._search(upward))
        if changed:
            here = np.array(sorted(changed), np.int32)
            now = self._search(upward, changed, only_changed=True)
            found = np.union1d(np.setdiff1d(found, here, assume_unique=True), now)
        return found[::-1] if query.desc else found

    def _remembered(self, query: Query, stamp: int, work: Callable[[], np.ndarray]) -> np.ndarray:
        key = (*self.key, query.key, stamp)
        with _lock:
            if (found := _positions.get(key)) is not None:
                _positions.move_to_end(key)
                return found
            working = _working.setdefault(key, threading.Lock())
        try:
            with working:  # the same question asked twice at once is worked out once
                with _lock:
                    found = _positions.get(key)
                if found is None:
                    found = work()
                    _remember(key, found)
        finally:
            with _lock:
                _working.pop(key, None)
        return found

    def _search(self, query: Query, changed: dict[int, Mark] | None = None, only_changed: bool = False) -> np.ndarray:
        where, values = query.where()
        order, more = query.order()
        source, given = self.source(query.split, changed, only_changed=only_changed)
        sql = f"SELECT pos::INTEGER AS pos FROM {source} WHERE {where} ORDER BY {order}"
        with cursor() as con:
            return columns(con, sql, [*given, *values, *more])["pos"]

    def source(self, split: str, marks: dict[int, Mark] | None = None,
               only_changed: bool = False) -> tuple[str, list[Any]]:
        """``FROM`` terms and their parameters: the columns of a split and ``pos``, with changed rows as they are now.

        Args:
            only_changed: The changed rows alone.
        """
        names = ", ".join(COLUMNS) + (", reason, detail" if split == "dropped" else "")
        sql = f"(SELECT file_row_number AS pos, {names} FROM read_parquet(?))"
        values: list[Any] = [escaped(self.version.file(split))]
        if changed := {pos: mark for pos, mark in (marks or {}).items() if mark.content}:
            items = self.items(split, sorted(changed))
            more, given = _changed([(pos, edited(item, changed[pos])) for pos, item in items])
            if only_changed:
                return f"({more})", given
            sql = f"(SELECT * FROM {sql} WHERE pos NOT IN (SELECT unnest(?::BIGINT[])) UNION ALL BY NAME {more})"
            values += [list(changed), *given]
        return sql, values

    def marks(self, split: str) -> dict[int, Mark]:
        return self.edits.of(split) if self.edits else {}

    def items(self, split: str, positions: list[int]) -> list[tuple[int, Item]]:
        """(row number, stored row) of some rows, in the order of the file."""
        return [(raw[0], Item(*raw[1:10])) for raw in self._read(split, positions)]

    def _read(self, split: str, positions: list[int]) -> list[tuple[Any, ...]]:
        if not positions:
            return []
        low, high = min(positions), max(positions)
        columns = ", ".join(COLUMNS) + (", reason, detail" if split == "dropped" else ", NULL, NULL")
        sql = f"SELECT file_row_number, {columns} FROM read_parquet(?) WHERE file_row_number BETWEEN ? AND ?"
        values: list[Any] = [escaped(self.version.file(split)), low, high]
        if high - low + 1 > len(positions):
            sql, values = f"{sql} AND file_row_number IN (SELECT unnest(?::BIGINT[]))", [*values, positions]
        with cursor() as con:
            found = fetched(con, f"{sql} ORDER BY 1", values)
        return [(*raw[:9], list(raw[9].items()) if raw[9] else None, *raw[10:]) for raw in found]

    def rows(self, split: str, positions: list[int], whole: bool = False) -> list[dict[str, Any]]:
        """Rows as the page shows them, in the order of ``positions``."""
        marks, found = self.marks(split), {raw[0]: raw for raw in self._read(split, positions)}
        made, room = [], PAGE_TEXT
        for pos in positions:
            if pos not in found:
                raise StudioError(f"Row {pos} is not there.", "Open the dataset again.", "pos")
            raw, mark = found[pos], marks.get(pos)
            item = Item(*raw[1:10])
            if mark is not None and mark.content:
                item = edited(item, mark)
            shown = shown_of(pos, item, mark)
            if split == "dropped":
                shown |= {"reason": raw[10], "detail": raw[11]}
            if not whole and len(item.text) > max(room, CUT):
                shown |= {"row": shortened(shown["row"]), "cut": len(item.text)}
            room -= min(len(item.text), room)
            made.append(shown)
        return made

    def facts(self) -> dict[str, Any]:
        """What menus offer: ``{sources, languages, tags, labels, scored, dropped}``; worked out once a version."""
        with _lock:
            if (known := _facts.get(self.key)) is not None:
                return known
        found: dict[str, Any] = {"sources": {}, "languages": {}, "labels": {}, "tags": {}, "scored": False}
        for split in self.version.splits:
            source, given = self.source(split)
            with cursor() as con:
                for name, column in (("sources", "source"), ("languages", "lang"), ("labels", "label")):
                    for value, n in counts(con, source, given, column):
                        found[name][value or NONE] = found[name].get(value or NONE, 0) + n
                found["scored"] = found["scored"] or bool(one(con, f"SELECT count(score) FROM {source}", given))
                for key, value, _ in tag_counts(con, source, given):
                    if value not in (values := found["tags"].setdefault(key, [])):
                        values.append(value)
        found["labels"] = {k: n for k, n in found["labels"].items() if k != NONE} and found["labels"]
        found["dropped"] = self.count("dropped")
        with _lock:
            _facts[self.key] = found
            while len(_facts) > 64:
                _facts.popitem(last=False)
        return found

    def facets(self, query: Query) -> dict[str, Any]:
        """How many rows each value of each menu would leave, the menu's own choice aside."""
        import numpy as np

        found: dict[str, Any] = {"split": {name: self.count(name) for name in [*self.version.splits, "dropped"]}}
        if not self.count(query.split):
            return found
        marks = self.marks(query.split)
        source, given = self.source(query.split, marks)
        with cursor() as con:

            def narrowed(name: str = "", key: str = "") -> tuple[str, list[Any]]:
                """The rows that all other filters leave; each set of row numbers is worked out once."""
                rest = query.without(name, key)
                if rest.plain:
                    return source, given
                view = f"hits_{len(views)}" if rest.key not in views else views[rest.key]
                if rest.key not in views:
                    views[rest.key] = view
                    con.register(view, {"pos": np.ascontiguousarray(self.matching(rest))})
                return f"(SELECT * FROM {source} SEMI JOIN {view} USING (pos))", given

            views: dict[str, str] = {}
            for column in ("lang", "source", "label", "reason"):
                if column != "reason" or query.split == "dropped":
                    found[column] = {value or NONE: n for value, n in counts(con, *narrowed(column), column)}
            found["tags"] = {}
            for key, value, n in tag_counts(con, *narrowed()):
                found["tags"].setdefault(key, {})[value] = n
            for key in query.tags:
                found["tags"][key] = {v: n for k, v, n in tag_counts(con, *narrowed("tags", key)) if k == key}
            for column in ("chars", "turns", "score"):
                sql, values = narrowed(column)
                low, high, n = first(con, f"SELECT min({column}), max({column}), count({column}) FROM {sql}", values)
                found[column] = {"min": low, "max": high, "count": n}
        rest = np.asarray(self.matching(query.without("state")))
        found["state"] = {state: int(_in_state((state,), marks, rest).sum()) for state in STATES}
        return found


def edited(item: Item, mark: Mark) -> Item:
    """A stored row with what a person made of it; it keeps its id."""
    if not mark.content:
        return item
    row, own = mark.row or item.row, dict(item.tags or [])
    gone = [key for key, value in mark.tags if value is None]
    if gone and isinstance(row.get("tags"), dict):
        row = row | {"tags": {k: v for k, v in row["tags"].items() if k not in gone}}
    tags = {k: v for k, v in (own | dict(mark.tags)).items() if v is not None}
    return item_of(row, item.source, item.id, item.score, tags)


def shown_of(pos: int, item: Item, mark: Mark | None) -> dict[str, Any]:
    """One row as the page gets it."""
    mark = mark or Mark()
    return {"pos": pos, "id": item.id, "row": item.row, "source": item.source, "chars": item.chars,
            "turns": item.turns, "lang": item.lang, "score": item.score, "label": item.label,
            "tags": dict(item.tags or []),
            "state": {"edited": mark.content, "deleted": mark.deleted, "review": mark.review, "note": mark.note}}


def shortened(value: Any) -> Any:
    """A row with its long texts cut, for a list."""
    if isinstance(value, str):
        return value if len(value) <= CUT else f"{value[:CUT]}…"
    if isinstance(value, list):
        return [shortened(v) for v in value[:100]]
    return {k: shortened(v) for k, v in value.items()} if isinstance(value, dict) else value


_STATES = {"edited": lambda mark: mark.content, "deleted": lambda mark: mark.deleted,
           "noted": lambda mark: bool(mark.note), **{word: lambda mark, word=word: mark.review == word for word in REVIEWS}}


def _in_state(states: tuple[str, ...], marks: dict[int, Mark], found: Any) -> np.ndarray:
    """Which of some row numbers are in one of the states."""
    import numpy as np

    def among(wanted: Callable[[Mark], bool]) -> np.ndarray:
        here = [pos for pos, mark in marks.items() if wanted(mark)]
        return np.isin(found, here) if here else np.zeros(len(found), bool)

    made = among(lambda mark: any(_STATES[state](mark) for state in states if state in _STATES))
    return made | ~among(lambda mark: mark.review is not None) if "unreviewed" in states else made


def _changed(items: list[tuple[int, Item]]) -> tuple[str, list[Any]]:
    """Changed rows, as a table with the columns of a version."""
    kinds = {"id": "VARCHAR", "text": "VARCHAR", "source": "VARCHAR", "chars": "INTEGER", "turns": "SMALLINT",
             "lang": "VARCHAR", "score": "FLOAT", "label": "VARCHAR"}
    columns: dict[str, tuple[str, list[Any]]] = {"pos": ("BIGINT", [pos for pos, _ in items])}
    for name, kind in kinds.items():
        columns["row" if name == "text" else name] = (kind, [getattr(item, name) for _, item in items])
    for number, name in enumerate(("tag_keys", "tag_values")):
        columns[name] = ("VARCHAR[]", [[pair[number] for pair in item.tags or []] for _, item in items])
    sql, values = _unnested(columns)
    return f"SELECT * EXCLUDE (tag_keys, tag_values), map(tag_keys, tag_values) AS tags FROM {sql}", values


def _unnested(columns: dict[str, tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
    parts = ", ".join(f"unnest(?::{kind}[]) AS {name}" for name, (kind, _) in columns.items())
    return f"(SELECT {parts})", [values for _, values in columns.values()]


def _remember(key: tuple[Any, ...], found: Any) -> None:
    with _lock:
        _positions[key] = found
        size = sum(array.nbytes for array in _positions.values())
        while size > CACHED and len(_positions) > 1:
            size -= _positions.popitem(last=False)[1].nbytes
