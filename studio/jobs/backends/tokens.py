"""Hub tokens of people who signed in to a Space: kept in the memory of its server only, while they are valid."""

from __future__ import annotations

import os
import time
from typing import Any

from studio import hub, settings

_held: dict[str, tuple[str, float]] = {}  # owner -> (token, when it ends)


def keep(owner: str | None, token: str | None, ends: float = 0.0) -> None:
    """Remember the token of a person who is here just now."""
    if owner and token:
        _held[owner] = token, ends or time.time() + 3600


def of(owner: str | None) -> str | None:
    """The token to act with for a person: their own on a Space, elsewhere the one this machine is logged in with."""
    if not settings.on_space():
        return hub.token()
    token, ends = _held.get(owner or "", (None, 0.0))
    return token if time.time() < ends else None


def environment(run: dict[str, Any]) -> dict[str, str]:
    """What the courier of a run is given: on a Space the token of its owner, never that of the Space."""
    if not settings.on_space():
        return {}
    return {"ATELIER_HF_TOKEN": of(run["owner"]) or ""}


def mine() -> str | None:
    """The token this courier may act with."""
    return os.environ["ATELIER_HF_TOKEN"] or None if "ATELIER_HF_TOKEN" in os.environ else hub.token()
