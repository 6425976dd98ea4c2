"""What a long run has already got, so that a stop, a kill or a power cut costs nothing that was paid for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import orjson


class Journal:
    """An append-only file of finished keys, one JSON line each. Whatever was put once is never asked for again.

    A line torn by a kill is cut off at the next start. Only where each record lies is kept in memory. Thread-safe.

        with Journal(ctx.run_dir / "journal.jsonl") as journal:
            todo = (request for request in requests if journal.done(request[0]) is None)
            for key, found in client.map(todo):
                journal.put(key, ...)
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)
        self._lock = threading.Lock()
        self._at: dict[str, tuple[int, int]] = {}
        self._end = self._read()

    def _read(self) -> int:
        end = 0
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self._at.setdefault(orjson.loads(line)["key"], (end, len(line)))
                except (ValueError, KeyError, TypeError):
                    pass  # a line that a full disk has spoilt: its work is done again
                end += len(line)
        self._file.truncate(end)
        return end

    def done(self, key: str) -> Any:
        """The record of a key, or ``None`` if it is not finished."""
        with self._lock:
            if (place := self._at.get(key)) is None:
                return None
            self._file.seek(place[0])
            return orjson.loads(self._file.read(place[1]))["record"]

    def put(self, key: str, record: Any) -> None:
        """Note a key as finished; a second time for the same key changes nothing.

        Args:
            record: Plain values, not ``None``.

        Raises:
            OSError: the disk is full; the key is then not finished.
        """
        line = orjson.dumps({"key": key, "record": record}, default=str) + b"\n"
        with self._lock:
            if key in self._at:
                return
            written = self._file.write(line)
            if written != len(line):
                self._file.truncate(self._end)
                raise OSError(28, "No space left on device")
            self._at[key] = (self._end, len(line))
            self._end += len(line)

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
