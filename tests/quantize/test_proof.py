"""Proofs on the starter: what is the same is told as the same, and every kind of damage by its name."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import psutil
import pytest

from studio import settings
from studio.errors import StudioError
from studio.gguf import convert, quantize, read
from studio.jobs.context import Context
from studio.quantizers import llama_logits, proof, source
from studio.quantizers.bitsandbytes import BitsAndBytes, BitsAndBytesRecipe
from studio.recipe import parse
from studio.registry import method


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("proof")
    before, os.environ["STUDIO_HOME"] = os.environ.get("STUDIO_HOME"), str(folder / "home")
    yield folder
    os.environ.pop("STUDIO_HOME") if before is None else os.environ.__setitem__("STUDIO_HOME", before)


@pytest.fixture(scope="module")
def reference(place):
    recipe = BitsAndBytesRecipe(model="starter")
    ctx = Context(place / "run", threads=1)
    with source.whole(recipe, ctx) as model:
        made = proof.Reference(model, recipe, ctx)
        yield made
        made.close()
    assert not (place / "run" / "proof").exists()


@pytest.fixture(scope="module")
def f16(place) -> Path:
    file = place / "F16" / "model.gguf"
    file.parent.mkdir()
    convert.convert(settings.STARTER, file, "f16")
    return file


def changed(f16: Path, folder: Path, *changes: tuple[bytes, bytes], **numbers: int) -> Path:
    """A folder with the file, bytes of the same length and numbers under keys of llama replaced."""
    data = bytearray(f16.read_bytes())
    for key, value in numbers.items():
        _, end = read.read(f16).places[key.replace("__", ".")]
        data[end - 4:end] = struct.pack("<I", value)
    for old, new in changes:
        assert len(old) == len(new) and old in data
        data = data.replace(old, new)
    folder.mkdir()
    (folder / "model.gguf").write_bytes(data)
    return folder


def compare(reference, folder: Path, kind: str = "gguf") -> dict:
    return reference.compare(folder, {"format": kind})


def test_sixteen_bits_are_the_same(reference, f16):
    made = compare(reference, f16.parent)
    assert made["verdict"] == "same" and made["reasons"] == []
    assert made["kl"] < 1e-5 and made["kl_max"] < 1e-3 and made["top1"] > 0.998
    seen, greedy = made["perplexity"], made["greedy"]
    assert seen["variant"] == pytest.approx(seen["source"], rel=1e-4) and 1 < seen["source"] < 3
    assert greedy["same"] == greedy["of"] == len(greedy["rows"]) > 10
    assert greedy["rows"][0] == {"prompt": "What is the opposite of hot?", "source": "The opposite of hot is cold.",
                                 "variant": "The opposite of hot is cold."}
    assert made["template"] == made["tokens"] == {"same": True, "first_difference": ""}
    assert made["end"]["source"] and made["end"]["variant"] and made["end"]["ended"]["variant"] > 10
    assert made["tokens_per_second"] > 10 and made["load_seconds"] > 0 and made["size"] == f16.stat().st_size
    assert 0 < made["memory_before"] < made["memory"] < reference.found["memory"], "llama.cpp needs no torch"


def test_fewer_bits_are_further_away(reference, f16, place):
    found = {}
    for kind in ("Q8_0", "Q4_K_M", "TQ2_0"):
        folder = place / kind
        folder.mkdir()
        quantize.quantize(f16, folder / "model.gguf", kind)
        found[kind] = compare(reference, folder)
    assert found["Q8_0"]["kl"] < found["Q4_K_M"]["kl"] < found["TQ2_0"]["kl"]
    assert [found[kind]["verdict"] for kind in found] == ["same", "close", "broken"]
    assert "times the source's" in " ".join(found["TQ2_0"]["reasons"])
    assert all(one["template"]["same"] and one["tokens"]["same"] for one in found.values())


def test_transformers_runs_what_transformers_wrote(reference, place):
    folder = place / "nf4"
    folder.mkdir()
    facts = BitsAndBytes.make(BitsAndBytesRecipe(model="starter"), reference.ctx, reference.model, "nf4", folder)
    made = reference.compare(folder, facts)
    assert made["runtime"] == "transformers" and made["verdict"] == "close" and 1e-5 < made["kl"] < 0.01
    assert made["template"]["same"] and made["tokens"]["same"] and made["end"]["variant"]


def test_another_template_is_told_with_its_first_token(reference, f16, tmp_path):
    made = compare(reference, changed(f16, tmp_path / "m", (b"<|im_start|>assistant\\n", b"<|im_start|>Assistant\\n")))
    assert made["verdict"] == "broken" and made["template"]["same"] is False
    assert "token 14" in made["template"]["first_difference"] and "chat template" in made["reasons"][0]
    assert made["tokens"]["same"] and made["kl"] < 1e-5, "the weights are what they were"


def test_another_way_to_cut_words_is_told(reference, f16, tmp_path):
    first = read.read(f16).items("tokenizer.ggml.merges")[0]  # the join that was learned first is lost
    head = len(first).to_bytes(8, "little")
    made = compare(reference, changed(f16, tmp_path / "m", (head + first, head + b"~ ~")))
    assert made["verdict"] == "broken" and made["tokens"]["same"] is False
    assert "in the source" in made["tokens"]["first_difference"] and any("other tokens" in reason for reason in made["reasons"])


def test_an_end_that_is_not_known_is_told(reference, f16, tmp_path):
    made = compare(reference, changed(f16, tmp_path / "m", (b"<|im_end|>", b"<|my_end|>"), tokenizer__ggml__eos_token_id=900))
    assert made["end"]["variant"] is False and made["end"]["ended"]["variant"] < made["end"]["ended"]["source"]
    assert made["verdict"] == "broken" and any("writes on" in reason for reason in made["reasons"])


def test_a_crash_of_the_runtime_is_a_verdict(reference, f16, tmp_path):
    made = compare(reference, changed(f16, tmp_path / "m", llama__block_count=0))
    assert made["verdict"] == "broken" and made["kl"] is None and made["perplexity"]["variant"] is None
    assert "SIGABRT" in made["reasons"][0] and "GGML_ASSERT" in made["reasons"][0]


def test_damaged_files_and_folders_are_broken(reference, f16, tmp_path, place):
    cut = changed(f16, tmp_path / "cut")
    (cut / "model.gguf").write_bytes(f16.read_bytes()[:100_000])
    made = compare(reference, cut)
    assert made["verdict"] == "broken" and "cut short" in made["reasons"][0]
    noise = changed(f16, tmp_path / "noise")
    data = bytearray(f16.read_bytes())
    head = read.read(f16).tensors["output_norm.weight"]
    data[head.offset:head.offset + head.size] = struct.pack("<f", float("nan")) * (head.size // 4)
    (noise / "model.gguf").write_bytes(data)
    made = compare(reference, noise)
    assert made["verdict"] == "broken" and "not numbers" in " ".join(made["reasons"])


def test_what_nothing_here_runs_is_not_judged(reference, tmp_path):
    made = compare(reference, tmp_path, "exl3")
    assert made["verdict"] is None and "exl3" in made["reasons"][0]


def test_a_stop_ends_the_process(reference, f16, monkeypatch):
    monkeypatch.setattr(Context, "stop_requested", property(lambda self: True))
    assert compare(reference, f16.parent) == {}
    assert not [p for p in psutil.Process().children(recursive=True) if computes(p)]


def computes(process: psutil.Process) -> bool:
    try:
        return "runtimes" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False  # it ended, and is only not yet buried


def test_an_unknown_build_of_llama_cpp_is_not_guessed_at(f16, monkeypatch):
    loaded = llama_logits.Logits(f16, 64, 1)
    assert loaded.ends(2) and not loaded.ends(5) and loaded.of([1, 5, 9]).shape == (3, 1024)
    with pytest.raises(StudioError):
        loaded.of([5000])
    loaded.close()
    monkeypatch.setattr(llama_logits, "DEFAULTS", (512, 2048, 511, 1))
    with pytest.raises(StudioError) as err:
        llama_logits.Logits(f16, 64, 1)
    assert "not known" in err.value.message
    base = {"template": {"same": True}, "tokens": {"same": True}, "end": {"variant": True}, "kl": None, "top1": None,
            "perplexity": {"source": 2.0, "variant": None}, "greedy": {"same": 9, "of": 10}}
    assert proof.verdict(base, unread=err.value.message)[0] == "close"
    assert "could not be compared" in proof.verdict(base, unread="x")[1][0]


def test_divergence_is_that_of_the_definition():
    import numpy as np

    from studio.quantizers.runtimes import divergence, log_softmax

    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.5, 0.25]])
    assert divergence(np.log(p), np.log(q))[0] == pytest.approx(0.5 * np.log(2) - 0.25 * np.log(2))
    assert divergence(np.log(p), np.log(p))[0] == 0
    assert divergence(np.log(p), np.log(p[:, :2] / p[:, :2].sum()))[0] > 5, "a word that the other cannot say"
    assert log_softmax(np.array([[1000.0, 1000.0]]))[0] == pytest.approx(np.log([0.5, 0.5]))


def test_a_run_makes_proven_variants_and_leaves_no_scraps(place, chats):
    folder = place / "whole"
    recipe = parse({"kind": "quantize", "method": "gguf", "model": "starter", "types": ["Q8_0"], "imatrix": False})
    made = method("quantize", "gguf").run(recipe, Context(folder, threads=1))
    assert [v["proof"]["verdict"] for v in made["variants"]] == ["same"]
    assert not (folder / "proof").exists() and not (folder / "folded").exists()
    assert sorted(p.suffix for p in (folder / "output" / "Q8_0").iterdir()) == [".gguf", ".md"]


def test_an_adapter_is_folded_and_goes_again(taught, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapter = tmp_path / "adapter"
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(taught), config).save_pretrained(adapter)
    ctx = Context(tmp_path / "run", threads=1)
    with source.whole(BitsAndBytesRecipe(model=str(adapter)), ctx) as model:
        assert model.path == tmp_path / "run" / "folded" and not model.is_adapter and model.ref == str(adapter)
        assert model.meta["parameters"] and model.meta["dtype"] == "BF16" and model.meta["tokenizer"]
    assert not (tmp_path / "run" / "folded").exists()
