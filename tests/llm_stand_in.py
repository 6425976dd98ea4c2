"""A programmable stand-in of an OpenAI-compatible server, in threads of the test.

    with StandIn(lambda asked: f"Answer to {asked.last}") as server:
        server.faults += [Reply(status=429, headers={"Retry-After": "1"}), Reply(raw=b"<html>busy</html>")]
        ... recipe(generator=server.address) ...
    assert len(server.requests) == 7
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("amber bridge candle delta ember forest garden harbour island jacket kettle lantern meadow needle orchard "
         "pebble quarry ribbon saddle timber umbrella valley willow yonder zephyr anchor basket copper dolphin "
         "engine").split()


@dataclass
class Asked:
    """One request as it came."""

    body: dict[str, Any]
    key: str = ""
    number: int = 0
    choice: int = 0

    @property
    def messages(self) -> list[dict[str, str]]:
        return self.body["messages"]

    @property
    def last(self) -> str:
        """What the last message says."""
        return self.messages[-1]["content"]

    @property
    def seed(self) -> int:
        return self.body.get("seed") or 0

    def words(self, count: int = 12) -> str:
        """Words that follow from messages, seed and choice alone: the same question gives the same answer."""
        text = json.dumps([self.messages, self.seed, self.choice]).encode()
        found, block = [], b""
        for number in range(count):
            if not block:
                block = hashlib.sha256(text + bytes([number % 251])).digest()
            found.append(WORDS[block[0] % len(WORDS)])
            block = block[1:]
        return " ".join(found)


@dataclass
class Reply:
    """What goes back. With only ``text`` it is a good answer."""

    text: str = ""
    finish: Any = "stop"
    reasoning: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # the whole body, whatever it is
    delay: float = 0.0  # seconds before anything is sent
    cut: bool = False  # the connection closes in the middle of the body
    drop: bool = False  # the connection closes without a word
    usage: bool = True


class StandIn:
    """The server; use it as a context manager.

    Args:
        answer: Gives the text, or a :class:`Reply`, for each request; by default a few words.
        key: If given, requests without it are refused, and the refusal repeats what was sent, as some servers do.
        refuse: Names of settings that this server does not know and answers 400 to.
    """

    def __init__(self, answer: Callable[[Asked], str | Reply] | None = None, key: str = "",
                 models: tuple[str, ...] = ("stand-in",),
                 refuse: tuple[str, ...] = (), most_choices: int = 8):
        self.answer = answer or (lambda asked: f"{asked.words().capitalize()}.")
        self.key, self.models, self.refuse, self.most_choices = key, models, refuse, most_choices
        self.requests: list[Asked] = []
        self.faults: deque[Reply | None] = deque()  # taken before any answer; None lets one request through
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Listen; on the same port as before if it was stopped."""
        outer = self

        class Handler(_Handler):
            stand_in = outer

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def die(self) -> None:
        """Stop listening and break every connection."""
        if server := self._server:
            self._server = None
            server.shutdown()
            server.server_close()
            for connection in list(server.connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.die()

    def take(self, body: dict[str, Any], key: str) -> Reply | list[Reply]:
        """The replies to one request, one a choice."""
        with self._lock:
            asked = Asked(body, key, len(self.requests))
            self.requests.append(asked)
            fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            return fault
        if self.key and key != self.key:
            return Reply(status=401,
                         raw=json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}}).encode())
        for name in self.refuse:
            if name in body:
                error = {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model."}}
                return Reply(status=400, raw=json.dumps(error).encode())
        made = []
        for choice in range(min(self.most_choices, int(body.get("n") or 1))):
            answer = self.answer(Asked(body, key, asked.number, choice))
            made.append(answer if isinstance(answer, Reply) else Reply(answer))
        return made[0] if made[0].status != 200 or made[0].raw is not None else made


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *args: Any):
        self.connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        data = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.stand_in.models]}
        self._send(200, json.dumps(data).encode())

    def do_POST(self) -> None:
        server = self.stand_in
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with server._lock:
            server._at_once += 1
            server.most_at_once = max(server.most_at_once, server._at_once)
        try:
            found = server.take(body, key)
            replies = found if isinstance(found, list) else [found]
            if delay := max(reply.delay for reply in replies):
                time.sleep(delay)
        finally:
            with server._lock:
                server._at_once -= 1
        first = replies[0]
        if first.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif first.raw is not None or first.status != 200:
            self._send(first.status, first.raw if first.raw is not None else
                       json.dumps({"error": {"message": f"planned {first.status}"}}).encode(), first.headers,
                       first.cut)
        elif body.get("stream"):
            self._stream(first)
        else:
            self._send(200, json.dumps(_reply(body, replies)).encode(), first.headers, first.cut)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:len(data) // 2] if cut else data)
        self.wfile.flush()
        if cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _stream(self, reply: Reply) -> None:
        pieces = [{"choices": [{"index": 0, "delta": {"content": word + " "}}]} for word in reply.text.split(" ")]
        if reply.cut:
            pieces = pieces[:max(1, len(pieces) // 2)]
        else:
            pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})
        data = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces)
        data += "" if reply.cut else "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data.encode())
        self.close_connection = True


def _reply(body: dict[str, Any], replies: list[Reply]) -> dict[str, Any]:
    choices = []
    for number, reply in enumerate(replies):
        message = {"role": "assistant", "content": reply.text}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        choices.append({"index": number, "message": message, "finish_reason": reply.finish})
    made = {"id": "chatcmpl-1", "object": "chat.completion", "model": body.get("model"), "choices": choices}
    if replies[0].usage:
        read = sum(len(str(message["content"]).split()) for message in body["messages"])
        written = sum(len(reply.text.split()) for reply in replies)
        made["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return made
