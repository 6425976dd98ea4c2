"""The leaderboard and ablations over several runs: lineage, cost, which scores compare, exactly the changed fields."""

from __future__ import annotations

import pytest

from studio import api
from studio.errors import StudioError
from studio.recipe import parse
from tests.evals.made import answers, evaluated, finished


def trained(name: str, seconds: float = 100.0, base: str = "starter", parent: str | None = None, tag: str = "", **values) -> tuple[str, str]:
    """(run, reference of its adapter) of a training that was not computed."""
    def work(recipe, ctx):
        (ctx.output / "adapter_config.json").write_text("{}")
        ctx.artifact("adapter", ctx.output, name, {"method": "sft/lora", "parameters": 1000},
                     [(recipe.model, "base"), (recipe.dataset, "data")])
        return {"eval_loss": values.get("learning_rate", 1e-3) * 1000, "seconds": seconds, "device": "cpu"}

    run, [made] = finished({"kind": "sft", "method": "lora", "model": base, "dataset": "shipped:polite", "name": name} | values, work,
                           parent=parent, tag=tag)
    return run, made["ref"]


def test_every_model_with_its_line_its_cost_and_its_newest_score():
    _, first = trained("first", 100)
    _, second = trained("second", 50, base=first)
    trained("never asked", 7)
    evaluated({"starter": "Starter", first: "first"}, {"sums": {"starter": answers([1.0] + [0.0] * 9), first: answers([0.0] * 10)}})
    newest = evaluated({"starter": "Starter", first: "first", second: "second"},
                       {"sums": {"starter": answers([1.0] * 2 + [0.0] * 8), first: answers([1.0] * 5 + [0.0] * 5), second: answers([1.0] * 9 + [0.0])},
                        "long": {"starter": answers([3.0, 4.0], "words"), second: answers([9.0, 9.5], "words")}})
    board = api.leaderboard()
    rows = {row["ref"]: row for row in board["rows"]}
    assert [row["label"] for row in board["rows"]] == ["second", "first", "Starter", "never asked"]
    assert [task["name"] for task in board["tasks"]] == ["sums", "long"] and board["mean_of"] == ["sums"]
    top = rows[second]
    assert top["mean"] == 0.9 and top["scores"]["sums"]["value"] == 0.9 and top["scores"]["sums"]["run"] == newest
    assert [one["label"] for one in top["line"]] == ["Starter", "first"] and top["method"] == "sft/lora"
    assert top["cost"] == {"seconds": 50, "all_seconds": 150, "runs": 2, "device": "cpu"} and top["parameters"] == 1000
    assert {"ref": "shipped:polite", "label": "Polite answers", "role": "data"} in top["parents"]
    assert rows["starter"]["scores"]["sums"] | {"made": 0} == {"value": 0.2, "stderr": pytest.approx(0.1333, abs=1e-3), "n": 10, "run": newest,
        "metric": "exact_match", "settings": rows["starter"]["scores"]["sums"]["settings"], "times": 2, "differs": False, "made": 0}
    assert rows["starter"]["cost"]["seconds"] is None and board["rows"][3]["scores"] == {}
    long = board["tasks"][1]
    assert long["best"] == 9.25 and long["low"] is None and "long" not in board["mean_of"]


def test_scores_measured_otherwise_are_marked():
    evaluated({"starter": "Starter", "x": "X", "y": "Y"}, {"sums": {ref: answers([1.0, 0.0]) for ref in ("starter", "x", "y")}})
    evaluated({"y": "Y"}, {"sums": {"y": answers([1.0] * 4)}}, more={"samples": 4})
    board = api.leaderboard()
    marks = {row["ref"]: row["scores"]["sums"]["differs"] for row in board["rows"]}
    assert marks == {"starter": False, "x": False, "y": True} and board["tasks"][0]["ways"] == 2
    kinds = {row["ref"]: row["kind"] for row in board["rows"]}
    assert kinds["x"] == "path" and kinds["starter"] == "starter"


def test_held_out_sets_of_other_data_are_other_columns():
    for data in ("shipped:polite-heldout", "shipped:sums"):
        evaluated({"starter": "Starter"}, {"heldout": {"starter": answers([1.0, 0.0])}}, more={"dataset": data})
    assert [task["name"] for task in api.leaderboard()["tasks"]] == ["heldout@shipped:polite-heldout", "heldout@shipped:sums"]


def test_a_deleted_model_keeps_its_score_and_its_name():
    run, ref = trained("gone soon")
    evaluated({ref: "gone soon"}, {"sums": {ref: answers([1.0])}})
    api.delete(ref.removeprefix("library:"))
    row = next(row for row in api.leaderboard()["rows"] if row["ref"] == ref)
    assert row["label"] == "gone soon" and row["kind"] == "deleted" and row["scores"]["sums"]["value"] == 1.0
    assert run


def test_an_empty_workspace_has_the_starter_alone():
    board = api.leaderboard()
    assert [row["ref"] for row in board["rows"]] == ["starter"] and board["tasks"] == [] and board["mean_of"] == []


def test_on_a_space_each_sees_their_own(monkeypatch):
    evaluated({"starter": "Starter"}, {"sums": {"starter": answers([1.0])}}, owner="ann")
    monkeypatch.setenv("SPACE_ID", "a/b")
    assert api.leaderboard("ann")["tasks"] and not api.leaderboard("ben")["tasks"] and not api.leaderboard(None)["tasks"]


def test_ablation_names_exactly_what_changed():
    runs, refs = zip(*[trained(name, **values) for name, values in (
        ("plain", {}), ("faster", {"learning_rate": 5e-4}), ("wider", {"learning_rate": 5e-4, "r": 32}))], strict=True)
    right = {refs[0]: [1.0] * 20 + [0.0] * 20, refs[1]: [1.0] * 34 + [0.0] * 6, refs[2]: [1.0] * 33 + [0.0] * 7}
    evaluated(dict(zip(refs, ("plain", "faster", "wider"), strict=True)), {"sums": {ref: answers(one) for ref, one in right.items()}})
    told = api.ablation(list(runs))
    assert [entry["label"] for entry in told["entries"]] == ["plain", "faster", "wider"]
    usual = parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite"})
    assert {field["name"]: field["values"] for field in told["fields"]} == {
        "learning_rate": [usual.learning_rate, 5e-4, 5e-4], "r": [usual.r, usual.r, 32]}
    score = next(one for one in told["scores"] if one["task"] == "sums")
    assert [value["value"] for value in score["values"]] == [0.5, 0.85, 0.825] and score["best"] == 1
    assert score["values"][1]["delta"] == pytest.approx(0.35) and score["values"][1]["sure"] and score["values"][1]["low"] > 0.15
    own = {one["metric"]: one["values"] for one in told["scores"] if one["task"] == ""}
    assert own["eval_loss"][1]["value"] == 0.5 and own["seconds"][0]["value"] == 100
    pairs = {(effect["a"], effect["b"]): effect for effect in told["effects"]}
    assert {key: effect["field"] for key, effect in pairs.items()} == {(0, 1): "learning_rate", (1, 2): "r"}
    assert pairs[1, 2]["to"] == 32 and not next(s for s in pairs[1, 2]["scores"] if s["task"] == "sums")["sure"]


def test_ablation_across_methods_and_data():
    lora, _ = trained("lora")
    full, _ = finished({"kind": "sft", "method": "full", "dataset": "shipped:sums"}, lambda recipe, ctx: {"eval_loss": 1.0})
    told = api.ablation([lora, full])
    names = {field["name"]: field["values"] for field in told["fields"]}
    assert names["method"] == ["lora", "full"] and names["dataset"] == ["shipped:polite", "shipped:sums"]
    assert names["r"][1] is None, "a field that the other method does not have"
    assert not any(score["metric"] == "eval_loss" for score in told["scores"]), "losses on other data do not compare"


def test_the_models_of_an_evaluation_are_entries_and_a_sweep_its_trials():
    run = evaluated({"starter": "Starter", "x": "X"}, {"sums": {"starter": answers([1.0, 0.0]), "x": answers([0.0, 0.0])}})
    told = api.ablation([run])
    assert [field["name"] for field in told["fields"]] == ["model"] and told["effects"][0]["field"] == "model"
    assert told["scores"][0]["values"][1]["worse"] and not told["scores"][0]["values"][1]["sure"]
    sweep, _ = finished({"kind": "sweep", "method": "grid", "recipe": {"kind": "sft", "method": "lora", "dataset": "shipped:polite"},
                         "space": [{"field": "learning_rate", "values": [1e-3, 2e-3]}]}, lambda recipe, ctx: {})
    for number, rate in enumerate((1e-3, 2e-3)):
        trained(f"t{number}", learning_rate=rate, parent=sweep, tag=f"trial {number + 1}")
    told = api.ablation([sweep])
    assert [entry["label"] for entry in told["entries"]] == ["trial 1", "trial 2"]
    assert [field["name"] for field in told["fields"]] == ["learning_rate"]
    with pytest.raises(StudioError, match="at least two"):
        api.ablation([trained("alone")[0]])


def test_columns_that_were_judged_are_no_models():
    evaluated({"starter": "Starter", "column:chosen": "chosen"}, {"sums": {ref: answers([1.0, 0.0]) for ref in ("starter", "column:chosen")}})
    assert [row["ref"] for row in api.leaderboard()["rows"]] == ["starter"]
