"""Each way to quantize, from recipe to folder: it loads in transformers, answers, is smaller, and is what the library writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.quantizers import compressed
from studio.recipe import parse
from tests.quantize.conftest import greedy, perplexity, templated, tensors
from tests.train.conftest import QUESTIONS, events, run

# method, scheme, other settings, how many times the source's perplexity at most, share of the source's bytes at most
CASES = [("bitsandbytes", "int8", {}, 1.05, 0.75), ("bitsandbytes", "nf4", {}, 1.3, 0.62),
         ("bitsandbytes", "fp4", {"bnb_4bit_use_double_quant": False}, 1.4, 0.62),
         ("int", "W8A16", {}, 1.02, 0.77), ("int", "W4A16", {}, 1.4, 0.6), ("int", "W4A16_ASYM", {}, 1.4, 0.6),
         ("int", "W3A16", {}, 4, 0.55), ("int", "W8A8", {}, 1.05, 0.75), ("fp8", "FP8_DYNAMIC", {}, 1.1, 0.75),
         ("fp8", "FP8", {}, 1.1, 0.75), ("fp8", "NVFP4A16", {}, 1.4, 0.62),
         ("gptq", "W4A16", {}, 1.2, 0.6), ("gptq", "W8A8", {"actorder": "none"}, 1.05, 0.75),
         ("awq", "W4A16_ASYM", {"n_grid": 4}, 1.3, 0.6), ("awq", "W4A16", {"n_grid": 4, "duo_scaling": False}, 1.4, 0.6),
         ("smoothquant", "W8A8", {}, 1.05, 0.75), ("smoothquant", "W8A8", {"rounding": "rtn"}, 1.05, 0.75)]


def values(method: str, scheme: str, model: Path, data: Path, **more: Any) -> dict[str, Any]:
    """A recipe for one variant; groups of 32, since the tiny model is 64 wide."""
    listed = {"types" if method in ("bitsandbytes", "hqq") else "schemes": [scheme]}
    groups = {"group_size": 32} if method in ("gptq", "awq", "int") else {}
    return {"kind": "quantize", "method": method, "model": str(model), "dataset": str(data), "prove": False,
            "num_calibration_samples": 12, "max_seq_length": 64, **listed, **groups, **more}


@pytest.mark.parametrize(("method", "scheme", "more", "worse", "share"), CASES,
                         ids=[f"{c[0]}-{c[1]}{'-' + '-'.join(map(str, c[2].values())) if c[2] else ''}" for c in CASES])
def test_variant(method, scheme, more, worse, share, taught, chats, tmp_path):
    import transformers

    recipe = values(method, scheme, taught, chats, **more)
    summary, ctx = run(recipe, tmp_path / "run")
    [made] = summary["variants"]
    folder = Path(made["path"])
    assert folder == ctx.output / scheme and made["variant"] == scheme
    assert not list(ctx.output.glob("*.part"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = transformers.AutoModelForCausalLM.from_pretrained(taught, dtype="float32")
    after = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert after.config.quantization_config is not None
    assert perplexity(before, tokenizer) < 1.6, "the source knows its answers, so there is something to lose"
    assert perplexity(after, tokenizer) < worse * perplexity(before, tokenizer)
    assert [greedy(before, tokenizer, q) for q, _ in QUESTIONS] == [a for _, a in QUESTIONS]
    right = sum(greedy(after, tokenizer, q) == a for q, a in QUESTIONS)
    assert right >= (6 if worse <= 1.1 else 4 if worse < 2 else 0)
    stored = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert stored < share * (taught / "model.safetensors").stat().st_size
    [artifact] = ctx.artifacts
    meta = artifact["meta"]
    assert artifact["kind"] == "model" and artifact["parents"] == [{"ref": str(taught), "role": "source"}]
    assert meta["format"] == ("bitsandbytes" if method == "bitsandbytes" else "compressed-tensors")
    assert scheme in meta["quantization"] and meta["method"] == f"quantize/{method}" and meta["variant"] == scheme
    assert meta["parameters"] == sum(p.numel() for p in before.parameters()) and meta["seconds"] > 0
    assert meta["bits"] == pytest.approx(stored * 8 / meta["parameters"], abs=0.01)
    card = (folder / "README.md").read_text()
    assert meta["quantization"] in card and f"method: {method}" in card and "AutoModelForCausalLM" in card
    assert tokenizer.chat_template == transformers.AutoTokenizer.from_pretrained(taught).chat_template


@pytest.mark.parametrize("method", ["gptq", "awq", "smoothquant", "int"])
def test_the_library_called_directly_writes_the_same(method, taught, chats, tmp_path):
    """A plain script of llmcompressor with the same texts gives the same bytes."""
    import transformers
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    scheme = {"gptq": "W4A16", "awq": "W4A16_ASYM", "smoothquant": "W8A8", "int": "W4A16"}[method]
    summary, _ = run(values(method, scheme, taught, chats), tmp_path / "run")
    model = transformers.AutoModelForCausalLM.from_pretrained(taught, dtype="bfloat16")
    tokenizer = transformers.AutoTokenizer.from_pretrained(taught)
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": method != "awq"}
    given = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
    recipe = {"gptq": lambda: [GPTQModifier(**given)], "int": lambda: [QuantizationModifier(**given)],
              "awq": lambda: [AWQModifier(), QuantizationModifier(**given)],
              "smoothquant": lambda: [SmoothQuantModifier(smoothing_strength=0.8),
                                      GPTQModifier(scheme="W8A8", targets="Linear", ignore=["lm_head"])]}[method]()
    rows = [json.loads(line)["messages"] for line in chats.read_text().splitlines()[:12]]
    ids = [tokenizer.apply_chat_template(row, return_dict=False)[:64] for row in rows]
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    more = {} if method == "int" else {"dataset": data, "num_calibration_samples": 12, "max_seq_length": 64,
                                       "shuffle_calibration_samples": False}
    kept = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda *args, **kwargs: None  # AWQ without an accelerator
    try:
        oneshot(model=model, recipe=recipe, **more)
    finally:
        IntermediatesCache.pin_memory = kept
    model.save_pretrained(tmp_path / "plain", save_compressed=True)
    ours, plain = tensors(summary["variants"][0]["path"]), tensors(tmp_path / "plain")
    assert any(name.endswith(("weight_packed", "weight_scale")) for name in plain)
    assert ours == plain


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_bitsandbytes_called_directly_writes_the_same(kind, taught, chats, tmp_path):
    import torch
    import transformers

    summary, _ = run(values("bitsandbytes", kind, taught, chats), tmp_path / "run")
    config = transformers.BitsAndBytesConfig(load_in_8bit=True) if kind == "int8" else transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
    model = transformers.AutoModelForCausalLM.from_pretrained(taught, quantization_config=config, dtype=torch.bfloat16,
                                                              device_map="cpu")
    model.save_pretrained(tmp_path / "plain")
    assert tensors(summary["variants"][0]["path"]) == tensors(tmp_path / "plain")


def test_several_variants_are_folders_of_their_own(taught, chats, tmp_path):
    summary, ctx = run(values("int", "", taught, chats) | {"schemes": ["W8A16", "W4A16"]}, tmp_path / "run")
    assert [made["variant"] for made in summary["variants"]] == ["W8A16", "W4A16"]
    assert {Path(a["path"]).name for a in ctx.artifacts} == {"W8A16", "W4A16"}
    sizes = {made["variant"]: made["size"] for made in summary["variants"]}
    assert sizes["W4A16"] < sizes["W8A16"]
    from studio.library import refs

    model = refs.resolve_model(str(ctx.output / "W4A16"))
    assert model.meta["format"] == "compressed-tensors" and model.meta["quantization"] == "W4A16"
    assert model.meta["parameters"] == refs.resolve_model(str(taught)).meta["parameters"]


def test_progress_and_stop_inside_gptq(taught, chats, tmp_path):
    """Calibration tells its progress by layers; a stop takes hold between them, leaves nothing, and keeps what was made."""
    recipe = values("gptq", "", taught, chats) | {"schemes": ["W4A16", "W8A16"]}
    run(recipe | {"schemes": ["W4A16"]}, tmp_path / "whole")
    told = [e["done"] / e["total"] for e in events(tmp_path / "whole", "progress")]
    assert told == sorted(told) and told[-1] == 1 and any(0 < share < 1 for share in told)
    summary, ctx = run(recipe, tmp_path / "stopped", stop_at=1.3)  # within the second variant
    assert [made["variant"] for made in summary["variants"]] == ["W4A16"]
    assert [p.name for p in ctx.output.iterdir()] == ["W4A16"] and len(ctx.artifacts) == 1


def test_the_library_is_left_as_it_was_found(taught, chats, tmp_path):
    from llmcompressor.modifiers.transform.awq import base as awq
    from llmcompressor.pipelines.cache import IntermediatesCache
    from llmcompressor.pipelines.sequential import pipeline

    before = (pipeline.tqdm, awq.tqdm, IntermediatesCache.pin_memory)
    run(values("awq", "W4A16", taught, chats, n_grid=4), tmp_path / "run")
    assert (pipeline.tqdm, awq.tqdm, IntermediatesCache.pin_memory) == before


def test_calibration_reads_what_the_model_reads(taught, chats):
    import transformers

    from studio.quantizers import calibration

    tokenizer = transformers.AutoTokenizer.from_pretrained(taught)
    recipe = parse(values("gptq", "W4A16", taught, chats))
    rows = [json.loads(line)["messages"] for line in chats.read_text().splitlines()]
    assert calibration.tokens(recipe, tokenizer) == [tokenizer.apply_chat_template(row, return_dict=False)[:64]
                                                     for row in rows[:12]]
    assert calibration.held_out(recipe, tokenizer, 5) == [tokenizer.apply_chat_template(row, tokenize=False)
                                                          for row in rows[12:17]]
    assert calibration.best_read([3.0, 1.0, 2.0, 9.0]) == [1, 2]
    assert len(templated(tokenizer)) == 6


def test_sizes_before_the_start_come_true(taught, chats, tmp_path):
    from studio.quantizers import plan
    from studio.registry import method

    for name, scheme in (("int", "W4A16"), ("int", "W8A16"), ("bitsandbytes", "nf4"), ("fp8", "FP8_DYNAMIC")):
        recipe = parse(values(name, scheme, taught, chats))
        [told] = plan.sizes(method("quantize", name), recipe)
        summary, _ = run(values(name, scheme, taught, chats), tmp_path / name / scheme)
        assert told["size"] == pytest.approx(summary["variants"][0]["size"], rel=0.25), (name, scheme)
        assert method("quantize", name).estimate(recipe).disk == pytest.approx(told["size"])
    assert compressed.SCHEMES.keys() >= {"W4A16", "FP8"}
