"""Chat: one prompt to several models side by side.

The tab is drawn by ``assets/js/chat.js``; answers are written by the core and polled, so a reload loses nothing and no
connection is held open while a model thinks.
"""

from __future__ import annotations

import time

import gradio as gr

from components import widgets
from components.ids import eid
from components.shell import Shell


def build(shell: Shell) -> None:
    with gr.Column(elem_id=eid("chat", "body"), elem_classes=["ch-body"]):
        place = widgets.mounted("chat", eid("chat", "view"), {})
    shell.on_open("chat", lambda detail: {"models": detail.get("models") or [], "at": time.time()}, outputs=place)
