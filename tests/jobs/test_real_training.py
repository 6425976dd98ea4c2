"""A real fine-tuning through the queue: forked warm, killed, stopped, resumed, and still the uninterrupted curve."""

from __future__ import annotations

import os
import signal

import pytest

from studio import recipe, series
from studio.jobs import store, zygote
from studio.jobs.context import checkpoints
from studio.jobs.supervisor import Supervisor, stop

VALUES = {"kind": "sft", "method": "lora", "model": "starter", "dataset": "shipped:polite", "max_length": 128,
          "max_steps": 30, "logging_steps": 1, "save_steps": 5, "eval_steps": 10, "learning_rate": 1e-3,
          "lora_dropout": 0.1, "per_device_train_batch_size": 4}


@pytest.mark.timeout(280)
def test_killed_stopped_and_resumed_it_ends_as_the_uninterrupted_run(jobs, monkeypatch):
    from studio.library import artifacts

    monkeypatch.setenv("ATELIER_THREADS", "1")
    supervisor = Supervisor(warm=True)
    supervisor.start()
    try:
        jobs.until(zygote.ready, "the warm process", timeout=90)
        whole, part = (store.submit(recipe.parse(VALUES))["id"] for _ in range(2))
        supervisor.wake()
        assert jobs.over(whole, tick=False, timeout=90)["state"] == "succeeded", jobs.report()

        jobs.until(lambda: _steps(jobs, part) >= 8, "eight steps", timeout=60)
        os.kill(jobs.json(part, "guardian.json")["worker_pid"], signal.SIGKILL)
        row = jobs.over(part, tick=False)
        assert row["state"] == "failed" and "signal 9 (SIGKILL)" in row["reason"]

        reached = _steps(jobs, part)
        store.resume(part)
        supervisor.wake()
        jobs.until(lambda: _steps(jobs, part) > reached + 2, "beyond the kill", timeout=60)
        stop(part)
        row = jobs.over(part, tick=False)
        assert row["state"] == "stopped"
        assert checkpoints(jobs.dir(part) / "checkpoints")[-1].name == f"checkpoint-{_steps(jobs, part)}"

        store.resume(part)
        supervisor.wake()
        row = jobs.over(part, tick=False, timeout=90)
        assert (row["state"], row["attempt"]) == ("succeeded", 3), jobs.report()
    finally:
        supervisor.stop()
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        a, b = _curve(jobs, whole, name), _curve(jobs, part, name)
        assert a.keys() == b.keys() and len(a) >= 3, name
        assert max(abs(a[step] - b[step]) for step in a) <= 1e-6, name
    made = artifacts.listed(run_id=part)
    assert [one["kind"] for one in made] == ["adapter"]
    edges = {(edge["ref"], edge["role"]) for edge in artifacts.get(made[0]["id"])["parents"]}
    assert {("starter", "base"), ("shipped:polite", "data")} <= edges
    shown = series.snapshot(jobs.dir(part), 0)["series"]["loss"]
    assert [step for step, _ in shown] == list(range(1, 31))


def _steps(jobs, run: str) -> int:
    return max((e["step"] for e in jobs.events(run, "metric") if "loss" in e["values"]), default=0)


def _curve(jobs, run: str, name: str) -> dict[int, float]:
    """The values of a curve as readers see it: what a resume took back is gone."""
    curve: dict[int, float] = {}
    for event in jobs.events(run):
        if event["e"] == "resume":
            curve = {step: value for step, value in curve.items() if step <= event["step"]}
        elif event["e"] == "metric" and name in event["values"]:
            curve[event["step"]] = event["values"][name]
    return curve
