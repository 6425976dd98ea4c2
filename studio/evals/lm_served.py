"""GGUF files and servers of the OpenAI API, asked by lm-evaluation-harness. For the worker only.

llama.cpp reads the likelihood of a given text from its own logits. A server can tell it where its ``/completions`` gives the
log-probabilities of the prompt's tokens (``echo`` with ``logprobs``, as vLLM and llama-cpp-python do); most do not, and are asked tasks
with written answers only.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from lm_eval import utils
from lm_eval.api.model import LM, TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from studio.chat import address
from studio.errors import StudioError

MOST_CONTEXT = 8192  # tokens that a GGUF file is given room for, if its model reads so many
AT_ONCE = 4
TRIES = 4  # of one question to a server that is busy
ANSWER = 256  # tokens of an answer where the task does not say


class Refused(StudioError):
    """This model cannot be asked this kind of task; others can."""


class Chat(str):
    """A chat as text, with its messages."""

    messages: list[dict[str, str]]


class Gguf(TemplateLM):
    """A GGUF file, run by llama.cpp in this process.

    Args:
        path: The file or its folder.
    """

    likelihoods = True

    def __init__(self, path: Path, recipe: Any, watch: Any, threads: int):
        from studio.chat.llama import Llama

        super().__init__()
        self.watch, self.threads = watch, threads
        self.llama = Llama(path, threads, AT_ONCE, recipe.max_length or MOST_CONTEXT)
        self.max_length = min(self.llama.context, recipe.max_length or self.llama.context)
        self._logits: Any = None
        self._known: dict[str, list[int]] = {}
        self._stops: set[Any] = set()
        self._bos = self.llama.facts.get("bos")

    @property
    def templated(self) -> bool:
        return self.llama.templated

    @property
    def eot_token_id(self) -> int:
        return self.llama.facts["eos"]

    @property
    def prefix_token_id(self) -> int:
        return self.eot_token_id if self._bos is None else self._bos

    @property
    def tokenizer_name(self) -> str:
        return self.llama.file.name

    def close(self) -> None:
        if self._logits:
            self._logits.close()
        self.llama.close()

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.llama.prompt(chat_history, add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        self.watch.check()
        key = f"{add_special_tokens}{string}"
        if key not in self._known:
            ids = self.llama.tokens(string, add_special_tokens is not False)
            if len(ids) > 1 and ids[0] == ids[1] == self._bos:  # the template wrote one already
                ids = ids[1:]
            self._known[key] = ids
        return self._known[key]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.watch.begin(len(requests))
        self._known = {}
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        self.watch.begin(len(requests))
        made = []
        for request in requests:
            parts = utils.get_rolling_token_windows(token_list=self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id,
                                                    max_seq_len=self.max_length, context_len=1)
            windows = [(None, *part) for part in map(utils.make_disjoint_window, parts)]
            made.append(sum(value for value, _ in self._read(windows)))
            self.watch.step()
        return made

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False, **_: Any) -> list[tuple[float, bool]]:
        return self._read(requests, self.watch.step)

    def _read(self, requests: list[Any], tell: Any = lambda: None) -> list[tuple[float, bool]]:
        if self._logits is None:
            from studio.quantizers.llama_logits import Logits

            self._logits = Logits(self.llama.file, self.max_length, self.threads)
        made = []
        for _, context, rest in requests:
            self.watch.check()
            if len(rest) > self.max_length:
                raise StudioError(f"An answer of {len(rest)} tokens does not fit into this model's {self.max_length}.",
                                  "Leave this task out, or choose a model that reads more.", "max_length")
            self.watch.cut += len(context) + len(rest) > self.max_length + 1
            ids = (context + rest)[-(self.max_length + 1):][:-1]
            rows = self._logits.of(ids, len(ids) - len(rest)).astype(np.float64)
            rows -= rows.max(1, keepdims=True)
            chances = rows - np.log(np.exp(rows).sum(1, keepdims=True))
            places = np.arange(len(rest))
            made.append((float(chances[places, rest].sum()), bool((rows.argmax(1) == rest).all())))
            tell()
        return made

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        from studio.chat.client import Stop
        from studio.chat.llama import sampling

        self.watch.begin(len(requests))
        self._known = {}
        lock = threading.Lock()

        def one(request: Any) -> str:
            text, settings = request.args
            values = normalize_gen_kwargs(settings, ANSWER)
            until, most = handle_stop_sequences(values.pop("until", None), eos=None), values["max_gen_toks"]
            ids = self.tok_encode(text)
            if most >= self.max_length:
                raise StudioError(f"Answers of {most} tokens do not fit into this model's {self.max_length}.",
                                  "Set a smaller longest answer.", "max_gen_toks")
            cut = len(ids) > self.max_length - most
            warm = float(values.get("temperature") or 0.0) if values.get("do_sample") else 0.0
            stop = Stop()
            with lock:
                self._stops.add(stop)
            try:
                pieces = self.llama.complete(ids[-(self.max_length - most):], sampling(warm) | {"n_predict": most, "stop": until}, stop)
                said = "".join(piece.get("content", "") for piece in pieces)
            finally:
                with lock:
                    self._stops.discard(stop)
                    self.watch.cut += cut
            return postprocess_generated_text(said, until, None)

        return side_by_side(requests, one, self.watch, self.llama.slots, self._end)

    def _end(self) -> None:
        for stop in list(self._stops):
            stop()


class Address(LM):
    """A server of the OpenAI API.

    Args:
        ref: Its address, ``http://host/v1#model``.

    Raises:
        StudioError: nobody is there, or it serves no such model.
    """

    likelihoods = False  # in its chat template, which only the server knows
    templated = True
    tokenizer_name = "server"

    def __init__(self, ref: str, recipe: Any, ctx: Any, watch: Any):
        from studio.datasets import llm

        super().__init__()
        self.watch, self._heard = watch, False
        asked = SimpleNamespace(temperature=0.0, top_p=1.0, max_new_tokens=ANSWER, seed=recipe.torch_random_seed, concurrency=AT_ONCE,
                                timeout=300.0, price_in=0.0, price_out=0.0)
        self.client = llm.open(asked, ctx, ref=ref, name="models").__enter__()

    def close(self) -> None:
        self.client.__exit__(None, None, None)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        made = Chat("\n\n".join(f"{one['role']}: {one['content']}" for one in chat_history))
        made.messages = chat_history
        return made

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        from studio.datasets.llm import Failed
        from studio.datasets.step import Stopped as LlmStopped
        from studio.evals.lm_models import Stopped

        self.watch.begin(len(requests))
        words: dict[str, list[str]] = {}

        def asked() -> Any:
            for number, request in enumerate(requests):
                text, settings = request.args
                values = normalize_gen_kwargs(settings, ANSWER)
                words[str(number)] = handle_stop_sequences(values.pop("until", None), eos=None)
                over = {"max_new_tokens": values["max_gen_toks"], "stop": [one for one in words[str(number)] if one][:4] or None,
                        "temperature": float(values.get("temperature") or 0.0) if values.get("do_sample") else 0.0}
                yield str(number), getattr(text, "messages", [{"role": "user", "content": str(text)}]), over

        found: dict[str, str] = {}
        try:
            for key, answers in self.client.map(asked()):
                if isinstance(answers, Failed):
                    raise StudioError(f"{self.client.label} gave no usable answer: {answers}", "See to the server, then resume: "
                                      "finished tasks are kept.", "models")
                found[key] = postprocess_generated_text(answers[0].text, words[key], None)
                self.watch.step()
        except LlmStopped:
            raise Stopped from None
        return [found[str(number)] for number in range(len(requests))]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.watch.begin(len(requests))
        return side_by_side([request.args for request in requests], lambda pair: self._told(*pair), self.watch, AT_ONCE)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        self.watch.begin(len(requests))
        return side_by_side([request.args[0] for request in requests], lambda text: self._told("", text)[0], self.watch, AT_ONCE)

    def _told(self, context: str, rest: str) -> tuple[float, bool]:
        """(log-probability of ``rest`` behind ``context``, whether each of its tokens was the likeliest)."""
        server = self.client.endpoint
        told = self._completion({"model": server.model, "prompt": context + rest, "max_tokens": 1, "echo": True, "logprobs": 1,
                                 "temperature": 0})
        try:
            told = told["choices"][0]["logprobs"]
            tokens, values = told["tokens"], told["token_logprobs"]
            starts = told.get("text_offset") or [sum(map(len, tokens[:place])) for place in range(len(tokens))]
            tops = told.get("top_logprobs") or [None] * len(tokens)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._silent() from None
        first, end = starts[0], len(context) + len(rest)
        picked = [place for place, token in enumerate(tokens)
                  if starts[place] - first + len(token) > len(context) and starts[place] - first < end and values[place] is not None]
        if not picked or (context + rest)[:8] != "".join(tokens)[:len((context + rest)[:8])]:
            raise self._silent()  # it told of its answer, not of what it was given
        self._heard = True
        greedy = all(not tops[place] or max(tops[place].values()) <= values[place] + 1e-9 for place in picked)
        return float(sum(values[place] for place in picked)), greedy

    def _completion(self, body: dict[str, Any]) -> Any:
        """What the server answers, whatever it is; busy servers are asked again."""
        import httpx

        server = self.client.endpoint
        local = any(host in server.base_url for host in ("//127.", "//localhost", "//[::1]"))
        why = ""
        for tries in range(TRIES if self._heard else 2):
            self.watch.check()
            if tries:
                time.sleep(2.0 ** tries / 4)
            try:
                response = httpx.post(f"{server.base_url}/completions", json=body, timeout=300, trust_env=not local,
                                      headers={"Authorization": f"Bearer {server.key}"} if server.key else {})
            except httpx.TransportError as err:
                why = type(err).__name__
                continue
            if response.status_code in (401, 403):
                raise StudioError(f"{self.label} refuses access ({response.status_code}).", f"Put its key into the environment as "
                                  f"{address.key_name(server.base_url)}, then resume.", "models")
            if response.status_code == 429 or response.status_code >= 500:
                why = f"it answered {response.status_code}"
                continue
            try:
                return response.json()
            except ValueError:
                raise self._silent() from None
        if not self._heard:
            raise self._silent()  # it has answered chats, but never this kind of question
        raise StudioError(f"{self.label} does not answer any more: {why}", "See to the server, then resume: finished tasks are kept.",
                          "models")

    @property
    def label(self) -> str:
        return address.label(self.client.ref)

    def _silent(self) -> Refused:
        return Refused(f"{self.label} does not tell how likely a given text is, which this task needs.",
                       "Ask it tasks with written answers, or serve the model by a program whose /completions gives log-probabilities "
                       "of the prompt (echo).", "tasks")


def side_by_side(items: list[Any], work: Any, watch: Any, at_once: int, end: Any = lambda: None) -> list[Any]:
    """The work on every item, some at a time, in their order.

    Raises:
        Stopped: as asked; ``end`` is called first, to end what is under way.
    """
    made: list[Any] = []
    with ThreadPoolExecutor(at_once) as pool:
        under_way = [pool.submit(work, item) for item in items]
        try:
            for one in under_way:
                while not one.done():
                    watch.check()
                    threading.Event().wait(0.02)
                made.append(one.result())
                watch.step()
        except BaseException:
            for one in under_way:
                one.cancel()
            end()
            raise
    return made
