"""Small pieces shared by the tabs."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from studio import api

_MOUNT = "studio.mount('%s', {element, props, watch, trigger})"


def heading(title: str, lead: str) -> Any:
    """A page title with one sentence under it."""
    return gr.HTML(f'<div class="st-heading"><h1>{escape(title)}</h1><p>{escape(lead)}</p></div>', js_on_load="",
                   apply_default_css=False)


def mounted(script: str, elem_id: str, value: Any = "", classes: list[str] | None = None, **props: Any) -> gr.HTML:
    """An element filled by the page's own script ``script`` (see ``studio.mount`` in ``core.js``)."""
    return gr.HTML(value, html_template=f'<div class="st-mount" data-script="{script}"></div>',
                   js_on_load=_MOUNT % script, elem_id=elem_id, elem_classes=classes, apply_default_css=False, **props)


def model_choices(owner: str | None) -> list[tuple[str, str]]:
    """(label, reference) of every model at hand, for a picker."""
    return [(_line(model), model["ref"]) for model in api.models(owner)]


def dataset_choices(owner: str | None) -> list[tuple[str, str]]:
    """(label, reference) of every dataset at hand, for a picker; what a pipeline left on its way is not offered."""
    return [(_line(data), data["ref"]) for data in api.datasets(owner) if data.get("stage") != "step"]


def _line(item: dict[str, Any]) -> str:
    detail = str(item.get("detail") or "")
    return item["label"] + (f" — {detail[:90]}" if detail and item["kind"] != "upload" else "")
