"""A version of a dataset as a table that filters, sorts and scrolls at once, whatever its length.

DuckDB looks through the Parquet files where they lie. The answer to a query is a list of row numbers (four bytes a
row), kept for the next page; a page reads only the rows it shows. Rows that a person changed are looked at as they are
now.
"""

from __future__ import annotations

import glob
import re
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.datasets.edits import REVIEWS, Edits, Mark
from studio.datasets.query import NONE, STATES, Query
from studio.datasets.version import COLUMNS, Item, Version, item_of
from studio.errors import StudioError

if TYPE_CHECKING:
    import duckdb
    import numpy as np

MOST_ROWS = 200  # of a page
PAGE_TEXT = 4 << 20  # characters of a page; longer rows are shown cut
CUT = 2000  # characters that are left of a text of such a row
CACHED = 64 << 20  # bytes of row numbers kept
MEMORY = "512MB"  # of one connection
TOP = 50  # values of a menu

_positions: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_facts: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
_lock = threading.Lock()
_working: dict[tuple[Any, ...], threading.Lock] = {}
_shared: duckdb.DuckDBPyConnection | None = None


def connect(memory: str = MEMORY, temp: Path | None = None) -> duckdb.DuckDBPyConnection:
    """An empty database in memory: one thread, bounded, no extensions from outside.

    Args:
        temp: Folder to spill to; without one a query that needs more than ``memory`` fails.
    """
    import duckdb

    config = {"threads": 1, "memory_limit": memory, "temp_directory": str(temp or ""),
              "autoinstall_known_extensions": False, "autoload_known_extensions": False,
              "python_enable_replacements": False}  # a name in a query is never a variable of this program
    return duckdb.connect(config=config)


def cursor() -> duckdb.DuckDBPyConnection:
    """A cursor on the database that this process shares."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = connect()
        return _shared.cursor()


def escaped(path: Path) -> str:
    """A path that ``read_parquet`` takes literally."""
    return glob.escape(str(path))


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
        stamp = (self.edits.stamp if query.states else self.edits.content_stamp) if self.edits and marks else 0
        key = (*self.key, query.key, stamp)
        with _lock:
            if (found := _positions.get(key)) is not None:
                _positions.move_to_end(key)
                return found
            working = _working.setdefault(key, threading.Lock())
        with working:  # the same question asked twice at once is worked out once
            with _lock:
                found = _positions.get(key)
            if found is None:
                found = self._search(query, marks)
                _remember(key, found)
        with _lock:
            _working.pop(key, None)
        return found

    def _search(self, query: Query, marks: dict[int, Mark]) -> np.ndarray:
        where, values = query.where()
        order, more = query.order()
        source, given = self.source(query.split, marks, bool(query.states))
        if query.states:
            where += _states(query)
        sql = f"SELECT pos::INTEGER AS pos FROM {source} WHERE {where} ORDER BY {order}"
        with cursor() as con:
            return columns(con, sql, [*given, *values, *more])["pos"]

    def source(self, split: str, marks: dict[int, Mark] | None = None, states: bool = False) -> tuple[str, list[Any]]:
        """``FROM`` terms and their parameters: the columns of a split and ``pos``, with changed rows as they are now.

        Args:
            states: Add the columns that :data:`_STATE_SQL` reads.
        """
        names = ", ".join(COLUMNS) + (", reason, detail" if split == "dropped" else "")
        sql = f"(SELECT file_row_number AS pos, {names} FROM read_parquet(?))"
        values: list[Any] = [escaped(self.version.file(split))]
        if changed := {pos: mark for pos, mark in (marks or {}).items() if mark.content}:
            items = self.items(split, sorted(changed))
            more, given = _changed([(pos, edited(item, changed[pos])) for pos, item in items])
            sql = f"(SELECT * FROM {sql} WHERE pos NOT IN (SELECT unnest(?::BIGINT[])) UNION ALL BY NAME {more})"
            values += [list(changed), *given]
        if states:
            more, given = _marked(marks or {})
            sql = f"{sql} LEFT JOIN {more} USING (pos)"
            values += given
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
            found = _run(lambda: con.execute(f"{sql} ORDER BY 1", values).fetchall())
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
        found: dict[str, Any] = {"split": {name: self.count(name) for name in [*self.version.splits, "dropped"]}}
        if not self.count(query.split):
            return found
        source, given = self.source(query.split, self.marks(query.split), True)
        with cursor() as con:

            def narrowed(name: str, key: str = "") -> tuple[str, list[Any]]:
                rest = query.without(name, key)
                where, values = rest.where()
                where += _states(rest) if rest.states else ""
                return f"(SELECT * FROM {source} WHERE {where})", given + values

            for column in ("lang", "source", "label", "reason"):
                if column != "reason" or query.split == "dropped":
                    found[column] = {value or NONE: n for value, n in counts(con, *narrowed(column), column)}
            found["tags"] = {}
            for key, value, n in tag_counts(con, *narrowed("tags", "")):
                found["tags"].setdefault(key, {})[value] = n
            for key in query.tags:
                found["tags"][key] = {v: n for k, v, n in tag_counts(con, *narrowed("tags", key)) if k == key}
            for column in ("chars", "turns", "score"):
                sql, values = narrowed(column)
                low, high, n = first(con, f"SELECT min({column}), max({column}), count({column}) FROM {sql}", values)
                found[column] = {"min": low, "max": high, "count": n}
            sql, values = narrowed("state")
            sums = ", ".join(f"count(*) FILTER (WHERE {_STATE_SQL[state]})" for state in STATES)
            found["state"] = dict(zip(STATES, first(con, f"SELECT {sums} FROM {sql}", values), strict=True))
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


_STATE_SQL = {"edited": "coalesce(m_edited, false)", "deleted": "coalesce(m_deleted, false)",
              "noted": "coalesce(m_noted, false)", "unreviewed": "m_review IS NULL",
              **{word: f"coalesce(m_review = '{word}', false)" for word in REVIEWS}}


def _states(query: Query) -> str:
    return f" AND ({' OR '.join(_STATE_SQL[state] for state in query.states)})"


def _marked(marks: dict[int, Mark]) -> tuple[str, list[Any]]:
    """What was done to rows, as a table."""
    columns = {"pos": ("BIGINT", list(marks)), "m_edited": ("BOOLEAN", [mark.content for mark in marks.values()]),
               "m_deleted": ("BOOLEAN", [mark.deleted for mark in marks.values()]),
               "m_noted": ("BOOLEAN", [bool(mark.note) for mark in marks.values()]),
               "m_review": ("VARCHAR", [mark.review for mark in marks.values()])}
    return _unnested(columns)


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


def counts(con: Any, source: str, given: list[Any], column: str, top: int = TOP) -> list[tuple[Any, int]]:
    """(value, rows) of a column, the most frequent first. ``column`` is one of ours."""
    sql = f"SELECT {column}, count(*) AS n FROM {source} GROUP BY 1 ORDER BY n DESC, 1 LIMIT {top}"
    return _run(lambda: con.execute(sql, given).fetchall())


def tag_counts(con: Any, source: str, given: list[Any]) -> list[tuple[str, str, int]]:
    """(key, value, rows), the most frequent values of each of the first keys."""
    sql = f"""SELECT key, value, n FROM (SELECT t.key AS key, t.value AS value, count(*) AS n
              FROM (SELECT unnest(map_entries(tags)) AS t FROM {source} WHERE tags IS NOT NULL) GROUP BY 1, 2)
              QUALIFY row_number() OVER (PARTITION BY key ORDER BY n DESC, value) <= {TOP}
              ORDER BY key, n DESC, value"""
    return _run(lambda: con.execute(sql, given).fetchall())


def first(con: Any, sql: str, values: list[Any]) -> tuple[Any, ...]:
    return _run(lambda: con.execute(sql, values).fetchone())


def one(con: Any, sql: str, values: list[Any]) -> Any:
    return first(con, sql, values)[0]


def columns(con: Any, sql: str, values: list[Any]) -> dict[str, np.ndarray]:
    """The answer as one array a column; not Arrow, which would bring pandas into the page's process."""
    return _run(lambda: con.execute(sql, values).fetchnumpy())


def _run(work: Any) -> Any:
    """Call DuckDB; what a person can mend is said to them.

    Raises:
        StudioError: a regular expression that cannot be read, too little memory, or a file that is gone or damaged.
    """
    import duckdb

    try:
        return work()
    except duckdb.OutOfMemoryException as err:
        raise StudioError("This needs more memory than the table may use.", "Narrow the search.", "search") from err
    except duckdb.Error as err:
        said = str(err).partition(": ")[2].split("\n")[0]
        if isinstance(err, duckdb.IOException) or ".parquet" in said:
            raise StudioError("The files of this dataset cannot be read.", "Run the step that made it again.",
                              "dataset") from err
        if not isinstance(err, duckdb.InvalidInputException) or not _RE2.match(said):
            raise
        raise StudioError(f"This is no regular expression: {said.replace('(?im)', '')[:200]}.",
                          "Look-arounds and back references are not known here.", "search") from err


# What RE2, the regular expressions of DuckDB, says of a pattern that it does not take.
_RE2 = re.compile("missing|unexpected|trailing|no argument|invalid (escape|character|repetition|perl|UTF|named)"
                  "|bad repetition|pattern too large")


def _remember(key: tuple[Any, ...], found: Any) -> None:
    with _lock:
        _positions[key] = found
        size = sum(array.nbytes for array in _positions.values())
        while size > CACHED and len(_positions) > 1:
            size -= _positions.popitem(last=False)[1].nbytes
