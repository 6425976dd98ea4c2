"""Asking a model many times: the starter, a model of the library, or any server that speaks the OpenAI API.

    with llm.open(recipe, ctx) as client:
        answer, = client.ask([{"role": "user", "content": "Name a fruit."}])
        for key, found in client.map((key, messages, {}) for key, messages in work):
            journal.put(key, ...)          # in the order of completion

Models of this machine answer through the studio's own chat engine. Keys are looked up where they are used
(:mod:`studio.chat.address`) and are in no recipe, no journal and no message.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from studio.chat import address
from studio.chat.client import Endpoint
from studio.datasets import llm_http
from studio.datasets.journal import Journal
from studio.datasets.llm_http import Answer, Failed, Gone
from studio.datasets.pool import Pool
from studio.datasets.step import StepRecipe, Stopped
from studio.errors import StudioError
from studio.recipe import field as recipe_field

if TYPE_CHECKING:
    from studio.jobs.context import Context

__all__ = ["Answer", "Client", "Failed", "Journal", "ModelFields", "Pool", "Stopped", "Usage", "check", "journal",
           "open"]

Messages = list[dict[str, Any]]
GRACE = 3.0  # seconds that answers under way are waited for after a stop
LOCAL_AT_ONCE = 8  # an engine of this computer refuses more than twice as many
REFUSALS_AT_FIRST = 20  # and not one answer: the settings are wrong, not the requests
FAILURES_IN_A_ROW = 8  # and nothing else: the server is ill, not the requests


class ModelFields(StepRecipe):
    """The fields of every step that asks a model."""

    generator: str = recipe_field("starter", "Model", "Who is asked: the starter, a model of yours, hub:owner/name, "
                                  "or the address of an OpenAI-compatible server, http://host:port/v1.",
                                  widget="model", max_length=1000)
    generator_model: str = recipe_field("", "Model at the address", "Which of that server's models answers. Left "
                                        "empty, the first it serves.", placeholder="llama-3.3-70b", max_length=300)
    temperature: float = recipe_field(0.8, "Temperature", "How freely it chooses its words: 0 always takes the "
                                      "likeliest, above 1 gets wild.", group="advanced", ge=0, le=2)
    top_p: float = recipe_field(0.95, "Top p", "Chooses among the likeliest words that together have this "
                                "probability.",
                                group="advanced", gt=0, le=1)
    max_new_tokens: int = recipe_field(1024, "Longest answer", "An answer that is longer is cut, and a cut one is not "
                                       "used.",
                                       group="advanced", unit="tokens", ge=1, le=131_072)
    seed: int = recipe_field(0, "Seed", "Another number, other rows.", group="advanced", ge=0, le=2**31 - 1)
    concurrency: int = recipe_field(4, "At once", "Requests under way together. Servers answer many; a model of this "
                                    "computer gains little.", group="advanced", ge=1, le=64)
    timeout: float = recipe_field(300, "Longest wait", "A request without an answer by then is tried again.",
                                  group="advanced", unit="s", ge=1, le=3600)
    price_in: float = recipe_field(0.0, "Price, read", "Of a million tokens that the model reads; 0 = free.",
                                   group="advanced", ge=0, le=10_000)
    price_out: float = recipe_field(0.0, "Price, written", "Of a million tokens that the model writes; 0 = free.",
                                    group="advanced", ge=0, le=10_000)


@dataclass
class Usage:
    """What was asked for so far. ``cost`` is in the currency of the prices; ``uncounted`` answers told no tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    retries: int = 0
    failed: int = 0
    uncounted: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"cost": round(self.cost, 6)}


def check(recipe: Any, ref: str | None = None, name: str = "generator") -> None:
    """Refuse a model that cannot be asked, without asking it.

    Raises:
        StudioError: naming the field ``name``.
    """
    from studio.library.refs import resolve_model

    ref = recipe.generator if ref is None else ref
    try:
        if address.is_address(ref):
            address.checked(ref)
        else:
            resolve_model(ref)
    except StudioError as err:
        raise StudioError(err.message, err.hint, name) from err


def open(recipe: Any, ctx: Context, ref: str | None = None, model: str | None = None, name: str = "generator",
         **over: Any) -> Client:
    """A client for the model of a recipe (or another one, e.g. a judge), to be used as a context manager.

    Args:
        ref: Instead of ``recipe.generator``; ``model`` then instead of ``recipe.generator_model``.
        name: Recipe field that a failure is about.
        **over: Instead of the recipe's temperature, top_p, max_new_tokens, ...

    Raises:
        StudioError: there is no such model or server.
        Stopped: as asked, while the model was loading.
    """
    if ref is None:
        ref, model = recipe.generator, recipe.generator_model if model is None else model
    return Client(recipe, ctx, ref, model or "", name, over)


def journal(ctx: Context, out: Any, name: str = "journal") -> Journal:
    """The journal of one step of a run; the steps of a pipeline have one each."""
    step = out.folder.name
    return Journal(ctx.run_dir / (f"{name}.jsonl" if step == "output" else f"{name}-{step}.jsonl"))


class Client:
    """See :func:`open`. ``usage`` counts; ``label`` is what a person calls the model."""

    def __init__(self, recipe: Any, ctx: Context, ref: str, model: str, name: str, over: dict[str, Any]):
        values = {key: getattr(recipe, key) for key in ("temperature", "top_p", "max_new_tokens", "seed",
                                                        "concurrency", "timeout", "price_in", "price_out")} | over
        self.settings, self.ctx, self.ref, self.name = values, ctx, ref.strip(), name
        self.remote = address.is_address(self.ref)
        self.concurrency = values["concurrency"] if self.remote else min(values["concurrency"], LOCAL_AT_ONCE)
        self.usage = Usage()
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._in_a_row = 0
        self._told = 0.0
        self._more: dict[str, float] = {}
        self._ours = False
        self._stop = threading.Event()
        if self.remote:
            url, named = address.checked(self.ref)
            self.ref = f"{url}#{model or named}" if model or named else url
        self.endpoint = self._open()
        self.label = address.label(f"{self.endpoint.base_url}#{self.endpoint.model}") if self.remote else self.ref
        self._http = llm_http.Http(self.endpoint, values["timeout"])

    # ---- asking

    def ask(self, messages: Messages, n: int = 1, **over: Any) -> list[Answer]:
        """``n`` answers. Blocks; may be called from several threads.

        Args:
            **over: ``temperature``, ``top_p``, ``max_new_tokens``, ``seed``, ``stop`` for this request.

        Raises:
            Failed: no usable reply after all tries; the reason is a key of :data:`studio.datasets.llm_http.REASONS`.
            StudioError: the server is gone, wants another key, or fails every request.
            Stopped: as asked.
        """
        values = self.settings | over
        seed = over["seed"] if "seed" in over else derived(values["seed"], repr(messages))
        made: list[Answer] = []
        while len(made) < n:
            left = n - len(made) if self.remote else 1
            request = {"messages": messages, "temperature": values["temperature"], "top_p": values["top_p"],
                       "max_tokens": values["max_new_tokens"], "seed": derived(seed, str(len(made))) if made else seed}
            if left > 1:
                request["n"] = left
            if stop := over.get("stop"):
                request["stop"] = stop
            made += self._request(request)[:left]
        return made

    def map(self, requests: Iterable[tuple[str, Messages, dict[str, Any]]]
            ) -> Iterator[tuple[str, list[Answer] | Failed]]:
        """Ask (key, messages, over) side by side; gives (key, answers or :class:`Failed`) in the order of completion.

        ``requests`` is read only as fast as it is worked off. ``over`` may hold ``n``. The seed of a request comes
        from its key, so the order does not matter.

        Raises:
            Stopped: as asked, after the answers that came within a few seconds were given.
            StudioError: as :meth:`ask`.
        """
        def work(item: tuple[str, Messages, dict[str, Any]]) -> list[Answer] | Failed:
            key, messages, over = item
            try:
                return self.ask(messages, **({"seed": derived(self.settings["seed"], key)} | over))
            except Failed as err:
                return err

        source, under_way, more = iter(requests), 0, True
        with Pool(self.concurrency, work) as pool:
            while more or under_way:
                while more and under_way < self.concurrency + 2 and not self.ctx.stop_requested:
                    try:
                        item = next(source)
                    except StopIteration:
                        more = False
                        break
                    pool.put(item[0], item)
                    under_way += 1
                if not under_way and not self.ctx.stop_requested:
                    break
                for key, found in pool.take(self.ctx):
                    under_way -= 1
                    self.report()
                    yield key, found
                if self.ctx.stop_requested:
                    self._stop.set()
                    for key, found in pool.rest(GRACE):
                        yield key, found
                    raise Stopped

    def count(self, answer: Answer) -> None:
        """Add an answer to the usage: one that just came, or one of the same run from before it was resumed."""
        with self._lock:
            self.usage.requests += 1
            if answer.prompt_tokens is None and answer.completion_tokens is None:
                self.usage.uncounted += 1
                return
            read, written = answer.prompt_tokens or 0, answer.completion_tokens or 0
            self.usage.prompt_tokens += read
            self.usage.completion_tokens += written
            self.usage.cost += (read * self.settings["price_in"] + written * self.settings["price_out"]) / 1e6

    def report(self, always: bool = False, **more: float) -> None:
        """Tell the run what was used, at most once a second. ``more`` figures stand with it."""
        now = time.monotonic()
        self._more |= more
        if always or now - self._told >= 1:
            self._told = now
            used = {key: value for key, value in self.usage.to_dict().items() if value or "tokens" in key}
            self.ctx.metric(used.pop("requests", 0), used | self._more)

    def stop(self) -> None:
        """No request is begun or tried again from now on."""
        self._stop.set()

    # ---- the server

    def _open(self) -> Endpoint:
        from studio.chat import manager

        try:
            if not self.remote:
                self.ctx.log(f"Loading {self.ref}")
                self._ours = self._ours or not any(self.ref == e["base"] or self.ref in e["adapters"]
                                                   for e in manager.engines())
            steps = manager.opening(self.ref)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
                if self.ctx.stop_requested:
                    raise Stopped
        except StudioError as err:
            raise StudioError(self._clean(err.message), self._clean(err.hint), self.name) from None

    def _request(self, request: dict[str, Any]) -> list[Answer]:
        """Every try of one request."""
        tries = 0
        while True:
            self._http.wait(self._stopping)
            seen = self.endpoint
            try:
                answers = self._http.post(request)
            except Gone as err:
                tries += 1
                if self._stopping():
                    raise Stopped from None
                if tries > llm_http.GONE_TRIES:
                    raise StudioError(f"{self.endpoint.base_url} is not there any more: {err}",
                                      "Start it again, then resume this run: nothing is lost.", self.name) from err
                self._again(tries, None)
                self._reopen(seen)
                continue
            except Failed as err:
                tries += 1
                if self._stopping():
                    raise Stopped from None
                if err.fatal:
                    raise self._fatal(err) from err
                if err.retry and tries <= err.tries:
                    self._again(tries, err.wait)
                    continue
                raise self._given_up(err) from None
            with self._lock:
                self._in_a_row = 0
            for answer in answers:
                self.count(answer)
            return answers

    def _again(self, tries: int, wait: float | None) -> None:
        with self._lock:
            self.usage.retries += 1
        self._http.pause(tries, wait, self._stopping)
        if self._stopping():
            raise Stopped

    def _reopen(self, seen: Endpoint) -> None:
        """An engine of ours may have been ended to make room for another; it is started again, once for all
        threads."""
        with self._opening:
            if self.remote or self.endpoint is not seen:
                return
            self.endpoint = self._open()
            self._http.endpoint = self.endpoint

    def _given_up(self, err: Failed) -> Exception:
        with self._lock:
            self.usage.failed += 1
            self._in_a_row += err.retry  # a request that was refused says nothing about the server
            if not err.retry and self.usage.failed >= REFUSALS_AT_FIRST and not self.usage.requests:
                return self._fatal(err)
            if self._in_a_row < FAILURES_IN_A_ROW:
                return err
        return StudioError(f"{self.endpoint.base_url} failed {self._in_a_row} requests in a row, the last one so: "
                           f"{err}", "See to the server, then resume this run: nothing is lost.", self.name)

    def _fatal(self, err: Failed) -> StudioError:
        hint = "Check the address, the name of the model and the settings."
        if err.status in (401, 403):
            hint = f"Put its key into the environment as {address.key_name(self.endpoint.base_url)}, then resume."
        return StudioError(f"{self.endpoint.base_url} refuses: {err}", hint, self.name)

    def _clean(self, text: str) -> str:
        """A message without the key, which some servers repeat."""
        key = address.key_of(self.ref) if self.remote else ""
        return text.replace(key, "[key]") if key else text

    def _stopping(self) -> bool:
        return self._stop.is_set() or self.ctx.stop_requested

    def close(self) -> None:
        """Ends the connections, and an engine that was started for this client."""
        from studio.chat import manager

        self._stop.set()
        self._http.close()
        self.report(always=True)
        if self._ours:
            manager.unload(self.ref)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def derived(seed: int, key: str) -> int:
    """A seed of its own for every key, the same in every run."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{key}".encode("utf-8", "replace"), digest_size=4).digest()) >> 1
