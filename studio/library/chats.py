"""Chat history of the workspace: whole conversations as the Chat tab stores them."""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import insert, select, update

from studio.errors import StudioError
from studio.library.artifacts import new_id
from studio.library.database import reading, writing
from studio.library.tables import chats as table

MAX_BYTES = 8 * 1024 * 1024


def save(data: dict[str, Any], chat_id: str | None = None, title: str = "", owner: str | None = None) -> dict[str, Any]:
    """Store a conversation, new or in place of ``chat_id``.

    Args:
        data: Whatever the page needs to show it again, plain values.
        title: Shown in the list; empty takes the first words that were typed.

    Raises:
        StudioError: larger than 8 MB, not plain values, or another person's chat.
    """
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as err:
        raise StudioError("This conversation cannot be stored.", "Start a new one.") from err
    if len(text) > MAX_BYTES:
        raise StudioError("This conversation is too long to be stored (over 8 MB).", "Start a new one.")
    now = time.time()
    if chat_id:
        old = load(chat_id, owner)
        with writing() as db:
            db.execute(update(table).where(table.c.id == chat_id)
                       .values(data=data, title=_title(title) or old["title"], updated=now))
        return load(chat_id, owner)
    made = new_id("c")
    with writing() as db:
        db.execute(insert(table).values(id=made, title=_title(title) or _first_words(data) or "Chat", owner=owner,
                                        created=now, updated=now, data=data))
    return load(made, owner)


def listed(owner: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """``{id, title, created, updated}`` of the conversations, the last used first."""
    query = select(table.c.id, table.c.title, table.c.created, table.c.updated).order_by(table.c.updated.desc())
    if owner is not None:
        query = query.where(table.c.owner == owner)
    with reading() as db:
        return [dict(row) for row in db.execute(query.limit(limit)).mappings()]


def load(chat_id: str, owner: str | None = None) -> dict[str, Any]:
    """One conversation with its ``data``.

    Raises:
        StudioError: if there is none, or it is another person's.
    """
    query = select(table).where(table.c.id == str(chat_id))
    if owner is not None:
        query = query.where(table.c.owner == owner)
    with reading() as db:
        row = db.execute(query).mappings().first()
    if row is None:
        raise StudioError("That conversation is not there any more.", "Pick another from the list.")
    return dict(row)


def delete(chat_id: str, owner: str | None = None) -> None:
    """Remove a conversation.

    Raises:
        StudioError: if there is none, or it is another person's.
    """
    load(chat_id, owner)
    with writing() as db:
        db.execute(sql_delete(table).where(table.c.id == chat_id))


def _title(text: str) -> str:
    return " ".join(str(text).split())[:80]


def _first_words(value: Any) -> str:
    """The first thing a person said in it, wherever the page keeps it."""
    if isinstance(value, dict):
        if value.get("role") == "user" and isinstance(value.get("content"), str):
            return _title(value["content"])[:48]
        value = list(value.values())
    if isinstance(value, list):
        return next((words for item in value if (words := _first_words(item))), "")
    return ""
