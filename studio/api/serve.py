"""Memory of engines before they are loaded, and models that are served to other programs."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in


def engine_needs(ref: str, owner: str | None = None) -> dict[str, Any]:
    """Memory that loading a model will take; see :func:`studio.chat.needs.needs`.

    Raises:
        StudioError: unknown model, or another person's.
    """
    from studio.chat import address, needs
    from studio.library.refs import check_owner

    if not address.is_address(ref):
        check_owner(ref, scope(owner), "model")
    return needs.needs(ref)


def engine_load(ref: str, owner: str | None = None) -> None:
    """Start the engine of a model without waiting for it; :func:`studio.api.engines` shows how it gets on.

    Raises:
        StudioError: unknown model, another person's, or no memory for it.
    """
    from studio.chat import address, manager
    from studio.library.refs import check_owner

    if not address.is_address(ref):
        check_owner(ref, scope(owner), "model")
        next(manager.opening(ref), None)


def engines_ended() -> list[dict[str, Any]]:
    """Engines that were ended without being asked to, the last first: ``{label, bytes, why, at}``; ``why`` is ``idle``, ``room`` (for
    another engine) or ``run:ID``."""
    from studio.chat import records

    return records.ended()


def serve_start(ref: str, name: str = "", port: int = 0, host: str = "127.0.0.1", owner: str | None = None) -> dict[str, Any]:
    """Serve a model to other programs; see :func:`studio.chat.serving.start`. The key is in the reply, and nowhere in a list.

    Raises:
        StudioError: unknown model, another person's, or a name, port or host that cannot be.
    """
    from studio.chat import address, serving
    from studio.library.refs import check_owner

    if not address.is_address(ref):
        check_owner(ref, scope(owner), "model")
    return serving.start(ref, name, port, host, signed_in(owner))


def serve_list(owner: str | None = None) -> list[dict[str, Any]]:
    """Models that are served, or were until they ended by themselves; see :func:`studio.chat.serving.listed`."""
    from studio.chat import serving

    return serving.listed(scope(owner))


def serve_key(id: str, owner: str | None = None) -> str:
    """The key of a served model.

    Raises:
        StudioError: it is not served.
    """
    from studio.chat import serving

    return serving.key(id, scope(owner))


def serve_snippets(id: str, owner: str | None = None) -> dict[str, str]:
    """How other programs ask a served model: ``{curl, python, openai}``, without its key.

    Raises:
        StudioError: it is not served.
    """
    from studio.chat import serving

    return serving.snippets(id, scope(owner))


def serve_stop(id: str, owner: str | None = None) -> None:
    """Stop serving a model.

    Raises:
        StudioError: it is not served.
    """
    from studio.chat import serving

    serving.stop(id, scope(owner))
