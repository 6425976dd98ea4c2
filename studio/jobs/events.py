"""What a run says: one JSON object a line in ``events.jsonl``, appended whole, read with a byte cursor.

Worker, guardian and supervisor may all append to one file: every line is a single ``write`` on an ``O_APPEND``
descriptor. A writer that dies half-way leaves a torn line, which the next writer closes and readers skip.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

TYPES = ("state", "progress", "metric", "sample", "rollout", "log", "warning", "artifact", "stage", "resume")
MAX_TEXT = 20_000  # characters of one string; a longer one is cut, so that a line stays readable in one gulp
_DEPTH = 9  # of what is nested: the answers in the proof of a variant in a summary lie seven deep

_NAMED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_number(value: float) -> float | int | str:
    """``value``, or the name of what JSON cannot hold: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def decode_number(value: Any) -> Any:
    """The inverse of :func:`encode_number`; anything else is returned as it is."""
    return _NAMED.get(value, value) if isinstance(value, str) else value


def plain(value: Any, depth: int = 0) -> Any:
    """``value`` as JSON can hold it: numbers by :func:`encode_number`, long texts cut, anything odd as text."""
    if isinstance(value, float):
        return encode_number(float(value))
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        cut = value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
        return cut.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be written
    if depth < _DEPTH and isinstance(value, dict):
        return {str(k): plain(v, depth + 1) for k, v in value.items()}
    if depth < _DEPTH and isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    if hasattr(value, "item") and getattr(value, "size", 0) != 0:  # numpy and torch scalars
        try:
            return plain(value.item(), depth + 1)
        except (ValueError, RuntimeError):
            pass
    return str(value)[:MAX_TEXT]


class Writer:
    """Appends events to one file.

    Raises:
        OSError: from :meth:`emit`, when the line cannot be written (a full disk, say).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def emit(self, e: str, **data: Any) -> None:
        """Append one event of type ``e`` with the present time."""
        line = json.dumps({"t": round(time.time(), 3), "e": e, **plain(data)}, ensure_ascii=False,
                          separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        done = os.write(self._fd, line)
        self._torn = done != len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def append(path: str | Path, e: str, **data: Any) -> bool:
    """Append one event if that is possible; for the caller who must not fail because a disk is full."""
    try:
        writer = Writer(path)
    except OSError:
        return False
    try:
        writer.emit(e, **data)
        return True
    except OSError:
        return False
    finally:
        writer.close()


def read(path: str | Path, cursor: int = 0, limit_bytes: int = 1 << 20) -> tuple[list[dict[str, Any]], int]:
    """Events from byte ``cursor`` on, and the cursor for the next call.

    At most about ``limit_bytes`` are read at once (one longer line is still read whole). A line without its newline is
    left for the next call; a line that is not an event is skipped. A file that is missing has no events; one that
    is shorter than the cursor (replaced) is read from its start. Metric values come back as floats, NaN included.
    """
    found, cursor = scan(path, cursor, limit_bytes)
    return [event for _, event in found], cursor


def scan(path: str | Path, cursor: int = 0,
         limit_bytes: int = 1 << 20) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """As :func:`read`, with each event the byte behind its line: the cursor of somebody who has seen it."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if cursor < 0 or cursor > size:
                cursor = 0
            file.seek(cursor)
            data = file.read(limit_bytes)
            if b"\n" not in data and len(data) == limit_bytes:
                data += file.readline()
    except OSError:
        return [], max(cursor, 0)
    found = []
    for line in data[:data.rfind(b"\n") + 1].splitlines(keepends=True):
        cursor += len(line)
        if event := _event(line):
            found.append((cursor, event))
    return found, cursor


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("e"), str):
        return None
    values = event.get("values")
    if event["e"] == "metric" and isinstance(values, dict):
        event["values"] = {name: decode_number(value) for name, value in values.items()}
    return event
