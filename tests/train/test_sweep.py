"""A real sweep over the tiny model: trained in child runs, the hopeless ones stopped, the best one promoted."""

from __future__ import annotations

import time

import pytest

from studio import api, recipe, settings
from studio.jobs import children, store, zygote
from studio.jobs.supervisor import Supervisor


@pytest.mark.timeout(900)
def test_a_sweep_finds_the_better_rate_and_gives_up_the_hopeless(tiny, chats, monkeypatch):
    from studio.library import artifacts

    monkeypatch.setenv("ATELIER_THREADS", "1")
    monkeypatch.setenv("ATELIER_SLOTS", "1")
    base = {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_length": 64, "max_steps": 120,
            "logging_steps": 20, "eval_steps": 10, "save_steps": 60, "eval_share": 0.1, "per_device_train_batch_size": 2}
    asked = recipe.parse({"kind": "sweep", "method": "grid", "recipe": base, "pruner": "median", "n_startup_trials": 2,
                          "n_warmup_steps": 1, "only_best": True,
                          "space": [{"field": "learning_rate", "values": [3e-3, 1e-2, 1e-7, 2e-7]}]})
    supervisor = Supervisor(warm=True)
    supervisor.start()
    try:
        deadline = time.monotonic() + 800
        while not zygote.ready():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run = store.submit(asked)["id"]
        supervisor.wake()
        while not store.is_final(store.get(run)["state"]):
            assert time.monotonic() < deadline, [(row["tag"], row["state"]) for row in children.of(run)]
            time.sleep(0.2)
    finally:
        supervisor.stop()
    row = store.get(run)
    assert row["state"] == "succeeded", row["reason"]
    summary = row["summary"]
    assert [trial["state"] for trial in summary["trials"]] == ["succeeded", "succeeded", "pruned", "pruned"], summary
    assert (summary["metric"], summary["direction"]) == ("eval_loss", "minimize")
    trained = [store.get(trial["run"]) for trial in summary["trials"]]
    assert [child["recipe"]["learning_rate"] for child in trained] == [3e-3, 1e-2, 1e-7, 2e-7]
    assert all(child["summary"]["steps"] < 120 and child["reason"].startswith("Pruned by the sweep") for child in trained[2:])

    # the sweep's figure is the one that the best run itself reports of the weights it kept
    best = min(trained[:2], key=lambda child: child["summary"]["eval_loss"])
    assert summary["best_run"] == best["id"] and summary["best_params"] == {"learning_rate": best["recipe"]["learning_rate"]}
    assert summary["best_value"] == pytest.approx(best["summary"]["eval_loss"], abs=1e-9)

    # only the best one's model is left, under the name of the sweep
    made = artifacts.listed(("adapter", "model"))
    assert [one["run_id"] for one in made] == [best["id"]] and made[0]["name"].endswith("best of 4")
    assert summary["best_model"] == made[0]["ref"]
    for child in trained:
        assert (settings.run_dir(child["id"]) / "output" / "adapter_model.safetensors").exists() == (child["id"] == best["id"])
    told = api.sweep(run)
    assert told["best"] == best["id"] and [one["state"] for one in told["trials"]][2:] == ["pruned", "pruned"]
    assert [one["value"] for one in told["trials"]] == pytest.approx([t["value"] for t in summary["trials"]], rel=1e-4)
