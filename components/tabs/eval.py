"""Eval: which model is better, and why. Methods to start, runs with their scores and answers, and what others add as views.

The tab is one part drawn by ``assets/js/evals.js`` and its neighbours; work is done in runs, so a reload loses nothing.
"""

from __future__ import annotations

import time

import gradio as gr

from components import widgets
from components.ids import eid
from components.shell import Shell


def build(shell: Shell) -> None:
    with gr.Column(elem_id=eid("eval", "body"), elem_classes=["ev-body"]):
        place = widgets.mounted("evals", eid("eval", "view"), {})
    shell.on_open("eval", lambda detail: {"wanted": detail, "at": time.time()}, outputs=place)
