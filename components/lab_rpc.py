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


FUNCTIONS = [lab_models, lab_tokens]
