"""The question and the answer in a canonical row, and the same row with another answer."""

from __future__ import annotations

from typing import Any

from studio.datasets.convert import for_sft

Row = dict[str, Any]
Turns = list[dict[str, Any]]


def asked(row: Row) -> Turns | None:
    """What the last answer is given to, contexts included, as messages; ``None`` for plain text."""
    if "text" in row:
        return None
    if "messages" in row:
        turns = row["messages"]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        return turns[:last] or None
    made = for_sft({**row, "label": True}) if "label" in row else row
    prompt = made["prompt"]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def answer(row: Row, side: str = "") -> str:
    """The last answer as text; of a pair the better one, or the one of ``side``."""
    if "messages" in row:
        said = (turn.get("content") or "" for turn in reversed(row["messages"]) if turn["role"] == "assistant")
        return next(said, "")
    value = row.get(side or next((key for key in ("completion", "chosen", "text") if key in row), ""), "")
    return value if isinstance(value, str) else next((turn.get("content") or "" for turn in reversed(value)), "")


def key(turns: Turns) -> str:
    """The same for the same question, however blanks stand in it."""
    return "\n".join(f"{turn['role']}\t{' '.join(str(turn.get('content') or '').split())}" for turn in turns)


def with_system(turns: Turns, system: str) -> Turns:
    """The messages with this system prompt in place of their own; without one as they are."""
    if not system:
        return turns
    return [{"role": "system", "content": system}, *(turn for turn in turns if turn["role"] != "system")]


def answered(row: Row, text: str, reasoning: str = "", turns: Turns | None = None) -> Row:
    """A row with another answer, as something to imitate: in the shape it had, or as messages where that is needed.

    Args:
        turns: Instead of the question of the row.
    """
    made = {"role": "assistant", "content": text} | ({"reasoning_content": reasoning} if reasoning else {})
    if turns is None and not reasoning and isinstance(row.get("prompt"), str) and not row.get("contexts"):
        return {"prompt": row["prompt"], "completion": text}
    if turns is None and not reasoning and isinstance(row.get("prompt"), list):
        return {"prompt": row["prompt"], "completion": [made]}
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"messages": [*(turns or asked(row) or []), made]} | tools


def pair(turns: Turns, chosen: str, rejected: str) -> Row:
    """A preference pair: plain texts where the question is a single message of the user, else messages."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return {"prompt": turns[0]["content"], "chosen": chosen, "rejected": rejected}
    return {"prompt": turns, "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}]}
