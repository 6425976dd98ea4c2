"""AdaLoRA: the ranks that are left, exact resume in every phase, and an adapter that any program can read."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from studio.errors import StudioError
from studio.jobs.context import checkpoints
from studio.library import refs
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import run, series
from tests.train.test_script import execute

STEPS, LAYERS = 20, 14  # two layers of the tiny model with seven matrices each


def values(tiny, chats, **more):
    return {"kind": "sft", "method": "adalora", "model": str(tiny), "dataset": str(chats), "max_length": 64, "max_steps": STEPS,
            "logging_steps": 1, "per_device_train_batch_size": 8, "bf16": "off", "init_r": 6, "target_r": 3, "tinit": 4,
            "tfinal": 6, "lora_dropout": 0.1} | more


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """One run from end to end: (summary, context, dataset)."""
    folder = tmp_path_factory.mktemp("whole")
    chats = folder / "chats.jsonl"
    chats.write_text("".join(json.dumps({"messages": [{"role": "user", "content": f"What is {i} plus {i % 7}?"},
                                                      {"role": "assistant", "content": f"It is {i + i % 7}."}]}) + "\n"
                             for i in range(60)))
    summary, ctx = run(values(tiny, chats, save_steps=3, eval_steps=3, save_total_limit=20), folder / "run")
    return summary, ctx, chats


def test_the_budget_is_kept_and_shared_out(whole):
    _, ctx, _ = whole
    ranks = json.loads((ctx.output / "ranks.json").read_text())
    assert len(ranks) == LAYERS and sum(ranks.values()) == 3 * LAYERS
    assert len(set(ranks.values())) > 1, "some layers kept more than others"
    for path, least in ((ctx.checkpoints / "checkpoint-3", 6 * LAYERS), (ctx.checkpoints / "checkpoint-9", 3 * LAYERS + 1)):
        assert sum(json.loads((path / "ranks.json").read_text()).values()) >= least, path


def test_only_the_final_ranks_can_be_the_best(whole):
    summary, _, _ = whole
    assert summary["kept_step"] >= STEPS - 6


def test_a_plain_lora_says_what_the_adapter_says(whole, tiny):
    """PEFT's own AdaLoRA with a checkpoint's whole state, and ``from_pretrained`` of what lies beside it: the same logits."""
    import torch
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    from studio.trainers import load, ranks

    _, ctx, chats = whole
    ids = torch.arange(5, 40)[None]
    made = {}
    for path in (ctx.checkpoints / "checkpoint-3", ctx.checkpoints / "checkpoint-9", ctx.checkpoints / "checkpoint-18"):
        recipe = parse(values(tiny, chats))
        trained = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32),
                                 method("sft", "adalora").peft_config(recipe, STEPS))
        ranks.load(trained, path)
        read = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), path)
        with torch.no_grad():
            told, bare = trained.eval()(ids).logits, trained.get_base_model()(ids).logits
            assert torch.allclose(read.eval()(ids).logits, told, atol=2e-6)
            assert torch.allclose(read.merge_and_unload()(ids).logits, told, atol=2e-5)
            with trained.disable_adapter():
                bare = trained(ids).logits
        assert (told - bare).abs().max() > 1e-3
        made[path.name] = told
    assert (made["checkpoint-9"] - made["checkpoint-18"]).abs().max() > 1e-3
    assert refs.resolve_model(str(ctx.output)).meta["peft_type"] == "LORA"
    assert load.model(refs.resolve_model(str(ctx.output)), torch.float32).peft_config["default"].r <= 6


@pytest.mark.parametrize(("cut", "more"), [(3, {}), (10, {}), (17, {"deltaT": 4, "gradient_accumulation_steps": 2})])
def test_stopped_and_resumed(cut, more, whole, tiny, tmp_path):
    """Before the ranks are cut, while they are, and after."""
    _, ctx, chats = whole
    recipe = values(tiny, chats, save_steps=3, eval_steps=3, save_total_limit=20, **more)
    uncut = ctx.run_dir
    if more:
        run(recipe, uncut := tmp_path / "uncut")
    run(recipe, tmp_path / "cut", stop_at=cut)
    assert checkpoints(tmp_path / "cut" / "checkpoints")[-1].name == f"checkpoint-{cut}"
    run(recipe, tmp_path / "cut", resume=True)
    for name in ("loss", "eval_loss", "grad_norm", "orthogonality"):
        a, b = series(uncut, name), series(tmp_path / "cut", name)
        assert a.keys() == b.keys() and len(a) >= 6 and b == pytest.approx(a, abs=1e-6), name
    one, two = (load_file(folder / "output" / "adapter_model.safetensors") for folder in (uncut, tmp_path / "cut"))
    assert one.keys() == two.keys() and all((one[key] - two[key]).abs().max() <= 1e-6 for key in one)
    assert (uncut / "output" / "ranks.json").read_text() == (tmp_path / "cut" / "output" / "ranks.json").read_text()


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2, "tinit": 0.1, "tfinal": 0.3, "max_steps": -1,
                                       "num_train_epochs": 3.0, "per_device_train_batch_size": 4}])
def test_the_script_gives_the_same_losses(more, tiny, chats, tmp_path, monkeypatch):
    wanted = values(tiny, chats, lora_dropout=0.0, **more)
    run(wanted, tmp_path / "studio")
    history = execute(wanted, tmp_path, monkeypatch)
    for name in ("loss", "eval_loss", "orthogonality"):
        theirs = {h["step"]: h[name] for h in history if name in h}
        ours = {step: value for step, value in series(tmp_path / "studio", name).items() if step}
        assert theirs.keys() == ours.keys() and len(ours) >= 6, name
        assert ours == pytest.approx(theirs, abs=1e-6 if name == "loss" else 2e-6), name


def test_without_orthogonality_the_loss_is_the_likelihood(tiny, chats, tmp_path):
    for weight in (0.0, 0.5):
        run(values(tiny, chats, max_steps=2, orth_reg_weight=weight, tfinal=0, tinit=0, lora_dropout=0.0), tmp_path / str(weight))
    with_it, without = (series(tmp_path / name, "loss")[1] for name in ("0.5", "0.0"))
    assert with_it - without == pytest.approx(series(tmp_path / "0.5", "orthogonality")[1], abs=1e-5) and with_it - without > 0.5


@pytest.mark.parametrize(("more", "field"), [({"max_steps": 8}, "tfinal"), ({"strategy": "zero2"}, "strategy")])
def test_refused(more, field, tiny, chats, monkeypatch):
    from studio.trainers import spread

    monkeypatch.setattr(spread, "check", lambda recipe: None)
    recipe = parse(values(tiny, chats, **more))
    with pytest.raises(StudioError) as refused:
        method("sft", "adalora").check(recipe)
    assert refused.value.field == field


@pytest.mark.parametrize("more", [{"target_r": 6}, {"tinit": 0.5, "tfinal": 0.5}, {"tinit": 1.5}])
def test_values_that_make_no_sense(more, tiny, chats):
    with pytest.raises(StudioError):
        parse(values(tiny, chats, **more))
