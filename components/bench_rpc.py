"""What the page's scripts ask about benchmarks of one's own; see :mod:`components.rpc`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from components.rpc import answer, need_login, owner_of
from studio import api

MOST = 100_000  # characters of a typed answer


@answer
def bench_start(data: dict, request: gr.Request) -> dict:
    """The benchmarks there are; with the form, the data and the models at hand unless only the list is wanted ``again``."""
    owner = owner_of(request)
    found: dict[str, Any] = {"benchmarks": api.bench_list(owner)}
    return found if data.get("again") else found | api.bench_form() | {"datasets": api.datasets(owner), "models": api.models(owner)}


@answer
def bench_suggest(data: dict, request: gr.Request) -> dict:
    return api.bench_suggest(str(data.get("dataset") or "")[:1000], owner_of(request))


@answer
def bench_preview(data: dict, request: gr.Request) -> dict:
    return api.bench_preview(_values(data), owner_of(request))


@answer
def bench_try(data: dict, request: gr.Request) -> dict:
    text, index = data.get("answer"), data.get("index")
    return api.bench_try(_values(data), text[:MOST] if isinstance(text, str) else None, index if isinstance(index, int) else 0,
                         need_login(request))


@answer
def bench_save(data: dict, request: gr.Request) -> dict:
    return api.bench_save(_values(data), str(data.get("replace") or ""), need_login(request))


@answer
def bench_load(data: dict, request: gr.Request) -> dict:
    return api.bench_load(str(data.get("name") or ""), owner_of(request))


@answer
def bench_delete(data: dict, request: gr.Request) -> None:
    api.bench_delete(str(data.get("name") or ""), need_login(request))


def _values(data: dict) -> dict[str, Any]:
    return dict(data["values"]) if isinstance(data.get("values"), dict) else {}


FUNCTIONS = [bench_start, bench_suggest, bench_preview, bench_try, bench_save, bench_load, bench_delete]
