"""Sweeps without runs: what a space may be, what is suggested, what it will take."""

from __future__ import annotations

import itertools

import pytest

from studio import api
from studio.errors import StudioError
from studio.recipe import parse
from studio.registry import method
from studio.sweeps import space
from studio.sweeps.common import metric_of
from studio.sweeps.trials import Trial, number_of, tag, was_pruned

BASE = {"kind": "sft", "method": "lora", "dataset": "shipped:polite", "max_steps": 20}
GRID = [{"field": "learning_rate", "values": [1e-3, 3e-3]}, {"field": "r", "values": [4, 8, 16]},
        {"field": "use_rslora", "values": [False, True]}]
RANGES = [{"field": "learning_rate", "low": 1e-5, "high": 1e-2, "log": True}, {"field": "r", "low": 4, "high": 64, "step": 4},
          {"field": "lora_dropout", "low": 0.0, "high": 0.5}, {"field": "bf16", "values": ["on", "off"]}]


def sweep(name: str = "grid", lines: list | None = None, **more):
    return parse({"kind": "sweep", "method": name, "recipe": BASE, "space": GRID if lines is None else lines, **more})


def drawn(recipe, count: int) -> list[dict]:
    """What a sweep suggests when nothing is known of the trials before but their settings."""
    import optuna

    made, study = method("sweep", recipe.method), optuna.create_study()
    axes, found = made.axes(recipe), []
    for number in range(count):
        found.append(made.suggest(study, recipe, axes, number, found).params)
    return found


@pytest.mark.parametrize(("lines", "said"), [
    ([], "at least one setting"),
    ([{"values": [1]}], "names a field"),
    ([{"field": "lerning_rate", "values": [1]}], "no setting of sft/lora"),
    ([{"field": "name", "values": ["a"]}], "no setting"), ([{"field": "extra", "values": [{}]}], "no setting"),
    ([{"field": "r", "values": [8], "low": 1}], "values and a range"), ([{"field": "r", "vals": [8]}], "'vals' means nothing"),
    ([{"field": "r", "values": []}], "no values"), ([{"field": "r", "values": 8}], "no values"),
    ([{"field": "r", "values": list(range(1, 60))}], "at most 50"), ([{"field": "r", "values": [0]}], "at least 1"),
    ([{"field": "r", "values": [8.5]}], "whole number"), ([{"field": "r", "values": [[8]]}], "a number, a word"),
    ([{"field": "r", "low": 4}], "a low and a high"), ([{"field": "r", "low": 8, "high": 8}], "not below"),
    ([{"field": "r", "low": 4, "high": 5000}], "at most 1024"), ([{"field": "r", "low": 4, "high": 8, "step": 0.5}], "whole"),
    ([{"field": "r", "low": 4, "high": 8, "step": 9}], "step must"), ([{"field": "bf16", "low": 0, "high": 1}], "no number"),
    ([{"field": "lora_dropout", "low": 0, "high": 0.5, "log": True}], "cannot begin at 0"),
    ([{"field": "r", "low": 4, "high": 64, "step": 4, "log": True}], "a step and a log"),
    ([{"field": "optim", "values": ["adamm"]}], "optim = adamm"),
    ([{"field": "r", "values": [4]}, {"field": "r", "values": [8]}], "varied twice")])
def test_a_space_that_does_not_fit_is_refused_at_its_field(lines, said):
    found = api.validate(sweep(lines=[{"field": "r", "values": [4]}]).to_dict() | {"space": lines})
    assert list(found["errors"]) == ["space"] and said in found["errors"]["space"], found


@pytest.mark.parametrize(("base", "said"), [
    ({}, "needs a recipe"), ({"kind": "data", "method": "dedup"}, "must be of the kind"), ({"kind": "sft"}, "kind and method"),
    (BASE | {"learning_rate": 7}, "learning_rate: Must be at most 1"), (BASE | {"nonsense": 1}, "no such field")])
def test_a_base_recipe_that_cannot_run_is_refused(base, said):
    found = api.validate({"kind": "sweep", "method": "grid", "recipe": base, "space": GRID})
    assert said in found["errors"]["recipe"], found


def test_what_the_method_refuses_is_refused_before_the_start(home):
    found = api.validate(sweep(lines=[{"field": "max_length", "values": [64, 100_000]}]).to_dict())
    assert found["errors"]["space"].startswith("max_length = 100000:")
    found = api.validate(sweep(lines=[{"field": "dataset", "values": ["shipped:nothing"]}]).to_dict())
    assert found["errors"]["space"].startswith("dataset = shipped:nothing:")


def test_a_grid_is_every_combination_once_in_order(home):
    recipe = sweep()
    assert api.validate(recipe.to_dict())["ok"]
    found = drawn(recipe, 12)
    assert [tuple(one.values()) for one in found] == list(itertools.product([1e-3, 3e-3], [4, 8, 16], [False, True]))
    assert method("sweep", "grid").total(recipe, space.axes(parse(BASE), GRID)) == 12
    assert "12 combinations" in api.validate(recipe.to_dict() | {"trials": 11})["errors"]["trials"]
    steps = [{"field": "r", "low": 4, "high": 10, "step": 2}, {"field": "lora_dropout", "low": 0, "high": 0.3, "step": 0.1}]
    assert [axis.listed() for axis in space.axes(parse(BASE), steps)] == [[4, 6, 8, 10], [0.0, 0.1, 0.2, 0.3]]
    assert "no end" in api.validate(sweep(lines=RANGES).to_dict())["errors"]["space"]


@pytest.mark.parametrize("name", ["random", "bayes"])
def test_suggestions_keep_to_the_space_and_depend_on_the_seed_alone(name):
    found = drawn(sweep(name, RANGES), 12)
    for one in found:
        assert 1e-5 <= one["learning_rate"] <= 1e-2 and one["r"] in range(4, 65, 4)
        assert 0 <= one["lora_dropout"] <= 0.5 and one["bf16"] in ("on", "off")
        parse(BASE | one)
    assert min(one["learning_rate"] for one in found) < 1e-4 < 1e-3 < max(one["learning_rate"] for one in found), "log scale"
    assert found == drawn(sweep(name, RANGES), 12) != drawn(sweep(name, RANGES, seed=7), 12)


def test_a_small_space_is_drawn_without_repeats():
    recipe = sweep("random", GRID, trials=50)
    total = method("sweep", "random").total(recipe, space.axes(parse(BASE), GRID))
    found = drawn(recipe, total)
    assert total == 12 and len({tuple(one.items()) for one in found}) == 12


def test_guided_search_goes_where_it_is_good():
    """After trials that were good near 1e-3 alone, what it suggests lies nearer to that than chance."""
    import math

    import optuna

    recipe = sweep("bayes", RANGES[:1], trials=40, n_startup_trials=5)
    made, study = method("sweep", "bayes"), optuna.create_study()
    axes, found = made.axes(recipe), []
    for number in range(30):
        trial = made.suggest(study, recipe, axes, number, found)
        found.append(trial.params)
        study.tell(trial, abs(math.log10(trial.params["learning_rate"]) + 3))
    off = [abs(math.log10(one["learning_rate"]) + 3) for one in found]
    assert sum(off[20:]) / 10 < 0.5 * sum(off[:5]) / 5


def test_the_metric_is_decided_by_what_the_base_recipe_validates():
    assert metric_of(sweep()) == ("eval_loss", "minimize")
    blind = parse(sweep().to_dict() | {"recipe": BASE | {"eval_share": 0.0}})
    assert metric_of(blind) == ("loss", "minimize")
    assert metric_of(sweep(metric="eval_rewards/accuracies"))[1] == "maximize"
    assert metric_of(sweep(metric="eval_rewards/accuracies", direction="minimize"))[1] == "minimize"


def test_the_estimate_is_that_of_its_trials(home):
    one = api.validate(BASE)["estimate"]
    whole = api.validate(sweep(lines=[{"field": "seed", "values": [1, 2, 3]}]).to_dict())["estimate"]
    assert whole["steps"] == 3 * one["steps"] and whole["memory"] == one["memory"]
    assert whole["seconds"] == pytest.approx(3 * one["seconds"]) and whole["disk"] == pytest.approx(3 * one["disk"], rel=0.01)
    longer = api.validate(sweep(lines=[{"field": "max_steps", "values": [20, 60]}]).to_dict())["estimate"]
    assert longer["steps"] == 80


def test_tags_name_trials():
    assert number_of({"tag": tag(4)}) == number_of({"tag": f"{tag(4)} pruned"}) == 4
    assert was_pruned({"tag": "trial 1 pruned", "state": "stopped"})
    assert not was_pruned({"tag": "trial 1 pruned", "state": "succeeded"}), "it was quicker than the stop"


def test_a_trial_reads_its_curve_as_it_grows_and_takes_a_resume_back(home):
    from studio import settings
    from studio.jobs import events

    folder = settings.run_dir("rabcdefghij")
    folder.mkdir(parents=True)
    path = folder / "events.jsonl"
    trial = Trial(0, "rabcdefghij", {}, None, "loss", upwards=False)
    events.append(path, "metric", step=1, values={"loss": 3.0})
    events.append(path, "metric", step=2, values={"loss": float("nan"), "epoch": 1})
    trial.read()
    assert (trial.best, len(trial.points)) == (3.0, 2)
    events.append(path, "metric", step=3, values={"loss": 1.0})
    events.append(path, "resume", step=2)
    events.append(path, "metric", step=3, values={"loss": 2.0})
    trial.read()
    assert trial.best == 2.0 and trial.points[-1] == (3, 2.0) and trial.names == {"loss", "epoch"}


def test_another_persons_model_cannot_be_swept_over(home, monkeypatch):
    from studio.library import artifacts

    monkeypatch.setenv("SPACE_ID", "a/b")
    path = home / "uploads"
    path.mkdir()
    (path / "x.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    made = artifacts.add("dataset", "x", path / "x.jsonl", owner="ann")
    lines = [{"field": "dataset", "values": ["shipped:polite", made["ref"]]}]
    from studio.api.recipes import checked
    with pytest.raises(StudioError) as err:
        checked(sweep(lines=lines).to_dict(), "bob")
    assert err.value.field == "dataset"


def test_the_page_is_told_what_can_be_varied():
    found = api.sweep_fields("sft", "lora")
    names = {one["name"] for one in found["fields"]}
    assert {"learning_rate", "r", "bf16", "use_dora", "optim", "dataset"} <= names and not names & {"name", "extra"}
    assert {"trials", "parallel", "pruner", "metric"} <= {one["name"] for one in found["settings"]}


def test_the_presets_would_start(home):
    found = api.presets("sweep")
    assert {preset["name"] for preset in found} == {"rate-and-rank", "guided"}
    for preset in found:
        told = api.validate(preset["values"])
        assert told["ok"] and told["estimate"]["seconds"] > 0, told


def test_a_recipe_file_names_data_beside_it(tmp_path):
    from studio.commands.common import read_recipe

    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "sweep.yaml").write_text("kind: sweep\nmethod: grid\nrecipe: {kind: sft, method: lora, dataset: mine.jsonl}\n"
                                         "space: [{field: r, values: [4, 8]}]\n")
    values = read_recipe(str(tmp_path / "sweep.yaml"), ["trials=4", "recipe.max_steps=2"])
    assert values["recipe"]["dataset"] == str(tmp_path / "mine.jsonl") and values["recipe"]["max_steps"] == 2
