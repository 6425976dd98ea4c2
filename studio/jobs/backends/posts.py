"""How the other side is spoken to: over HTTP, over a disk that both see, or over a repository of the Hub.

A post is told the status and what is new; it tells whether a stop was asked for, and when the courier was last heard.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from studio.errors import StudioError
from studio.jobs.backends.desk import Desk

HEADER = "X-Atelier-Token"
SAYS = "@atelier "  # begins what this program itself says in the job's own output
MOST = 3500  # characters of one printed line; container logs cut longer ones


class Shared:
    """A disk that both sides see: nothing to be done, and nobody to wait for."""

    waits = False

    def __init__(self, given: dict[str, Any], desk: Desk):
        self.given, self.desk = given, desk
        self.heard = time.time()

    def tell(self, status: dict[str, Any]) -> None:
        """The status changed; it is on the desk already."""

    def news(self, run: Path) -> None:
        """The growing files may have grown."""

    def checkpoints(self, run: Path, found: dict[str, Any]) -> None:
        """Another set of checkpoints is complete."""

    def stop(self) -> str:
        """``stop`` or ``now`` if that was asked for in another way than on the desk."""
        return ""

    def finish(self, status: dict[str, Any]) -> None:
        """The worker is gone and the last status is told."""

    def close(self) -> None:
        """The last call."""


class Served(Shared):
    """A small HTTP server on this machine, for whoever has the token; it says its port in the job's output.

    ``GET /status``, ``GET /file?name=…&offset=…``, ``PUT /file?name=…``, ``POST /say?word=…``.
    """

    waits = True

    def __init__(self, given: dict[str, Any], desk: Desk):
        super().__init__(given, desk)
        handler = type("Handler", (_Handler,), {"post": self})
        self.server = ThreadingHTTPServer(("", int(given.get("port") or 0)), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        print(SAYS + json.dumps({"port": self.server.server_port}), flush=True)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    post: Served
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _route(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if not hmac.compare_digest(self.headers.get(HEADER) or "", self.post.given["token"]):
            self.close_connection = True
            return self._answer(403)
        self.post.heard = time.time()
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        desk, name = self.post.desk, query.get("name", "")
        try:
            if self.command == "PUT" and url.path == "/file":
                desk.take(name, self.rfile, size)
                return self._answer(204)
            if self.command == "POST" and url.path == "/say":
                desk.say(query.get("word", ""))
                return self._answer(204)
            if self.command == "GET" and url.path == "/status":
                return self._answer(200, json.dumps(desk.status()).encode())
            if self.command == "GET" and url.path == "/file":
                if not desk.path(name).is_file():
                    return self._answer(404)
                return self._answer(200, desk.grown(name, int(query.get("offset", 0))))
        except StudioError:
            return self._answer(403)
        except (OSError, ValueError) as err:
            self.close_connection = True
            return self._answer(507, str(err).encode())
        return self._answer(404)

    do_GET = do_PUT = do_POST = _route


class Hub(Shared):
    """A private repository of the Hub for files, and the job's output for what grows.

    Events and status are printed as lines that begin with ``@atelier``; the worker's own lines are printed as they are.
    Checkpoints are sent by a thread, so that a large one holds up nothing; one that cannot be sent is tried again.
    """

    EVERY = 10.0  # seconds between two looks for a stop, and between two tries

    def __init__(self, given: dict[str, Any], desk: Desk):
        super().__init__(given, desk)
        from huggingface_hub import HfApi

        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ["HF_TOKEN"], library_name="atelier")
        self._repo = given["repo"]
        self._looked, self._read = 0.0, {"events.jsonl": 0, "worker.log": 0}
        self._wanted: dict[str, Path] = {}
        self._ending = threading.Event()
        self._sender = threading.Thread(target=self._send_checkpoints, daemon=True)
        self._sender.start()

    def tell(self, status: dict[str, Any]) -> None:
        brief = {key: status[key] for key in ("phase", "run", "root", "home", "refused", "exit") if key in status}
        _print("status", json.dumps(brief | {"checkpoints": list(status["checkpoints"])}))

    def news(self, run: Path) -> None:
        for name in self._read:
            data = Desk(run).grown(name, self._read[name])
            whole = data[:data.rfind(b"\n") + 1]
            self._read[name] += len(whole)
            for line in whole.decode("utf-8", "replace").splitlines():
                _print("event" if name == "events.jsonl" else "", line)

    def checkpoints(self, run: Path, found: dict[str, Any]) -> None:
        self._wanted = {name: run / "checkpoints" / name for name in found}

    def stop(self) -> str:
        if time.monotonic() - self._looked >= self.EVERY:
            self._looked = time.monotonic()
            with contextlib.suppress(Exception):  # the Hub is away for a moment: asked again soon
                for word in ("now", "stop"):
                    if self._api.file_exists(self._repo, word):
                        self.desk.say(word)
                        return word
        return ""

    def finish(self, status: dict[str, Any]) -> None:
        self._ending.set()
        self._sender.join()
        for patience in (5, 30, 120, 0):
            try:
                if run := status.get("run"):
                    self._send(self.desk.folder / run, run, "What the run made", ["checkpoints/*", "*.part"])
                self._send_status()
                return
            except Exception as err:
                print(f"The Hub did not take it: {err}", flush=True)
                time.sleep(patience)

    def _send_checkpoints(self) -> None:
        sent: set[str] = set()
        while not self._ending.is_set() or set(self._wanted) - sent:
            try:
                for name, folder in dict(self._wanted).items():
                    if name not in sent and folder.is_dir():
                        place = f"home/runs/{folder.parents[1].name}/checkpoints/{name}"
                        self._send(folder, place, f"{name} is complete")
                        self._send_status()
                    sent.add(name)
            except Exception as err:
                print(f"A checkpoint could not be sent: {err}", flush=True)
                if self._ending.wait(self.EVERY):
                    return
            self._ending.wait(0.5)

    def _send_status(self) -> None:
        self._api.upload_file(path_or_fileobj=self.desk.folder / "status.json", path_in_repo="status.json",
                              repo_id=self._repo, commit_message="How things are")

    def _send(self, folder: Path, name: str, message: str, ignore: list[str] | None = None) -> None:
        self._api.upload_folder(folder_path=folder, path_in_repo=name, repo_id=self._repo, commit_message=message,
                                ignore_patterns=ignore)


def _print(kind: str, line: str) -> None:
    """One line of output, in pieces if it is long; ``+`` marks one that goes on."""
    if not kind:
        print(line, flush=True)
        return
    while len(line) > MOST:
        print(f"{SAYS}{kind}+ {line[:MOST]}", flush=True)
        line = line[MOST:]
    print(f"{SAYS}{kind} {line}", flush=True)


def parse(line: str) -> tuple[str, str, bool]:
    """(kind, text, whether it goes on) of a printed line; kind is empty for the worker's own."""
    if not line.startswith(SAYS):
        return "", line, False
    kind, _, text = line[len(SAYS):].rstrip("\r\n").partition(" ")
    return kind.rstrip("+"), text, kind.endswith("+")
