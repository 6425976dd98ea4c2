"""Every method of mergekit writes here, bit for bit, what its own command line writes for the same YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from studio import api
from studio.mergers import config, plan, spec
from tests.merge.conftest import tensors
from tests.train.conftest import run

SLICES = [{"sources": [{"model": 0, "layer_range": [0, 2]}]}, {"sources": [{"model": 1, "layer_range": [1, 2]}]},
          {"sources": [{"model": 2, "layer_range": [0, 2]}]}]


@pytest.fixture(scope="module")
def models(tiny, tune) -> list[Path]:
    """A base and two tunes of it; the first tune in 16 bits."""
    import torch
    from transformers import AutoModelForCausalLM

    found = [tiny, tune(11), tune(12)]
    AutoModelForCausalLM.from_pretrained(found[1], dtype=torch.bfloat16).save_pretrained(found[1])
    return found


def case(name: str, models: list[Path]) -> dict[str, Any]:
    """A merge that uses what the method can do."""
    method = spec.methods()[name]
    base = method["base"] in ("required", "optional")
    count = (method["max_models"] or 3) - (base and method["max_non_base"] is None)
    tunes = [str(one) for one in models[1:1 + min(2, max(count, 1))]]
    made: dict[str, Any] = {"merge_method": name, "models": [], "parameters": {}}
    if base:
        made["base_model"] = str(models[0])
    for number, model in enumerate(tunes):
        own = {one["name"]: {"weight": 0.4 + 0.3 * number, "density": 0.6 - 0.1 * number, "gamma": 0.05,
                             "epsilon": 0.1}.get(one["name"], one["default"])
               for one in method["parameters"] if one["scope"] != "shared"}
        made["models"].append({"model": model, "parameters": {key: value for key, value in own.items() if value is not None}})
    for one in method["parameters"]:
        if one["scope"] == "shared":
            value = {"t": 0.3, "lambda": 0.9, "select_topk": 0.7, "nearswap.t": 0.003}.get(
                f"{name}.{one['name']}" if name == "nearswap" else one["name"], one["default"])
            if value is not None:
                made["parameters"][one["name"]] = value
    return made


def command_line(values: dict[str, Any], folder: Path, *more: str) -> dict:
    """What ``mergekit-yaml`` itself writes, by its own entry point."""
    from mergekit.scripts.run_yaml import main

    file = folder.with_suffix(".yml")
    file.write_text(yaml.safe_dump(values))
    main.main([str(file), str(folder), "--random-seed", "7", "--no-write-model-card", "--quiet", *more],
              standalone_mode=False)
    return tensors(folder)


def here(values: dict[str, Any], folder: Path, **more: Any) -> dict:
    """What a run of the studio writes; its plan named every weight."""
    summary, ctx = run({"kind": "merge", "method": "mergekit", "config": values, "random_seed": 7, **more}, folder)
    made = tensors(ctx.output)
    foreseen = plan.make(values, more)
    assert set(foreseen.tensors) == set(made) and foreseen.layers == summary["layers"]
    assert {name: count for name, (_, count) in foreseen.tensors.items()} == {n: w.numel() for n, w in made.items()}
    assert not [path for path in folder.iterdir() if "partial" in path.name or "adapters" in path.name]
    return made


def same(a: dict, b: dict) -> None:
    import torch

    assert a.keys() == b.keys() and a
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


def differs(a: dict, b: dict) -> bool:
    import torch

    return a.keys() != b.keys() or any(not torch.equal(a[name].float(), b[name].float()) for name in a)


@pytest.mark.parametrize("name", list(spec.methods()))
def test_every_method(name, models, tmp_path):
    values = case(name, models)
    assert not [one for one in config.problems(values) if one.level == "error"]
    made = here(values, tmp_path / "here")
    same(made, command_line(values, tmp_path / "there"))
    if name != "passthrough":
        assert differs(made, tensors(models[0])), "a merge that changes nothing proves nothing"


def merges(models: list[Path]) -> dict[str, dict[str, Any]]:
    names = list(map(str, models))
    return {
        "frankenmerge": {"merge_method": "passthrough", "dtype": "bfloat16", "slices": [
            {"sources": [source | {"model": names[source["model"]]} for source in one["sources"]]} for one in SLICES]},
        "curves and filters": {"merge_method": "slerp", "base_model": names[0], "dtype": "float32", "models": [
            {"model": names[0]}, {"model": names[2]}], "parameters": {"t": [
                {"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": [1, "5e-1", 0]}, {"value": 0.5}]}},
        "slices of slices": {"merge_method": "slerp", "base_model": names[0], "slices": [
            {"sources": [{"model": names[0], "layer_range": [0, 1]}, {"model": names[2], "layer_range": [1, 2]}],
             "parameters": {"t": 0.25}},
            {"sources": [{"model": names[0], "layer_range": [1, 2]}, {"model": names[2], "layer_range": [0, 1]}]}],
            "parameters": {"t": 0.75}},
        "scaled stack": {"merge_method": "passthrough", "slices": [
            {"sources": [{"model": names[0], "layer_range": [0, 2], "parameters": {"scale": [
                {"filter": "o_proj", "value": 0.5}, {"filter": "down_proj", "value": 0}, {"value": 1}]}}]},
            {"sources": [{"model": names[2], "layer_range": [0, 2]}]}]},
        "rounded at the end": {"merge_method": "ties", "base_model": names[0], "dtype": "float32", "out_dtype": "float16",
                               "models": [{"model": one, "parameters": {"density": [0.2, 0.8]}} for one in names[1:]],
                               "parameters": {"weight": 0.5}},
        "modules": {"merge_method": "linear", "modules": {"default": {"models": [
            {"model": one, "parameters": {"weight": 1}} for one in names[:2]]}}},
    }


@pytest.mark.parametrize("what", ["frankenmerge", "curves and filters", "slices of slices", "scaled stack",
                                  "rounded at the end", "modules"])
def test_forms_of_a_configuration(what, models, tmp_path):
    values = merges(models)[what]
    same(here(values, tmp_path / "here"), command_line(values, tmp_path / "there"))


def test_an_adapter_behind_a_model(models, lora, tmp_path, home):
    """``base+adapter`` is mergekit's own way; an adapter alone gets its base in front."""
    from studio.library import artifacts

    adapter = lora(21)
    written = {"merge_method": "linear", "models": [{"model": f"{models[0]}+{adapter}", "parameters": {"weight": 0.7}},
                                                    {"model": str(models[2]), "parameters": {"weight": 0.3}}]}
    there = command_line(written, tmp_path / "there", "--lora-merge-cache", str(tmp_path / "folded"))
    same(here(written, tmp_path / "here"), there)
    row = artifacts.add("adapter", "An adapter", adapter, made_from=[(str(models[0]), "base")])
    alone = {**written, "models": [{"model": row["ref"], "parameters": {"weight": 0.7}}, written["models"][1]]}
    same(here(alone, tmp_path / "alone"), there)
    assert yaml.safe_load(api.merge_export(alone)) == yaml.safe_load(yaml.safe_dump(written))


@pytest.fixture(scope="module")
def stranger(tiny, tmp_path_factory) -> Path:
    """A model of the same size with other words."""
    import torch
    from transformers import AutoModelForCausalLM

    from studio.trainers import tokenizer

    folder = tmp_path_factory.mktemp("stranger")
    rows = [{"messages": [{"role": "user", "content": f"Wo wohnt der {n}?"},
                          {"role": "assistant", "content": f"Der {n} wohnt im Wald hinter {i} Bergen."}]}
            for i, n in enumerate(("Bär", "Fuchs", "Hirsch", "Dachs", "Wolf"))]
    words = tokenizer.train(rows * 5, 330, 256)
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.resize_token_embeddings(len(words))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tokenizer", [{"source": "union"}, {"source": "base", "pad_to_multiple_of": 64}, "other"])
def test_other_words(tokenizer, models, stranger, tmp_path):
    """Rows are matched by word. The numbers of special words in the settings follow, which mergekit leaves wrong."""
    import json

    from transformers import AutoModelForCausalLM, AutoTokenizer

    values: dict[str, Any] = {"merge_method": "linear", "base_model": str(models[0]), "models": [
        {"model": str(models[0]), "parameters": {"weight": 0.5}}, {"model": str(stranger), "parameters": {"weight": 0.5}}]}
    values |= {"tokenizer_source": str(stranger)} if tokenizer == "other" else {"tokenizer": tokenizer}
    made = here(values, tmp_path / "here")
    there = command_line(values, tmp_path / "there")
    folder = tmp_path / "here" / "output"
    if tokenizer == {"source": "union"}:  # the command line numbers new words by chance: rows are compared by word
        numbers = [AutoTokenizer.from_pretrained(one).get_vocab() for one in (folder, tmp_path / "there")]
        assert numbers[0].keys() == numbers[1].keys()
        table = "model.embed_tokens.weight"
        there[table] = there[table][[numbers[1][word] for word in sorted(numbers[0], key=numbers[0].get)]]
    same(made, there)
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    assert model.get_input_embeddings().weight.shape[0] == told["vocab_size"] >= len(words)
    assert told["eos_token_id"] == words.eos_token_id and words.chat_template
    if tokenizer == "other":
        assert len(words) == len(AutoTokenizer.from_pretrained(stranger))
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == words.eos_token_id
    assert model.generate(**words("What colour", return_tensors="pt"), max_new_tokens=3).shape[1] > 3


def test_small_files_hold_the_same_weights(models, tmp_path, monkeypatch):
    from studio.mergers import mergekit

    monkeypatch.setitem(mergekit._SHARDS, "500M", 150_000)
    values = case("linear", models)
    made = here(values, tmp_path / "here", out_shard_size="500M")
    assert len(list((tmp_path / "here" / "output").glob("*.safetensors"))) > 1
    same(made, command_line(values, tmp_path / "there"))


def test_folders_with_signs_in_their_names(models, tmp_path):
    """``+`` and ``@`` mean something to mergekit's reader; not here."""
    import shutil

    odd = tmp_path / "a+b@c"
    shutil.copytree(models[2], odd)
    values = case("slerp", models)
    values["models"][0]["model"] = str(models[2])
    plain = here(values, tmp_path / "plain")
    values["models"][0]["model"] = str(odd)
    same(here(values, tmp_path / "odd"), plain)
    with pytest.raises(Exception, match=r"'\+' or '@'"):
        api.merge_export(values)


def test_the_seed_decides_what_is_dropped_and_the_order_of_the_file_the_words(models, stranger, tmp_path):
    """Two runs in processes of other string hashes make the same model, which mergekit by itself does not promise."""
    import os
    import subprocess
    import sys

    names = [str(models[0]), str(models[2]), str(stranger)]
    values = {"merge_method": "dare_linear", "base_model": names[0], "tokenizer": {"source": "union"}, "models": [
        {"model": one, "parameters": {"weight": 0.5, "density": 0.5}} for one in names[1:]]}
    code = ("import json, sys; from tests.train.conftest import run; "
            "run({'kind': 'merge', 'method': 'mergekit', 'config': json.loads(sys.argv[1])}, sys.argv[2])")
    import json

    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, json.dumps(values), str(tmp_path / seed)], check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True)
    first, second = (tmp_path / seed / "output" for seed in ("1", "2"))
    same(tensors(first), tensors(second))
    for name in ("config.json", "tokenizer.json"):
        assert (first / name).read_text() == (second / name).read_text()


_SMALL = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
          "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(("kind", "more"), [
    ("Qwen2", {}), ("Qwen3", {"tie_word_embeddings": True}), ("Mistral", {}), ("Gemma2", {}), ("Phi3", {}), ("Olmo2", {}),
    ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
    ("Mixtral", {"num_local_experts": 2})])
def test_other_architectures(kind, more, tmp_path):
    """The plan names every weight that is written, also where mergekit has no list of them (OPT)."""
    import transformers

    folders = []
    for seed in (1, 2):
        transformers.set_seed(seed)
        config_class = getattr(transformers, f"{kind}Config")
        known = {key: value for key, value in (_SMALL | more).items() if kind not in ("GPT2", "OPT") or key in more
                 or key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "hidden_size", "num_hidden_layers",
                            "num_attention_heads")}
        name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
        getattr(transformers, name)(config_class(**known)).save_pretrained(tmp_path / str(seed))
        folders.append(str(tmp_path / str(seed)))
    values = {"merge_method": "linear", "models": [{"model": one, "parameters": {"weight": 1}} for one in folders]}
    same(here(values, tmp_path / "here"), command_line(values, tmp_path / "there"))
