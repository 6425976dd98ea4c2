"""What the control for rewards may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from components.rpc import answer, need_login, owner_of
from studio import api


@answer
def rewards_start(data: dict, request: gr.Request) -> dict:
    """Every reward with its options, and the models that may judge."""
    return {"catalogue": api.rewards_catalogue(), "models": api.models(owner_of(request))}


@answer
def rewards_check(data: dict, request: gr.Request) -> list:
    return api.rewards_check(_list(data), owner_of(request))


@answer
def rewards_try(data: dict, request: gr.Request) -> dict:
    values, row, text = data.get("values"), data.get("row"), data.get("text")
    return api.rewards_try(dict(values) if isinstance(values, dict) else {}, need_login(request),
                           text[:100_000] if isinstance(text, str) else None,
                           row if isinstance(row, int) else 0, bool(data.get("generate")))


@answer
def rewards_score(data: dict, request: gr.Request) -> dict:
    said = data.get("answers") if isinstance(data.get("answers"), list) else []
    return api.rewards_score(str(data.get("model") or ""), str(data.get("prompt") or "")[:20_000],
                             [str(answer)[:20_000] for answer in said[:8]], need_login(request))


def _list(data: dict) -> list[Any]:
    return data["rewards"] if isinstance(data.get("rewards"), list) else []


FUNCTIONS = [rewards_start, rewards_check, rewards_score, rewards_try]
