"""Asking any OpenAI-compatible server, streamed. No torch, no knowledge of who answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from studio.chat import wire
from studio.chat.wire import Gone as EngineGone
from studio.errors import StudioError

__all__ = ["SETTINGS", "TOOLS", "Answer", "Endpoint", "EngineGone", "Stop", "models", "stream", "take"]

# The first part is OpenAI's own; servers elsewhere may refuse the others, so those are only sent when they say
# something.
_COMMON = ("temperature", "top_p", "max_tokens", "seed", "stop")
_OTHERS = {"top_k": 0, "min_p": 0, "repetition_penalty": 1}
READ_SECONDS = (60.0, 180.0)  # without a byte: from an engine, which gives a sign of life each second, and from elsewhere
MOST_LETTERS = 64  # per token that was asked for, and a long thought besides: what writes on and on is ended
LONG_THOUGHT = 200_000
SETTINGS = (*_COMMON, *_OTHERS)
TOOLS = ("tools", "tool_choice")


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. ``remote`` is anything that is not an engine of this workspace."""

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    remote: bool = False


@dataclass
class Answer:
    """What came back so far. Times in seconds from the moment of asking.

    Attributes:
        finish: ``stop``, ``length``, ``tool_calls``, ``stopped`` by the asker, or what else a server says.
        reasoning: What the model thought, where the server tells it apart from the text.
        tool_calls: In OpenAI's form, ``{id, type, function: {name, arguments}}``; the arguments are JSON in a string.
    """

    text: str = ""
    finish: str = ""
    ttft: float | None = None
    seconds: float = 0.0
    tokens: int | None = None
    prompt_tokens: int | None = None
    tokens_per_second: float | None = None
    note: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)


class Stop:
    """Ends a stream from another thread, also one that waits for its first word."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._socket: Any = None

    def __call__(self) -> None:
        self.asked.set()
        if (sock := self._socket) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def watch(self, response: httpx.Response) -> None:
        stream = response.extensions.get("network_stream")
        self._socket = stream.get_extra_info("socket") if stream else None
        if self.asked.is_set():
            self()


def stream(endpoint: Endpoint, messages: list[dict[str, Any]], settings: dict[str, Any],
           stop: Stop) -> Iterator[Answer]:
    """Yields the growing answer (the same object), at the latest each second while nothing comes from an engine.

    Raises:
        StudioError: the server refused, with its reason.
        EngineGone: the server is not there, or went away before it said that it was done.
    """
    answer, began, pieces = Answer(), time.perf_counter(), 0
    most = LONG_THOUGHT + MOST_LETTERS * int(settings.get("max_tokens") or 100_000)
    try:
        with _client(endpoint) as client, client.stream("POST", "/chat/completions",
                                                        json=_payload(endpoint, messages, settings)) as response:
            stop.watch(response)
            if response.status_code != 200:
                response.read()
                raise _refusal(endpoint, response)
            for line in wire.lines(endpoint.base_url, response, not endpoint.remote):
                if stop.asked.is_set():
                    break
                if line.startswith("data:"):
                    if (data := line[5:].strip()) == "[DONE]":
                        break
                    grew = take(endpoint.base_url, answer, wire.parsed(endpoint.base_url, data))
                    if grew and answer.ttft is None:
                        answer.ttft = time.perf_counter() - began
                    pieces += grew
                    if len(answer.text) + len(answer.reasoning) > most:
                        raise StudioError(f"{endpoint.base_url} does not stop: it wrote far more than it was asked for.",
                                          "What came is kept. Check that server.", "model")
                elif line.startswith("{"):
                    take(endpoint.base_url, answer, wire.parsed(endpoint.base_url, line))
                    answer.note = "This server does not stream: the answer came in one piece."
                elif not line.startswith(":"):
                    continue
                answer.seconds = time.perf_counter() - began
                yield answer
    except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as err:
        if not stop.asked.is_set():
            if isinstance(err, httpx.TimeoutException):
                raise wire.silent(endpoint.base_url, bool(answer.text or answer.reasoning)) from err
            raise EngineGone(str(err)) from err
    answer.seconds = time.perf_counter() - began
    if stop.asked.is_set():
        answer.finish = "stopped"
    elif not answer.finish:
        raise EngineGone("the answer broke off")
    if answer.tokens is None and pieces and not answer.tokens_per_second:
        answer.tokens = pieces  # servers that send no usage send a piece per token
    if answer.tokens_per_second is None and answer.tokens and answer.ttft is not None and answer.tokens > 1:
        answer.tokens_per_second = (answer.tokens - 1) / max(1e-6, answer.seconds - answer.ttft)
    yield answer


def models(endpoint: Endpoint) -> list[str]:
    """Names of the models that the server serves.

    Raises:
        StudioError: it is not there or does not speak this API.
    """
    try:
        with _client(endpoint) as client:
            response = client.get("/models", timeout=10)
            if response.status_code != 200:
                raise _refusal(endpoint, response)
            return [str(item["id"]) for item in response.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as err:
        raise StudioError(f"There is no chat server at {endpoint.base_url}.",
                          "It should speak the OpenAI API, e.g. http://127.0.0.1:8000/v1", "model") from err


def _client(endpoint: Endpoint) -> httpx.Client:
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    # an engine of ours is plain HTTP: reading the certificates of the world would only cost its first word 30 ms
    return httpx.Client(base_url=endpoint.base_url, headers=headers, trust_env=endpoint.remote, verify=endpoint.remote,
                        timeout=httpx.Timeout(10, read=READ_SECONDS[endpoint.remote]))


def _payload(endpoint: Endpoint, messages: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    payload = {"model": endpoint.model, "messages": messages, "stream": True,
               "stream_options": {"include_usage": True}}
    for name in (*_COMMON, *TOOLS):
        if settings.get(name) not in (None, "", []):
            payload[name] = settings[name]
    for name, nothing in _OTHERS.items():
        value = settings.get(name)
        if value is not None and not (endpoint.remote and value == nothing):
            payload[name] = value
    return payload


def take(url: str, answer: Answer, data: dict[str, Any]) -> bool:
    """Adds one message of the stream, or an answer that came in one piece; True if text came."""
    if error := data.get("error"):
        raise _told(error if isinstance(error, dict) else {"message": str(error)})
    try:
        usage, timings = data.get("usage") or {}, data.get("timings") or {}
        answer.tokens = usage.get("completion_tokens", answer.tokens)
        answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
        answer.tokens_per_second = timings.get("tokens_per_second", answer.tokens_per_second)
        answer.note = data.get("note", answer.note)
        grew = False
        for choice in data.get("choices") or []:
            delta = choice.get("delta") or choice.get("message") or {}
            if text := delta.get("content"):
                answer.text += text
                grew = True
            if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                answer.reasoning += thought
                grew = True
            for call in delta.get("tool_calls") or []:
                _call(answer.tool_calls, call)
                grew = True
            answer.finish = choice.get("finish_reason") or answer.finish
    except (AttributeError, TypeError) as err:
        raise wire.alien(url, json.dumps(data).encode()) from err
    return grew


def _call(calls: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """Adds a piece of a tool call; servers send the arguments bit by bit."""
    index = new.get("index")
    index = index if isinstance(index, int) and 0 <= index < len(calls) else len(calls)
    if index == len(calls):
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], new.get("function") or {}
    call["id"] = new.get("id") or call["id"]
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""


def _told(error: dict[str, Any]) -> StudioError:
    return StudioError(str(error.get("message") or "The server failed."), str(error.get("hint") or ""),
                       str(error.get("param") or "") or None)


def _refusal(endpoint: Endpoint, response: httpx.Response) -> StudioError:
    try:
        error = response.json()["error"]
        told = _told(error if isinstance(error, dict) else {"message": str(error)})
    except (ValueError, KeyError, TypeError):
        told = wire.alien(endpoint.base_url, response.content)
        told = StudioError(f"{told.message} Its status was {response.status_code}.", told.hint, "model")
    if response.status_code in (401, 403) and endpoint.remote:
        from studio.chat.address import key_name

        told = StudioError(f"{endpoint.base_url} wants a key, or refuses the one it was given.",
                           f"Put it in the environment as {key_name(endpoint.base_url)} and start the studio again.",
                           "model")
    return told
