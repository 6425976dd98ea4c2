"""Canonical rows -> rows of a format that other programs read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from studio.datasets.convert import turns_of
from studio.datasets.thinking import joined
from studio.errors import StudioError

Row = dict[str, Any]


def export_rows(rows: Iterable[Row], format: str) -> Iterator[Row]:
    """Canonical rows written in another format; reading that again gives the same rows.

    Args:
        format: ``messages`` | ``sharegpt`` | ``alpaca`` | ``prompt_completion`` | ``text`` | ``preference`` | ``rated`` |
            ``reward`` (pairs of whole conversations, for reward models) | ``as_is``.

    Raises:
        StudioError: the format cannot hold a row (several turns or tools in Alpaca, a chat as plain text).
    """
    check_format(format)
    for row in rows:
        yield WRITERS[format](row)


def check_format(format: str) -> None:
    """Refuse a format that is none.

    Raises:
        StudioError: naming those that are.
    """
    if format not in WRITERS:
        raise StudioError(f"Rows cannot be written as '{format}'.", f"Choose one of {', '.join(WRITERS)}.", "format")


def _no(what: str, format: str) -> StudioError:
    return StudioError(f"{what} cannot be written as {format}.",
                       "Choose the format 'as_is', which holds everything.", "format")


def _to_messages(row: Row) -> Row:
    if "text" in row:
        raise _no("Plain text", "messages")
    if row.get("label") is False:
        raise _no("An answer that is marked bad", "an example to imitate")
    return {"messages": turns_of(row)} | ({"tools": row["tools"]} if row.get("tools") else {})


def _to_sharegpt(row: Row) -> Row:
    words = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
    chat = _to_messages(row)
    turns = [{"from": words[m["role"]], "value": m["content"]}
             | {k: v for k, v in m.items() if k not in ("role", "content")}
             for m in chat.pop("messages")]
    return {"conversations": turns} | chat


def _to_alpaca(row: Row) -> Row:
    turns = [joined(m) for m in _to_messages(row)["messages"]]
    system = turns[0]["content"] if turns[0]["role"] == "system" else None
    rest = turns[1:] if system is not None else turns
    by_turns = [m["role"] for m in rest] == ["user", "assistant"] * (len(rest) // 2)
    if not rest or not by_turns or row.get("tools") or any("tool_calls" in m for m in rest):
        raise _no("A chat with tools or out of turn", "alpaca")
    made: Row = {"instruction": rest[-2]["content"], "input": "", "output": rest[-1]["content"]}
    if system is not None:
        made["system"] = system
    if len(rest) > 2:
        made["history"] = [[rest[i]["content"], rest[i + 1]["content"]] for i in range(0, len(rest) - 2, 2)]
    return made


def _to_prompt_completion(row: Row) -> Row:
    turns = _to_messages(row)["messages"]
    if "prompt" in row:
        return {"prompt": row["prompt"], "completion": row.get("completion", row.get("chosen"))}
    if row.get("tools"):
        raise _no("A chat with tools", "prompt_completion")
    if [m["role"] for m in turns] == ["user", "assistant"]:
        return {"prompt": turns[0]["content"], "completion": joined(turns[1])["content"]}
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def _to_text(row: Row) -> Row:
    if "text" not in row:
        raise _no("A chat", "text")
    return {"text": row["text"]}


def _to_preference(row: Row) -> Row:
    if "chosen" not in row:
        raise _no("A row without a better and a worse answer", "a preference pair")
    return {key: row[key] for key in ("prompt", "chosen", "rejected", "margin") if key in row}


def _to_reward(row: Row) -> Row:
    """A pair with the prompt repeated in both sides, as reward models are trained on."""
    pair = _to_preference(row)
    asked = _turns(pair.pop("prompt"), "user")
    return {side: asked + _turns(pair.pop(side), "assistant") for side in ("chosen", "rejected")} | pair


def _turns(value: Any, role: str) -> list[Row]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _to_rated(row: Row) -> Row:
    if "label" not in row:
        raise _no("A row without a mark", "a rated answer")
    return {key: row[key] for key in ("prompt", "completion", "label", "contexts", "comment", "tags") if key in row}


WRITERS = {"messages": _to_messages, "sharegpt": _to_sharegpt, "alpaca": _to_alpaca,
           "prompt_completion": _to_prompt_completion, "text": _to_text, "preference": _to_preference,
           "rated": _to_rated, "reward": _to_reward, "as_is": dict}
