"""What the page's scripts ask about sweeps; see :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, brief, curve, labels, own_run, owner_of
from studio import api


@answer
def sweep(data: dict, request: gr.Request) -> dict:
    """How a sweep's trials stand."""
    own_run(data.get("run"), request)
    return api.sweep(str(data["run"]))


@answer
def sweep_fields(data: dict, request: gr.Request) -> dict:
    return api.sweep_fields(str(data.get("kind") or ""), str(data.get("method") or ""))


@answer
def sweep_trials(data: dict, request: gr.Request) -> list:
    """The children of a run, the oldest first, as the list of runs shows them."""
    own_run(data.get("run"), request)
    rows = api.runs(owner=owner_of(request), limit=1000, parent=str(data["run"]))
    known, shown = labels(owner_of(request)), [brief(row) | curve(row) for row in rows[::-1]]
    return [row | {"data": known.get(row["dataset"], row["dataset"])} for row in shown]


FUNCTIONS = [sweep, sweep_fields, sweep_trials]
