"""Tokens to text, piece by piece: no half characters, nothing past a stop string."""

from __future__ import annotations

from typing import Any


class Detokenizer:
    """Turns a growing list of token ids into pieces of text whose sum is the decoded whole.

    Only the tail since the last complete piece is decoded again, so the cost does not grow with the answer.

    Args:
        tokenizer: Anything with ``decode(ids, skip_special_tokens=True)``.
        stop: Texts that end the answer; they are not part of it.
    """

    def __init__(self, tokenizer: Any, stop: list[str] = ()):
        self.tokenizer, self.stop = tokenizer, [s for s in stop if s]
        self.tokens: list[int] = []
        self.stopped = False
        self._start = self._read = 0
        self._held = ""

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def piece(self, final: bool = False) -> str:
        """Text that is new and certain since the last call.

        Args:
            final: Nothing follows: also give out an incomplete character and text that might have begun a stop string.
        """
        if self.stopped:
            return ""
        before, now = self._decode(self.tokens[self._start:self._read]), self._decode(self.tokens[self._start:])
        if len(now) > len(before) and (final or not now.endswith("\ufffd")):
            self._held += now[len(before):]
            self._start, self._read = self._read, len(self.tokens)
        return self._release(final)

    def _release(self, final: bool) -> str:
        found = [at for s in self.stop if (at := self._held.find(s)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[:min(found)], ""
            return text
        keep = 0 if final else max((_overlap(self._held, s) for s in self.stop), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


PLAIN_NOTE = ("This model has no chat template, so it is asked with plain 'User:' and 'Assistant:' lines. "
              "A model that was never taught to chat may simply continue the text.")
PLAIN_STOP = ["\nUser:", "\nSystem:"]


def plain_prompt(messages: list[dict[str, str]]) -> str:
    """The conversation as plain lines, for a model without a chat template."""
    names = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Result"}
    lines = [f"{names[m['role']]}: {m['content']}" for m in messages]
    return "\n".join([*lines, "Assistant:"])


def merge_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system prompt put in front of the first user message, for templates that refuse the role."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [dict(m) for m in messages if m["role"] != "system"]
    if system and rest and rest[0]["role"] == "user":
        rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    return rest
