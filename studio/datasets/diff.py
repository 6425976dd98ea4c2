"""What differs between two versions, row by row.

Rows are matched by their id, which a row keeps through every step however its content changes; what is left of
identical rows is counted. DuckDB does it out of core: hashes and row numbers only, spilled to the disk where needed.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.datasets.duck import columns, connect, escaped, first
from studio.datasets.table import MOST_ROWS, Table
from studio.datasets.version import Version
from studio.errors import StudioError

KINDS = ("changed", "added", "removed", "moved")
_KEPT = 4  # comparisons
_MEMORY = "384MB"

_cache: OrderedDict[tuple[str, ...], _Found] = OrderedDict()
_lock = threading.Lock()


@dataclass
class _Found:
    """Counts, and where the rows that differ stand: one array each of ``kind`` (a number of :data:`KINDS`),
    ``a_part``, ``a_pos``, ``b_part``, ``b_pos`` (-1 where a side has none)."""

    counts: dict[str, int]
    rows: dict[str, Any]


def diff(a: Version, b: Version, offset: int = 0, limit: int = 50, kind: str = "") -> dict[str, Any]:
    """Counts of the rows that are the same, changed, added, removed or moved to another split, and a page of them.

    ``changed`` have the same id and another content, score or tags. ``moved`` are among the ``same``.

    Args:
        kind: One of :data:`KINDS`; empty for all but ``moved``.

    Returns:
        ``{same, changed, added, removed, moved, matching, rows: [{kind, before, after}]}``.

    Raises:
        StudioError: an unknown kind.
    """
    if kind and kind not in KINDS:
        raise StudioError(f"Rows cannot be '{kind[:40]}'.", f"Known: {', '.join(KINDS)}.", "kind")
    found = _compared(a, b)
    chosen = found.rows["kind"] == KINDS.index(kind) if kind else found.rows["kind"] != KINDS.index("moved")
    offset, limit = max(0, int(offset)), min(max(0, int(limit)), MOST_ROWS)
    places = chosen.nonzero()[0]
    part = places[offset:offset + limit]
    page = [dict(zip(found.rows, values, strict=True))
            for values in zip(*(array[part].tolist() for array in found.rows.values()), strict=True)]
    before, after = _read(a, page, "a"), _read(b, page, "b")
    return found.counts | {"matching": len(places), "rows": [
        {"kind": KINDS[row["kind"]], "before": before.get((row["a_part"], row["a_pos"])),
         "after": after.get((row["b_part"], row["b_pos"]))} for row in page]}


def _read(version: Version, page: list[dict[str, Any]], side: str) -> dict[tuple[int, int], dict[str, Any]]:
    table, wanted = Table(version), {}
    for row in page:
        if row[f"{side}_part"] >= 0:
            wanted.setdefault(row[f"{side}_part"], []).append(row[f"{side}_pos"])
    return {(part, row["pos"]): row | {"split": version.splits[part]} for part, places in wanted.items()
            for row in table.rows(version.splits[part], sorted(places))}


def steps(a: Version, b: Version) -> list[dict[str, Any]]:
    """The steps of both: what they share from the beginning on, then what only ``a`` and only ``b`` went through."""
    left, right = a.meta["history"], b.meta["history"]
    shared = 0
    while shared < min(len(left), len(right)) and _same(left[shared], right[shared]):
        shared += 1
    parts = [("both", left[:shared]), ("a", left[shared:]), ("b", right[shared:])]
    return [{"where": where, "step": entry["step"], "rows_in": entry["rows_in"], "rows_out": entry["rows_out"]}
            for where, entries in parts for entry in entries]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("step", "inputs", "hash"))


def _compared(a: Version, b: Version) -> _Found:
    key = (str(a.path), a.hash, str(b.path), b.hash)
    with _lock:
        if (found := _cache.get(key)) is not None:
            _cache.move_to_end(key)
            return found
    with tempfile.TemporaryDirectory(prefix="studio-diff-") as temp:
        found = _compare(a, b, Path(temp))
    with _lock:
        _cache[key] = found
        while len(_cache) > _KEPT:
            _cache.popitem(last=False)
    return found


def _compare(a: Version, b: Version, temp: Path) -> _Found:
    with connect(_MEMORY, temp) as con:
        for side, version in (("a", a), ("b", b)):
            parts = " UNION ALL ".join(["SELECT ?::UTINYINT AS part, file_row_number AS pos, id, row, score, tags "
                                        "FROM read_parquet(?)"] * len(version.splits))
            values = [value for number, split in enumerate(version.splits)
                      for value in (number, escaped(version.file(split)))]
            con.execute(f"CREATE TABLE {side} AS SELECT hash(id) AS id, hash(row, score, tags) AS content, part, "
                        f"pos::UINTEGER AS pos FROM ({parts})", values)
            con.execute(f"CREATE TABLE {side}_n AS SELECT id, content, count(*) AS n FROM {side} GROUP BY ALL")
        same = first(con, "SELECT coalesce(sum(least(a_n.n, b_n.n)), 0) FROM a_n JOIN b_n USING (id, content)", [])[0]
        for side, other in (("a", "b"), ("b", "a")):
            # rows whose content is not met on the other side as often as here; the first ones count as met
            con.execute(f"""CREATE TABLE {side}_over AS SELECT x.id, x.content, coalesce(y.n, 0) AS met
                FROM {side}_n AS x LEFT JOIN {other}_n AS y USING (id, content) WHERE x.n > coalesce(y.n, 0)""")
            con.execute(f"""CREATE TABLE {side}_rest AS SELECT id, part, pos,
                row_number() OVER (PARTITION BY id ORDER BY part, pos) AS k FROM (
                SELECT s.id, s.part, s.pos, o.met, CASE WHEN o.met = 0 THEN 1 ELSE
                row_number() OVER (PARTITION BY s.id, s.content ORDER BY s.part, s.pos) END AS number
                FROM {side} AS s JOIN {side}_over AS o USING (id, content)) WHERE number > met""")
        rows = columns(con, """SELECT
            (CASE WHEN a_rest.id IS NULL THEN 1 WHEN b_rest.id IS NULL THEN 2 ELSE 0 END)::UTINYINT AS kind,
            coalesce(a_rest.part, -1)::TINYINT AS a_part, coalesce(a_rest.pos, -1)::INTEGER AS a_pos,
            coalesce(b_rest.part, -1)::TINYINT AS b_part, coalesce(b_rest.pos, -1)::INTEGER AS b_pos
            FROM a_rest FULL JOIN b_rest USING (id, k)
            ORDER BY coalesce(a_rest.part, b_rest.part), coalesce(a_rest.pos, b_rest.pos), kind""", [])
        moved = _moved(con, a, b)
    import numpy as np

    tally = np.bincount(rows["kind"], minlength=3).tolist()
    counts = {"same": int(same), **dict(zip(KINDS[:3], tally, strict=True)), "moved": len(moved["kind"])}
    return _Found(counts, {name: np.concatenate([rows[name], moved[name]]) for name in rows})


def _moved(con: Any, a: Version, b: Version) -> dict[str, Any]:
    """Rows with the same content that stand in another split; identical rows only where all of them moved."""
    one = "(SELECT id, content, min(part) AS part, min(pos) AS pos FROM {0} GROUP BY id, content " \
          "HAVING min(part) = max(part))"
    other = " OR ".join(f"(x.part = {i} AND y.part = {j})" for i, left in enumerate(a.splits)
                        for j, right in enumerate(b.splits) if left != right) or "false"
    return columns(con, f"""SELECT 3::UTINYINT AS kind, x.part::TINYINT AS a_part, x.pos::INTEGER AS a_pos,
        y.part::TINYINT AS b_part, y.pos::INTEGER AS b_pos FROM {one.format('a')} AS x JOIN {one.format('b')} AS y
        USING (id, content) WHERE {other} ORDER BY x.part, x.pos""", [])
