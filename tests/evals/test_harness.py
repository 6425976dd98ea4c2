"""Benchmarks: resumed and stopped runs, the suite, refusals in plain words, held-out rows, and what no task may do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from studio import settings
from studio.errors import StudioError
from studio.evals import compare, suite, tasks
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import events, run


def values(models: list, names: list[str], **more) -> dict:
    return {"kind": "eval", "method": "harness", "models": [str(m) for m in models], "tasks": names, "limit": 6, "batch_size": 4} | more


def answers(ctx) -> list[dict]:
    return [json.loads(line) for line in (ctx.output / "samples.jsonl").open()]


def write_task(folder: Path, name: str, rows: list[dict], **more) -> Path:
    """A task as a person would write it: YAML beside a JSONL file, places relative to it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}}, "test_split": "test",
             "output_type": "generate_until", "doc_to_text": "question", "doc_to_target": "answer",
             "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
             "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]} | more
    (folder / f"{name}.yaml").write_text(json.dumps(lines).replace('"!function ', '!function "').replace("!function", "!function"))
    return folder / f"{name}.yaml"


ROWS = [{"question": f"What is {a} + 1?", "answer": f"{a} + 1 is {a + 1}."} for a in range(8)]


def test_the_suite_is_made_by_its_script_and_held_out():
    for name, text in suite.files().items():
        assert (tasks.SUITE / name).read_text("utf-8") == text, f"python -m studio.evals.suite was not run after a change of {name}"
    facts = [json.loads(line) for line in (tasks.SUITE / "facts.jsonl").open()]
    assert all(len(set(row["options"])) == 4 for row in facts)
    assert len({row["answer"] for row in facts}) == 4 and len({row["id"] for row in facts}) == len(facts)


def test_the_catalogue_tells_what_there_is(home):
    folder = home / "benchmarks" / "mine"
    write_task(folder, "mine", ROWS, metadata={"title": "Mine", "owner": "ann"})
    found = {line["name"]: line for line in tasks.catalogue()}
    assert found["suite:facts"] | {"kind": "choice", "items": 120, "source": "suite", "main": "acc"} == found["suite:facts"]
    assert found["bench:mine"] | {"title": "Mine", "kind": "text", "items": 8, "source": "own", "main": "exact_match"} == found["bench:mine"]
    assert found["suite:world"]["kind"] == "loss" and found["gsm8k"]["source"] == "harness"
    assert folder in tasks.places()
    assert "bench:mine" not in {line["name"] for line in tasks.catalogue("bob")}
    with pytest.raises(StudioError, match="no task"):
        tasks.find("bench:mine", "bob")


def test_a_stopped_run_keeps_what_was_whole(tiny, tmp_path):
    names = ["suite:facts", "suite:rules"]
    whole, _ = run(values([tiny, "starter"], names), tmp_path / "whole")
    stopped, ctx = run(values([tiny, "starter"], names), tmp_path / "cut", stop_at=8)
    done = [key for line in stopped["table"] for key in line if key.endswith("/acc") or key.endswith("/followed")]
    assert done == ["suite:facts/acc"]
    kept = next((ctx.run_dir / "evaluated").glob("*.json"))
    stamp = kept.stat().st_mtime_ns
    again, ctx = run(values([tiny, "starter"], names), tmp_path / "cut", resume=True)
    assert again["table"] == whole["table"] and kept.stat().st_mtime_ns == stamp
    assert again["tasks"]["suite:rules"]["metrics"]["followed"]["high"] == 1.0
    asked = answers(ctx)
    assert [(one["model"], one["id"]) for one in asked if one["task"] == "suite:rules"] == [
        (model, f"rules-{i}") for model in (0, 1) for i in range(6)]
    assert all(one["tags"] and one["scores"] for one in asked)


def test_a_stop_does_not_wait_for_an_answer(tiny, tmp_path, monkeypatch):
    from studio.jobs.context import Context

    looked = []
    monkeypatch.setattr(Context, "stop_requested", property(lambda self: looked.append(1) or len(looked) > 120))
    made, ctx = run(values([tiny], ["suite:counting"], max_gen_toks=900, gen_kwargs={"min_new_tokens": 900, "until": ["§§"]}), tmp_path / "run")
    assert made["table"] == [] and not ctx.artifacts and len(looked) < 140


@pytest.mark.parametrize(("name", "word", "hint"), [
    ("suite:fact", "no task 'suite:fact'", "suite:facts"), ("bench:none", "no task", ""), ("my/tasks", "no task at", "YAML"),
    ("no such", "not the name", "list"), ("bench:../x", "no task", "")])
def test_unknown_tasks_are_refused_before_the_start(name, word, hint, home):
    with pytest.raises(StudioError, match=word) as caught:
        method("eval", "harness").check(parse(values(["starter"], [name])))
    assert caught.value.field == "tasks" and hint in caught.value.hint


def test_tasks_of_others_stay_theirs(home, monkeypatch):
    from studio import api

    monkeypatch.setenv("ATELIER_SHARED", "1")
    path = write_task(home / "uploads" / "ann", "hers", ROWS)
    coded = write_task(home / "uploads" / "ann", "coded", ROWS, process_results="!function os.system")
    assert tasks.find(str(path), "ann")[0].name == "hers"
    monkeypatch.setattr("studio.api.recipes.scope", lambda owner: owner)
    with pytest.raises(StudioError, match="that you may use"):
        api.recipes.checked(values(["starter"], [str(path)]), "bob")
    with pytest.raises(StudioError, match="off where others"):
        api.recipes.checked(values(["starter"], [str(coded)], trust_remote_code=True), "ann")
    with pytest.raises(StudioError, match="outside the workspace"):
        method("eval", "harness").check(parse(values(["starter"], ["/etc/tasks.yaml"])))


def test_a_task_without_data_is_named(home, tmp_path):
    empty = write_task(home / "tasks" / "a", "empty", [])
    with pytest.raises(StudioError, match="empty has no question") as caught:
        run(values(["starter"], [str(empty)]), tmp_path / "one")
    assert caught.value.field == "tasks"
    gone = write_task(home / "tasks" / "b", "gone", ROWS)
    (gone.parent / "rows.jsonl").unlink()
    with pytest.raises(StudioError, match="gone"):
        run(values(["starter"], [str(gone)]), tmp_path / "two")
    broken = write_task(home / "tasks" / "c", "broken", ROWS, doc_to_text="{{nothing}}")
    with pytest.raises(StudioError, match="broken cannot be loaded.*nothing"):
        run(values(["starter"], [str(broken)]), tmp_path / "three")


def test_a_folder_of_tasks_works_wherever_it_lies(home, tmp_path):
    write_task(home / "tasks", "one", ROWS)
    summary, ctx = run(values(["starter"], ["tasks"]), tmp_path / "run")
    [line] = summary["table"]
    assert line["one/exact_match"] > 0.5 and answers(ctx)[0]["target"] == "0 + 1 is 1."


def test_a_template_cannot_reach_out_of_itself(home, tmp_path):
    bad = write_task(home / "tasks", "bad", ROWS, doc_to_text="{{ question.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(StudioError, match="unsafe"):
        run(values(["starter"], [str(bad)]), tmp_path / "run")


def test_code_of_a_task_is_asked_for(home, tmp_path):
    path = write_task(home / "tasks", "own", ROWS, process_results="!function scoring.score")
    path.with_name("scoring.py").write_text("def score(doc, results):\n    return {'exact_match': 0.25}\n")
    with pytest.raises(StudioError, match="Python code") as caught:
        method("eval", "harness").check(parse(values(["starter"], [str(path)])))
    assert caught.value.field == "trust_remote_code"
    summary, _ = run(values(["starter"], [str(path)], trust_remote_code=True), tmp_path / "run")
    assert summary["table"][0]["own/exact_match"] == 0.25


def test_programs_run_in_the_sandbox_alone(home, tmp_path):
    rows = [{"question": f"What is {a} + 1?", "answer": "assert open('/etc/hostname')" if a else "assert True"} for a in range(2)]
    path = write_task(home / "tasks", "programs", rows, unsafe_code=True, process_results="!function scoring.score",
                      metric_list=[{"metric": "pass@1", "aggregation": "mean", "higher_is_better": True}])
    path.with_name("scoring.py").write_text(
        "import evaluate\ncode = evaluate.load('code_eval')\n\n\ndef score(doc, results):\n"
        "    return code.compute(references=[doc['answer']], predictions=[['x = 1']], k=[1])[0]\n")
    with pytest.raises(StudioError) as caught:
        run(values(["starter"], [str(path)], trust_remote_code=True), tmp_path / "one")
    assert caught.value.field == "confirm_run_unsafe_code"
    _, ctx = run(values(["starter"], [str(path)], trust_remote_code=True, confirm_run_unsafe_code=True), tmp_path / "two")
    assert [one["scores"]["pass@1"] for one in answers(ctx)] == [1.0, 0.0]


def test_a_short_context_is_told(tmp_path):
    _, ctx = run(values(["starter"], ["suite:reading"], max_length=28, max_gen_toks=8), tmp_path / "one")
    [warning] = [e for e in events(ctx.run_dir, "warning") if e["code"] == "cut"]
    assert "of 6 prompts" in warning["message"]
    with pytest.raises(StudioError, match="do not fit") as caught:
        run(values(["starter"], ["suite:reading"], max_length=40), tmp_path / "two")
    assert caught.value.field == "max_gen_toks"
    with pytest.raises(StudioError, match="does not fit") as caught:
        run(values(["starter"], ["suite:facts"], max_length=8, num_fewshot=0), tmp_path / "three")
    assert caught.value.field == "max_length"


def test_held_out_rows_are_measured_as_in_the_small_comparison(chats, tmp_path):
    summary, ctx = run(values(["starter"], [], dataset=str(chats), rewards=[{"name": "exact"}], max_gen_toks=16, random_seed=42),
                       tmp_path / "one")
    small, _ = run({"kind": "eval", "method": "compare", "models": ["starter"], "dataset": str(chats), "samples": 6,
                    "rewards": [{"name": "exact"}], "max_new_tokens": 16}, tmp_path / "two")
    [mine], [theirs] = summary["table"], small["table"]
    for name in ("loss", "perplexity", "bits_per_byte", "exact"):
        assert mine[f"heldout/{name}"] == pytest.approx(theirs[name], rel=1e-4)
    assert mine["heldout/loss_stderr"] > 0 and summary["tasks"]["heldout"]["main"] == "loss"
    assert len(answers(ctx)) == 6 and ctx.artifacts[0]["parents"][-1] == {"ref": str(chats), "role": "data"}


def test_the_error_of_a_loss_is_that_of_a_ratio():
    made = compare.Scores(losses=[4.0, 9.0, 2.0, 7.0], tokens=[2, 3, 2, 3], bytes=40)
    loss, error = made.figures()["loss"]
    assert loss == pytest.approx(2.2)
    apart = sum((lost - 2.2 * n) ** 2 for lost, n in zip(made.losses, made.tokens, strict=True))
    assert error == pytest.approx((apart * 4 / 3) ** 0.5 / 10)


def test_a_model_without_a_template_is_asked_plainly(tiny, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny, bare)
    (bare / "chat_template.jinja").unlink()
    _, ctx = run(values([bare, tiny], ["suite:facts"]), tmp_path / "run")
    assert [e["code"] for e in events(ctx.run_dir, "warning")] == ["no-template"]
    first, second = (next(one for one in answers(ctx) if one["model"] == number) for number in (0, 1))
    assert first["id"] == second["id"] and "im_start" not in first["prompt"] and "im_start" in second["prompt"]


def test_options_that_share_their_context_are_the_librarys_numbers(tmp_path, monkeypatch):
    from studio.evals.lm_local import Local

    def likelihoods(name: str) -> list[float]:
        _, ctx = run(values(["starter"], ["suite:facts", "suite:spelling"], num_fewshot=1, limit=10), tmp_path / name)
        return [value for one in answers(ctx) for _, value in one["more"]["options"]]

    shared = likelihoods("shared")
    called = []
    together = Local._together
    monkeypatch.setattr(Local, "_together", lambda self, requests, batch: (called.append(1), {
        place: (value + 1.0, same) for place, (value, same) in together(self, requests, batch).items()})[1])
    doubted = likelihoods("doubted")  # wrong numbers are noticed at the first batch, and the library's way is taken
    assert len(called) == 1 and shared == pytest.approx(doubted, abs=1e-3) and len(shared) == 80


def test_refusals_and_estimate(home, tiny):
    harness = method("eval", "harness")
    for models, word in (([], "No model"), (["starter", "starter"], "twice"), (["library:gone"], "nothing called"),
                         (["http://user:secret@host/v1"], "must not hold")):
        with pytest.raises(StudioError, match=word) as caught:
            harness.check(parse(values(models, ["suite:facts"])))
        assert caught.value.field == "models"
    with pytest.raises(StudioError, match="No task"):
        harness.check(parse(values(["starter"], [])))
    found = harness.estimate(parse(values([tiny, "starter"], ["suite:facts", "suite:world"])))
    assert found.memory > 0 and "12 questions for each of 2 models." in found.notes
    assert settings.STARTER.is_dir()
