"""What the scripts of the documents view may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from components.rpc import answer, need_login, on_space, owner_of
from studio import api


def _text(data: dict, key: str) -> str:
    return str(data.get(key) or "")


def _number(value: Any, default: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _dict(data: dict, key: str) -> dict:
    return data[key] if isinstance(data.get(key), dict) else {}


@answer
def collections(data: dict, request: gr.Request) -> dict:
    """The collections, and with ``all`` what may be put into them and who may answer."""
    owner = owner_of(request)
    nobody = on_space() and owner is None
    found = api.collections(owner)
    if nobody:
        found["collections"] = []
    if data.get("all"):
        models = [model for model in api.models(owner) if not model["meta"].get("reward")]
        found |= {"models": models, "datasets": [one for one in api.datasets(owner) if one.get("stage") != "step"]}
    return found


@answer
def collection(data: dict, request: gr.Request) -> dict:
    return api.collection(_text(data, "id"), need_login(request))


@answer
def collection_save(data: dict, request: gr.Request) -> dict:
    values = data.get("values") if isinstance(data.get("values"), dict) else None
    return api.collection_save(_text(data, "id") or None, _text(data, "name"), values, need_login(request))


@answer
def collection_add(data: dict, request: gr.Request) -> dict:
    return api.collection_add(_text(data, "id"), _text(data, "ref")[:1000], _text(data, "title"), _text(data, "text"), need_login(request))


@answer
def collection_remove(data: dict, request: gr.Request) -> dict | None:
    return api.collection_remove(_text(data, "id"), _text(data, "document"), need_login(request))


@answer
def collection_build(data: dict, request: gr.Request) -> dict:
    return api.collection_build(_text(data, "id"), need_login(request))


@answer
def collection_chunks(data: dict, request: gr.Request) -> dict:
    return api.collection_chunks(_text(data, "id"), _text(data, "document"), bool(data.get("flagged")), _text(data, "text")[:200],
                                 _number(data.get("offset")), _number(data.get("limit"), 50), need_login(request))


@answer
def collection_document(data: dict, request: gr.Request) -> dict:
    return api.collection_document(_text(data, "id"), _text(data, "document"), need_login(request))


@answer
def collection_let_in(data: dict, request: gr.Request) -> dict:
    return api.collection_let_in(_text(data, "id"), _number(data.get("chunk"), -1), bool(data.get("yes")), need_login(request))


@answer
def retrieval_ask(data: dict, request: gr.Request) -> dict:
    return api.retrieval_ask(_text(data, "id"), _text(data, "question"), _text(data, "model"), _dict(data, "how"), _dict(data, "settings"),
                             need_login(request))


@answer
def retrieval_poll(data: dict, request: gr.Request) -> dict:
    return api.retrieval_poll(_text(data, "id"), need_login(request))


@answer
def retrieval_stop(data: dict, request: gr.Request) -> dict:
    return api.retrieval_stop(_text(data, "id"), need_login(request))


FUNCTIONS = [collections, collection, collection_save, collection_add, collection_remove, collection_build, collection_chunks,
             collection_document, collection_let_in, retrieval_ask, retrieval_poll, retrieval_stop]
