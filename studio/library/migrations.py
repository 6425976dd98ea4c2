"""The workspace database, step by step: an ordered list of functions, each applied once and its name recorded.

Add a step at the end; never change or reorder one that was released. SQL only: a migration must do tomorrow what it
did yesterday, whatever the models of the day look like.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection

from studio.errors import StudioError


def m001_runs(db: Connection) -> None:
    db.exec_driver_sql("""
        CREATE TABLE runs (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, method TEXT NOT NULL, name TEXT NOT NULL DEFAULT '',
            state TEXT NOT NULL, position REAL NOT NULL, recipe TEXT NOT NULL, owner TEXT,
            created REAL NOT NULL, started REAL, ended REAL,
            attempt INTEGER NOT NULL DEFAULT 1, resume INTEGER NOT NULL DEFAULT 0,
            exit_code INTEGER, signal INTEGER, reason TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '',
            field TEXT, summary TEXT NOT NULL DEFAULT '{}', threads INTEGER,
            pid INTEGER, pid_started REAL, slot INTEGER)""")
    db.exec_driver_sql("CREATE INDEX runs_state ON runs (state, position)")
    db.exec_driver_sql("CREATE INDEX runs_created ON runs (created)")


def m002_library(db: Connection) -> None:
    db.exec_driver_sql("""
        CREATE TABLE artifacts (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL UNIQUE, path TEXT NOT NULL, run_id TEXT,
            owner TEXT, created REAL NOT NULL, size INTEGER NOT NULL DEFAULT 0, meta TEXT NOT NULL DEFAULT '{}')""")
    db.exec_driver_sql("CREATE INDEX artifacts_run ON artifacts (run_id, path)")
    db.exec_driver_sql("""
        CREATE TABLE parents (
            child_id TEXT NOT NULL REFERENCES artifacts (id) ON DELETE CASCADE,
            ref TEXT NOT NULL, role TEXT NOT NULL, PRIMARY KEY (child_id, ref, role))""")
    db.exec_driver_sql("CREATE INDEX parents_ref ON parents (ref)")


def m003_chats(db: Connection) -> None:
    db.exec_driver_sql("""
        CREATE TABLE chats (
            id TEXT PRIMARY KEY, title TEXT NOT NULL, owner TEXT, created REAL NOT NULL, updated REAL NOT NULL,
            data TEXT NOT NULL)""")
    db.exec_driver_sql("CREATE INDEX chats_updated ON chats (updated)")


def m004_children(db: Connection) -> None:
    db.exec_driver_sql("ALTER TABLE runs ADD COLUMN parent TEXT")
    db.exec_driver_sql("ALTER TABLE runs ADD COLUMN tag TEXT NOT NULL DEFAULT ''")
    db.exec_driver_sql("CREATE INDEX runs_parent ON runs (parent, created)")


def m005_backend(db: Connection) -> None:
    db.exec_driver_sql("ALTER TABLE runs ADD COLUMN backend TEXT NOT NULL DEFAULT '{\"name\": \"local\"}'")


def m006_battles(db: Connection) -> None:
    db.exec_driver_sql("""
        CREATE TABLE battles (
            id TEXT PRIMARY KEY, created REAL NOT NULL, voter TEXT, source TEXT NOT NULL DEFAULT '',
            prompt TEXT NOT NULL, digest TEXT NOT NULL, tag TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT '{}',
            a TEXT NOT NULL, b TEXT NOT NULL, a_answer TEXT NOT NULL DEFAULT '{}', b_answer TEXT NOT NULL DEFAULT '{}',
            state TEXT NOT NULL, vote TEXT, voted REAL)""")
    db.exec_driver_sql("CREATE INDEX battles_voted ON battles (voted)")
    db.exec_driver_sql("CREATE INDEX battles_voter ON battles (voter, created)")


MIGRATIONS: list[Callable[[Connection], None]] = [
    m001_runs,
    m002_library,
    m003_chats,
    m004_children,
    m005_backend,
    m006_battles,
]


def apply(db: Connection) -> list[str]:
    """Bring the database up to date inside the caller's transaction; returns the names applied now.

    Raises:
        StudioError: if the database was made by a newer studio.
    """
    db.exec_driver_sql("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied REAL NOT NULL)")
    done = {row[0] for row in db.exec_driver_sql("SELECT name FROM migrations")}
    if unknown := done - {step.__name__ for step in MIGRATIONS}:
        raise StudioError(f"This workspace was made by a newer studio (it has {sorted(unknown)[0]}).",
                          "Update the studio, or choose another workspace with STUDIO_HOME.")
    fresh = [step for step in MIGRATIONS if step.__name__ not in done]
    for step in fresh:
        step(db)
        db.exec_driver_sql("INSERT INTO migrations VALUES (?, ?)", (step.__name__, time.time()))
    return [step.__name__ for step in fresh]
