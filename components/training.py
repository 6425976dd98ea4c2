"""A tab that starts training: the form on the left, what it will do on the right, then the live run in its place.

The same function makes every such tab from the recipes of its family; no field is known by name but model and dataset.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from components import live_run, rpc, widgets
from components.form import Form, controls_of
from components.ids import eid
from components.shell import QUIET, Shell
from components.strings import t
from studio import api
from studio.errors import StudioError
from studio.recipe import RecipeError, parse, read_yaml, write_yaml

VARIED = ("pretrain", "sft", "align")  # kinds that a sweep can vary
PICKED = ("model", "dataset")  # widgets that offer what is in the library


def build_training_tab(shell: Shell, tab: str, kind: str, panel: str = "panel") -> None:
    """Build the tab ``tab`` for the recipes of ``kind``; ``panel`` is the page's script that draws what stands beside it."""
    form = Form(tab, kind)
    presets = {preset["name"]: preset for preset in api.presets(kind)}
    with gr.Column(elem_id=eid(tab, "body"), elem_classes=["st-body"]):
        state = gr.HTML({}, html_template="<span></span>", elem_classes=["st-bus"], elem_id=eid(tab, "state"), tab=tab,
                        js_on_load="studio.mount('formstate', {element, props, watch, trigger})")
        with gr.Row(elem_classes=["st-setup"]):
            with gr.Column(scale=6, min_width=320, elem_classes=["st-left"]):
                widgets.heading(t(f"{tab}.title"), t(f"{tab}.lead"))
                with gr.Column(elem_classes=["st-card", "st-start-from"]):
                    preset = gr.Dropdown([(p["title"], name) for name, p in presets.items()], value=None,
                                         label=t("form.preset"), info=t("form.preset.help"),
                                         visible=bool(presets),
                                         elem_id=eid(tab, "preset"), elem_classes=["st-field"])
                    form.build_method()
                form.build_sections()
            with gr.Column(scale=5, min_width=320, elem_classes=["st-right"]):
                with gr.Column(elem_classes=["st-card", "st-start"]):
                    widgets.mounted("estimate", eid(tab, "estimate"), tab=tab)
                    place = widgets.mounted("backend", eid(tab, "backend"), {"name": "local"}, ["st-place"], tab=tab)
                    start = gr.Button(t(f"{tab}.start"), variant="primary", elem_id=eid(tab, "start"))
                    if kind in VARIED:
                        widgets.mounted("sweep", eid(tab, "sweep"), tab=tab)
                    widgets.mounted("flow", eid(tab, "flow"), tab=tab)
                widgets.mounted(panel, eid(tab, "panel"), tab=tab)
        with gr.Column(elem_classes=["st-live-view"]):
            live_run.build(tab)
    _listen(shell, tab, kind, form, presets, state, preset, start, place)


def check(form: Form, owner: str | None, method: str, *held: Any) -> dict[str, Any]:
    """What the page shows beside the form: errors by field, the estimate, the YAML, the values."""
    values = form.values(method, *held)
    result = api.validate(values, owner)
    try:
        text = parse(values).to_yaml()
    except StudioError:
        text = write_yaml(values)
    defaults = {name: spec.default for name, spec in form.specs[method].items()}
    changed = [name for name, value in values.items() if name in defaults and value != defaults[name]]
    titles = {name: spec.title for name, spec in form.specs[method].items()}
    groups = {name: spec.group for name, spec in form.specs[method].items()}
    return {"values": values, "errors": result.get("errors") or {}, "estimate": result.get("estimate"), "yaml": text,
            "install": result.get("install"), "changed": changed, "titles": titles, "groups": groups}


def _listen(shell: Shell, tab: str, kind: str, form: Form, presets: dict, state: Any, preset: Any, start: Any,
            place: Any) -> None:
    draft = gr.BrowserState({}, storage_key=f"studio-draft-{kind}", secret="drafts-hold-no-secrets")
    fields = list(form.controls.values())
    pickers = [form.controls[name] for name, spec in form.all.items() if name in form.controls and spec.widget in PICKED]

    def on_change(request: gr.Request, method: str, *held: Any) -> tuple[dict, dict]:
        result = check(form, rpc.owner_of(request), method, *held)
        return result, result["values"]

    on_change.__annotations__ = {"request": gr.Request}

    def on_start(request: gr.Request, place: dict | None, method: str, *held: Any) -> dict:
        result = check(form, rpc.owner_of(request), method, *held)
        try:
            run = api.submit(result["values"], owner=rpc.need_login(request), backend=place or None)
        except RecipeError as err:
            return result | {"errors": err.fields, "refused": rpc.error_of(err)}
        except StudioError as err:
            fields = {err.field: err.message} if err.field else {}
            return result | {"errors": fields, "refused": rpc.error_of(err)}
        return result | {"errors": {}, "started": run["id"]}

    on_start.__annotations__ = {"request": gr.Request}

    def fill(values: dict[str, Any]) -> list[Any]:
        return form.updates(values)

    def on_preset(name: str | None, method: str, *held: Any) -> list[Any]:
        if name not in presets:
            return [gr.skip()] * (1 + len(form.inputs))
        chosen = presets[name]
        now = form.values(method, *held)
        kept = {key: now[key] for key in ("name",) if key in now}
        note = chosen.get("for_whom") or t("form.preset.help")
        return [gr.update(info=note), *fill(kept | chosen["values"])]

    def on_upload(path: str, request: gr.Request) -> Any:
        owner = rpc.need_login(request)
        try:
            made = api.upload(path, owner)
        except StudioError as err:
            raise gr.Error(f"{err.message} {err.hint}".strip(), title=t("form.upload.refused"),
                           print_exception=False) from err
        return gr.update(value=made["ref"], choices=widgets.dataset_choices(owner))

    on_upload.__annotations__ = {"path": str, "request": gr.Request}

    def on_open(detail: dict, method: str, *held: Any) -> list[Any]:
        """``{"values": …}`` merges over the form, ``{"yaml": text}`` replaces it, ``{"check": true}`` looks at it again."""
        if detail.get("check"):
            return [check(form, None, method, *held), *[gr.skip()] * len(form.inputs)]
        if "yaml" in detail:
            try:
                values = parse(read_yaml(str(detail["yaml"])), kind, method).to_dict()
                if values["kind"] != kind:
                    raise StudioError(t("form.yaml.other_kind", kind=values["kind"]), t("form.yaml.other_kind.hint"),
                                      "kind")
            except StudioError as err:
                result = check(form, None, method, *held)
                told = {"yaml_error": rpc.error_of(err), "yaml": str(detail["yaml"])}
                return [result | told, *[gr.skip()] * len(form.inputs)]
            return [gr.skip(), *fill(values)]
        if not detail.get("values"):
            return [gr.skip()] * (1 + len(form.inputs))
        given = dict(detail["values"])
        base = {} if given.get("kind") == kind and given.get("method") else form.values(method, *held)
        return [gr.skip(), *fill(base | given)]

    def restore(saved: dict | None, request: gr.Request) -> list[Any]:
        owner = rpc.owner_of(request)
        values = saved if isinstance(saved, dict) and saved.get("method") in form.specs else {}
        made = fill(values) if values else [gr.skip()] * len(form.inputs)
        models, datasets = widgets.model_choices(owner), widgets.dataset_choices(owner)
        for place, (name, spec) in enumerate(((n, form.all[n]) for n in form.controls), start=1):
            if spec.widget in PICKED:
                choices = datasets if spec.widget == "dataset" else models
                old = made[place] if isinstance(made[place], dict) and made[place].get("__type__") == "update" else {}
                made[place] = gr.update(choices=choices, **{k: v for k, v in old.items() if k in ("value", "visible")})
        shown = values or {"method": form.first} | {n: s.default for n, s in form.specs[form.first].items()}
        held = controls_of(kind, shown["method"], shown)
        return [check(form, owner, shown["method"], *[held.get(name) for name in form.controls]), *made]

    restore.__annotations__ = {"request": gr.Request}

    def refresh(request: gr.Request) -> list[Any]:
        owner = rpc.owner_of(request)
        both = {"model": widgets.model_choices(owner), "dataset": widgets.dataset_choices(owner)}
        return [gr.update(choices=both[form.all[name].widget]) for name in form.controls
                if form.all[name].widget in both]

    refresh.__annotations__ = {"request": gr.Request}

    shell.demo.load(restore, draft, [state, *form.inputs], **QUIET)
    gr.on([control.change for control in [form.method, *fields]], on_change, form.inputs, [state, draft],
          trigger_mode="always_last", **QUIET)
    form.method.input(form.switched, form.inputs, fields, trigger_mode="always_last", **QUIET)
    drivers = [form.controls[name] for name in form.drivers if name in form.controls]
    if drivers and form.dependents:
        gr.on([driver.change for driver in drivers], form.shown_when, form.inputs,
              [form.controls[name] for name in form.dependents], **QUIET)
    preset.input(on_preset, [preset, *form.inputs], [preset, *form.inputs], **QUIET)
    if form.upload is not None:
        form.upload.upload(on_upload, form.upload, form.controls["dataset"], **QUIET)
    shell.on_open(tab, on_open, form.inputs, [state, *form.inputs])
    shell.on_refresh(tab, refresh, pickers)
    start.click(on_start, [place, *form.inputs], state, **QUIET)
