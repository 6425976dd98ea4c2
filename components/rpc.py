"""What the page's scripts may ask of the core: small functions, one dict in, one dict out.

They travel outside gradio's queue, so a poll costs one short request. Each answers ``{"ok": …}`` or ``{"error":
{message, hint, field}}``; an exception would reach the browser as a bare null. They are public addresses: nothing here
trusts its arguments.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from components.strings import t
from studio import api
from studio.errors import StudioError
from studio.recipe import RecipeError


CURVES = 60  # rows of the runs table that get a small curve
_curves: dict[tuple, dict[str, Any]] = {}


def on_space() -> bool:
    return bool(os.environ.get("SPACE_ID"))


def owner_of(request: gr.Request | None) -> str | None:
    """The Hub name of the person on a Space, None elsewhere (one workspace, one person or one shared login)."""
    if not on_space() or request is None:
        return None
    login = _login(request)
    if (login.get("expires_at") or 0) < time.time():
        return None
    return (login.get("userinfo") or {}).get("preferred_username")


def _login(request: gr.Request) -> dict[str, Any]:
    """What gradio keeps in the session of somebody who signed in with the Hub."""
    raw = getattr(request, "request", None) or request
    scope = getattr(raw, "scope", None)
    session = scope.get("session", {}) if isinstance(scope, dict) else getattr(raw, "session", None) or {}
    return session.get("oauth_info") or {}


def need_login(request: gr.Request | None) -> str | None:
    """The owner for something that costs.

    Raises:
        StudioError: on a Space, when nobody is signed in.
    """
    owner = owner_of(request)
    if on_space() and owner is None:
        raise StudioError(t("space.login_needed"), t("space.login_hint"))
    if owner is not None:
        login = _login(request)
        api.keep_token(owner, login.get("access_token"), login.get("expires_at") or 0)
    return owner


def own_run(run_id: Any, request: gr.Request | None, details: bool = False) -> dict[str, Any]:
    """A run this person may see.

    Raises:
        StudioError: if there is none.
    """
    found = api.run(str(run_id), details=details)
    if on_space() and found.get("owner") != owner_of(request):
        raise StudioError(t("runs.unknown"), t("runs.pick"))
    return found


def error_of(err: StudioError) -> dict[str, Any]:
    return err.to_dict() | ({"fields": err.fields} if isinstance(err, RecipeError) else {})


def answer(fn: Callable[[dict, gr.Request], Any]) -> Callable[[dict, gr.Request], dict]:
    """Wrap a function so that a refusal is an answer, not a crash."""

    @functools.wraps(fn)
    def wrapped(data: dict, request: gr.Request) -> dict:
        try:
            return {"ok": plain(fn(data if isinstance(data, dict) else {}, request))}
        except StudioError as err:
            return {"error": error_of(err)}

    wrapped.__annotations__ = {"data": dict, "request": gr.Request}
    return wrapped


def plain(value: Any) -> Any:
    """``value`` with keys that are exactly ``str``: the JSON writer refuses the str subclass of database rows."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value] if value and isinstance(value[0], dict) else value
    return value


def labels(owner: str | None) -> dict[str, str]:
    """reference -> what a person calls it, for models and datasets at hand."""
    return {item["ref"]: item["label"] for item in [*api.datasets(owner), *api.models(owner)]}


@answer
def poll(data: dict, request: gr.Request) -> dict:
    own_run(data.get("run"), request)
    return api.poll(str(data["run"]), str(data.get("cursor") or 0))


@answer
def runs(data: dict, request: gr.Request) -> list:
    """Runs as a table shows them, the newest first; ``curves`` adds a small loss curve to the first ones, ``top`` leaves
    out what other runs started."""
    if on_space() and owner_of(request) is None:
        return []
    rows = api.runs(owner=owner_of(request), limit=min(int(data.get("limit") or 200), 1000),
                    parent="" if data.get("top") else None)
    known = labels(owner_of(request)) if data.get("curves") else {}
    made = []
    for place, row in enumerate(rows):
        found = brief(row)
        found["data"] = known.get(found["dataset"], found["dataset"])
        made.append(found | (curve(row) if data.get("curves") and place < CURVES else {}))
    return made


@answer
def run(data: dict, request: gr.Request) -> dict:
    found, known = own_run(data.get("run"), request, details=True), labels(owner_of(request))
    return found | {"uses": [known.get(ref, ref) for key in ("model", "dataset")
                             if (ref := (found["recipe"].get("recipe") or found["recipe"]).get(key))]}


@answer
def submit(data: dict, request: gr.Request) -> dict:
    return api.submit(dict(data.get("values") or {}), owner=need_login(request))


@answer
def stop(data: dict, request: gr.Request) -> Any:
    own_run(data.get("run"), request)
    return api.stop(str(data["run"]))


@answer
def resume(data: dict, request: gr.Request) -> Any:
    need_login(request)
    own_run(data.get("run"), request)
    return api.resume(str(data["run"]), dict(data.get("values") or {}), bool(data.get("here")))


@answer
def remove(data: dict, request: gr.Request) -> Any:
    own_run(data.get("run"), request)
    return api.remove(str(data["run"]))


@answer
def reorder(data: dict, request: gr.Request) -> Any:
    own_run(data.get("run"), request)
    return api.reorder(str(data["run"]), data.get("before"))


@answer
def run_script(data: dict, request: gr.Request) -> str:
    values = data.get("values") or own_run(data.get("run"), request)["recipe"]
    return api.script(dict(values))


@answer
def card(data: dict, request: gr.Request) -> str:
    """Card of an artifact (``id``) or of what a run made (``run``)."""
    if data.get("run"):
        own_run(data["run"], request)
    return api.card(str(data.get("run") or data.get("id") or ""), owner_of(request))


@answer
def dock(data: dict, request: gr.Request) -> dict:
    """What the bar at the bottom shows: what runs, what waits, what ended last, and news of the first that runs."""
    if on_space() and owner_of(request) is None:
        return {"active": [], "queue": [], "last": None, "news": None}
    rows = [brief(row) for row in api.runs(owner=owner_of(request), limit=100)]
    active = [row for row in rows if row["state"] in ("starting", "running", "stopping")]
    active.sort(key=lambda row: row["started"] or row["created"])
    queue = sorted((row for row in rows if row["state"] == "queued"), key=lambda row: row["position"] or 0)
    ended = max((row for row in rows if row["ended"]), key=lambda row: row["ended"], default=None)
    news = None
    if active:
        same = active[0]["id"] == data.get("run")
        found = api.poll(active[0]["id"], str(data.get("cursor") or 0) if same else 0)
        news = {key: found[key] for key in ("cursor", "reset", "progress", "state")}
        news["loss"] = found["series"].get("loss", [])[-60:]
    return {"active": active, "queue": queue, "last": ended, "news": news}


def brief(row: dict[str, Any]) -> dict[str, Any]:
    """A run as lists show it."""
    keys = ("id", "kind", "method", "label", "state", "position", "created", "started", "ended", "reason", "parent", "tag",
            "children")
    recipe, summary = row.get("recipe") or {}, row.get("summary") or {}
    recipe = recipe.get("recipe") or recipe  # of a sweep: what it varies
    return {key: row.get(key) for key in keys} | {
        "model": recipe.get("model"), "dataset": recipe.get("dataset"), "loss": summary.get("train_loss"),
        "eval_loss": summary.get("eval_loss")}


def curve(row: dict[str, Any]) -> dict[str, Any]:
    """At most 40 points of a run's loss (of its reward, where that is what it learns from), and the newest losses of one
    that still goes on."""
    key = (row["id"], row["ended"])
    if row["ended"] and key in _curves:
        return _curves[key]
    series = api.poll(row["id"], 0)["series"]
    points = [value for _, value in series.get("reward") or series.get("loss", []) if isinstance(value, (int, float))]
    found: dict[str, Any] = {"curve": points[::max(1, len(points) // 40)]}
    if row["state"] != "succeeded":
        found |= {name: series[name][-1][1] for name in ("loss", "eval_loss") if series.get(name)}
    if row["ended"]:
        if len(_curves) > 1000:
            _curves.clear()
        _curves[key] = found
    return found


@answer
def hardware(data: dict, request: gr.Request) -> dict:
    return api.hardware()


@answer
def inspect(data: dict, request: gr.Request) -> dict:
    columns = {str(k): str(v) for k, v in (data.get("columns") or {}).items()}
    return api.inspect(str(data.get("ref") or ""), owner_of(request), columns)


@answer
def preview(data: dict, request: gr.Request) -> dict:
    need_login(request)
    return api.preview(dict(data.get("values") or {}), int(data.get("index") or 0), owner_of(request))


@answer
def validate(data: dict, request: gr.Request) -> dict:
    """What would be refused of a recipe, field by field, and what it would take."""
    return api.validate(dict(data.get("values") or {}), owner_of(request))


@answer
def measure(data: dict, request: gr.Request) -> dict:
    return api.measure(dict(data.get("values") or {}), need_login(request))


@answer
def notify_settings(data: dict, request: gr.Request) -> dict:
    return api.notify_settings(need_login(request))


@answer
def notify_save(data: dict, request: gr.Request) -> dict:
    return api.notify_save(dict(data.get("values") or {}), need_login(request))


@answer
def notify_test(data: dict, request: gr.Request) -> dict:
    return api.notify_test(need_login(request))


@answer
def library(data: dict, request: gr.Request) -> dict:
    owner = owner_of(request)
    return {"models": api.models(owner), "datasets": api.datasets(owner)}


@answer
def lineage(data: dict, request: gr.Request) -> Any:
    return api.lineage(str(data.get("id") or ""), owner_of(request))


@answer
def rename(data: dict, request: gr.Request) -> Any:
    return api.rename(str(data.get("id") or ""), str(data.get("name") or ""), need_login(request))


@answer
def delete(data: dict, request: gr.Request) -> Any:
    return api.delete(str(data.get("id") or ""), need_login(request))


@answer
def hub_search(data: dict, request: gr.Request) -> Any:
    return api.hub_search(str(data.get("kind") or "model"), str(data.get("query") or "")[:200])


@answer
def first_run(data: dict, request: gr.Request) -> dict:
    """What the first steps train, and the question that is asked before and after."""
    values = next(preset["values"] for preset in api.presets("sft") if preset["name"] == "first-try")
    return {"values": values, "question": values["sample_prompts"][0]}


FUNCTIONS = [first_run, poll, runs, run, submit, stop, resume, remove, reorder, run_script, card, dock, hardware, inspect,
             preview, validate, measure, notify_settings, notify_save, notify_test, library, lineage, rename, delete, hub_search]
