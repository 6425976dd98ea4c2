"""Proposals change how fast an answer comes, never what it says; and the counts are true."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studio import api, settings
from studio.chat import manager
from studio.errors import StudioError
from studio.lab import speculative

ASK = [{"role": "user", "content": "Tell me a story about a red apple, a small dog and a red apple."}]


@pytest.fixture(scope="module")
def helpers(tmp_path_factory) -> Path:
    """Assistants: the starter again, one that knows nothing, and one with another tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    out = tmp_path_factory.mktemp("helpers")
    shutil.copytree(settings.STARTER, out / "same")
    torch.manual_seed(3)
    config = AutoConfig.from_pretrained(settings.STARTER)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads, config.head_dim = 1, 32, 32, 2, 16
    config.layer_types = None
    AutoModelForCausalLM.from_config(config).save_pretrained(out / "blank")
    AutoTokenizer.from_pretrained(settings.STARTER).save_pretrained(out / "blank")
    other = shutil.copytree(out / "blank", out / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["zebra-word"])
    tokenizer.save_pretrained(other)
    return out


@pytest.fixture(scope="module")
def host():
    from studio.chat.host import Host

    return Host(str(settings.STARTER))


def test_greedy_answers_are_the_plain_ones_whoever_helps(host, helpers):
    for helper in ("same", "blank"):
        for question in ("What is the opposite of hot?", "Tell me a story.", ASK[0]["content"]):
            found = host.speculate([{"role": "user", "content": question}], {"rounds": 1, "max_new_tokens": 60}, str(helpers / helper))
            plain, lookup, helped = found["ways"]
            assert [one["way"] for one in found["ways"]] == ["plain", "lookup", "assistant"]
            assert lookup["same"] and helped["same"] and lookup["text"] == helped["text"] == plain["text"]


def test_acceptance_is_that_of_the_assistant(host, helpers):
    """A twin's proposals are taken (but for those behind the end), those of a model that knows nothing are not; each taken one saves a pass."""
    def helped(name: str) -> dict:
        return host.speculate(ASK, {"rounds": 1, "max_new_tokens": 64, "num_assistant_tokens": 4}, str(helpers / name))["ways"]

    plain, lookup, twin = helped("same")
    assert plain["forwards"] == plain["tokens"] and plain["proposed"] == 0 and plain["acceptance"] is None and plain["speedup"] == 1
    assert twin["acceptance"] > 0.8 and twin["forwards"] < plain["forwards"] / 3
    assert twin["forwards"] + twin["accepted"] == pytest.approx(twin["tokens"], abs=2)
    _, _, blank = helped("blank")
    assert blank["acceptance"] < 0.3 and blank["proposed"] > twin["accepted"]
    assert host.speculate(ASK, {"rounds": 1})["ways"][-1]["way"] == "lookup", "without an assistant there are two ways"
    assert not hasattr(host.model, "counted") and "_get_candidate_generator" not in vars(host.model)


def test_prompt_lookup_finds_what_stands_in_the_prompt(host):
    text = "Repeat: one two three four five six seven eight nine ten. one two three four five six seven eight nine ten. one two"
    _, lookup = host.speculate([{"role": "user", "content": text}], {"rounds": 1, "max_new_tokens": 64})["ways"]
    assert lookup["proposed"] > 0 and 0 <= lookup["acceptance"] <= 1 and lookup["same"]


def test_chance_keeps_its_distribution_and_claims_no_sameness(host, helpers):
    found = host.speculate(ASK, {"rounds": 1, "temperature": 1.0, "seed": 4, "max_new_tokens": 30}, str(helpers / "same"))["ways"]
    assert all(one["same"] is None for one in found) and found[2]["acceptance"] > 0.7


def test_answers_go_on_after_a_measurement(host, helpers):
    import threading

    from studio.chat.writing import Sampling

    said: list[str] = []
    ids, _ = host.encode(ASK)
    host.generate(ids, Sampling(temperature=0, max_tokens=60), said.append, threading.Event())
    plain = host.speculate(ASK, {"rounds": 1, "max_new_tokens": 60}, str(helpers / "blank"))["ways"][0]
    assert "".join(said) == plain["text"]


@pytest.mark.parametrize("values, field", [({"rounds": 99}, "rounds"), ({"temperature": "hot"}, "temperature"),
                                           ({"num_assistant_tokens": 0}, "num_assistant_tokens"), ({"magic": 1}, "magic")])
def test_bad_settings_are_named(values, field):
    with pytest.raises(StudioError) as err:
        speculative.settings(values)
    assert err.value.field == field


def test_through_the_api_and_its_refusals(workspace, helpers):
    found = api.lab_speculative("starter", "Tell me a story.", {"rounds": 1, "max_new_tokens": 40}, str(helpers / "blank"))
    assert [one["way"] for one in found["ways"]] == ["plain", "lookup", "assistant"] and found["prompt_tokens"] > 5
    with pytest.raises(StudioError) as err:
        api.lab_speculative("starter", "x", {}, str(helpers / "other"))
    assert "other tokens" in err.value.message and err.value.field == "assistant"
    with pytest.raises(StudioError) as err:
        api.lab_speculative("starter", "x", {"rounds": 0})
    assert err.value.field == "rounds"
    with pytest.raises(StudioError):
        api.lab_speculative("http://127.0.0.1:9/v1#m", "x", {})
    assert len(manager.engines()) == 1
