"""What the script of the tools view may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login, on_space, owner_of
from studio import api


@answer
def tools(data: dict, request: gr.Request) -> dict:
    """Tools, servers and conversations; with ``all`` also the models and collections to choose from."""
    owner = owner_of(request)
    found = api.tools(owner)
    if on_space() and owner is None:
        found["chats"] = []
    if data.get("all"):
        models = [model for model in api.models(owner) if not model["meta"].get("reward")]
        found |= {"models": models, "collections": [] if on_space() and owner is None else api.collections(owner)["collections"]}
    return found


@answer
def tools_open(data: dict, request: gr.Request) -> dict:
    return api.tools_open(str(data.get("id") or ""), need_login(request))


@answer
def tools_ask(data: dict, request: gr.Request) -> dict:
    return api.tools_ask(data.get("id") or None, dict(data.get("setup") or {}), str(data.get("text") or ""), need_login(request))


@answer
def tools_decide(data: dict, request: gr.Request) -> dict:
    return api.tools_decide(str(data.get("id") or ""), str(data.get("call") or ""), str(data.get("choice") or ""), need_login(request))


@answer
def tools_stop(data: dict, request: gr.Request) -> dict:
    return api.tools_stop(str(data.get("id") or ""), need_login(request))


@answer
def tools_delete(data: dict, request: gr.Request) -> None:
    return api.tools_delete(str(data.get("id") or ""), need_login(request))


@answer
def mcp_add(data: dict, request: gr.Request) -> dict:
    return api.mcp_add(dict(data.get("values") or {}), data.get("understood") is True, need_login(request))


@answer
def mcp_remove(data: dict, request: gr.Request) -> None:
    return api.mcp_remove(str(data.get("id") or ""), need_login(request))


FUNCTIONS = [tools, tools_open, tools_ask, tools_decide, tools_stop, tools_delete, mcp_add, mcp_remove]
