"""Who is told when a run ends, and how."""

from __future__ import annotations

from typing import Any

from studio.api.who import signed_in


def notify_settings(owner: str | None = None) -> dict[str, Any]:
    """What is set, without secrets; see :func:`studio.notify.shown`.

    Raises:
        StudioError: a visitor of a Space who is not signed in.
    """
    from studio import notify

    return notify.shown(signed_in(owner))


def notify_save(values: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """Change some of ``webhook``, ``to``, ``host``, ``port``, ``user``, ``starttls``; what is not named stays.

    Raises:
        StudioError: naming the field that cannot be used.
    """
    from studio import notify

    return notify.save(values, signed_in(owner))


def notify_test(owner: str | None = None) -> dict[str, Any]:
    """Send a test message at once; ``{"sent": ["webhook", "email"]}``.

    Raises:
        StudioError: nothing is set, or it did not arrive; in plain words and without the address.
    """
    from studio import notify

    return notify.test(signed_in(owner))
