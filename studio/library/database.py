"""One SQLite file for the workspace, shared by every UI, CLI and guardian process.

``reading()`` and ``writing()`` give a SQLAlchemy connection. A write transaction takes SQLite's write lock at its
start (``BEGIN IMMEDIATE``), so what it reads stays true until it commits, also across processes. Connections are not kept:
processes fork here, and a SQLite handle must not cross a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from studio import settings
from studio.errors import StudioError
from studio.library import migrations

_BUSY_MS = 30_000
_engines: dict[tuple[str, int], Engine] = {}
_lock = threading.Lock()


def journal_mode(path: Path) -> str:
    """WAL, but not on a Space's mounted bucket (``/data``), where WAL's shared memory file does not work."""
    return "DELETE" if path.is_relative_to("/data") else "WAL"


def _make(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": _BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def _connect(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None  # the driver starts no transaction of its own
        raw.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        raw.execute("PRAGMA synchronous=NORMAL")
        raw.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(db: Connection) -> None:
        db.exec_driver_sql("BEGIN IMMEDIATE" if db.get_execution_options().get("immediate") else "BEGIN")

    return engine


def engine() -> Engine:
    """The engine of the current workspace, migrated.

    Raises:
        StudioError: if the file is not a readable database, or a newer studio's.
    """
    path = settings.database()
    key = (str(path), os.getpid())
    with _lock:
        made = _engines.get(key)
        if made is not None and path.exists():
            return made
        made = _make(path)
        try:
            _set_journal(path)
            with made.connect().execution_options(immediate=True) as db, db.begin():
                migrations.apply(db)
        except (DatabaseError, sqlite3.DatabaseError) as err:
            reason = getattr(err, "orig", None) or err
            raise StudioError(f"The workspace database {path} cannot be used: {reason}.",
                              "Free disk space or fix its rights; if it is damaged, move it away.") from err
        _engines[key] = made
        return made


def _set_journal(path: Path) -> None:
    """The mode is stored in the file, so it is set once; the call needs the file to itself for a moment."""
    raw = sqlite3.connect(path, timeout=_BUSY_MS / 1000)
    try:
        mode = journal_mode(path)
        if raw.execute("PRAGMA journal_mode").fetchone()[0].upper() != mode:
            raw.execute(f"PRAGMA journal_mode={mode}")
    except sqlite3.OperationalError as err:
        if "locked" not in str(err):
            raise  # another process is setting the same mode at this moment
    finally:
        raw.close()


@contextmanager
def reading() -> Iterator[Connection]:
    """A connection for queries; sees one consistent state."""
    with engine().connect() as db:
        yield db


@contextmanager
def writing() -> Iterator[Connection]:
    """A write transaction, committed at the end and rolled back on an exception.

    Raises:
        StudioError: if the disk is full or the database cannot be written.
    """
    try:
        with engine().connect().execution_options(immediate=True) as db, db.begin():
            yield db
    except OperationalError as err:
        raise StudioError(f"The workspace database cannot be written: {err.orig}.",
                          "Free disk space, and check that the workspace folder is yours.") from err
