"""What the Quantize page asks: choices with sizes, how a run stands while it works, the variants of a model."""

from __future__ import annotations

import json
import time

import pytest

from studio import api, settings
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.context import Context
from studio.library import artifacts
from studio.quantizers.base import Stage
from studio.recipe import parse

PROOF = {"perplexity": {"source": 2.0, "variant": 2.1}, "verdict": "close",
         "greedy": {"same": 0, "of": 1, "rows": [{"prompt": "p", "source": "a", "variant": "b"}]}}


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here has a workspace of its own."""


def test_choices_with_the_size_each_would_have():
    found = api.quantize_types({"method": "gguf", "model": "starter"})
    assert found["makes"] == "types" and found["source"]["label"] == "Starter"
    types = {one["name"]: one for one in found["fields"]["types"]["choices"]}
    assert len(types) > 25 and types["IQ2_XXS"]["imatrix"] and not types["Q4_K_M"]["imatrix"]
    assert types["Q4_K_M"]["size"] < types["Q8_0"]["size"] < types["F16"]["size"] < types["F32"]["size"]
    assert {one["group"] for one in types.values()} == {"float", "legacy", "k", "i", "ternary"}
    assert all(one["about"].endswith(".") and not one["about"].startswith(name) for name, one in types.items())
    assert types["Q8_0"]["fits"] and types["Q8_0"]["needs"] > types["Q8_0"]["size"]


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "smoothquant", "fp8", "int", "hqq", "exl3", "learn"])
def test_every_method_offers_something(method):
    found = api.quantize_types({"method": method, "model": "starter", "max_seq_length": "rubbish"})
    assert found["fields"] and all(field["title"] and field["choices"] for field in found["fields"].values())
    assert (found["makes"] == "") is (method == "learn")
    for choice in found["fields"].get(found["makes"], {}).get("choices", []):
        assert choice["size"] > 0 and choice["variant"]


def test_without_a_model_there_are_choices_but_no_sizes():
    found = api.quantize_types({"method": "gguf", "model": "library:none"})
    assert found["source"] is None and all(one["size"] is None for one in found["fields"]["types"]["choices"])
    with pytest.raises(StudioError):
        api.quantize_types({"method": "rubbish"})


def make_run() -> tuple[str, Context]:
    """A quantization to two variants that waits in the queue, and its context."""
    recipe = parse({"kind": "quantize", "method": "bitsandbytes", "model": "starter", "types": ["int8", "nf4"]})
    run = store.submit(recipe)["id"]
    return run, Context(settings.run_dir(run))


def test_a_run_tells_each_variant_as_it_stands():
    run, ctx = make_run()
    rows = {row["name"]: row for row in api.quantize_run(run)["variants"]}
    first, second = rows
    assert [row["state"] for row in rows.values()] == ["waiting", "waiting"]
    stage = Stage(ctx, 2)
    stage.begin(0, "", "reference", 0.0, 0.1)
    assert api.quantize_run(run)["doing"] == "reference"
    stage.begin(0, first, "make", 0.1, 0.6)
    time.sleep(0.3)  # progress that follows fast is thinned
    stage.progress(5, 5)
    one = api.quantize_run(run)["variants"][0]
    assert one["state"] == "make" and one["share"] == 0.6
    folder = ctx.output / first
    folder.mkdir()
    (folder / "x").write_text("x")
    facts = {"variant": first, "quantization": "int8", "format": "bitsandbytes", "bits": 8.5, "size": 1, "proof": PROOF}
    stage.artifact("model", folder, "Starter int8", facts, [("starter", "source")])
    stage.begin(1, second, "make")
    stage.emit("stage", variant=second, doing="failed", message="No.", hint="Another way.")
    done, failed = api.quantize_run(run)["variants"]
    assert done["state"] == "done" and done["ref"] is None and done["proof"] == PROOF, "facts are there before the library has them"
    assert failed["state"] == "failed" and (failed["message"], failed["hint"]) == ("No.", "Another way.")
    ctx.close()
    from studio.jobs.worker import _result

    result = json.loads(json.dumps(_result(ctx, "succeeded", summary={"variants": [{"proof": PROOF}]})))
    assert result["summary"]["variants"][0]["proof"] == PROOF, "nothing of a proof is cut on its way into the result"
    (made,) = artifacts.register_run({"id": run, "name": "", "owner": None}, result)
    assert made["meta"]["proof"] == PROOF
    assert api.quantize_run(run)["variants"][0]["ref"] == made["ref"]
    found = api.variants("starter")
    assert [one["ref"] for one in found["variants"]] == [made["ref"]] and found["source"]["label"] == "Starter"
    assert api.variants(made["ref"]) == found, "asked of a variant, the whole family of its source"


def test_only_a_quantization_is_told_as_one():
    run = store.submit(parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite"}))["id"]
    for ask in (api.quantize_run, api.quantize_learn):
        with pytest.raises(StudioError, match="no quantization"):
            ask(run)
    run, _ = make_run()
    with pytest.raises(StudioError, match="Nothing is measured"):
        api.quantize_learn(run)


def test_exports_of_the_starter_itself_and_of_what_cannot_be(monkeypatch):
    made = {one["target"]: one for one in api.exports("starter")}
    assert made["vllm"]["possible"] and not made["llama.cpp"]["possible"] and "<|im_start|>" in made["ollama"]["files"][0]["text"]
    with pytest.raises(StudioError, match="no model|nothing|There is"):
        api.exports("library:none")
