"""Canonical rows -> rows of a format that other programs read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from studio.datasets.convert import turns_of
from studio.errors import StudioError

Row = dict[str, Any]


def export_rows(rows: Iterable[Row], format: str) -> Iterator[Row]:
    """Canonical rows written in another format; reading that again gives the same rows.

    Args:
        format: ``messages`` | ``sharegpt`` | ``alpaca`` | ``prompt_completion`` | ``text``.

    Raises:
        StudioError: the format cannot hold a row (several turns or tools in Alpaca, a chat as plain text).
    """
    if format not in _WRITERS:
        raise StudioError(f"Rows cannot be written as '{format}'.", f"Choose one of {', '.join(_WRITERS)}.", "format")
    for row in rows:
        yield _WRITERS[format](row)


def _no(what: str, format: str) -> StudioError:
    return StudioError(f"{what} cannot be written as {format}.",
                       "Choose the format 'messages', which holds everything.", "format")


def _to_messages(row: Row) -> Row:
    if "text" in row:
        raise _no("Plain text", "messages")
    return {"messages": turns_of(row)} | ({"tools": row["tools"]} if row.get("tools") else {})


def _to_sharegpt(row: Row) -> Row:
    words = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
    chat = _to_messages(row)
    turns = [{"from": words[m["role"]], "value": m["content"]}
             | {k: v for k, v in m.items() if k not in ("role", "content")}
             for m in chat.pop("messages")]
    return {"conversations": turns} | chat


def _to_alpaca(row: Row) -> Row:
    turns = _to_messages(row)["messages"]
    system = turns[0]["content"] if turns[0]["role"] == "system" else None
    rest = turns[1:] if system is not None else turns
    by_turns = [m["role"] for m in rest] == ["user", "assistant"] * (len(rest) // 2)
    if not by_turns or row.get("tools") or any("tool_calls" in m for m in rest):
        raise _no("A chat with tools or out of turn", "alpaca")
    made: Row = {"instruction": rest[-2]["content"], "input": "", "output": rest[-1]["content"]}
    if system is not None:
        made["system"] = system
    if len(rest) > 2:
        made["history"] = [[rest[i]["content"], rest[i + 1]["content"]] for i in range(0, len(rest) - 2, 2)]
    return made


def _to_prompt_completion(row: Row) -> Row:
    if "prompt" in row:
        return {"prompt": row["prompt"], "completion": row.get("completion", row.get("chosen"))}
    turns = _to_messages(row)["messages"]
    if row.get("tools"):
        raise _no("A chat with tools", "prompt_completion")
    if [m["role"] for m in turns] == ["user", "assistant"]:
        return {"prompt": turns[0]["content"], "completion": turns[1]["content"]}
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def _to_text(row: Row) -> Row:
    if "text" not in row:
        raise _no("A chat", "text")
    return {"text": row["text"]}


_WRITERS = {"messages": _to_messages, "sharegpt": _to_sharegpt, "alpaca": _to_alpaca,
            "prompt_completion": _to_prompt_completion, "text": _to_text}
