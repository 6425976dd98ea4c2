"""Two datasets with the faults that real exports have. The index says how many rows have each; a test counts them."""

from __future__ import annotations

import json
import random
from typing import Any

from . import skills

Row = dict[str, Any]

_MAKERS = (skills.people, skills.animals, skills.colours, skills.opposites, skills.places)


def _items(rng: random.Random, count: int) -> list[skills.Item]:
    found: dict[str, skills.Item] = {}
    while len(found) < count:
        item = rng.choice(_MAKERS)(rng, False)
        found.setdefault(item.question, item)
    return list(found.values())


def mojibake(text: str) -> str:
    """The text as it looks when its UTF-8 bytes are read as Windows-1252."""
    return text.encode("utf-8").decode("cp1252")


def _typographic(item: skills.Item) -> str:
    # Curly quotes round the answer: the characters that exports break most often.
    return f"‘{item.answer}’ It’s true."


def alpaca(rng: random.Random) -> list[Row]:
    """60 Alpaca rows, 24 of them faulty: empty, missing, cut off, repeated or badly decoded answers."""
    rows = [{"instruction": i.question, "input": "", "output": i.answer} for i in _items(rng, 52)]
    for n in range(5):
        rows[n]["output"] = ""
    for n in range(5, 7):
        rows[n]["output"] = "   "
    for n in range(7, 9):
        del rows[n]["output"]
    for n in range(9, 13):
        words = rows[n]["output"].split()
        rows[n]["output"] = " ".join(words[: max(2, len(words) // 2)])
    for n in range(13, 16):
        item = skills.Item(rows[n]["instruction"], rows[n]["output"])
        rows[n]["output"] = mojibake(_typographic(item))
    rows += [dict(rows[n]) for n in range(20, 26)]
    rows += [{**rows[n], "output": "I do not know."} for n in range(30, 32)]
    rng.shuffle(rows)
    return rows


def _chat(item: skills.Item) -> list[Row]:
    return [{"role": "user", "content": item.question}, {"role": "assistant", "content": item.answer}]


def messages(rng: random.Random) -> str:
    """JSONL text of 50 chats, 21 of them faulty, the last line cut off in the middle."""
    items = _items(rng, 50)
    chats: list[Any] = [_chat(i) for i in items[:45]]
    for n in range(3):  # starts with the assistant
        chats[n] = chats[n][::-1]
    for n in range(3, 5):  # two user messages in a row
        chats[n].insert(0, {"role": "user", "content": items[n + 20].question})
    for n in range(5, 8):  # nobody answers
        chats[n] = chats[n][:1]
    for n in range(8, 11):  # an empty answer
        chats[n][1]["content"] = ""
    chats[11][0]["role"], chats[12][1]["role"] = "prompter", "robot"
    chats[13].append({"role": "system", "content": "You are a helper."})
    chats[14][1]["content"] = None
    chats[15][1]["content"] = mojibake(_typographic(items[15]))
    chats[16] = []
    rows = [{"messages": chat} for chat in chats]
    rows += [{"messages": _chat(items[n])} for n in range(20, 23)]
    rows.append({"messages": _chat(items[46])})
    rng.shuffle(rows)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    last = json.dumps({"messages": _chat(items[47])}, ensure_ascii=False)
    return "\n".join([*lines, last[: len(last) // 2]])
