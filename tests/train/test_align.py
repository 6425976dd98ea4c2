"""Methods that learn from preferences: each learns, changes what it should, resumes exactly, and gives a usable result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.recipe import RecipeError, parse
from studio.registry import method
from tests.train import align
from tests.train.conftest import QUESTIONS, events, run, series

MOVES = {"dpo": "rewards/margins", "kto": "rewards/margins", "orpo": "rewards/margins", "cpo": "rewards/margins",
         "simpo": "rewards/margins", "reward": "margin"}


@pytest.fixture
def pairs(tmp_path) -> Path:
    return align.pairs(tmp_path / "pairs.jsonl")


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory) -> Path:
    """A LoRA of the tiny model."""
    folder = tmp_path_factory.mktemp("sft")
    data = folder / "chats.jsonl"
    data.write_text("".join(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in QUESTIONS))
    _, ctx = run({"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(data), "max_steps": 3, "r": 4,
                  "max_length": 64, "learning_rate": 5e-3, "bf16": "off", "eval_share": 0.0}, folder / "run")
    return ctx.output


@pytest.mark.parametrize("name", MOVES)
def test_learns_and_changes_only_the_adapter(name, tiny, pairs, tmp_path, monkeypatch):
    seen = align.watched(monkeypatch)
    summary, ctx = run(align.values(tiny, pairs, name, num_train_epochs=3), tmp_path / "run")
    moved = series(ctx.run_dir, f"eval_{MOVES[name]}")
    assert moved[max(moved)] > moved[0] + 0.003 and summary["eval_loss"] < summary["eval_loss_before"]
    assert summary["tokens"] > 0 and summary["tokens_per_second"] > 0
    changed, trained = seen["changed"], seen["trained"]
    assert changed and changed == trained
    assert all("lora_" in part or "score" in part for part in trained)
    assert any("score" in part for part in trained) == (name == "reward")
    made = json.loads((ctx.output / ("config.json" if name == "reward" else "adapter_config.json")).read_text())
    assert made.get("architectures", []) == (["LlamaForSequenceClassification"] if name == "reward" else [])
    assert not (ctx.output / "ref").exists() and "ref" not in str(sorted(align.weights(ctx.output)))


@pytest.mark.parametrize("name", ["dpo", "orpo", "reward"])
def test_full_training_changes_everything(name, tiny, pairs, tmp_path, monkeypatch):
    seen = align.watched(monkeypatch)
    _, ctx = run(align.values(tiny, pairs, name, train="full", learning_rate=2e-3), tmp_path / "run")
    assert seen["changed"] == seen["before"].keys() == seen["trained"]
    reference = getattr(seen["trainer"], "ref_model", None)
    assert (reference is not None) == (name == "dpo")
    if reference is not None:
        assert all(torch.equal(p, seen["before"][n]) for n, p in reference.named_parameters())


EXACT = {"dpo": {}, "dpo-full": {"train": "full"}, "dpo-beforehand": {"precompute_ref_log_probs": True, "lora_dropout": 0.1},
         "dpo-follows": {"train": "full", "sync_ref_model": True, "ref_model_sync_steps": 2},
         "kto": {}, "reward": {}, "orpo": {"gradient_accumulation_steps": 2, "num_train_epochs": 2}, "cpo": {}}


@pytest.mark.parametrize("case", EXACT)
def test_stopped_and_resumed(case, tiny, pairs, tmp_path):
    chosen = align.values(tiny, pairs, case.partition("-")[0], **EXACT[case])
    align.stopped_and_resumed(chosen, tmp_path, 3)


def test_an_adapter_is_aligned_further(adapter, pairs, tmp_path, monkeypatch):
    """DPO on an SFT adapter compares with that adapter, resumes exactly, and gives one adapter."""
    seen = align.watched(monkeypatch)
    chosen = align.values(adapter, pairs, "dpo")
    align.stopped_and_resumed(chosen, tmp_path, 3)
    model = seen["trainer"].model
    start = align.weights(adapter)
    for name, p in model.named_parameters():
        if ".ref." in name:
            assert torch.equal(p, start[name.replace(".ref.", ".")]) and not p.requires_grad
    made = tmp_path / "part" / "output"
    assert align.weights(made).keys() == start.keys()
    assert series(tmp_path / "whole", "eval_rewards/margins")[0] == 0.0  # the reference is the adapter itself


def test_all_weights_of_a_merged_adapter(tiny, adapter, pairs, tmp_path):
    """The reference is the model with its adapter, not the base that its config names."""
    run(align.values(adapter, pairs, "dpo", train="full", max_steps=2), tmp_path / "run")
    assert series(tmp_path / "run", "eval_rewards/margins")[0] == 0.0
    _, other = run(align.values(tiny, pairs, "dpo", ref_model=str(adapter), max_steps=2), tmp_path / "other")
    assert abs(series(other.run_dir, "eval_rewards/margins")[0]) > 1e-4  # another reference is another distance


@pytest.mark.parametrize("name", ["dpo", "reward"])
def test_base_in_four_bits(name, tiny, pairs, tmp_path, monkeypatch):
    """A reward model on such a base is stored whole, in full precision."""
    seen = align.watched(monkeypatch)
    summary, ctx = run(align.values(tiny, pairs, name, quant_type="nf4", bf16="on"), tmp_path / "run")
    assert any("4bit" in type(p).__name__.lower() for p in seen["trainer"].model.parameters())
    assert seen["changed"] == seen["trained"] and summary["eval_loss"] > 0
    if name == "reward":
        assert all(part.dtype == torch.float32 for part in align.weights(ctx.output).values())


def test_the_best_is_kept(tiny, pairs, tmp_path, monkeypatch):
    from studio.trainers.callbacks import Watch

    losses = iter([5.0, 1.0, *[4.0] * 50])

    def fake(self, args, state, control, metrics=None, real=Watch.on_evaluate, **more):
        real(self, args, state, control, metrics={"eval_loss": next(losses)} if state.global_step else metrics, **more)

    monkeypatch.setattr(Watch, "on_evaluate", fake)
    summary, ctx = run(align.values(tiny, pairs, "kto", num_train_epochs=2), tmp_path / "run")
    assert summary["kept_step"] == 4 < summary["steps"]
    best = align.weights(ctx.checkpoints / "checkpoint-4")
    made = align.weights(ctx.output)
    assert best.keys() == made.keys() and all(torch.equal(best[n], made[n]) for n in best)


def test_reward_model_scores_as_trained_and_nothing_else(tiny, pairs, tmp_path, monkeypatch):
    from studio.chat import manager
    from studio.datasets import rewards
    from studio.library import refs

    seen = align.watched(monkeypatch)
    _, ctx = run(align.values(tiny, pairs, "reward", num_train_epochs=3), tmp_path / "run")
    inner = ctx.checkpoints / "checkpoint-4"  # an adapter of a reward model
    assert refs.resolve_model(str(ctx.output)).meta["reward"] and refs.resolve_model(str(inner)).meta["reward"]
    rewards.check(str(ctx.output))
    row = {"prompt": "What colour is grass? (3)", "completion": "Grass is green."}
    model, tokenizer, device = rewards.load(str(ctx.output))
    texts = [rewards.text_of(row | {"completion": answer}, "", tokenizer) for answer in ("Grass is green.", "Go away.")]
    found, _ = rewards.rewards_of(model, tokenizer, device, texts, 2, 96, lambda done: None)
    trainer = seen["trainer"]
    turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "Grass is green."}]
    ids = trainer.processing_class.apply_chat_template(turns, return_tensors="pt", return_dict=True)
    own = trainer.model.eval()(**ids).logits.item()  # folded into its base by now
    assert found[0] == pytest.approx(own, abs=1e-5) and found[0] > found[1]
    for refused in (lambda: next(manager.opening(str(ctx.output))), lambda: next(manager.opening(str(inner))),
                    lambda: method("align", "dpo").check(parse(align.values(ctx.output, pairs, "dpo"))),
                    lambda: method("sft", "lora").check(parse({"kind": "sft", "method": "lora", "model": str(ctx.output),
                                                               "dataset": str(pairs)}))):
        with pytest.raises(StudioError, match="is a reward model") as caught:
            refused()
        assert caught.value.field == "model"
    card = (ctx.output / "README.md").read_text()
    assert "text-classification" in card and "AutoModelForSequenceClassification" in card
    run(align.values(ctx.output, pairs, "reward", max_steps=2), tmp_path / "further")  # it may be trained further


def test_margins_are_used_where_all_pairs_have_one(tiny, tmp_path):
    with_margins = align.pairs(tmp_path / "margins.jsonl", margin=lambda i: 0.5 + i)
    losses = [run(align.values(tiny, with_margins, "reward", use_margin=use, max_steps=2),
                  tmp_path / str(use))[0]["eval_loss_before"] for use in (True, False)]
    assert losses[0] > losses[1] + 0.3
    some = align.pairs(tmp_path / "some.jsonl", margin=lambda i: i or None)
    _, ctx = run(align.values(tiny, some, "reward", max_steps=2), tmp_path / "some")
    assert any("none is asked" in event["text"] for event in events(ctx.run_dir, "log"))


def test_results_in_a_fresh_process(tiny, pairs, tmp_path):
    """An aligned adapter loads and writes by the libraries alone, as its card says."""
    _, ctx = run(align.values(tiny, pairs, "dpo", max_steps=2), tmp_path / "run")
    code = ("import sys; from peft import AutoPeftModelForCausalLM; from transformers import AutoTokenizer\n"
            "model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1])\n"
            "words = AutoTokenizer.from_pretrained(sys.argv[1])\n"
            "ids = words.apply_chat_template([{'role': 'user', 'content': 'What colour is grass?'}],"
            " add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
            "print(model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] - ids['input_ids'].shape[1])")
    done = subprocess.run([sys.executable, "-c", code, str(ctx.output)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0 and 1 <= int(done.stdout.split()[-1]) <= 4, done.stderr


REFUSED = [("dpo", {"loss_type": "exo_pair"}, "label_smoothing"), ("dpo", {"loss_type": "robust + sft"}, "label_smoothing"),
           ("dpo", {"label_smoothing": 0.1}, "label_smoothing"), ("dpo", {"loss_type": "sigmoid + sigmod"}, "loss_type"),
           ("dpo", {"loss_type": "sft + sft"}, "loss_type"), ("dpo", {"loss_type": "0 sft"}, "loss_type"),
           ("dpo", {"loss_type": "apo_zero", "f_divergence_type": "forward_kl"}, "f_divergence_type"),
           ("dpo", {"loss_type": "aot", "use_weighting": True}, "use_weighting"),
           ("dpo", {"loss_type": "aot", "per_device_train_batch_size": 1}, "per_device_train_batch_size"),
           ("dpo", {"loss_type": "sigmoid + sft", "use_weighting": True}, "use_weighting"),
           ("dpo", {"sync_ref_model": True}, "sync_ref_model"),
           ("dpo", {"sync_ref_model": True, "train": "full", "precompute_ref_log_probs": True}, "sync_ref_model"),
           ("dpo", {"ref_model": "starter"}, "ref_model"), ("dpo", {"ref_model": "nowhere"}, "ref_model"),
           ("kto", {"per_device_train_batch_size": 1}, "per_device_train_batch_size"),
           ("dpo", {"max_length": 4096}, "max_length"),
           ("simpo", {"loss_type": "alphapo", "alpha": 0.0}, "alpha"), ("reward", {"chat_template": "none"}, "chat_template"),
           ("reward", {"quant_type": "nf4", "bf16": "off"}, "bf16"), ("orpo", {"dataset": "shipped:polite"}, "dataset"),
           ("kto", {"dataset": "shipped:polite"}, "dataset")]


@pytest.mark.parametrize(("name", "more", "field"), REFUSED, ids=str)
def test_refused_in_its_field(name, more, field, tiny, pairs):
    with pytest.raises((StudioError, RecipeError)) as caught:
        recipe = parse(align.values(tiny, pairs, name) | more)
        method("align", name).check(recipe)
    assert caught.value.field == field


@pytest.mark.parametrize("loss", ["sigmoid_norm", "ipo", "hinge", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot",
                                  "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
                                  "0.8 sigmoid + 0.2 bco_pair + sft"])
def test_losses_of_dpo_are_those_of_the_library(loss, tiny, pairs):
    """Every name of the form is taken by the trainer; a mix becomes names and weights."""
    from trl import DPOConfig

    from studio.aligners import dpo

    smoothing = 0.1 if loss in ("robust", "exo_pair") else 0
    recipe = parse(align.values(tiny, pairs, "dpo", loss_type=loss, label_smoothing=smoothing))
    method("align", "dpo").check(recipe)
    made = dpo.Dpo.settings(recipe)
    config = DPOConfig(output_dir="x", use_cpu=True, bf16=False, **made)
    known = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert all(f"'{name}'" in known for name in config.loss_type) and set(dpo.NAMES) == {
        part for part in known.split("'")[1::2] if part.islower() and part != "loss_weights"}
    if "+" in loss:
        assert (config.loss_type, config.loss_weights) == (["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0])


def test_a_mix_of_losses_trains(tiny, pairs, tmp_path):
    summary, _ = run(align.values(tiny, pairs, "dpo", loss_type="0.5 sigmoid + apo_zero + 0.2 sft", ld_alpha=0.5,
                                  max_steps=2, eval_share=0), tmp_path / "run")
    assert summary["train_loss"] > 0
