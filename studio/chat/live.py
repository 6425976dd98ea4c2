"""Conversations under way: one prompt to several models at once, written into the history while the answers come.

A conversation's stored ``data`` is ``{"shared": {"system", "settings"}, "columns": [{"key", "ref", "own", "system",
"settings", "messages"}]}``. A message is ``{"role", "content"}``; an answer also has ``id``, ``state`` (answering,
done or failed), ``model`` (its label), and as they become known ``ttft``, ``tokens_per_second``, ``tokens``, ``finish``,
``note``, ``error`` and ``hint``.

The answers are written by threads of this process, so a page may be reloaded while they come. If the process dies, the
answers end there; what was said so far is in the history.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from typing import Any

from studio.chat import history, session
from studio.chat.client import Stop
from studio.errors import StudioError
from studio.library import chats

MAX_COLUMNS = 4
MAX_PROMPT = 200_000  # characters
MAX_IMAGES, MAX_IMAGE = 4, 4 << 20  # pictures of one message, characters of all of them
MOST_ANSWERS = 8  # earlier answers to one question that are kept
SAVE_SECONDS = 1.0
_PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]{8,}\Z")
_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_KEPT = ("ttft", "tokens_per_second", "tokens", "prompt_tokens", "finish", "note", "reasoning", "tool_calls")
_running: dict[tuple[str, str], "Answering"] = {}  # (chat, column) -> the answer that comes there
_lock = threading.Lock()
log = logging.getLogger(__name__)


class Answering:
    """One answer on its way, in a thread of its own."""

    def __init__(self, chat: str, column: str, answer: str, ref: str, messages: list[dict], settings: dict,
                 owner: str | None):
        self.chat, self.column, self.answer, self.owner = chat, column, answer, owner
        self.stop = Stop()
        self.news: dict[str, Any] = {"id": answer, "state": "loading", "content": "", "seconds": 0.0, "crashed": ""}
        self._saved = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(ref, messages, settings), daemon=True,
                                        name=f"answer-{answer}")

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self, ref: str, messages: list[dict], settings: dict) -> None:
        try:
            for event in session.stream(ref, messages, settings, self.stop):
                state = "answering" if event["state"] == "done" else event["state"]
                self.news |= {"state": state, "seconds": event["seconds"]}
                if state == "loading":
                    self.news["crashed"] = event["crashed"] or self.news["crashed"]
                else:
                    self.news |= {"content": whole(event["reasoning"], event["text"])} | {key: event[key] for key in _KEPT}
                    if time.monotonic() - self._saved > SAVE_SECONDS:
                        self._save()
            end: dict[str, Any] = {"state": "done"}
        except StudioError as err:
            stopped = self.stop.asked.is_set()
            failed = {"state": "failed", "error": err.message, "hint": err.hint}
            end = {"state": "done", "finish": "stopped"} if stopped else failed
        except Exception as err:
            log.exception("answer %s", self.answer)
            end = {"state": "failed", "error": f"{type(err).__name__}: {err}",
                   "hint": "This is a fault of the studio; its log says more."}
        with _lock:
            if _running.get((self.chat, self.column)) is self:
                del _running[self.chat, self.column]
            self.news |= end
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        kept = {key: value for key, value in self.news.items() if key not in ("seconds", "crashed")}
        if kept["state"] == "loading":
            kept["state"] = "answering"

        def write(data: dict[str, Any]) -> None:
            for message in reversed(column_of(data, self.column)["messages"]):
                if message.get("id") == self.answer:
                    message.update(kept)
                    return

        try:
            history.change(self.chat, write, self.owner)
        except StudioError:
            self.stop()  # the chat or the column was deleted meanwhile: nobody waits for this answer


def whole(reasoning: str, text: str) -> str:
    """An answer as it is stored: thoughts that a server tells apart stand before it as models write them themselves. It only
    ever grows at its end, so that a page can fetch what is new."""
    return text if not reasoning else f"<think>{reasoning}" + (f"</think>\n\n{text}" if text else "")


def without_thoughts(content: str) -> str:
    """An answer without what was thought before it, as a model is shown its own earlier answers."""
    return _THOUGHTS.sub("", content, count=1)


def all_answers(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message with its other versions, in the order in which they were written."""
    others = list(message.get("others") or [])
    own = {key: value for key, value in message.items() if key not in ("others", "place")}
    others.insert(message.get("place", len(others)), own)
    return others


def ask(chat_id: str | None, setup: dict[str, Any], text: str, owner: str | None = None,
        images: list[str] | None = None) -> dict[str, Any]:
    """Puts ``text`` to every column that has a model and starts their answers; without ``chat_id`` in a new chat.

    Args:
        images: Pictures that go with it, as ``data:image/…;base64,…``.

    Returns:
        The chat, as :func:`load` does.

    Raises:
        StudioError: nothing to ask, nobody to ask, or bad settings; nothing is stored then.
    """
    if not isinstance(text, str) or not text.strip():
        raise StudioError("There is nothing to send.", "Write a message first.", "prompt")
    if len(text) > MAX_PROMPT:
        raise StudioError(f"That is {len(text):,} characters; at most {MAX_PROMPT:,} can be sent at once.",
                          "Shorten it.", "prompt")
    pictures = _pictures(images)
    setup = check_setup(setup, owner)
    if not any(column["ref"] for column in setup["columns"]):
        raise StudioError("No model is chosen.", "Choose one at the top of a column.", "model")
    if not chat_id:
        chat_id = chats.save(setup | {"columns": [c | {"messages": []} for c in setup["columns"]]}, None, text,
                             owner)["id"]
    _must_rest(chat_id, None)

    def write(data: dict[str, Any]) -> None:
        _apply(data, setup)
        for column in data["columns"]:
            if column["ref"]:
                column["messages"].append({"role": "user", "content": text} | ({"images": pictures} if pictures else {}))

    history.change(chat_id, write, owner)
    return _answer(chat_id, None, owner)


def retry(chat_id: str, column: str, setup: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """Another answer to the last question of one column; the one there stays behind it (:func:`studio.chat.past.choose`).

    Raises:
        StudioError: no such chat or column, no question there, or an answer is still coming.
    """
    setup = check_setup(setup, owner)
    _must_rest(chat_id, {column})

    def write(data: dict[str, Any]) -> None:
        _apply(data, setup)
        messages = column_of(data, column)["messages"]
        while messages and messages[-1]["role"] != "user":
            answer = messages.pop()
            column_of(data, column)["earlier"] = [one for one in all_answers(answer) if one.get("content")][-MOST_ANSWERS:]
        if not messages:
            raise StudioError("There is no question to answer again.", "Write one below.")

    history.change(chat_id, write, owner)
    return _answer(chat_id, {column}, owner)


def edit(chat_id: str, column: str, index: int, text: str, setup: dict[str, Any],
         owner: str | None = None) -> dict[str, Any]:
    """Changes the user's message ``index`` of a column and asks anew from there. Columns that were asked the same at
    the same place follow, so that they stay comparable.

    Raises:
        StudioError: no such message, an empty text, or an answer is still coming.
    """
    if not isinstance(text, str) or not text.strip():
        raise StudioError("There is nothing to send.", "Write a message first.", "prompt")
    setup = check_setup(setup, owner)
    _must_rest(chat_id, None)
    touched: set[str] = set()

    def write(data: dict[str, Any]) -> None:
        _apply(data, setup)
        messages = column_of(data, column)["messages"]
        if not 0 <= index < len(messages) or messages[index]["role"] != "user":
            raise StudioError("That message is not there any more.", "Reload the page.")
        before = messages[index]["content"]
        for one in data["columns"]:
            here = one["messages"][index] if index < len(one["messages"]) else {}
            if here.get("role") == "user" and here.get("content") == before and one["ref"]:
                one["messages"] = one["messages"][:index] + [{"role": "user", "content": text}]
                touched.add(one["key"])

    history.change(chat_id, write, owner)
    return _answer(chat_id, touched, owner)


def setup(chat_id: str, values: dict[str, Any], owner: str | None = None) -> None:
    """Stores columns, prompts and settings that were changed without asking anything.

    Raises:
        StudioError: no such chat, or bad settings.
    """
    values = check_setup(values, owner)
    gone = {c["key"] for c in chats.load(chat_id, owner)["data"]["columns"]} - {c["key"] for c in values["columns"]}
    for key in gone:
        _stop(chat_id, key)
    history.change(chat_id, lambda data: _apply(data, values), owner)


def stop(chat_id: str, column: str | None = None, owner: str | None = None) -> None:
    """Ends the answers of a chat, or of one column, and waits a moment for them to be stored."""
    chats.load(chat_id, owner)
    _stop(chat_id, column)


def load(chat_id: str, owner: str | None = None) -> dict[str, Any]:
    """``{id, title, updated, data, running}``; ``running`` is the columns whose answers still come.

    Raises:
        StudioError: if there is no such chat, or it is another person's.
    """
    with _lock:
        found = chats.load(chat_id, owner)
        running = {column: dict(a.news) for (chat, column), a in _running.items() if chat == chat_id}
    for column in found["data"]["columns"]:
        for message in column["messages"]:
            if message.get("state") == "answering":
                if message["id"] == running.get(column["key"], {}).get("id"):
                    message.update(running[column["key"]])
                else:  # its writer died with the studio
                    message |= {"state": "done", "finish": "interrupted"}
    return {key: found[key] for key in ("id", "title", "updated", "data")} | {"running": sorted(running)}


def poll(chat_id: str, seen: dict[str, int], owner: str | None = None) -> dict[str, Any]:
    """What is new: ``{column: news}`` of the answers under way, ``content`` from character ``seen[column]`` on.

    A column that is not in it has ended; :func:`load` has its answer.
    """
    with _lock:
        mine = [(c, a) for (chat, c), a in _running.items() if chat == chat_id and (owner is None or a.owner == owner)]
        found = {column: dict(answering.news) for column, answering in mine}
    for column, news in found.items():
        start = seen.get(column, 0)
        start = start if isinstance(start, int) and 0 <= start <= len(news["content"]) else 0
        news |= {"content": news["content"][start:], "from": start}
    return found


def check_setup(values: Any, owner: str | None = None) -> dict[str, Any]:
    """The columns and settings as the page sends them, checked and without anything else.

    Raises:
        StudioError: too many columns, settings out of bounds, or a model of another person.
    """
    from studio.chat.address import is_address
    from studio.library.refs import check_owner

    values = values if isinstance(values, dict) else {}
    columns = [c for c in values.get("columns") or [] if isinstance(c, dict)]
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise StudioError(f"A chat has one to {MAX_COLUMNS} columns.", "Add or remove columns.")
    made, keys = [], set()
    for column in columns:
        key = str(column.get("key") or "")
        if not key.isalnum() or len(key) > 12 or key in keys:
            raise StudioError("The columns of this chat are mixed up.", "Reload the page.")
        keys.add(key)
        ref = str(column.get("ref") or "").strip()[:1000]
        if ref and not is_address(ref):
            check_owner(ref, owner, "model")
        made.append({"key": key, "ref": ref, "own": bool(column.get("own")), **_prompt_and_settings(column)})
    shared = values.get("shared") if isinstance(values.get("shared"), dict) else {}
    return {"shared": _prompt_and_settings(shared), "columns": made}


def _prompt_and_settings(values: dict[str, Any]) -> dict[str, Any]:
    given = values.get("settings") if isinstance(values.get("settings"), dict) else {}
    session.check_settings(given)
    return {"system": str(values.get("system") or "")[:MAX_PROMPT],
            "settings": {name: value for name, value in given.items() if value not in (None, "")}}


def _apply(data: dict[str, Any], setup: dict[str, Any]) -> None:
    """New columns and settings; the messages stay with their column's key."""
    messages = {c["key"]: c["messages"] for c in data.get("columns") or []}
    data["shared"] = setup["shared"]
    data["columns"] = [column | {"messages": messages.get(column["key"], [])} for column in setup["columns"]]


def column_of(data: dict[str, Any], key: str) -> dict[str, Any]:
    for column in data["columns"]:
        if column["key"] == key:
            return column
    raise StudioError("That column is not there any more.", "Reload the page.")


def _must_rest(chat_id: str, columns: set[str] | None) -> None:
    with _lock:
        busy = [c for chat, c in _running if chat == chat_id and (columns is None or c in columns)]
    if busy:
        raise StudioError("An answer is still coming.", "Wait for it, or stop it first.")


def _answer(chat_id: str, columns: set[str] | None, owner: str | None) -> dict[str, Any]:
    """Starts the answers of the chosen columns (``None``: of every one that was asked something)."""
    started: list[tuple[str, str, str, list[dict], dict]] = []

    def write(data: dict[str, Any]) -> None:
        for column in data["columns"]:
            chosen = columns is None or column["key"] in columns
            if not chosen or not column["messages"] or column["messages"][-1]["role"] != "user":
                continue
            if not column["ref"]:
                raise StudioError("No model is chosen in this column.", "Choose one at its top.", "model")
            how = column if column["own"] else data["shared"]
            answer = secrets.token_hex(6)
            started.append((column["key"], answer, column["ref"], _asked(how["system"], column["messages"]),
                            how["settings"]))
            earlier = column.pop("earlier", None)
            column["messages"].append({"role": "assistant", "content": "", "id": answer, "state": "answering",
                                       "model": session.label_of(column["ref"])} | ({"others": earlier} if earlier else {}))

    history.change(chat_id, write, owner)
    with _lock:
        for column, answer, ref, messages, settings in started:
            made = _running[chat_id, column] = Answering(chat_id, column, answer, ref, messages, settings, owner)
            made.start()
    return load(chat_id, owner)


def _pictures(images: list[str] | None) -> list[str]:
    found = [str(one) for one in images or []]
    if len(found) > MAX_IMAGES or sum(map(len, found)) > MAX_IMAGE:
        raise StudioError(f"At most {MAX_IMAGES} pictures of together {MAX_IMAGE >> 20} MB go with a message.", "Leave some out, or make them smaller.", "prompt")
    if any(not _PICTURE.match(one) for one in found):
        raise StudioError("This is no picture that models read.", "Take a PNG, JPEG, WebP or GIF file.", "prompt")
    return found


def _asked(system: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the model is sent: questions that were answered, and the last one."""
    sent = [{"role": "system", "content": system}] if system.strip() else []
    for here, after in zip(messages, [*messages[1:], None]):
        if here["role"] == "user" and (after is None or (after["role"] == "assistant" and after["content"])):
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in here.get("images") or []]
            sent.append({"role": "user", "content": [*pictures, {"type": "text", "text": here["content"]}] if pictures else here["content"]})
            if after is not None:
                sent.append({"role": "assistant", "content": without_thoughts(after["content"])})
    return sent


def _stop(chat_id: str, column: str | None) -> None:
    with _lock:
        chosen = [a for (chat, c), a in _running.items() if chat == chat_id and column in (None, c)]
    for answering in chosen:
        answering.stop()
    for answering in chosen:
        answering.join(3)
