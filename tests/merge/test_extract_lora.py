"""A LoRA out of a tune: mergekit's own tensors, and an adapter that brings the base back to the tune."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.library import artifacts, refs
from studio.mergers import extract_lora
from studio.recipe import parse
from studio.registry import method
from studio.trainers import load
from tests.merge.conftest import tensors
from tests.train.conftest import run


def values(model, base="", **more) -> dict:
    return {"kind": "merge", "method": "extract_lora", "model": str(model), "base_model": str(base), "max_rank": 8} | more


def weights(ref) -> dict:
    model = refs.resolve_model(str(ref))
    return load.model(model, "float32", merge=model.is_adapter).state_dict()


def by_mergekit(arguments: list[str], out: Path) -> dict:
    from mergekit.scripts.extract_lora import main

    main.main(args=arguments + ["--out-path", str(out)], standalone_mode=False)
    return tensors(out)


@pytest.mark.parametrize("more", [{}, {"embed_lora": True, "skip_undecomposable": True}, {"distribute_scale": False, "max_rank": 3,
                                  "exclude_regexes": [r"mlp\.", "norm"]}], ids=["plain", "embeddings", "one-sided"])
def test_equals_mergekit(more, tiny, untied, tune, tmp_path):
    base = untied if "embed_lora" in more else tiny
    one = tune(1, base)
    _, ctx = run(values(one, base, skip_unchanged=False, **more), tmp_path / "run")
    flags = ["--model", str(one), "--base-model", str(base), "--max-rank", str(more.get("max_rank", 8))]
    flags += ["--embed-lora", "--skip-undecomposable"] if "embed_lora" in more else []
    flags += ["--no-distribute-scale", "-e", r"mlp\.", "-e", "norm"] if "exclude_regexes" in more else []
    wanted, made = by_mergekit(flags, tmp_path / "theirs"), tensors(ctx.output)
    assert made.keys() == wanted.keys() and len(made) > 10
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (ctx.output, tmp_path / "theirs")]
    for key in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "modules_to_save"):
        assert configs[0][key] == configs[1][key]
    assert set(configs[0]["target_modules"]) == set(configs[1]["target_modules"])


def test_full_rank_gives_the_tune_back(tiny, tune, tmp_path):
    one = tune(1)
    summary, ctx = run(values(one, tiny, max_rank=512), tmp_path / "run")
    back, wanted = weights(ctx.output), weights(one)
    for name, value in wanted.items():
        torch.testing.assert_close(back[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert summary["kept"] == pytest.approx(1, abs=1e-4)


def test_a_higher_rank_keeps_more(tiny, tune, tmp_path):
    one = tune(1)
    kept = [run(values(one, tiny, max_rank=rank), tmp_path / str(rank))[0]["kept"] for rank in (2, 16)]
    assert 0 < kept[0] < kept[1] < 1


def test_brings_the_base_towards_the_tune(tiny, chats, tmp_path):
    """A real tuning; its loss on the data: base, base with the extracted adapter, tune."""
    full = {"kind": "sft", "method": "full", "model": str(tiny), "dataset": str(chats), "max_steps": 30, "learning_rate": 5e-3,
            "max_length": 64, "eval_share": 0.1, "bf16": "off", "sample_prompts": [], "per_device_train_batch_size": 8}
    _, trained = run(full, tmp_path / "sft")
    _, ctx = run(values(trained.output, tiny, max_rank=16), tmp_path / "run")
    done, _ = run({"kind": "eval", "method": "compare", "models": [str(tiny), str(ctx.output), str(trained.output)],
                   "dataset": str(chats), "samples": 20, "rewards": []}, tmp_path / "compare")
    base, adapter, tuned = (line["loss"] for line in done["table"])
    assert tuned < base - 0.5 and adapter < base - 0.8 * (base - tuned)


def test_what_did_not_change_is_left_out(tiny, lora, tmp_path):
    adapter = lora(1, target_modules=["q_proj"])
    _, folded = run({"kind": "merge", "method": "adapter", "model": str(adapter)}, tmp_path / "fold")
    summary, ctx = run(values(folded.output, tiny), tmp_path / "run")
    assert {name.split(".")[-3] for name in tensors(ctx.output)} == {"q_proj"} and summary["copied"] == 0
    assert summary["modules"] == 2 and summary["kept"] == pytest.approx(1, abs=1e-4)  # rank 8 holds a LoRA of rank 4


def test_the_library_knows_the_base(tiny, tune, tmp_path, home):
    made = artifacts.add("model", "Tuned", tune(1), made_from=[(str(tiny), "base")])
    _, ctx = run(values(made["ref"]), home / "runs" / "r0extract")
    [row] = artifacts.register_run({"id": "r0extract", "name": "", "owner": None}, {"artifacts": ctx.artifacts})
    assert row["kind"] == "adapter" and {(p["role"], p["ref"]) for p in artifacts.get(row["id"])["parents"]} == {
        ("base", str(tiny)), ("parent", made["ref"])}
    model = refs.resolve_model(row["ref"])
    assert model.base == str(tiny) and model.meta["base_fingerprint"]
    assert str(tiny) == json.loads((ctx.output / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_an_adapter_of_lower_rank(tiny, lora, tmp_path):
    adapter = lora(1, r=8)
    summary, ctx = run(values(adapter, max_rank=4), tmp_path / "run")
    assert summary["rank"] == 4 and 0.4 < summary["kept"] < 1
    assert refs.resolve_model(str(ctx.output)).base == str(tiny)


def test_refused_before_the_start(tiny, tune, tmp_path):
    one = tune(1)
    for bad, field, word in [(values("", tiny), "model", "No model"), (values(one), "base_model", "not known"),
                             (values(one, one), "base_model", "the same"), (values(one, "starter"), "base_model", "another"),
                             (values(one, tiny, embed_lora=True), "embed_lora", "one table"),
                             (values(one, tiny, exclude_regexes=["("]), "exclude_regexes", "no regular expression")]:
        with pytest.raises(StudioError, match=word) as caught:
            method("merge", "extract_lora").check(parse(bad))
        assert caught.value.field == field


def test_nothing_to_extract(tiny, tmp_path):
    import shutil

    shutil.copytree(tiny, tmp_path / "copy")
    with pytest.raises(StudioError, match="the same, so there is nothing"):
        run(values(tmp_path / "copy", tiny), tmp_path / "run")
    with pytest.raises(StudioError, match="No module is left"):
        run(values(tmp_path / "copy", tiny, skip_unchanged=False, exclude_regexes=["."]), tmp_path / "none")
    assert not list((tmp_path / "none" / "output").iterdir())


def test_a_stop_leaves_nothing(tiny, tune, tmp_path):
    summary, ctx = run(values(tune(1), tiny), tmp_path / "run", stop_at=0.5)
    assert summary == {} and not ctx.artifacts and not list(ctx.output.iterdir())
    assert not (ctx.run_dir / "output.partial").exists()


def test_estimate_is_a_bound(tiny, tune, tmp_path):
    recipe = parse(values(tune(1), tiny))
    _, ctx = run(recipe.to_dict(), tmp_path / "run")
    size = (ctx.output / "adapter_model.safetensors").stat().st_size
    assert size <= extract_lora.ExtractLora.estimate(recipe).disk * 1.1
