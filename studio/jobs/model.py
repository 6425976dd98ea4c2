"""The states of a run and the only ways between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """``queued → starting → running → stopping → succeeded | failed | stopped | lost``."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


ACTIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.LOST})
RESUMABLE = frozenset({State.STOPPED, State.FAILED, State.LOST})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.STOPPED}),
    State.STARTING: frozenset({State.RUNNING, State.STOPPING, State.FAILED, State.STOPPED, State.LOST}),
    State.RUNNING: frozenset({State.STOPPING, *FINAL}),
    State.STOPPING: FINAL,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.STOPPED: frozenset({State.QUEUED}),
    State.LOST: frozenset({State.QUEUED}),
}

LIGHT_KINDS = ("setup", "publish", "data")  # on the processor at most: they may run beside a training
ORCHESTRATORS = ("sweep", "flow")  # start runs and wait for them; they compute nothing, so they hold no compute slot


class IllegalTransition(ValueError):
    """A change of state that the model does not know; always a bug of the caller or a lost race."""


def check(old: str, new: str) -> None:
    """
    Raises:
        IllegalTransition: unless ``old`` may become ``new``.
    """
    if State(new) not in TRANSITIONS[State(old)]:
        raise IllegalTransition(f"a run cannot go from {old} to {new}")
