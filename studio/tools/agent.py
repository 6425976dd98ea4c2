"""Conversations in which a model may call tools: asked, called, confirmed, answered, at most so many rounds.

A conversation is a file ``tools/<id>.json``: ``{id, title, owner, created, updated, setup, allowed, turns}``. A turn is
``{"role": "user", "content"}``, an answer ``{"role": "assistant", "content", "reasoning", "calls", facts}`` with calls
``{id, name, arguments, error}``, or ``{"role": "tool", "id", "name", "content", "state", "seconds", "cut", "flags"}``; ``state`` is done,
failed (the model is told why) or refused (by the person).
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
import time
from concurrent import futures
from typing import Any

from studio import settings
from studio.chat import address, client, manager, session
from studio.chat.client import EngineGone, Stop
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.library.artifacts import new_id
from studio.tools import calls, demo, servers
from studio.tools.tool import SECONDS, BadCall, Tool, checked, named

ROUNDS = 8  # answers to one question
SAME = 3  # times that the same call is carried out
KEPT = 8000  # characters of a result that the model is given
CONFIRM_SECONDS = 900
MOST_PROMPT, MOST_CHATS = 50_000, 500
WAYS = ("auto", "native", "text")
_ID = re.compile(r"t[a-z0-9]{10}")
_FACTS = ("ttft", "tokens_per_second", "tokens", "finish", "note")
_running: dict[str, Running] = {}
_lock = threading.RLock()
_log = logging.getLogger(__name__)


def offered(owner: str | None = None) -> list[dict[str, Any]]:
    """Every tool that a chat may be given: ``{name, about, source, server, asks, schema}``."""
    found = [{"name": tool.name, "about": tool.about, "source": "studio", "server": "", "asks": False, "schema": tool.schema}
             for tool in demo.everything()]
    for record in servers.listed():
        found += [{"name": servers.full_name(record["name"], tool["name"]), "about": tool["about"], "source": record["name"],
                   "server": record["id"], "asks": True, "schema": None} for tool in record["tools"]]
    return found


def check(setup: dict[str, Any], owner: str | None) -> dict[str, Any]:
    """What a conversation is set up with: ``{model, system, tools, collection, settings, calls, rounds}``.

    Raises:
        StudioError: no model or another person's, unknown tools, settings out of bounds.
    """
    from studio.library.refs import check_owner
    from studio.retrieval import collections

    ref = str(setup.get("model") or "").strip()[:1000]
    if not ref:
        raise StudioError("No model is chosen.", "Choose one.", "model")
    if not address.is_address(ref):
        check_owner(ref, owner, "model")
    known = {tool["name"] for tool in offered(owner)}
    tools = [str(name) for name in setup.get("tools") or []]
    if gone := [name for name in tools if name not in known]:
        raise StudioError(f"There is no tool {gone[0][:80]} any more.", "Switch it off.", "tools")
    given = setup.get("settings") if isinstance(setup.get("settings"), dict) else {}
    session.check_settings(given)
    collection = str(setup.get("collection") or "")
    if collection:
        collections.load(collection, owner)
    rounds = setup.get("rounds", ROUNDS)
    if not isinstance(rounds, int) or not 1 <= rounds <= 20:
        raise StudioError("A question takes 1 to 20 rounds.", "", "rounds")
    way = setup.get("calls", "auto")
    if way not in WAYS:
        raise StudioError(f"There is no way '{way}' to call tools.", f"Known: {', '.join(WAYS)}.", "calls")
    return {"model": ref, "system": str(setup.get("system") or "")[:MOST_PROMPT], "tools": tools, "collection": collection,
            "settings": given, "calls": way, "rounds": rounds}


def listed(owner: str | None = None) -> list[dict[str, Any]]:
    """``{id, title, updated}`` of the conversations, the newest first."""
    found = [one for path in (settings.home() / "tools").glob("t*.json")
             if (one := read_json(path)) and owner in (None, one["owner"])]
    found.sort(key=lambda one: -one["updated"])
    return [{key: one[key] for key in ("id", "title", "updated")} for one in found[:MOST_CHATS]]


def load(id: str, owner: str | None = None) -> dict[str, Any]:
    """A conversation, with what is under way: ``state`` (resting, loading, answering, calling, confirming), ``pending`` (the
    call that waits for a person, or ``None``) and ``error``.

    Raises:
        StudioError: there is none, or it is another person's.
    """
    with _lock:
        running = _running.get(id)
        found = running.chat if running else _read(id)
        if owner not in (None, found["owner"]):
            raise StudioError("There is no such conversation.", "Choose one from the list.")
        news = dict(running.news) if running else {"state": "resting", "pending": None}
        return json.loads(json.dumps(found)) | news


def delete(id: str, owner: str | None = None) -> None:
    """Raises: StudioError: there is none."""
    load(id, owner)
    stop(id, owner)
    with _lock:
        (settings.home() / "tools" / f"{id}.json").unlink(missing_ok=True)


def ask(id: str | None, setup: dict[str, Any], text: str, owner: str | None = None) -> dict[str, Any]:
    """Put a message to a conversation (``None``: a new one) and start. As :func:`load`.

    Raises:
        StudioError: nothing to ask, bad setup, or an answer is still coming.
    """
    if not isinstance(text, str) or not text.strip():
        raise StudioError("There is nothing to send.", "Write a message first.", "prompt")
    if len(text) > MOST_PROMPT:
        raise StudioError(f"At most {MOST_PROMPT:,} characters can be sent at once.", "Shorten it.", "prompt")
    setup = check(setup, owner)
    with _lock:
        if id:
            chat = load(id, owner)
            if id in _running:
                raise StudioError("An answer is still coming.", "Wait for it, or stop it first.")
            chat = {key: value for key, value in chat.items() if key not in ("state", "pending")}
        else:
            chat = {"id": new_id("t"), "title": " ".join(text.split())[:80], "owner": owner, "created": time.time(), "allowed": [],
                    "turns": []}
        chat |= {"setup": setup, "updated": time.time(), "error": None}
        chat["turns"].append({"role": "user", "content": text.strip()})
        (settings.home() / "tools").mkdir(exist_ok=True)
        made = _running[chat["id"]] = Running(chat)
        made.save()
    threading.Thread(target=made.run, daemon=True, name=f"tools-{chat['id']}").start()
    return load(chat["id"], owner)


def decide(id: str, call: str, choice: str, owner: str | None = None) -> dict[str, Any]:
    """Answer to a call that waits: ``once``, ``chat`` (this tool, as long as this conversation lasts) or ``no``. As :func:`load`.

    Raises:
        StudioError: nothing waits, or no such choice.
    """
    load(id, owner)
    with _lock:
        running = _running.get(id)
        waits = running.news["pending"] if running else None
        if choice not in ("once", "chat", "no") or not waits or waits["id"] != call:
            raise StudioError("That call does not wait any more.", "Look at the conversation again.")
        running.choice = choice
        running.chosen.set()
    return load(id, owner)


def stop(id: str, owner: str | None = None) -> dict[str, Any]:
    """End what is under way. As :func:`load`."""
    load(id, owner)
    running = _running.get(id)
    if running:
        running.stopped()
        running.choice = "no"
        running.chosen.set()
        if not running.over.wait(3):
            running.leave()
    return load(id, owner)


def _read(id: str) -> dict[str, Any]:
    found = read_json(settings.home() / "tools" / f"{id}.json") if isinstance(id, str) and _ID.fullmatch(id) else None
    if found is None:
        raise StudioError("There is no such conversation.", "Choose one from the list.")
    return found


class Running:
    """One question under way, in a thread of its own."""

    def __init__(self, chat: dict[str, Any]):
        self.chat, self.setup = chat, chat["setup"]
        self.stopped, self.chosen, self.over, self.choice = Stop(), threading.Event(), threading.Event(), ""
        self.left = False
        self.news: dict[str, Any] = {"state": "loading", "pending": None}
        # a server that refused a list of tools once in this conversation is not asked again
        known = "text" if chat.get("in_words") == self.setup["model"] else "native"
        self.way = known if self.setup["calls"] == "auto" else self.setup["calls"]

    def leave(self) -> None:
        """End without its thread, which waits for a server that has not said a word yet and can only be left alone."""
        with _lock:
            if _running.pop(self.chat["id"], None) is self:
                self.save()
                self.left = True

    def save(self) -> None:
        if self.left:
            return
        write_json(settings.home() / "tools" / f"{self.chat['id']}.json", self.chat)

    def run(self) -> None:
        try:
            self._rounds()
        except StudioError as err:
            room = "Switch off tools that are not needed: each is described to the model. Or choose a model that reads more."
            self._fail(err.message, room if self.setup["tools"] and "tokens long" in err.message else err.hint)
        except Exception as err:
            _log.exception("tools %s", self.chat["id"])
            self._fail(f"{type(err).__name__}: {err}", "The studio's log says more.")
        with _lock:
            self.chat["updated"] = time.time()
            self.save()
            if _running.get(self.chat["id"]) is self:
                del _running[self.chat["id"]]
        self.over.set()

    def _fail(self, message: str, hint: str) -> None:
        if not self.stopped.asked.is_set():
            self.chat["error"] = {"message": message, "hint": hint}

    def _rounds(self) -> None:
        tools = self._tools()
        seen: dict[str, int] = {}
        for _ in range(self.setup["rounds"]):
            answer = self._answer(tools)
            if self.stopped.asked.is_set() or not answer["calls"]:
                if not answer["content"].strip() and not self.stopped.asked.is_set() and answer.get("finish") != "length":
                    raise StudioError("The model answered nothing.", "Ask again, or choose another model.")
                return
            for call in answer["calls"]:
                key = json.dumps([call["name"], call["arguments"]], sort_keys=True, default=str)
                seen[key] = seen.get(key, 0) + 1
                if seen[key] > SAME:
                    raise StudioError(f"The model calls {call['name'] or 'a tool'} with the same arguments again and again.",
                                      "It was stopped. Ask in other words, or choose another model.")
                self._carry_out(call, tools)
                if self.stopped.asked.is_set():
                    return
        raise StudioError(f"Stopped after {self.setup['rounds']} rounds of calls without an answer.",
                          "Allow more rounds, or ask for less at once.")

    def _tools(self) -> list[Tool]:
        wanted = set(self.setup["tools"])
        found = [tool for tool in demo.everything() if tool.name in wanted]
        for record in servers.listed():
            if any(servers.full_name(record["name"], tool["name"]) in wanted for tool in record["tools"]):
                found += [tool for tool in servers.tools(record["id"]) if tool.name in wanted]
        return found

    # ---- asking

    def _answer(self, tools: list[Tool]) -> dict[str, Any]:
        """One answer of the model, added to the turns while it comes."""
        turn: dict[str, Any] = {"role": "assistant", "content": "", "reasoning": "", "calls": [],
                                "model": session.label_of(self.setup["model"])}
        self.chat["turns"].append(turn)
        try:
            self._stream(turn, tools)
        except StudioError as err:
            # a server or a template that knows no tools is told of them in words instead
            free = self.way == "native" and self.setup["calls"] == "auto"
            if free and tools and not turn["content"] and _knows_no_tools(err):
                self.way, self.chat["in_words"] = "text", self.setup["model"]
                turn["note"] = "This model takes no list of tools; they are described to it in words."
                self._stream(turn, tools)
            else:
                if not turn["content"]:
                    self.chat["turns"].remove(turn)
                raise
        written: list[dict[str, Any]] = []
        if tools:
            turn["content"], written = calls.read(turn["content"])
        native = []
        for one in turn.pop("tool_calls", []):
            function = one.get("function") or {}
            native.append(calls.normal(function.get("name"), function.get("arguments")) | {"id": str(one.get("id") or "")})
        found = (native or written)[:calls.MOST] if tools else []
        turn["calls"] = [one | {"id": one.get("id") or f"call_{secrets.token_hex(4)}"} for one in found]
        turn["way"] = self.way
        self.save()
        return turn

    def _stream(self, turn: dict[str, Any], tools: list[Tool]) -> None:
        settings_ = session.check_settings({"temperature": 0.2, "max_tokens": 1024} | self.setup["settings"])
        if self.way == "text":
            settings_["stop"] = [*settings_["stop"], *calls.STOP][:4]
        elif tools:
            settings_["tools"] = [tool.described() for tool in tools]
        self.news["state"] = "loading"
        endpoint = manager.engine_for(self.setup["model"])
        try:
            for answer in client.stream(endpoint, self._messages(tools), settings_, self.stopped):
                self.news["state"] = "answering"
                facts = {key: getattr(answer, key) for key in _FACTS if getattr(answer, key)}
                turn |= {"content": answer.text, "reasoning": answer.reasoning, "tool_calls": list(answer.tool_calls), **facts}
        except EngineGone as err:
            raise StudioError(f"{turn['model']} closed the connection before its answer was whole.", "Send again.", "model") from err

    def _messages(self, tools: list[Tool]) -> list[dict[str, Any]]:
        """The conversation as the model is sent it."""
        text = self.way == "text"
        rules = "" if not tools else calls.described(tools) if text else calls.DATA
        system = "\n\n".join(filter(None, [self.setup["system"].strip(), rules]))
        sent: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        for turn in self.chat["turns"][:-1]:
            if turn["role"] == "user":
                sent.append({"role": "user", "content": turn["content"]})
            elif turn["role"] == "assistant":
                sent.append(_said(turn, text))
            elif text:
                body = calls.result(turn["name"], turn["content"])
                if sent[-1]["role"] == "user" and sent[-1]["content"].startswith("<tool_response>"):
                    sent[-1]["content"] += "\n" + body
                else:
                    sent.append({"role": "user", "content": body})
            else:
                sent.append({"role": "tool", "tool_call_id": turn["id"], "name": turn["name"], "content": turn["content"]})
        return sent

    # ---- calling

    def _carry_out(self, call: dict[str, Any], tools: list[Tool]) -> None:
        from studio.retrieval import guard

        turn = {"role": "tool", "id": call["id"], "name": call["name"] or "(none)", "content": "", "state": "failed", "flags": []}
        began = time.monotonic()
        try:
            if call["error"]:
                raise BadCall(call["error"])
            tool = named(tools, call["name"])
            arguments = checked(tool, call["arguments"])
            if tool.asks and tool.name not in self.chat["allowed"] and not self._confirmed(call, tool):
                turn |= {"state": "refused", "content": "The person did not allow this call. Do not try it again; answer without it."}
            else:
                self.news["state"] = "calling"
                began = time.monotonic()
                turn |= {"content": self._run(tool, arguments), "state": "done"}
        except BadCall as err:
            turn["content"] = f"Error: {err}"
        if len(turn["content"]) > KEPT:
            whole = len(turn["content"])
            turn |= {"cut": whole, "content": f"{turn['content'][:KEPT]}\n… (cut: {whole:,} characters)"}
        turn["seconds"] = round(time.monotonic() - began, 3)
        turn["content"] = guard.visible(turn["content"])
        if turn["state"] == "done" and call["name"] not in ("calculator", "clock", "convert_units"):
            turn["flags"] = [flag.to_dict() for flag in guard.look(turn["content"])]
            if turn["flags"] and not self._confirmed(call | {"result": turn["content"], "flags": turn["flags"]}, None):
                turn |= {"state": "refused", "content": "The result was held back: it looked as if it gave orders to the reader."}
        self.chat["turns"].append(turn)
        self.save()

    def _run(self, tool: Tool, arguments: dict[str, Any]) -> str:
        """The result of a call, or that it took too long. A call that hangs keeps its thread until it ends by itself."""
        pool = futures.ThreadPoolExecutor(1, thread_name_prefix=f"tool-{tool.name}")
        try:
            made = pool.submit(tool.call, arguments, {"collection": self.setup["collection"], "owner": self.chat["owner"]})
            return str(made.result(SECONDS + 10))
        except futures.TimeoutError as err:
            raise BadCall(f"{tool.name} took longer than {SECONDS:.0f} s and was given up.") from err
        except (BadCall, StudioError) as err:
            raise BadCall(str(err)) from err
        except Exception as err:  # a fault of ours or of a server's library is told to the model, and to the log
            _log.exception("tool %s", tool.name)
            raise BadCall(f"{tool.name} failed: {type(err).__name__}.") from err
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _confirmed(self, call: dict[str, Any], tool: Tool | None) -> bool:
        """Whether the person allows a call; without ``tool``, whether its flagged result may be passed on."""
        if self.stopped.asked.is_set():
            return False
        kind = "call" if tool else "result"
        self.chosen.clear()
        self.choice = ""
        with _lock:
            self.news |= {"state": "confirming", "pending": {
                "id": call["id"], "kind": kind, "name": call["name"], "arguments": call["arguments"], "source": tool.source if tool else "",
                "result": call.get("result", ""), "flags": call.get("flags", [])}}
        self.chosen.wait(CONFIRM_SECONDS)
        with _lock:
            self.news |= {"state": "calling", "pending": None}
        if self.choice == "chat" and tool:
            self.chat["allowed"] = [*self.chat["allowed"], tool.name]
        return self.choice in ("once", "chat")


def _said(turn: dict[str, Any], text: bool) -> dict[str, Any]:
    """An earlier answer as it is sent again."""
    if not turn["calls"]:
        return {"role": "assistant", "content": turn["content"]}
    if text:
        written = [json.dumps({"name": one["name"], "arguments": one["arguments"]}, ensure_ascii=False) for one in turn["calls"]]
        said = "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in written)
        return {"role": "assistant", "content": f"{turn['content']}\n{said}".strip()}
    made = []
    for one in turn["calls"]:
        given = one["arguments"] if isinstance(one["arguments"], str) else json.dumps(one["arguments"], ensure_ascii=False)
        made.append({"id": one["id"], "type": "function", "function": {"name": one["name"] or "none", "arguments": given}})
    return {"role": "assistant", "content": turn["content"], "tool_calls": made}


def _knows_no_tools(err: StudioError) -> bool:
    said = f"{err.message} {err.hint} {err.field}".lower()
    return "tool" in said or "function" in said
