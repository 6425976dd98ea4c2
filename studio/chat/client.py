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

from studio.errors import StudioError

# The first part is OpenAI's own; servers elsewhere may refuse the others, so those are only sent when they say
# something.
_COMMON = ("temperature", "top_p", "max_tokens", "seed", "stop")
_OTHERS = {"top_k": 0, "min_p": 0, "repetition_penalty": 1}
SETTINGS = (*_COMMON, *_OTHERS)


class EngineGone(Exception):
    """The server closed the connection in the middle, or was not there."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. ``remote`` is anything that is not an engine of this workspace."""

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    remote: bool = False


@dataclass
class Answer:
    """What came back so far. Times in seconds from the moment of asking."""

    text: str = ""
    finish: str = ""
    ttft: float | None = None
    seconds: float = 0.0
    tokens: int | None = None
    prompt_tokens: int | None = None
    tokens_per_second: float | None = None
    note: str = ""


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


def stream(endpoint: Endpoint, messages: list[dict[str, str]], settings: dict[str, Any],
           stop: Stop) -> Iterator[Answer]:
    """Yields the growing answer (the same object), at the latest each second while nothing comes from an engine.

    Raises:
        StudioError: the server refused, with its reason.
        EngineGone: the server is not there, or went away before it said that it was done.
    """
    answer, began, pieces = Answer(), time.perf_counter(), 0
    try:
        with _client(endpoint) as client, client.stream("POST", "/chat/completions",
                                                        json=_payload(endpoint, messages, settings)) as response:
            stop.watch(response)
            if response.status_code != 200:
                response.read()
                raise _refusal(endpoint, response)
            for line in response.iter_lines():
                if stop.asked.is_set():
                    break
                if line.startswith("data:"):
                    data = line[5:].strip()
                    if data == "[DONE]":
                        break
                    grew = _take(answer, json.loads(data))
                    if grew and answer.ttft is None:
                        answer.ttft = time.perf_counter() - began
                    pieces += grew
                elif not line.startswith(":"):
                    continue
                answer.seconds = time.perf_counter() - began
                yield answer
    except (httpx.TransportError, httpx.StreamError, ValueError) as err:
        if not stop.asked.is_set():
            if isinstance(err, httpx.TimeoutException):
                raise StudioError(f"{endpoint.base_url} does not answer.", "Try again, or check the server.",
                                  "model") from err
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
                        timeout=httpx.Timeout(10, read=180 if endpoint.remote else 60))


def _payload(endpoint: Endpoint, messages: list[dict[str, str]], settings: dict[str, Any]) -> dict[str, Any]:
    payload = {"model": endpoint.model, "messages": messages, "stream": True,
               "stream_options": {"include_usage": True}}
    for name in _COMMON:
        if settings.get(name) not in (None, "", []):
            payload[name] = settings[name]
    for name, nothing in _OTHERS.items():
        value = settings.get(name)
        if value is not None and not (endpoint.remote and value == nothing):
            payload[name] = value
    return payload


def _take(answer: Answer, data: dict[str, Any]) -> bool:
    """Adds one message of the stream; True if text came."""
    if error := data.get("error"):
        raise _told(error if isinstance(error, dict) else {"message": str(error)})
    usage, timings = data.get("usage") or {}, data.get("timings") or {}
    answer.tokens = usage.get("completion_tokens", answer.tokens)
    answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
    answer.tokens_per_second = timings.get("tokens_per_second", answer.tokens_per_second)
    answer.note = data.get("note", answer.note)
    grew = False
    for choice in data.get("choices") or []:
        if text := (choice.get("delta") or {}).get("content"):
            answer.text += text
            grew = True
        answer.finish = choice.get("finish_reason") or answer.finish
    return grew


def _told(error: dict[str, Any]) -> StudioError:
    return StudioError(str(error.get("message") or "The server failed."), str(error.get("hint") or ""),
                       str(error.get("param") or "") or None)


def _refusal(endpoint: Endpoint, response: httpx.Response) -> StudioError:
    try:
        error = response.json()["error"]
        told = _told(error if isinstance(error, dict) else {"message": str(error)})
    except (ValueError, KeyError, TypeError):
        told = StudioError(f"{endpoint.base_url} answered {response.status_code}.", "Check the address.", "model")
    if response.status_code in (401, 403) and endpoint.remote:
        from studio.chat.address import key_name

        told = StudioError(f"{endpoint.base_url} wants a key, or refuses the one it was given.",
                           f"Put it in the environment as {key_name(endpoint.base_url)} and start the studio again.",
                           "model")
    return told
