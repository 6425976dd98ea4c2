"""One request to a chat server, and everything that can go wrong with it."""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from studio.chat import client as streamed
from studio.chat.client import Endpoint
from studio.errors import StudioError

# reason -> what it means; the tries after the first that are worth making
REASONS = {
    "timeout": "no answer came in time", "rate_limited": "the server asks for patience",
    "server_error": "the server failed", "not_json": "the server answered something that is no chat reply",
    "broken_off": "the reply broke off", "refused_request": "the server refuses this request",
    "no_access": "the server refuses access", "too_big": "the reply is far too big"}
_TRIES = {"timeout": 2, "rate_limited": 8, "server_error": 4, "not_json": 2, "broken_off": 3}
GONE_TRIES = 3
BACKOFF = 1.0  # seconds before the second try, doubled each time
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 600.0
MOST_BYTES = 32 << 20
_FINISH = {"eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "complete": "stop",
           "end": "stop", "max_tokens": "length", "max_length": "length", "safety": "content_filter"}
_OPTIONAL = ("seed", "top_p", "temperature", "stop", "n")
_THINK = re.compile(r"\s*<think(?:ing)?>(.*?)(?:</think(?:ing)?>|\Z)\s*", re.DOTALL)


@dataclass
class Answer:
    """One answer. ``finish``: ``stop`` | ``length`` | ``content_filter`` | ``tool_calls`` | empty if not told."""

    text: str
    reasoning: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cut(self) -> bool:
        return self.finish == "length"


class Failed(Exception):
    """No usable reply. ``reason`` is a key of :data:`REASONS`, ``detail`` what was seen, ``wait`` seconds asked
    for."""

    def __init__(self, reason: str, detail: str = "", status: int = 0, wait: float | None = None, fatal: bool = False):
        super().__init__(REASONS.get(reason, reason) + (f" ({detail})" if detail else ""))
        self.reason, self.detail, self.status, self.wait, self.fatal = reason, detail, status, wait, fatal
        self.tries = _TRIES.get(reason, 0)
        self.retry = bool(self.tries)


class Gone(Exception):
    """Nobody listens at the address."""


class Http:
    """Connections to one server, shared by threads, with a common pause when it asks for one."""

    def __init__(self, endpoint: Endpoint, timeout: float):
        self.endpoint = endpoint
        local = re.match(r"https?://(127\.|localhost|\[::1\])", endpoint.base_url) is not None
        self._http = httpx.Client(trust_env=not local, verify=endpoint.base_url.startswith("https"),
                                  timeout=httpx.Timeout(timeout, connect=10, pool=None),
                                  limits=httpx.Limits(max_connections=None))
        self._lock = threading.Lock()
        self._timeout = timeout
        self._not_before = 0.0
        self._left_out: set[str] = set()
        self._renamed = False

    def post(self, request: dict[str, Any]) -> list[Answer]:
        """One try.

        Raises:
            Failed: with the reason.
            Gone: nobody listens.
        """
        while True:
            payload = self._payload(request)
            status, headers, body = self._send(payload)
            if key := self.endpoint.key.encode():
                body = body.replace(key, b"[key]")  # some servers repeat it, and what they say is shown and logged
            if status == 200:
                return _answers(body, payload.get("max_tokens") or payload.get("max_completion_tokens") or 0)
            told = _told(body)
            if status in (400, 422) and self._adapt(payload, told):
                continue
            raise _refusal(status, headers, told)

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Wait for as long as the server asked all requests to wait."""
        while (left := self._not_before - time.monotonic()) > 0 and not stopping():
            time.sleep(min(left, 0.2))

    def pause(self, tries: int, wait: float | None, stopping: Callable[[], bool]) -> None:
        """Wait before another try; as long as the server asks for, then for all requests."""
        if wait is not None:
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + min(wait, LONGEST_RETRY_AFTER))
            return self.wait(stopping)
        end = time.monotonic() + min(LONGEST_PAUSE, BACKOFF * 2 ** (tries - 1)) * random.uniform(0.75, 1.25)
        while (left := end - time.monotonic()) > 0 and not stopping():
            time.sleep(min(left, 0.2))

    def close(self) -> None:
        self._http.close()

    def _payload(self, request: dict[str, Any]) -> dict[str, Any]:
        payload = {"model": self.endpoint.model, "stream": False}
        payload |= {key: value for key, value in request.items() if key not in self._left_out}
        if self._renamed:
            payload["max_completion_tokens"] = payload.pop("max_tokens")
        return payload

    def _send(self, payload: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Authorization": f"Bearer {self.endpoint.key}"} if self.endpoint.key else {}
        url = f"{self.endpoint.base_url}/chat/completions"
        deadline = time.monotonic() + self._timeout
        try:
            with self._http.stream("POST", url, json=payload, headers=headers) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise Failed("too_big")
                    if time.monotonic() > deadline:  # one that drips
                        raise Failed("timeout", f"{self._timeout:g} s")
                return response.status_code, response.headers, bytes(body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as err:
            raise Gone(str(err) or type(err).__name__) from err
        except httpx.TimeoutException as err:
            raise Failed("timeout", f"{self._timeout:g} s") from err
        except (httpx.TransportError, httpx.StreamError, httpx.DecodingError) as err:
            raise Failed("broken_off", str(err)[:200]) from err
        except (RuntimeError, httpx.InvalidURL) as err:  # closed under a request that was under way at a stop
            raise Failed("broken_off", str(err)[:200]) from err

    def _adapt(self, payload: dict[str, Any], told: str) -> bool:
        """Servers differ in which settings they know: leave out the optional one that a refusal names."""
        if "max_completion_tokens" in told and not self._renamed:
            self._renamed = True
            return True
        for name in _OPTIONAL:
            if name in payload and re.search(rf"\b{name}\b", told):
                self._left_out.add(name)
                return True
        return False


def _refusal(status: int, headers: httpx.Headers, told: str) -> Failed:
    detail = f"{status}: {told}" if told else str(status)
    if status in (408, 504, 524):
        return Failed("timeout", detail, status)
    if status == 429:
        # without money or quota patience does not help
        spent = re.search(r"insufficient_quota|billing|credit", told, re.IGNORECASE)
        return Failed("rate_limited", detail, status, _retry_after(headers), fatal=bool(spent))
    if status >= 500:
        return Failed("server_error", detail, status, _retry_after(headers))
    if status in (401, 402, 403, 404, 405, 410):
        return Failed("no_access", detail, status, fatal=True)
    if status < 400:
        return Failed("not_json", detail, status)
    return Failed("refused_request", detail, status)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds, from a number or a date."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _told(body: bytes) -> str:
    """What a refusal says, in one line."""
    text = body[:4000].decode("utf-8", "replace")
    try:
        error = json.loads(text)
        while isinstance(error, dict):
            error = next((error[key] for key in ("error", "message", "detail", "code") if error.get(key)), "")
        text = str(error)
    except ValueError:
        text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    return " ".join(text.split())[:300]


def _answers(body: bytes, most: int) -> list[Answer]:
    try:
        data = _streamed(body) if body.lstrip()[:5] == b"data:" else json.loads(body)
    except (ValueError, RecursionError) as err:
        start = body[:200].decode("utf-8", "replace").lstrip()
        broken = start.startswith("{") and not body.rstrip().endswith(b"}")
        raise Failed("broken_off" if broken or not start else "not_json", _told(body)[:120]) from err
    if isinstance(data, dict) and data.get("error"):
        raise Failed("server_error", _told(body))
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Failed("not_json", "a reply without choices")
    usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
    made = []
    for number, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise Failed("not_json", "a choice without a message")
        read = _number(usage.get("prompt_tokens"))
        written = _number(usage.get("completion_tokens"))
        if number and read is not None:  # the usage is that of all choices together
            read = 0
        if number and written is not None:
            written = 0
        finish = str(choice.get("finish_reason") or "").lower()
        finish = _FINISH.get(finish, finish)
        if finish != "content_filter" and most and len(choices) == 1 and written is not None and written >= most:
            finish = "length"  # some servers say stop whatever the cause
        text = _text(message.get("content"))
        thought = _text(message.get("reasoning_content") or message.get("reasoning"))
        if not text and message.get("refusal"):
            text, finish = _text(message["refusal"]), "content_filter"
        if match := _THINK.match(text):
            text, thought = text[match.end():], thought or match[1].strip()
        called = message.get("tool_calls")
        made.append(Answer(text.strip(), thought, finish, read, written,
                           [one for one in called if isinstance(one, dict)] if isinstance(called, list) else []))
    return made


def _streamed(body: bytes) -> dict[str, Any]:
    """The reply of a server that streams although it was asked not to, put together.

    Raises:
        Failed: it broke off.
    """
    answer, usage = streamed.Answer(), {}
    for line in body.decode("utf-8", "replace").splitlines():
        data = line[5:].strip() if line.startswith("data:") else ""
        if not data or data == "[DONE]":
            continue
        try:
            message = json.loads(data)
            usage = message.get("usage") or usage
            streamed.take("", answer, message)
        except (ValueError, AttributeError) as err:
            raise Failed("broken_off", data[:120]) from err
        except StudioError as err:
            raise Failed("server_error", err.message[:200]) from err
    if not answer.finish:
        raise Failed("broken_off", "a stream without an end")
    message = {"content": answer.text, "reasoning_content": answer.reasoning, "tool_calls": answer.tool_calls}
    return {"choices": [{"message": message, "finish_reason": answer.finish}], "usage": usage}


def _number(value: Any) -> int | None:
    fit = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    return int(value) if fit else None


def _text(content: Any) -> str:
    """Content as text; servers also send a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
