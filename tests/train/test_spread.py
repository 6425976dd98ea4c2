"""A training on two processes by torchrun gives what one process gives, and ends as a whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from studio.errors import StudioError
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import events, run, series


def values(tiny, chats, **more) -> dict:
    return {"kind": "sft", "method": "full", "model": str(tiny), "dataset": str(chats), "max_length": 64,
            "learning_rate": 1e-3, "max_steps": 8, "logging_steps": 1, "bf16": "off", "eval_steps": 4, "save_steps": 4,
            "sample_prompts": ["What does a cow say?"], "per_device_train_batch_size": 8,
            "eval_share": 0.2} | more  # 48 rows to learn from: full batches for one process and for two


def spread(recipe: dict, folder: Path, **more):
    """As :func:`run`; the ranks read the recipe from the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(parse(recipe).to_yaml())
    return run(recipe, folder, **more)


def ranks(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if "studio.trainers.rank" in process.cmdline() and process.environ()["ATELIER_RUN_DIR"] == str(folder) \
                    and "RANK" in process.environ():
                found.append(process)
        except (psutil.Error, KeyError):
            continue
    return found


def steps(folder: Path) -> dict[int, float]:
    return series(folder, "loss") if (folder / "events.jsonl").exists() else {}


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr("studio.hardware.cores", lambda: 2)


def test_two_processes_learn_as_one_and_go_on_after_a_stop(tiny, chats, tmp_path):
    """Stopped and resumed, they give what a single process gives that was never stopped."""
    one, _ = run(values(tiny, chats, max_steps=16), tmp_path / "one")
    recipe, folder = values(tiny, chats, num_processes=2, per_device_train_batch_size=4, max_steps=16), tmp_path / "two"

    def stop() -> None:
        until = time.monotonic() + 240
        while time.monotonic() < until and not steps(folder):
            time.sleep(0.02)
        (folder / "stop").touch()

    threading.Thread(target=stop, daemon=True).start()
    part, ctx = spread(recipe, folder)
    assert ctx.stop_requested and 1 <= part["steps"] < 16 and part["processes"] == 2
    (folder / "stop").unlink()
    two, ctx = spread(recipe, folder, resume=True)
    assert two["processes"] == 2 and two["steps"] == one["steps"] == 16 and two["tokens"] == one["tokens"]
    # the validation loss is a mean of the batches' means, and the batches are not the same
    for name, bound in (("loss", 5e-6), ("num_tokens", 0), ("eval_loss", 2e-3)):
        first, second = series(tmp_path / "one", name), series(folder, name)
        assert first.keys() == second.keys() and len(first) >= 5
        assert [second[step] for step in first] == pytest.approx(list(first.values()), abs=bound), name
    ours, theirs = (load_file(path / "output" / "model.safetensors") for path in (tmp_path / "one", folder))
    assert all((ours[key] - theirs[key]).abs().max() < 2e-5 for key in ours)
    assert len(events(folder, "sample")) == len(events(tmp_path / "one", "sample"))  # one rank speaks
    assert [item["kind"] for item in ctx.artifacts] == ["model"]


def test_a_killed_rank_ends_all(tiny, chats, tmp_path):
    folder = tmp_path / "killed"

    def kill() -> None:
        until = time.monotonic() + 240
        while time.monotonic() < until:
            found = ranks(folder)
            if len(found) == 2 and steps(folder):
                os.kill(found[1].pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(StudioError, match="killed"):
        spread(values(tiny, chats, num_processes=2, max_steps=5000), folder)
    assert not ranks(folder)


def test_a_refusal_of_the_ranks_is_the_runs(tiny, chats, tmp_path):
    with pytest.raises(StudioError, match="Nothing is left to learn from") as refused:
        spread(values(tiny, chats, num_processes=2, max_length=8), tmp_path / "run")
    assert refused.value.field == "max_length"


@pytest.mark.parametrize(("fields", "field"), [({"num_processes": 3}, "num_processes"), ({"strategy": "fsdp"}, "strategy"),
                                               ({"strategy": "zero2", "num_processes": 2}, "strategy")])
def test_what_this_machine_cannot_do_is_refused(tiny, chats, fields, field, monkeypatch):
    monkeypatch.setattr("studio.hardware.gpus", lambda fresh=False: [])
    recipe = parse(values(tiny, chats, **fields))
    with pytest.raises(StudioError) as refused:
        method("sft", "full").check(recipe)
    assert refused.value.field == field
