"""Merges in the real queue: what it makes, and that a stop, a kill and a full disk leave nothing behind."""

from __future__ import annotations

import os
import signal

import pytest

from studio import api, recipe
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.supervisor import stop
from studio.library import artifacts, modelinfo, refs
from tests.jobs.conftest import jobs  # noqa: F401

STACK = {"merge_method": "passthrough", "slices": [{"sources": [{"model": "starter", "layer_range": [0, 3]}]},
                                                   {"sources": [{"model": "starter", "layer_range": [1, 4]}]}]}


@pytest.fixture
def slow(jobs, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ATELIER_PLUGINS", "tests.jobs.fake:register,tests.merge.slow:register")
    return monkeypatch


def submit(config: dict) -> str:
    return store.submit(recipe.parse({"kind": "merge", "method": "mergekit", "config": config}))["id"]


def half_way(jobs, run: str) -> None:  # noqa: F811
    """Wait until some weights are merged."""
    jobs.until(lambda: any(e["done"] >= 5 for e in jobs.events(run, "progress")), "five weights", timeout=120, tick=True)


def nothing_left(jobs, run: str) -> None:  # noqa: F811
    folder = jobs.dir(run)
    assert not [path.name for path in folder.iterdir() if path.name.startswith("output.")]
    assert not list((folder / "output").iterdir()) and not artifacts.listed(run_id=run)
    with pytest.raises(StudioError):
        refs.resolve_model(f"run:{run}/output")


def whole(jobs, run: str) -> dict:  # noqa: F811
    """The run went well: its model, six layers, with its parent."""
    (made,) = artifacts.listed(run_id=run)
    assert modelinfo.describe(jobs.dir(run) / "output")["layers"] == 6
    assert [(edge["ref"], edge["role"]) for edge in artifacts.get(made["id"])["parents"]] == [("starter", "parent")]
    assert not [path.name for path in jobs.dir(run).iterdir() if path.name.startswith("output.")]
    return made


@pytest.mark.timeout(280)
def test_stopped_in_the_middle_and_done_again(jobs, slow):  # noqa: F811
    slow.setenv("SLOW_MERGE", "0.3")
    run = submit(STACK)
    half_way(jobs, run)
    assert (jobs.dir(run) / "output.partial").is_dir() and not list((jobs.dir(run) / "output").iterdir())
    stop(run)
    assert jobs.over(run, timeout=60)["state"] == "stopped", jobs.report()
    nothing_left(jobs, run)
    slow.setenv("SLOW_MERGE", "0")
    store.resume(run)
    row = jobs.over(run, timeout=120)
    assert row["state"] == "succeeded" and row["summary"]["copied"] == 56, jobs.report()
    whole(jobs, run)


@pytest.mark.timeout(280)
def test_killed_in_the_middle_and_done_again(jobs, slow):  # noqa: F811
    slow.setenv("SLOW_MERGE", "0.3")
    run = submit(STACK)
    half_way(jobs, run)
    os.kill(jobs.json(run, "guardian.json")["worker_pid"], signal.SIGKILL)
    row = jobs.over(run, timeout=60)
    assert row["state"] == "failed" and "SIGKILL" in row["reason"]
    assert not artifacts.listed(run_id=run)
    assert run not in str(api.models()) and not list((jobs.dir(run) / "output").iterdir())
    with pytest.raises(StudioError):
        refs.resolve_model(f"run:{run}/output")
    slow.setenv("SLOW_MERGE", "0")
    store.resume(run)
    assert jobs.over(run, timeout=120)["state"] == "succeeded", jobs.report()
    whole(jobs, run)


@pytest.mark.timeout(280)
def test_a_disk_that_is_full_in_the_middle(jobs, slow):  # noqa: F811
    slow.setenv("SMALL_FILES", "1000000")
    run = submit(STACK)
    row = jobs.over(run, timeout=120)
    assert row["state"] == "failed" and "disk is full" in row["reason"], jobs.report()
    nothing_left(jobs, run)


@pytest.mark.timeout(280)
def test_a_merge_of_a_merge_in_a_pipeline(jobs):  # noqa: F811
    top = {"merge_method": "passthrough", "slices": [{"sources": [{"model": "step:stack", "layer_range": [0, 5]}]}]}
    steps = [{"id": "stack", "kind": "merge", "method": "mergekit", "config": STACK},
             {"id": "top", "kind": "merge", "method": "mergekit", "config": top}]
    found = api.merge_check(top)
    assert [one["level"] for one in found["problems"]] == ["note"] and found["layers"] is None
    assert api.validate({"kind": "flow", "method": "chain", "steps": steps})["ok"]
    flow = store.submit(recipe.parse({"kind": "flow", "method": "chain", "steps": steps}))["id"]
    row = jobs.over(flow, timeout=240)
    assert row["state"] == "succeeded", jobs.report()
    results = row["summary"]["results"]
    made = artifacts.get(results["top"].removeprefix("library:"))
    assert [(one["ref"], one["role"]) for one in made["parents"]] == [(results["stack"], "parent")]
    assert modelinfo.describe(refs.resolve_model(results["top"]).path)["layers"] == 5
    assert {"starter", results["stack"]} <= {one["ref"] for one in api.lineage(made["id"])["nodes"]}
