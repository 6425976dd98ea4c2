"""The decoding lab: the same answers as ``generate``, and numbers that a few lines of torch give too."""

from __future__ import annotations

import math

import pytest

from studio.errors import StudioError
from studio.lab import decoding


@pytest.fixture(scope="module")
def loaded(tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32").eval()
    ids = words.apply_chat_template([{"role": "user", "content": "What colour is grass?"}], add_generation_prompt=True)["input_ids"]
    return model, words, list(ids), {words.eos_token_id}


def explored(loaded, prefix=None, **values):
    model, words, ids, ends = loaded
    return decoding.explore(model, words, ids, decoding.way({"max_new_tokens": 12} | values), ends, prefix)


def plain(loaded, **arguments):
    import torch

    model, words, ids, _ = loaded
    out = model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=12,
                         **{"do_sample": False, **arguments})
    return out[0][len(ids):].tolist()


@pytest.mark.parametrize("arguments", [{}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}])
def test_greedy_is_generates_greedy(loaded, arguments):
    found = explored(loaded, strategy="greedy", **arguments)
    assert [one["id"] for one in found["tokens"]] == plain(loaded, **arguments)
    if not arguments:
        assert all(one["rank"] == 1 for one in found["tokens"])


@pytest.mark.parametrize("arguments", [{"num_beams": 3}, {"num_beams": 4, "length_penalty": -1.0}])
def test_beams_are_generates_beams_and_the_tree_holds_them_all(loaded, arguments):
    found = explored(loaded, strategy="beam", **arguments)
    answer = [one["id"] for one in found["tokens"]]
    assert answer == plain(loaded, early_stopping=True, **arguments)
    nodes = {node["id"]: node for node in found["tree"]["nodes"]}
    best = [node["token"] for node in nodes.values() if node["best"] and node["parent"] is not None]
    assert best == answer
    depth = {0: 0}
    for node in list(nodes.values())[1:]:
        depth[node["id"]] = depth[node["parent"]] + 1
    widest = max(sum(d == level for d in depth.values()) for level in range(1, 13))
    assert widest >= arguments["num_beams"], "branches that were given up are there too"


def test_sampling_is_generates_sampling_with_the_same_seed(loaded):
    import torch

    more = {"temperature": 1.5, "top_k": 20, "top_p": 0.9}
    torch.manual_seed(7)
    expected = plain(loaded, do_sample=True, **more)
    found = explored(loaded, strategy="sample", seed=7, **more)
    assert [one["id"] for one in found["tokens"]] == expected
    assert all(1 <= one["kept"] <= 20 for one in found["tokens"])
    assert explored(loaded, strategy="sample", seed=8, **more)["text"] != found["text"]
    narrow = explored(loaded, strategy="sample", seed=7, temperature=1.5, min_p=0.9)
    assert all(one["kept"] < 5 for one in narrow["tokens"])
    assert explored(loaded, strategy="sample", seed=7, typical_p=0.5)["tokens"][0]["kept"] < len(loaded[1])


def test_probabilities_and_entropy_are_the_models_own(loaded):
    import torch

    model, words, ids, _ = loaded
    found = explored(loaded, strategy="sample", seed=3, temperature=2.0, repetition_penalty=1.2)
    answer = [one["id"] for one in found["tokens"]]
    with torch.inference_mode():
        p = model(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1:-1].double().softmax(-1)
    for n, one in enumerate(found["tokens"]):
        assert one["p"] == pytest.approx(float(p[n, answer[n]]), rel=1e-4)
        assert one["entropy"] == pytest.approx(float(-(p[n] * p[n].log2()).sum()), rel=1e-4)
        assert one["rank"] == int((p[n] > p[n, answer[n]]).sum()) + 1
        assert [other["id"] for other in one["alternatives"]] == p[n].topk(8).indices.tolist()
    assert found["logprob"] == pytest.approx(sum(math.log(float(p[n, i])) for n, i in enumerate(answer)), rel=1e-4)


def test_a_branch_goes_on_from_the_token_that_was_chosen(loaded):
    first = explored(loaded, strategy="greedy")
    other = first["tokens"][2]["alternatives"][1]["id"]
    prefix = [one["id"] for one in first["tokens"][:2]] + [other]
    found = explored(loaded, prefix, strategy="greedy")
    assert [one["id"] for one in found["tokens"][:3]] == prefix
    assert [one["given"] for one in found["tokens"][:4]] == [True, True, True, False]
    assert found["tokens"][2]["rank"] == 2 and len(found["tokens"]) <= 12


def test_contrastive_search_without_its_penalty_is_greedy(loaded):
    assert explored(loaded, strategy="contrastive", penalty_alpha=0.0)["text"] == explored(loaded, strategy="greedy")["text"]
    found = explored(loaded, strategy="contrastive", penalty_alpha=0.9, top_k=6)
    assert all(one["rank"] <= 6 for one in found["tokens"])
    ids = [one["id"] for one in found["tokens"]]
    greedy = [one["id"] for one in explored(loaded, strategy="greedy")["tokens"]]
    assert len(set(ids)) >= len(set(greedy)), "it repeats less"


@pytest.mark.parametrize(("values", "field"), [({"strategy": "psychic"}, "strategy"), ({"strategy": "sample", "top_p": 2}, "top_p"),
                                               ({"strategy": "beam", "num_beams": 99}, "num_beams"),
                                               ({"max_new_tokens": "many"}, "max_new_tokens")])
def test_bad_settings_are_refused_by_name(values, field):
    with pytest.raises(StudioError) as refused:
        decoding.way(values)
    assert refused.value.field == field


def test_an_engine_explores_for_the_page(tiny):
    from studio import api
    from studio.chat import manager

    try:
        found = api.lab_decode(str(tiny), "What colour is grass?", {"strategy": "beam", "num_beams": 2, "max_new_tokens": 6})
        assert found["tree"]["nodes"] and len(found["tokens"]) <= 6
        with pytest.raises(StudioError) as refused:
            api.lab_decode(str(tiny), "Hello", {"strategy": "sample", "temperature": 99})
        assert refused.value.field == "temperature"
        with pytest.raises(StudioError, match="elsewhere"):
            api.lab_decode("http://127.0.0.1:9/v1#m", "Hello", {})
    finally:
        manager.shutdown_all()
    assert set(api.lab_ways()["of"]["sample"]) <= set(api.lab_ways()["numbers"])
