"""Evolving a merge: better candidates win, the kept part is told, and a killed search goes on exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from studio import settings
from studio.errors import StudioError
from studio.library import artifacts, refs
from studio.mergers import evolve
from studio.recipe import parse
from studio.registry import method
from tests.merge.conftest import tensors
from tests.train.conftest import events, run, series


@pytest.fixture(scope="session")
def taught(tiny, tmp_path_factory) -> Path:
    """The tiny model after it learned the answers of ``chats``."""
    from tests.train.conftest import QUESTIONS

    folder = tmp_path_factory.mktemp("taught")
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({"messages": [{"role": "user", "content": f"{q} ({i})"}, {"role": "assistant", "content": a}]})
                            + "\n" for i in range(60) for q, a in [QUESTIONS[i % len(QUESTIONS)]]))
    os.environ["STUDIO_HOME"] = str(folder)
    _, ctx = run({"kind": "sft", "method": "full", "model": str(tiny), "dataset": str(data), "max_steps": 25, "learning_rate": 5e-3,
                  "max_length": 64, "eval_share": 0.0, "bf16": "off", "sample_prompts": [], "per_device_train_batch_size": 8},
                 folder / "run")
    return ctx.output


def config(base, *models, weight=0.2, **more) -> dict:
    return {"merge_method": "task_arithmetic", "base_model": str(base), "dtype": "float32",
            "models": [{"model": str(model), "parameters": {"weight": weight}} for model in models]} | more


def values(merge: dict, data, **more) -> dict:
    return {"kind": "merge", "method": "evolve", "config": merge, "dataset": str(data), "samples": 8, "trials": 6,
            "population_size": 3} | more


def test_finds_the_tune_and_leaves_the_noise(tiny, taught, tune, chats, tmp_path, home):
    """One parent knows the answers, the other is the base with noise: the first should count more, the second less."""
    noisy = tune(3, size=0.05)
    merge = config(tiny, taught, noisy, weight=0.4)
    summary, ctx = run(values(merge, chats, trials=12, sampler="tpe"), home / "runs" / "r0evolve")
    start, best = summary["candidates"][0], summary["best"]
    assert len(summary["candidates"]) == 12 and list(start["params"].values()) == [0.4, 0.4]
    assert best["value"] == min(one["value"] for one in summary["candidates"]) < 0.8 * start["value"]
    assert best["held_out"] < start["held_out"]
    known, noise = (best["params"][f"weight of {folder.name}"] for folder in (taught, noisy))
    assert known > 0.4 > noise
    assert [one["label"] for one in summary["parents"]] == [taught.name, noisy.name, tiny.name]
    assert series(ctx.run_dir, "objective") == {one["number"] + 1: pytest.approx(one["value"]) for one in summary["candidates"]}
    [row] = artifacts.register_run({"id": "r0evolve", "name": "", "owner": None}, {"artifacts": ctx.artifacts})
    roles = {(p["role"], p["ref"]) for p in artifacts.get(row["id"])["parents"]}
    assert roles == {("base", str(tiny)), ("parent", str(taught)), ("parent", str(noisy)), ("data", str(chats))}
    card = (ctx.output / "README.md").read_text()
    assert "## Search" in card and f"{taught.name} alone" in card
    # what is written is what merge/mergekit makes of the best configuration
    _, plain = run({"kind": "merge", "method": "mergekit", "config": summary["config"]}, tmp_path / "plain")
    made, wanted = tensors(ctx.output), tensors(plain.output)
    assert made.keys() == wanted.keys() and all(torch.equal(made[name], wanted[name]) for name in wanted)
    assert refs.resolve_model(str(ctx.output)).meta["chat_template"]
    assert not (ctx.run_dir / "candidate").exists()


@pytest.mark.parametrize("sampler", ["genetic", "tpe", "random"])
def test_a_stopped_search_goes_on_exactly(sampler, tiny, taught, tune, chats, tmp_path):
    recipe = values(config(tiny, taught, tune(3)), chats, sampler=sampler, trials=7)
    whole, _ = run(recipe, tmp_path / "whole")
    part, ctx = run(recipe, tmp_path / "cut", stop_at=4)
    assert len(part["candidates"]) == 4 and not ctx.artifacts and not list(ctx.output.iterdir())
    journal = ctx.run_dir / evolve.JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"number": 4, "par')  # a kill tore the next line
    again, ctx = run(recipe, tmp_path / "cut", resume=True)
    assert again["candidates"] == whole["candidates"] and again["config"] == whole["config"]
    assert series(ctx.run_dir, "best") == series(tmp_path / "whole", "best") and len(ctx.artifacts) == 1
    other, _ = run(recipe | {"seed": 7}, tmp_path / "other")
    assert [one["params"] for one in other["candidates"][1:]] != [one["params"] for one in whole["candidates"][1:]]


def test_a_killed_search_goes_on_exactly(tiny, taught, tune, chats, tmp_path, home):
    recipe = values(config(tiny, taught, tune(3)), chats, trials=6)
    whole, _ = run(recipe, tmp_path / "whole")
    path, folder = tmp_path / "recipe.json", tmp_path / "cut"
    path.write_text(json.dumps(recipe))
    code = ("import json, sys; from pathlib import Path; from tests.train.conftest import run; "
            f"run(json.loads(Path({str(path)!r}).read_text()), Path({str(folder)!r}))")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=settings.ROOT, stderr=subprocess.DEVNULL)
    journal, deadline = folder / evolve.JOURNAL, time.monotonic() + 90
    while not journal.exists() or journal.read_text().count('"number"') < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_text().count("\n")
    assert not list((folder / "output").iterdir())
    again, _ = run(recipe, folder, resume=True)
    assert before < 9 and again["candidates"] == whole["candidates"]


def test_rewards_as_fitness_and_what_does_not_hold(tiny, taught, chats, tmp_path, monkeypatch):
    length = {"name": "length", "unit": "characters", "least": 0, "most": 0, "slope": 200}
    summary, _ = run(values(config(tiny, taught), chats, goal="reward", rewards=[length, {"name": "contains", "weight": 2}],
                            max_new_tokens=8, trials=3, samples=4), tmp_path / "run")
    best = summary["best"]
    assert summary["direction"] == "maximize" and best["value"] == max(one["value"] for one in summary["candidates"])
    fake = iter([1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 4.0, 9.0, 6.0, 7.0])  # parents; start; a candidate that fits its rows alone
    monkeypatch.setattr(evolve.Search, "_scored", lambda self, model, items: next(fake))
    summary, ctx = run(values(config(tiny, taught), chats, trials=3), tmp_path / "fake")
    assert summary["best"]["held_out"] == 9.0
    assert {e["code"] for e in events(ctx.run_dir, "warning")} >= {"overfitted", "parent-better"}


def test_candidates_that_fail_are_told_and_passed_over(tiny, taught, chats, tmp_path, monkeypatch):
    from studio.mergers import running

    real, count = running.merge, [0]

    def sometimes(*args, **more):
        count[0] += 1
        if count[0] == 2:
            raise StudioError("mergekit could not merge these models.")
        return real(*args, **more)

    monkeypatch.setattr(running, "merge", sometimes)
    summary, _ = run(values(config(tiny, taught), chats, trials=4, sampler="random"), tmp_path / "run")
    assert [one["value"] is None for one in summary["candidates"]] == [False, True, False, False]
    assert "could not merge" in summary["candidates"][1]["reason"]


def test_what_is_searched(tiny, taught, tune):
    def found(merge, **more):
        return evolve.axes(parse(values(merge, "shipped:sums", **more)))

    merge = config(tiny, taught, tune(3), weight=[0.1, {"filter": "mlp", "value": 0.5}], parameters={"lambda": 1.0})
    merge["models"][0]["parameters"] = {"weight": [{"filter": "mlp", "value": [0.1, 0.9]}, {"value": 0.5}], "density": 0.5}
    merge["models"][1]["parameters"] = {"weight": 1.5}
    axes = found(merge, search=["weight", "density", "lambda"])
    assert [axis.start for axis in axes] == [1.0, 0.1, 0.9, 0.5, 0.5, 1.5] or [axis.start for axis in axes] == [
        0.1, 0.9, 0.5, 0.5, 1.5, 1.0]
    assert len({axis.name for axis in axes}) == 6 and any("mlp, point 2" in axis.name for axis in axes)
    assert next(axis for axis in axes if axis.start == 1.5).high == 1.5  # the range holds the start
    density = next(axis for axis in axes if axis.name.startswith("density"))
    assert (density.low, density.high) == (0.01, 1)
    curve = found(config(tiny, taught), points=3)
    assert [axis.start for axis in curve] == [0.2] * 3
    recipe = parse(values(config(tiny, taught), "shipped:sums", points=3))
    search = evolve.Search.__new__(evolve.Search)
    search.recipe, search.axes = recipe, curve
    made = search.configured({axis.name: i / 10 for i, axis in enumerate(curve)})
    assert made["models"][0]["parameters"]["weight"] == [0.0, 0.1, 0.2]
    assert recipe.config["models"][0]["parameters"]["weight"] == 0.2


def test_refused_before_the_start(tiny, taught, chats):
    for bad, field, word in [(values({}, chats), "config", "empty"),
                             (values(config(tiny, taught), chats, search=["t"]), "search", "No number"),
                             (values(config(tiny, taught), chats, low=1, high=0.5), "high", "not above"),
                             (values(config(tiny, taught), chats, goal="reward"), "rewards", "No reward"),
                             (values(config(tiny, taught), "nowhere.jsonl"), "dataset", "no dataset"),
                             (values(config(tiny, "starter"), chats), "config", "models")]:
        with pytest.raises(StudioError, match=word) as caught:
            method("merge", "evolve").check(parse(bad))
        assert caught.value.field == field, (field, caught.value)


def test_references_and_estimate(tiny, taught, chats):
    recipe = parse(values(config(tiny, taught), chats))
    assert ("dataset", str(chats), "dataset") in recipe.refers_to() and ("config", str(taught), "model") in recipe.refers_to()
    swapped = recipe.referring({str(taught): "library:a1", str(chats): "library:d1"})
    assert swapped["config"]["models"][0]["model"] == "library:a1" and swapped["dataset"] == "library:d1"
    found = method("merge", "evolve").estimate(recipe)
    assert found.memory > 0 and found.disk > 0 and "6 candidates, 1 numbers" in found.notes[0]
