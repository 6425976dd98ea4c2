"""Rows as typed files for other programs: JSONL, Parquet with a fixed schema, CSV for spreadsheets.

Parquet needs one type a column. What has none of its own there, the arguments of a tool call, the schemas of tools, is
written as JSON text, as other libraries expect; prompts that are texts in some rows and messages in others are all
written as messages.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from studio.datasets.version import dump
from studio.errors import StudioError

Row = dict[str, Any]
GROUP = 1024  # rows of a Parquet row group; few enough that long conversations stay small in memory
DANGEROUS = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so may be run as a formula by a spreadsheet
LONGEST_CELL = 32_767  # characters that Excel shows of a cell
MOST_TAGS = 200
ORDER = ("messages", "conversations", "tools", "system", "history", "instruction", "input", "output", "prompt",
         "completion",
         "chosen", "rejected", "margin", "label", "contexts", "comment", "text", "tags", "source")
_SIDES = ("prompt", "completion", "chosen", "rejected")


class Shape:
    """What the rows of a set have in common: gathered in a first pass, the schema of the second.

        shape = Shape()
        for row in rows: shape.see(row)
        shape.schema()
    """

    def __init__(self) -> None:
        self.columns: set[str] = set()
        self.lists: set[str] = set()  # prompts and answers that are messages in some row
        self.parts: dict[str, set[str]] = {}  # column of messages -> keys beside role and content
        self.tags: set[str] = set()
        self.identified = False  # tool calls have an id

    def see(self, row: Row) -> None:
        for name, value in row.items():
            if value is None:
                continue
            self.columns.add(name)
            if name in ("messages", "conversations") or (name in _SIDES and isinstance(value, list)):
                self.lists.add(name)
                parts = self.parts.setdefault(name, set())
                for message in value:
                    parts.update(key for key, one in message.items() if one is not None)
                    for call in message.get("tool_calls") or []:
                        self.identified = self.identified or "id" in call
            elif name == "tags" and len(self.tags) <= MOST_TAGS:
                self.tags.update(map(str, value))

    @property
    def names(self) -> list[str]:
        return sorted(self.columns, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def schema(self) -> Any:
        """Arrow schema."""
        import pyarrow as pa

        return pa.schema([(name, self._type(name)) for name in self.names])

    def _type(self, name: str) -> Any:
        import pyarrow as pa

        if name in self.lists:
            call = [("id", pa.string())] if self.identified else []
            call += [("type", pa.string()), ("function", pa.struct([("name", pa.string()), ("arguments",
                                                                                            pa.string())]))]
            first = ["from", "value"] if name == "conversations" else ["role", "content"]
            keys = first + sorted(self.parts[name] - set(first))
            return pa.list_(pa.struct([(key, pa.list_(pa.struct(call)) if key == "tool_calls" else pa.string())
                                       for key in keys]))
        if name == "tags" and len(self.tags) <= MOST_TAGS:
            return pa.struct([(key, pa.string()) for key in sorted(self.tags)])
        return {"label": pa.bool_(), "margin": pa.float64(), "contexts": pa.list_(pa.string()),
                "history": pa.list_(pa.list_(pa.string()))}.get(name, pa.string())

    def typed(self, row: Row) -> Row:
        """A row with the values that :meth:`schema` asks for."""
        made: Row = {}
        for name in self.columns:
            value = row.get(name)
            if value is None:
                made[name] = None
            elif name in self.lists:
                if not isinstance(value, list):
                    value = [{"role": "user" if name == "prompt" else "assistant", "content": value}]
                made[name] = [_message(message) for message in value]
            elif name == "tags" and len(self.tags) <= MOST_TAGS:
                made[name] = {str(key): _word(one) for key, one in value.items()}
            elif isinstance(value, (dict, list)) and name not in ("contexts", "history"):
                made[name] = _json(value)
            else:
                made[name] = value
        return made


def _message(message: Row) -> Row:
    if not message.get("tool_calls"):
        return message
    calls = [{"id": call.get("id"), "type": call.get("type", "function"),
              "function": {"name": call["function"]["name"], "arguments": _json(call["function"]["arguments"])}}
             for call in message["tool_calls"]]
    return message | {"tool_calls": calls}


def _word(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, default=str)


def write_jsonl(path: Path, rows: Iterable[Row], shape: Shape) -> int:
    """One JSON object a line, values as they are. Returns the number of rows."""
    number = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(rows, 1):
            file.write(dump(row) + "\n")
    return number


def write_parquet(path: Path, rows: Iterable[Row], shape: Shape) -> int:
    """Columns with types, compressed with Zstandard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, batch, number, size = shape.schema(), [], 0, 0
    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        def flush() -> None:
            out.write_batch(pa.RecordBatch.from_pylist([shape.typed(row) for row in batch], schema=schema))
            batch.clear()

        for number, row in enumerate(rows, 1):
            batch.append(row)
            size += sum(len(value) for value in row.values() if isinstance(value, str))
            if len(batch) >= GROUP or size > 8 << 20:
                flush()
                size = 0
        if batch:
            flush()
    return number


def write_csv(path: Path, rows: Iterable[Row], shape: Shape, safe: bool = True) -> int:
    """A table for spreadsheets: UTF-8 with a mark, lists and objects as JSON text.

    Args:
        safe: Put ``'`` before a text that begins with ``= + - @``, a tab or a carriage return, which a spreadsheet may run
            as a formula (https://owasp.org/www-community/attacks/CSV_Injection), or with ``'`` itself, so that taking the
            first one away always gives the text back.
    """
    number, names = 0, shape.names
    with path.open("w", encoding="utf-8-sig", newline="", errors="replace") as file:
        out = csv.writer(file, lineterminator="\n",
                         quoting=csv.QUOTE_NONNUMERIC)  # a bare carriage return is a line, too
        out.writerow(names)
        for number, row in enumerate(rows, 1):
            out.writerow([_cell(row.get(name), safe) for name in names])
    return number


def _cell(value: Any, safe: bool) -> Any:
    if isinstance(value, (dict, list)):
        value = _json(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if safe and isinstance(value, str) and value.lstrip(" ").startswith((*DANGEROUS, "'")):
        return "'" + value
    return value


FILES: dict[str, Callable[..., int]] = {"jsonl": write_jsonl, "parquet": write_parquet, "csv": write_csv}


def long_cells(row: Row) -> bool:
    """A cell that Excel would cut."""
    return any(isinstance(value, str) and len(value) > LONGEST_CELL for value in row.values())


def fitting(rows: Iterable[Row], write: Callable[[Row], Row], misfits: dict[str, int]) -> Iterable[Row]:
    """Rows in another format; those that it cannot hold are left out and counted by their reason."""
    for row in rows:
        try:
            made = write(row)
        except StudioError as err:
            misfits[err.message] = misfits.get(err.message, 0) + 1
            continue
        yield made
