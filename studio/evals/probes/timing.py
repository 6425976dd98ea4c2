"""Measuring a server that answers: the moment of every piece, the tokens it counted, the memory of its process.

Tokens are those that the server counts in its ``usage``; only where it tells none are the pieces of the stream counted, and that is
said. Our own engine sends its text in pieces of 50 ms, as a packet a token would cost a small model more than the token; asked
with a stop text it sends every token by itself, so for the time between tokens it is given one that never comes.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from studio.chat import client
from studio.chat.client import Endpoint
from studio.datasets.llm import Messages
from studio.datasets.step import Stopped
from studio.errors import StudioError

NEVER = "\u2063\u2064\u2063\u2064"  # invisible separators: a stop text that no model writes
_SUBJECTS = "The cat|The dog|The owl|The baker|The teacher|The boat|The river|The garden|The moon|The child".split("|")
_VERBS = "sees|likes|finds|follows|remembers|paints|carries|hears|leaves|meets".split("|")
_OBJECTS = "the old house|a red ball|the quiet lake|seven stones|the long road|a small lamp|the warm bread|two friends|the tall tree|a letter".split("|")


@dataclass
class Timed:
    """One answer. Times in seconds.

    Attributes:
        ttft: From asking to the first text.
        seconds: From asking to the end.
        tokens: Written, as the server counts them.
        prompt_tokens: Read; ``None`` where the server does not tell.
        gaps: Between pieces of text.
        begun, ended: By the clock of this process, to see what overlaps.
        counted: False where the server told no tokens and pieces were counted.
        told: Tokens a second as the engine measured them between its tokens; ``None`` for other servers.
    """

    ttft: float
    seconds: float
    tokens: int
    prompt_tokens: int | None = None
    gaps: list[float] = field(default_factory=list)
    begun: float = 0.0
    ended: float = 0.0
    counted: bool = True
    told: float | None = None

    @property
    def per_second(self) -> float | None:
        """Tokens a second after the first one: as the engine told, else by the clock here; ``None`` where the tokens came in so few
        pieces that the clock says nothing."""
        if self.told is not None:
            return self.told
        sure = self.tokens > 1 and self.seconds > self.ttft and 2 * (len(self.gaps) + 1) >= self.tokens
        return (self.tokens - 1) / (self.seconds - self.ttft) if sure else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def filler(sentences: int, key: str) -> str:
    """A text of so many sentences that begins differently for every key, so that no server has its beginning in store."""
    rng = random.Random(key)
    lines = [f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}." for _ in range(sentences)]
    return f"{rng.randint(100, 999)}. " + " ".join(lines)


def messages(sentences: int, key: str) -> Messages:
    """A question of about so many sentences that asks for a long answer."""
    return [{"role": "user", "content": f"{filler(sentences, key)} Go on with this story, and make it as long as you can."}]


def ask(endpoint: Endpoint, turns: Messages, settings: dict[str, Any], stop: client.Stop) -> Timed:
    """One answer, streamed.

    Raises:
        StudioError: the server refuses.
        studio.chat.client.EngineGone: it went away.
        Stopped: ``stop`` was called.
    """
    began, gaps, last, size, pieces, answer = time.perf_counter(), [], 0.0, 0, 0, client.Answer()
    for answer in client.stream(endpoint, turns, settings, stop):
        if len(answer.text) > size:
            now, size, pieces = time.perf_counter(), len(answer.text), pieces + 1
            if last:
                gaps.append(now - last)
            last = now
    if stop.asked.is_set():
        raise Stopped
    tokens = answer.tokens or 0
    return Timed(answer.ttft if answer.ttft is not None else answer.seconds, answer.seconds, tokens, answer.prompt_tokens, gaps, began,
                 began + answer.seconds, not (tokens == pieces and answer.prompt_tokens is None),
                 None if endpoint.remote else answer.tokens_per_second)


def together(endpoint: Endpoint, asked: list[tuple[Messages, dict[str, Any]]], stopping: Callable[[], bool],
             timeout: float = 3600.0) -> list[Timed]:
    """Several answers at once, each from a thread of its own; a stop breaks their connections.

    Raises:
        StudioError: one of them was refused, or not all were there after ``timeout`` seconds (``timeout``).
        Stopped: as asked.
    """
    stops, found, failed = [client.Stop() for _ in asked], [None] * len(asked), []
    gate, until = threading.Barrier(len(asked)), time.monotonic() + timeout

    def work(place: int) -> None:
        try:
            gate.wait(30)
            found[place] = ask(endpoint, *asked[place], stops[place])
        except BaseException as err:  # told by the thread that waits
            failed.append(err)

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        late = time.monotonic() > until
        if (asked_to := stopping()) or failed or late:
            for stop in stops:
                stop()
        if asked_to:  # one that waits for its first byte cannot be woken; it is left to itself
            threads[0].join(0.2)
            raise Stopped
        if late:
            raise StudioError(f"{endpoint.base_url} was not done after {timeout:g} seconds.", "Wait longer, or measure shorter answers.", "timeout")
        for thread in threads:
            thread.join(0.05)
    if failed:
        raise next((err for err in failed if not isinstance(err, Stopped)), failed[0])
    return [one for one in found if one is not None]


def sentences_for(endpoint: Endpoint, tokens: int, stop: client.Stop, known: dict[str, float]) -> int:
    """How many sentences make a question of about ``tokens`` tokens; what a sentence costs is asked of the server once.

    Args:
        known: Keeps what was found out: ``{"each", "rest"}``.
    """
    if not known:
        sizes = [ask(endpoint, messages(count, "size"), {"max_tokens": 1, "temperature": 0.0}, stop).prompt_tokens for count in (4, 14)]
        each = (sizes[1] - sizes[0]) / 10 if None not in sizes else 8.0
        known |= {"each": max(1.0, each), "rest": (sizes[0] - 4 * each) if sizes[0] is not None else 20.0}
    return max(1, round((tokens - known["rest"]) / known["each"]))


class Peak:
    """The most memory that a process and its children hold while the block runs, in bytes; 0 for one that is elsewhere."""

    def __init__(self, pid: int | None):
        self.pid, self.bytes = pid, 0
        self._over = threading.Event()

    def __enter__(self) -> Peak:
        if self.pid:
            self._look()
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self.pid:
            self._look()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._look()

    def _look(self) -> None:
        import psutil

        try:
            process = psutil.Process(self.pid)
            held = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
        except psutil.Error:
            return
        self.bytes = max(self.bytes, held)


def engine_of(ref: str) -> dict[str, Any]:
    """What is known of the engine that answers as ``ref``; empty for an address."""
    from studio.chat import manager

    return next((one for one in manager.engines() if ref == one["base"] or ref in one["adapters"]), {})


def health(endpoint: Endpoint) -> dict[str, Any]:
    """What an engine of ours says of itself: device, dtype, threads, context; empty for any other server."""
    import httpx

    if endpoint.remote:
        return {}
    try:
        reply = httpx.get(endpoint.base_url.removesuffix("/v1") + "/health", timeout=5, trust_env=False,
                          headers={"Authorization": f"Bearer {endpoint.key}"})
        return reply.json() if reply.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}


def middle(values: list[float]) -> dict[str, float | int] | None:
    """``{"value", "low", "high", "n"}``: the median, and the quarters below and above it."""
    if not values:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"value": statistics.median(values), "low": low, "high": high, "n": len(values)}


def percentile(values: list[float], share: float) -> float | None:
    """The value that ``share`` of all are below, between two neighbours in proportion."""
    if not values:
        return None
    ordered, at = sorted(values), share * (len(values) - 1)
    low = int(at)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (at - low)


def load() -> float:
    """Processes that want to compute, over the last minute."""
    return os.getloadavg()[0]


def too_long(err: Exception) -> bool:
    """Whether a server refused because the question is longer than it can read."""
    text = str(err).lower()
    return isinstance(err, StudioError) and (err.field == "messages" or "context" in text or "too long" in text or "can read" in text)
