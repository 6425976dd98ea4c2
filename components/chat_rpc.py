"""What the Chat tab's script may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login, on_space, owner_of
from studio import api


@answer
def chat_start(data: dict, request: gr.Request) -> dict:
    """What the tab needs to be drawn: models to choose from, settings with their bounds, engines that are loaded."""
    models = [model for model in api.models(owner_of(request)) if not model["meta"].get("reward")]  # they cannot write
    return {"models": models, "settings": api.chat_settings(), "engines": _engines(request)}


@answer
def chat_engines(data: dict, request: gr.Request) -> list:
    return _engines(request)


def _engines(request: gr.Request) -> list:
    if on_space():
        return []  # which models the others have loaded is nobody's business
    keys = ("id", "base", "label", "state", "rss_bytes", "active", "idle_seconds", "adapters")
    return [{key: engine[key] for key in keys} for engine in api.engines()]


@answer
def chat_unload(data: dict, request: gr.Request) -> bool:
    need_login(request)
    return api.unload(str(data.get("id") or ""))


@answer
def chats(data: dict, request: gr.Request) -> list:
    if on_space() and owner_of(request) is None:
        return []
    return api.chat_list(owner_of(request), str(data.get("query") or "")[:200])


@answer
def chat_open(data: dict, request: gr.Request) -> dict:
    return api.chat_open(str(data.get("id") or ""), need_login(request))


@answer
def chat_ask(data: dict, request: gr.Request) -> dict:
    images = data.get("images") if isinstance(data.get("images"), list) else []
    return api.chat_ask(data.get("id") or None, data.get("setup") or {}, data.get("text") or "", need_login(request), images)


@answer
def chat_branch(data: dict, request: gr.Request) -> dict:
    return api.chat_branch(str(data.get("id") or ""), str(data.get("column") or ""), _whole(data, "index"), need_login(request))


@answer
def chat_choose(data: dict, request: gr.Request) -> dict:
    return api.chat_choose(str(data.get("id") or ""), str(data.get("column") or ""), _whole(data, "index"), _whole(data, "which"),
                           need_login(request))


@answer
def chat_export(data: dict, request: gr.Request) -> dict:
    return api.chat_export(str(data.get("id") or ""), str(data.get("form") or ""), need_login(request))


@answer
def chat_rows(data: dict, request: gr.Request) -> dict:
    columns = [str(key) for key in data["columns"]] if isinstance(data.get("columns"), list) else None
    return api.chat_rows(str(data.get("id") or ""), columns, bool(data.get("thoughts")), need_login(request))


def _whole(data: dict, name: str) -> int:
    return data[name] if isinstance(data.get(name), int) else -1


@answer
def chat_retry(data: dict, request: gr.Request) -> dict:
    return api.chat_retry(str(data.get("id") or ""), str(data.get("column") or ""), data.get("setup") or {},
                          need_login(request))


@answer
def chat_edit(data: dict, request: gr.Request) -> dict:
    return api.chat_edit(str(data.get("id") or ""), str(data.get("column") or ""), _whole(data, "index"), data.get("text") or "",
                         data.get("setup") or {}, need_login(request))


@answer
def chat_setup(data: dict, request: gr.Request) -> None:
    return api.chat_setup(str(data.get("id") or ""), data.get("setup") or {}, need_login(request))


@answer
def chat_stop(data: dict, request: gr.Request) -> None:
    return api.chat_stop(str(data.get("id") or ""), data.get("column") or None, need_login(request))


@answer
def chat_poll(data: dict, request: gr.Request) -> dict:
    seen = data.get("seen") if isinstance(data.get("seen"), dict) else {}
    return api.chat_poll(str(data.get("id") or ""), seen, need_login(request))


@answer
def chat_rename(data: dict, request: gr.Request) -> None:
    return api.chat_rename(str(data.get("id") or ""), str(data.get("title") or ""), need_login(request))


@answer
def chat_delete(data: dict, request: gr.Request) -> None:
    return api.chat_delete(str(data.get("id") or ""), need_login(request))


FUNCTIONS = [chat_start, chat_engines, chat_unload, chats, chat_open, chat_ask, chat_retry, chat_edit, chat_setup,
             chat_stop, chat_poll, chat_rename, chat_delete, chat_branch, chat_choose, chat_export, chat_rows]
