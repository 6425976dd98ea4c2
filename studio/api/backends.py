"""Where a run may compute: what the form offers, and what a choice would mean before it is made."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in
from studio.errors import StudioError


def backends(name: str, owner: str | None = None) -> dict[str, Any]:
    """What a place other than this machine asks for: ``{name, title, summary, unavailable, install, fields}``.

    ``unavailable`` says why it cannot be chosen now, ``install`` what part is missing for it.

    Args:
        name: ``ray`` or ``hf_jobs``.

    Raises:
        StudioError: there is no such place.
    """
    from studio.jobs.backends import offer, tokens

    return offer(name, tokens.of(scope(owner)))


def backend_check(values: dict[str, Any], backend: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """What sending a recipe to a place would mean. Starts nothing.

    Returns:
        ``{"notes": [sentences], "cost": dollars at most or None, "size": bytes that are sent, "refused": None or
        {message, hint}}``.
    """
    from studio.api.recipes import own
    from studio.jobs.backends import notes, tokens
    from studio.recipe import parse

    found: dict[str, Any] = {"notes": [], "cost": None, "size": 0, "refused": None}
    try:
        recipe = parse(values)
        own(recipe, scope(owner))
        return found | notes(backend, recipe, tokens.of(scope(owner)))
    except StudioError as err:
        return found | {"refused": {"message": err.message, "hint": err.hint}}


def keep_token(owner: str | None, token: str | None, ends: float = 0.0) -> None:
    """Remember, in memory only, the Hub token of a person who signed in to this Space; their jobs run with it.

    Args:
        ends: When it ends, unix seconds.
    """
    from studio.jobs.backends import tokens

    tokens.keep(signed_in(owner), token, ends)
