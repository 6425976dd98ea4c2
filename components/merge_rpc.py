"""What the page's scripts ask about merges, and about the family of a model; see :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login, owner_of
from studio import api


def _config(data: dict) -> dict:
    found = data.get("config")
    return dict(found) if isinstance(found, dict) else {}


@answer
def merge_methods(data: dict, request: gr.Request) -> list:
    """Every method of the installed mergekit with its parameters."""
    return api.merge_methods()


@answer
def merge_check(data: dict, request: gr.Request) -> dict:
    """What is wrong with a configuration, what its models are, and what becomes of each tensor."""
    options = data.get("options")
    return api.merge_check(_config(data), owner_of(request), options if isinstance(options, dict) else None)


@answer
def merge_look(data: dict, request: gr.Request) -> dict:
    """How alike the models are, layer by layer; reads every weight."""
    return api.merge_look(_config(data), need_login(request))


@answer
def merge_export(data: dict, request: gr.Request) -> str:
    """A configuration for mergekit's own command line."""
    return api.merge_export(_config(data), owner_of(request))


@answer
def merge_import(data: dict, request: gr.Request) -> dict:
    """A configuration from a YAML file of mergekit."""
    return api.merge_import(str(data.get("text") or ""), owner_of(request))


@answer
def family(data: dict, request: gr.Request) -> dict:
    """Who came from whom: the whole library as a graph."""
    return api.family(owner_of(request), datasets=bool(data.get("datasets")), outside=bool(data.get("outside")))


FUNCTIONS = [merge_methods, merge_check, merge_look, merge_export, merge_import, family]
