"""Runs that a run starts: the trials of a sweep, the steps of a flow. To the queue they are runs like any other.

The parent's worker submits children and looks after them; it holds no compute slot, so it never blocks what it waits
for.

* Stop: the parent asks its children to stop, waits until they have, and ends.
* A parent that ends in any other way (killed, failed, lost) takes its children along: the process that closes its row
  stops them first, with a checkpoint (``supervisor.close``). Nobody trains on for a judge who is gone.
* Resume: the parent adopts what exists. Finished children stay as they are, stopped and lost ones go on from
  their checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from studio.errors import StudioError
from studio.jobs import store, supervisor
from studio.jobs.model import ACTIVE, FINAL, State

LOOK = 0.4  # seconds between two looks at the children


def submit(parent: Any, values: dict[str, Any], tag: str = "") -> str:
    """Check a recipe and queue it as a child; returns its id.

    Args:
        parent: Id of the parent, or the context of its worker.
        values: Plain values of a recipe.
        tag: What it is to the parent, e.g. ``trial 3``; the parent knows it again by this after a resume.

    Raises:
        StudioError: the recipe is refused, as when a person starts it.
    """
    from studio.api.recipes import checked

    row = store.get(_id(parent))
    return store.submit(checked(values, row["owner"]), row["owner"], parent=row["id"], tag=tag)["id"]


def of(parent: Any) -> list[dict[str, Any]]:
    """The children of a run, the oldest first."""
    return store.find(parent=_id(parent), limit=100_000)[::-1]


def adopt(parent: Any, again: Callable[[dict[str, Any]], bool] | None = None) -> list[dict[str, Any]]:
    """The children of a parent that was resumed, the oldest first; those for which ``again`` holds are queued again.

    Args:
        again: Of a child that is over; left out, whether it was stopped or lost.
    """
    leaving = [row["id"] for row in of(parent) if row["state"] == State.STOPPING]
    for _ in watch(leaving):
        pass  # told to stop with the parent; its checkpoint comes first
    for row in of(parent):
        wanted = again(row) if again else row["state"] in (State.STOPPED, State.LOST)
        if row["state"] in FINAL and wanted:
            store.resume(row["id"])
    return of(parent)


def watch(ids: Sequence[str], every: float = LOOK) -> Iterator[dict[str, dict[str, Any]]]:
    """Look at some runs again and again until all are over, and move the queue on meanwhile, with no studio open too.

    Yields:
        id -> row. A run that somebody removed is missing. ``ids`` may grow and shrink between two looks.
    """
    mover = supervisor.Supervisor(warm=False)
    while ids:
        mover.tick()
        asked, found = set(ids), {}
        for run_id in asked:
            try:
                found[run_id] = store.get(run_id)
            except StudioError:
                continue  # removed while it waited in the queue
        yield found
        going = {run_id for run_id, row in found.items() if not store.is_final(row["state"])}
        if not going.intersection(ids) and asked.issuperset(ids):
            return
        if asked.issuperset(ids):  # else something was just queued: the next look lets it start at once
            time.sleep(every)


def stop(ids: Sequence[str], reason: str = "") -> None:
    """Ask runs to stop; those that are over stay as they are."""
    for run_id in ids:
        try:
            if store.get(run_id)["state"] in (State.QUEUED, *ACTIVE):
                supervisor.stop(run_id, reason=reason)
        except StudioError:
            continue  # removed meanwhile


def _id(parent: Any) -> str:
    return parent if isinstance(parent, str) else parent.run_id
