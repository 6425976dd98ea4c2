"""Mixture of experts: bit for bit what mergekit's own command line writes, and a model that opens and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from studio.errors import StudioError
from studio.evals import compare
from studio.library import refs
from studio.mergers import moe, tools
from studio.recipe import parse
from studio.registry import method
from tests.merge.conftest import tensors
from tests.train.conftest import events, run

PROMPTS = ["What colour is grass? | What colour is the sky?", "How many legs has a dog? | What is 2 plus 3?"]


def values(base, experts, **more) -> dict:
    return {"kind": "merge", "method": "moe", "base_model": str(base), "experts": [str(e) for e in experts],
            "positive_prompts": PROMPTS} | more


def by_mergekit(config: dict, folder: Path, alone: bool) -> dict:
    """Tensors that ``mergekit-moe`` writes, called directly; ``alone`` in a process of its own."""
    path, out = folder / "moe.yml", folder / "out"
    path.write_text(yaml.safe_dump(config))
    arguments = [str(path), str(out), "--random-seed", "42"]
    if alone:
        done = subprocess.run([sys.executable, "-m", "mergekit.scripts.moe", *arguments], capture_output=True, text=True,
                              env=os.environ | {"HF_HUB_OFFLINE": "1"})
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        from mergekit.scripts.moe import main

        main.main(args=arguments, standalone_mode=False)
    return tensors(out)


def logits(folder, text="What colour is grass?"):
    model = refs.resolve_model(str(folder))
    words, net = compare.ready(model)
    ids = words(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return net(input_ids=ids).logits


@pytest.mark.parametrize(("mode", "more"), [("hidden", {"negative_prompts": ["-", "Where do fish live?"]}), ("hidden_avg", {}),
                                            ("cheap_embed", {}), ("random", {})])
def test_equals_mergekit(mode, more, tiny, tune, tmp_path):
    two = [tune(1), tune(2)]
    summary, ctx = run(values(tiny, two, gate_mode=mode, **more), tmp_path / "run")
    config = {"base_model": str(tiny), "gate_mode": mode, "experts_per_token": 2, "architecture": "Mixtral", "experts": [
        {"source_model": str(folder)} | ({} if mode == "random" else {"positive_prompts": line.split(" | ")})
        for folder, line in zip(two, PROMPTS, strict=True)]}
    if more:
        config["experts"][1]["negative_prompts"] = ["Where do fish live?"]
    wanted, made = by_mergekit(config, tmp_path, alone=mode == "hidden"), tensors(ctx.output)
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)
    assert summary["architecture"] == "mixtral" and summary["parameters"] == sum(t.numel() for t in wanted.values())


def test_opens_in_the_studio_and_answers(tiny, tune, tmp_path, chats):
    _, ctx = run(values(tiny, [tune(1), tune(2)]), tmp_path / "run")
    model = refs.resolve_model(str(ctx.output))
    assert model.meta["architecture"] == "MixtralForCausalLM" and model.meta["chat_template"]
    done, _ = run({"kind": "eval", "method": "compare", "models": [str(tiny), str(ctx.output)], "dataset": str(chats), "samples": 4,
                   "max_new_tokens": 4}, tmp_path / "compare")
    assert all(line["perplexity"] > 1 and line["tokens_per_second"] for line in done["table"])
    assert [p["role"] for p in ctx.artifacts[0]["parents"]] == ["base", "parent", "parent"]
    card = (ctx.output / "README.md").read_text()
    assert "mergekit-moe" in card and "not known" in card
    words = json.loads((ctx.output / "tokenizer_config.json").read_text())
    assert words["pad_token"] == json.loads((tiny / "tokenizer_config.json").read_text())["pad_token"]
    assert words.get("padding_side", "right") == "right"  # mergekit's own script leaves it at left


def test_equal_experts_answer_as_one(tiny, tmp_path):
    recipe = values(tiny, [tiny, tiny], gate_mode="random", allow_all_same=True)
    _, ctx = run(recipe, tmp_path / "run")
    torch.testing.assert_close(logits(ctx.output), logits(tiny), rtol=1e-4, atol=1e-4)


def test_an_adapter_is_folded_into_its_expert(tiny, lora, tune, tmp_path):
    adapter, other = lora(1), tune(2)
    _, ctx = run(values(tiny, [adapter, other]), tmp_path / "run")
    folded, _ = run({"kind": "merge", "method": "adapter", "model": str(adapter)}, tmp_path / "fold")
    whole, made = tensors(tmp_path / "fold" / "output"), tensors(ctx.output)
    down = made["model.layers.0.mlp.experts.down_proj"]
    torch.testing.assert_close(down[0], whole["model.layers.0.mlp.down_proj.weight"])
    assert not (tmp_path / "run" / "folded").exists()


def test_reads_mergekits_own_file(tiny, tune, tmp_path):
    text = yaml.safe_dump({"kind": "merge", "method": "moe", "base_model": str(tiny), "gate_mode": "cheap_embed", "experts": [
        {"source_model": str(tune(1)), "positive_prompts": ["What colour is grass?", "What colour is the sky?"]},
        {"source_model": "starter", "positive_prompts": ["How many legs has a dog?"], "negative_prompts": ["Hello"]}]})
    recipe = parse(yaml.safe_load(text))
    assert recipe.positive_prompts == ["What colour is grass? | What colour is the sky?", "How many legs has a dog?"]
    assert recipe.negative_prompts == ["-", "Hello"] and recipe.experts[1] == "starter"
    written = moe.config(recipe, ["b", "e1", "e2"], "mixtral")
    assert written["experts"][1] == {"source_model": "e2", "positive_prompts": ["How many legs has a dog?"],
                                     "negative_prompts": ["Hello"]}
    with pytest.raises(StudioError, match="An expert has"):
        parse(values(tiny, []) | {"experts": [{"source_model": "starter", "weight": 1}]})


def test_refused_before_the_start(tiny, tune, tmp_path):
    two = [tune(1), tune(2)]
    for bad, field, word in [(values(tiny, two[:1]), "experts", "at least two"),
                             (values(tiny, two, positive_prompts=PROMPTS[:1]), "positive_prompts", "1 lines"),
                             (values(tiny, two, positive_prompts=[PROMPTS[0]] * 2), "positive_prompts", "the same prompts"),
                             (values(tiny, two, positive_prompts=[PROMPTS[0], "-"]), "positive_prompts", "Expert 2 has no"),
                             (values(tiny, two, experts_per_token=3), "experts_per_token", "3 of 2"),
                             (values(tiny, [two[0]] * 2), "experts", "All experts are the same"),
                             (values(tiny, [two[0], "starter"]), "experts", "another"),
                             (values(tiny, two, architecture="qwen3"), "architecture", "cannot be made of llama"),
                             (values(tiny, two, shared_expert=str(tiny)), "shared_expert", "no shared expert"),
                             (values(tmp_path / "gone", two), "base_model", "no model")]:
        with pytest.raises(StudioError, match=word) as caught:
            method("merge", "moe").check(parse(bad))
        assert caught.value.field == field, word


def test_a_stop_and_a_failure_leave_nothing(tiny, tune, tmp_path, monkeypatch):
    two = [tune(1), tune(2)]
    summary, ctx = run(values(tiny, two), tmp_path / "run", stop_at=0.6)
    assert summary == {} and not ctx.artifacts and not list(ctx.output.iterdir())
    assert not (ctx.run_dir / "output.partial").exists() and not (ctx.run_dir / "folded").exists()
    monkeypatch.setattr(moe.Moe, "_finished", staticmethod(lambda *args: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        run(values(tiny, two), tmp_path / "again")
    assert not list((tmp_path / "again" / "output").iterdir()) and not (tmp_path / "again" / "output.partial").exists()


def test_progress_and_estimate(tiny, tune, tmp_path):
    recipe = parse(values(tiny, [tune(1), tune(2)]))
    found = method("merge", "moe").estimate(recipe)
    summary, ctx = run(recipe.to_dict(), tmp_path / "run")
    assert abs(found.disk - tools.parameters(ctx.output) * 4) < 0.02 * found.disk and found.memory
    shares = [e["done"] / e["total"] for e in events(ctx.run_dir, "progress")]
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_families(kind, tiny, tmp_path):
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(tiny)
    made = []
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        cls = {"qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
               "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM)}[kind]
        config = cls[0](vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                        num_attention_heads=2, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
                        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None)
        cls[1](config).save_pretrained(tmp_path / str(seed))
        words.save_pretrained(tmp_path / str(seed))
        made.append(tmp_path / str(seed))
    more = {"shared_expert": str(made[0]), "shared_prompts": "Hello"} if kind == "qwen2" else {}
    summary, ctx = run(values(made[0], made[1:], **more), tmp_path / "run")
    assert summary["architecture"] == {"qwen2": "qwen", "qwen3": "qwen3"}[kind]
    assert torch.isfinite(logits(ctx.output)).all()
