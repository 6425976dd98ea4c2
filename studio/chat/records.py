"""What is known of each engine of a workspace: ``engines/<id>.json``, readable by its owner only, replaced whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio import settings
from studio.jobs import process
from studio.jobs.files import read_json as read

_ENDED, MOST_ENDED = "ended", 20


def folder() -> Path:
    path = settings.home() / "engines"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def engine_id(base: str) -> str:
    """Id of the engine of a base reference."""
    return hashlib.sha256(base.encode()).hexdigest()[:12]


def path_of(base: str) -> Path:
    return folder() / f"{engine_id(base)}.json"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone with a record, among all processes of the workspace."""
    with open(path.with_suffix(".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write(path: Path, record: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}")  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def update(path: Path, pid: int, **values: Any) -> None:
    """Changes the record if it is still about process ``pid``."""
    with locked(path):
        record = read(path)
        if record and record.get("pid") == pid:
            write(path, record | values)


def remove(path: Path, pid: int) -> None:
    """Deletes the record if it is still about process ``pid``."""
    with locked(path):
        record = read(path)
        if record and record.get("pid") == pid:
            path.unlink(missing_ok=True)


def everything() -> list[tuple[Path, dict[str, Any]]]:
    found = [(path, read(path)) for path in sorted(folder().glob("*.json"))]
    return [(path, record) for path, record in found if record]


def note(label: str, size: int, why: str) -> None:
    """Writes down that an engine was ended without being asked to: ``why`` is ``idle``, ``room`` or ``run:ID``."""
    path = folder() / _ENDED
    line = json.dumps({"label": label, "bytes": size, "why": why, "at": time.time()})
    with contextlib.suppress(OSError), locked(path):
        kept = path.read_text().splitlines()[-MOST_ENDED + 1:] if path.exists() else []
        new = path.with_suffix(".new")
        new.write_text("\n".join([*kept, line]) + "\n")
        new.replace(path)


def ended() -> list[dict[str, Any]]:
    """Engines that were ended without being asked to, the last first: ``{label, bytes, why, at}``."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        found = [json.loads(line) for line in (folder() / _ENDED).read_text().splitlines()]
    return found[::-1]


def alive(record: dict[str, Any]) -> bool:
    return process.alive(record.get("pid"), record.get("started"))
