"""A resumed run is the uninterrupted one: step for step, to 1e-6, whatever ended the first part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs.context import checkpoints
from tests.train.conftest import events, run, series

SAME = ("loss", "grad_norm", "learning_rate", "eval_loss", "mean_token_accuracy", "entropy", "num_tokens")


def _values(tiny, chats, **more):
    return {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_length": 64,
            "num_train_epochs": 3, "per_device_train_batch_size": 4, "logging_steps": 3, "lora_dropout": 0.1,
            "learning_rate": 5e-3, **more}


def _same(one: Path, two: Path) -> None:
    for name in SAME:
        a, b = series(one, name), series(two, name)
        assert a.keys() == b.keys() and len(a) > 3, name
        assert max(abs(a[s] - b[s]) for s in a) <= 1e-6, name
    text = {(e["step"], e["prompt"]): e["text"] for e in events(one, "sample")}
    assert text == {(e["step"], e["prompt"]): e["text"] for e in events(two, "sample")}


@pytest.mark.parametrize("more", [{"sample_prompts": ["What colour is grass?"]},
                                  {"method": "full", "learning_rate": 1e-3, "gradient_accumulation_steps": 2,
                                   "neftune_noise_alpha": 5.0, "lora_dropout": None},
                                  {"packing": True, "bf16": "off", "lr_scheduler_type": "linear",
                                   "num_train_epochs": 8},])
def test_stopped_and_resumed(tiny, chats, tmp_path, more):
    values = {k: v for k, v in _values(tiny, chats, **more).items() if v is not None}
    whole, _ = run(values, tmp_path / "whole")
    part, ctx = run(values, tmp_path / "part", stop_at=whole["steps"] // 2 + 1)
    assert part["steps"] == whole["steps"] // 2 + 1
    assert checkpoints(ctx.checkpoints)[-1].name == f"checkpoint-{part['steps']}"  # a stop saves first
    again, _ = run(values, tmp_path / "part", resume=True)
    _same(tmp_path / "whole", tmp_path / "part")
    assert again["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-6)
    assert again["tokens"] == whole["tokens"]


def test_other_data_are_not_resumed_on(tiny, chats, tmp_path):
    values = _values(tiny, chats)
    run(values, tmp_path / "part", stop_at=3)
    lines = chats.read_text().splitlines()
    chats.write_text("\n".join(lines[1:] + lines[:1]) + "\n")
    with pytest.raises(StudioError, match="not those this run began with") as refused:
        run(values, tmp_path / "part", resume=True)
    assert refused.value.field == "dataset"


def test_killed_and_resumed(tiny, chats, tmp_path):
    """SIGKILL in the middle: the newest whole checkpoint is where it goes on."""
    values = _values(tiny, chats, num_train_epochs=12, save_steps=7, eval_steps=14, bf16="off")
    run(values, tmp_path / "whole")
    code = ("import json, sys; from pathlib import Path; from tests.train.conftest import run; "
            "run(json.loads(sys.argv[1]), Path(sys.argv[2]))")
    worker = subprocess.Popen([sys.executable, "-c", code, json.dumps(values), str(tmp_path / "part")],
                              cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"},
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until and len(checkpoints(tmp_path / "part" / "checkpoints")) < 2:
        assert worker.poll() is None
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    (tmp_path / "part" / "checkpoints" / "checkpoint-9999").mkdir()  # as a kill in the middle of saving leaves it
    run(values, tmp_path / "part", resume=True)
    assert events(tmp_path / "part", "metric")
    assert not (tmp_path / "part" / "checkpoints" / "checkpoint-9999").exists()
    _same(tmp_path / "whole", tmp_path / "part")


def test_full_disk_in_a_checkpoint(tiny, chats, tmp_path, monkeypatch):
    """A checkpoint that cannot be written fails the run with a hint, and the earlier ones stay whole and resumable."""
    from studio.trainers import kept

    saves = []

    def full(folder, real=kept.mark_complete):
        saves.append(folder)
        if len(saves) == 3:
            raise OSError(28, "No space left on device")
        real(folder)

    values = _values(tiny, chats, save_total_limit=10)
    monkeypatch.setattr(kept, "mark_complete", full)
    with pytest.raises(StudioError, match="disk is full") as caught:
        run(values, tmp_path / "run")
    assert "resume" in caught.value.hint
    left = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == sorted(p.name for p in checkpoints(tmp_path / "run" / "checkpoints")) and len(left) == 2
    run(values, tmp_path / "run", resume=True)
    run(values, tmp_path / "whole")
    _same(tmp_path / "whole", tmp_path / "run")


def test_limit_keeps_best_and_newest(tiny, chats, tmp_path, monkeypatch):
    from studio.trainers.callbacks import Watch

    losses = iter([5.0, 1.0, *[4.0] * 50])

    def fake(self, args, state, control, metrics=None, real=Watch.on_evaluate, **more):
        real(self, args, state, control, metrics={"eval_loss": next(losses)} if state.global_step else metrics, **more)

    monkeypatch.setattr(Watch, "on_evaluate", fake)
    summary, ctx = run(_values(tiny, chats, save_total_limit=1, eval_steps=4), tmp_path / "run")
    steps = [int(p.name.split("-")[1]) for p in checkpoints(ctx.checkpoints)]
    assert steps == [8, summary["steps"]] and summary["kept_step"] == 8
