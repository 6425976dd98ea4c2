"""Runs: all of them, the live view of one, a comparison of several."""

from __future__ import annotations

import gradio as gr

from components import live_run, widgets
from components.ids import eid
from components.shell import Shell
from components.strings import t


def build(shell: Shell) -> None:
    with gr.Column(elem_id=eid("runs", "body"), elem_classes=["st-body"]):
        with gr.Column(elem_classes=["st-setup", "st-page"]):
            widgets.heading(t("runs.title"), t("runs.lead"))
            widgets.mounted("notify", eid("runs", "notify"))
            widgets.mounted("flow", eid("runs", "flow"))
            widgets.mounted("runs", eid("runs", "table"))
        with gr.Column(elem_classes=["st-live-view"]):
            live_run.build("runs")
