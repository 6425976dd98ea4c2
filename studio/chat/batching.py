"""Continuous batching: answers that are written at the same time share each step of the model.

A newcomer's prompt is read alone, in pieces, between the steps of the others; then its keys and values join theirs, aligned at the
right, and leave when its answer ends. Each answer keeps its own settings and its own random numbers, so it is what it would have
been alone. Answers of different adapters take turns, because a forward runs through one adapter.

transformers has continuous batching too. On a CPU it gave the right words here, but a batch has one seed and one list of
stop strings, and it plans its memory for a graphics card; ``tests/benchmarks/chat_batching.py`` measures both.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from studio.chat.writing import Writer

TURN_SECONDS = 0.05
CHUNK = 512  # tokens of a prompt that are read between two steps of the others
AHEAD = 128  # tokens that a cache has room for beyond what it holds
_BLIND = {"TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "MinPLogitsWarper", "TypicalLogitsWarper"}
log = logging.getLogger("studio.chat")


class Room(DynamicLayer):
    """A layer's keys and values with room ahead: the library's own copies all of them at each token."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._held: list[Any] = [None, None]
        self.keys = self._put(0, self.keys, key_states)
        self.values = self._put(1, self.values, value_states)
        return self.keys, self.values

    def _put(self, which: int, now: Any, new: Any) -> Any:
        length = now.shape[-2] + new.shape[-2]
        held = self._held[which]
        if held is None or held.shape[-2] < length or held.shape[0] != now.shape[0]:
            held = new.new_zeros((*new.shape[:2], length + AHEAD, new.shape[-1]))
            held[:, :, :now.shape[-2]] = now
            self._held[which] = held
        held[:, :, now.shape[-2]:length] = new
        return held[:, :, :length]

    def join(self, other: Room) -> None:
        """Takes the rows of another cache in, the shorter padded on the left."""
        self.keys, self.values = _joined(self.keys, other.keys), _joined(self.values, other.values)
        self._held = [None, None]

    def keep(self, rows: list[int], cut: int) -> None:
        """Keeps some rows, without their first ``cut`` places."""
        self.keys, self.values = self.keys[rows][:, :, cut:], self.values[rows][:, :, cut:]
        self._held = [None, None]


def _joined(one: Any, two: Any) -> Any:
    longest = max(one.shape[-2], two.shape[-2])
    made = one.new_zeros((one.shape[0] + two.shape[0], one.shape[1], longest, one.shape[3]))
    made[:one.shape[0], :, longest - one.shape[-2]:] = one
    made[one.shape[0]:, :, longest - two.shape[-2]:] = two
    return made


def cache(model: Any) -> Any | None:
    """An empty cache of our kind, or ``None`` where the model needs another one (sliding windows, states of a recurrence)."""
    plain = DynamicCache(config=model.config.get_text_config(decoder=True))
    if not plain.layers or any(type(layer) is not DynamicLayer for layer in plain.layers):
        return None
    plain.layers = [Room() for _ in plain.layers]
    return plain


def able(model: Any) -> bool:
    """Whether the model's answers can be written here at all; if not, ``generate`` writes them one at a time."""
    known = inspect.signature(model.forward).parameters
    if getattr(model, "_is_stateful", False) or getattr(model.config, "is_encoder_decoder", False):
        return False
    return {"input_ids", "attention_mask", "position_ids", "past_key_values"} <= set(known) and cache(model) is not None


class Row:
    """One answer being written.

    Args:
        ids: Its prompt.
        config: The library's settings of it; see :meth:`studio.chat.host.Host._config`.
        inner: PEFT's name of its adapter.
        seed: Of its random numbers; ``None`` takes any.
        top: Alternatives to tell with each token; ``None`` tells nothing.
    """

    def __init__(self, model: Any, ids: list[int], config: Any, writer: Writer, inner: str | None, seed: int | None,
                 top: int | None = None):
        self.ids, self.writer, self.inner, self.top = ids, writer, inner, top
        self.most = config.max_new_tokens
        whole = model._prepare_generation_config(config)[0]
        model._prepare_special_tokens(whole, True, device=model.device)
        self.processors = model._get_logits_processor(whole, input_ids_seq_length=len(ids), device=str(model.device))
        self.sample = bool(whole.do_sample)
        self.generator = torch.Generator(device=model.device)
        self.generator.manual_seed(seed) if seed is not None else self.generator.seed()
        blind = all(type(one).__name__ in _BLIND for one in self.processors)
        # answers with the same settings have their scores cut in one go, unless a setting looks at what was written
        self.alike = (self.sample, *(repr(sorted((k, str(v)) for k, v in vars(one).items())) for one in self.processors)) \
            if blind else None
        self.logprobs: list[dict[str, Any]] = []
        self.read = 0  # tokens of the prompt that were read
        self.cache: Any = None
        self.error: BaseException | None = None
        self.done = threading.Event()

    @property
    def tokens(self) -> list[int]:
        return self.writer.text.tokens

    def took(self, token: int) -> None:
        self.writer.token(token)

    @property
    def over(self) -> bool:
        return bool(self.writer.finish) or len(self.tokens) >= self.most


class Group:
    """Answers that run through the same weights, a row each."""

    def __init__(self, model: Any, inner: str | None):
        self.model, self.inner = model, inner
        self.rows: list[Row] = []
        self.pads: list[int] = []
        self.waiting: deque[Row] = deque()
        self.cache: Any = None
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}

    @property
    def idle(self) -> bool:
        return not self.rows and not self.waiting

    def advance(self) -> None:
        """Reads a piece of the first prompt that waits, then writes one token of each answer."""
        if self.waiting:
            row = self.waiting[0]
            try:
                if row.writer.cancelled.is_set():
                    row.writer.finish = "cancelled"
                elif (logits := self.prefill(row)) is not None:
                    choose([row], logits)
            except Exception as err:
                row.error = err
            if row.error or row.over:
                self.waiting.popleft()
                row.cache = None
                row.done.set()
            elif row.read == len(row.ids):
                self.waiting.popleft()
                self._join(row)
        if self.rows:
            try:
                self.step()
            except Exception as err:
                for row in self.rows:
                    row.error = err
                    row.done.set()
                self.rows, self.pads, self.cache = [], [], None
            self._leave()

    def prefill(self, row: Row) -> Any | None:
        """Reads the next piece of a prompt; after the last, gives the scores of the first token."""
        row.cache = row.cache or cache(self.model)
        piece = row.ids[row.read:row.read + CHUNK]
        device = self.model.device
        places = torch.arange(row.read, row.read + len(piece), device=device)[None]
        out = self.model(input_ids=torch.tensor([piece], device=device), position_ids=places, use_cache=True,
                         attention_mask=torch.ones((1, row.read + len(piece)), dtype=torch.long, device=device),
                         past_key_values=row.cache, **self._last)
        row.read += len(piece)
        return out.logits[:, -1] if row.read == len(row.ids) else None

    def _join(self, row: Row) -> None:
        if not self.rows:
            self.rows, self.pads, self.cache = [row], [0], row.cache
        else:
            length, new = self.cache.get_seq_length(), row.cache.get_seq_length()
            for layer, other in zip(self.cache.layers, row.cache.layers, strict=True):
                layer.join(other)
            self.pads = [pad + max(0, new - length) for pad in self.pads] + [max(0, length - new)]
            self.rows.append(row)
        row.cache = None

    def logits(self) -> Any:
        """Of each answer's next token, after its last was read. Shape: answers, vocabulary."""
        device, length = self.model.device, self.cache.get_seq_length()
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=device)
        if any(self.pads):
            pads = torch.tensor(self.pads, device=device)[:, None]
            mask, places = (torch.arange(length + 1, device=device)[None] >= pads).long(), length - pads
        else:
            mask, places = None, torch.full((len(self.rows), 1), length, device=device)
        return self.model(input_ids=last, position_ids=places, attention_mask=mask, past_key_values=self.cache,
                          use_cache=True).logits[:, -1]

    def step(self) -> None:
        choose(self.rows, self.logits())

    def _leave(self) -> None:
        stay = [n for n, row in enumerate(self.rows) if not row.over]
        if len(stay) == len(self.rows):
            return
        for row in self.rows:
            if row.over:
                row.done.set()
        cut = min((self.pads[n] for n in stay), default=0)
        if stay:
            for layer in self.cache.layers:
                layer.keep(stay, cut)
        else:
            self.cache = None
        self.rows, self.pads = [self.rows[n] for n in stay], [self.pads[n] - cut for n in stay]


def choose(rows: list[Row], logits: Any) -> None:
    """Gives each answer its next token, by its own settings and random numbers, exactly as ``generate`` does."""
    logits = logits.to(torch.float32)
    batches: dict[Any, list[int]] = {}
    for n, row in enumerate(rows):
        batches.setdefault(row.alike if row.alike is not None else n, []).append(n)
    for places in batches.values():
        first = rows[places[0]]
        scores = logits if len(places) == len(rows) else logits[places]
        seen = None
        if first.alike is None:
            seen = torch.tensor([first.ids + first.tokens], device=logits.device)
        scores = first.processors(seen, scores if first.alike is not None else scores.clone())
        if not first.sample:
            chosen = scores.argmax(-1).tolist()
        else:
            share = scores.softmax(-1)
            chosen = [int(torch.multinomial(share[at], 1, generator=rows[n].generator)) for at, n in enumerate(places)]
        for n, token in zip(places, chosen, strict=True):
            if rows[n].top is not None:
                rows[n].logprobs.append(told(logits[n], token, rows[n].top))
            rows[n].took(token)


def told(logits: Any, token: int, top: int) -> dict[str, Any]:
    """``{id, logprob, top: [(id, logprob)]}`` of one token under the model's own distribution."""
    logp = logits.log_softmax(-1)
    best = logp.topk(min(top, logp.shape[-1])) if top else None
    return {"id": token, "logprob": float(logp[token]),
            "top": list(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best else []}


class Batcher:
    """The one thread that writes the answers of a host. It holds the host's turn while it works, and gives it up to whoever
    else needs the model (an adapter being loaded, the decoding view) after a moment."""

    def __init__(self, host: Any):
        self.host = host
        self.groups: deque[Group] = deque()
        self._arrived: deque[Row] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._together: bool | None = None  # not known yet

    def write(self, row: Row) -> None:
        """Blocks until the answer is over.

        Raises:
            Exception: whatever the model failed with.
        """
        with self._news:
            self._arrived.append(row)
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
                self._thread.start()
        row.done.wait()
        if row.error:
            raise row.error

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._news:
                    while not self._arrived and not self.groups:
                        self._news.wait()
                with self.host._turn:
                    try:
                        self._quantum()
                    except Exception as err:  # told to all who wait; the thread goes on
                        log.exception("the answers under way failed")
                        rows = [row for group in self.groups for row in (*group.rows, *group.waiting)] + list(self._arrived)
                        self.groups.clear()
                        self._arrived.clear()
                        for row in rows:
                            row.error = err
                            row.done.set()

    def _quantum(self) -> None:
        began = time.perf_counter()
        while True:
            while self._arrived:
                self._admit(self._arrived.popleft())
            if not self.groups:
                return
            group = self.groups[0]
            self.host._select(group.inner)
            group.advance()
            if group.idle:
                self.groups.popleft()
            now = time.perf_counter()
            if now - began >= TURN_SECONDS:
                if self.groups and group is self.groups[0]:
                    self.groups.rotate(-1)
                if self.host._turn.wanted:
                    return
                began = now

    def _admit(self, row: Row) -> None:
        for group in self.groups:
            if group.inner == row.inner:
                if self._together is None:
                    self._together = together(self.host.model)
                if self._together:
                    group.waiting.append(row)
                    return
        group = Group(self.host.model, row.inner)
        group.waiting.append(row)
        self.groups.append(group)


def together(model: Any) -> bool:
    """Whether the model gives the same scores in company: two short made-up texts, one of them padded, against each alone.

    Asked once, when the first two answers meet. Where it does not (positions of its own kind, a mask that it ignores), answers
    take turns.
    """
    try:
        return _same(model)
    except Exception:
        log.exception("the model cannot be asked for two answers at once: they take turns")
        return False


@torch.inference_mode()
def _same(model: Any) -> bool:
    vocabulary = model.config.get_text_config().vocab_size
    alone, group = [], Group(model, None)
    for text in ([(7 * n + 3) % vocabulary for n in range(5)], [(11 * n + 1) % vocabulary for n in range(9)]):
        single = Group(model, None)
        for place in (single, group):
            row = _Trial(text)
            place.prefill(row)
            place._join(row)
        alone.append(single.logits()[0])
    both = group.logits()
    apart = max(float((both[n] - one).abs().max()) for n, one in enumerate(alone))
    size = max(float(one.abs().max()) for one in alone)
    fine = apart <= (1e-3 if model.dtype == torch.float32 else 0.1) * max(1.0, size)
    if not fine:
        log.warning("in company the model's scores differ by %.3g: answers take turns", apart)
    return fine


class _Trial:
    """A row of nobody's answer: reads its text, and its next token is its first one again."""

    def __init__(self, ids: list[int]):
        self.ids, self.tokens = ids, ids[:1]
        self.read, self.cache = 0, None
