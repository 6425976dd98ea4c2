"""Conversations as people's programs write them: turns in pairs, ChatGPT's export, tool calls in the text."""

from __future__ import annotations

import json
import re
from typing import Any

from studio.datasets.rows import loads

Row = dict[str, Any]
# (question, answer) of one object that holds both sides of an exchange
PAIRS = (("human", "assistant"), ("user", "assistant"), ("human", "gpt"), ("user", "bot"), ("human", "bot"),
         ("user", "ai"),
         ("question", "answer"), ("prompt", "response"), ("prompt", "completion"), ("input", "output"),
         ("instruction", "output"), ("query", "response"), ("user", "model"))
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>"
                   r"|<functioncall>\s*(\{.*?\})\s*(?=<functioncall>|<\|endoftext\|>|$)",
                   re.DOTALL)
_ANSWER = re.compile(r"\s*<tool_response>\s*(.*?)\s*</tool_response>\s*", re.DOTALL)


def pair_of(item: Any) -> tuple[str, str] | None:
    """Names of question and answer in an object with both sides of an exchange."""
    if not isinstance(item, dict):
        return None
    return next((pair for pair in PAIRS if isinstance(item.get(pair[0]), str) and isinstance(item.get(pair[1]), str)),
                None)


def is_pairs(value: Any) -> bool:
    """A list of exchanges: ``[{human, assistant}, ...]`` or ``[[question, answer], ...]``."""
    if not isinstance(value, list) or not value:
        return False
    if all(pair_of(item) for item in value):
        return True
    return all(isinstance(item, (list, tuple)) and len(item) == 2 and all(isinstance(t, str) for t in item)
               for item in value)


def unpaired(value: list[Any]) -> list[Row]:
    """Exchanges as single messages."""
    out: list[Row] = []
    for item in value:
        asked, answer = item if not isinstance(item, dict) else (item[name] for name in pair_of(item) or ())
        out += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return out


def is_tree(value: Any) -> bool:
    """The ``mapping`` of a conversation in ChatGPT's data export: nodes with parents and children."""
    if not isinstance(value, dict) or not value:
        return False
    node = next(iter(value.values()))
    return isinstance(node, dict) and {"parent", "children"} <= set(node)


def branch(mapping: Row) -> list[Row]:
    """The newest branch of such a tree as messages; hidden, empty and tool messages are left out."""
    at = next((key for key, node in mapping.items() if isinstance(node, dict) and not node.get("parent")), None)
    out: list[Row] = []
    seen: set[Any] = set()
    while isinstance(at, str) and at in mapping and at not in seen:
        seen.add(at)
        node = mapping[at] if isinstance(mapping[at], dict) else {}
        message = _object(node.get("message"))
        parts = _object(message.get("content")).get("parts")
        text = "\n".join(part for part in (parts if isinstance(parts, list) else []) if isinstance(part, str)).strip()
        hidden = _object(message.get("metadata")).get("is_visually_hidden_from_conversation")
        role = _object(message.get("author")).get("role")
        if text and not hidden and role in ("system", "user", "assistant"):
            out.append({"role": role, "content": text})
        children = node.get("children")
        at = children[-1] if isinstance(children, list) and children else None
    return out


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def calls_in(text: str) -> tuple[list[Any], str]:
    """(tool calls, the rest) of a text with ``<tool_call>{...}</tool_call>`` in it; none where one is not readable."""
    if "<tool_call>" not in text and "<functioncall>" not in text:
        return [], text
    calls = []
    for found in _CALL.finditer(text):
        try:
            call = loads(found[1] or _unquoted(found[2]))
        except ValueError:
            return [], text
        calls += call if isinstance(call, list) else [call]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return [], text
    return calls, _CALL.sub("", text).replace("<|endoftext|>", "").strip() if calls else text


def _unquoted(text: str) -> str:
    """Arguments written in single quotes around JSON (glaive) as plain JSON."""
    return re.sub(r"'(\{.*\})'", lambda m: json.dumps(m[1]), text, flags=re.DOTALL)


def response_in(text: str) -> str:
    """What a tool said, without the marks around it."""
    found = _ANSWER.fullmatch(text)
    return found[1] if found else text
