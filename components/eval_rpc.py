"""What the Eval tab's scripts may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from components.rpc import answer, need_login, owner_of
from studio import api


@answer
def eval_start(data: dict, request: gr.Request) -> dict:
    """What an evaluation is started from: methods with their fields, presets, models and datasets at hand."""
    owner = owner_of(request)
    return {"methods": api.eval_methods(), "looks": api.look_methods(), "presets": api.presets("eval"), "models": api.models(owner),
            "datasets": [item for item in api.datasets(owner) if item.get("stage") != "step"]}


@answer
def eval_tasks(data: dict, request: gr.Request) -> list:
    return api.eval_tasks(owner_of(request))


@answer
def eval_runs(data: dict, request: gr.Request) -> list:
    return api.eval_runs(owner_of(request))


@answer
def eval_results(data: dict, request: gr.Request) -> dict:
    return api.eval_results(str(data.get("run") or ""), owner_of(request))


@answer
def eval_samples(data: dict, request: gr.Request) -> dict:
    models = [int(one) for one in _list(data.get("models")) if str(one).isdigit()]
    return api.eval_samples(str(data.get("run") or ""), owner_of(request), str(data.get("task") or ""), models,
                            str(data.get("where") or "all"), str(data.get("text") or "")[:500], str(data.get("tag") or "")[:500],
                            _number(data.get("offset"), 0), _number(data.get("limit"), 20), str(data.get("order") or ""))


@answer
def eval_against(data: dict, request: gr.Request) -> dict:
    return api.eval_against(str(data.get("ref") or ""), need_login(request))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _number(value: Any, other: int) -> int:
    return int(value) if isinstance(value, (int, float)) and abs(value) < 1e9 else other


FUNCTIONS = [eval_start, eval_tasks, eval_runs, eval_results, eval_samples, eval_against]
