"""Memory runs out: an offer, or a repair that goes on by itself; the numbers stay those of the run that never ran out."""

from __future__ import annotations

import json
import os

import pytest
import yaml

from studio import api, registry, settings
from studio.errors import StudioError
from studio.jobs import store, supervisor
from studio.jobs.context import checkpoints
from tests.train.conftest import events, run, series


@pytest.fixture
def hungry(monkeypatch):
    """Runs of ``sft/hungry`` as jobs; they have room for batches of two from the fifth step on."""
    for name, value in {"ATELIER_PLUGINS": "tests.train.hungry:register", "ATELIER_TEST_BATCH": "2", "ATELIER_TEST_FROM": "5",
                        "PYTHONPATH": str(settings.ROOT), "ATELIER_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    registry.load_plugins()
    yield
    registry.family("sft").remove("hungry")


def _values(tiny, chats, **more):
    return {"kind": "sft", "method": "hungry", "model": str(tiny), "dataset": str(chats), "max_length": 64,
            "num_train_epochs": 1, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 5e-3, "bf16": "off",
            "eval_steps": 4, **more}


def _job(values):
    id = api.submit(values)["id"]
    return id, supervisor.wait(id, 240)


def _as_if_nothing_was(id, tiny, chats, tmp_path):
    """The curve is that of a run with the large batch throughout: same steps, same samples in each, rounding aside."""
    whole, _ = run(_values(tiny, chats, method="lora"), tmp_path / "whole")
    a, b = series(tmp_path / "whole", "loss"), series(settings.run_dir(id), "loss")
    assert a.keys() == b.keys() and len(a) == whole["steps"] > 8
    assert max(abs(a[step] - b[step]) for step in a) < 1e-4


def test_an_offer_is_made_and_taken(tiny, chats, tmp_path, hungry):
    id, failed = _job(_values(tiny, chats))
    assert failed["state"] == "failed" and "out of memory" in failed["reason"]
    offer = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert api.poll(id)["offer"] == offer
    assert [p.name for p in checkpoints(settings.run_dir(id) / "checkpoints")] == ["checkpoint-4"]
    with pytest.raises(StudioError, match="only the setting it was offered"):
        api.resume(id, {"learning_rate": 1.0})
    assert api.run(id)["state"] == "failed"
    api.resume(id, offer)
    ended = supervisor.wait(id, 240)
    assert ended["state"] == "succeeded", ended["reason"]
    assert ended["recipe"]["per_device_train_batch_size"] == 2 and not api.poll(id)["offer"]
    folder = settings.run_dir(id)
    assert yaml.safe_load((folder / "recipe.attempt-1.yaml").read_text())["per_device_train_batch_size"] == 4
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["gradient_accumulation_steps"] == 2
    assert [e["step"] for e in events(folder, "resume")] == [4]  # from the checkpoint, not from the start
    _as_if_nothing_was(id, tiny, chats, tmp_path)


def test_a_repair_goes_on_by_itself(tiny, chats, tmp_path, hungry):
    id, ended = _job(_values(tiny, chats, on_out_of_memory="repair"))
    assert ended["state"] == "succeeded" and ended["attempt"] == 1, ended["reason"]
    assert (ended["recipe"]["per_device_train_batch_size"], ended["recipe"]["gradient_accumulation_steps"]) == (2, 2)
    told = [e["message"] for e in events(settings.run_dir(id), "warning") if e["code"] == "memory-repaired"]
    assert len(told) == 1 and "batch 2 × 2 instead of batch 4 × 1" in told[0]
    _as_if_nothing_was(id, tiny, chats, tmp_path)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_memory_that_the_kernel_refuses(tiny, tmp_path, hungry, monkeypatch):
    """The real thing: an address space that has no room for what the whole batch needs."""
    monkeypatch.setenv("ATELIER_TEST_BATCH", "1000")
    monkeypatch.setenv("ATELIER_TEST_ROOM", "220")
    long = tmp_path / "long.jsonl"
    long.write_text((json.dumps({"text": "grass is green and a cow says moo " * 80}) + "\n") * 24)
    id, ended = _job(_values(tiny, long, per_device_train_batch_size=24, max_length=512, on_out_of_memory="repair",
                             eval_share=0.0))
    told = [e["message"] for e in events(settings.run_dir(id), "warning") if e["code"] == "memory-repaired"]
    assert told and ended["state"] == "succeeded", ended["reason"]
    assert ended["recipe"]["per_device_train_batch_size"] * ended["recipe"]["gradient_accumulation_steps"] == 24


def test_a_worker_that_the_kernel_killed_gets_an_offer(tiny, chats, hungry, monkeypatch):
    from studio.jobs.files import write_json
    from studio.recipe import parse

    for starved, state in ((False, "failed"), (True, "queued")):  # ticked, and the kernel says it was memory: taken at once
        row = store.submit(parse(_values(tiny, chats, on_out_of_memory="repair")))
        store.claim(1)
        folder = settings.run_dir(row["id"])
        write_json(folder / "exit.json", {"code": None, "signal": 9, "ended": 1.0} | ({"memory": True} if starved else {}))
        supervisor.reconcile(store.get(row["id"]))
        now = store.get(row["id"])
        assert now["state"] == state
        if not starved:
            assert api.poll(row["id"])["offer"] == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        else:
            assert now["recipe"]["per_device_train_batch_size"] == 2
