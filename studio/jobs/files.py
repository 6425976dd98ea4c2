"""Small files that other processes read while we write them, and locks that end with their holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, or ``None`` if it is missing, torn or something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write atomically and durably: readers see the old file or the whole new one.

    Raises:
        OSError: when the disk is full; nothing is left behind then.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def lock(fd: int, shared: bool = False) -> bool:
    """Take the lock of an open file without waiting; False if another process holds it.

    A file system without locks (some network mounts) counts as free: there it protects nobody.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as err:
        return err.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def cut_middle(path: Path, limit: int, head: int, tail: int) -> bool:
    """Bring a log of more than ``limit`` bytes down to its first ``head`` and last ``tail`` ones, in whole lines.

    Its writers keep it open and must append (``O_APPEND``), so that they go on behind the new end; what they write in
    this very moment may be lost. No space on the disk is needed. False if the log is short enough.

    Raises:
        OSError: it cannot be read or written.
    """
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            return False
        first = os.pread(file.fileno(), head, 0)
        first = first[:first.rfind(b"\n") + 1] or first
        last = os.pread(file.fileno(), tail, size - tail)
        last = last[last.find(b"\n") + 1:] or last
        cut = size - len(first) - len(last)
        file.seek(len(first))
        file.write(b"\n[... %d bytes were cut out here, because the log grew too long ...]\n\n" % cut + last)
        file.flush()
        file.truncate()
    return True


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines atomically: readers see nothing or the whole file.

    Raises:
        OSError: when the disk is full; nothing is left behind then.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
