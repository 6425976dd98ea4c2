"""What an answer is asked to be, what it became, and the text of one as its tokens come. No torch here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studio.chat.text import Detokenizer

FLUSH_SECONDS = 0.05  # text is sent in pieces this far apart: a packet per token would cost more than a small model
MOST_TOP = 20  # alternatives of a token that may be asked for, as in OpenAI's API


@dataclass
class Sampling:
    """How the next token is chosen. ``None`` takes the model's own ``generation_config``.

    Attributes:
        logprobs: Alternatives to tell with each token (0: only the token itself); ``None`` tells nothing.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    logprobs: int | None = None


@dataclass
class Result:
    """What a generation was. Times in seconds.

    Attributes:
        logprobs: Per token ``{id, logprob, top: [(id, logprob)]}`` of the model's own distribution, where that was asked for.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    finish: str = "length"
    ttft: float | None = None
    seconds: float = 0.0
    tokens_per_second: float | None = None
    note: str = ""
    logprobs: list[dict[str, Any]] | None = None


class Writer:
    """Takes tokens one by one, gives out text, and says when the answer is over: ``finish`` is then ``stop`` or ``cancelled``."""

    def __init__(self, text: Detokenizer, emit: Callable[[str], None], cancelled: threading.Event, ends: set[int]):
        self.text, self.emit, self.cancelled, self.ends = text, emit, cancelled, ends
        self.finish = ""
        self.first = self.last = self.flushed = 0.0

    def token(self, token: int) -> None:
        now = self.last = time.perf_counter()
        self.first = self.first or now
        self.text.tokens.append(token)
        if token in self.ends:
            self.finish = "stop"
        elif self.text.stop or now - self.flushed >= FLUSH_SECONDS:
            if piece := self.text.piece():
                self.flushed = now
                self.emit(piece)
            if self.text.stopped:
                self.finish = "stop"
        if not self.finish and self.cancelled.is_set():
            self.finish = "cancelled"

    def result(self, result: Result, began: float) -> Result:
        """Gives out what is left and fills in the result of a generation that began at ``began``."""
        if piece := self.text.piece(final=True):
            self.emit(piece)
        result.finish = "stop" if self.text.stopped else self.finish or "length"
        result.completion_tokens = n = len(self.text.tokens)
        result.seconds = time.perf_counter() - began
        if n:
            result.ttft = self.first - began
        if n > 1 and self.last > self.first:
            result.tokens_per_second = (n - 1) / (self.last - self.first)
        return result
