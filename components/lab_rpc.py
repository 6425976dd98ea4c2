"""What the lab's scripts may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login, owner_of
from studio import api


@answer
def lab_models(data: dict, request: gr.Request) -> list:
    return api.models(owner_of(request))


@answer
def lab_tokens(data: dict, request: gr.Request) -> list:
    models = data.get("models") if isinstance(data.get("models"), list) else []
    return api.lab_tokens(str(data.get("text") or ""), [str(ref) for ref in models], bool(data.get("template")),
                          need_login(request))


@answer
def lab_ways(data: dict, request: gr.Request) -> dict:
    return api.lab_ways() | {"models": api.models(owner_of(request))}


@answer
def lab_decode(data: dict, request: gr.Request) -> dict:
    prefix = [int(token) for token in data.get("prefix") or [] if isinstance(token, int)]
    return api.lab_decode(str(data.get("model") or ""), str(data.get("prompt") or ""), dict(data.get("way") or {}), prefix,
                          str(data.get("system") or ""), need_login(request))


FUNCTIONS = [lab_ways, lab_decode, lab_models, lab_tokens]
