"""DuckDB as the table, the diff and the statistics use it: bounded, on one thread, with nothing from outside."""

from __future__ import annotations

import glob
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError

if TYPE_CHECKING:
    import duckdb
    import numpy as np

MEMORY = "512MB"  # of one database
TOP = 50  # values of a menu

_lock = threading.Lock()
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


def counts(con: Any, source: str, given: list[Any], column: str, top: int = TOP) -> list[tuple[Any, int]]:
    """(value, rows) of a column, the most frequent first. ``column`` is one of ours."""
    sql = f"SELECT {column}, count(*) AS n FROM {source} GROUP BY 1 ORDER BY n DESC, 1 LIMIT {top}"
    return fetched(con, sql, given)


def tag_counts(con: Any, source: str, given: list[Any]) -> list[tuple[str, str, int]]:
    """(key, value, rows), the most frequent values of each of the first keys."""
    sql = f"""SELECT key, value, n FROM (SELECT t.key AS key, t.value AS value, count(*) AS n
              FROM (SELECT unnest(map_entries(tags)) AS t FROM {source} WHERE tags IS NOT NULL) GROUP BY 1, 2)
              QUALIFY row_number() OVER (PARTITION BY key ORDER BY n DESC, value) <= {TOP}
              ORDER BY key, n DESC, value"""
    return fetched(con, sql, given)


def first(con: Any, sql: str, values: list[Any]) -> tuple[Any, ...]:
    """The first row of the answer."""
    return fetched(con, sql, values)[0]


def one(con: Any, sql: str, values: list[Any]) -> Any:
    """The only value of the answer."""
    return first(con, sql, values)[0]


def fetched(con: Any, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
    """All rows of the answer."""
    return _run(lambda: con.execute(sql, values).fetchall())


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
