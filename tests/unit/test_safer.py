"""The ladder of safer settings, and an estimate held against a machine."""

from __future__ import annotations

import math

import pytest

from studio.recipe import parse
from studio.trainers import advice, plan, safer

BATCH, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"


def recipe(**more):
    return parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite", **more})


@pytest.mark.parametrize(("batch", "steps"), [(8, 1), (6, 2), (9, 1), (7, 3), (1, 4)])
def test_the_effective_batch_and_the_number_of_steps_stay(batch, steps):
    begun = recipe(**{BATCH: batch, STEPS: steps})
    kept = [step for step in safer.ladder(begun) if step.keeps]
    sizes = [step.change.get(BATCH, batch) for step in kept]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 1
    for step in kept:
        changed = safer.changed(begun, step.change)
        assert getattr(changed, BATCH) * getattr(changed, STEPS) == batch * steps
        assert all(plan.total_steps(changed, n) == plan.total_steps(begun, n) for n in (1, 53, 54, 1000))


def test_the_order_of_the_ladder():
    steps = safer.ladder(recipe(**{BATCH: 2, "max_length": 256}))
    assert [step.change for step in steps[:2]] == [{BATCH: 1, STEPS: 2}, {BATCH: 1, STEPS: 2, "gradient_checkpointing": True}]
    assert [step.change.get("max_length") for step in steps[2:4]] == [128, 64]
    assert steps[-1].change == {"method": "qlora"} and [step.keeps for step in steps] == [True, True, False, False, False]


def test_what_cannot_be_made_smaller():
    tight = recipe(**{BATCH: 1, "gradient_checkpointing": True})
    assert safer.next_safe(tight, offers=False) is None
    prefix = parse({"kind": "sft", "method": "prefix_tuning", "dataset": "shipped:polite"})
    assert not any("gradient_checkpointing" in step.change for step in safer.ladder(prefix))


def test_the_first_that_fits_is_offered():
    begun = recipe(**{BATCH: 8})

    def weigh(one):
        return 100 + 50 * getattr(one, BATCH) * (0.2 if one.gradient_checkpointing else 1)

    assert safer.next_safe(begun, 500, 310, weigh) == ({BATCH: 4, STEPS: 2}, True, 300, True)
    assert safer.next_safe(begun, 1000, 310, weigh).change == {BATCH: 1, STEPS: 8}  # measured twice what the formula says
    worst = safer.next_safe(begun, 500, 1, weigh, offers=False)
    assert worst.fits is False and worst.change == {BATCH: 1, STEPS: 8, "gradient_checkpointing": True}
    assert safer.next_safe(begun).change == {BATCH: 4, STEPS: 2}


def test_full_becomes_lora_with_what_both_have():
    full = parse({"kind": "sft", "method": "full", "dataset": "shipped:polite", "learning_rate": 3e-4, "max_length": 77})
    made = safer.changed(full, {"method": "lora"})
    assert made.method == "lora" and made.max_length == 77 and made.r


def test_the_formula_grows_with_what_costs_and_shrinks_with_what_saves():
    def memory(**more):
        return advice.weigh(parse({"kind": "sft", "method": "full", "dataset": "shipped:polite", BATCH: 8, **more}))

    whole = memory()
    assert memory(**{BATCH: 64}) > whole > memory(**{BATCH: 4}) and memory(**{STEPS: 8}) == whole
    assert memory(gradient_checkpointing=True) < whole and memory(optim="adafactor") < whole
    assert memory(max_length=16) < whole


def test_a_run_that_does_not_fit_gets_the_setting_that_does(monkeypatch):
    from studio.api import validate

    values = recipe(**{BATCH: 256}).to_dict()
    assert validate(values)["estimate"]["fits"] is True and validate(values)["estimate"]["next"] is None
    needed = validate(values)["estimate"]["memory"]
    monkeypatch.setattr("studio.jobs.room.free_on", lambda device: int(plan.LIBRARIES + 0.6 * (needed - plan.LIBRARIES)))
    found = validate(values)["estimate"]
    assert found["fits"] is False and found["next"] == {BATCH: 128, STEPS: 2} and found["keeps"] and found["next_fits"]


def test_the_adapter_is_as_large_as_what_is_trained(tmp_path):
    """The formula against PEFT itself, on a model with the starter's shape."""
    import torch
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from studio.registry import method

    def counted(**more):
        wanted = parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite", "r": 8, **more})
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=4,
                                                 num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False))
            trained = get_peft_model(model, method("sft", wanted.method).peft_config(wanted, 100))
        real = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
        return plan._adapter_size(wanted, plan.Shape(256, 512, 4, 1024), 10 ** 9), real

    everywhere, real = counted()
    assert everywhere == real
    for more in ({"target_modules": "q_proj,v_proj"}, {"target_modules": "q_proj,down_proj", "layers_to_transform": "0-1, 3"},
                 {"modules_to_save": "embed_tokens"}, {"modules_to_save": "embed_tokens,lm_head", "r": 4},
                 {"target_modules": "v_proj", "modules_to_save": "up_proj", "r": 2}):
        told, real = counted(**more)
        assert told == real and told != everywhere, more
    assert counted(target_modules="q_proj", layers_to_transform="0-9")[0] == counted(target_modules="q_proj")[0]


def test_the_shape_comes_from_the_model_where_it_is_known():
    from studio.library import refs

    shape = plan.shape_of(recipe(), refs.resolve_model("starter").meta, 2_600_000)
    assert shape == (256, 512, 4, 1024)
    guess = plan.shape_of(recipe(), {}, 1_000_000_000)
    assert math.isclose(13 * guess.layers * guess.width ** 2, 1e9, rel_tol=0.05)
