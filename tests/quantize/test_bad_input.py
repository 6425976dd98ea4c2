"""What cannot be quantized is refused early and in words; what fails in the middle leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from studio import hardware
from studio.errors import StudioError
from studio.extras import MissingExtra
from studio.recipe import RecipeError, parse
from studio.registry import FAMILIES, method
from tests.quantize.conftest import greedy, perplexity
from tests.train.conftest import QUESTIONS, run

METHODS = ["bitsandbytes", "gptq", "awq", "smoothquant", "fp8", "int", "learn"]


def refused(values: dict) -> StudioError:
    recipe = parse(values)
    with pytest.raises(StudioError) as err:
        method("quantize", recipe.method).check(recipe)
    assert err.value.message and err.value.hint
    return err.value


@pytest.fixture
def reward(taught, tmp_path) -> Path:
    """A model that gives a number instead of writing."""
    folder = tmp_path / "judge"
    shutil.copytree(taught, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_sources_that_are_refused(name, reward, taught, tmp_path):
    assert "reward model" in refused({"kind": "quantize", "method": name, "model": str(reward)}).message
    assert refused({"kind": "quantize", "method": name, "model": ""}).field == "model"
    assert refused({"kind": "quantize", "method": name, "model": str(tmp_path / "none")}).field == "model"
    assert refused({"kind": "quantize", "method": name, "model": "shipped:polite"}).field == "model"
    packed = tmp_path / "packed"
    shutil.copytree(taught, packed)
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    told = refused({"kind": "quantize", "method": name, "model": str(packed)})
    assert "already" in told.message and told.field == "model"


def test_a_gguf_file_is_no_source(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "m.gguf").write_bytes(b"GGUF" + bytes(64))
    for name in METHODS:
        assert refused({"kind": "quantize", "method": name, "model": str(tmp_path / "m")}).field == "model"


@pytest.mark.parametrize("name", ["gptq", "awq", "smoothquant", "fp8"])
def test_texts_that_are_missing(name, taught, tmp_path):
    values = {"kind": "quantize", "method": name, "model": str(taught)} | \
        ({"group_size": 32} if name in ("gptq", "awq") else {}) | ({"schemes": ["FP8"]} if name == "fp8" else {})
    assert refused(values | {"dataset": ""}).field == "dataset"
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert refused(values | {"dataset": str(empty)}).field == "dataset"
    useless = tmp_path / "useless.jsonl"
    useless.write_text('{"messages": []}\n' * 5)
    with pytest.raises(StudioError) as err:
        run(values | {"dataset": str(useless), "prove": False}, tmp_path / "run")
    assert err.value.field == "dataset"


def test_no_texts_needed(taught, tmp_path):
    for name in ("bitsandbytes", "int", "fp8"):
        recipe = parse({"kind": "quantize", "method": name, "model": str(taught), "dataset": "", "prove": False}
                       | ({"group_size": 32} if name == "int" else {}))
        method("quantize", name).check(recipe)


def test_choices(taught):
    values = {"kind": "quantize", "method": "int", "model": str(taught), "group_size": 32}
    assert refused(values | {"schemes": []}).field == "schemes"
    assert "twice" in refused(values | {"schemes": ["W8A16", "W8A16"]}).message
    with pytest.raises(RecipeError) as err:
        parse(values | {"schemes": ["W5A5"]})
    assert err.value.field == "schemes"
    with pytest.raises(RecipeError):
        parse({"kind": "quantize", "method": "gptq", "dampening_frac": 0})


def test_a_group_that_does_not_divide_the_rows(taught, tmp_path):
    """The tiny model is 64 and 128 wide: groups of 128 fit one, and 64 is a row of its own."""
    odd = tmp_path / "odd"
    shutil.copytree(taught, odd)
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"hidden_size": 96, "intermediate_size": 160}))
    told = refused({"kind": "quantize", "method": "int", "schemes": ["W4A16"], "model": str(odd), "group_size": 64})
    assert told.field == "group_size" and "32" in told.hint
    summary, _ = run({"kind": "quantize", "method": "int", "schemes": ["W4A16"], "model": str(taught), "group_size": -1,
                      "prove": False}, tmp_path / "rows")
    assert summary["variants"][0]["bits"] > 4


def test_exl3_needs_a_gpu(taught, monkeypatch):
    values = {"kind": "quantize", "method": "exl3", "model": str(taught)}
    monkeypatch.setattr(hardware, "gpus", lambda fresh=False: [])
    assert "NVIDIA" in refused(values).message
    monkeypatch.setattr(hardware, "gpus", lambda fresh=False: [{"name": "x", "total": 1}])
    with pytest.raises(MissingExtra):
        method("quantize", "exl3").check(parse(values))


def test_what_the_exl3_converter_is_told_and_tells(taught, tmp_path, monkeypatch):
    """The real converter needs a GPU; here a stand-in with its options and lines takes its place."""
    from studio.jobs.context import Context
    from studio.library import refs
    from studio.quantizers import exl3

    (tmp_path / "standin.py").write_text(
        "import argparse, pathlib, shutil\np = argparse.ArgumentParser()\nfor n in 'iowb':\n    p.add_argument('-' + n)\n"
        "p.add_argument('-hb', type=int)\na = p.parse_args()\npathlib.Path(a.w).mkdir()\n"
        "for n in range(2):\n    print(f' -- Quantized: model.layers.{n}.mlp.up_proj  bpw: 4.00', flush=True)\n"
        "assert float(a.b) == 4 and a.hb == 6\nshutil.copytree(a.i, a.o, dirs_exist_ok=True)\nprint(' -- All done')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(exl3, "MODULE", "standin")
    recipe, ctx, model = exl3.Exl3Recipe(model=str(taught)), Context(tmp_path / "run"), refs.resolve_model(str(taught))
    (ctx.output / "4.0").mkdir()
    facts = exl3.Exl3.make(recipe, ctx, model, "4.0", ctx.output / "4.0")
    assert facts["format"] == "exl3" and facts["quantization"] == "4.0 bits" and facts["bits"] > 0
    assert not (ctx.run_dir / "exl3").exists()
    assert '"done":2' in (ctx.run_dir / "events.jsonl").read_text().replace(" ", "")
    monkeypatch.setattr(exl3, "MODULE", "nowhere_to_be_found")
    with pytest.raises(StudioError, match="nowhere_to_be_found"):
        exl3.Exl3.make(recipe, ctx, model, "4.0", ctx.output / "4.0")


def test_hqq_is_an_optional_part(taught, monkeypatch):
    from studio import extras

    monkeypatch.setattr(extras, "installed", lambda name: False)
    with pytest.raises(MissingExtra):
        method("quantize", "hqq").check(parse({"kind": "quantize", "method": "hqq", "model": str(taught)}))


def test_a_disk_that_is_too_small(taught, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10_000))
    told = refused({"kind": "quantize", "method": "bitsandbytes", "model": str(taught)})
    assert told.field == "model" and "disk" in told.message


def test_a_disk_that_runs_full_in_the_middle(taught, chats, tmp_path, monkeypatch):
    import transformers

    def full(self, folder, *args, **kwargs):
        Path(folder, "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(OSError):
        run({"kind": "quantize", "method": "bitsandbytes", "model": str(taught), "prove": False}, tmp_path / "run")
    assert not list((tmp_path / "run" / "output").iterdir())


def test_one_variant_that_fails_does_not_take_the_others_along(taught, chats, tmp_path, monkeypatch):
    from studio.quantizers import integers

    real = integers.Int.modifiers.__func__

    def some(cls, recipe, scheme):
        if scheme == "W4A16":
            raise StudioError("It cannot be.", "Nothing helps.")
        return real(cls, recipe, scheme)

    monkeypatch.setattr(integers.Int, "modifiers", classmethod(some))
    values = {"kind": "quantize", "method": "int", "model": str(taught), "group_size": 32, "prove": False}
    summary, ctx = run(values | {"schemes": ["W4A16", "W8A16"]}, tmp_path / "two")
    assert [made["variant"] for made in summary["variants"]] == ["W8A16"] and len(ctx.artifacts) == 1
    assert "W4A16: It cannot be." in (ctx.run_dir / "events.jsonl").read_text()
    with pytest.raises(StudioError, match="It cannot be."):
        run(values | {"schemes": ["W4A16"]}, tmp_path / "one")


def test_an_adapter_is_folded_first(taught, chats, tmp_path):
    """The variant of an adapter answers as base and adapter together."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(taught, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(taught)
    model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    asked = tokenizer.apply_chat_template([{"role": "user", "content": QUESTIONS[0][0]},
                                           {"role": "assistant", "content": "A cow says moo."}], return_tensors="pt",
                                          return_dict=True)["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        model(asked, labels=asked).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    summary, ctx = run({"kind": "quantize", "method": "bitsandbytes", "types": ["int8"], "model": str(tmp_path / "adapter"),
                        "prove": False}, tmp_path / "run")
    made = transformers.AutoModelForCausalLM.from_pretrained(summary["variants"][0]["path"])
    assert greedy(made, tokenizer) == "A cow says moo." != greedy(
        transformers.AutoModelForCausalLM.from_pretrained(taught), tokenizer)
    assert not (ctx.run_dir / "folded").exists() and perplexity(made, tokenizer) > 1
    assert ctx.artifacts[0]["parents"] == [{"ref": str(tmp_path / "adapter"), "role": "source"}]


def test_every_method_has_words_for_its_group():
    words = json.loads((Path(__file__).parents[2] / "assets/locales/en/quantize.json").read_text())
    for _, made in FAMILIES["quantize"].items():
        assert not made.group or f"methods.quantize.{made.group}" in words
