"""Training a model that lies on the Hub (a stand-in of it): downloaded by the run, told, and found again afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from studio import api, hub, settings
from studio.jobs import store
from studio.jobs.supervisor import Supervisor
from tests.hub_stand_in import Hub, Repo


def test_fine_tune_a_model_of_the_hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {p.name: p.read_bytes() for p in settings.STARTER.iterdir() if p.is_file()}
    monkeypatch.setattr(hub, "_facts", {})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("ATELIER_THREADS", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Hub(Repo("lab/starter", files=files, card={"license": "mit"}, parameters=1)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        run_id = api.submit({"kind": "sft", "method": "lora", "model": "hub:lab/starter", "dataset": "shipped:polite",
                             "max_steps": 2, "eval_share": 0})["id"]
        supervisor, deadline = Supervisor(warm=False), time.monotonic() + 120
        while not store.is_final(api.run(run_id)["state"]):
            assert time.monotonic() < deadline
            supervisor.tick()
            time.sleep(0.1)
    run = api.run(run_id, details=True)
    assert run["state"] == "succeeded", run["log"]
    notes = api.poll(run_id)["notes"]
    assert any("Downloading lab/starter: 100 %" in note for note in notes)
    assert sum("/resolve/" in asked and asked.startswith("GET") for asked in server.requests) == len(files)
    (made,) = run["artifacts"]
    assert api.lineage(made["id"])["edges"][0]["parent"] == "hub:lab/starter"
    assert "base_model: lab/starter" in api.card(run_id)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert api.validate({"kind": "sft", "method": "lora", "model": "hub:lab/starter", "dataset": "shipped:polite"})["ok"]
