"""Runs that a run starts. Real processes: a sweep over a fake method, stopped, killed, resumed, removed."""

from __future__ import annotations

import os
import signal

import pytest

from studio import api, recipe
from studio.errors import StudioError
from studio.jobs import children, store
from studio.jobs.supervisor import stop, threads_for

WAIT = 150  # seconds; on a busy machine a process takes a while to start


def sweep(values=(3, 1, 2), base=None, **more) -> str:
    """Queue a grid over the fake method's ``level``."""
    wanted = {"kind": "sft", "method": "fake", "steps": 4, **(base or {})}
    made = recipe.parse({"kind": "sweep", "method": "grid", "recipe": wanted, "metric": "loss",
                         "space": [{"field": "level", "values": list(values)}], **more})
    return store.submit(made)["id"]


def hurry(jobs, *rows) -> None:
    """Take the pauses out of runs that wait to go on."""
    for row in rows:
        path = jobs.dir(row["id"]) / "recipe.yaml"
        path.write_text(path.read_text().replace("pause: 0.2", "pause: 0.0"))


def states(parent: str) -> dict[str, str]:
    return {row["tag"]: row["state"] for row in children.of(parent)}


def test_the_only_compute_slot_is_free_for_the_children_and_a_failure_is_one_trial(jobs):
    """One slot for computing (see the fixture): a parent that held it would wait for ever."""
    jobs.studio()
    parent = sweep(values=(3, 0, 1), base={"mode": "half"})
    row = jobs.over(parent, WAIT, tick=False)
    assert (row["state"], row["slot"], row["threads"]) == ("succeeded", None, 1)
    found = children.of(parent)
    assert [(one["tag"], one["state"]) for one in found] == [
        ("trial 1", "succeeded"), ("trial 2", "failed"), ("trial 3", "succeeded")]
    assert {one["parent"] for one in found} == {parent}
    summary = row["summary"]
    assert (summary["best_trial"], summary["best_params"]) == (3, {"level": 1.0})
    assert summary["best_value"] == pytest.approx(1.25) and summary["best_run"] == found[2]["id"]
    assert summary["trials"][1]["reason"] == "The loss stopped being a number."
    told = {e["step"]: e["values"] for e in jobs.events(parent, "metric")}
    assert [told[n]["best"] for n in (1, 2, 3)] == pytest.approx([3.25, 3.25, 1.25]) and "objective" not in told[2]


def test_orchestrators_have_slots_of_their_own_and_take_no_threads(jobs, monkeypatch):
    parents = [sweep() for _ in range(5)]
    run = jobs.submit()
    claimed = [row["id"] for row in iter(lambda: store.claim(1), None)]
    assert claimed == [*parents[:4], run], "four wait beside the one that computes; the fifth has to queue"
    monkeypatch.setattr("studio.jobs.supervisor.cores", lambda: 8)
    monkeypatch.setattr("studio.jobs.supervisor._engines", lambda: False)
    assert threads_for(store.get(run), supervised=False) == 8 and threads_for(store.get(parents[0])) == 1


def test_stop_takes_the_children_along_resume_goes_on_with_them_but_not_with_a_pruned_one(jobs):
    parent = sweep(values=(1, 90, 0, -1), base={"steps": 20, "pause": 0.2, "save_every": 5}, parallel=2,
                   pruner="median", n_startup_trials=1, n_warmup_steps=1)
    jobs.until(lambda: len(found := children.of(parent)) == 4 and jobs.events(found[2]["id"], "metric"), "the third",
               timeout=WAIT, tick=True)
    stop(parent)
    row = jobs.over(parent, WAIT)
    assert (row["state"], row["reason"]) == ("stopped", "Stopped as asked.")
    done, pruned, third, fourth = children.of(parent)
    assert [one["state"] for one in (done, pruned, third, fourth)] == ["succeeded", "stopped", "stopped", "stopped"]
    assert pruned["reason"].startswith("Pruned by the sweep: loss 9") and pruned["tag"] == "trial 2 pruned"
    assert 2 <= len(jobs.events(pruned["id"], "metric")) < 20
    assert "together with the sweep" in third["reason"] and fourth["reason"] == "Stopped before it started."
    seen = jobs.events(third["id"], "metric")[-1]["step"]
    hurry(jobs, third, fourth)
    store.resume(parent)
    row = jobs.over(parent, WAIT)
    assert (row["state"], row["attempt"]) == ("succeeded", 2)
    assert [one["state"] for one in row["summary"]["trials"]] == ["succeeded", "pruned", "succeeded", "succeeded"]
    assert row["summary"]["best_trial"] == 4
    assert [one["attempt"] for one in children.of(parent)] == [1, 1, 2, 2]
    steps = [e["step"] for e in jobs.events(third["id"], "metric")]
    assert steps == list(range(1, 21)) and seen in steps, "it went on from its checkpoint"
    assert [e["step"] for e in jobs.events(third["id"], "resume")] == [seen]


def test_a_parent_killed_in_the_middle_takes_its_child_along_and_adopts_it_when_resumed(jobs):
    parent = sweep(values=(3, 2), base={"steps": 20, "pause": 0.2}, parallel=2)
    jobs.until(lambda: len(found := children.of(parent)) == 2 and jobs.events(found[0]["id"], "metric"), "a child",
               timeout=WAIT, tick=True)
    os.kill(jobs.json(parent, "guardian.json")["worker_pid"], signal.SIGKILL)
    row = jobs.over(parent, WAIT)
    assert row["state"] == "failed" and "SIGKILL" in row["reason"]
    for one in children.of(parent):
        assert jobs.over(one["id"], WAIT)["state"] == "stopped"
    assert not store.active() and not store.queue()
    hurry(jobs, *children.of(parent))
    store.resume(parent)
    row = jobs.over(parent, WAIT)
    assert row["state"] == "succeeded" and row["summary"]["finished"] == 2
    assert [one["attempt"] for one in children.of(parent)] == [2, 2]


def test_a_parent_whose_guardian_is_gone_is_lost_and_so_is_nothing_else(jobs):
    parent = sweep(values=(3,), base={"mode": "wait"})
    jobs.until(lambda: "running" in states(parent).values(), "a child", timeout=WAIT, tick=True)
    os.kill(jobs.json(parent, "guardian.json")["pid"], signal.SIGKILL)
    assert jobs.over(parent, WAIT)["state"] == "lost"
    assert jobs.over(children.of(parent)[0]["id"], WAIT)["state"] == "stopped"


def test_a_sweep_without_its_curve_says_what_there_is(jobs):
    row = jobs.over(sweep(values=(1,), metric="eval_loss"), WAIT)
    assert row["state"] == "failed" and row["field"] == "metric"
    assert "None of the 1 trials" in row["reason"] and "It recorded loss" in row["reason"]


def test_removing_takes_the_children_along_but_none_that_is_going(jobs):
    parent = sweep(values=(1, 2), base={"steps": 15, "pause": 0.3}, parallel=2)
    jobs.until(lambda: list(states(parent).values()) == ["running", "queued"], "a child", timeout=WAIT, tick=True)
    with pytest.raises(StudioError, match="still going"):
        api.remove(parent)
    first, second = (row["id"] for row in children.of(parent))
    api.remove(second)  # a sweep is not held up by a trial that somebody removed
    assert jobs.over(parent, WAIT)["summary"]["finished"] == 1
    assert [row["id"] for row in api.runs(parent="")] == [parent]
    assert [row["id"] for row in api.runs(parent=parent)] == [first]
    api.remove(parent)
    assert not api.runs() and not jobs.dir(first).exists()
