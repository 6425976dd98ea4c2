"""What is done with a chat once it is there: go on from an earlier place, take it along as a file, make training rows of it."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from studio.chat import live, session
from studio.errors import StudioError
from studio.library import chats

FORMS = ("markdown", "json", "jsonl")
_KEPT = ("role", "content", "model", "images", "finish", "tokens", "tokens_per_second", "ttft", "error")


def branch(chat_id: str, column: str, index: int, owner: str | None = None) -> dict[str, Any]:
    """A new chat that holds every column up to message ``index``; the old one stays. As :func:`studio.chat.live.load`.

    Raises:
        StudioError: no such chat or message, or an answer is still coming there.
    """
    found = live.load(chat_id, owner)
    if found["running"]:
        raise StudioError("An answer is still coming.", "Wait for it, or stop it first.")
    data = copy.deepcopy(found["data"])
    if not 0 <= index < len(live.column_of(data, column)["messages"]):
        raise StudioError("That message is not there any more.", "Reload the page.")
    for one in data["columns"]:
        one["messages"] = one["messages"][:index + 1]
    data["branch"] = {"id": chat_id, "title": found["title"], "index": index}
    return live.load(chats.save(data, None, found["title"], owner)["id"], owner)


def choose(chat_id: str, column: str, index: int, which: int, owner: str | None = None) -> dict[str, Any]:
    """Put another of the answers to one question in its place: ``which`` counts all of them, the oldest first.

    Raises:
        StudioError: no such chat or answer, or an answer is still coming.
    """
    if live.load(chat_id, owner)["running"]:
        raise StudioError("An answer is still coming.", "Wait for it, or stop it first.")

    def write(data: dict[str, Any]) -> None:
        messages = live.column_of(data, column)["messages"]
        answer = messages[index] if 0 <= index < len(messages) else {}
        every = live.all_answers(answer)
        if answer.get("role") != "assistant" or not 0 <= which < len(every):
            raise StudioError("That answer is not there any more.", "Reload the page.")
        messages[index] = every[which] | {"others": every[:which] + every[which + 1:], "place": which}

    live.history.change(chat_id, write, owner)
    return live.load(chat_id, owner)


def export(chat_id: str, form: str, owner: str | None = None) -> dict[str, str]:
    """A chat as a file: ``{name, text}``. ``markdown`` to read, ``json`` with all that is known, ``jsonl`` as training rows.

    Raises:
        StudioError: no such chat or form, or nothing was answered (``jsonl``).
    """
    if form not in FORMS:
        raise StudioError(f"A chat cannot be written as '{form}'.", f"One of {', '.join(FORMS)}.", "form")
    found = live.load(chat_id, owner)
    name = re.sub(r"[^\w-]+", "-", found["title"]).strip("-")[:60] or "chat"
    if form == "jsonl":
        return {"name": f"{name}.jsonl", "text": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made(found))}
    if form == "json":
        columns = [{"model": session.label_of(one["ref"]) if one["ref"] else "", "reference": one["ref"], **_how(found["data"], one),
                    "messages": [{key: message[key] for key in _KEPT if message.get(key) is not None} for message in one["messages"]]}
                   for one in found["data"]["columns"]]
        return {"name": f"{name}.json", "text": json.dumps({"title": found["title"], "columns": columns}, ensure_ascii=False, indent=2) + "\n"}
    parts = [f"# {found['title']}"]
    for one in found["data"]["columns"]:
        if one["messages"]:
            parts.append(f"## {session.label_of(one['ref']) if one['ref'] else 'No model'}")
        if one["messages"] and (system := _how(found["data"], one)["system"].strip()):
            parts.append("\n".join(f"> {line}" for line in system.splitlines()))
        for message in one["messages"]:
            who = "You" if message["role"] == "user" else message.get("model") or "Model"
            pictures = f"\n\n({len(message['images'])} images)" if message.get("images") else ""
            parts.append(f"**{who}:**\n\n{message['content'] or message.get('error') or ''}{pictures}")
    return {"name": f"{name}.md", "text": "\n\n".join(parts) + "\n"}


def rows(chat_id: str, columns: list[str] | None = None, thoughts: bool = False, owner: str | None = None) -> dict[str, Any]:
    """The answered part of a chat as a file of training rows among one's uploads: ``{ref, name, rows}``.

    Args:
        columns: Keys of the columns to take; ``None``: all.
        thoughts: Keep what a model thought before it answered.

    Raises:
        StudioError: no such chat, nothing was answered, or the disk is full.
    """
    from studio import settings
    from studio.api.library import keep_rows

    found = live.load(chat_id, owner)
    lines = made(found, columns, thoughts)
    title = re.sub(r"[^\w-]+", "-", found["title"]).strip("-")[:40] or "chat"
    target = keep_rows(f"chat-{title}", lines, owner)
    return {"ref": target.relative_to(settings.home()).as_posix(), "name": target.name, "rows": len(lines)}


def made(found: dict[str, Any], columns: list[str] | None = None, thoughts: bool = False) -> list[dict[str, Any]]:
    """``{messages, model}`` of each column that was answered; a question without an answer, or with pictures, is left out with
    what follows it.

    Raises:
        StudioError: nothing is left.
    """
    lines = []
    for one in found["data"]["columns"]:
        if columns is not None and one["key"] not in columns:
            continue
        system = _how(found["data"], one)["system"].strip()
        turns = [{"role": "system", "content": system}] if system else []
        for asked, answer in zip(one["messages"][::2], one["messages"][1::2]):
            text = answer.get("content", "") if thoughts else live.without_thoughts(answer.get("content", ""))
            if asked["role"] != "user" or answer["role"] != "assistant" or asked.get("images") or answer.get("error") or not text.strip():
                break
            turns += [{"role": "user", "content": asked["content"]}, {"role": "assistant", "content": text.strip()}]
        if turns and turns[-1]["role"] == "assistant":
            lines.append({"messages": turns, "model": session.label_of(one["ref"])})
    if not lines:
        raise StudioError("Nothing in this chat was answered in words yet.", "Ask something first.")
    return lines


def _how(data: dict[str, Any], column: dict[str, Any]) -> dict[str, Any]:
    how = column if column["own"] else data["shared"]
    return {"system": how["system"], "settings": how["settings"]}
