"""Every PEFT method: what should be trained is, the rest is not, and what is saved answers as it did when training ended."""

from __future__ import annotations

import pytest

from studio import settings
from studio.library import refs
from tests.train.conftest import run, series
from tests.train.test_script import execute

METHODS = {"lora": {}, "qlora": {}, "loha": {}, "lokr": {}, "adalora": {}, "vera": {"r": 32}, "oft": {"oft_block_size": 16},
           "ia3": {}, "prefix_tuning": {}, "p_tuning": {"num_virtual_tokens": 8}, "prompt_tuning": {"num_virtual_tokens": 8}}


def values(tiny, chats, method, **more):
    return {"kind": "sft", "method": method, "model": str(tiny), "dataset": str(chats), "max_length": 64, "max_steps": 12,
            "logging_steps": 1, "per_device_train_batch_size": 8, "bf16": "off"} | METHODS[method] | more


@pytest.mark.parametrize("method", METHODS)
def test_learns_saves_and_loads(method, tiny, chats, tmp_path):
    import torch
    from peft import PeftModel

    from studio.recipe import parse
    from studio.trainers import data, load

    summary, ctx = run(values(tiny, chats, method), tmp_path / "run")
    assert 0 < summary["trained_parameters"] < 0.5 * summary["parameters"]
    losses = series(tmp_path / "run", "eval_loss")
    assert losses[max(losses)] < losses[0], "it learned something"
    assert ctx.artifacts[0]["kind"] == "adapter"
    ref = refs.resolve_model(str(ctx.output))
    made = load.model(ref, torch.float32).eval()
    base = load.model(refs.resolve_model(str(tiny)), torch.float32).eval()
    assert isinstance(made, PeftModel)
    recipe = parse(values(tiny, chats, method))
    held = data.Encoder(load.tokenizer(ref), recipe, True).prepare(data.read(recipe)[1]).samples
    found = []
    for model in (made, base):
        total = count = 0
        for sample in held:
            labels = torch.tensor([sample.labels])
            with torch.no_grad():
                loss = model(input_ids=torch.tensor([sample.input_ids]), labels=labels).loss
            learned = int((labels[:, 1:] != -100).sum())
            total, count = total + float(loss) * learned, count + learned
        found.append(total / count)
    # As loaded from disk it has the validation loss that the run told, and the base the one before. Learned tokens, which
    # begin at random, change the model from the start.
    # (QLoRA's base is loaded whole here, which is a little better than in 4 bits.)
    near = 2e-2 if method == "qlora" else 2e-4
    assert found[0] == pytest.approx(summary["eval_loss"], abs=near)
    assert "tuning" in method or found[1] == pytest.approx(losses[0], abs=near)


@pytest.mark.parametrize("method", ["lora", "adalora", "ia3", "oft", "prefix_tuning", "p_tuning"])
def test_the_chat_engine_answers_with_it(method, tmp_path):
    """Greedy text of the engine is that of PEFT's own model."""
    import threading

    import torch

    from studio.chat.host import Host, Sampling
    from studio.trainers import load

    _, ctx = run(values("starter", "shipped:polite", method, eval_share=0), tmp_path / "run")
    made = load.model(refs.resolve_model(str(ctx.output)), torch.float32).eval()
    host = Host(str(settings.STARTER))
    host.add_adapter("tuned", str(ctx.output))
    ids, _ = host.encode([{"role": "user", "content": "What is the opposite of hot?"}], "tuned")
    said: list[str] = []
    host.generate(ids, Sampling(temperature=0, max_tokens=12), said.append, threading.Event(), "tuned")
    wanted = made.generate(input_ids=torch.tensor([ids]), max_new_tokens=12, do_sample=False, use_cache=True)[0, len(ids):]
    assert "".join(said).strip() == host.tokenizer.decode(wanted, skip_special_tokens=True).strip() != ""


@pytest.mark.parametrize("method", [name for name in METHODS if name != "lora"])
def test_the_script_gives_the_same_losses(method, tiny, chats, tmp_path, monkeypatch):
    run(values(tiny, chats, method, max_steps=6), tmp_path / "studio")
    theirs = {h["step"]: h["loss"] for h in execute(values(tiny, chats, method, max_steps=6), tmp_path, monkeypatch) if "loss" in h}
    ours = series(tmp_path / "studio", "loss")
    assert theirs.keys() == ours.keys() and len(ours) == 6
    # TRL keeps the adapter of a quantized base in bfloat16, where the last digits of a loss decide how a weight is rounded.
    assert ours == pytest.approx(theirs, abs=0.08 if method == "qlora" else 1e-4)
    assert ours[1] == pytest.approx(theirs[1], abs=5e-4)


@pytest.mark.parametrize("method", ["adalora", "vera", "oft", "p_tuning"])
def test_stopped_and_resumed(method, tiny, chats, tmp_path):
    whole = values(tiny, chats, method, save_steps=4, eval_steps=4)
    run(whole, tmp_path / "whole")
    run(whole, tmp_path / "cut", stop_at=6)
    run(whole, tmp_path / "cut", resume=True)
    a, b = series(tmp_path / "whole", "loss"), series(tmp_path / "cut", "loss")
    assert b == pytest.approx(a, abs=1e-6)
