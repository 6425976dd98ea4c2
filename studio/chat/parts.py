"""The parts of an answer as they are written: what the model thinks, what it says, which tools it calls. No torch here.

Models write all three as text: thoughts between ``<think>`` tags, calls as ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``
or as nothing but such JSON. Whatever looks like one and is none stays in the text, so nothing is lost.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from studio.chat.text import _overlap

_THINK = {"<think>": "</think>", "<thinking>": "</thinking>"}
_CALL = {"<tool_call>": "</tool_call>"}
_OPEN = re.compile(r"<think(?:ing)?>\s*\Z")


def thinking(prompt_end: str) -> bool:
    """Whether a prompt ends within a thought, as some templates leave it."""
    return bool(_OPEN.search(prompt_end))


class Splitter:
    """Cuts an answer into its parts while it grows.

    Args:
        tools: Names that may be called; without any, a call is text like other text.
        inside: The prompt has opened a thought already.
    """

    def __init__(self, tools: list[str] = (), inside: bool = False):
        self.tools = set(tools)
        self.calls: list[dict[str, Any]] = []
        self._tags = _THINK | (_CALL if self.tools else {})
        self._within = "<think>" if inside else ""  # the tag that is open
        self._held = ""
        self._began = inside  # whether anything was said or thought yet
        self._trim = inside

    def feed(self, text: str) -> list[tuple[str, Any]]:
        """``("text" | "reasoning", str)`` and ``("call", dict)`` that are certain after ``text`` came."""
        self._held += text
        made: list[tuple[str, Any]] = []
        while self._held:
            if not self._within:
                if not self._began and self.tools and self._held.lstrip()[:1] in ("{", "["):
                    break  # perhaps nothing but a call: known at the end
                if not self._said(made):
                    break
            elif not self._inside(made):
                break
        return made

    def _said(self, made: list[tuple[str, Any]]) -> bool:
        """Gives out text up to the next tag; False where more has to come first."""
        # a thought comes first or not at all: later, somebody may be writing about the tag
        tags = [tag for tag in self._tags if tag in _CALL or not self._began]
        found = min(((at, tag) for tag in tags if (at := self._held.find(tag)) >= 0), default=None)
        if found and not (found[1] in _THINK and self._held[:found[0]].strip()):
            self._give(made, "text", self._held[:found[0]])
            self._held, self._within, self._began, self._trim = self._held[found[0] + len(found[1]):], found[1], True, True
            return True
        keep = max((_overlap(self._held, tag) for tag in tags), default=0)
        if not self._began and not self._held[:len(self._held) - keep].strip():
            return False  # only space so far
        self._began = True
        self._give(made, "text", self._held[:len(self._held) - keep])
        self._held = self._held[len(self._held) - keep:]
        return False

    def _inside(self, made: list[tuple[str, Any]]) -> bool:
        end = self._tags[self._within]
        at = self._held.find(end)
        if self._within in _THINK:
            cut = at if at >= 0 else len(self._held) - _overlap(self._held, end)
            self._give(made, "reasoning", self._held[:cut])
            self._held = self._held[cut:]
        if at < 0:
            return False
        if self._within in _CALL:
            whole = self._held[:at]
            if not self._call(made, whole):
                self._give(made, "text", f"{self._within}{whole}{end}")
            self._held = self._held[at + len(end):]
        else:
            self._held = self._held[len(end):]
        self._within, self._trim = "", True
        return True

    def finish(self) -> list[tuple[str, Any]]:
        """What is left when the answer is over."""
        made: list[tuple[str, Any]] = []
        if self._within in _CALL:
            if not self._call(made, self._held):
                self._give(made, "text", self._within + self._held)
        elif self._within:
            self._give(made, "reasoning", self._held)
        elif self._began or not self.tools or not self._call(made, self._held):
            self._give(made, "text", self._held)
        self._held = ""
        return made

    def _give(self, made: list[tuple[str, Any]], kind: str, text: str) -> None:
        if self._trim:  # the line break behind a tag belongs to the tag
            text = text.lstrip("\n")
            self._trim = not text
        if text:
            made.append((kind, text))

    def _call(self, made: list[tuple[str, Any]], text: str) -> bool:
        found = calls(text, self.tools)
        for call in found:
            self.calls.append(call)
            made.append(("call", call | {"index": len(self.calls) - 1}))
        return bool(found)


def calls(text: str, known: set[str]) -> list[dict[str, Any]]:
    """Calls of ``known`` tools in a piece of JSON, in OpenAI's form; none where it is anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return []
    made = []
    for one in data if isinstance(data, list) else [data]:
        function = one.get("function") if isinstance(one, dict) and isinstance(one.get("function"), dict) else one
        name = function.get("name") if isinstance(function, dict) else None
        arguments = (function.get("arguments", function.get("parameters", {}))) if isinstance(function, dict) else {}
        if name not in known or not isinstance(arguments, (dict, str)):
            return []
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        made.append({"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": {"name": name, "arguments": arguments}})
    return made


def for_template(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the arguments of its calls as objects, which is what chat templates expect."""
    if not message.get("tool_calls"):
        return message
    made = []
    for call in message["tool_calls"]:
        function = dict(call.get("function") or {})
        try:
            function["arguments"] = json.loads(function.get("arguments") or "{}")
        except (ValueError, TypeError, RecursionError):
            pass  # a person's own text: the template writes it as it is
        made.append(call | {"function": function})
    return message | {"tool_calls": made}
