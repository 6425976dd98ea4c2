"""What a person looks for in a table of rows, as SQL with parameters.

Nothing that is typed becomes part of the SQL text: names of columns come from fixed lists, values are parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from studio.errors import StudioError

LONGEST = 1000  # characters of a search
MOST = 500  # values of one filter
LISTS = {"lang": "lang", "source": "source", "label": "label", "reason": "reason"}
RANGES = {"chars": "chars", "turns": "turns", "score": "score"}
SORTS = ("pos", "chars", "turns", "lang", "score", "source", "label", "reason", "id")
STATES = ("edited", "deleted", "keep", "drop", "better", "worse", "rewrite", "noted", "unreviewed")
NONE = "none"  # a filter's word for "has no value"

_BREAK = "chr(10)"
# All texts of a canonical row: messages, prompts, answers, contexts, remarks, reasoning, what tools were called with.
TEXT = f"""concat_ws({_BREAK},
 array_to_string(json_extract_string(row, '$..content'), {_BREAK}),
 CASE WHEN starts_with(row, '{{"messages"') THEN NULL ELSE concat_ws({_BREAK},
  json_extract_string(row, '$.text'),
  CASE json_type(row, '$.prompt') WHEN 'VARCHAR' THEN json_extract_string(row, '$.prompt') END,
  array_to_string(json_extract_string(row, '$.contexts[*]'), {_BREAK}),
  CASE json_type(row, '$.completion') WHEN 'VARCHAR' THEN json_extract_string(row, '$.completion') END,
  CASE json_type(row, '$.chosen') WHEN 'VARCHAR' THEN json_extract_string(row, '$.chosen') END,
  CASE json_type(row, '$.rejected') WHEN 'VARCHAR' THEN json_extract_string(row, '$.rejected') END,
  json_extract_string(row, '$.comment')) END,
 CASE WHEN contains(row, '"tool_calls"') THEN concat_ws({_BREAK},
  array_to_string(json_extract_string(row, '$..name'), {_BREAK}),
  array_to_string(json_extract_string(row, '$..arguments'), {_BREAK})) END,
 CASE WHEN contains(row, '"reasoning_content"') THEN
  array_to_string(json_extract_string(row, '$..reasoning_content'), {_BREAK}) END,
 CASE WHEN contains(row, '"thinking"') THEN array_to_string(json_extract_string(row, '$..thinking'), {_BREAK}) END)"""


@dataclass(frozen=True)
class Query:
    """A checked query. ``where`` and ``order`` are SQL over the columns of a version (and ``pos``)."""

    split: str = "train"
    search: str = ""
    regex: bool = False
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    sort: str = "pos"
    desc: bool = False

    @property
    def key(self) -> str:
        """The same for queries that ask the same."""
        return json.dumps([self.split, self.search, self.regex, sorted(self.lists.items()), sorted(self.tags.items()),
                           sorted(self.ranges.items()), sorted(self.states), self.sort, self.desc])

    @property
    def filters(self) -> bool:
        return bool(self.search or self.lists or self.tags or self.ranges or self.states)

    @property
    def plain(self) -> bool:
        """All rows in the order of the file."""
        return not self.filters and self.sort == "pos"

    def without(self, name: str = "", key: str = "") -> Query:
        """The same query with one filter taken off, for counting what that filter could be set to."""
        return replace(self, lists={k: v for k, v in self.lists.items() if k != name},
                       ranges={k: v for k, v in self.ranges.items() if k != name},
                       tags={k: v for k, v in self.tags.items() if name != "tags" or k != key},
                       states=() if name == "state" else self.states)

    def where(self) -> tuple[str, list[Any]]:
        """Condition on the content, and its parameters."""
        parts, values = [], []
        for sql, more in self._conditions():
            parts.append(sql)
            values += more
        return " AND ".join(parts) or "true", values

    def _conditions(self) -> Iterator[tuple[str, list[Any]]]:
        for name, (low, high) in self.ranges.items():
            if low is not None:
                yield f"{RANGES[name]} >= ?", [low]
            if high is not None:
                yield f"{RANGES[name]} <= ?", [high]
        for name, wanted in self.lists.items():
            yield _among(LISTS[name], wanted)
        for key, wanted in self.tags.items():
            sql, more = _among("map_extract_value(tags, ?)", wanted)
            yield sql, [key, *more]
        if self.search and self.regex:
            yield f"regexp_matches({TEXT}, ?)", ["(?im)" + self.search]
        elif self.search:
            # The stored JSON is looked through first, which is quick; what it finds may be a key, a role or half of an
            # escape such as \n, so where that can be, the texts themselves decide.
            stored = orjson.dumps(self.search).decode()[1:-1]
            ways = sorted({stored, self.search})  # what a tool is called with is stored as JSON itself
            yield "(" + " OR ".join(["contains(lower(row), lower(?))"] * len(ways)) + ")", ways
            if _may_mislead(stored):
                yield f"contains(lower({TEXT}), lower(?))", [self.search]

    def order(self) -> tuple[str, list[Any]]:
        """``ORDER BY`` terms; rows without a value come last, ties keep the order of the file."""
        way = "DESC" if self.desc else "ASC"
        if self.sort == "pos":
            return f"pos {way}", []
        if self.sort.startswith("tag:"):
            return f"map_extract_value(tags, ?) {way} NULLS LAST, pos", [self.sort[4:]]
        return f"{self.sort} {way} NULLS LAST, pos", []


def _among(column: str, wanted: tuple[str, ...]) -> tuple[str, list[Any]]:
    """One of the values; :data:`NONE` stands for no value at all."""
    if NONE in wanted:
        return f"coalesce({column}, '') IN (SELECT unnest(?::VARCHAR[]))", [[*wanted, ""]]
    return f"{column} IN (SELECT unnest(?::VARCHAR[]))", [list(wanted)]


_FRAME = ('{"messages":[{"role":"system","content":"","role":"user","content":"","role":"assistant","content":"",'
          '"role":"tool","content":"","tool_calls":[{"type":"function","function":{"name":"","arguments":{"":""}},'
          '"id":""}],"tool_call_id":"","name":"","reasoning_content":"","thinking":""}],"tools":[{"type":"function"}],'
          '"prompt":"","completion":"","chosen":"","rejected":"","text":"","label":true,"label":false,"contexts":'
          '["",""],"comment":"",'
          '"tags":{"":""},"score":0.5')


def _may_mislead(stored: str) -> bool:
    """Whether a text as JSON stores it could be found outside the texts of a row, or across an escape."""
    lowered = stored.lower()
    return lowered[0] in "bfnrtu/\\0123456789abcdef\"" or lowered in _FRAME or any(c in '"{}[]:,' for c in lowered)


def query_of(values: Any, sort: Any = None, desc: Any = False) -> Query:
    """A query from plain values.

    Raises:
        StudioError: an unknown filter, or a value that is none; ``field`` names the filter.
    """
    if not isinstance(values, dict | None):
        raise StudioError("A query is a table of filters.", "", "query")
    values = {k: v for k, v in (values or {}).items() if v not in (None, "", [], {})}
    known = {"split", "search", "regex", "tags", "state", *LISTS, *RANGES}
    if unknown := set(values) - known:
        name = str(sorted(unknown, key=str)[0])
        raise StudioError(f"There is no filter '{name[:40]}'.", f"Known: {', '.join(sorted(known))}.", "query")
    search = values.get("search", "")
    if not isinstance(search, str) or len(search) > LONGEST or "\x00" in search:
        raise StudioError(f"A search is at most {LONGEST:,} characters.", "Look for a shorter piece of it.", "search")
    search = search.encode("utf-8", "replace").decode()
    states = _words("state", values.get("state", ()))
    if wrong := [s for s in states if s not in STATES]:
        raise StudioError(f"There is no state '{wrong[0][:40]}'.", f"Known: {', '.join(STATES)}.", "state")
    tags = values.get("tags", {})
    if not isinstance(tags, dict) or not all(isinstance(k, str) for k in tags):
        raise StudioError("Tags are filtered by key and values.", "Write them as {key: [values]}.", "tags")
    sort = sort or "pos"
    if sort not in SORTS and not (isinstance(sort, str) and sort.startswith("tag:") and len(sort) < 200):
        raise StudioError("Rows cannot be sorted by that.", f"Sort by {', '.join(SORTS)} or tag:KEY.", "sort")
    if "reason" in (sort, *values) and values.get("split") != "dropped":
        raise StudioError("Only rows that were left out have a reason.", "Look at the dropped rows.", "reason")
    split = values.get("split", "train")
    if not isinstance(split, str):
        raise StudioError("A split is named by a word.", "", "split")
    lists = {k: _words(k, values[k]) for k in LISTS if k in values}
    ranges = {k: _range(k, values[k]) for k in RANGES if k in values}
    return Query(split, search, bool(values.get("regex")), lists,
                 {k: _words("tags", v) for k, v in tags.items() if v}, ranges, states, sort, bool(desc))


def _words(name: str, value: Any) -> tuple[str, ...]:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or len(value) > MOST or not all(isinstance(v, str) for v in value):
        raise StudioError(f"The filter '{name}' takes a list of up to {MOST} words.", "", name)
    return tuple(value)


def _range(name: str, value: Any) -> tuple[float | None, float | None]:
    bad = StudioError(f"The filter '{name}' takes two numbers, from and to; either may be empty.", "", name)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise bad
    made = []
    for number in value:
        if number in (None, ""):
            made.append(None)
        elif isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
            made.append(float(number))
        else:
            raise bad
    return made[0], made[1]
