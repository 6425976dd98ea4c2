"""Chats of the workspace, changed one column at a time, because all columns are written while they stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import String, cast, or_, select, update

from studio.errors import StudioError
from studio.library import chats
from studio.library.database import reading, writing
from studio.library.tables import chats as table


def change(chat_id: str, fn: Callable[[dict[str, Any]], None], owner: str | None = None) -> dict[str, Any]:
    """Runs ``fn(data)`` on a chat's data, alone, and stores what it made of it.

    Raises:
        StudioError: if there is no such chat, or it is another person's.
    """
    with writing() as db:
        row = db.execute(select(table).where(table.c.id == str(chat_id))).mappings().first()
        if row is None or (owner is not None and row["owner"] != owner):
            raise StudioError("That conversation is not there any more.", "Pick another from the list.")
        data = dict(row["data"])
        fn(data)
        db.execute(update(table).where(table.c.id == chat_id).values(data=data, updated=time.time()))
    return data


def search(words: str = "", owner: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """``{id, title, created, updated}`` of the chats that hold ``words`` in title or text, the last used first."""
    words = words.strip()
    if not words:
        return chats.listed(owner, limit)
    title, text = (f"%{_escape(w)}%" for w in (words, json.dumps(words)[1:-1]))  # data is stored with its escapes (\u...)
    query = (select(table).where(or_(table.c.title.ilike(title, escape="!"),
                                     cast(table.c.data, String).ilike(text, escape="!")))
             .order_by(table.c.updated.desc()))
    if owner is not None:
        query = query.where(table.c.owner == owner)
    with reading() as db:
        rows = [dict(row) for row in db.execute(query).mappings()]
    low = words.casefold()
    found = [row for row in rows if any(low in text.casefold() for text in (row["title"], *_said(row["data"])))]
    return [{key: row[key] for key in ("id", "title", "created", "updated")} for row in found[:limit]]


def _said(data: dict[str, Any]) -> Iterator[str]:
    """All that was said in a chat: the query alone would also find the names of the stored fields."""
    for column in data.get("columns") or []:
        for message in column.get("messages") or []:
            yield str(message.get("content", ""))


def rename(chat_id: str, title: str, owner: str | None = None) -> None:
    """A new title.

    Raises:
        StudioError: if there is no such chat, or the title is empty.
    """
    if not title.strip():
        raise StudioError("A chat needs a title.", "Type one.", "title")
    chats.save(chats.load(chat_id, owner)["data"], chat_id, title, owner)


def _escape(text: str) -> str:
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
