"""What the page may ask about evaluations together; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, owner_of
from studio import api


@answer
def eval_pairs(data: dict, request: gr.Request) -> list:
    return api.eval_pairs(dict(data.get("a") or {}), dict(data.get("b") or {}), owner_of(request))


FUNCTIONS = [eval_pairs]
