"""Library: models, adapters and datasets, shipped and made here, with their lineage."""

from __future__ import annotations

import gradio as gr

from components import widgets
from components.ids import eid
from components.shell import Shell
from components.strings import t


def build(shell: Shell) -> None:
    with gr.Column(elem_id=eid("library", "body"), elem_classes=["st-body", "st-page"]):
        widgets.heading(t("library.title"), t("library.lead"))
        widgets.mounted("library", eid("library", "items"))
