"""Scores and standard errors are those of lm-evaluation-harness's own command line, answer by answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio import settings
from studio.errors import StudioError
from studio.evals import tasks
from tests.evals.test_harness import answers, values
from tests.train.conftest import run

NAMES = ["facts", "spelling", "sums", "rules", "lumi", "world"]
SEEDS = {"random_seed": 3, "numpy_random_seed": 4, "torch_random_seed": 5, "fewshot_random_seed": 6}


@pytest.fixture(scope="session")
def adapter(tmp_path_factory) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    get_peft_model(AutoModelForCausalLM.from_pretrained(settings.STARTER), LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=1, init_lora_weights=False, target_modules=["v_proj", "down_proj"])).save_pretrained(folder)
    return folder


def same(line: dict, theirs: dict) -> int:
    """Holds a line of our table to the library's results; how many numbers were compared."""
    count = 0
    for name, found in theirs.items():
        for key, value in found.items():
            if "," in key and "_stderr" not in key:
                metric, one = key.split(",")
                mine = f"suite:{name.removeprefix('suite_')}/{metric}"
                assert line[mine] == pytest.approx(value, rel=1e-5), mine
                error = found[f"{metric}_stderr,{one}"]
                assert line[f"{mine}_stderr"] == (None if error == "N/A" else pytest.approx(error, rel=1e-5, abs=1e-9)), mine
                count += 2
    return count


def test_scores_are_those_of_the_command_line(tmp_path):
    told = tmp_path / "told"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={settings.STARTER},dtype=float32",
               "--tasks", ",".join(f"suite_{name}" for name in NAMES), "--include_path", str(tasks.SUITE), "--device", "cpu",
               "--batch_size", "4", "--limit", "12", "--num_fewshot", "2", "--apply_chat_template", "--fewshot_as_multiturn", "true",
               "--seed", "3,4,5,6", "--output_path", str(told), "--log_samples"]
    theirs = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    names = [f"suite:{name}" for name in NAMES]
    summary, ctx = run(values(["starter"], names, limit=12, num_fewshot=2, batch_size=4, **SEEDS), tmp_path / "run")
    _, said = theirs.communicate(timeout=400)
    assert theirs.returncode == 0, said[-2000:]
    [found] = told.rglob("results_*.json")
    assert same(summary["table"][0], json.loads(found.read_text())["results"]) >= 24
    mine = {(one["task"], one["id"]): one for one in answers(ctx)}
    seen = 0
    for name in NAMES:
        [path] = told.rglob(f"samples_suite_{name}_*.jsonl")
        for line in map(json.loads, path.open()):
            one = mine[f"suite:{name}", line["doc"]["id"]]
            assert one["prompt"] == line["arguments"]["gen_args_0"]["arg_0"]
            if name in ("facts", "spelling"):
                assert [value for _, value in one["more"]["options"]] == pytest.approx(
                    [float(resp[0][0]) for resp in line["resps"]], abs=1e-4)
            elif name != "world":
                assert one["answer"] == line["resps"][0][0]
            seen += 1
    assert seen == len(mine) == 72


def test_an_adapter_has_the_librarys_scores(adapter, tmp_path):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    names = ["facts", "rules", "world"]
    summary, _ = run(values(["starter", adapter], [f"suite:{name}" for name in names], limit=12, **SEEDS), tmp_path / "run")
    theirs = simple_evaluate("hf", {"pretrained": str(settings.STARTER), "dtype": "float32", "peft": str(adapter)},
                             [f"suite_{name}" for name in names], batch_size=3, device="cpu", limit=12, apply_chat_template=True,
                             task_manager=TaskManager(include_path=str(tasks.SUITE), include_defaults=False), **SEEDS)
    assert same(summary["table"][1], theirs["results"]) >= 12
    assert summary["table"][0]["suite:world/word_perplexity"] != summary["table"][1]["suite:world/word_perplexity"]


def test_the_script_does_what_the_job_does(tmp_path):
    from studio.recipe import parse
    from studio.registry import method

    asked = values(["starter"], ["suite:facts", "suite:rules"], limit=5, system_instruction="Be kind.", **SEEDS)
    space: dict = {}
    exec(method("eval", "harness").script(parse(asked)), space)  # noqa: S102 - what "Copy as Python" gives
    summary, _ = run(asked, tmp_path / "run")
    assert same(summary["table"][0], space["found"]["results"]) >= 8
    assert method("eval", "harness").script(parse(values(["http://host/v1"], ["suite:facts"]))) == ""


def test_drawn_answers_are_the_librarys(tmp_path):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    drawn = {"do_sample": True, "temperature": 1.5}
    _, ctx = run(values(["starter"], ["suite:rules"], limit=8, gen_kwargs=drawn, **SEEDS), tmp_path / "run")
    theirs = simple_evaluate("hf", {"pretrained": str(settings.STARTER), "dtype": "float32"}, ["suite_rules"], batch_size=4, device="cpu",
                             limit=8, apply_chat_template=True, gen_kwargs=dict(drawn),
                             task_manager=TaskManager(include_path=str(tasks.SUITE), include_defaults=False), **SEEDS)
    said = [one["resps"][0][0] for one in theirs["samples"]["suite_rules"]]
    assert [one["answer"] for one in answers(ctx)] == said and len(set(said)) > 3


def test_a_group_is_the_mean_of_its_tasks(tiny, tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    from studio.evals import lm_tasks

    group = {"group": "both", "task": ["suite_facts", "suite_spelling"], "metadata": {"version": 1.0},
             "aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]}
    (tmp_path / "both.yaml").write_text(json.dumps(group))
    monkeypatch.setattr(lm_tasks, "_manager", lambda name: TaskManager(
        include_path=[str(tasks.SUITE), str(tmp_path)], include_defaults=False))
    summary, ctx = run(values([tiny], ["both"], limit=10), tmp_path / "run")
    [line] = summary["table"]
    assert line["both/acc"] == pytest.approx((line["suite_facts/acc"] + line["suite_spelling/acc"]) / 2) and line["both/acc_stderr"] > 0
    assert summary["tasks"]["both"]["group"] == ["suite_facts", "suite_spelling"] and len(answers(ctx)) == 20


def test_names_of_the_library_are_looked_up_once(home, tmp_path, monkeypatch):
    from lm_eval.tasks._index import TaskIndex

    from studio.evals import lm_tasks

    with pytest.raises(StudioError, match="no task 'hellaswagg'") as caught:
        run(values(["starter"], ["hellaswagg"]), tmp_path / "one")
    assert "hellaswag" in caught.value.hint
    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", lambda *_: pytest.fail("its files were read again"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StudioError, match="data of the task hellaswag cannot be had") as caught:
        run(values(["starter"], ["hellaswag"]), tmp_path / "two")
    assert caught.value.field == "tasks" and "Hub" in caught.value.hint
    assert lm_tasks._manager("mmlu")._entry("mmlu").kind.name == "GROUP"
