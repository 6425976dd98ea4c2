"""What the page's scripts ask about places for a run; see :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login
from studio import api


@answer
def backends(data: dict, request: gr.Request) -> dict:
    return api.backends(str(data.get("name") or ""), need_login(request))


@answer
def backend_check(data: dict, request: gr.Request) -> dict:
    return api.backend_check(dict(data.get("values") or {}), dict(data.get("backend") or {}), need_login(request))


FUNCTIONS = [backends, backend_check]
