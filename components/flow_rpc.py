"""What the page's scripts ask about pipelines; see :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, labels, own_run, owner_of
from components.strings import t
from studio import api
from studio.errors import StudioError
from studio.recipe import parse, read_yaml, write_yaml


@answer
def flow(data: dict, request: gr.Request) -> dict:
    """How a pipeline's steps stand, with what a person calls the models and datasets they use."""
    own_run(data.get("run"), request)
    found, known = api.flow(str(data["run"])), labels(owner_of(request))
    for step in found["steps"]:
        for use in step["uses"]:
            use["label"] = known.get(use["ref"], use["ref"])
    return found


@answer
def flow_write(data: dict, request: gr.Request) -> str:
    """A pipeline as YAML; only what differs from the defaults is written out."""
    values = dict(data.get("values") or {})
    steps = []
    for step in values.get("steps") or []:
        short = parse({key: value for key, value in step.items() if key != "id"}).to_dict(only_changed=True)
        short.pop("schema_version")
        steps.append({"id": step.get("id")} | short)
    return write_yaml({"kind": "flow", "method": "chain", "name": values.get("name") or "", "steps": steps})


@answer
def flow_read(data: dict, request: gr.Request) -> dict:
    """A pipeline from YAML."""
    found = parse(read_yaml(str(data.get("text") or "")), "flow", "chain")
    if found.kind != "flow":
        raise StudioError(t("flow.not_one", kind=found.kind), t("flow.not_one.hint"))
    return found.to_dict()


@answer
def flow_presets(data: dict, request: gr.Request) -> list:
    return api.presets("flow")


FUNCTIONS = [flow, flow_write, flow_read, flow_presets]
