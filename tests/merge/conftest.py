"""The fixtures of the training tests, adapters on the tiny model, and two tunes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.conftest import _home, chats, tiny  # noqa: F401


@pytest.fixture(scope="session")
def lora(tiny, tmp_path_factory) -> Callable[..., Path]:
    """``lora(seed, r=4, modules=[...])``: a folder with a random LoRA on the tiny model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def make(seed: int, base: Path = tiny, **more) -> Path:
        folder = tmp_path_factory.mktemp(f"lora{seed}")
        torch.manual_seed(seed)
        config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]} | more
        made = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(
            task_type="CAUSAL_LM", init_lora_weights=False, **config))
        made.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tune(tiny, tmp_path_factory) -> Callable[..., Path]:
    """``tune(seed)``: a whole model that differs from the tiny one in every weight."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def make(seed: int, base: Path = tiny, size: float = 0.02) -> Path:
        folder = tmp_path_factory.mktemp(f"tune{seed}")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * size)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def untied(tiny, tmp_path_factory) -> Path:
    """The tiny model with an output layer of its own."""
    import transformers

    folder = tmp_path_factory.mktemp("untied")
    config = transformers.AutoConfig.from_pretrained(tiny)
    config.tie_word_embeddings = False
    transformers.set_seed(4)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict:
    """Name -> tensor of all weights in a folder."""
    from safetensors.torch import load_file

    return {name: value for path in sorted(Path(folder).glob("*.safetensors")) for name, value in load_file(path).items()}
