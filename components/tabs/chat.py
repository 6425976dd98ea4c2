"""Chat: one prompt to several models side by side, blind battles between two of them, how they choose words and cut text.

The views are drawn by ``assets/js/chat.js`` and its neighbours; answers are written by the core and polled, so a reload loses
nothing and no connection is held open while a model thinks. ``play.js`` shows one view at a time.
"""

from __future__ import annotations

import time

import gradio as gr

from components import widgets
from components.ids import eid
from components.shell import Shell


def build(shell: Shell) -> None:
    with gr.Column(elem_id=eid("chat", "body"), elem_classes=["ch-body"]):
        widgets.mounted("play", eid("chat", "views"), classes=["pl-nav"])
        place = widgets.mounted("chat", eid("chat", "view"), {}, ["pl-view"])
        widgets.mounted("arena", eid("chat", "arena"), classes=["pl-view"])
        widgets.mounted("documents", eid("chat", "documents"), classes=["pl-view"])
        widgets.mounted("tools", eid("chat", "tools"), classes=["pl-view"])
        widgets.mounted("labdecode", eid("chat", "decode"), classes=["pl-view"])
        widgets.mounted("labtokens", eid("chat", "tokens"), classes=["pl-view"])
        widgets.mounted("engines", eid("chat", "engines"), classes=["pl-view"])
    shell.on_open("chat", lambda detail: {"models": detail.get("models") or [], "view": detail.get("view") or "chat",
                                          "at": time.time()}, outputs=place)
