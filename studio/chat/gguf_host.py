"""A GGUF file that answers: :class:`studio.chat.host.Host` as the server knows it, over llama.cpp."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.chat.client import Stop
from studio.chat.llama import Llama, sampling
from studio.chat.parts import thinking
from studio.chat.text import PLAIN_NOTE, PLAIN_STOP, merge_system, plain_prompt
from studio.chat.writing import FLUSH_SECONDS, Result, Sampling
from studio.errors import StudioError


class GGUFHost:
    """Loads a file, or the only one of a folder.

    Raises:
        StudioError: if it cannot be loaded; the message says why.
    """

    device = "cpu"

    def __init__(self, path: Path, threads: int):
        self.llama = Llama(path, threads)
        self.context, self.threads = self.llama.context, threads
        self.dtype = self.llama.facts["quantization"] or self.llama.facts["dtype"]

    @property
    def templated(self) -> bool:
        return self.llama.templated

    def adapters(self) -> list[str]:
        return []

    def add_adapter(self, name: str, path: str) -> None:
        """Raises: StudioError, as adapters belong to models that transformers loads."""
        raise StudioError("A GGUF file cannot take an adapter.", "Choose the model that it was made from.", "model")

    def encode(self, messages: list[dict[str, Any]], name: str | None = None,
               tools: list[dict[str, Any]] | None = None) -> tuple[list[int], str]:
        """(token ids, note) of a conversation that asks for the next answer; see :meth:`studio.chat.host.Host.encode`.

        Raises:
            StudioError: the template refuses the conversation or knows no tools, or it is longer than the context.
        """
        note = ""
        if tools and not self.llama.tools:
            raise StudioError("This model's chat template knows no tools.",
                              "Choose a model that was taught to call tools, or describe them in the system prompt.", "tools")
        if not self.templated:
            note, text = PLAIN_NOTE, plain_prompt(messages)
        else:
            try:
                text = self.llama.prompt(messages, tools=tools)
            except StudioError as err:
                merged = merge_system(messages)
                if merged == messages:
                    raise _refused(err) from err
                try:
                    text = self.llama.prompt(merged, tools=tools)
                except StudioError as again:
                    raise _refused(again) from again
                note = "This model's template has no system role; the system prompt goes before the first message."
        ids = self.llama.tokens(text)
        if not ids:
            raise StudioError("There is nothing to answer.", "Write a message first.", "messages")
        if len(ids) >= self.context:
            less = f" (of {self.llama.trained} that the model reads, as memory is short)" \
                if self.context < (self.llama.trained or 0) else ""
            raise StudioError(f"The conversation is {len(ids)} tokens long; this model can read {self.context}{less}.",
                              "Start a new chat, or shorten the messages or the system prompt.", "messages")
        return ids, note

    def thinks(self, ids: list[int]) -> bool:
        """Whether a prompt ends within a thought that its template began."""
        return thinking(self.llama.text(ids[-12:]))

    def piece(self, token: int, name: str | None = None) -> str:
        """The text of one token."""
        return self.llama.text([token])

    def generate(self, ids: list[int], asked: Sampling, emit: Callable[[str], None], cancelled: threading.Event,
                 name: str | None = None, note: str = "") -> Result:
        """Answers in the calling thread, giving text to ``emit`` as it comes; see :meth:`studio.chat.host.Host.generate`."""
        began = time.perf_counter()
        result, stop = Result(prompt_tokens=len(ids), note=note), Stop()
        threading.Thread(target=lambda: (cancelled.wait(), stop()), daemon=True).start()
        held, flushed, last = "", 0.0, {}
        if asked.logprobs is not None:
            result.logprobs = []
        for piece in self.llama.complete(ids, self._settings(asked, len(ids)), stop):
            now, last = time.perf_counter(), piece
            result.completion_tokens += len(piece.get("tokens") or ())
            for told in piece.get("completion_probabilities") or () if result.logprobs is not None else ():
                result.logprobs.append({"id": told["id"], "logprob": told["logprob"], "top": [
                    (one["id"], one["logprob"]) for one in told.get("top_logprobs") or ()][:asked.logprobs]})
            if piece.get("content"):
                result.ttft = result.ttft or now - began
                held += piece["content"]
                if asked.stop or now - flushed >= FLUSH_SECONDS:  # as of transformers' models: with a stop text each token goes at once
                    emit(held)
                    held, flushed = "", now
        if held:
            emit(held)
        result.seconds = time.perf_counter() - began
        if not last.get("stop"):
            if not cancelled.is_set():
                raise StudioError("llama.cpp broke off in the middle of the answer.", "Send again.")
            result.finish = "cancelled"
            return result
        result.finish = "length" if last.get("stop_type") == "limit" else "stop"
        result.completion_tokens = last.get("tokens_predicted", result.completion_tokens)
        if result.completion_tokens > 1:
            result.tokens_per_second = (last.get("timings") or {}).get("predicted_per_second")
        return result

    def _settings(self, asked: Sampling, prompt: int) -> dict[str, Any]:
        def pick(value: Any, default: Any) -> Any:
            return default if value is None else value

        chosen = sampling(pick(asked.temperature, 1.0), pick(asked.top_k, 0), pick(asked.top_p, 1.0),
                          pick(asked.min_p, 0.0), pick(asked.repetition_penalty, 1.0))
        chosen |= {"n_probs": max(1, asked.logprobs)} if asked.logprobs is not None else {}
        return chosen | {"n_predict": min(asked.max_tokens or 512, max(1, self.context - prompt)),
                         "seed": -1 if asked.seed is None else asked.seed % (2**32 - 1),
                         "stop": asked.stop + ([] if self.templated else PLAIN_STOP)}


def _refused(err: StudioError) -> StudioError:
    return StudioError(f"The model's chat template refuses this conversation: {err.message}",
                       "Messages must alternate between user and assistant.", "messages")
