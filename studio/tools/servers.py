"""MCP servers (Model Context Protocol): programs on this machine (stdio), or addresses (streamable HTTP).

Such a program runs with the rights of whoever started the studio, and what it answers goes to the model. So a server is added
by the person at this machine, who is told that, and never where others can reach the studio; its tools are off in every chat
until they are switched on; and each call is confirmed unless the person allows it for the chat.

``mcp.json`` holds the servers, ``mcp_secrets.json`` what is secret of them (variables of a program, headers of an address); only
their owner can read either file, and no value leaves the second but to the server.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
import threading
from concurrent import futures
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from studio import settings
from studio.errors import StudioError
from studio.jobs.files import read_json
from studio.library.artifacts import new_id
from studio.tools.tool import SECONDS, BadCall, Tool

START_SECONDS = 20.0
MOST, MOST_TOOLS = 20, 128
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,80}")
_open: dict[str, Connection] = {}
_lock = threading.RLock()


def refuse_shared() -> None:
    """Raises: StudioError: others can reach this studio."""
    if settings.shared():
        raise StudioError("MCP servers are not available where others can reach the studio: they run with its rights.",
                          "Start the studio on this machine alone.", "mcp")


def listed() -> list[dict[str, Any]]:
    """``{id, name, kind, command, url, secrets: [names], connected, tools}`` of each; nothing where the studio is shared."""
    if settings.shared():
        return []
    secrets = _secrets()
    open_ = {id for id, connection in list(_open.items()) if connection.alive}
    return [one | {"secrets": sorted(secrets.get(one["id"], {})), "connected": one["id"] in open_} for one in _load()]


def add(values: dict[str, Any], understood: bool) -> dict[str, Any]:
    """Add a server, or with ``id`` change one; it is connected at once, so that what is wrong is known now. As one of :func:`listed`.

    Args:
        values: ``name``, ``kind`` (stdio or http), ``command`` (a line as for a shell, which is not used) or ``url``, and
            ``secrets`` {name: value}; a value that is empty keeps the one that is stored.
        understood: The person was told what a server may do, and agreed.

    Raises:
        StudioError: shared, not agreed, incomplete, or it cannot be connected.
    """
    refuse_shared()
    if not understood:
        raise StudioError("Nobody has agreed to the risk yet.", "Read what a server may do, and tick that you trust this one.", "understood")
    with _lock:
        every = _load()
        known = next((one for one in every if one["id"] == values.get("id")), None)
        if known is None and len(every) >= MOST:
            raise StudioError(f"At most {MOST} servers can be added.", "Remove one first.")
        made = _checked(values, every, known)
        stored = _secrets()
        mine = {name: str(value) or stored.get(made["id"], {}).get(name, "") for name, value in (values.get("secrets") or {}).items()}
        _check_secrets(made["kind"], mine)
    close(made["id"])
    connection = Connection(made, mine)
    made["tools"] = [{"name": tool["name"], "about": tool["about"]} for tool in connection.tools]
    with _lock:
        _open[made["id"]] = connection
        every = [one for one in _load() if one["id"] != made["id"]] + [made]
        _write("mcp.json", {"servers": every})
        _write("mcp_secrets.json", _secrets() | {made["id"]: mine})
    return next(one for one in listed() if one["id"] == made["id"])


def remove(id: str) -> None:
    """Raises: StudioError: there is none."""
    refuse_shared()
    with _lock:
        every = _load()
        if not any(one["id"] == id for one in every):
            raise StudioError("There is no such server.", "Reload the page.")
        _write("mcp.json", {"servers": [one for one in every if one["id"] != id]})
        _write("mcp_secrets.json", {key: value for key, value in _secrets().items() if key != id})
    close(id)


def close(id: str) -> None:
    """End a connection, and the program behind it."""
    with _lock:
        connection = _open.pop(id, None)
    if connection:
        connection.close()


@atexit.register
def close_all() -> None:
    for id in list(_open):
        close(id)


def tools(id: str) -> list[Tool]:
    """The tools of a server, connected if need be. Their names begin with the server's.

    Raises:
        StudioError: shared, unknown, or it cannot be connected.
    """
    refuse_shared()
    record = next((one for one in _load() if one["id"] == id), None)
    if record is None:
        raise StudioError("This MCP server was removed.", "Switch its tools off.", "mcp")
    connection = connected(record)

    def call(name: str) -> Any:
        return lambda given, _: connected(record).call(name, given)

    return [Tool(full_name(record["name"], one["name"]), one["about"], one["schema"], call(one["name"]), record["name"], True)
            for one in connection.tools]


def full_name(server: str, tool: str) -> str:
    """A name that every API takes: letters, digits, _ and -, at most 64."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", f"{server}__{tool}")[:64]


def connected(record: dict[str, Any]) -> Connection:
    """The connection to a server, opened again where it has ended."""
    with _lock:
        connection = _open.get(record["id"])
        if connection is None or not connection.alive:
            connection = _open[record["id"]] = Connection(record, _secrets().get(record["id"], {}))
        return connection


class Connection:
    """A session with a server, in a thread with an event loop of its own.

    Raises:
        StudioError: the program does not start, nobody answers, or it does not speak the protocol.
    """

    def __init__(self, record: dict[str, Any], secrets: dict[str, str]):
        self.name, self.record, self.tools = record["name"], record, []
        self._secrets, self._error, self._session = secrets, "", None
        self._ready, self._log = threading.Event(), tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"mcp-{record['id']}")
        self._thread.start()
        if not self._ready.wait(START_SECONDS + 5) or self._session is None:
            self.close()
            raise StudioError(f"The MCP server {self.name} cannot be used: {self.clean(self._error or 'it does not answer')}",
                              self._last_words() or "Check the command or the address.", "command" if record["kind"] == "stdio" else "url")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self._session is not None and not self._error

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """The text of a result.

        Raises:
            BadCall: it failed, took too long, or the server ended.
        """
        seconds = SECONDS
        if not self.alive:
            raise BadCall(f"The MCP server {self.name} has ended.")
        asked = asyncio.run_coroutine_threadsafe(
            self._session.call_tool(tool, arguments, read_timeout_seconds=timedelta(seconds=seconds)), self._loop)
        try:
            made = asked.result(seconds + 3)
        except (TimeoutError, futures.TimeoutError) as err:
            asked.cancel()
            self.close()
            raise BadCall(f"The MCP server {self.name} did not answer within {seconds:.0f} s; it was ended.") from err
        except Exception as err:  # the library's own errors, and whatever the connection raises
            said = self.clean(_reason(err))
            if type(err).__name__ != "McpError" or "closed" in said.lower() or "timed out" in said.lower():
                self.close()  # it is gone, or may hang for good; the next call starts it anew
            if "timed out" in said.lower():
                raise BadCall(f"The MCP server {self.name} did not answer within {seconds:.0f} s; it was ended.") from err
            raise BadCall(f"The MCP server {self.name} failed: {said}") from err
        text = self.clean(_text(made))
        if made.isError:
            raise BadCall(text or "The tool failed without a word.")
        return text

    def clean(self, text: str) -> str:
        """A text without the server's secrets."""
        for value in self._secrets.values():
            for piece in {value, value.removeprefix("Bearer ")}:
                if len(piece) >= 4:
                    text = text.replace(piece, "[secret]")
        return text

    def close(self) -> None:
        if self._thread.is_alive() and hasattr(self, "_loop"):
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(6)

    def _run(self) -> None:
        async def main() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            await self._serve()

        try:
            asyncio.run(main())
        except BaseException as err:
            self._error = self._error or _reason(err) or "it ended"
        finally:
            self._error = self._error or "it ended"
            self._ready.set()

    async def _serve(self) -> None:
        from mcp import ClientSession

        def late() -> None:
            self._error = f"it did not answer within {START_SECONDS:.0f} s"
            self._task.cancel()

        async with contextlib.AsyncExitStack() as stack:
            # no cancel scope around what stays open: scopes have to be left in the order in which they were entered
            alarm = self._loop.call_later(START_SECONDS, late)
            stack.callback(alarm.cancel)
            read, write = await self._streams(stack)
            session = await stack.enter_async_context(ClientSession(read, write))
            await session.initialize()
            cursor = None
            while True:
                page = await session.list_tools(cursor)
                self.tools += [{"name": tool.name, "about": self.clean((tool.description or "")[:2000]), "schema": tool.inputSchema}
                               for tool in page.tools]
                cursor = page.nextCursor
                if not cursor or len(self.tools) >= MOST_TOOLS:
                    break
            alarm.cancel()
            self.tools = self.tools[:MOST_TOOLS]
            self._session = session
            self._ready.set()
            while True:
                await asyncio.sleep(3600)

    async def _streams(self, stack: contextlib.AsyncExitStack) -> Any:
        if self.record["kind"] == "http":
            import httpx
            from mcp.client.streamable_http import streamable_http_client

            # no redirects: a header of ours would go along to another host
            asker = await stack.enter_async_context(httpx.AsyncClient(headers=dict(self._secrets), timeout=httpx.Timeout(30, read=300)))
            return (await stack.enter_async_context(streamable_http_client(self.record["url"], http_client=asker)))[:2]
        from mcp.client.stdio import StdioServerParameters, stdio_client

        command, *arguments = shlex.split(self.record["command"])
        folder = settings.home() / "mcp" / self.record["id"]
        folder.mkdir(parents=True, exist_ok=True)
        # the library gives it PATH, HOME and a few more of our environment, none of our keys
        return await stack.enter_async_context(stdio_client(
            StdioServerParameters(command=command, args=arguments, env=dict(self._secrets) or None, cwd=folder), errlog=self._log))

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._log.seek(0)
            lines = [line.strip() for line in self._log.read()[-4000:].splitlines() if line.strip()]
            return f"It said: {self.clean(lines[-1])[:300]}" if lines else ""
        return ""


def _reason(err: BaseException) -> str:
    """The first real cause in a group of exceptions, in one line."""
    while isinstance(err, BaseExceptionGroup) and err.exceptions:
        err = err.exceptions[0]
    if isinstance(err, asyncio.CancelledError):
        return ""
    if isinstance(err, FileNotFoundError):
        return f"there is no program {err.filename}"
    return (str(err) or type(err).__name__).splitlines()[0][:300]


def _text(made: Any) -> str:
    parts = []
    for part in made.content:
        if part.type == "text":
            parts.append(part.text)
        elif part.type == "resource" and getattr(part.resource, "text", None):
            parts.append(part.resource.text)
        else:
            parts.append(f"({part.type}, not shown)")
    if not parts and made.structuredContent:
        parts.append(json.dumps(made.structuredContent, ensure_ascii=False))
    return "\n".join(parts)


def _checked(values: dict[str, Any], every: list[dict[str, Any]], known: dict[str, Any] | None) -> dict[str, Any]:
    name, kind = str(values.get("name") or "").strip()[:40], values.get("kind")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", name):
        raise StudioError("A server needs a name of letters and digits.", "Call it e.g. files.", "name")
    if any(one["name"].casefold() == name.casefold() and one is not known for one in every):
        raise StudioError(f"There is a server called {name} already.", "Give this one another name.", "name")
    made = {"id": known["id"] if known else new_id("m"), "name": name, "kind": kind, "command": "", "url": "", "tools": []}
    if kind == "stdio":
        try:
            parts = shlex.split(str(values.get("command") or ""))
        except ValueError as err:
            raise StudioError(f"The command cannot be read: {err}.", "Close every quotation mark.", "command") from err
        if not parts:
            raise StudioError("There is no command.", "Write the program and its arguments, e.g. python -m my_server", "command")
        if not shutil.which(parts[0]):
            raise StudioError(f"There is no program {parts[0]} on this machine.", "Give its whole path, or install it.", "command")
        return made | {"command": str(values["command"]).strip()[:4000]}
    if kind != "http":
        raise StudioError("A server is a program (stdio) or an address (http).", "Choose one.", "kind")
    url = str(values.get("url") or "").strip()[:2000]
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise StudioError(f"'{url[:200]}' is not an address.", "Write it as https://host/mcp", "url")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise StudioError("An address must not hold a key or a password.", "Put it in as a header, e.g. Authorization.", "url")
    if parts.scheme == "http" and host not in ("127.0.0.1", "localhost", "::1") and values.get("secrets"):
        raise StudioError("A secret would travel unencrypted to another machine.", "Use an https address.", "url")
    return made | {"url": url}


def _check_secrets(kind: str, secrets: dict[str, str]) -> None:
    for name, value in secrets.items():
        if not (_NAME if kind == "stdio" else _HEADER).fullmatch(name) or len(value) > 8000 or "\n" in value:
            what = "variable" if kind == "stdio" else "header"
            raise StudioError(f"'{name[:40]}' cannot be the name of a {what}, or its value has line breaks.",
                              "Use letters, digits and _ (in headers -).", "secrets")
        if kind == "stdio" and name.upper() in ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "STUDIO_HOME"):
            raise StudioError(f"{name} cannot be set here.", "Put it into the program's own start script.", "secrets")


def _load() -> list[dict[str, Any]]:
    return (read_json(settings.home() / "mcp.json") or {}).get("servers", [])


def _secrets() -> dict[str, dict[str, str]]:
    return read_json(settings.home() / "mcp_secrets.json") or {}


def _write(name: str, value: dict[str, Any]) -> None:
    path: Path = settings.home() / name
    part = path.with_name(f".{name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(value, out)
    os.replace(part, path)
