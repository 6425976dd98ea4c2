"""Before and during a training: two real steps are measured; the doctor warns once, stops a runaway, and leaves healthy runs alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from studio import api
from studio.errors import StudioError
from studio.trainers.checkup import said
from tests.train.conftest import events, run

KNOWN = {"rows-left-out", "no-validation", "chat-template-added"}


def _values(tiny, chats, **more):
    return {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_length": 64, "bf16": "off",
            "num_train_epochs": 8, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 5e-3, **more}


def _codes(folder):
    return [event["code"] for event in events(folder, "warning")]


def test_two_real_steps(tiny, chats, home):
    def scratch():
        return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("atelier-measure-")}

    values, before = _values(tiny, chats, gradient_accumulation_steps=2), scratch()
    found = api.measure(values)
    assert found["steps"] == 8 * 7  # 54 samples, eight in a step
    assert found["rows"] == 54 and 20 < found["longest"] <= 64
    assert 100e6 < found["memory"] < 3e9 and found["fits"] is True and found["next"] is None
    assert found["total"] >= found["free"] > found["memory"]
    assert 0 < found["step_seconds"] < 60 and found["seconds"] > 0
    assert not [path for folder in ("runs", "models", "datasets", "exports") for path in (Path(home) / folder).rglob("*")]
    assert scratch() <= before


def test_what_cannot_be_measured_is_refused(tiny, chats, home, monkeypatch):
    with pytest.raises(StudioError, match="Only training"):
        api.measure({"kind": "setup", "method": "extra", "extra": "trackio"})
    monkeypatch.setattr("studio.jobs.probe.call", lambda *_, **__: {
        "out_of_memory": True, "memory": None, "free": 10**9, "device": "cpu"})
    found = api.measure(_values(tiny, chats))
    assert found["fits"] is False and found["next"]["per_device_train_batch_size"] < 4 and "ran out" in found["notes"][0]


@pytest.mark.parametrize("more", [{}, {"method": "full", "learning_rate": 1e-3, "logging_steps": 3},
                                  {"per_device_train_batch_size": 1, "num_train_epochs": 4}])
def test_healthy_runs_get_no_warning(tiny, chats, tmp_path, more):
    run(_values(tiny, chats, **more), tmp_path / "run")
    assert not [code for code in _codes(tmp_path / "run") if code not in KNOWN]


def test_a_runaway_is_stopped_with_its_reason_and_told_once(tiny, chats, tmp_path, monkeypatch):
    from studio.trainers.loop import StudioTrainer

    def log(self, logs, *more, real=StudioTrainer.log):
        if "loss" in logs:  # a loss that turns and climbs; what finds it is tested with the doctor itself
            logs["loss"] += 0.3 * max(0, self.state.global_step - 20)
        real(self, logs, *more)

    monkeypatch.setattr(StudioTrainer, "log", log)
    values = _values(tiny, chats, method="full", learning_rate=0.02, auto_stop=True, num_train_epochs=5, eval_share=0.0)
    summary, ctx = run(values, tmp_path / "run")
    assert ctx.stop_requested and ctx.stop_reason.startswith("Stopped by the training doctor: The loss has risen")
    assert 20 < summary["steps"] < summary["of_steps"] == 75
    codes = _codes(tmp_path / "run")
    assert codes.count("divergence") == 1 and codes.count("learning-rate-high") == 1
    assert {"divergence", "learning-rate-high"} <= said(ctx)
    run(values, tmp_path / "run", resume=True, stop_at=summary["steps"] + 3)
    assert _codes(tmp_path / "run").count("learning-rate-high") == 1
