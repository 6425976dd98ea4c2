"""What the page may ask about evaluations together; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from components import serving
from components.rpc import answer, need_login, owner_of
from studio import api


@answer
def eval_pairs(data: dict, request: gr.Request) -> list:
    return api.eval_pairs(dict(data.get("a") or {}), dict(data.get("b") or {}), owner_of(request))


@answer
def errors(data: dict, request: gr.Request) -> dict:
    return api.errors(str(data.get("run") or ""), owner_of(request))


@answer
def errors_answers(data: dict, request: gr.Request) -> dict:
    return api.errors_answers(str(data.get("run") or ""), str(data.get("group") or ""), str(data.get("text") or "")[:500],
                              int(data.get("offset") or 0), int(data.get("limit") or 20), owner_of(request))


@answer
def errors_dataset(data: dict, request: gr.Request) -> dict:
    return api.errors_dataset(str(data.get("run") or ""), str(data.get("group") or ""), str(data.get("shape") or "messages"),
                              str(data.get("name") or ""), need_login(request))


@answer
def ablation(data: dict, request: gr.Request) -> dict:
    runs = data.get("runs") if isinstance(data.get("runs"), list) else []
    return api.ablation([str(run) for run in runs][:60], owner_of(request))


@answer
def leaderboard(data: dict, request: gr.Request) -> dict:
    return api.leaderboard(owner_of(request))


@answer
def report(data: dict, request: gr.Request) -> dict:
    """The files of a report under addresses that end after an hour."""
    found = api.report(str(data.get("run") or ""), owner_of(request))
    files = [{"name": one["name"], "size": one["size"], "url": serving.offer(Path(one["path"]))} for one in found["files"]]
    return found | {"files": files}


@answer
def insight_runs(data: dict, request: gr.Request) -> list:
    return api.insight_runs(owner_of(request))


FUNCTIONS = [report, insight_runs, ablation, leaderboard, eval_pairs, errors, errors_answers, errors_dataset]
