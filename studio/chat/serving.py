"""Serve this model: a chat engine for other programs, with a name, a port and a key of its own. No torch here.

It is a process of its own that outlives the page and is not unloaded for others; it ends when a person stops it. What is known of it
lies in ``served/<id>.json``, readable by its owner only, and nowhere else: the key is in no recipe, log, address or command line.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from studio import settings
from studio.chat import manager, records
from studio.errors import StudioError
from studio.jobs import process
from studio.library.refs import resolve_model

MOST = 4  # models served at once
KEY_VARIABLE = "ATELIER_SERVE_KEY"  # where the snippets look for the key
_ID = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][\w.:-]{0,63}")


def folder() -> Path:
    path = settings.home() / "served"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def start(ref: str, name: str = "", port: int = 0, host: str = "127.0.0.1", owner: str | None = None) -> dict[str, Any]:
    """Starts to serve ``ref``; returns at once, with ``state`` ``loading``.

    Args:
        name: What other programs call the model; empty: made of its label.
        port: 0 takes a free one.
        host: Where to listen. Anything but this machine needs a studio that is itself open to the network behind a login.

    Returns:
        As an item of :func:`listed`, and once ``key``.

    Raises:
        StudioError: unknown model, an address, a name, port or host that cannot be, or too many already.
    """
    from studio.chat import address

    if settings.on_space():
        raise StudioError("A Space opens no further ports.", "Serve the model from a studio of your own.", "model")
    if address.is_address(ref):
        raise StudioError("That is served already, elsewhere.", "Choose a model of this studio.", "model")
    _check_host(host)
    if port and not 1024 <= port <= 65535:
        raise StudioError(f"The port must be between 1024 and 65535; it is {port}.", "0 takes a free one.", "port")
    model = resolve_model(ref)
    base = manager.base_of(model)
    if model.is_adapter and model.path is None:
        raise StudioError(f"The adapter {model.label} is on the Hub only.", "Download it in the Library first.", "model")
    name = name.strip() or re.sub(r"[^\w.:-]+", "-", model.label).strip("-.:_")[:64] or "model"
    if not _NAME.fullmatch(name):
        raise StudioError(f"'{name}' cannot be a model's name here.", "Use letters, digits, dots, dashes and colons.", "name")
    running = [one for one in listed() if one["state"] in ("loading", "ready")]
    if len(running) >= MOST:
        raise StudioError(f"{MOST} models are served already.", "Stop one first.", "model")
    if any(one["name"] == name for one in running):
        raise StudioError(f"A model is served as '{name}' already.", "Choose another name, or stop that one.", "name")
    _check_free(host, port)
    return _spawn(model, base, name, port, host, owner) | {"state": "loading"}


def _check_host(host: str) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as err:
        raise StudioError(f"'{host}' is not an address of this machine.", "Use 127.0.0.1, or 0.0.0.0 for all networks.", "host") from err
    if not local and not settings.shared():
        raise StudioError("This studio is for this machine alone, and so is what it serves.",
                          "Start the studio with --host and a password to open it to the network.", "host")


def _check_free(host: str, port: int) -> None:
    if not port:
        return
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as err:
        raise StudioError(f"Port {port} cannot be used: {err.strerror}.", "Choose another, or 0 for a free one.", "port") from err


def _spawn(model: Any, base: Any, name: str, port: int, host: str, owner: str | None) -> dict[str, Any]:
    number, key = secrets.token_hex(6), secrets.token_urlsafe(24)
    path = folder() / f"{number}.json"
    arguments = ["--base", base.ref, "--record", str(path), "--idle", "0", "--port", str(port), "--host", host, "--serves", name]
    if model.is_adapter:
        arguments += ["--adapter", f"{name}={model.ref}"]
    if rope := manager.rope_of(model):
        arguments += ["--rope", rope]
    paths = filter(None, [str(settings.ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"ATELIER_ENGINE_KEY": key, "STUDIO_HOME": str(settings.home()),
                                "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    module = manager.module_of(base)
    with records.locked(path):
        with open(path.with_suffix(".log"), "wb", opener=lambda file, flags: os.open(file, flags, 0o600)) as out:
            child = subprocess.Popen([sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                     env=environment, cwd=settings.home(), start_new_session=True)
        manager._children[child.pid] = child
        try:
            started = process.started(child.pid)
        except psutil.NoSuchProcess:
            started = 0.0
        record = {"base": base.ref, "ref": model.ref, "label": model.label, "name": name, "pid": child.pid, "started": started,
                  "key": key, "owner": owner, "host": host, "port": port or None, "state": "loading", "since": time.time()}
        records.write(path, record)
    return _shown(path, record) | {"key": key}


def listed(owner: str | None = None) -> list[dict[str, Any]]:
    """What is or was served: id, name, label, state (``loading`` | ``ready`` | ``failed`` | ``ended``), address, memory, answers under
    way, seconds since the last one, and the reason where it failed. Never the key."""
    return [_shown(path, record) for path, record in _records() if owner is None or record.get("owner") == owner]


def key(number: str, owner: str | None = None) -> str:
    """The key of one.

    Raises:
        StudioError: it is not served.
    """
    return _record(number, owner)[1]["key"]


def stop(number: str, owner: str | None = None) -> None:
    """Ends one and forgets it, its log and its key.

    Raises:
        StudioError: there is none of that id.
    """
    path, record = _record(number, owner)
    manager._end(record)
    for suffix in (".json", ".log", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def ready(number: str, seconds: float = 120.0) -> dict[str, Any]:
    """Waits until it answers.

    Raises:
        StudioError: it failed, with the reason, or took too long.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        path, record = _record(number)
        found = _shown(path, record)
        if found["state"] == "ready":
            return found
        if found["state"] != "loading":
            raise StudioError(found["error"] or "The server ended.", found["hint"], "model")
        time.sleep(0.1)
    raise StudioError("The model is still loading.", "Look at it again later.", "model")


def snippets(number: str, owner: str | None = None) -> dict[str, str]:
    """How other programs ask it: ``curl``, ``python`` (standard library alone) and ``openai`` (that client). The key is read from the
    environment, so that none of them holds it.

    Raises:
        StudioError: there is none of that id.
    """
    _, record = _record(number, owner)
    url, name = _url(record), record["name"]
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Who are you?"}}], "max_tokens": 60}}'
    return {
        "curl": f"curl -sS {url}/chat/completions \\\n  -H \"Authorization: Bearer ${KEY_VARIABLE}\" \\\n"
                f"  -H \"Content-Type: application/json\" \\\n  -d '{body}'\n",
        "python": "import json\nimport os\nimport urllib.request\n\n"
                  f"question = {body}\n"
                  f"request = urllib.request.Request(\"{url}/chat/completions\", json.dumps(question).encode(), {{\n"
                  f"    \"Authorization\": f\"Bearer {{os.environ['{KEY_VARIABLE}']}}\", \"Content-Type\": \"application/json\"}})\n"
                  "with urllib.request.urlopen(request) as answer:\n"
                  "    print(json.load(answer)[\"choices\"][0][\"message\"][\"content\"])\n",
        "openai": "import os\n\nfrom openai import OpenAI\n\n"
                  f"client = OpenAI(base_url=\"{url}\", api_key=os.environ[\"{KEY_VARIABLE}\"])\n"
                  f"answer = client.chat.completions.create(model=\"{name}\", max_tokens=60,\n"
                  "                                        messages=[{\"role\": \"user\", \"content\": \"Who are you?\"}])\n"
                  "print(answer.choices[0].message.content)\n"}


def _url(record: dict[str, Any]) -> str:
    host = record["host"]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{record.get('port') or 0}/v1"


def _records() -> list[tuple[Path, dict[str, Any]]]:
    found = [(path, records.read(path)) for path in sorted(folder().glob("*.json"))]
    return sorted(((path, record) for path, record in found if record), key=lambda one: one[1].get("since", 0))


def _record(number: str, owner: str | None = None) -> tuple[Path, dict[str, Any]]:
    path = folder() / f"{number}.json"
    record = records.read(path) if _ID.fullmatch(str(number)) else None
    if not record or (owner is not None and record.get("owner") != owner):
        raise StudioError("That model is not served any more.", "Look at the list again.", "id")
    return path, record


def _shown(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    alive = manager._running(record)
    state, error, hint = record["state"], "", ""
    if state == "failed":
        told = record.get("error") or {}
        error, hint = told.get("message") or "", told.get("hint") or ""
    elif not alive:
        state, error = "ended", manager._crash(record, path)
    health: dict[str, Any] = {}
    if state == "ready":
        with contextlib.suppress(Exception):
            health = manager._health(record)
    return {"id": path.stem, "name": record["name"], "label": record["label"], "ref": record["ref"], "state": state, "error": error,
            "hint": hint, "host": record["host"], "port": record.get("port"), "address": _url(record) if record.get("port") else "",
            "pid": record["pid"], "rss_bytes": manager._rss(record["pid"]) if alive else 0, "since": record.get("since"),
            "active": health.get("active", 0), "idle_seconds": health.get("idle_seconds", 0.0), "key_variable": KEY_VARIABLE}
