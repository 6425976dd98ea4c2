"""Servers that stall, cut off, lie about what they send, or never end: each is told clearly, and what came is kept."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from studio.chat import client, session, wire
from studio.chat.client import Endpoint
from studio.datasets import llm_http
from studio.datasets.llm_http import Failed, Http
from studio.errors import StudioError

ASK = [{"role": "user", "content": "Name a fruit."}]
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "An apple."}, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 3, "completion_tokens": 3}}


def event(text: str = "", finish: str | None = None, **more) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}).encode() + b"\n\n"


STREAM = event("An ") + event("apple.") + event("", "stop") + b"data: [DONE]\n\n"


def reply(body: bytes, kind: str = "text/event-stream", status: str = "200 OK", length: int | None = None) -> bytes:
    size = f"Content-Length: {length}\r\n" if length is not None else ""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{size}Connection: close\r\n\r\n".encode() + body


@contextmanager
def server(answer: bytes | Callable[[socket.socket], None]) -> Iterator[str]:
    """The reference of a server that gives every question to ``/chat/completions`` the same bytes, or lets ``answer`` send."""
    listening, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                size = next((int(line[15:]) for line in head.decode().split("\r\n") if line.lower().startswith("content-length:")), 0)
                body = head.split(b"\r\n\r\n", 1)[1]
                while len(body) < size:
                    body += connection.recv(65536)
                if callable(answer):
                    answer(connection, ended)
                else:
                    connection.sendall(answer)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1#m"
    finally:
        ended.set()
        listening.close()


def ask(ref: str, **settings) -> tuple[str, str | StudioError, dict]:
    """(text that came, how it ended, the last event)."""
    last: dict = {"text": ""}
    try:
        for found in session.stream(ref, ASK, {"max_tokens": 20} | settings):
            last = found if "text" in found else last
        return last["text"], last["finish"], last
    except StudioError as err:
        return last["text"], err, last


def post(ref: str, timeout: float = 5) -> llm_http.Answer:
    http = Http(Endpoint(ref.partition("#")[0], "m", remote=True), timeout)
    try:
        return http.post({"messages": ASK, "max_tokens": 20})[0]
    finally:
        http.close()


def test_an_honest_stream_and_an_honest_answer():
    with server(reply(STREAM)) as ref:
        assert ask(ref)[:2] == ("An apple.", "stop")
    body = json.dumps(WHOLE).encode()
    with server(reply(body, "application/json", length=len(body))) as ref:
        assert post(ref).text == "An apple."


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain", "image/png"])
def test_one_piece_although_a_stream_was_asked_for_is_taken_and_said(kind):
    for indent in (None, 2):
        with server(reply(json.dumps(WHOLE, indent=indent).encode(), kind)) as ref:
            text, finish, last = ask(ref)
        assert (text, finish, last["tokens"]) == ("An apple.", "stop", 3) and "does not stream" in last["note"]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/event-stream"])
def test_a_stream_although_none_was_asked_for_is_put_together(kind):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n'
    with server(reply(event("<think>hm</think>An ") + event("apple.") + event("", "stop") + usage + b"data: [DONE]\n\n", kind)) as ref:
        answer = post(ref)
    assert (answer.text, answer.reasoning, answer.finish, answer.completion_tokens) == ("An apple.", "hm", "stop", 4)
    with server(reply(STREAM, kind)) as ref:
        assert ask(ref)[:2] == ("An apple.", "stop")
    with server(reply(event("An ap"), kind)) as ref, pytest.raises(Failed) as err:
        post(ref)
    assert err.value.reason == "broken_off"


@pytest.mark.parametrize("kind", ["text/html", "text/event-stream", "application/json"])
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "502 Bad Gateway"])
def test_a_web_page_is_called_one(kind, status):
    page = b"<!DOCTYPE html><html><head><title>Sign in\n here</title></head><body>" + b"<p>x</p>" * 2000 + b"</body></html>"
    with server(reply(page, kind, status)) as ref:
        text, err, _ = ask(ref)
        assert text == "" and "web page ('Sign in here')" in err.message and err.field == "model" and err.hint
        with pytest.raises(Failed) as failed:
            post(ref)
    assert failed.value.reason in ("not_json", "no_access", "server_error") and "<" not in failed.value.detail


@pytest.mark.parametrize("body, word", [(b"Hello, I am a mail server.\r\n", "no chat reply: Hello"), (b"\x00\xff\xfe\x89PNG" * 5, "no chat reply"),
                                        (b"[1, 2, 3, 4, 5]", "no chat reply"), (b"data: 3\n\n", "no chat reply"),
                                        (b'data: {"choices": [3]}\n\n', "no chat reply"),
                                        (b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', "no chat reply"),
                                        (b'{"error": {"message": "no such model"}}', "no such model")])
def test_anything_else_is_shown(body, word):
    with server(reply(body)) as ref:
        assert word in ask(ref)[1].message


@pytest.mark.parametrize("body", [b"", event("An ap"), event("An ap") + b'data: {"choices": [{"del', b'{"choices": [{"mess', b": alive\n\n"])
def test_what_breaks_off_is_told_and_kept(body):
    with server(reply(body)) as ref:
        text, err, _ = ask(ref)
    assert "before the answer was whole" in err.message and text == ("An ap" if b"An ap" in body else "")


def test_a_stall_is_told_before_and_within_the_answer(monkeypatch):
    monkeypatch.setattr(client, "READ_SECONDS", (0.6, 0.6))
    with server(lambda connection, ended: ended.wait(10)) as ref:
        began = time.monotonic()
        assert "does not answer" in ask(ref)[1].message and time.monotonic() - began < 5
        with pytest.raises(Failed) as err:
            post(ref, timeout=0.6)
        assert err.value.reason == "timeout"

    def half(connection, ended) -> None:
        connection.sendall(reply(event("An ap")))
        ended.wait(10)

    with server(half) as ref:
        text, err, _ = ask(ref)
    assert text == "An ap" and "fell silent in the middle" in err.message


def test_signs_of_life_without_a_word_end(monkeypatch):
    monkeypatch.setattr(wire, "SILENT_SECONDS", 0.6)

    def alive(connection, ended) -> None:
        connection.sendall(reply(b""))
        while not ended.wait(0.05):
            connection.sendall(b": still here\n\n")

    with server(alive) as ref:
        began = time.monotonic()
        assert "silent" in ask(ref)[1].message and time.monotonic() - began < 5


def test_an_answer_without_end_is_ended(monkeypatch):
    def forever(piece: bytes) -> Callable:
        def send(connection, ended) -> None:
            connection.sendall(reply(b""))
            while not ended.is_set():
                connection.sendall(piece)
        return send

    with server(forever(event("apple " * 50))) as ref:
        text, err, _ = ask(ref, max_tokens=100)
        assert "does not stop" in err.message and 100 < len(text) < 100 * 64 + client.LONG_THOUGHT + 1000
    monkeypatch.setattr(wire, "MOST_BYTES", 1 << 20)
    for piece in (b"data: " + b"a" * 5000, b"{" + b" " * 5000):
        with server(forever(piece)) as ref:
            assert "does not end" in ask(ref)[1].message
    monkeypatch.setattr(llm_http, "MOST_BYTES", 1 << 20)
    with server(forever(b" " * 5000)) as ref, pytest.raises(Failed) as err:
        post(ref)
    assert err.value.reason == "too_big"


def test_an_engine_that_thinks_long_is_waited_for(monkeypatch):
    """Its signs of life are believed: a long prompt on a slow machine takes minutes."""
    monkeypatch.setattr(wire, "SILENT_SECONDS", 0.2)

    def slow(connection, ended) -> None:
        connection.sendall(reply(b""))
        for _ in range(8):
            connection.sendall(b": working\n\n")
            time.sleep(0.1)
        connection.sendall(STREAM)

    with server(slow) as ref:
        *_, last = client.stream(Endpoint(ref.partition("#")[0], "m", "key"), ASK, {}, client.Stop())
    assert last.text == "An apple." and last.finish == "stop"


def test_tool_calls_and_thoughts_of_other_servers_come_through():
    call = [{"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a"'}}]
    rest = [{"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1, "id": "c2", "function": {"name": "now", "arguments": "{}"}}]
    made = b"".join(b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode() + b"\n\n" for delta, finish in [
        ({"reasoning_content": "hm "}, None), ({"reasoning": "yes"}, None), ({"tool_calls": call}, None), ({"tool_calls": rest}, "tool_calls")])
    with server(reply(made)) as ref:
        text, finish, last = ask(ref)
    assert (text, finish, last["reasoning"]) == ("", "tool_calls", "hm yes")
    assert [one["function"] for one in last["tool_calls"]] == [{"name": "add", "arguments": '{"a": 1}'}, {"name": "now", "arguments": "{}"}]
    whole = {"choices": [{"message": {"content": None, "tool_calls": last["tool_calls"]}, "finish_reason": "tool_calls"}]}
    with server(reply(json.dumps(whole).encode(), "application/json")) as ref:
        assert post(ref).tool_calls == last["tool_calls"]
