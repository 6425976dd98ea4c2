"""GGUF files and quantized folders are models like any other, until somebody wants to change their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from studio import api, settings
from studio.errors import StudioError
from studio.gguf import convert
from studio.library import artifacts, modelinfo, refs
from studio.recipe import parse
from studio.registry import method


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "starter-gguf"
    folder.mkdir()
    convert.convert(settings.STARTER, folder / "starter-f16.gguf", "f16")
    (folder / "README.md").write_text("# Starter F16\n")
    return folder


@pytest.fixture(scope="module")
def nf4(taught, tmp_path_factory) -> Path:
    """The tiny taught model as bitsandbytes writes it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    folder = tmp_path_factory.mktemp("models") / "nf4"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    AutoModelForCausalLM.from_pretrained(taught, quantization_config=config, device_map="cpu").save_pretrained(folder)
    AutoTokenizer.from_pretrained(taught).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def packed(taught, tmp_path_factory) -> Path:
    """The same as compressed-tensors, four bits in 32-bit words."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("models") / "w4a16"
    model = AutoModelForCausalLM.from_pretrained(taught)
    groups = {"all": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": True,
                                                         "strategy": "group", "group_size": 32}}}
    oneshot(model=model, recipe=[QuantizationModifier(config_groups=groups, ignore=["lm_head"])])
    model.save_pretrained(folder, save_compressed=True)
    AutoTokenizer.from_pretrained(taught).save_pretrained(folder)
    return folder


def register(folder: Path, home: Path, name: str, meta: dict) -> str:
    """A copy in the workspace, as a quantization of the starter."""
    place = shutil.copytree(folder, home / name)
    return artifacts.add("model", name, place, meta=meta, made_from=[("starter", "source")])["ref"]


def refused(values: dict, field: str = "model") -> StudioError:
    recipe = parse(values)
    with pytest.raises(StudioError) as err:
        method(recipe.kind, recipe.method).check(recipe)
    assert err.value.field == field
    return err.value


def test_facts_of_a_gguf_folder_and_its_file(gguf):
    starter = modelinfo.describe(settings.STARTER)
    for place in (gguf, gguf / "starter-f16.gguf"):
        model = refs.resolve_model(str(place))
        meta = model.meta
        assert (meta["format"], meta["quantization"], meta["adapter"], meta["reward"]) == ("gguf", "F16", False, False)
        assert meta["parameters"] == starter["parameters"] and meta["size"] == (gguf / "starter-f16.gguf").stat().st_size
        assert all(meta[key] == starter[key] for key in ("context", "vocab_size", "layers", "chat_template", "tokenizer"))
        assert "template" not in meta and model.path == place


def test_packed_weights_are_counted_as_what_they_hold(taught, nf4, packed):
    whole = modelinfo.describe(taught)
    assert (whole["format"], whole["quantization"]) == ("", "")
    for folder, kind, word in ((nf4, "bitsandbytes", "nf4"), (packed, "compressed-tensors", "W4A16")):
        found = modelinfo.describe(folder)
        assert (found["format"], found["quantization"]) == (kind, word)
        assert found["parameters"] == whole["parameters"] and found["size"] < whole["size"]


def test_the_list_of_models_says_what_they_are(home, gguf):
    meta = {"format": "gguf", "quantization": "Q4_K_M", "size": 1_812_345, "parameters": 2_890_000, "method": "quantize/gguf"}
    register(gguf, home, "Starter Q4_K_M", meta)
    found = next(m for m in api.models() if m["label"] == "Starter Q4_K_M")
    assert found["detail"] == "GGUF Q4_K_M · 1.81 MB · 2.89M parameters" and found["kind"] == "model"


@pytest.mark.parametrize("values", [{"kind": "sft", "method": "lora"}, {"kind": "sft", "method": "full"},
                                    {"kind": "sft", "method": "qlora"}, {"kind": "pretrain", "method": "continued"},
                                    {"kind": "align", "method": "dpo", "dataset": "shipped:preferences"}])
def test_gguf_is_refused_where_weights_are_trained(home, gguf, values, chats):
    ref = register(gguf, home, "Variant", {"format": "gguf", "quantization": "F16"})
    err = refused({"dataset": str(chats), **values, "model": ref})
    assert "GGUF file, which can be run but not trained" in err.message
    assert err.hint == "Choose what it was made from: Starter."


def test_a_single_file_is_not_published(gguf):
    from studio.publishers import hub

    with pytest.raises(StudioError) as err:
        hub._local(str(gguf / "starter-f16.gguf"))
    assert "single file" in err.value.message and err.value.field == "model"
    assert hub._local(str(gguf)).path == gguf


def test_where_the_source_is_not_known_the_hint_says_less(gguf, chats):
    err = refused({"kind": "sft", "method": "lora", "model": str(gguf), "dataset": str(chats)})
    assert err.hint == "Choose the model that it was made from."


def test_bitsandbytes_takes_adapters_but_is_not_trained_itself(nf4, chats):
    parts = {"model": str(nf4), "dataset": str(chats), "max_length": 64}
    recipe = parse({"kind": "sft", "method": "lora", **parts})
    method("sft", "lora").check(recipe)
    err = refused({"kind": "sft", "method": "full", **parts})
    assert "quantized (bitsandbytes nf4)" in err.message and "An adapter can be trained on it" in err.hint


def test_an_adapter_is_trained_on_four_bits_and_answers(nf4, chats, tmp_path):
    from studio.chat.host import Host, Sampling
    from tests.train.conftest import run

    summary, ctx = run({"kind": "sft", "method": "lora", "model": str(nf4), "dataset": str(chats), "max_length": 64,
                        "max_steps": 4, "learning_rate": 1e-3}, tmp_path / "run")
    assert summary["steps"] == 4 and summary["train_loss"] > 0
    import threading

    host = Host(str(nf4))
    host.add_adapter("mine", str(ctx.output))
    said: list[str] = []
    for name in (None, "mine", None):
        ids, _ = host.encode([{"role": "user", "content": "What colour is grass?"}], name)
        host.generate(ids, Sampling(temperature=0, max_tokens=12), said.append, threading.Event(), name)
    assert "".join(said).count("Grass is green.") >= 2
    assert "adapter" in str(ctx.artifacts[0]["kind"])
    err = refused({"kind": "merge", "method": "adapter", "model": str(ctx.output)})
    assert "belongs to nf4, which is quantized" in err.message


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_compressed_weights_are_not_trained_at_all(packed, chats, kind):
    err = refused({"kind": "sft", "method": kind, "model": str(packed), "dataset": str(chats), "max_length": 64})
    assert "quantized (compressed-tensors W4A16)" in err.message


def test_nothing_is_quantized_twice(nf4, packed, gguf, tmp_path):
    from studio.jobs.context import Context
    from studio.quantizers import source
    from studio.quantizers.bitsandbytes import BitsAndBytesRecipe

    for folder in (nf4, packed, gguf):
        with pytest.raises(StudioError) as err, source.whole(BitsAndBytesRecipe(model=str(folder)), Context(tmp_path)):
            raise AssertionError("it was opened")
        assert err.value.field == "model"


def test_quantized_folders_answer_in_the_chat(nf4, packed):
    import threading

    from studio.chat.host import Host, Sampling

    for folder in (nf4, packed):
        host, said = Host(str(folder)), []
        ids, _ = host.encode([{"role": "user", "content": "What does a cow say?"}])
        host.generate(ids, Sampling(temperature=0, max_tokens=12), said.append, threading.Event())
        assert "".join(said) == "A cow says moo."


def test_odd_folders_are_refused_in_plain_words(gguf, tmp_path):
    two = shutil.copytree(gguf, tmp_path / "two")
    shutil.copy(two / "starter-f16.gguf", two / "other.gguf")
    with pytest.raises(StudioError) as err:
        modelinfo.describe(two)
    assert "2 GGUF files" in err.value.message
    with pytest.raises(StudioError) as err:
        refs.resolve_model(str(gguf / "README.md"))
    assert "a model is a folder or a GGUF file" in err.value.message
    odd = tmp_path / "odd"
    shutil.copytree(settings.STARTER, odd)
    for told in ({"quant_method": ["x"]}, {"quant_method": "gptq", "bits": "four"}, {"config_groups": [1], "quant_method":
                 "compressed-tensors"}, "words", {"quant_method": "hqq", "quant_config": 3}):
        config = json.loads((odd / "config.json").read_text()) | {"quantization_config": told}
        (odd / "config.json").write_text(json.dumps(config))
        assert modelinfo.describe(odd)["parameters"] > 0


def test_reward_models_are_not_among_those_to_chat_with(home, gguf, monkeypatch):
    from components import chat_rpc

    register(settings.STARTER, home, "Judge", {"method": "align/reward"})
    register(settings.STARTER, home, "Writer", {"method": "sft/full"})
    monkeypatch.setattr(chat_rpc, "owner_of", lambda request: None)
    monkeypatch.setattr(chat_rpc, "_engines", lambda request: [])
    asked = chat_rpc.chat_start.__wrapped__ if hasattr(chat_rpc.chat_start, "__wrapped__") else chat_rpc.chat_start
    labels = {m["label"] for m in asked({}, None)["models"]}
    assert "Writer" in labels and "Judge" not in labels
    assert {"Judge", "Writer"} <= {m["label"] for m in api.models()}, "they still judge elsewhere"
