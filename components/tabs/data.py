"""Dataset: bring data in, look at it, mend it, make more of it, and keep every version.

The tab is drawn by ``assets/js/data.js`` and its neighbours; work is done in runs, so a reload loses nothing.
"""

from __future__ import annotations

import time

import gradio as gr

from components import widgets
from components.ids import eid
from components.shell import Shell


def build(shell: Shell) -> None:
    with gr.Column(elem_id=eid("data", "body"), elem_classes=["dt-body"]):
        place = widgets.mounted("data", eid("data", "view"), {})
    shell.on_open("data", lambda detail: {"wanted": detail, "at": time.time()}, outputs=place)
