"""Chat engines and the history of conversations."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in


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

    check_owner(ref, scope(owner), "model")
    found = manager.engine_for(ref)
    return {"base_url": found.base_url, "model": found.model, "key": found.key}


def unload(ref: str) -> bool:
    """End the engine of a model and free its memory. False if none was running."""
    from studio.chat import manager

    return manager.unload(ref)


def chat_save(data: dict[str, Any], id: str | None = None, title: str = "",
              owner: str | None = None) -> dict[str, Any]:
    """Store a conversation: ``{id, title, owner, created, updated, data}``; with ``id``, in place of the old one.

    Raises:
        StudioError: too large, or unknown ``id``.
    """
    from studio.library import chats

    return chats.save(data, id, title, signed_in(owner))


def chat_list(owner: str | None = None, query: str = "") -> list[dict[str, Any]]:
    """``{id, title, created, updated}`` of the stored conversations that hold ``query``, the last used first."""
    from studio.chat import history

    return history.search(query, scope(owner))


def chat_load(id: str, owner: str | None = None) -> dict[str, Any]:
    """One stored conversation.

    Raises:
        StudioError: there is none.
    """
    from studio.library import chats

    return chats.load(id, scope(owner))


def chat_delete(id: str, owner: str | None = None) -> None:
    """Remove a stored conversation.

    Raises:
        StudioError: there is none.
    """
    from studio.library import chats

    chats.delete(id, scope(owner))


def chat_rename(id: str, title: str, owner: str | None = None) -> None:
    """Give a conversation another title.

    Raises:
        StudioError: there is none, or the title is empty.
    """
    from studio.chat import history

    history.rename(id, title, scope(owner))


def chat_ask(id: str | None, setup: dict[str, Any], text: str, owner: str | None = None,
             images: list[str] | None = None) -> dict[str, Any]:
    """Put one message to every column of a conversation (``None``: a new one) and start the answers; ``images`` are
    pictures that go with it, as ``data:`` addresses.

    Raises:
        StudioError: nothing to ask, no model chosen, bad settings.
    """
    from studio.chat import live

    return live.ask(id, setup, text, signed_in(owner), images)


def chat_retry(id: str, column: str, setup: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """Answer the last message of one column again.

    Raises:
        StudioError: no such column, or its answer is still coming.
    """
    from studio.chat import live

    return live.retry(id, column, setup, scope(owner))


def chat_edit(id: str, column: str, index: int, text: str, setup: dict[str, Any],
              owner: str | None = None) -> dict[str, Any]:
    """Change message ``index`` and answer anew from there, in every column that was asked the same.

    Raises:
        StudioError: no such message, or an answer is still coming.
    """
    from studio.chat import live

    return live.edit(id, column, index, text, setup, scope(owner))


def chat_branch(id: str, column: str, index: int, owner: str | None = None) -> dict[str, Any]:
    """A new conversation that holds this one up to message ``index`` of a column.

    Raises:
        StudioError: no such message, or an answer is still coming.
    """
    from studio.chat import past

    return past.branch(id, column, index, signed_in(owner))


def chat_choose(id: str, column: str, index: int, which: int, owner: str | None = None) -> dict[str, Any]:
    """Put another of the answers that were given to one question in its place.

    Raises:
        StudioError: no such answer, or one is still coming.
    """
    from studio.chat import past

    return past.choose(id, column, index, which, scope(owner))


def chat_export(id: str, form: str, owner: str | None = None) -> dict[str, str]:
    """A conversation as a file, ``{name, text}``: ``markdown``, ``json``, or ``jsonl`` as training rows.

    Raises:
        StudioError: no such conversation or form, or nothing was answered.
    """
    from studio.chat import past

    return past.export(id, form, scope(owner))


def chat_rows(id: str, columns: list[str] | None = None, thoughts: bool = False, owner: str | None = None) -> dict[str, Any]:
    """What was answered in a conversation as a file of training rows: ``{ref, name, rows}``.

    Raises:
        StudioError: no such conversation, or nothing was answered.
    """
    from studio.chat import past

    return past.rows(id, columns, thoughts, signed_in(owner))


def chat_setup(id: str, setup: dict[str, Any], owner: str | None = None) -> None:
    """Store the columns and settings of a conversation.

    Raises:
        StudioError: there is none, or bad settings.
    """
    from studio.chat import live

    live.setup(id, setup, scope(owner))


def chat_stop(id: str, column: str | None = None, owner: str | None = None) -> None:
    """End the answers that are coming, all or of one column.

    Raises:
        StudioError: there is no such conversation.
    """
    from studio.chat import live

    live.stop(id, column, scope(owner))


def chat_open(id: str, owner: str | None = None) -> dict[str, Any]:
    """A conversation with the answers that are coming: ``{id, title, updated, data, running}``.

    Raises:
        StudioError: there is none.
    """
    from studio.chat import live

    return live.load(id, scope(owner))


def chat_poll(id: str, seen: dict[str, int], owner: str | None = None) -> dict[str, Any]:
    """News of the answers that are coming, by column; ``seen`` says how many characters of each are known."""
    from studio.chat import live

    return live.poll(id, seen, scope(owner))


def chat_settings() -> dict[str, Any]:
    """Defaults and bounds of the sampling settings: ``{"defaults": {name: value}, "limits": {name: [low, high]}}``."""
    from studio.chat import session

    return {"defaults": session.DEFAULTS, "limits": {name: list(pair) for name, pair in session.LIMITS.items()}}
