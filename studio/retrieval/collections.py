"""Collections of documents: folders ``collections/<id>/`` of the workspace.

``collection.json`` holds name, owner, settings, the list of documents, what was let in, and the name of the index that is in
use; ``documents/<id>.json`` the texts; ``index-N/`` the chunks and what is searched. An index is built beside the one in
use and takes its place when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import threading
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.jobs import probe
from studio.jobs.files import read_json, write_json
from studio.library.artifacts import new_id
from studio.retrieval import guard, reading
from studio.retrieval.index import Index
from studio.retrieval.index import build as build_index

MOST = 200  # collections of a workspace
MOST_CHUNKS = 100_000
BUILD_SECONDS = 900
DEFAULTS: dict[str, Any] = {"size": 120, "overlap": 20, "embedder": ""}
LIMITS = {"size": (20, 1000), "overlap": (0, 300)}  # words
_ID = re.compile(r"c[a-z0-9]{10}")
_lock = threading.RLock()
_building: set[str] = set()
_log = logging.getLogger(__name__)


def folder(id: str) -> Path:
    """Raises: StudioError: that is no id."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise StudioError("There is no such collection.", "Choose one from the list.", "collection")
    return settings.home() / "collections" / id


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a collection with the defaults filled in.

    Raises:
        StudioError: naming the one that is out of bounds, or no embedding model where one is named.
    """
    made = dict(DEFAULTS)
    for name, (low, high) in LIMITS.items():
        value = values.get(name, DEFAULTS[name])
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = low - 1
        if not low <= number <= high:
            raise StudioError(f"The {name} of a chunk is between {low} and {high} words; it is {value}.", "", name)
        made[name] = number
    if made["overlap"] >= made["size"] / 2:
        raise StudioError("Neighbouring chunks may share less than half their words.", "Lower the overlap.", "overlap")
    if place := str(values.get("embedder") or "").strip()[:1000]:
        from studio.datasets import embedding

        path = Path(place).expanduser()
        path = path if path.is_absolute() else settings.home() / path
        if settings.shared():
            path = settings.inside_home(path)
        try:
            embedding.check(path)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "embedder") from err
        made["embedder"] = str(path)
    return made


def embedders() -> list[dict[str, str]]:
    """Static embedding models of the workspace's ``models`` folder: ``{path, name}``."""
    from studio.datasets import embedding

    found = []
    for path in sorted((settings.home() / "models").glob("*/model.safetensors")):
        with contextlib.suppress(StudioError):
            embedding.check(path.parent)
            found.append({"path": str(path.parent), "name": path.parent.name})
    return found


def create(name: str, values: dict[str, Any] | None = None, owner: str | None = None) -> dict[str, Any]:
    """A new, empty collection; as :func:`load`.

    Raises:
        StudioError: no name, bad settings, or too many collections.
    """
    if not name.strip():
        raise StudioError("A collection needs a name.", "Type one.", "name")
    made = checked(values or {})
    root = settings.home() / "collections"
    if root.is_dir() and sum(1 for _ in root.iterdir()) >= MOST:
        raise StudioError(f"There are {MOST} collections already.", "Delete one first.")
    id = new_id("c")
    (root / id / "documents").mkdir(parents=True)
    _write(id, {"id": id, "name": name.strip()[:120], "owner": owner, "created": time.time(), "settings": made, "documents": [],
                "let_in": [], "index": "", "built": {}, "error": None})
    return load(id, owner)


def listed(owner: str | None = None) -> list[dict[str, Any]]:
    """``{id, name, documents, chunks, flagged, state, created}`` of each, the newest first."""
    root = settings.home() / "collections"
    found = [record for path in root.glob("*/collection.json") if (record := read_json(path)) and owner in (None, record["owner"])]
    keys = ("id", "name", "created")
    return [{key: one[key] for key in keys} | {"documents": len(one["documents"]), "chunks": one["built"].get("chunks", 0),
                                               "flagged": one["built"].get("flagged", 0), "state": _state(one)}
            for one in sorted(found, key=lambda one: -one["created"])]


def load(id: str, owner: str | None = None) -> dict[str, Any]:
    """A collection: ``{id, name, settings, documents: [{id, name, ref, chars, chunks, hidden}], built, let_in, state, error}``;
    ``state`` is empty, building, ready, failed or old (documents or settings changed since it was built).

    Raises:
        StudioError: there is none, or it is another person's.
    """
    record = read_json(folder(id) / "collection.json")
    if record is None or owner not in (None, record["owner"]):
        raise StudioError("There is no such collection.", "Choose one from the list.", "collection")
    return record | {"state": _state(record)}


def _state(record: dict[str, Any]) -> str:
    if record["id"] in _building:
        return "building"
    if not record["documents"]:
        return "empty"
    if record.get("error"):
        return "failed"
    return "ready" if record["index"] and record["built"].get("of") == _of(record) else "old"


def _of(record: dict[str, Any]) -> str:
    """Tells what an index has to be built of."""
    made_of = json.dumps([record["settings"], [one["id"] for one in record["documents"]]])
    return hashlib.blake2b(made_of.encode(), digest_size=8).hexdigest()


def _write(id: str, record: dict[str, Any]) -> None:
    write_json(folder(id) / "collection.json", {key: value for key, value in record.items() if key != "state"})


def change(id: str, name: str | None, values: dict[str, Any] | None, owner: str | None = None) -> dict[str, Any]:
    """Another name or other settings; the index is built again by :func:`build`.

    Raises:
        StudioError: there is none, or bad settings.
    """
    with _lock:
        record = load(id, owner)
        if values is not None:
            record["settings"] = checked(record["settings"] | values)
        if name is not None and name.strip():
            record["name"] = name.strip()[:120]
        _write(id, record)
    return load(id, owner)


def delete(id: str, owner: str | None = None) -> None:
    """Raises: StudioError: there is none, or its index is being built."""
    with _lock:
        load(id, owner)
        _must_rest(id)
        shutil.rmtree(folder(id))
    _opened.cache_clear()


def add(id: str, ref: str = "", title: str = "", text: str = "", owner: str | None = None) -> dict[str, Any]:
    """Put a document in: a dataset reference, or pasted text. As :func:`load`; the index is then old.

    Raises:
        StudioError: unreadable, empty, too large, or there already.
    """
    load(id, owner)
    _must_rest(id)
    if ref:
        found = probe.call("studio.retrieval.collections:read", {"ref": ref}, timeout=300)
    else:
        found = reading.pasted(title, text).to_dict()
    with _lock:
        record = load(id, owner)
        if any(one["id"] == found["id"] for one in record["documents"]):
            raise StudioError(f"{found['name']} is in this collection already.", "", "dataset")
        total = sum(one["chars"] for one in record["documents"]) + len(found["text"])
        if total > reading.MOST_CHARS:
            raise StudioError(f"A collection holds at most {reading.MOST_CHARS / 1e6:.0f} million characters; with {found['name']} "
                              f"it would be {total / 1e6:.1f} million.", "Make another collection for it.", "dataset")
        write_json(folder(id) / "documents" / f"{found['id']}.json", found)
        record["documents"].append({"id": found["id"], "name": found["name"], "ref": found["ref"], "chars": len(found["text"]),
                                    "chunks": 0, "hidden": len(found["hidden"])})
        record["error"] = None
        _write(id, record)
    return load(id, owner)


def read(ref: str) -> dict[str, Any]:
    """:func:`studio.retrieval.reading.read` as plain values. Runs in a probe: the parsers of documents meet whatever was
    uploaded, and what becomes of them must not touch the page."""
    return reading.read(ref).to_dict()


def remove(id: str, document: str, owner: str | None = None) -> dict[str, Any]:
    """Take a document out. As :func:`load`.

    Raises:
        StudioError: it is not there, or the index is being built.
    """
    with _lock:
        record = load(id, owner)
        _must_rest(id)
        left = [one for one in record["documents"] if one["id"] != document]
        if len(left) == len(record["documents"]):
            raise StudioError("That document is not in this collection.", "Reload the page.")
        (folder(id) / "documents" / f"{document}.json").unlink(missing_ok=True)
        record |= {"documents": left, "error": None}
        if not left:
            record |= {"index": "", "built": {}}
        _write(id, record)
    return load(id, owner)


def document(id: str, document: str, owner: str | None = None) -> dict[str, Any]:
    """A document as it was read: ``{id, name, ref, text, places, hidden}``.

    Raises:
        StudioError: it is not there.
    """
    record = load(id, owner)
    known = any(one["id"] == document for one in record["documents"])
    found = read_json(folder(id) / "documents" / f"{document}.json") if known else None
    if found is None:
        raise StudioError("That document is not in this collection.", "Reload the page.")
    return found


def chunks(id: str, owner: str | None = None, document: str = "", only_flagged: bool = False, text: str = "", offset: int = 0,
           limit: int = 50) -> dict[str, Any]:
    """A page of the chunks: ``{rows, total, flags}``; a row is ``{id, document, title, place, start, end, text, words, flags,
    let_in}``, ``flags`` the number of chunks by reason.

    Raises:
        StudioError: there is no such collection, or no index yet.
    """
    index, record = opened(id, owner)
    low, let = text.casefold().strip(), set(record["let_in"])
    rows = [chunk for chunk in index.chunks if (not document or chunk["document"] == document) and (not only_flagged or chunk["flags"])
            and (not low or low in chunk["text"].casefold())]
    shown = [row | {"let_in": digest(row["text"]) in let} for row in rows[offset:offset + limit]]
    return {"rows": shown, "total": len(rows), "flags": guard.counts(index.chunks)}


def let_in(id: str, chunk: int, yes: bool, owner: str | None = None) -> dict[str, Any]:
    """Let a flagged chunk be used, or no longer. As :func:`load`. It holds for the text, so building again keeps it.

    Raises:
        StudioError: no such chunk.
    """
    index, _ = opened(id, owner)
    if not 0 <= chunk < len(index.chunks):
        raise StudioError("That part of the document is not there any more.", "Reload the page.")
    key = digest(index.chunks[chunk]["text"])
    with _lock:
        record = load(id, owner)
        record["let_in"] = sorted({*record["let_in"], key} if yes else {*record["let_in"]} - {key})
        _write(id, record)
    return load(id, owner)


def digest(text: str) -> str:
    """Tells one chunk's text from another's."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


# ---- the index


def start(id: str, owner: str | None = None) -> dict[str, Any]:
    """Build the index in the background. As :func:`load`.

    Raises:
        StudioError: nothing to build, or it is being built.
    """
    with _lock:
        record = load(id, owner)
        _must_rest(id)
        if not record["documents"]:
            raise StudioError("There is nothing in this collection.", "Add a document first.")
        _building.add(id)
    threading.Thread(target=_build, args=(id,), daemon=True, name=f"collection-{id}").start()
    return load(id, owner)


def _build(id: str) -> None:
    error = None
    try:
        built = probe.call("studio.retrieval.collections:build", {"id": id}, timeout=BUILD_SECONDS)
    except StudioError as err:
        error = {"message": err.message, "hint": err.hint}
    except Exception as err:
        _log.exception("collection %s", id)
        error = {"message": f"{type(err).__name__}: {err}", "hint": "The studio's log says more."}
    before = ""
    with _lock:
        record = read_json(folder(id) / "collection.json")
        if record is not None and error:
            _write(id, record | {"error": error})
        elif record is not None:
            for one in record["documents"]:
                one["chunks"] = built["by_document"].get(one["id"], 0)
            before = record["index"]
            _write(id, record | {"index": built.pop("index"), "built": built, "error": None})
        _building.discard(id)  # last: who sees that it is over sees what became of it
    if before:
        shutil.rmtree(folder(id) / before, ignore_errors=True)


def build(id: str) -> dict[str, Any]:
    """Cut, look, index. Runs in a probe.

    Returns:
        ``{index, of, chunks, flagged, words, seconds, vectors, embedder, by_document}``.

    Raises:
        StudioError: there are too many chunks, or the embedding model is gone.
    """
    began = time.monotonic()
    record = load(id)
    parts: list[dict[str, Any]] = []
    for one in record["documents"]:
        found = reading.Document(**document(id, one["id"]))
        for start_, end, text in cut(found.text, record["settings"]["size"], record["settings"]["overlap"]):
            flags = [flag.to_dict() for flag in guard.look(text, found.hidden)]
            parts.append({"id": len(parts), "document": found.id, "title": found.name, "place": found.place(start_), "start": start_,
                          "end": end, "text": text, "words": len(text.split()), "flags": flags})
        if len(parts) > MOST_CHUNKS:
            raise StudioError(f"That makes more than {MOST_CHUNKS:,} chunks.", "Make the chunks larger.", "size")
    if not parts:
        raise StudioError("The documents hold no words.", "Add a document with text.")
    root = folder(id)
    number = max((int(path.name.partition("-")[2]) for path in root.glob("index-*") if path.name[6:].isdigit()), default=0) + 1
    target = root / f"index-{number}"
    target.mkdir()
    try:
        facts = build_index(parts, target, record["settings"]["embedder"])
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return facts | {"index": target.name, "of": _of(record), "chunks": len(parts), "flagged": sum(bool(part["flags"]) for part in parts),
                    "words": sum(part["words"] for part in parts), "seconds": round(time.monotonic() - began, 2),
                    "by_document": dict(Counter(part["document"] for part in parts))}


def cut(text: str, size: int, overlap: int) -> list[tuple[int, int, str]]:
    """``(start, end, text)`` of chunks of at most ``size`` words, cut where the text itself pauses (semchunk); neighbours share
    about ``overlap`` words. Where nobody puts spaces between words (Chinese, Japanese), two characters count as one."""
    import semchunk

    chunker = semchunk.chunkerify(_length, size, memoize=False)
    found, places = chunker(text, offsets=True, overlap=overlap or None)
    return [(start_, end, part) for part, (start_, end) in zip(found, places, strict=True) if part.strip()]


_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def _length(text: str) -> int:
    """Words; where a text has hardly any spaces (encoded data, long addresses) fourteen characters are one."""
    return max(len(text.split()) + len(_WIDE.findall(text)) // 2, len(text) // 14)


def opened(id: str, owner: str | None = None) -> tuple[Index, dict[str, Any]]:
    """The index in use, and the collection's record.

    Raises:
        StudioError: there is no collection, or none was built.
    """
    record = load(id, owner)
    if not record["index"]:
        raise StudioError("This collection has no index yet.", "Build it first.", "collection")
    return _opened(str(folder(id) / record["index"]), record["built"].get("embedder") or ""), record


@lru_cache(maxsize=4)
def _opened(place: str, embedder: str) -> Index:
    return Index(Path(place), embedder)


def _must_rest(id: str) -> None:
    if id in _building:
        raise StudioError("The index of this collection is being built.", "Wait until it is done.")
