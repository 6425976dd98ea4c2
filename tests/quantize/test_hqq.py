"""HQQ, an optional part: fetched for this test alone, and held against the library's own way to quantize."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from studio import extras
from tests.quantize.conftest import greedy, perplexity
from tests.train.conftest import QUESTIONS, run


@pytest.fixture(scope="module", autouse=True)
def _hqq(tmp_path_factory):
    """The installed package, or one in a folder of its own in front of the path."""
    if extras.installed("hqq"):
        yield
        return
    folder = tmp_path_factory.mktemp("hqq")
    wanted = [*extras.extra("hqq").requirements, "einops", "termcolor"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", "--target",
                           str(folder), *wanted], capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"hqq cannot be fetched: {done.stderr[-200:]}")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("hqq", "einops", "termcolor")]:
        del sys.modules[name]


@pytest.mark.parametrize(("kind", "worse", "right"), [("8bit", 1.05, 6), ("4bit", 1.3, 4), ("3bit", 3, 0)])
def test_variant(kind, worse, right, taught, chats, tmp_path):
    import transformers

    from studio.library import refs
    from studio.quantizers import hqq, plan
    from studio.recipe import parse
    from studio.registry import method

    values = {"kind": "quantize", "method": "hqq", "types": [kind], "group_size": 32, "model": str(taught), "prove": False}
    summary, ctx = run(values, tmp_path / "run")
    [made] = summary["variants"]
    folder = Path(made["path"])
    model, tokenizer = hqq.opened(folder), transformers.AutoTokenizer.from_pretrained(folder)
    before = transformers.AutoModelForCausalLM.from_pretrained(taught, dtype="float32")
    assert perplexity(model, tokenizer) < worse * perplexity(before, tokenizer)
    assert sum(greedy(model, tokenizer, q) == a for q, a in QUESTIONS) >= right
    assert [p.suffix for p in folder.iterdir() if p.suffix in (".pt", ".bin")] == []
    found = refs.resolve_model(str(folder)).meta
    assert found["format"] == "hqq"
    if kind != "3bit":  # whose last word of ten is filled up
        assert found["parameters"] == sum(p.numel() for p in before.parameters())
    [told] = plan.sizes(method("quantize", "hqq"), parse(values))
    # of each layer some 20 small facts are stored as tensors of their own, which counts in so tiny a model
    assert told["size"] == pytest.approx(made["size"], rel=0.35)


def test_the_library_called_directly_computes_the_same(taught, tmp_path):
    import torch
    import transformers
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.models.hf.base import AutoHQQHFModel

    from studio.quantizers import hqq

    summary, _ = run({"kind": "quantize", "method": "hqq", "types": ["4bit"], "group_size": 32, "model": str(taught),
                      "prove": False}, tmp_path / "run")
    ours = hqq.opened(Path(summary["variants"][0]["path"]))
    plain = transformers.AutoModelForCausalLM.from_pretrained(taught, dtype=torch.bfloat16)
    AutoHQQHFModel.quantize_model(plain, BaseQuantizeConfig(nbits=4, group_size=32), torch.bfloat16, "cpu")
    plain_layers = {name: layer for name, layer in plain.named_modules() if hasattr(layer, "W_q")}
    layers = {name: layer for name, layer in ours.named_modules() if hasattr(layer, "W_q")}
    assert layers.keys() == plain_layers.keys() and len(layers) == 14
    for name, layer in layers.items():
        assert torch.equal(layer.W_q, plain_layers[name].W_q)
        assert torch.equal(layer.dequantize(), plain_layers[name].dequantize())
    given = torch.tensor([[3, 5, 8, 13]])
    with torch.no_grad():
        mine, theirs = ours(given).logits, plain(given).logits
    assert torch.equal(mine[:, 0], theirs[:, 0])
    # behind the first place: the library rounds the angles of the positions to 16 bits too, we leave them
    assert torch.allclose(mine, theirs, atol=0.1)


def test_it_opens_in_the_chat_engine(taught, tmp_path):
    """Where hqq is installed; its host is what the Chat tab and the proof load with."""
    import threading

    from studio.chat.host import Host, Sampling

    summary, _ = run({"kind": "quantize", "method": "hqq", "types": ["8bit"], "group_size": 32, "model": str(taught),
                      "prove": False}, tmp_path / "run")
    host, said = Host(summary["variants"][0]["path"]), []
    ids, _ = host.encode([{"role": "user", "content": QUESTIONS[0][0]}])
    host.generate(ids, Sampling(temperature=0, max_tokens=16, repetition_penalty=1.0), said.append, threading.Event())
    assert "".join(said).strip() == QUESTIONS[0][1]


def test_a_folder_that_lacks_weights(taught, tmp_path):
    from safetensors.torch import load_file, save_file

    from studio.errors import StudioError
    from studio.quantizers import hqq

    summary, _ = run({"kind": "quantize", "method": "hqq", "types": ["4bit"], "group_size": 32, "model": str(taught),
                      "prove": False}, tmp_path / "run")
    path = Path(summary["variants"][0]["path"])
    held = load_file(str(path / "model.safetensors"))
    save_file({k: v for k, v in held.items() if "layers.1.input_layernorm" not in k}, str(path / "model.safetensors"))
    with pytest.raises(StudioError, match="lacks weights"):
        hqq.opened(path)
    save_file({"x": held["model.norm.weight"]}, str(path / "model.safetensors"))
    with pytest.raises(StudioError, match="no weights of HQQ"):
        hqq.opened(path)
