"""What the Dataset tab's scripts may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from components import serving
from components.rpc import answer, brief, need_login, on_space, owner_of
from components.strings import t
from studio import api
from studio.errors import StudioError

MOST_ROWS = 200


def _ref(data: dict, key: str = "ref") -> str:
    return str(data.get(key) or "")[:1000]


def _number(value: Any, low: int, high: int) -> int:
    return max(low, min(high, value)) if isinstance(value, int) and not isinstance(value, bool) else low


def _query(data: dict) -> dict:
    return data["query"] if isinstance(data.get("query"), dict) else {}


@answer
def data_start(data: dict, request: gr.Request) -> dict:
    """What the tab needs to be drawn; with ``again`` only what may have changed since: versions, saved pipelines, models
    and datasets, but not the steps, the ready pipelines and the forms of export and publishing."""
    owner = owner_of(request)
    nobody = on_space() and owner is None
    found = {"versions": [] if nobody else api.data_list(owner), "models": api.models(owner),
             "pipelines": [] if nobody else api.data_pipelines(owner), "datasets": api.datasets(owner)}
    if not data.get("again"):
        forms = {f"{method['family']}/{method['name']}": method for method in api.methods()}
        found |= {"steps": api.data_steps(), "ready": api.presets("data"),
                  "forms": {name: forms[name] for name in ("data/export", "publish/dataset") if name in forms}}
    return found


@answer
def data_list(data: dict, request: gr.Request) -> list:
    return [] if on_space() and owner_of(request) is None else api.data_list(owner_of(request))


@answer
def data_jobs(data: dict, request: gr.Request) -> list:
    """The newest runs that make or look at datasets, with what they were asked."""
    owner = owner_of(request)
    if on_space() and owner is None:
        return []
    rows = [*api.runs(kind="data", owner=owner, limit=20), *api.runs(kind="publish", owner=owner, limit=5)]
    return [brief(row) | {key: row.get(key) for key in ("hint", "field", "recipe", "summary")}
            for row in sorted(rows, key=lambda row: row["created"], reverse=True)
            if row["kind"] == "data" or row["method"] == "dataset"]


@answer
def data_open(data: dict, request: gr.Request) -> dict:
    return api.data_open(_ref(data), owner=owner_of(request))


@answer
def data_rows(data: dict, request: gr.Request) -> dict:
    return api.data_rows(_ref(data), _query(data), sort=str(data.get("sort") or "") or None,
                         desc=bool(data.get("desc")), offset=_number(data.get("offset"), 0, 10**9),
                         limit=_number(data.get("limit"), 1, MOST_ROWS), owner=owner_of(request))


@answer
def data_row(data: dict, request: gr.Request) -> dict:
    return api.data_row(_ref(data), str(data.get("split") or "train"), _number(data.get("pos"), 0, 10**12),
                        owner=owner_of(request))


@answer
def data_facets(data: dict, request: gr.Request) -> dict:
    return api.data_facets(_ref(data), _query(data), owner=owner_of(request))


@answer
def data_edit(data: dict, request: gr.Request) -> dict:
    ops = data.get("ops") if isinstance(data.get("ops"), list) else []
    return api.data_edit(_ref(data), str(data.get("split") or "train"), ops, owner=need_login(request))


@answer
def data_undo(data: dict, request: gr.Request) -> dict:
    return api.data_undo(_ref(data), owner=need_login(request))


@answer
def data_redo(data: dict, request: gr.Request) -> dict:
    return api.data_redo(_ref(data), owner=need_login(request))


@answer
def data_report(data: dict, request: gr.Request) -> Any:
    return api.data_report(_ref(data), str(data.get("method") or ""), owner=owner_of(request))


@answer
def data_diff(data: dict, request: gr.Request) -> dict:
    return api.data_diff(_ref(data, "a"), _ref(data, "b"), offset=_number(data.get("offset"), 0, 10**9),
                         limit=_number(data.get("limit"), 1, MOST_ROWS), kind=str(data.get("kind") or ""),
                         owner=owner_of(request))


@answer
def data_pipeline(data: dict, request: gr.Request) -> dict:
    return api.data_pipeline(_ref(data), owner=owner_of(request))


@answer
def data_save_pipeline(data: dict, request: gr.Request) -> Any:
    return api.data_save_pipeline(_ref(data), str(data.get("name") or "")[:80], owner=need_login(request))


@answer
def data_pipelines(data: dict, request: gr.Request) -> list:
    return api.data_pipelines(owner_of(request))


@answer
def data_inspect(data: dict, request: gr.Request) -> dict:
    """A first look at a source, with the columns and the format that a person chose."""
    columns = {str(k): str(v) for k, v in (data.get("columns") or {}).items()}
    return api.inspect(_ref(data), owner_of(request), columns, str(data.get("format") or "auto"))


@answer
def data_upload(data: dict, request: gr.Request) -> dict:
    """Take a file over that the browser has just sent to gradio's upload address; it may come from nowhere else."""
    owner = need_login(request)
    path = Path(str(data.get("path") or "")).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise StudioError(t("data.upload.unknown"), t("data.upload.again"), "dataset")
    made = api.upload(str(path), owner)
    path.unlink(missing_ok=True)
    return {key: made[key] for key in ("ref", "name", "size")}


@answer
def data_file(data: dict, request: gr.Request) -> list:
    """Addresses from which a finished export may be downloaded for an hour: ``[{name, size, url}]``."""
    row = api.artifact(str(data.get("id") or ""), owner_of(request))
    path, home = Path(row["path"]).resolve(), Path(api.workspace()).resolve()
    if row["kind"] not in ("file", "dataset") or not path.is_relative_to(home):
        raise StudioError(t("data.file.unknown"), t("data.file.again"))
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
    return [{"name": file.name, "size": file.stat().st_size, "url": serving.offer(file)} for file in files]


FUNCTIONS = [data_start, data_list, data_jobs, data_open, data_rows, data_row, data_facets, data_edit, data_undo,
             data_redo, data_report, data_diff, data_pipeline, data_save_pipeline, data_pipelines,
             data_inspect, data_upload, data_file]
