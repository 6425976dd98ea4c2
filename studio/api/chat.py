"""Chat engines and the history of conversations."""

from __future__ import annotations

from typing import Any


def engines() -> list[dict[str, Any]]:
    """The engines that are loaded now."""
    from studio.chat import manager

    return manager.engines()


def engine_for(ref: str, owner: str | None = None) -> dict[str, Any]:
    """Address of an OpenAI-compatible engine serving a model, started if needed: ``{"base_url", "model", "key"}``.

    Raises:
        StudioError: unknown model, or an engine that cannot start.
    """
    from studio.chat import manager
    from studio.library.refs import check_owner

    check_owner(ref, owner, "model")
    found = manager.engine_for(ref)
    return {"base_url": found.base_url, "model": found.model, "key": found.key}


def unload(ref: str) -> bool:
    """End the engine of a model and free its memory. False if none was running."""
    from studio.chat import manager

    return manager.unload(ref)


def chat_save(data: dict[str, Any], id: str | None = None, title: str = "", owner: str | None = None) -> dict[str, Any]:
    """Store a conversation: ``{id, title, owner, created, updated, data}``; with ``id``, in place of the old one.

    Raises:
        StudioError: too large, or unknown ``id``.
    """
    from studio.library import chats

    return chats.save(data, id, title, owner)


def chat_list(owner: str | None = None) -> list[dict[str, Any]]:
    """``{id, title, created, updated}`` of the stored conversations, the last used first."""
    from studio.library import chats

    return chats.listed(owner)


def chat_load(id: str, owner: str | None = None) -> dict[str, Any]:
    """One stored conversation.

    Raises:
        StudioError: there is none.
    """
    from studio.library import chats

    return chats.load(id, owner)


def chat_delete(id: str, owner: str | None = None) -> None:
    """Remove a stored conversation.

    Raises:
        StudioError: there is none.
    """
    from studio.library import chats

    chats.delete(id, owner)
