"""The texts inside a row: all of them, those of one side, and a row with every text put through a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.datasets.convert import turns_of

Row = dict[str, Any]
SIDES = ("prompt", "completion", "chosen", "rejected")
_ROLE = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}


def texts_of(row: Row) -> list[tuple[str, str]]:
    """(role, text) of every message, in order; both answers of a pair; plain text as role ``text``."""
    if "messages" in row:
        return [(m["role"], m.get("content") or "") for m in row["messages"]]
    if "text" in row:
        return [("text", row["text"])]
    found = []
    for side in SIDES:
        value = row.get(side)
        if isinstance(value, str):
            found.append((_ROLE[side], value))
        elif value:
            found += [(m["role"], m.get("content") or "") for m in value]
    return found


def whole(row: Row) -> str:
    """All that is said in a row but the system message, one text."""
    return "\n".join(text for role, text in texts_of(row) if role != "system" and text)


def asked(row: Row) -> str:
    """What an answer is given to: everything before the last answer; empty for plain text."""
    if "text" in row:
        return ""
    turns = row["messages"][:-1] if "messages" in row else row["prompt"]
    return turns if isinstance(turns, str) else "\n".join(f"{m['role']}: {m.get('content') or ''}" for m in turns)


def last_question(row: Row) -> str:
    """The newest message of the user."""
    if "text" in row:
        return ""
    turns = row["messages"] if "messages" in row else row["prompt"]
    if isinstance(turns, str):
        return turns
    return next((m.get("content") or "" for m in reversed(turns) if m["role"] == "user"), "")


def first_question(row: Row) -> str:
    """The first message of the user, or the whole of a plain text."""
    if "text" in row:
        return row["text"]
    turns = row["messages"] if "messages" in row else row["prompt"]
    return turns if isinstance(turns, str) else next((m.get("content") or "" for m in turns if m["role"] == "user"), "")


def answer(row: Row) -> str:
    """The last answer: the completion, the better one of a pair, or the whole of a plain text."""
    if "text" in row:
        return row["text"]
    turns = row["messages"] if "messages" in row else row.get("completion", row.get("chosen"))
    if isinstance(turns, str):
        return turns
    return next((m.get("content") or "" for m in reversed(turns or []) if m["role"] == "assistant"), "")


def calls_tool(row: Row) -> bool:
    """The last turn asks for a tool, so that it may well be without text."""
    turns = turns_of(row)
    return bool(turns and turns[-1].get("tool_calls"))


def changed(row: Row, mend: Callable[[str, str], str]) -> Row | None:
    """The row with ``mend(role, text)`` in place of every text; ``None`` if nothing is different."""
    made, same = dict(row), True
    for key in ("messages", "text", *SIDES):
        value = row.get(key)
        if isinstance(value, str):
            new: Any = mend("text" if key == "text" else _ROLE[key], value)
        elif isinstance(value, list) and key in row:
            new = [{**m, "content": mend(m["role"], m["content"])} if m.get("content") else m for m in value]
        else:
            continue
        if new != value:
            made[key], same = new, False
    for key in ("contexts", "comment"):
        value = row.get(key)
        if isinstance(value, str):
            new = mend(key, value)
        elif isinstance(value, list):
            new = [mend(key, text) if isinstance(text, str) else text for text in value]
        else:
            continue
        if new != value:
            made[key], same = new, False
    return None if same else made
