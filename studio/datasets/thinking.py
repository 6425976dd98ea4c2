"""Reasoning before an answer, kept apart from it: ``reasoning_content`` of a message.

Traces come as a field of the message (``reasoning_content``, ``thinking``, ``reasoning``), as parts of its content, as
a column, or written into the text between marks. Models differ in how they want it, so it is stored apart and put where
the chat template looks for it when the row is used.
"""

from __future__ import annotations

import re
from typing import Any

Row = dict[str, Any]
KEYS = ("reasoning_content", "thinking", "reasoning", "thought")
_WORDS = "think|thinking|thought|reasoning"
_MARKED = re.compile(rf"\s*<({_WORDS})>(.*?)</\1>\s*(.*)", re.DOTALL | re.IGNORECASE)
_UNOPENED = re.compile(rf"(.*?)</(?:{_WORDS})>\s*(.*)", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(rf"<(?:{_WORDS})>", re.IGNORECASE)
_SOLUTION = re.compile(r"\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>\s*"
                       r"(?:<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>\s*)?$|(.*))", re.DOTALL)


def apart(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a text; the reasoning is empty where no whole trace stands before an answer.

    >>> apart("<think>Two and two.</think>Four.")
    ('Two and two.', 'Four.')
    """
    if "</" not in text and "<|end_of_thought|>" not in text:
        return "", text
    if found := _SOLUTION.match(text):
        thought, answer = found[1], found[2] if found[2] is not None else found[3]
    elif found := _MARKED.fullmatch(text):
        thought, answer = found[2], found[3]
    elif (found := _UNOPENED.fullmatch(text)) and not _OPEN.search(found[1]) and not _UNOPENED.match(found[2]):
        thought, answer = found[1], found[2]  # the template of such a model opens the trace itself
    else:
        return "", text
    return (thought.strip(), answer) if answer.strip() else ("", text)


def of_message(item: Row, text: str | None) -> tuple[str, str | None]:
    """(reasoning, content) of a message of the assistant, from whichever place it stands in."""
    for key in KEYS:
        if isinstance(item.get(key), str) and item[key].strip():
            return item[key], text
    content = item.get("content")
    if isinstance(content, list):
        thoughts = [part.get("thinking") or part.get("text") or part.get("value") for part in content
                    if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")]
        if thoughts and all(isinstance(thought, str) for thought in thoughts):
            rest = [part for part in content
                    if not (isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"))]
            from studio.datasets.cells import as_text

            return "\n".join(thoughts), as_text(rest) if rest else ""
    return apart(text) if text else ("", text)


def joined(message: Row) -> Row:
    """A message with its reasoning back in the text, for programs that know no field for it."""
    if not message.get("reasoning_content"):
        return message
    rest = {key: value for key, value in message.items() if key != "reasoning_content"}
    return rest | {"content": f"<think>\n{message['reasoning_content']}\n</think>\n\n{message['content']}"}


def for_template(messages: list[Row], template: str | None) -> list[Row]:
    """Messages with the reasoning where a chat template looks for it: in a field of their own, or in the text."""
    if "reasoning_content" in (template or "") or not any(m.get("reasoning_content") for m in messages):
        return messages
    if re.search(r"""message\.thinking|message\[['"]thinking['"]\]""", template or ""):
        return [{("thinking" if key == "reasoning_content" else key): value for key, value in m.items()}
                for m in messages]
    return [joined(message) for message in messages]
