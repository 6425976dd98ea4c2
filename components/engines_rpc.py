"""What the engines view and the speculative section may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login, on_space, owner_of
from studio import api


@answer
def engines_view(data: dict, request: gr.Request) -> dict:
    """All that the view draws: engines, what was ended, what is served, models to choose from."""
    owner = owner_of(request)
    keys = ("id", "base", "label", "state", "rss_bytes", "active", "idle_seconds", "adapters")
    engines = [] if on_space() else [{key: engine[key] for key in keys} for engine in api.engines()]
    return {"engines": engines, "ended": [] if on_space() else api.engines_ended(), "served": [] if on_space() else api.serve_list(owner),
            "models": [model for model in api.models(owner) if not model["meta"].get("reward")] if data.get("models") else None,
            "may_serve": not on_space()}


@answer
def engine_needs(data: dict, request: gr.Request) -> dict:
    return api.engine_needs(str(data.get("ref") or ""), owner_of(request))


@answer
def engine_load(data: dict, request: gr.Request) -> None:
    api.engine_load(str(data.get("ref") or ""), need_login(request))


@answer
def serve_start(data: dict, request: gr.Request) -> dict:
    port = data.get("port")
    return api.serve_start(str(data.get("ref") or ""), str(data.get("name") or ""), int(port) if str(port or "").isdigit() else 0,
                           str(data.get("host") or "127.0.0.1"), need_login(request))


@answer
def serve_about(data: dict, request: gr.Request) -> dict:
    owner, number = need_login(request), str(data.get("id") or "")
    return {"snippets": api.serve_snippets(number, owner)} | ({"key": api.serve_key(number, owner)} if data.get("key") else {})


@answer
def serve_stop(data: dict, request: gr.Request) -> None:
    api.serve_stop(str(data.get("id") or ""), need_login(request))


@answer
def lab_speculative(data: dict, request: gr.Request) -> dict:
    return api.lab_speculative(str(data.get("model") or ""), str(data.get("prompt") or ""), dict(data.get("settings") or {}),
                               str(data.get("assistant") or ""), "", need_login(request))


FUNCTIONS = [engines_view, engine_load, engine_needs, serve_start, serve_about, serve_stop, lab_speculative]
