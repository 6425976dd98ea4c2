"""The lesson on rounding: its numbers against a few independent lines, its file, its refusals, its stop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from studio.errors import StudioError
from studio.quantizers import learn
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import QUESTIONS, events, run


def lesson(model: Path, data: Path, **more) -> dict:
    return {"kind": "quantize", "method": "learn", "model": str(model), "dataset": str(data), "num_calibration_samples": 12,
            "max_new_tokens": 12} | more


def plain_absmax(w: np.ndarray, bits: int, row: bool) -> np.ndarray:
    """Written anew, with numpy, from section 2 of LLM.int8()."""
    top = 2 ** (bits - 1) - 1
    out = np.zeros_like(w)
    for block in (range(len(w)) if row else [slice(None)]):
        part = w[block]
        factor = top / max(np.abs(part).max(), 1e-12)
        out[block] = np.round(part * factor) / factor
    return out


def plain_zeropoint(w: np.ndarray, bits: int, row: bool) -> np.ndarray:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    out = w.copy()
    for block in (range(len(w)) if row else [slice(None)]):
        part = w[block]
        if part.max() > part.min():
            step = (part.max() - part.min()) / (2 ** bits - 1)
            zero = np.round(low - part.min() / step)
            out[block] = (np.clip(np.round(part / step) + zero, low, high) - zero) * step
    return out


@pytest.mark.parametrize("bits", [8, 5, 3, 2])
@pytest.mark.parametrize("row", [True, False])
def test_formulas(bits, row):
    import torch

    weight = torch.randn(12, 40, generator=torch.Generator().manual_seed(bits)) + 0.3
    given = weight.numpy().astype(np.float64)
    assert np.allclose(learn.absmax(weight, bits, row).numpy(), plain_absmax(given, bits, row), atol=1e-5)
    assert np.allclose(learn.zeropoint(weight, bits, row).numpy(), plain_zeropoint(given, bits, row), atol=1e-5)
    for rounded in (learn.absmax(weight, bits, row), learn.zeropoint(weight, bits, row)):
        for line in rounded if row else [rounded]:
            assert line.unique().numel() <= 2 ** bits


def test_weights_that_are_all_the_same():
    import torch

    for weight in (torch.zeros(3, 4), torch.ones(3, 4), torch.full((3, 4), -2.5)):
        for row in (True, False):
            assert torch.equal(learn.zeropoint(weight, 4, row), weight)
            assert torch.allclose(learn.absmax(weight, 4, row), weight)


@pytest.fixture(scope="module")
def found(taught, tmp_path_factory):
    """A whole run, and the folder it ran in."""
    import os

    place = tmp_path_factory.mktemp("lesson")
    (place / "home").mkdir()
    data = place / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}) + "\n"
                            for q, a in QUESTIONS * 2))
    before = os.environ.get("STUDIO_HOME")
    os.environ["STUDIO_HOME"] = str(place / "home")
    try:
        summary, ctx = run(lesson(taught, data), place / "run")
    finally:
        os.environ.pop("STUDIO_HOME") if before is None else os.environ.update(STUDIO_HOME=before)
    return json.loads((ctx.output / "learn.json").read_text()), summary, ctx


def test_the_file(found):
    told, summary, ctx = found
    assert told["bits"] == [8, 7, 6, 5, 4, 3, 2] and told["schemes"] == ["absmax", "zeropoint"]
    keys = {(r["scheme"], r["bits"], r["granularity"]) for r in told["results"]}
    assert len(keys) == len(told["results"]) == 28 == summary["settings"]
    assert told["texts"] == {"used": 6, "of": 12, "tokens": told["texts"]["tokens"]}
    for one in told["results"]:
        assert sum(one["histogram"]["counts"]) == sum(told["original"]["histogram"]["counts"])
        assert one["histogram"]["edges"] == told["original"]["histogram"]["edges"]
        assert one["layer"]["name"] == told["original"]["layer"]["name"]
        assert len(one["layer"]["edges"]) == len(one["layer"]["counts"]) + 1
        assert one["perplexity"] == pytest.approx(math.exp(one["loss"]))
        assert [s["prompt"] for s in one["samples"]] == [s["prompt"] for s in told["original"]["samples"]]
    [artifact] = ctx.artifacts
    assert artifact["kind"] == "file" and artifact["path"].endswith("learn.json")
    assert artifact["parents"][0]["role"] == "source"
    assert [e["done"] for e in events(ctx.run_dir, "progress")][-1] == 29


def test_what_a_person_sees_is_so(found):
    """Fewer bits, more error; a scale a row is closer; 8 bits answer the same, 2 bits with one scale do not."""
    told, _, _ = found
    by = {(r["scheme"], r["bits"], r["granularity"]): r for r in told["results"]}
    for scheme in ("absmax", "zeropoint"):
        for granularity in ("tensor", "row"):
            errors = [by[scheme, bits, granularity]["relative"] for bits in told["bits"]]
            assert errors == sorted(errors)
            assert by[scheme, 8, granularity]["perplexity"] == pytest.approx(told["original"]["perplexity"], rel=0.02)
            assert all(s["same"] for s in by[scheme, 8, granularity]["samples"])
        assert all(by[scheme, bits, "row"]["relative"] < by[scheme, bits, "tensor"]["relative"] for bits in told["bits"])
    worst = by["absmax", 2, "tensor"]
    assert worst["perplexity"] > 3 * told["original"]["perplexity"] and not all(s["same"] for s in worst["samples"])
    assert by["absmax", 8, "row"]["size"] > by["absmax", 4, "row"]["size"] * 1.8
    used = [n for n in worst["layer"]["counts"] if n]
    assert len(used) <= 4 < sum(n > 0 for n in told["original"]["layer"]["counts"]), "a matrix has at most 4 values left"


def test_numbers_are_those_of_a_plain_script(found, taught):
    """Perplexity, errors and histogram of one setting, computed anew without the method's code."""
    import torch
    import transformers

    told, _, _ = found
    [one] = [r for r in told["results"] if (r["scheme"], r["bits"], r["granularity"]) == ("zeropoint", 3, "row")]
    model = transformers.AutoModelForCausalLM.from_pretrained(taught, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(taught)
    texts = [tokenizer.apply_chat_template([{"role": "user", "content": q}, {"role": "assistant", "content": a}],
                                           return_dict=False) for q, a in QUESTIONS * 2]

    def loss(ids):
        with torch.no_grad():
            return model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()

    best = sorted(sorted(range(12), key=lambda i: loss(texts[i]))[:6])
    errors, values = {}, []
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            before = weight.detach().numpy().copy()
            after = plain_zeropoint(before.astype(np.float64), 3, True)
            errors[name] = (np.sqrt(((after - before) ** 2).mean()), np.sqrt(((after - before) ** 2).sum() / (before ** 2).sum()))
            weight.data = torch.tensor(after, dtype=torch.float32)
            values.append(after.ravel())
    assert {layer["name"] for layer in one["layers"]} == set(errors)
    for layer in one["layers"]:
        assert (layer["rmse"], layer["relative"]) == pytest.approx(errors[layer["name"]], rel=1e-4)
    mean = sum(loss(texts[i]) * (len(texts[i]) - 1) for i in best) / sum(len(texts[i]) - 1 for i in best)
    assert one["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    edges = np.array(one["histogram"]["edges"])
    counts, _ = np.histogram(np.clip(np.concatenate(values), edges[0], edges[-1]), edges)
    assert np.abs(counts - np.array(one["histogram"]["counts"])).sum() < 0.02 * counts.sum()  # values upon an edge


def test_chosen_settings_only(taught, chats, tmp_path):
    summary, ctx = run(lesson(taught, chats, bits=[4], granularities=["row"]), tmp_path / "run")
    told = json.loads((ctx.output / "learn.json").read_text())
    assert summary["settings"] == 2 and {(r["scheme"], r["bits"]) for r in told["results"]} == {("absmax", 4), ("zeropoint", 4)}


def test_plain_texts_are_gone_on_with(taught, tmp_path):
    data = tmp_path / "plain.jsonl"
    data.write_text("".join(json.dumps({"text": f"{q} {a}"}) + "\n" for q, a in QUESTIONS))
    _, ctx = run(lesson(taught, data, bits=[8], granularities=["row"]), tmp_path / "run")
    told = json.loads((ctx.output / "learn.json").read_text())
    assert told["original"]["samples"] and all(s["prompt"] for s in told["original"]["samples"])


def test_stop(taught, chats, tmp_path):
    summary, ctx = run(lesson(taught, chats), tmp_path / "run", stop_at=3)
    assert summary == {} and not ctx.artifacts and not list(ctx.output.iterdir())


@pytest.mark.parametrize(("more", "field"), [({"bits": []}, "bits"), ({"granularities": []}, "granularities"),
                                              ({"dataset": ""}, "dataset"), ({"dataset": "shipped:nothing"}, "dataset")])
def test_refusals(more, field, taught, chats):
    with pytest.raises(StudioError) as err:
        method("quantize", "learn").check(parse(lesson(taught, chats) | more))
    assert err.value.field == field and err.value.hint


def test_estimate(taught, chats):
    recipe = parse(lesson("starter", chats))
    made = method("quantize", "learn").estimate(recipe)
    less = method("quantize", "learn").estimate(recipe.model_copy(update={"bits": [8]}))
    assert made.seconds > less.seconds > 0 and made.memory > 0
