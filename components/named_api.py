"""The five named endpoints for programs (with ``--mcp``, tools for assistants). All other listeners are private."""

from __future__ import annotations

from typing import Any

import gradio as gr

from components import rpc
from studio import api
from studio.errors import StudioError

NAMES = ("submit_run", "run_status", "list_runs", "validate_recipe", "list_methods")


def _refuse(err: StudioError) -> gr.Error:
    return gr.Error(str(err), print_exception=False)


def submit_run(recipe: dict, request: gr.Request) -> dict:
    """Start a run.

    Args:
        recipe: Recipe values with "kind" and "method", as in a recipe file.

    Returns:
        The run, with its "id" and "state".
    """
    try:
        return rpc.plain(api.submit(dict(recipe), owner=rpc.need_login(request)))
    except StudioError as err:
        raise _refuse(err) from err


def run_status(run_id: str, cursor: int, request: gr.Request) -> dict:
    """State, progress, metrics and log of a run since a cursor.

    Args:
        run_id: Id of the run.
        cursor: 0 for all of it, thinned; then the "cursor" of the last answer.
    """
    try:
        found = rpc.own_run(run_id, request)
        return rpc.plain({"run": rpc.brief(found), **api.poll(found["id"], int(cursor))})
    except StudioError as err:
        raise _refuse(err) from err


def list_runs(limit: int, request: gr.Request) -> list:
    """Runs, the newest first.

    Args:
        limit: How many at most.
    """
    owner = rpc.owner_of(request)
    if rpc.on_space() and owner is None:
        return []
    return [rpc.brief(row) for row in api.runs(owner=owner, limit=max(1, min(int(limit), 1000)))]


def validate_recipe(recipe: dict, request: gr.Request) -> dict:
    """What is wrong with a recipe, field by field, and what it would take. Starts nothing.

    Args:
        recipe: Recipe values with "kind" and "method".
    """
    return rpc.plain(api.validate(dict(recipe), rpc.owner_of(request)))


def list_methods() -> list:
    """Every method with its fields, defaults and bounds."""
    return rpc.plain(api.methods())


def build() -> None:
    """Publish the endpoints. Their annotations are resolved here, because gradio reads them as types."""
    published = (submit_run, run_status, list_runs, validate_recipe, list_methods)
    functions: dict[str, Any] = {fn.__name__: fn for fn in published}
    for name in NAMES:
        fn = functions[name]
        kinds = {"dict": dict, "list": list, "str": str, "int": int, "gr.Request": gr.Request}
        fn.__annotations__ = {key: kinds.get(kind, kind) for key, kind in fn.__annotations__.items()}
        gr.api(fn, api_name=name)
