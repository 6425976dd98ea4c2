"""What a merge refuses or tells before it starts, its references, and how near models are."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_
from hypothesis import strategies as st

from studio import api, settings
from studio.errors import StudioError
from studio.flows import links
from studio.library import artifacts, bases, refs
from studio.mergers import config, licences, spec
from studio.recipe import parse, read_yaml
from studio.registry import method

TWO = {"merge_method": "slerp", "base_model": "starter", "models": [{"model": "starter"}, {"model": "hub:a/b"}],
       "parameters": {"t": 0.5}}
TIES = {"merge_method": "ties", "base_model": "starter", "models": [
    {"model": "library:a", "parameters": {"weight": 1}}, {"model": "library:b", "parameters": {"weight": 1}}]}
STACK = {"merge_method": "passthrough", "slices": [{"sources": [{"model": "starter", "layer_range": [0, 3]}]},
                                                   {"sources": [{"model": "starter", "layer_range": [1, 4]}]}]}


def put(values: dict, place: str, value: Any) -> dict:
    """A copy with one value set: ``put(TWO, "models.0.model", "x")``."""
    made = json.loads(json.dumps(values))
    here, *rest = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = made
    for part in rest:
        inner, here = inner[here], part
    inner[here] = value
    return made


BAD = [
    ({}, "", "empty"),
    ({"models": []}, "merge_method", "missing"),
    (put(TWO, "merge_method", "slurp"), "merge_method", "Did you mean 'slerp'"),
    (put(TWO, "dtyp", "float32"), "dtyp", "Did you mean 'dtype'"),
    (put(TWO, "dtype", "int8"), "dtype", "no precision"),
    (put(TWO, "slices", STACK["slices"]), "slices", "cannot stand together"),
    ({"merge_method": "linear"}, "models", "Nothing says"),
    (put(TWO, "models", "starter"), "models", "a list"),
    (put(TWO, "models.1", "starter"), "models[1]", "not a model"),
    (put(TWO, "models.1.weight", 1), "models[1].weight", "would ignore"),
    (put(TWO, "models.1.model", ""), "models[1].model", "No model"),
    (put(TWO, "models.1.model", "starter+library:a+library:b"), "models[1].model", "One adapter"),
    (put(TWO, "models.1.model", "starter"), "models", "twice"),
    (put(TWO, "base_model", "hub:c/d"), "models", "exactly 2 models"),
    ({key: value for key, value in TWO.items() if key != "base_model"}, "base_model", "needs a base"),
    (put(TWO, "parameters.tt", 1), "parameters.tt", "Did you mean 't'"),
    (put(TWO, "parameters.t", "half"), "parameters.t", "is a number"),
    (put(TWO, "parameters.t", None), "parameters.t", "no value"),
    (put(TWO, "parameters.t", float("nan")), "parameters.t", "is a number"),
    (put(TWO, "parameters.t", []), "parameters.t", "empty"),
    (put(TWO, "parameters.t", [0.1, {"filter": "mlp", "value": 1}]), "parameters.t", "mixed"),
    (put(TWO, "parameters.t", [{"filtre": "mlp", "value": 1}]), "parameters.t[0]", "'filtre'"),
    (put(TWO, "parameters.t", [{"filter": "mlp"}]), "parameters.t[0]", "no value"),
    (put(TWO, "parameters.t", [0, [1]]), "parameters.t[1]", "plain list"),
    (put(TWO, "models.1.parameters", {"t": 1}), "models[1].parameters.t", "no effect"),
    (put(TIES, "parameters", {"normalize": "yes please"}), "parameters.normalize", "true or false"),
    (put(TIES, "models.0.parameters.density", 1.5), "models[0].parameters.density", "must be between 0 and 1"),
    (put(TIES, "models.0.parameters.wieght", 1), "models[0].parameters.wieght", "Did you mean 'weight'"),
    (put(TIES, "parameters", {"epsilon": 1}), "parameters.epsilon", "no parameter 'epsilon'"),
    ({"merge_method": "karcher", "models": TIES["models"], "parameters": {"max_iter": 2.5}}, "parameters.max_iter", "whole"),
    (put(STACK, "slices.1.sources.0.layer_range", [3, 1]), "slices[1].sources[0].layer_range", "no layer"),
    (put(STACK, "slices.1.sources.0.layer_range", [1]), "slices[1].sources[0].layer_range", "two whole numbers"),
    (put(STACK, "slices.1.sources", []), "slices[1]", "needs sources"),
    (put(STACK, "slices.0.residual_weight", 0.5), "slices[0].residual_weight", "no effect"),
    (put(STACK, "base_model", "hub:a/b") | {"merge_method": "slerp"}, "slices[0]", "not among the sources"),
    (put(TWO, "chat_template", "chatlm"), "chat_template", "Did you mean 'chatml'"),
    (put(TWO, "chat_template", "{% for m in messages %}{{ m.content"), "chat_template", "cannot be read"),
    (put(TWO, "tokenizer", {"source": "union", "tokns": {}}), "tokenizer.tokns", "Did you mean 'tokens'"),
    (put(TWO, "tokenizer", {"tokens": {"<x>": {"source": {"kind": "zeroo"}}}}), "tokenizer.tokens.<x>.source.kind", "zeroo"),
    (put(TWO, "tokenizer", {}) | {"tokenizer": {"source": "union"}, "tokenizer_source": "base"}, "tokenizer_source",
     "cannot stand together"),
    ({"merge_method": "linear", "modules": [1]}, "modules", "named parts"),
    ({"merge_method": "linear", "modules": {"default": {}}}, "modules.default", "models or slices"),
    ({"merge_method": "linear", "base_model": "starter", "models": TIES["models"]}, "base_model", "no base model"),
    (put(put(TIES, "merge_method", "model_stock"), "models", [{"model": "library:a"}]), "models", "at least 3"),
]


@pytest.mark.parametrize(("values", "path", "said"), BAD, ids=lambda one: one if isinstance(one, str) else "")
def test_what_mergekit_would_ignore_or_stumble_over(values, path, said):
    found = [one for one in config.problems(values) if one.level == "error"]
    assert found, "nothing refused"
    assert any(one.path == path and said in f"{one.message} {one.hint}" for one in found), found
    recipe = parse({"kind": "merge", "method": "mergekit", "config": json.loads(json.dumps(values, allow_nan=True))
                    if values else {}})
    with pytest.raises(StudioError) as refused:
        method("merge", "mergekit").check(recipe)
    assert refused.value.field == "config" and refused.value.hint


_plain = st.recursive(st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(
    ["", "starter", "starter+", "+", "a+b", "union", "base", "model", "\x00", "../x", "hub:", "step:x", "{", "self_attn"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["model", "lora", "models", "slices", "sources", "layer_range", "parameters", "weight", "t", "filter", "value", "base_model",
         "tokenizer", "tokens", "source", "kind", "modules", "merge_method", "path", "revision", "dtype"]), inner, max_size=4),
    max_leaves=8)
_PLACES = ["merge_method", "base_model", "models", "models.0", "models.0.model", "models.0.parameters", "parameters", "dtype",
           "tokenizer", "tokenizer_source", "chat_template", "slices", "modules", "x"]


@settings_(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([TWO, TIES, STACK, {}]), st.sampled_from(_PLACES), _plain)
def test_nothing_that_yaml_can_say_breaks_the_check(home, values, place, value):
    """Whatever stands anywhere, the person gets problems or a refusal, never a bug."""
    try:
        values = put(values, place, value)
    except (KeyError, IndexError, TypeError):
        values = value
    found = api.merge_check(values)
    assert found["problems"] or found["tensors"]["list"]
    for call in (api.merge_export, lambda one: api.merge_import(yaml.safe_dump(one))):
        try:
            call(values)
        except StudioError:
            pass
    if isinstance(values, dict):
        recipe = parse({"kind": "merge", "method": "mergekit", "config": values})
        recipe.referring({ref: "starter" for _, ref, _ in recipe.refers_to()})


def test_good_ones_pass():
    for values in (TWO, TIES, STACK):
        assert not [one for one in config.problems(values) if one.level == "error"], values


def test_the_facts_are_those_of_the_installed_mergekit():
    assert spec.facts() == json.loads(json.dumps(spec.collect())), "run: python -m studio.mergers.spec"
    for one in api.merge_methods():
        assert one["help"] and one["title"] and one["paper"].startswith("https://"), one["name"]
        for parameter in one["parameters"]:
            assert len(parameter["help"]) > 20 and not parameter["help"].startswith("A parameter of mergekit"), parameter
            if parameter["type"] in ("float", "int"):
                assert parameter["low"] < parameter["high"], parameter
                if parameter["default"] is not None:
                    assert parameter["low"] <= parameter["default"] <= parameter["high"], parameter


def test_another_mergekit_is_read_anew(home, monkeypatch):
    """A method that a newer library registers appears by itself, with a general text."""
    from studio.jobs import probe

    newer = spec.facts() | {"mergekit": "9.9", "methods": {"wonder": {
        "name": "wonder", "pretty_name": "Wonder", "reference_url": None, "base": "optional", "min_models": 1,
        "max_models": None, "min_non_base": None, "max_non_base": None, "parameters": [
            {"name": "zeal", "type": "float", "scope": "shared", "required": True, "default": None}]}}}
    asked = []
    monkeypatch.setattr(spec, "installed", lambda: "9.9")
    monkeypatch.setattr(probe, "call", lambda target, **more: asked.append(target) or newer)
    found = spec.methods()
    assert list(found) == ["wonder"] and found["wonder"]["title"] == "Wonder" and found["wonder"]["help"]
    assert found["wonder"]["parameters"][0]["title"] == "Zeal"
    spec._facts.cache_clear()
    assert list(spec.methods()) == ["wonder"] and asked == ["studio.mergers.spec:collect"], "kept in the workspace"
    spec._facts.cache_clear()


def test_references_in_every_place():
    values = {"merge_method": "ties", "base_model": "starter", "models": [{"model": "starter+step:lora"}],
              "tokenizer": {"source": "step:a", "tokens": {"<s>": {"source": {"kind": "model_token", "model": "step:b",
                                                                             "token": "x"}}, "<e>": {"source": "step:c"}}},
              "modules": {"default": {"slices": [{"base_model": "step:d", "sources": [
                  {"model": {"model": "step:e", "lora": "library:x", "override_architecture": "LlamaForCausalLM"},
                   "layer_range": [0, 1]}]}]}}}
    recipe = parse({"kind": "merge", "method": "mergekit", "config": values})
    assert {ref for _, ref, _ in recipe.refers_to()} == {"starter", "library:x", *(f"step:{x}" for x in
                                                                                  ("lora", "a", "b", "c", "d", "e"))}
    steps = {target for _, target, _ in links.links(recipe)}
    filled = links.filled(recipe, {name: f"library:{name}" for name in steps})
    assert "step:" not in json.dumps(filled) and filled["config"]["models"][0]["model"] == "starter+library:lora"
    assert filled["config"]["modules"]["default"]["slices"][0]["sources"][0]["model"]["model"] == "library:e"


def test_yaml_becomes_a_recipe_and_yaml_again(home, tmp_path):
    text = """
merge_method: ties
base_model: {path: org/base, revision: v2}
models:
  - model: {model: {path: org/tune}, lora: {path: org/adapter}}
    parameters: {weight: [0, 1e-1], density: 0.5}
  - model: STARTER
dtype: bfloat16
""".replace("STARTER", str(settings.STARTER))
    values = api.merge_import(text)
    assert values["base_model"] == "hub:org/base@v2" and values["models"][0]["model"] == "hub:org/tune+hub:org/adapter"
    assert values["models"][1]["model"] == "starter" and values["models"][0]["parameters"]["weight"] == [0, 0.1]
    recipe = parse(read_yaml(text))
    assert (recipe.kind, recipe.method, recipe.config) == ("merge", "mergekit", values)
    assert parse(read_yaml(recipe.to_yaml())) == recipe and api.merge_import(recipe.to_yaml()) == values
    plain = STACK | {"dtype": "float32"}
    written = api.merge_export(plain)
    assert str(settings.STARTER) in written and api.merge_import(written) == plain
    for bad in ("a: 1", "- 1", "{", "kind: sft\nmethod: lora"):
        with pytest.raises(StudioError):
            api.merge_import(bad)
    with pytest.raises(StudioError, match="no folder yet"):
        api.merge_export(put(TWO, "models.1.model", "step:x"))


def test_what_belongs_to_another_is_refused(home, tiny, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/atelier")
    inside = home / "models" / "x"
    shutil.copytree(tiny, inside)
    row = artifacts.add("model", "Hers", inside, owner="eve")
    values = put(TWO, "models.1.model", row["ref"])
    for call in (api.merge_check, api.merge_look, api.merge_export):
        with pytest.raises(StudioError):
            call(values, "ann")
    with pytest.raises(StudioError):
        api.merge_import(yaml.safe_dump(values), "ann")
    with pytest.raises(StudioError):
        api.merge_check(put(TWO, "models.1.model", "starter+/etc"), "ann")
    assert not api.validate({"kind": "merge", "method": "mergekit", "config": values}, "ann")["ok"]


@pytest.fixture(scope="module")
def pair(tiny, tune) -> tuple[Path, Path]:
    return tiny, tune(31)


def slerp(a: Any, b: Any, **more: Any) -> dict[str, Any]:
    return {"merge_method": "slerp", "base_model": str(a), "models": [{"model": str(a)}, {"model": str(b)}],
            "parameters": {"t": 0.5}} | more


def changed(folder: Path, to: Path, **settings_: Any) -> Path:
    """A copy of a model whose ``config.json`` says something else."""
    shutil.copytree(folder, to)
    told = json.loads((to / "config.json").read_text()) | settings_
    (to / "config.json").write_text(json.dumps(told))
    return to


def errors(values: dict, **options: Any) -> list[str]:
    return [f"{one['path']}: {one['message']}" for one in api.merge_check(values, None, options)["problems"]
            if one["level"] == "error"]


def test_models_that_do_not_go_together(pair, home, tmp_path, lora):
    a, b = pair
    assert not errors(slerp(a, b))
    other = changed(b, tmp_path / "qwen", architectures=["Qwen2ForCausalLM"], model_type="qwen2")
    assert "LlamaForCausalLM" in errors(slerp(a, other))[0] and "Qwen2ForCausalLM" in errors(slerp(a, other))[0]
    wide = changed(b, tmp_path / "wide", hidden_size=128)
    assert "width differs" in errors(slerp(a, wide))[0]
    short = changed(b, tmp_path / "short", num_hidden_layers=1)
    assert "2 layers" in errors(slerp(a, short))[0]
    heads = changed(b, tmp_path / "heads", num_attention_heads=4)
    assert "attention heads" in errors(slerp(a, heads))[0]
    far = changed(b, tmp_path / "far", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5})
    assert any("RoPE default 10000 and linear 500000 × 4" in one["message"] for one in
               api.merge_check(slerp(a, far))["problems"])
    packed = changed(b, tmp_path / "packed", quantization_config={"quant_method": "gptq"})
    assert "is quantized" in errors(slerp(a, packed))[0]
    judge = changed(b, tmp_path / "judge", architectures=["LlamaForSequenceClassification"])
    assert "reward model" in errors(slerp(a, judge))[0]
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    assert errors(slerp(a, gguf))
    assert "whole model" in errors(slerp(a, f"{b}+{b}"))[0]
    assert errors(slerp(a, tmp_path / "nowhere"))[0].startswith("models[1].model: There is no model")
    stack = {"merge_method": "passthrough", "slices": [{"sources": [{"model": str(a), "layer_range": [0, 3]}]}]}
    assert errors(stack)[0].startswith("slices[0].sources[0].layer_range") and "has 2 layers" in errors(stack)[0]
    words = changed(b, tmp_path / "words")
    told = json.loads((words / "tokenizer.json").read_text())
    told["model"]["vocab"] = {word: (number + 1 if number > 300 and number % 2 == 0 else number - 1 if number > 300 else
                                     number) for word, number in told["model"]["vocab"].items()}
    (words / "tokenizer.json").write_text(json.dumps(told))
    assert "numbers stand for different words" in errors(slerp(a, words))[0]
    assert not errors(slerp(a, words, tokenizer={"source": "union"})) and not errors(slerp(a, words), allow_crimes=True)
    adapter = lora(32)
    shutil.copy(words / "tokenizer.json", adapter / "tokenizer.json")
    mine = artifacts.add("adapter", "Mine", lora(35), meta={"base_fingerprint": bases.fingerprint(b)}, made_from=[(str(b), "base")])
    told = [one["message"] for one in api.merge_check(slerp(b, f"{a}+{mine['ref']}"))["problems"]]
    assert any("made for other weights" in one for one in told)
    assert not any("made for" in one["message"] for one in api.merge_check(slerp(a, mine["ref"]))["problems"])
    assert "changed the words" in errors(slerp(a, f"{a}+{adapter}"))[0]


def test_damaged_files(pair, home, tmp_path):
    from safetensors.torch import load_file, save_file

    a, b = pair
    torn = changed(b, tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cut short" in errors(slerp(a, torn))[0]
    less = changed(b, tmp_path / "less")
    held = load_file(less / "model.safetensors")
    del held["model.layers.1.mlp.up_proj.weight"], held["model.layers.0.mlp.up_proj.weight"]
    save_file(held, less / "model.safetensors", metadata={"format": "pt"})
    said = errors(slerp(a, less))
    assert len(said) == 1 and "lacks the weight model.layers.0.mlp.up_proj.weight" in said[0] and "1 more" in said[0]
    hostile = changed(b, tmp_path / "hostile")
    (hostile / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    assert errors(slerp(a, hostile))


def test_what_happens_to_each_weight(pair, home, untied):
    a, b = pair
    found = api.merge_check(slerp(a, b))
    assert found["layers"] == 2 and found["tensors"]["merged"] == 20 and not found["tensors"]["dropped"]
    assert found["models"][0]["architecture"] == "LlamaForCausalLM" and found["models"][0]["hidden"] == 64
    assert found["estimate"]["disk"] > 300_000 and found["estimate"]["ram"] > 5e8 and found["estimate"]["seconds"] > 0
    one = api.merge_check({"merge_method": "passthrough", "slices": [
        {"sources": [{"model": str(a), "layer_range": [1, 2]}]}]})
    assert one["layers"] == 1 and one["tensors"]["copied"] == 11 and one["tensors"]["dropped"] == 9
    assert {"name": "model.layers.0.mlp.up_proj.weight", "action": "dropped", "model": a.name} in one["tensors"]["list"]
    two = api.merge_check(slerp(a, untied))
    assert any("one table for the words" in problem["message"] for problem in two["problems"])
    assert {"name": "lm_head.weight", "action": "merged"} in two["tensors"]["list"]


def test_values_that_reach_no_weight(pair, home):
    a, b = pair
    values = slerp(a, b, parameters={"t": [{"filter": "attn_self", "value": 1}, {"value": 0.5}]})
    said = [one for one in api.merge_check(values)["problems"] if one["path"] == "parameters.t[0].filter"]
    assert said and said[0]["level"] == "warning" and "attn_self" in said[0]["message"]
    gap = errors(slerp(a, b, parameters={"t": [{"filter": "mlp", "value": 1}]}))
    assert "needs t, and nothing gives it for model.embed_tokens.weight" in gap[0]
    della = {"merge_method": "della", "base_model": str(a), "models": [
        {"model": str(b), "parameters": {"weight": 1, "density": [0.5, 0.95]}}]}
    assert any("do not go together" in one for one in errors(della))
    missing = {"merge_method": "linear", "models": [{"model": str(a), "parameters": {"weight": 1}}, {"model": str(b)}]}
    assert errors(missing)[0].startswith("models[1].parameters.weight: ")


def test_licences_in_plain_words(pair, home, tmp_path):
    def told(*names: str | None) -> str:
        found = licences.told([(f"M{i}", licences.Licence(name)) for i, name in enumerate(names)])
        return " ".join(f"{one.level} {one.message} {one.hint}" for one in found)

    assert told("apache-2.0", "mit") == ""
    assert "warning M1 (cc-by-nc-4.0) may not be used to earn money" in told("mit", "cc-by-nc-4.0")
    assert "Built with Llama" in told("llama3.1", "mit") and "Gemma terms" in told("gemma")
    assert "carry their own licence" in told("gpl-3.0", "cc-by-sa-4.0")
    assert "must carry the same licence: gpl-3.0" in told("gpl-3.0", "mit") and "no derivatives" in told("cc-by-nd-4.0")
    assert "is not known" in told(None, "mit") and "does not know" in told("my-own-terms")
    assert "no further conditions" in told("gpl-3.0", "llama3")
    a, b = (changed(one, tmp_path / one.name) for one in pair)
    (a / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A\n")
    child = artifacts.add("model", "Child", b, made_from=[(str(a), "base")])
    found = api.merge_check(slerp(a, child["ref"]))
    assert [one["license"] for one in found["models"]] == ["apache-2.0", "apache-2.0"]
    assert found["models"][1]["license_of"] == a.name
    assert not [one for one in found["problems"] if "licence" in one["message"]]
    own = changed(b, tmp_path / "own")
    round_ = artifacts.add("model", "Round", own, made_from=[("library:x", "base")])
    artifacts.add("model", "Round", own, made_from=[(round_["ref"], "base")])
    assert licences.of(refs.resolve_model(round_["ref"])).name is None, "its own ancestor ends somewhere"


def test_how_near_models_are(pair, home, tune, lora):
    import torch

    from studio.mergers import look
    from tests.merge.conftest import tensors

    a, b = pair
    c = tune(33)
    values = {"merge_method": "ties", "base_model": str(a), "models": [
        {"model": str(one), "parameters": {"weight": 1}} for one in (b, c)]}
    found = look.look(values)
    assert found["layers"] == ["layer 0", "layer 1", "outside the layers"] and found["base"] == a.name
    x, y, base = tensors(b), tensors(c), tensors(a)
    names = [name for name in x if ".0." in name and x[name].dim() > 1]
    flat = [torch.cat([one[name].flatten() for name in names]) for one in (x, y, base)]
    pair_of_tunes = f"{b.name} · {c.name}"
    cosine = dict(found["similarity"])[pair_of_tunes][0]
    assert cosine == pytest.approx(float(torch.cosine_similarity(flat[0], flat[1], 0)), abs=1e-4)
    signs = ((flat[0] - flat[2]).sign() * (flat[1] - flat[2]).sign())
    share = float((signs < 0).sum() / (signs != 0).sum())
    assert dict(found["conflict"])[pair_of_tunes][0] == pytest.approx(share, abs=1e-6) and 0.4 < share < 0.6
    assert len(found["similarity"]) == 3 and len(found["conflict"]) == 1
    look.MOST, kept = 30_000, look.MOST
    try:
        for file in (home / "cache" / "merge-look").glob("*"):
            file.unlink()
        part = look.look(values)
    finally:
        look.MOST = kept
    assert part["sampled"] < 1 and dict(part["similarity"])[pair_of_tunes][0] == pytest.approx(cosine, abs=0.05)
    with_adapter = look.look(slerp(a, f"{a}+{lora(34)}"))
    assert with_adapter["similarity"][0][1][0] < 1 and not list(home.glob("merge-look-*"))


def test_the_page_process_stays_light(home, tmp_path):
    from tests.contract.test_house import HEAVY, loaded_by

    names, _ = loaded_by(
        f"import os; os.environ['STUDIO_HOME'] = {str(tmp_path)!r}\nfrom studio import api\n"
        f"api.merge_methods(); api.merge_check({STACK!r}); api.merge_export({STACK!r})\n"
        f"api.validate({{'kind': 'merge', 'method': 'mergekit', 'config': {STACK!r}}})")
    assert not names & {*HEAVY, "mergekit", "safetensors"}
