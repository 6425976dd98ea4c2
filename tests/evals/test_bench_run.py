"""Own benchmarks on a model: what lm-evaluation-harness makes of the task files, here and on its own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio import sandbox
from studio.evals import bench, bench_items, bench_task, tasks
from tests.llm_stand_in import StandIn
from tests.train.conftest import QUESTIONS, events

GENERATED = {"exact": {}, "fuzzy": {}, "number": {}, "regex": {"options": {"pattern": "[aeiou]"}}, "rouge": {}, "bleu": {}, "chrf": {},
             "json_schema": {"options": {"json_schema": '{"type": "object"}'}}}


@pytest.fixture
def data(home: Path) -> str:
    rows = [{"question": question, "answer": [answer, answer.lower()], "options": ["yes", answer], "tests": "assert True", "topic": f"t{i % 2}"}
            for i, (question, answer) in enumerate(QUESTIONS)]
    path = home / "uploads" / "rows.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "uploads/rows.jsonl"


def made(data: str, metric: str, title: str = "", **more: Any) -> str:
    values = {"title": title or metric, "dataset": data, "metric": metric, "tags": ["topic"], "max_gen_toks": 6, "num_fewshot": 1, "between": "line"} | more
    if metric == "multiple_choice":
        values |= {"target": "{{answer[0]}}", "choices": "options"}
    if metric == "perplexity":
        values |= {"prompt": "{{question}} {{answer[0]}}", "num_fewshot": 0}
    return bench.save(values)["name"]


def evaluated(model: Path, names: list[str]) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks.benchmarks()), include_defaults=False)
    return lm_eval.simple_evaluate(model="hf", model_args=f"pretrained={model}", tasks=[f"bench_{name}" for name in names], task_manager=manager, device="cpu",
                                   batch_size=2, bootstrap_iters=20, log_samples=True)


@pytest.mark.timeout(300)
def test_the_harness_asks_and_scores_what_the_studio_says(tiny: Path, data: str) -> None:
    names = [made(data, metric, **more) for metric, more in GENERATED.items()] + [made(data, "multiple_choice"), made(data, "perplexity")]
    names.append(made(data, "bleu", "bleu by letters", options={"tokenize": "char"}))
    names.append(made(data, "chrf", "chrf with words", options={"word_order": 2}))
    names.append(made(data, "rouge", "rouge of all", options={"any_script": True}))
    names.append(made(data, "exact", "exact loose", options={"loose": True}, description="Answer {{1}} well."))
    if not sandbox.missing():
        names.append(made(data, "unit_tests", target="{{answer}}"))
    found = evaluated(tiny, names)
    for name in names:
        parsed, metric = bench.parse(bench.load(name))
        items = bench_items.gather(parsed, metric, parsed.limit)
        lines = found["samples"][f"bench_{name}"]
        figures = found["results"][f"bench_{name}"]
        assert [line["doc"]["id"] for line in lines] == [item["id"] for item in items.items]
        lead = bench.shown(parsed, metric, items.fewshot)
        if metric.output != "loss":
            assert [line["arguments"][0][0] for line in lines] == [lead + item["prompt"] for item in items.items], "the preview shows what is asked"
        if metric.output != "text":
            assert set(metric.names) <= {key.partition(",")[0] for key in figures}
            continue
        metric.open()
        answers = [line["resps"][0][0] for line in lines]
        scored = [metric.score(answer, {"references": item["references"], "row": json.loads(item["row"]), "prompt": item["prompt"]}).values
                  for answer, item in zip(answers, items.items, strict=True)]
        if parsed.metric in ("bleu", "chrf"):
            key = "chrf++" if parsed.options.get("word_order") == 2 else parsed.metric
            assert figures[f"{key},none"] == pytest.approx(metric.corpus(answers, [item["references"] for item in items.items]))
        else:
            for key in metric.names:
                assert figures[f"{key},none"] == pytest.approx(sum(one[key] for one in scored) / len(scored)), (name, key)
                assert [line[key] for line in lines] == [one[key] for one in scored]


@pytest.mark.timeout(300)
def test_plain_lm_eval_runs_it_too(tiny: Path, data: str, tmp_path: Path) -> None:
    """Its own command line, where the studio cannot be imported, gives what it gives here."""
    names = [made(data, "multiple_choice"), made(data, "exact"), made(data, "rouge"), made(data, "chrf")]
    assert all(one["plain"] for one in bench.listed())
    here = evaluated(tiny, names)["results"]
    block = tmp_path / "block"
    (block / "studio").mkdir(parents=True)
    (block / "studio" / "__init__.py").write_text("raise ImportError('the studio is not installed here')\n")
    done = subprocess.run([sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={tiny}", "--tasks", ",".join(f"bench_{name}" for name in names),
                           "--include_path", str(tasks.benchmarks()), "--device", "cpu", "--batch_size", "2", "--output_path", str(tmp_path / "out")],
                          cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(block), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    there = json.loads(next((tmp_path / "out").rglob("results*.json")).read_text())["results"]
    for name in names:
        figures = {key: value for key, value in there[f"bench_{name}"].items() if "," in key and "stderr" not in key}
        assert figures and figures == {key: pytest.approx(here[f"bench_{name}"][key]) for key in figures}


def test_a_judge_scores_what_the_harness_hands_it(data: str) -> None:
    bench_task.close()  # of the tests before
    with StandIn(lambda asked: "Mark: 7" if "green" in asked.last else "no form") as judge:
        name = made(data, "judge", options={"judge": judge.address, "reference": True}, num_fewshot=0)
        folder = tasks.benchmarks() / name
        docs = [json.loads(line) for line in (folder / "test.jsonl").open()]
        try:
            scores = [bench_task.scored(folder, doc, "Grass is green." if "grass" in doc["prompt"] else "so") for doc in docs]
            assert [one for one in scores if one] == [{"judge_score": pytest.approx(7.0)}], "the others never got a mark in form"
            assert len(bench_task._opened) == 1, "one client for all answers"
        finally:
            bench_task.close()
        assert not bench_task._opened


def test_a_run_of_the_studio_keeps_ids_tags_and_scores(tiny: Path, data: str, tmp_path: Path) -> None:
    """eval/harness on three kinds of own benchmarks: one artifact with every answer."""
    from studio.evals.harness import Harness
    from studio.evals.results import opened, samples
    from studio.jobs.context import Context

    names = [made(data, "multiple_choice"), made(data, "fuzzy"), made(data, "bleu", options={"tokenize": "char"})]
    run = tmp_path / "run"
    run.mkdir()
    ctx = Context(run)
    with StandIn(lambda asked: "I would rather not say.") as judge:
        silent = made(data, "judge", options={"judge": judge.address})
        recipe = Harness.Recipe(models=[str(tiny)], tasks=[f"bench:{name}" for name in [*names, silent]], batch_size=4, bootstrap_iters=0)
        Harness.check(recipe)
        summary = Harness.run(recipe, ctx)
    assert any(event["code"] == "undecided" and "5 of 5 answers" in event["message"] for event in events(run, "warning"))
    assert "bench:judge/judge_score" not in summary["table"][0], "no score in place of a low one"
    names.append(silent)
    figures = opened(ctx.output)
    lines = list(samples(ctx.output))
    assert set(figures["tasks"]) == {f"bench:{name}" for name in names} and figures["tasks"]["bench:fuzzy"]["main"] == "fuzzy"
    assert "bench:fuzzy/fuzzy" in summary["table"][0]
    for name in names:
        docs = [json.loads(line) for line in (tasks.benchmarks() / name / "test.jsonl").open()]
        mine = [line for line in lines if line["task"] == f"bench:{name}"]
        assert [line["id"] for line in mine] == [doc["id"] for doc in docs] and [line["tags"] for line in mine] == [doc["tags"] for doc in docs]
        assert all(bool(line["scores"]) == (name != silent) for line in mine), name


def test_a_benchmark_that_lost_its_files_says_so(tiny: Path, data: str, tmp_path: Path) -> None:
    from studio.errors import StudioError
    from studio.evals.harness import Harness
    from studio.jobs.context import Context

    name = made(data, "fuzzy")
    (tasks.benchmarks() / name / "test.jsonl").unlink()
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(StudioError) as err:
        Harness.run(Harness.Recipe(models=[str(tiny)], tasks=[f"bench:{name}"]), Context(run))
    assert err.value.field == "tasks" and name in err.value.message
    (tasks.benchmarks() / name / "builder.json").unlink()
    with pytest.raises(StudioError, match="lost its builder.json"):
        bench_task.scored(tasks.benchmarks() / name, {"references": ["a"], "prompt": "?"}, "a")
