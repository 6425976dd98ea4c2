"""Methods that let the model write: each learns, changes what it should, stops while writing, and resumes exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from studio import settings
from studio.errors import StudioError
from studio.recipe import parse
from studio.registry import method
from tests.train import align
from tests.train.conftest import events, run, series

SHORT = {"name": "length", "unit": "characters", "least": 0, "most": 0, "slope": 60}


def values(model: Path, data: Path, name: str, **more) -> dict:
    own = {"max_new_tokens": 6} if name in ("gkd", "online_dpo") else {"max_completion_length": 6}
    if name in ("grpo", "rloo"):
        own |= {"num_generations": 4, "rewards": [SHORT]}
    elif name == "online_dpo":
        own["rewards"] = [SHORT]
    else:
        own |= {"max_length": 64}
    return {"kind": "align", "method": name, "model": str(model), "dataset": str(data),
            "per_device_train_batch_size": 8,
            "logging_steps": 1, "eval_steps": 4, "eval_share": 0.1, "learning_rate": 5e-3, "bf16": "off", "r": 4,
            "max_steps": 8, "save_total_limit": 10} | own | more


@pytest.fixture(scope="session")
def teacher(tiny, tmp_path_factory) -> Path:
    """The tiny model with other weights."""
    import transformers

    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["grpo", "rloo", "online_dpo"])
def test_learns_from_rewards_and_tells_what_it_wrote(name, tiny, chats, tmp_path, monkeypatch):
    seen = align.watched(monkeypatch)
    more = {} if name == "online_dpo" else {"beta": 0.0}
    summary, ctx = run(values(tiny, chats, name, max_steps=20, learning_rate=1e-2, eval_steps=20, train="full",
                              per_device_train_batch_size=16, **more), tmp_path / "run")
    earned = list(series(ctx.run_dir, "objective/scores" if name == "online_dpo" else "reward").values())
    assert sum(earned[-8:]) / 8 > sum(earned[:3]) / 3 + 0.015, earned
    assert seen["changed"] == seen["before"].keys()
    assert "eval_loss" not in summary and 0 < summary["eval_reward"] < 1  # the loss says nothing of the answers
    told = events(ctx.run_dir, "rollout")
    by_step = {step: [e for e in told if e["step"] == step] for step in {e["step"] for e in told}}
    assert sorted(by_step) == list(range(1, 21)) and all(1 < len(few) <= 8 for few in by_step.values())
    best, worst = by_step[1][0], by_step[1][-1]
    assert best["advantage"] >= worst["advantage"] and best["prompt"].startswith(("What", "How", "Where"))
    assert best["notes"]["length"].split()[0] == str(len(best["completion"]))
    assert best["rewards"]["length"] == pytest.approx(max(0, 1 - len(best["completion"]) / 60), abs=1e-4)


@pytest.mark.parametrize("name", ["gkd", "gold"])
def test_a_student_comes_nearer_to_its_teacher(name, tiny, teacher, chats, tmp_path, monkeypatch):
    seen = align.watched(monkeypatch)
    summary, ctx = run(values(tiny, chats, name, teacher_model=str(teacher), learning_rate=1e-2), tmp_path / "run")
    assert summary["eval_loss"] < summary["eval_loss_before"] - 0.001
    assert seen["changed"] == seen["trained"]
    assert not any(p.requires_grad for p in seen["trainer"].teacher_model.parameters())
    assert {"ref": str(teacher), "role": "teacher"} in ctx.artifacts[-1]["parents"]


def test_gold_learns_across_tokenizers(tiny, chats, tmp_path):
    summary, _ = run(values(tiny, chats, "gold", teacher_model="starter", use_uld_loss=True, max_steps=4, lmbda=0.5,
                            max_length=128), tmp_path / "run")
    assert summary["eval_loss"] < summary["eval_loss_before"]


EXACT = {"grpo": {"steps_per_generation": 2}, "grpo-again": {"num_iterations": 2, "beta": 0.1, "train": "full"},
         "rloo": {"steps_per_generation": 2, "num_iterations": 2}, "online_dpo": {"gradient_accumulation_steps": 2},
         "gkd": {}, "gold": {"lmbda": 1.0}}
CYCLE = {"grpo": 2, "grpo-again": 2, "rloo": 4}


@pytest.mark.parametrize("case", EXACT)
def test_a_stopped_run_goes_on_exactly(case, tiny, teacher, chats, tmp_path, monkeypatch):
    """Asked to stop in the middle of a cycle of answers; also from a checkpoint that was due there."""
    name = case.partition("-")[0]
    more = EXACT[case] | ({"teacher_model": str(teacher)} if name in ("gkd", "gold") else {})
    chosen = values(tiny, chats, name, learning_rate=2e-3, save_steps=3, eval_steps=7, logging_steps=3, **more)
    seen = align.watched(monkeypatch)
    whole, _ = run(chosen, tmp_path / "whole")
    assert seen["changed"] == seen["trained"]
    assert ("lora_" in str(seen["trained"])) == (chosen.get("train") != "full")
    part, ctx = run(chosen, tmp_path / "part", stop_at=3)
    cycle = CYCLE.get(case, 1)
    at = -(-3 // cycle) * cycle
    assert part["steps"] == at and {p.name for p in ctx.checkpoints.iterdir()} == {f"checkpoint-{at}"}
    run(chosen, tmp_path / "part", resume=True)
    same(tmp_path / "whole", tmp_path / "part")


def same(one: Path, two: Path) -> None:
    a, b = align.logged(one), align.logged(two)
    # a time; and what TRL averages over a part of an epoch's last batch, which a loader that began later counts anew
    a, b = ({k: v for k, v in found.items() if not k[1].endswith(("step_time", "rlhf_reward"))} for found in (a, b))
    assert a.keys() == b.keys() and len(a) > 10
    assert {key: (a[key], b[key]) for key in a if abs(a[key] - b[key]) > 1e-6} == {}
    a, b = align.weights(one / "output"), align.weights(two / "output")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["grpo", "online_dpo", "gkd"])
def test_a_stop_is_heard_while_the_model_writes(name, tiny, teacher, chats, tmp_path, monkeypatch):
    """What was being written is given up, and the resumed run writes it again."""
    from studio.aligners import rollouts

    more = {"teacher_model": str(teacher), "lmbda": 1.0} if name == "gkd" else {}
    chosen = values(tiny, chats, name, max_steps=5, learning_rate=2e-3, eval_share=0, logging_steps=2, **more)
    run(chosen, tmp_path / "whole")
    real = rollouts.Writes._word

    def word(trainer, *args):
        if trainer._writing and trainer.state.global_step == 3 and trainer._words == 2:
            trainer.ctx.request_stop()
        real(trainer, *args)
        assert trainer.state.global_step != 3 or not trainer._writing or trainer._words <= 2

    with monkeypatch.context() as patch:
        patch.setattr(rollouts.Writes, "_word", word)
        part, _ = run(chosen, tmp_path / "part")
    assert part["steps"] == 3
    run(chosen, tmp_path / "part", resume=True)
    same(tmp_path / "whole", tmp_path / "part")


def refused(values: dict) -> StudioError:
    recipe = parse(values)
    with pytest.raises(StudioError) as found:
        method(recipe.kind, recipe.method).check(recipe)
    return found.value


def test_what_cannot_work_is_refused_in_its_field(tiny, chats, teacher):
    odd = refused(values(tiny, chats, "grpo", per_device_train_batch_size=10, num_generations=8))
    assert odd.field == "per_device_train_batch_size" and "8 or 16" in odd.hint
    odd = refused(values(tiny, chats, "rloo", per_device_train_batch_size=3, steps_per_generation=2))
    assert "2 or 4" in odd.hint
    assert refused(values(tiny, chats, "grpo", rewards=[])).field == "rewards"
    assert refused(values(tiny, chats, "grpo", max_completion_length=2000)).field == "max_completion_length"
    assert refused(values(tiny, chats, "grpo", loss_type="luspo")).field == "importance_sampling_level"
    assert refused(values(tiny, chats, "grpo", use_vllm=True)).field == "use_vllm"
    many = refused(values(tiny, chats, "grpo", per_device_train_batch_size=400))
    assert many.field == "per_device_train_batch_size" and "100 prompts" in many.message
    assert refused(values(tiny, chats, "gkd")).field == "teacher_model"
    assert refused(values(tiny, chats, "gkd", teacher_model="starter")).field == "teacher_model"
    assert refused(values(tiny, chats, "gold", teacher_model="starter")).field == "teacher_model"


def test_prompts_that_leave_no_room_are_left_out_and_told(tiny, chats, tmp_path):
    with chats.open("a") as out:
        out.write(json.dumps({"messages": [{"role": "user", "content": "What? " * 700},
                                           {"role": "assistant", "content": "That."}]}) + "\n")
    _, ctx = run(values(tiny, chats, "grpo", eval_share=0, max_steps=1, loss_type="dr_grpo"), tmp_path / "run")
    told = [e for e in events(ctx.run_dir, "warning") if e["code"] == "prompts_too_long"]
    assert len(told) == 1 and told[0]["message"].startswith("1 of 61")


def test_steps_are_those_of_the_trainer(tiny, chats, tmp_path):
    chosen = values(tiny, chats, "rloo", num_train_epochs=1, steps_per_generation=2, gradient_accumulation_steps=2,
                    eval_share=0, logging_steps=10, max_completion_length=3) | {"max_steps": -1}
    summary, ctx = run(chosen, tmp_path / "run")
    recipe = parse(chosen)
    assert summary["steps"] == summary["of_steps"] == method("align", "rloo").estimate(recipe).steps == 15
    assert series(ctx.run_dir, "loss")


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_the_script_gives_the_same_losses(name, tiny, chats, tmp_path, monkeypatch):
    """The rewards are written out in it, and score as the studio's."""
    chosen = values(tiny, chats, name, max_steps=4, steps_per_generation=2, learning_rate=2e-3, rewards=[
        {"name": "length", "unit": "characters", "least": 0, "most": 3, "slope": 40}, {"name": "number", "weight": 2.0},
        {"name": "regex", "pattern": "[a-m]"}, {"name": "exact"}])
    _, ctx = run(chosen, tmp_path / "run")
    recipe = parse(chosen)
    code = method("align", name).script(recipe)
    monkeypatch.chdir(tmp_path)
    space: dict = {"__name__": "script"}
    exec(compile(code, "script.py", "exec"), space)
    plain = {h["step"]: h for h in space["trainer"].state.log_history if "loss" in h}
    for key in ("loss", "reward", "rewards/number/mean", "rewards/regex/mean", "grad_norm"):
        mine = series(ctx.run_dir, key)
        assert mine and all(abs(mine[step] - plain[step][key]) <= 1e-6 for step in mine), key
    with pytest.raises(StudioError, match="more than a short function"):
        method("align", name).script(recipe.model_copy(update={"rewards": [{"name": "language", "language": "en"}]}))


def rounds_of(model: Path, data: Path, **more) -> dict:
    return {"kind": "align", "method": "rejection_sampling", "model": str(model), "dataset": str(data),
            "rewards": [SHORT],
            "rounds": 2, "num_generations": 4, "prompts_a_round": 32, "max_completion_length": 6, "learning_rate": 5e-3,
            "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 2, "bf16": "off", "r": 4,
            "least_difference": 0.01} | more


def test_rounds_raise_the_win_rate_and_go_on_where_they_stopped(tiny, chats, tmp_path, monkeypatch):
    from studio.aligners import rounds

    summary, ctx = run(rounds_of(tiny, chats), tmp_path / "whole")
    wins = series(ctx.run_dir, "win_rate")
    assert summary["rounds"] == 2 and summary["steps"] == max(wins) and wins[0] == 0.5
    assert summary["win_rate"] == max(list(wins.values())[1:])
    # one axis for all rounds
    assert sorted(series(ctx.run_dir, "rewards/margins")) == list(range(1, summary["steps"] + 1))
    told = events(ctx.run_dir, "rollout")
    assert told and all(e["rewards"].keys() == {"length"} for e in told)
    assert (ctx.output / "adapter_config.json").exists() and ctx.artifacts[0]["kind"] == "adapter"

    real, drawn = rounds._write, []

    def write(recipe, part, *args):
        drawn.append(part.number)
        if drawn.count(2) == 2:
            part.request_stop()
        return real(recipe, part, *args)

    with monkeypatch.context() as patch:  # stopped while it draws the second round's answers
        patch.setattr(rounds, "_write", write)
        part, _ = run(rounds_of(tiny, chats), tmp_path / "part")
    assert part["rounds"] == 1 and (tmp_path / "part" / "rounds" / "2" / "drawn.jsonl").read_text().count("\n") == 1
    run(rounds_of(tiny, chats), tmp_path / "part", resume=True)
    assert align.logged(tmp_path / "whole") == align.logged(tmp_path / "part")
    a, b = (align.weights(tmp_path / name / "output") for name in ("whole", "part"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def worker(folder: Path, recipe: dict) -> dict:
    """The recipe in a worker of its own, which becomes a process of another environment; its result."""
    import yaml

    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    subprocess.run([sys.executable, "-m", "studio.jobs.worker"], cwd=folder, env=os.environ | {
        "ATELIER_RUN_DIR": str(folder), "PYTHONPATH": str(settings.ROOT), "OMP_NUM_THREADS": "1"}, timeout=1200,
        capture_output=True)
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="session")
def older(tmp_path_factory) -> Path:
    """The environment with TRL 1.12, made once for these tests."""
    from studio import environments
    from studio.jobs.context import Context

    home = tmp_path_factory.mktemp("older")
    before = os.environ.get("STUDIO_HOME")
    os.environ["STUDIO_HOME"] = str(home)
    try:
        environments.make("trl-1.12", Context(home / "run"))
        return environments.folder("trl-1.12")
    except StudioError as err:
        pytest.skip(f"the older release cannot be fetched here: {err.message}")
    finally:
        os.environ.pop("STUDIO_HOME")
        if before:
            os.environ["STUDIO_HOME"] = before


@pytest.fixture
def inside(older, home):
    """This test's workspace has the environment already."""
    from studio import environments

    target = environments.folder("trl-1.12")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(older)
    assert environments.ready("trl-1.12") and not environments.note("trl-1.12")


def test_ppo_follows_a_reward_model_from_the_older_release(inside, tiny, chats, tmp_path):
    import transformers

    torch.manual_seed(3)
    judge = tmp_path / "judge"
    transformers.AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1).save_pretrained(judge)
    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(judge)
    chosen = {"kind": "align", "method": "ppo", "model": str(tiny), "dataset": str(chats), "reward_model": str(judge),
              "max_steps": 2, "response_length": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "bf16": "off"}
    made = worker(tmp_path / "run", chosen)
    assert made["state"] == "succeeded", made
    assert made["summary"]["steps"] == 2 and made["artifacts"][0]["kind"] == "adapter"
    assert series(tmp_path / "run", "objective/kl").keys() == {1, 2} == series(tmp_path / "run",
                                                                               "objective/scores").keys()
    told = events(tmp_path / "run", "rollout")
    assert 2 <= len(told) <= 16 and all(e["prompt"] and "reward_model" in e["rewards"] for e in told)
    assert any(weight.abs().sum() > 0 for name,
               weight in align.weights(tmp_path / "run" / "output").items() if "lora_B" in name)
    assert refused(chosen | {"reward_model": str(tiny)}).field == "reward_model"
    assert refused(chosen | {"num_mini_batches": 3}).field == "num_mini_batches"


def test_a_process_reward_model_from_the_older_release(inside, tiny, tmp_path):
    data = tmp_path / "steps.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"What is {a} + {b}?", "completions": [
        f"{a} and {b} more.", f"{a} + {b} is {a + b if right else 9}."], "labels": [True, right]}) + "\n"
        for a in range(4) for b in range(4) for right in (True, False)))
    chosen = {"kind": "align", "method": "prm", "model": str(tiny), "dataset": str(data), "max_steps": 16,
              "eval_steps": 4, "logging_steps": 1, "bf16": "off", "learning_rate": 1e-3, "max_length": 64,
              "eval_share": 0.25, "per_device_train_batch_size": 8}
    made = worker(tmp_path / "run", chosen)
    assert made["state"] == "succeeded", made
    assert made["summary"]["eval_loss"] < made["summary"]["eval_loss_before"]
    assert {"eval_accuracy", "eval_accuracy_before"} <= made["summary"].keys()
    config = json.loads((tmp_path / "run" / "output" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForTokenClassification"]
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"prompt": "Hello", "completion": "Hello."}) + "\n")
    assert refused(chosen | {"dataset": str(chats)}).field == "dataset"


def test_an_environment_that_cannot_be_fetched_says_so_and_leaves_nothing(home, tmp_path, monkeypatch):
    from studio import environments
    from studio.jobs.context import Context

    torn = environments.folder("trl-1.12")
    torn.mkdir(parents=True)
    (torn / "half").touch()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    for name, value in (("PIP_RETRIES", "0"), ("PIP_NO_CACHE_DIR", "1"), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    with pytest.raises(StudioError, match="cannot be reached"):
        environments.make("trl-1.12", Context(tmp_path / "run"))
    assert not environments.ready("trl-1.12") and sorted(p.name for p in torn.parent.iterdir()) == ["trl-1.12.lock"]
    assert "9 MB" in environments.note("trl-1.12")
