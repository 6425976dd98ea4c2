"""What the page shows of an evaluation: scores while it goes on and after, answers by every filter, held-out rows cut as in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio import api, settings
from studio.errors import StudioError
from studio.evals import browse, held_out
from studio.evals.results import LOSS, SHARE, Results, Sample
from studio.jobs import store
from studio.recipe import parse

ASKED = {"kind": "eval", "method": "compare", "models": ["starter", "hub:a/b"], "dataset": "shipped:polite-heldout"}
# question -> is it right, by model
SUMS = {"a": (1.0, 0.0), "b": (1.0, 1.0), "c": (0.0, 1.0), "d": (0.0, 0.0), "e": (1.0, 0.0)}


class Context:
    """As much of a run's context as ``Results`` needs."""

    def __init__(self, run: str):
        self.run_dir = settings.run_dir(run)
        self.output = self.run_dir / "output"
        self.output.mkdir(parents=True, exist_ok=True)

    def metric(self, step: int, values: dict) -> None: ...
    def log(self, text: str) -> None: ...
    def sample(self, step: int, prompt: str, text: str, label: str) -> None: ...
    def artifact(self, *about) -> None: ...


def submitted(values: dict = ASKED, owner: str | None = None) -> str:
    return store.submit(parse(values), owner)["id"]


def answered(run: str, models: int = 2, finish: bool = True) -> Results:
    made = Results(Context(run), parse(ASKED))
    for number, ref in enumerate(["starter", "hub:a/b"][:models]):
        made.model(ref, ["Starter", "Other"][number])
        made.task("sums", "Sums", main="exact_match", metrics={"exact_match": SHARE})
        made.task("words", "Words", main="perplexity", metrics={"perplexity": LOSS, "loss": LOSS})
        made.add(number, "sums", [Sample(id, f"What is {id}?", "yes" if right[number] else "No idea", "yes", {"exact_match": right[number]},
                                         {"topic": "one" if id < "c" else "two"}) for id, right in SUMS.items()])
        made.add(number, "words", [Sample(str(n), f"text {n}", "", "", {"loss": n / 10 + number * (1 if n else -1)}) for n in range(3)],
                 {"perplexity": (9.5, None)})
    if finish:
        made.finish()
    return made


def test_scores_are_there_while_it_goes_on_and_after(home: Path) -> None:
    run = submitted()
    assert api.eval_results(run) == {"method": "eval/compare", "models": [], "tasks": {}, "scores": [], "facts": {}, "whole": False,
                                     "answers": False}
    answered(run, models=1, finish=False)
    found = api.eval_results(run)
    assert (found["whole"], found["answers"], [one["label"] for one in found["models"]]) == (False, True, ["Starter"])
    assert {(one["task"], one["metric"]): one["value"] for one in found["scores"]} == \
        {("sums", "exact_match"): 0.6, ("words", "perplexity"): 9.5, ("words", "loss"): pytest.approx(0.1)}
    assert api.eval_samples(run)["total"] == 5, "answers of the finished pairs can be read at once"
    answered(run)
    found = api.eval_results(run)
    assert found["whole"] and len(found["scores"]) == 6 and found["tasks"]["sums"]["title"] == "Sums"
    assert api.eval_samples(run)["models"] == [0, 1]


@pytest.mark.parametrize(("filters", "expected"), [
    ({}, "abcde"), ({"where": "right"}, "abce"), ({"where": "wrong"}, "acde"), ({"where": "wrong", "models": [0]}, "cd"),
    ({"where": "worse"}, "ae"), ({"where": "better"}, "c"), ({"where": "flips"}, "ace"), ({"where": "worse", "models": [1, 0]}, "c"),
    ({"tag": "topic=two"}, "cde"), ({"text": "WHAT IS B"}, "b"), ({"text": "idea", "models": [0]}, "cd"),
    ({"tag": "topic=two", "where": "flips"}, "ce"), ({"offset": 3, "limit": 2}, "de"), ({"order": "worst", "models": [0], "limit": 2}, "cd"),
])
def test_answers_are_filtered(home: Path, filters: dict, expected: str) -> None:
    run = submitted()
    answered(run)
    assert "".join(row["id"] for row in api.eval_samples(run, task="sums", **filters)["rows"]) == expected


def test_answers_stand_side_by_side(home: Path) -> None:
    run = submitted()
    answered(run)
    found = api.eval_samples(run, task="sums", where="worse", limit=1)
    assert found["total"] == 2 and found["binary"] and found["metric"] == "exact_match" and found["asked"] == ["sums", "words"]
    assert found["counts"] == {"all": 5, "right": 4, "wrong": 4, "worse": 2, "better": 1, "flips": 3}
    assert found["tags"] == {"topic": {"two": 3, "one": 2}}
    (row,) = found["rows"]
    assert (row["prompt"], row["target"], [(one["answer"], one["right"]) for one in row["answers"]]) == \
        ("What is a?", "yes", [("yes", True), ("No idea", False)])
    words = api.eval_samples(run, task="words", order="change")
    assert (words["metric"], words["binary"], words["higher"]) == ("loss", False, False), "what is of the whole cannot tell answers apart"
    assert [row["id"] for row in api.eval_samples(run, task="words", where="better")["rows"]] == ["0"]


def test_what_is_not_there_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = submitted()
    answered(run)
    for wrong, field in (({"task": "nothing"}, "task"), ({"models": [2]}, "models"), ({"where": "bad"}, "where")):
        with pytest.raises(StudioError) as refused:
            api.eval_samples(run, **wrong)
        assert refused.value.field == field
    theirs = submitted(owner="ada")
    answered(theirs)
    with pytest.raises(StudioError):
        api.eval_results(theirs, owner="bob")
    assert api.eval_results(theirs, owner="ada")["whole"] and [one["id"] for one in api.eval_runs("ada")] == [theirs]


def test_tasks_with_long_names_do_not_share_a_file(home: Path) -> None:
    run, long = submitted(), "folder/" * 20
    made = Results(Context(run), parse(ASKED))
    made.model("starter", "Starter")
    for name in (f"{long}one", f"{long}two"):
        made.task(name, name, main="acc", metrics={"acc": SHARE})
        assert not made.finished(0, name)
        made.add(0, name, [Sample("1", "p", "a", "", {"acc": float(name.endswith("one"))})])
    assert [one["value"] for one in browse.figures(store.get(run))["scores"]] == [1.0, 0.0]


def test_a_table_of_before_is_still_shown(home: Path) -> None:
    row = {"id": submitted(), "kind": "eval", "method": "compare", "state": "succeeded", "summary": {"samples": 10, "table": [
        {"model": "starter", "label": "Starter", "perplexity": 3.5, "exact": 0.25, "exact_stderr": 0.1, "tokens_per_second": 9.0}]}}
    found = browse.figures(row)
    assert [(one["metric"], one["value"], one["stderr"]) for one in found["scores"]] == [("perplexity", 3.5, None), ("exact", 0.25, 0.1)]
    assert found["tasks"]["heldout"]["metrics"]["perplexity"] == {"higher_is_better": False}


@pytest.mark.parametrize(("values", "kind"), [
    ({"kind": "sft", "method": "lora", "dataset": "shipped:sums", "eval_share": 0.1}, "share"),
    ({"kind": "align", "method": "dpo", "dataset": "shipped:preferences", "eval_share": 0.2}, "share"),
    ({"kind": "sft", "method": "lora", "dataset": "shipped:sums", "eval_dataset": "shipped:polite-heldout"}, "own"),
    ({"kind": "sft", "method": "lora", "dataset": "shipped:sums", "eval_share": 0.0}, None),
])
def test_held_out_rows_are_those_of_the_training(home: Path, values: dict, kind: str | None) -> None:
    recipe = parse(values)
    found = held_out.of_run({"id": submitted(values), "kind": values["kind"], "recipe": recipe.to_dict()})
    if kind != "share":
        assert found == (kind and {"ref": "shipped:polite-heldout", "kind": kind, "rows": None})
        return
    kept = [json.loads(line) for line in (home / found["ref"]).read_text("utf-8").splitlines()]
    if values["kind"] == "sft":
        from studio.trainers import data

        train, held, _ = data.read(recipe)
    else:
        from studio.aligners import data

        both = data.read(recipe, "pairs")
        train, held = both.train, both.held
    assert kept == held and found["rows"] == len(kept) > 1
    assert not {json.dumps(row, sort_keys=True) for row in kept} & {json.dumps(row, sort_keys=True) for row in train}
    assert api.inspect(found["ref"])["rows"] == len(kept), "it can be chosen as a dataset"


def test_what_a_model_is_compared_with(home: Path, tiny: Path) -> None:
    from studio.library import artifacts

    run = submitted({"kind": "sft", "method": "full", "dataset": "shipped:sums", "model": str(tiny)})
    one = artifacts.add("model", "Tuned", tiny, run_id=run, made_from=[("starter", "base"), ("shipped:sums", "data")])
    found = api.eval_against(one["ref"])
    assert (found["model"]["label"], found["bases"]) == ("Tuned", [{"ref": "starter", "label": "Starter"}])
    assert found["held_out"]["kind"] == "share" and not found["note"]
