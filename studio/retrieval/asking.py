"""One question to one model twice: with what was found in a collection, and without.

The answers are written by threads of this process and polled; a question is forgotten with the process, or when many others
were asked since.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any

from studio.chat import address, session
from studio.chat.client import Stop
from studio.errors import StudioError
from studio.retrieval import collections, guard, prompt, rerank
from studio.retrieval.index import WAYS

MOST_QUESTION = 8000  # characters
KEPT = 200  # questions
SOURCES = 12
DEFAULTS: dict[str, Any] = {"way": "fused", "rerank": "none", "reranker": "", "sources": 4, "layout": "numbered", "guard": "delimit",
                            "without": True}
_FACTS = ("ttft", "tokens_per_second", "tokens", "finish", "note")
_asked: OrderedDict[str, Question] = OrderedDict()
_lock = threading.Lock()
_log = logging.getLogger(__name__)


def options(values: dict[str, Any]) -> dict[str, Any]:
    """How to search and ask, checked.

    Raises:
        StudioError: naming what is not known.
    """
    made = DEFAULTS | {name: values[name] for name in DEFAULTS if values.get(name) is not None}
    for name, known in (("way", WAYS), ("rerank", rerank.WAYS), ("layout", prompt.LAYOUTS), ("guard", guard.MODES)):
        if made[name] not in known:
            raise StudioError(f"There is no '{made[name]}' here.", f"Known: {', '.join(known)}.", name)
    if not isinstance(made["sources"], int) or not 1 <= made["sources"] <= SOURCES:
        raise StudioError(f"An answer has 1 to {SOURCES} sources.", "", "sources")
    return made | {"without": bool(made["without"]), "reranker": str(made["reranker"])[:1000]}


def search(id: str, question: str, how: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """What a collection has for a question: ``{sources, left_out}``, each a list of chunks in order with ``number`` (from 1; of
    what is left out the number that it would have had), ``score``, the ranks ``words`` and ``vectors``, ``before`` reranking.

    Raises:
        StudioError: no index, or the reranking model cannot be loaded.
    """
    index, record = collections.opened(id, owner)
    hits = index.search(question, how["way"], max(rerank.POOL, 4 * how["sources"]))
    let = set(record["let_in"])
    safe = {hit["chunk"]: not index.chunks[hit["chunk"]]["flags"] or collections.digest(index.chunks[hit["chunk"]]["text"]) in let
            for hit in hits}
    hits = rerank.again(hits, question, index, how["rerank"], how["reranker"])
    sources: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for hit in hits:
        chunk = index.chunks[hit["chunk"]]
        one = {key: chunk[key] for key in ("id", "document", "title", "place", "start", "end", "text", "flags")}
        one |= {key: hit.get(key) for key in ("score", "words", "vectors", "before")}
        (sources if safe[hit["chunk"]] else left_out).append(one | {"number": len(sources) + 1, "let_in": bool(chunk["flags"])})
        if len(sources) >= how["sources"]:
            break
    return {"sources": sources, "left_out": left_out[:SOURCES]}


class Question:
    """A question under way."""

    def __init__(self, collection: str, text: str, ref: str, how: dict[str, Any], settings: dict[str, Any], owner: str | None):
        self.id, self.owner, self.collection, self.text, self.ref = f"q{secrets.token_hex(6)}", owner, collection, text, ref
        self.how, self.settings, self.stopped = how, settings, {"with": Stop(), "without": Stop()}
        sides = ["with", *(["without"] if how["without"] else [])]
        self.news: dict[str, Any] = {
            "id": self.id, "collection": collection, "question": text, "model": ref, "label": session.label_of(ref), "how": how,
            "state": "searching", "sources": [], "left_out": [], "dropped": 0, "prompts": {}, "error": None,
            "sides": {side: {"state": "waiting", "text": ""} for side in sides}}

    def run(self) -> None:
        began = time.monotonic()
        try:
            found = search(self.collection, self.text, self.how, self.owner)
            self.news |= found | {"seconds": round(time.monotonic() - began, 2)}
            asked = self._prompts(found["sources"])
            self.news["state"] = "answering"
            # one after the other: side by side they would only slow each other down
            for side in self.news["sides"]:
                self._side(side, asked[side])
            self.news["state"] = "done"
        except StudioError as err:
            self.news |= {"state": "failed", "error": {"message": err.message, "hint": err.hint, "field": err.field}}
        except Exception as err:
            _log.exception("question %s", self.id)
            self.news |= {"state": "failed", "error": {"message": f"{type(err).__name__}: {err}", "hint": "The studio's log says more."}}

    def _prompts(self, sources: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
        """The messages of each side; fewer sources where the model's context is too short for all."""
        from studio.jobs import probe
        from studio.library import refs

        mark = prompt.fence()
        versions = {"with": [prompt.messages(self.text, sources[:n], self.how["layout"], self.how["guard"], mark)
                             for n in range(len(sources), -1, -1)],
                    "without": [prompt.messages(self.text, [])]}
        versions = {side: versions[side] for side in self.news["sides"]}
        shown: dict[str, Any] = {}
        if not address.is_address(self.ref) and refs.resolve_model(self.ref).meta.get("format") != "gguf":
            shown = probe.call("studio.retrieval.prompt:seen", {"model": self.ref, "ways": versions}, timeout=120)
        asked = {side: turns[shown.get(side, {}).get("chosen", 0)] for side, turns in versions.items()}
        self.news["dropped"] = shown.get("with", {}).get("chosen", 0)
        self.news["sources"] = sources[:len(sources) - self.news["dropped"]]
        self.news["prompts"] = {side: {"messages": turns, **{key: shown.get(side, {}).get(key) for key in ("text", "tokens", "context")}}
                                for side, turns in asked.items()}
        return asked

    def _side(self, side: str, messages: list[dict[str, str]]) -> None:
        news = self.news["sides"][side]
        if side == "with" and not self.news["sources"]:
            news |= {"state": "nothing"}
            return
        news["state"] = "loading"
        try:
            for event in session.stream(self.ref, messages, self.settings, self.stopped[side]):
                if event["state"] != "loading":
                    news |= {"state": "answering", "text": event["text"], **{key: event[key] for key in _FACTS if event.get(key) is not None}}
            news["state"] = "done"
        except StudioError as err:
            news |= {"state": "failed", "error": err.message, "hint": err.hint}


def ask(collection: str, text: str, ref: str, how: dict[str, Any], settings: dict[str, Any] | None = None,
        owner: str | None = None) -> dict[str, Any]:
    """Start; as :func:`poll`. Both answers are drawn at temperature 0 unless ``settings`` say otherwise, so that what differs
    comes from the documents.

    Raises:
        StudioError: nothing asked, no model, no index, or unknown options.
    """
    text = str(text).strip()
    if not text:
        raise StudioError("There is nothing to ask.", "Write a question.", "question")
    if len(text) > MOST_QUESTION:
        raise StudioError(f"A question has at most {MOST_QUESTION:,} characters.", "Shorten it.", "question")
    if not ref:
        raise StudioError("No model is chosen.", "Choose one.", "model")
    if not address.is_address(ref):
        from studio.library.refs import check_writes, resolve_model

        check_writes(resolve_model(ref))
    made = Question(collection, text, ref, options(how), session.check_settings({"temperature": 0} | (settings or {})), owner)
    collections.opened(collection, owner)
    with _lock:
        _asked[made.id] = made
        while len(_asked) > KEPT:
            _asked.popitem(last=False)
    threading.Thread(target=made.run, daemon=True, name=f"question-{made.id}").start()
    return poll(made.id, owner)


def poll(id: str, owner: str | None = None) -> dict[str, Any]:
    """``{id, question, model, label, state, sources, left_out, dropped, prompts, sides: {with, without}, error}``.

    ``state`` is searching, answering, done or failed; ``dropped`` the sources that did not fit the model's context;
    ``prompts[side]`` has the ``messages`` as they were sent, and for a model of this studio the whole ``text`` after its
    template, its ``tokens`` and the ``context``.

    Raises:
        StudioError: it is not known any more, or it is another person's.
    """
    return dict(_find(id, owner).news)


def stop(id: str, owner: str | None = None) -> dict[str, Any]:
    """End the answers where they are; as :func:`poll`."""
    for one in _find(id, owner).stopped.values():
        one()
    return poll(id, owner)


def _find(id: str, owner: str | None) -> Question:
    with _lock:
        found = _asked.get(str(id))
    if found is None or owner not in (None, found.owner):
        raise StudioError("That question is not known any more.", "Ask it again.")
    return found
