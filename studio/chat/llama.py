"""llama.cpp on one GGUF file, by xllamacpp: its own server behind a key of its own, asked over loopback.

Whoever uses this is a process made for it: a file that brings llama.cpp down must not take anything else along. The file
is looked through by :mod:`studio.gguf.read` before llama.cpp sees it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from studio.chat.client import Stop
from studio.errors import StudioError
from studio.gguf import read

SLOTS = 4  # answers that are written at the same time; more wait
SHARE = 4  # the part of free memory that the answers' memory of their context may take: a quarter
LEAST = 512  # tokens of a conversation below which nobody can work
_WHY = re.compile(r"error loading model: (.+)")


class Llama:
    """A loaded file.

    Attributes:
        context: Tokens of one conversation, as many as the model reads and memory allows.
        trained: Tokens the model was made for.
        facts: See :func:`studio.gguf.read.facts`.

    Raises:
        StudioError: broken, cut short, of a kind that llama.cpp does not know, or too large.
    """

    def __init__(self, path: Path, threads: int, slots: int = SLOTS, context: int | None = None):
        import xllamacpp

        self.file = read.only(path) if path.is_dir() else path
        self.facts = read.facts(self.file)
        self.threads, self.trained = threads, self.facts["context"]
        self.slots, self.context = _room(self.file, self.trained, slots, context)
        self._key = secrets.token_urlsafe(24)
        params = xllamacpp.CommonParams()
        params.model.path = str(self.file)
        params.n_ctx, params.n_parallel = self.context * self.slots, self.slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_threads_http = self.slots + 2
        params.api_keys = [self._key]
        params.ui = params.fit_params = params.prefill_assistant = params.endpoint_slots = False
        params.verbosity = 1  # errors only
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # where it fails, it would start a debugger on itself
        said = _said()
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, MemoryError) as err:
            why = next(iter(_WHY.findall(said())), "") or str(err)
            if "alloc" in why:
                raise StudioError(f"{self.file.name} does not fit into memory.",
                                  "Unload other models, or choose a smaller variant.", "model") from err
            raise StudioError(f"llama.cpp cannot load {self.file.name}: {why[:200]}",
                              "Make or download the file again; a newer kind may need a newer llama.cpp.", "model") from err
        # Its server closes a connection after so many requests or seconds, at times just when the next one is sent.
        self._http = httpx.Client(base_url=self._server.listening_address, trust_env=False, verify=False,
                                  headers={"Authorization": f"Bearer {self._key}"}, timeout=httpx.Timeout(10, read=None),
                                  limits=httpx.Limits(max_keepalive_connections=0))

    @property
    def templated(self) -> bool:
        return self.facts["chat_template"]

    def close(self) -> None:
        """Frees the model's memory."""
        self._http.close()
        self._server = None

    @property
    def tools(self) -> bool:
        """Whether its chat template writes tools."""
        return "tools" in str(self.facts["template"] or "")

    def prompt(self, messages: list[dict[str, Any]], ask: bool = True, tools: list[dict[str, Any]] | None = None) -> str:
        """A conversation in the file's chat template, as llama.cpp writes it.

        Args:
            ask: End with the words after which an answer begins.
            tools: What the model may call.

        Raises:
            StudioError: the template refuses it.
        """
        messages = [_as_sent(message) for message in messages]
        return self._post("/apply-template", messages=messages, add_generation_prompt=ask,
                          **({"tools": tools} if tools else {}))["prompt"]

    def text(self, ids: list[int]) -> str:
        """The text of token ids."""
        return self._post("/detokenize", tokens=ids)["content"]

    def tokens(self, text: str, start: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            start: With the start token before it, where the model has one.
        """
        return self._post("/tokenize", content=text, add_special=start, parse_special=True)["tokens"]

    def complete(self, ids: list[int], settings: dict[str, Any], stop: Stop | None = None) -> Iterator[dict[str, Any]]:
        """Continues ``ids``: pieces with ``content`` as they come, the last with ``stop_type``, ``tokens_predicted`` and
        ``timings``. Ends early when ``stop`` is called from another thread.

        Raises:
            StudioError: llama.cpp refused or failed.
        """
        stop = stop or Stop()
        body = {"prompt": ids, "stream": True, "cache_prompt": True, "return_tokens": True, "repeat_last_n": self.context,
                **settings}
        try:
            with self._http.stream("POST", "/completion", json=body) as response:
                stop.watch(response)
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response)
                for line in response.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        piece = json.loads(line[6:])
                        if "error" in piece:
                            raise StudioError(f"llama.cpp failed: {piece['error'].get('message')}", "Try again.")
                        yield piece
                    elif line.startswith("error: "):
                        raise StudioError(f"llama.cpp failed: {line[7:300]}", "Try again.")
        except httpx.HTTPError:
            if not stop.asked.is_set():
                raise

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        response = self._http.post(path, json=body)
        if response.status_code != 200:
            raise _refusal(response)
        return response.json()


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the arguments of its calls as text again, which is what llama.cpp's door takes."""
    calls = [call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
             if isinstance((call.get("function") or {}).get("arguments"), (dict, list)) else call
             for call in message.get("tool_calls") or []]
    return message | {"tool_calls": calls} if calls else message


def sampling(temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0,
             repetition_penalty: float = 1.0) -> dict[str, Any]:
    """llama.cpp's settings that choose tokens as transformers does: the same filters in the same order, no others."""
    return {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repeat_penalty": repetition_penalty,
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"]}


def _refusal(response: httpx.Response) -> StudioError:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"it answered {response.status_code}"
    return StudioError(f"llama.cpp refuses this: {message[:300]}", "Shorten or change the conversation.", "messages")


def _room(file: Path, trained: int | None, slots: int, context: int | None) -> tuple[int, int]:
    """(answers at once, tokens of each) for which memory will do."""
    head = read.read(file)
    heads = head.number("attention.head_count") or 1
    width = head.number("attention.key_length") or (head.number("embedding_length") or 0) // heads
    token = int((head.number("block_count") or 1) * (head.number("attention.head_count_kv") or heads) * width * 2 * 2) or 1
    most = max(LEAST, psutil.virtual_memory().available // SHARE // token)
    wanted = min(context or trained or 4096, trained or 1 << 30)
    slots = max(1, min(slots, most // wanted))
    return slots, int(max(min(wanted, LEAST), min(wanted, most // slots)))


def _said() -> Callable[[], str]:
    """Tells what was written to standard error since, where that is a file (as of an engine and of a proof)."""
    began = os.fstat(2)

    def text() -> str:
        if not stat.S_ISREG(began.st_mode):
            return ""
        try:
            with open("/proc/self/fd/2", "rb") as file:
                file.seek(began.st_size)
                return file.read(100_000).decode("utf-8", "replace")
        except OSError:
            return ""

    return text
