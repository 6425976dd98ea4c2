"""What fine-tuning can do beyond the methods: starts of the adapter, frozen layers, optimizers, longer contexts.

Each learns, gives the losses of its script, resumes exactly and loads again as any adapter or model does.
"""

from __future__ import annotations

import json

import pytest
import torch

from studio.errors import StudioError
from studio.library import refs
from studio.recipe import RecipeError, parse
from studio.registry import method
from tests.train.conftest import run, series
from tests.train.test_script import execute


def values(tiny, chats, name="lora", **more):
    return {"kind": "sft", "method": name, "model": str(tiny), "dataset": str(chats), "max_length": 64, "max_steps": 8,
            "logging_steps": 1, "per_device_train_batch_size": 8, "bf16": "off", "eval_share": 0.2, "learning_rate": 3e-3,
            "eval_steps": 4} | more


CASES = {"pissa": {"init_lora_weights": "pissa", "r": 4},
         "olora": {"init_lora_weights": "olora", "r": 4, "use_rslora": True},
         "lora_plus": {"loraplus_lr_ratio": 8.0, "weight_decay": 0.01, "init_lora_weights": "orthogonal"},
         "some_layers": {"target_modules": "q_proj,v_proj", "layers_to_transform": "1", "modules_to_save": "embed_tokens",
                         "init_lora_weights": "gaussian"},
         "padding_free": {"padding_free": True, "loss_type": "dft", "learning_rate": 1e-2, "max_length": 24},
         "split": {"packing": True, "packing_strategy": "bfd_split", "max_length": 24},
         "yarn": {"rope_scaling": "yarn", "rope_factor": 4.0},
         "dynamic": {"name": "full", "rope_scaling": "dynamic", "max_length": 1500},
         "muon": {"name": "full", "optim": "muon", "freeze": "half", "weight_decay": 0.1}}


def _held(made, tiny, chats, more, folder):
    """The validation loss of a model, computed sample by sample."""
    from studio.trainers import data, load

    recipe = parse(values(tiny, chats, **more))
    total = count = 0
    for sample in data.Encoder(load.tokenizer(refs.resolve_model(str(folder))), recipe, True).prepare(data.read(recipe)[1]).samples:
        labels = torch.tensor([sample.labels])
        with torch.no_grad():
            loss = float(made(input_ids=torch.tensor([sample.input_ids]), labels=labels).loss)
        learned = int((labels[:, 1:] != -100).sum())
        total, count = total + loss * learned, count + learned
    return total / count


@pytest.mark.parametrize("case", CASES)
def test_learns_as_its_script_resumes_and_loads(case, tiny, chats, tmp_path, monkeypatch):
    from studio.trainers import load

    more = CASES[case]
    whole = values(tiny, chats, **more)
    summary, ctx = run(whole, tmp_path / "whole")
    losses = series(tmp_path / "whole", "loss")
    held = series(tmp_path / "whole", "eval_loss")
    assert min(held.values()) < held[0], "it learned something"
    run(whole, tmp_path / "cut", stop_at=3)
    run(whole, tmp_path / "cut", resume=True)
    assert series(tmp_path / "cut", "loss") == pytest.approx(losses, abs=1e-6)
    theirs = {h["step"]: h["loss"] for h in execute(whole, tmp_path, monkeypatch) if "loss" in h}
    assert theirs.keys() == losses.keys()
    assert max(abs(theirs[step] - losses[step]) for step in losses) <= (
        2e-5 if case == "muon" else 2e-6)  # four units in the last place of such a loss; Muon computes in bfloat16 inside
    for folder in (tmp_path / "whole" / "output", tmp_path / "cut" / "output"):
        made = load.model(refs.resolve_model(str(folder)), torch.float32).eval()
        if not whole.get("packing"):
            assert _held(made, tiny, chats, more, folder) == pytest.approx(summary["eval_loss"], abs=2e-4)
    if case in ("pissa", "olora"):  # a plain LoRA of twice the rank, for the base as it is
        config = json.loads((ctx.output / "adapter_config.json").read_text())
        assert config["init_lora_weights"] is True and config["r"] == 8
    if case in ("yarn", "dynamic"):
        assert refs.resolve_model(str(ctx.output)).meta[
            "rope" if case == "yarn" else "context"] == ({"rope_type": "yarn", "factor": 4.0} if case == "yarn" else 2048)
        text = made.config.get_text_config()
        assert text.rope_parameters["rope_type"] == case
    if case == "muon":
        before = load.model(refs.resolve_model(str(tiny)), torch.float32).state_dict()
        same = {name for name, weight in made.state_dict().items() if torch.equal(weight, before[name])}
        assert same == {name for name in before if "layers.0." in name or "embed" in name or "lm_head" in name}
        told = method("sft", "full").estimate(parse(whole)).notes
        assert any("parameters are trained" in note for note in told)


@pytest.mark.parametrize("more, field", [
    ({"init_lora_weights": "pissa", "use_dora": True}, "recipe"), ({"layers_to_transform": "1"}, "recipe"),
    ({"layers_to_transform": "one", "target_modules": "q_proj"}, "layers_to_transform"),
    ({"optim": "muonn"}, "optim"), ({"name": "p_tuning", "packing": True}, "recipe")])
def test_what_does_not_go_together_is_refused(more, field, tiny, chats):
    with pytest.raises(RecipeError) as refused:
        parse(values(tiny, chats, **more))
    assert field in refused.value.fields


@pytest.mark.parametrize("name, more, field", [
    ("lora", {"optim": "galore_adamw"}, "optim"), ("lora", {"loraplus_lr_ratio": 4.0, "optim": "sgd"}, "loraplus_lr_ratio"),
    ("lora", {"kernels": "liger"}, "kernels"), ("qlora", {"init_lora_weights": "loftq"}, "init_lora_weights"),
    ("lora", {"max_length": 2048}, "max_length"), ("full", {"rope_scaling": "linear", "max_length": 4096}, "max_length")])
def test_what_is_not_here_is_refused_in_its_field(name, more, field, tiny, chats):
    recipe = parse(values(tiny, chats, name, **more))
    with pytest.raises(StudioError) as refused:
        method("sft", name).check(recipe)
    assert refused.value.field == field


def test_kernels_are_offered_where_they_are(monkeypatch):
    from studio import hardware
    from studio.trainers import kernels

    assert not kernels.any_here()
    monkeypatch.setattr(kernels, "find_spec", lambda name: object() if name == "liger_kernel" else None)
    assert not kernels.any_here(), "no GPU"
    monkeypatch.setattr(hardware, "gpus", lambda: [{"name": "A GPU"}])
    assert kernels.here("liger") and kernels.any_here()
    assert kernels.arguments("liger") == {"use_liger_kernel": True} and not kernels.arguments("none")


def test_padding_free_gives_the_losses_of_padded_batches(tiny, chats, tmp_path):
    for free in (False, True):  # 60 chats of different lengths
        run(values(tiny, chats, padding_free=free, max_steps=4), tmp_path / str(free))
    assert series(tmp_path / "True", "loss") == pytest.approx(series(tmp_path / "False", "loss"), abs=1e-5)


def test_a_chat_with_a_longer_context(tiny, chats, tmp_path):
    """The engine that answers with an adapter stretches its base as the training did, and shares it with no other."""
    from studio.chat import manager
    from studio.chat.host import Host

    _, ctx = run(values(tiny, chats, rope_scaling="linear", max_length=1500, max_steps=2), tmp_path / "run")
    adapter, base = refs.resolve_model(str(ctx.output)), refs.resolve_model(str(tiny))
    assert manager.rope_of(adapter) == "linear:2.0" and manager._identity(adapter, base) != manager._identity(base, base)
    host = Host(str(tiny), rope=adapter.meta["rope"])
    host.add_adapter("tuned", str(ctx.output))
    assert host.context == 2048 and host.model.config.rope_parameters["factor"] == 2.0
    newest = refs.resolve_model(str(sorted(ctx.checkpoints.glob("checkpoint-*"))[-1]))
    assert newest.meta["rope"] == adapter.meta["rope"], "a checkpoint says so too"
