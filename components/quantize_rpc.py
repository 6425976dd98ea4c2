"""What the Quantize tab's scripts may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from components import serving
from components.rpc import answer, own_run, owner_of
from components.strings import t
from studio import api
from studio.errors import StudioError


@answer
def quantize_types(data: dict, request: gr.Request) -> dict:
    """What the chosen method can make of the chosen model, with sizes."""
    return api.quantize_types(dict(data.get("values") or {}), owner_of(request))


@answer
def quantize_variants(data: dict, request: gr.Request) -> dict:
    """The variants of a model that exist already."""
    return api.variants(str(data.get("ref") or "")[:1000], owner_of(request))


@answer
def quantize_run(data: dict, request: gr.Request) -> dict:
    own_run(data.get("run"), request)
    return api.quantize_run(str(data["run"]), owner_of(request))


@answer
def quantize_learn(data: dict, request: gr.Request) -> dict:
    own_run(data.get("run"), request)
    return api.quantize_learn(str(data["run"]), owner_of(request))


@answer
def quantize_exports(data: dict, request: gr.Request) -> list:
    return api.exports(str(data.get("ref") or "")[:1000], owner_of(request))


@answer
def quantize_files(data: dict, request: gr.Request) -> list:
    """Addresses from which the files of a variant may be downloaded for an hour: ``[{name, size, url}]``, the largest first."""
    row = api.artifact(str(data.get("id") or ""), owner_of(request))
    path, home = Path(row["path"]).resolve(), Path(api.workspace()).resolve()
    if row["kind"] != "model" or not path.is_relative_to(home) or not path.is_dir():
        raise StudioError(t("quantize.files.unknown"), t("quantize.files.again"))
    files = [p for p in path.iterdir() if p.is_file() and p.name[0] != "."]
    files.sort(key=lambda p: (-p.stat().st_size, p.name))
    return [{"name": p.name, "size": p.stat().st_size, "url": serving.offer(p)} for p in files]


FUNCTIONS = [quantize_types, quantize_variants, quantize_run, quantize_learn, quantize_exports, quantize_files]
