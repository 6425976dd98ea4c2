"""Whose things a call may see."""

from __future__ import annotations

from studio import settings
from studio.errors import StudioError

NOBODY = "(nobody)"  # no Hub name has brackets


def scope(owner: str | None) -> str | None:
    """``None`` (everything) off Spaces; on a Space the person, or ``NOBODY`` for a visitor who is not signed in."""
    return NOBODY if owner is None and settings.on_space() else owner


def signed_in(owner: str | None) -> str | None:
    """The person something is made for.

    Raises:
        StudioError: a visitor of a Space who is not signed in.
    """
    if scope(owner) == NOBODY:
        raise StudioError("This needs you to be signed in.", "Press 'Sign in with Hugging Face' and try again.")
    return owner
