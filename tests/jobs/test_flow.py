"""Pipelines: links between steps, resume at the step that failed, one real chain from data to a merged model."""

from __future__ import annotations

import json
import os
import signal

import pytest

from studio import api, recipe
from studio.errors import StudioError
from studio.flows import links
from studio.jobs import children, store
from studio.registry import method

TUNE = {"kind": "sft", "method": "lora", "model": "starter"}


def submit(steps: list[dict]) -> str:
    return store.submit(recipe.parse({"kind": "flow", "method": "chain", "steps": steps}))["id"]


def fake(name: str, **values) -> dict:
    return {"id": name, "kind": "sft", "method": "fake", **values}


@pytest.mark.parametrize(("steps", "said"), [
    ([], "needs steps"),
    ([TUNE | {"id": "a", "dataset": "step:b"}], "no earlier step"),
    ([TUNE | {"id": "a", "dataset": "shipped:polite"}, TUNE | {"id": "b", "dataset": "step:a"}], "needs a dataset"),
    ([{"id": "d", "kind": "data", "method": "dedup", "dataset": "shipped:polite"}, TUNE | {"model": "step:d"}], "needs a model"),
    ([TUNE | {"id": "a", "dataset": "shipped:polite"}] * 2, "Two steps"),
    ([TUNE | {"id": "A b", "dataset": "shipped:polite"}], "id of a step"),
    ([TUNE | {"id": "a", "dataset": "shipped:polite", "learning_rate": 7}], "learning_rate"),
    ([TUNE | {"id": "a", "dataset": "shipped:nothing"}], "nothing"),
    ([{"id": "x", "kind": "flow", "method": "chain", "steps": []}], "cannot be part"),
])
def test_bad_steps_are_refused_before_anything_starts(home, steps, said):
    made = recipe.parse({"kind": "flow", "method": "chain", "steps": steps})
    with pytest.raises(StudioError, match=said) as refused:
        method("flow", "chain").check(made)
    assert refused.value.field == "steps"


def test_a_link_is_replaced_by_what_the_step_made(home):
    step = recipe.parse(TUNE | {"model": "step:one", "dataset": "step:two", "eval_dataset": "shipped:polite-heldout"})
    assert links.links(step) == [("model", "one", "model"), ("dataset", "two", "dataset")]
    values = links.filled(step, {"one": "library:m", "two": "library:d"})
    assert (values["model"], values["dataset"], values["eval_dataset"]) == ("library:m", "library:d",
                                                                            "shipped:polite-heldout")


def test_another_persons_data_are_refused_inside_a_step(home, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/atelier")
    found = api.validate({"kind": "flow", "method": "chain",
                          "steps": [TUNE | {"id": "a", "dataset": "/etc/passwd"}]}, "ann")
    assert not found["ok"]


def test_a_failed_step_ends_the_chain_and_resume_goes_on_with_it(jobs):
    parent = submit([fake("one", level=2), fake("two", mode="half", level=0), fake("three", level=3)])
    row = jobs.over(parent)
    assert row["state"] == "failed" and "Step 2 (two) failed: The loss stopped" in row["reason"]
    assert [one["tag"] for one in children.of(parent)] == ["one", "two"]
    first = {one["tag"]: one for one in children.of(parent)}
    (jobs.dir(first["two"]["id"]) / "recipe.yaml").write_text("kind: sft\nmethod: fake\nmode: half\nlevel: 5\n")
    store.resume(parent)
    row = jobs.over(parent)
    now = {one["tag"]: one for one in children.of(parent)}
    assert row["state"] == "succeeded" and [one["state"] for one in row["summary"]["steps"]] == ["succeeded"] * 3
    assert (now["one"]["attempt"], now["two"]["attempt"], now["three"]["attempt"]) == (1, 2, 1)


def test_a_step_that_makes_no_model_is_told_by_the_step_that_needs_one(jobs):
    parent = submit([fake("one"), TUNE | {"id": "two", "model": "step:one", "dataset": "shipped:polite"}])
    assert api.run(parent)["label"] == "Fake → LoRA"
    row = jobs.over(parent)
    assert row["state"] == "failed" and "goes on with what 'one' makes" in row["reason"]


def test_stop_stops_the_step_and_a_killed_chain_leaves_no_step_running(jobs):
    parent = submit([fake("one", mode="wait"), fake("two")])
    jobs.until(lambda: children.of(parent) and children.of(parent)[0]["state"] == "running", "the step", tick=True)
    api.stop(parent)
    assert jobs.over(parent)["state"] == "stopped" and children.of(parent)[0]["state"] == "stopped"
    store.resume(parent)
    jobs.until(lambda: children.of(parent)[0]["state"] == "running", "the step again", tick=True)
    guardian = json.loads((jobs.dir(parent) / "guardian.json").read_text())
    os.kill(guardian["worker_pid"], signal.SIGKILL)
    assert jobs.over(parent)["state"] == "failed"
    jobs.until(lambda: children.of(parent)[0]["state"] == "stopped", "the step ended with it", tick=True)
