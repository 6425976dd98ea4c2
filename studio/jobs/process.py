"""Which processes are ours. A pid is believed only together with the start time of its process."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

_SAME = 2.0  # seconds; psutil derives start times from the boot time, which the clock's corrections move a little


def started(pid: int | None = None) -> float:
    """Start time (unix seconds) of a process, by default of this one.

    Raises:
        psutil.NoSuchProcess: if it is gone.
    """
    return psutil.Process(pid or os.getpid()).create_time()


def alive(pid: int | None, began: float | None) -> bool:
    """True if the process that had ``pid`` at ``began`` still runs. A zombie is dead, a reused pid is another's."""
    if not pid or not began:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - began) < _SAME and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal the process group that ``pid`` leads: a worker with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def group_alive(pid: int) -> bool:
    """True while any process of the group is left (zombies included)."""
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
