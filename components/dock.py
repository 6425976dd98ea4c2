"""The slim header and the job dock; both are drawn by ``assets/js/dock.js``."""

from __future__ import annotations

from components import rpc
from components.ids import eid
from components.widgets import mounted
from studio import api


def header() -> None:
    """Name, workspace, how busy the machine is, light or dark; on a Space also the login."""
    mounted("header", eid("shell", "header"), classes=["st-header-place"], workspace=api.workspace())
    if rpc.on_space():
        import gradio as gr

        gr.LoginButton(elem_id=eid("shell", "login"), elem_classes=["st-login"], size="sm")


def build() -> None:
    """The bar at the bottom."""
    mounted("dock", eid("shell", "dock"), classes=["st-dock-place"])
