"""A webhook and an e-mail when a run ends: once, from a process of its own, with no secret anywhere."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import stat
import threading
import time

import pytest

from studio import notify, settings
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.supervisor import close


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class _Smtp(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as one mail needs."""

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline():
            word = line.strip().upper()
            if word.startswith(b"DATA"):
                self.say("354 go on")
                text = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    text += part
                self.server.mails.append(text.decode())
                self.say("250 taken")
            elif word.startswith(b"AUTH"):
                self.say("535 no" if self.server.refuse else "235 welcome")
            else:
                self.say("250-here\r\n250 AUTH PLAIN" if word.startswith(b"EHLO") else "221 bye" if word == b"QUIT" else "250 ok")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


def _serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def hook():
    made = _serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hook))
    made.calls, made.status = [], 200
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def smtp():
    made = _serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp))
    made.mails, made.refuse = [], False
    yield made
    made.shutdown()
    made.server_close()


def _address(server, path="/hook/s3cret"):
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def _mail(server):
    return {"to": "me@example.org", "host": "127.0.0.1", "port": server.server_address[1], "starttls": False}


def test_the_end_of_a_run_is_told_once_and_nothing_waits_for_it(jobs, hook, smtp):
    notify.save({"webhook": _address(hook), **_mail(smtp)})
    run = jobs.submit("fail")
    jobs.over(run)
    jobs.until(lambda: hook.calls and smtp.mails, "webhook and mail")
    assert close(store.get(run), "failed") is None  # a second closer changes nothing
    assert notify.send(run) == []  # nor does a second sender
    (path, body), = hook.calls
    assert path == "/hook/s3cret" and body["run"] == run and body["state"] == "failed"
    assert body["text"] == body["content"] and "The data is bad." in body["text"]
    assert len(smtp.mails) == 1 and "Subject: Atelier: " in smtp.mails[0] and "The data is bad." in smtp.mails[0]
    for file in settings.run_dir(run).rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes(), file
    assert stat.S_IMODE(os.stat(settings.home() / "notify.json").st_mode) == 0o600


def test_a_resumed_run_is_told_of_again_and_a_small_job_is_not(jobs, hook):
    notify.save({"webhook": _address(hook)})
    run = jobs.submit("fail")
    jobs.over(run)
    jobs.until(lambda: hook.calls, "the first call")
    store.resume(run)
    jobs.over(run)
    jobs.over(jobs.submit("emit", kind="setup", steps=1))
    jobs.until(lambda: len(hook.calls) == 2, "two calls")
    assert {body["run"] for _, body in hook.calls} == {run}


def test_a_webhook_that_does_not_answer_holds_up_nobody(jobs):
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as deaf:  # takes no connection
        notify.save({"webhook": _address(deaf)})
        began = time.monotonic()
        notify.later({"id": "rabcdefghij", "kind": "sft", "owner": None})
        assert time.monotonic() - began < 2
        for child in notify._senders:
            child.kill()
            child.wait()


def test_settings_show_no_secret_and_what_is_not_named_stays(home):
    shown = notify.save({"webhook": "https://hooks.example.org/T00/s3cret?key=1"})
    assert shown["webhook"] == "https://hooks.example.org/…" and "s3cret" not in json.dumps(shown)
    notify.save({"to": "me@example.org", "host": "smtp.example.org"})
    assert notify.load()["webhook"].endswith("s3cret?key=1") and notify.load()["to"] == "me@example.org"
    assert notify.load("alice")["webhook"] == ""  # everybody has their own
    assert notify.save({"webhook": ""})["webhook"] == ""


@pytest.mark.parametrize(("values", "field"), [
    ({"webhook": "ftp://example.org/x"}, "webhook"), ({"webhook": "file:///etc/passwd"}, "webhook"),
    ({"webhook": "https://me:pw@example.org/"}, "webhook"), ({"webhook": "https://example.org/a\r\nX: 1"}, "webhook"),
    ({"to": "nobody", "host": "smtp.example.org"}, "to"), ({"to": "a@b.c\nBcc: d@e.f", "host": "smtp.example.org"}, "to"),
    ({"to": "a@b.c", "host": "smtp example"}, "host"), ({"to": "a@b.c", "host": "smtp.example.org", "port": 99999}, "port")])
def test_what_cannot_be_used_is_refused_in_its_field(home, values, field):
    with pytest.raises(StudioError) as refused:
        notify.save(values)
    assert refused.value.field == field


@pytest.mark.parametrize("address", ["http://example.org/x", "https://127.0.0.1/x", "https://localhost/x", "https://10.0.0.1/",
                                     "https://169.254.169.254/latest", "https://[::1]/x", "https://[::ffff:10.0.0.1]/x"])
def test_a_space_calls_public_addresses_only(home, monkeypatch, address):
    monkeypatch.setenv("SPACE_ID", "someone/atelier")
    with pytest.raises(StudioError):
        notify.save({"webhook": address}, "alice")


def test_a_name_that_turns_inside_after_the_check_is_not_called(home, monkeypatch, hook):
    """DNS rebinding: what is connected to is what was looked at."""
    monkeypatch.setenv("SPACE_ID", "someone/atelier")
    port = hook.server_address[1]
    monkeypatch.setattr(notify.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", port))])
    with pytest.raises(StudioError, match="not a public address"):
        notify.post(f"http://public.example.org:{port}/", {})
    assert not hook.calls


def test_a_space_sends_no_mail(home, monkeypatch, smtp):
    monkeypatch.setenv("SPACE_ID", "someone/atelier")
    with pytest.raises(StudioError, match="webhooks only"):
        notify.save(_mail(smtp), "alice")


def test_redirects_are_refusals(home, hook):
    hook.status = 302
    notify.save({"webhook": _address(hook)})
    with pytest.raises(StudioError, match="answered 302") as refused:
        notify.test()
    assert "s3cret" not in refused.value.message


def test_the_password_comes_from_the_environment_and_never_goes_unprotected(home, smtp, monkeypatch):
    notify.save(_mail(smtp) | {"user": "me"})
    monkeypatch.setenv(notify.PASSWORD, "pw")
    with pytest.raises(StudioError, match="unprotected"):
        notify.test()
    assert not smtp.mails
    monkeypatch.delenv(notify.PASSWORD)
    monkeypatch.setattr(notify, "_password", lambda host, user: "")
    assert notify.test() == {"sent": ["email"]} and "a test" in smtp.mails[0]
