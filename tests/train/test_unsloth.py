"""The Unsloth switch, with a stand-in: where it is offered, how Unsloth is called, that the studio's trainer stays."""

from __future__ import annotations

import sys

import pytest

from studio.errors import StudioError
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import run, series

STAND_IN = '''
import os

SEEN = {"environment": {name: value for name, value in os.environ.items() if name.startswith("UNSLOTH_")}, "calls": []}


class FastLanguageModel:
    @staticmethod
    def from_pretrained(model_name, dtype, **more):
        from transformers import AutoModelForCausalLM

        SEEN["calls"].append(("from_pretrained", {"model_name": model_name, "dtype": dtype} | more))
        return AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype), None

    @staticmethod
    def get_peft_model(model, random_state, use_gradient_checkpointing, **more):
        import torch
        from peft import LoraConfig, get_peft_model

        SEEN["calls"].append(("get_peft_model", {"random_state": random_state} | more))
        torch.manual_seed(random_state)
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **more))
'''
REPLACES = STAND_IN + '''
import trl

trl.SFTTrainer = type("UnslothSFTTrainer", (trl.SFTTrainer,), {})
'''


@pytest.fixture
def unsloth(tmp_path, monkeypatch):
    """Puts a stand-in in place; its argument is the text of it."""
    import trl

    from studio.trainers import unsloth as ours

    def put(text: str = STAND_IN) -> None:
        (tmp_path / "lib" / "unsloth").mkdir(parents=True)
        (tmp_path / "lib" / "unsloth" / "__init__.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "lib")
        monkeypatch.delitem(sys.modules, "unsloth", raising=False)
        monkeypatch.setattr(ours, "here", lambda: True)
        for name in ("ALLOW_CPU", "RETURN_LOGITS", "DISABLE_STATISTICS", "COMPILE_LOCATION"):
            monkeypatch.setenv(f"UNSLOTH_{name}", "x")  # so that it is taken back afterwards
            monkeypatch.delenv(f"UNSLOTH_{name}")
        monkeypatch.setattr(trl, "SFTTrainer", trl.SFTTrainer)

    yield put
    sys.modules.pop("unsloth", None)


def values(tiny, chats, **more):
    return {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_length": 64, "max_steps": 12,
            "logging_steps": 1, "per_device_train_batch_size": 8, "bf16": "off", "unsloth": True, "save_steps": 4,
            "eval_steps": 4, "r": 4, "target_modules": "q_proj,v_proj", "seed": 7} | more


def test_offered_only_where_it_can_work(monkeypatch):
    from studio import hardware
    from studio.trainers import unsloth

    assert not unsloth.here()
    monkeypatch.setattr(unsloth, "find_spec", lambda name: object() if name == "unsloth" else None)
    assert not unsloth.here(), "no GPU"
    monkeypatch.setattr(hardware, "gpus", lambda: [{"name": "A GPU"}])
    assert unsloth.here()
    monkeypatch.setattr(unsloth, "find_spec", lambda name: None)
    assert not unsloth.here(), "not installed"


def test_it_loads_and_adds_the_adapter_and_the_run_resumes(tiny, chats, tmp_path, unsloth):
    import torch
    import trl

    from studio.trainers.loop import StudioTrainer

    unsloth()
    whole, ctx = run(values(tiny, chats), tmp_path / "whole")
    seen = sys.modules["unsloth"].SEEN
    assert seen["environment"]["UNSLOTH_ALLOW_CPU"] == "1" and seen["environment"]["UNSLOTH_RETURN_LOGITS"] == "1"
    assert str(tmp_path) in seen["environment"]["UNSLOTH_COMPILE_LOCATION"]
    (first, loaded), (second, added) = seen["calls"]
    assert (first, second) == ("from_pretrained", "get_peft_model")
    assert loaded == {"model_name": str(tiny), "dtype": torch.float32, "revision": None, "max_seq_length": 64, "load_in_4bit": False,
                      "load_in_8bit": False, "trust_remote_code": False, "use_gradient_checkpointing": False, "random_state": 7,
                      "fix_tokenizer": False, "use_exact_model_name": True}
    assert added["r"] == 4 and added["target_modules"] == ["q_proj", "v_proj"] and added["random_state"] == 7
    assert StudioTrainer.__mro__[2] is trl.SFTTrainer
    losses = series(ctx.run_dir, "eval_loss")
    assert losses[12] < losses[0] and ctx.artifacts[0]["kind"] == "adapter"
    assert 0 < whole["trained_parameters"] < 0.1 * whole["parameters"]
    run(values(tiny, chats), tmp_path / "cut", stop_at=6)
    run(values(tiny, chats), tmp_path / "cut", resume=True)
    assert series(tmp_path / "cut", "loss") == pytest.approx(series(ctx.run_dir, "loss"), abs=1e-6)


def test_a_quantized_base_is_asked_for(tiny, chats, tmp_path, unsloth):
    unsloth()
    run(values(tiny, chats, method="qlora", max_steps=1), tmp_path / "run")
    loaded = sys.modules["unsloth"].SEEN["calls"][0][1]
    assert loaded["load_in_4bit"] and not loaded["load_in_8bit"]


@pytest.mark.parametrize("text, told", [(REPLACES, "replaces the trainer"), ("raise RuntimeError('CUDA 13 is needed')", "CUDA 13"),
                                        (STAND_IN.replace("SEEN[\"calls\"].append((\"from", "raise RuntimeError('no gpt9')\n"
                                                          "        SEEN[\"calls\"].append((\"from"), "no gpt9")])
def test_what_it_cannot_do_is_told(text, told, tiny, chats, tmp_path, unsloth):
    unsloth(text)
    with pytest.raises(StudioError, match=told) as refused:
        run(values(tiny, chats), tmp_path / "run")
    assert refused.value.field == "unsloth"


@pytest.mark.parametrize("more", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"packing": True}, {"padding_free": True},
                                  {"rope_scaling": "yarn"}, {"method": "qlora", "quant_type": "fp4"},
                                  {"method": "qlora", "bnb_4bit_use_double_quant": False}])
def test_what_does_not_go_with_it_is_refused_in_its_field(more, tiny, chats, unsloth):
    unsloth()
    recipe = parse(values(tiny, chats, **more))
    with pytest.raises(StudioError, match="Unsloth") as refused:
        method("sft", recipe.method).check(recipe)
    assert refused.value.field == list(more)[-1]


def test_without_a_gpu_it_is_refused(tiny, chats):
    with pytest.raises(StudioError, match="not installed") as refused:
        method("sft", "lora").check(parse(values(tiny, chats)))
    assert refused.value.field == "unsloth"


def test_the_script_says_that_it_does_without(tiny, chats):
    assert "Unsloth" in method("sft", "lora").script(parse(values(tiny, chats)))
    assert "Unsloth" not in method("sft", "lora").script(parse(values(tiny, chats, unsloth=False)))
