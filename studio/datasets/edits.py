"""What a person changed in a version of a dataset: a log beside it, one line an action; the version stays as it is.

``STUDIO_HOME/edits/<artifact id>.jsonl`` holds ``{"at", "who", "split", "ops": [...]}``, ``{"undo": true}`` and
``{"redo": true}``. Lines are only ever appended, under a lock, so two tabs (or two people) may edit at once; a line
torn by a crash is passed over. The step ``data/edits`` makes a new version of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError

Key = tuple[str, int]  # split, row number in its file
OPS = ("set", "rewrite", "delete", "restore", "keep", "drop", "better", "worse", "note", "tag", "clear")
REVIEWS = ("keep", "drop", "better", "worse", "rewrite")
MOST_OPS = 10_000  # of one action
LONGEST = 4000  # characters of a note, a tag's value
_ID = re.compile(r"a[a-z2-7]{4,40}")


@dataclass(frozen=True)
class Mark:
    """What was done to one row. ``row`` is its new content; ``tags`` values of ``None`` take a tag away."""

    id: str = ""
    row: dict[str, Any] | None = None
    deleted: bool = False
    review: str | None = None
    note: str = ""
    tags: tuple[tuple[str, str | None], ...] = ()

    @property
    def content(self) -> bool:
        """Something that the columns of the table show was changed."""
        return self.row is not None or bool(self.tags)


@dataclass
class Edits:
    """The log of one version, folded. Reading goes on where it ended before.

    Attributes:
        marks: Rows that something was done to.
        count: Actions in effect.
        stamp: Grows with every line of the log; ``content_stamp`` only changes when what rows hold changes.
    """

    path: Path
    marks: dict[Key, Mark] = field(default_factory=dict)
    count: int = 0
    stamp: int = 0
    content_stamp: int = 0
    _offset: int = 0
    _done: list[tuple[dict[str, Any], dict[Key, Mark | None]]] = field(default_factory=list)
    _undone: list[dict[str, Any]] = field(default_factory=list)
    touched: list[Key] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.RLock)

    def refresh(self, until: int = 0) -> Edits:
        """Read what was added since, by this process or another. ``until`` stops after so many lines of the log."""
        with self._lock:
            try:
                size = self.path.stat().st_size
            except OSError:
                return self
            if size < self._offset:  # somebody put another log in its place
                fresh = Edits(self.path, stamp=self.stamp + 1, content_stamp=self.content_stamp + 1)
                for name in ("marks", "count", "stamp", "content_stamp", "_offset", "_done", "_undone", "touched"):
                    setattr(self, name, getattr(fresh, name))
            if size == self._offset:
                return self
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n") or (until and self.stamp >= until):
                        break  # torn, or still being written
                    self._offset += len(line)
                    self.stamp += 1
                    self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        if entry.get("undo"):
            if self._done:
                last, before = self._done.pop()
                self._undone.append(last)
                self._put_back(before)
        elif entry.get("redo"):
            if self._undone:
                self._apply(self._undone.pop())
        elif isinstance(entry.get("ops"), list) and isinstance(entry.get("split"), str):
            self._undone.clear()
            self._apply(entry)
        self.count = len(self._done)

    def _apply(self, entry: dict[str, Any]) -> None:
        before: dict[Key, Mark | None] = {}
        for op in entry["ops"]:
            if not isinstance(op, dict) or not isinstance(op.get("pos"), int) or op.get("op") not in OPS:
                continue
            key = (entry["split"], op["pos"])
            old = self.marks.get(key)
            before.setdefault(key, old)
            new = changed(old or Mark(), op)
            self._set(key, new)
        self._done.append((entry, before))
        self.touched = list(before)

    def _put_back(self, before: dict[Key, Mark | None]) -> None:
        for key, mark in before.items():
            self._set(key, mark)
        self.touched = list(before)

    def _set(self, key: Key, mark: Mark | None) -> None:
        old = self.marks.get(key)
        if (old and old.content) or (mark and mark.content):
            self.content_stamp += 1
        if mark is None or mark == Mark(mark.id):
            self.marks.pop(key, None)
        else:
            self.marks[key] = mark

    def of(self, split: str) -> dict[int, Mark]:
        """Row number -> mark."""
        with self._lock:
            return {pos: mark for (part, pos), mark in self.marks.items() if part == split}

    def summary(self) -> dict[str, Any]:
        """``{count, rows, edited, deleted, noted, tagged, review: {keep, drop, ...}, undo, redo, stamp}``."""
        with self._lock:
            marks = list(self.marks.values())
        review = Counter(mark.review for mark in marks)
        return {"count": self.count, "rows": len(marks), "edited": sum(m.row is not None for m in marks),
                "deleted": sum(m.deleted for m in marks), "noted": sum(bool(m.note) for m in marks),
                "tagged": sum(bool(m.tags) for m in marks), "review": {word: review.get(word, 0) for word in REVIEWS},
                "undo": len(self._done), "redo": len(self._undone), "stamp": self.stamp}

    def append(self, split: str, ops: list[dict[str, Any]], who: str | None = None) -> Edits:
        """One action; it can be undone as a whole."""
        return self._append({"at": round(time.time(), 3), **({"who": who} if who else {}), "split": split, "ops": ops})

    def undo(self) -> list[Key]:
        """Take the last action back; returns the rows it touched.

        Raises:
            StudioError: there is none.
        """
        return self._turn("undo", "_done", "There is nothing to undo.")

    def redo(self) -> list[Key]:
        """Do again what was undone last.

        Raises:
            StudioError: there is none.
        """
        return self._turn("redo", "_undone", "There is nothing to do again.")

    def _turn(self, word: str, stack: str, message: str) -> list[Key]:
        with self._lock:
            if not getattr(self.refresh(), stack):
                raise StudioError(message, "", word)
            self._append({word: True})
            return self.touched

    def _append(self, entry: dict[str, Any]) -> Edits:
        """Write one line and read up to it.

        Raises:
            StudioError: the disk is full or not writable.
        """
        data = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "ab+") as file:
                    fcntl.flock(file.fileno(), fcntl.LOCK_EX)
                    end = file.seek(0, os.SEEK_END)
                    if end:
                        file.seek(end - 1)
                        if file.read(1) != b"\n":  # a crash tore the last line
                            data = b"\n" + data
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as err:
                raise StudioError(f"The change cannot be stored: {err.strerror}.", "Free some disk space.") from err
            return self.refresh()


def changed(mark: Mark, op: dict[str, Any]) -> Mark:
    """A mark after one more action."""
    mark, word = replace(mark, id=str(op.get("id") or mark.id)), op["op"]
    if word in ("set", "rewrite") and isinstance(op.get("row"), dict):
        return replace(mark, row=op["row"], review="rewrite" if word == "rewrite" else mark.review)
    if word in ("delete", "restore"):
        return replace(mark, deleted=word == "delete")
    if word in ("keep", "drop", "better", "worse"):
        return replace(mark, review=word)
    if word == "note":
        return replace(mark, note=str(op.get("text") or "")[:LONGEST])
    if word == "tag":
        value = op.get("value")
        tags = dict(mark.tags) | {str(op.get("key")): None if value is None else str(value)}
        return replace(mark, tags=tuple(sorted(tags.items())))
    if word == "clear":
        return Mark(mark.id) if op.get("key") not in _BLANK else replace(mark, **{op["key"]: _BLANK[op["key"]]})
    return mark


_BLANK: dict[Any, Any] = {"row": None, "review": None, "note": "", "tags": ()}  # parts that 'clear' takes away alone


_LOGS: dict[Path, Edits] = {}
_LOGS_LOCK = threading.Lock()


def path_of(artifact_id: str) -> Path:
    """The log of an artifact.

    Raises:
        StudioError: not an id.
    """
    if not isinstance(artifact_id, str) or not _ID.fullmatch(artifact_id):
        raise StudioError("That is not a dataset of the library.", "Choose one from the list.", "dataset")
    return settings.home() / "edits" / f"{artifact_id}.jsonl"


def of(artifact_id: str, until: int = 0) -> Edits:
    """What was changed in a version, up to date. ``until`` gives the state after so many lines of its log."""
    path = path_of(artifact_id)
    if until:
        return Edits(path).refresh(until)
    with _LOGS_LOCK:
        if len(_LOGS) > 64:
            _LOGS.clear()
        log = _LOGS.setdefault(path, Edits(path))
    return log.refresh()
