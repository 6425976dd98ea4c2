"""The queue: one row a run, shared by every process of the workspace.

Each change is one write transaction that reads the present state first, so two processes cannot both make it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from studio import settings
from studio.errors import StudioError
from studio.jobs import backends, events, memory
from studio.jobs.model import ACTIVE, FINAL, LIGHT_KINDS, ORCHESTRATORS, RESUMABLE, State, check
from studio.library.database import reading, writing
from studio.recipe import Recipe

metadata = sa.MetaData()
runs = sa.Table(
    "runs", metadata,
    sa.Column("id", sa.Text, primary_key=True), sa.Column("kind", sa.Text), sa.Column("method", sa.Text),
    sa.Column("name", sa.Text), sa.Column("state", sa.Text), sa.Column("position", sa.Float),
    sa.Column("recipe", sa.JSON), sa.Column("owner", sa.Text),
    sa.Column("created", sa.Float), sa.Column("started", sa.Float), sa.Column("ended", sa.Float),
    sa.Column("attempt", sa.Integer), sa.Column("resume", sa.Boolean), sa.Column("exit_code", sa.Integer),
    sa.Column("signal", sa.Integer), sa.Column("reason", sa.Text), sa.Column("hint", sa.Text),
    sa.Column("field", sa.Text), sa.Column("summary", sa.JSON), sa.Column("threads", sa.Integer),
    sa.Column("pid", sa.Integer), sa.Column("pid_started", sa.Float), sa.Column("slot", sa.Integer),
    sa.Column("parent", sa.Text), sa.Column("tag", sa.Text), sa.Column("backend", sa.JSON))

_ATTEMPT_FILES = ("exit.json", "result.json", "stop", "guardian.json", "launch.json", "heartbeat")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_id() -> str:
    """``r`` and ten random base32 letters."""
    return "r" + "".join(secrets.choice(_ALPHABET) for _ in range(10))


def submit(recipe: Recipe, owner: str | None = None, parent: str | None = None, tag: str = "",
           backend: dict[str, Any] | None = None) -> dict[str, Any]:
    """Put a checked recipe at the end of the queue; returns the run.

    Args:
        parent: The run that starts this one and waits for it; see :mod:`studio.jobs.children`.
        tag: What it is to its parent, e.g. ``trial 3``.
        backend: Where it computes, checked by :func:`studio.jobs.backends.check`; this machine if left out.

    Raises:
        StudioError: if the workspace cannot be written.
    """
    run_id = new_id()
    folder = settings.run_dir(run_id)
    try:
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")
    except OSError as err:
        shutil.rmtree(folder, ignore_errors=True)
        raise StudioError(f"The run cannot be stored in {folder}: {err.strerror}.", "Free some disk space.") from err
    with writing() as db:  # the row comes last: whoever claims it finds the recipe
        db.execute(runs.insert().values(
            id=run_id, kind=recipe.kind, method=recipe.method, name=recipe.name, state=State.QUEUED,
            position=_last_position(db) + 1, recipe=recipe.to_dict(), owner=owner, created=time.time(), attempt=1,
            resume=False, reason="", hint="", summary={}, parent=parent, tag=tag,
            backend=backend or backends.LOCAL))
    events.append(folder / "events.jsonl", "state", state=State.QUEUED)
    return get(run_id)


def get(run_id: str) -> dict[str, Any]:
    """One run as plain values.

    Raises:
        StudioError: if there is none.
    """
    settings.run_dir(run_id)
    with reading() as db:
        return _row(db, run_id)


def find(kind: str | None = None, owner: str | None = None, states: list[str] | None = None,
         limit: int = 200, parent: str | None = None) -> list[dict[str, Any]]:
    """Runs, the newest first; ``owner=None`` means everybody's.

    Args:
        parent: Only the children of this run; ``""``: only runs that are nobody's child, and how many ``children``
            each has.
    """
    child = runs.alias()
    count = sa.select(sa.func.count()).where(child.c.parent == runs.c.id).scalar_subquery().label("children")
    query = sa.select(runs, *[count] * (parent == "")).order_by(runs.c.created.desc(), runs.c.id).limit(limit)
    if kind is not None:
        query = query.where(runs.c.kind == kind)
    if owner is not None:
        query = query.where(runs.c.owner == owner)
    if states is not None:
        query = query.where(runs.c.state.in_([str(s) for s in states]))
    if parent is not None:
        query = query.where(runs.c.parent == parent if parent else runs.c.parent.is_(None))
    with reading() as db:
        return [dict(row) for row in db.execute(query).mappings()]


def queue() -> list[dict[str, Any]]:
    """Queued runs in the order in which they will start."""
    with reading() as db:
        return [dict(row) for row in db.execute(_queued()).mappings()]


def active() -> list[dict[str, Any]]:
    """Runs that are starting, running or stopping, the oldest first."""
    query = sa.select(runs).where(runs.c.state.in_(sorted(ACTIVE))).order_by(runs.c.started)
    with reading() as db:
        return [dict(row) for row in db.execute(query).mappings()]


def claim(slots: int, light_slots: int = 2, orchestrators: int = 4, couriers: int = 8) -> dict[str, Any] | None:
    """Take the next queued run that has a free slot and make it ``starting``; ``None`` if there is none.

    One immediate transaction counts what is active and marks the winner: of many callers exactly one gets a run.

    Args:
        slots: Runs that may compute at once.
        light_slots: Light runs beside them.
        orchestrators: Runs that only wait for others; slots of their own, else they would keep out what they wait for.
        couriers: Runs that compute on another machine; here they only take what comes home.
    """
    with writing() as db:
        busy = db.execute(sa.select(runs.c.kind, runs.c.backend, runs.c.slot, runs.c.recipe)
                          .where(runs.c.state.in_(sorted(ACTIVE)))).mappings().all()
        used = [_lane(row) for row in busy]
        room = {lane: most - used.count(lane)
                for lane, most in (("light", light_slots), ("orchestrator", orchestrators), ("courier", couriers))}
        taken = {row["slot"] + more for row in busy if _lane(row) == "compute" for more in range(width(row, slots))}
        full = False  # the next run to compute has to wait; those behind it do not overtake, else a wide one starves
        for row in db.execute(_queued()).mappings():
            slot = None
            if _lane(row) == "compute":
                slot = None if full else _free(taken, width(row, slots), slots)
                if full := slot is None:
                    continue
            elif room[_lane(row)] <= 0:
                continue
            db.execute(runs.update().where(runs.c.id == row["id"]).values(
                state=State.STARTING, started=time.time(), ended=None, slot=slot, pid=None, pid_started=None))
            return _row(db, row["id"])
    return None


def width(row: Any, slots: int) -> int:
    """How many neighbouring slots a run takes: a GPU for each of its processes, and one where there are no more."""
    return max(1, min(slots, int((row["recipe"] or {}).get("num_processes") or 1)))


def _free(taken: set[int], wide: int, slots: int) -> int | None:
    """The first of ``wide`` free neighbours, or ``None``."""
    if len(taken) + wide > slots:
        return None
    fits = (n for n in range(slots - wide + 1) if not taken & set(range(n, n + wide)))
    return next(fits, None)


def move(run_id: str, state: str, **values: Any) -> bool:
    """Change a run's state (and other columns with it). False if it has that state already.

    Raises:
        IllegalTransition: if the model does not allow it.
    """
    with writing() as db:
        old = _row(db, run_id)["state"]
        if old == state:
            return False
        check(old, state)
        db.execute(runs.update().where(runs.c.id == run_id).values(state=state, **values))
        return True


def note(run_id: str, **values: Any) -> None:
    """Set columns other than the state."""
    with writing() as db:
        db.execute(runs.update().where(runs.c.id == run_id).values(**values))


def close(run_id: str, state: str, attempt: int | None = None, **values: Any) -> bool:
    """Give an active run its final state. False if another process did so before, which is no error.

    Args:
        attempt: The one that is over. Meanwhile another process may have closed it and a person may have resumed the run.
    """
    with writing() as db:
        row = _row(db, run_id)
        if row["state"] not in ACTIVE or attempt not in (None, row["attempt"]):
            return False
        if row["state"] == State.STARTING and state == State.SUCCEEDED:
            row["state"] = State.RUNNING  # over before anybody saw it run
        check(row["state"], state)
        db.execute(runs.update().where(runs.c.id == run_id).values(
            state=state, slot=None, ended=values.pop("ended", None) or time.time(), **values))
        return True


def stop_queued(run_id: str) -> bool:
    """Take a run out of the queue; False if it is not queued (any more)."""
    with writing() as db:
        if _row(db, run_id)["state"] != State.QUEUED:
            return False
        db.execute(runs.update().where(runs.c.id == run_id).values(
            state=State.STOPPED, ended=time.time(), reason="Stopped before it started.", hint=""))
        return True


def resume(run_id: str, backend: dict[str, Any] | None = None,
           change: dict[str, Any] | None = None) -> dict[str, Any]:
    """Queue a stopped, failed or lost run again; it goes on from its newest complete checkpoint.

    Args:
        backend: Another place for it, checked; left out, where it was.
        change: Fields of its recipe with other values, of those that it was offered when memory ran out.

    Raises:
        StudioError: if it is not over, or succeeded; or for a change that was not offered.
    """
    with writing() as db:
        row = _row(db, run_id)
        if row["state"] not in RESUMABLE:
            raise StudioError(f"This run is {row['state']}; only a stopped, failed or lost run can be resumed.",
                              "Start a new run from its result instead." if row["state"] == State.SUCCEEDED else "")
        offered = (row["summary"] or {}).get("offer") or {}
        if change and change != offered:
            raise StudioError("A run that is resumed takes only the setting it was offered.",
                              "For other settings start a new run from its newest checkpoint.")
        try:
            recipe = memory.rewrite(settings.run_dir(run_id), change).to_dict() if change else row["recipe"]
        except OSError as err:
            raise StudioError(f"The recipe could not be written: {err.strerror}.", "Free some disk space.") from err
        _archive(settings.run_dir(run_id), row["attempt"])
        db.execute(runs.update().where(runs.c.id == run_id).values(
            state=State.QUEUED, resume=True, attempt=row["attempt"] + 1, position=_last_position(db) + 1,
            started=None, ended=None, exit_code=None, signal=None, reason="", hint="", field=None, pid=None,
            pid_started=None, backend=backend or row["backend"], recipe=recipe,
            summary={key: value for key, value in (row["summary"] or {}).items() if key != "offer"}))
        row = _row(db, run_id)
    events.append(settings.run_dir(run_id) / "events.jsonl", "state", state=State.QUEUED)
    return row


def reorder(run_id: str, before_id: str | None = None) -> None:
    """Move a queued run in front of another queued one, or to the end.

    Raises:
        StudioError: if either is not queued.
    """
    with writing() as db:
        order = [row["id"] for row in db.execute(_queued()).mappings()]
        for wanted in (run_id, before_id):
            if wanted is not None and wanted not in order:
                raise StudioError("Only runs that wait in the queue can be moved.", "It may have started meanwhile.")
        if run_id == before_id:
            return
        order.remove(run_id)
        order.insert(order.index(before_id) if before_id else len(order), run_id)
        base = _last_position(db)
        for number, queued in enumerate(order, 1):
            db.execute(runs.update().where(runs.c.id == queued).values(position=base + number))


def remove(run_id: str) -> None:
    """Delete a run that is over or queued, with its folder.

    Raises:
        StudioError: if it is active.
    """
    with writing() as db:
        if _row(db, run_id)["state"] in ACTIVE:
            raise StudioError("This run is still going.", "Stop it first.")
        db.execute(runs.delete().where(runs.c.id == run_id))
    shutil.rmtree(settings.run_dir(run_id), ignore_errors=True)


def is_final(state: str) -> bool:
    return state in FINAL


def _lane(row: Any) -> str:
    kind = row["kind"]
    if backends.remote(row["backend"]):
        return "courier"
    return "light" if kind in LIGHT_KINDS else "orchestrator" if kind in ORCHESTRATORS else "compute"


def _queued() -> sa.Select:
    return sa.select(runs).where(runs.c.state == State.QUEUED).order_by(runs.c.position, runs.c.created, runs.c.id)


def _last_position(db: sa.Connection) -> float:
    return db.execute(sa.select(sa.func.max(runs.c.position))).scalar() or 0.0


def _row(db: sa.Connection, run_id: str) -> dict[str, Any]:
    row = db.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().first()
    if row is None:
        raise StudioError(f"There is no run {run_id}.", "It may have been removed; see the list of runs.")
    return dict(row)


def _archive(folder: Path, attempt: int) -> None:
    """Put the files that belong to one attempt aside, so that the next one is not judged by them."""
    for name in _ATTEMPT_FILES:
        path = folder / name
        if path.exists():
            os.replace(path, folder / f"{path.stem}.attempt-{attempt}{path.suffix}")
