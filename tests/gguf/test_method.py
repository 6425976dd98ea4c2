"""``quantize/gguf`` as a run: several files of one base, an importance matrix, what it refuses and what a stop or kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studio import settings
from studio.errors import StudioError
from studio.gguf import convert, imatrix, quantize, read, recipes
from studio.jobs.context import Context
from studio.quantizers.gguf import Gguf, GgufRecipe
from studio.recipe import parse
from tests.gguf import models


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here has a workspace of its own."""


def run(folder: Path, **values) -> tuple[dict, list[dict]]:
    """(summary, events) of a run in this process."""
    recipe = parse({"kind": "quantize", "method": "gguf", "prove": False, "num_calibration_samples": 8, **values})
    Gguf.check(recipe)
    ctx = Context(folder, threads=1)
    made = Gguf.run(recipe, ctx)
    return made, [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_several_files_of_one_base(tmp_path):
    made, said = run(tmp_path / "run", types=["Q8_0", "Q4_K_M", "F16"], name="My starter")
    assert [row["quantization"] for row in made["variants"]] == ["Q8_0", "Q4_K_M", "F16"]
    for row in made["variants"]:
        folder = Path(row["path"])
        assert sorted(p.name for p in folder.iterdir()) == [f"My-starter-{row['variant']}.gguf", "README.md"]
        facts = read.facts(folder)
        assert (facts["quantization"], facts["name"], facts["imatrix"]) == (row["variant"], "My starter", None)
        assert facts["bits"] == pytest.approx(row["bits"], abs=0.02) and row["size"] >= facts["size"]
        recipe = GgufRecipe(types=[row["variant"]])
        assert Gguf.bits(recipe, row["variant"]) == pytest.approx(row["bits"], abs=0.001)  # told exactly before the start
    assert not (tmp_path / "run" / "gguf").exists()  # the base file is gone
    assert [e["kind"] for e in said if e["e"] == "artifact"] == ["model"] * 3
    done = [e["done"] for e in said if e["e"] == "progress"]
    assert done == sorted(done) and done[-1] == 3


def test_an_importance_matrix_is_made_once_and_written_down(tmp_path, monkeypatch):
    calls = []
    collect = imatrix.collect
    monkeypatch.setattr(imatrix, "collect", lambda *a, **k: calls.append(1) or collect(*a, **k))
    made, _ = run(tmp_path / "run", types=["IQ3_XS", "Q2_K_S"], imatrix=True)
    assert calls == [1] and len(made["variants"]) == 2
    for row in made["variants"]:
        assert read.facts(Path(row["path"]))["imatrix"] == {"entries": 28, "dataset": "shipped:calibration"}


def test_odd_shapes_are_told_and_measured(tmp_path):
    folder = models.build("llama-home", tmp_path / "model")
    made, said = run(tmp_path / "run", model=str(folder), types=["Q4_K_M"])
    told = [e for e in said if e["e"] == "warning" and e["code"] == "gguf-fallback"]
    assert len(told) == 1 and "14 of 20 tensors" in told[0]["message"] and "Q5_0 instead of Q4_K" in told[0]["message"]
    assert made["variants"][0]["bits"] > 5.5


@pytest.mark.parametrize(("values", "field", "word"), [
    ({"types": ["IQ2_XXS"]}, "imatrix", "importance matrix"), ({"types": ["IQ1_S"], "imatrix": True, "dataset": ""}, "dataset",
                                                              "none are chosen"),
    ({"types": []}, "types", "No variant"), ({"types": ["Q8_0", "q8-0"]}, "types", "twice")])
def test_refused_in_its_field(values, field, word):
    recipe = parse({"kind": "quantize", "method": "gguf", **values})
    with pytest.raises(StudioError, match=word) as caught:
        Gguf.check(recipe)
    assert caught.value.field == field


def test_the_estimate_counts_one_conversion_and_one_reading_for_all_types():
    few, many = (Gguf.estimate(GgufRecipe(types=types)) for types in (["Q8_0"], ["Q8_0", "Q4_K_M", "IQ4_XS"]))
    assert few.seconds < many.seconds and few.disk < many.disk
    read_once = Gguf.pace(GgufRecipe(types=["Q8_0", "Q4_K_M"], imatrix=True))
    assert read_once[1] * 2 == 1 and Gguf.pace(GgufRecipe(types=["Q8_0"]))[1] == 0
    assert Gguf.needs_texts(GgufRecipe(imatrix=True)) and not Gguf.needs_texts(GgufRecipe())


def test_a_slip_of_the_pen_gets_a_suggestion():
    with pytest.raises(StudioError, match="did you mean Q4_K_M"):
        parse({"kind": "quantize", "method": "gguf", "types": ["Q4_KM"]})


def test_a_model_that_llama_cpp_does_not_know_is_refused_before_the_start(tmp_path):
    folder = models.build("llama-home", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["FalconForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudioError, match="FalconForCausalLM"):
        Gguf.check(parse({"kind": "quantize", "method": "gguf", "model": str(folder)}))


def test_a_stop_keeps_what_is_whole_and_nothing_else(tmp_path, monkeypatch):
    ctx = Context(tmp_path / "run", threads=1)
    real = quantize.quantize

    def second(source, out, variant, **more):
        if variant == "Q4_0":
            ctx.request_stop()
        return real(source, out, variant, **more)

    monkeypatch.setattr(quantize, "quantize", second)
    recipe = parse({"kind": "quantize", "method": "gguf", "prove": False, "types": ["Q8_0", "Q4_0", "Q5_0"]})
    made = Gguf.run(recipe, ctx)
    assert [row["variant"] for row in made["variants"]] == ["Q8_0"]
    assert [p.name for p in (tmp_path / "run" / "output").iterdir()] == ["Q8_0"]
    assert len(ctx.artifacts) == 1 and not (tmp_path / "run" / "gguf").exists()


def test_a_kill_in_the_middle_leaves_no_file_that_looks_whole(tmp_path):
    """SIGKILL while tensors are written: only names that end in .part, and folders that nobody registers."""
    code = ("import sys, time\nfrom pathlib import Path\nfrom studio.gguf import quantize\n"
            "rows = quantize._rows\n"
            "def slow(*a):\n    print('row', flush=True); time.sleep(0.2); return rows(*a)\n"
            "quantize._rows = slow\n"
            "from studio.gguf import convert\nfrom studio import settings\nout = Path(sys.argv[1])\n"
            "convert.convert(settings.STARTER, out / 'base.gguf')\n"
            "quantize.quantize(out / 'base.gguf', out / 'a.gguf', 'Q4_K_M')\n")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                               cwd=settings.ROOT, env=os.environ)
    for _ in range(5):
        assert process.stdout.readline() == "row\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert sorted(p.name for p in tmp_path.glob("*.gguf*")) == ["a.gguf.part", "base.gguf"]
    assert read.facts(tmp_path / "base.gguf")["parameters"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    import transformers

    folder = models.build("qwen3", tmp_path_factory.mktemp("m") / "model")
    return folder, transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def test_importance_is_the_mean_square_of_the_inputs(loaded):
    import torch

    folder, model = loaded
    texts = [[5, 6, 7, 8], [9, 10, 11], [12] * 30]
    found = imatrix.collect(model, folder, texts, "three").values
    rows = []
    for ids in texts:
        with torch.no_grad():
            rows.append(model.model.layers[0].input_layernorm(model.model.embed_tokens(torch.tensor(ids))))
    want = torch.cat(rows).square().mean(0).numpy()
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight"], want, rtol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", [name for name in models.CASES if "mo" not in name and name != "mixtral"])
def test_every_matrix_but_the_output_has_its_importance(tmp_path, name):
    import transformers

    folder = models.build(name, tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    known = set(imatrix.names(model, folder).values())
    wanted = {tensor for tensor, shape, _ in convert.shapes(folder) if recipes.quantizable(tensor, shape)}
    assert known == wanted - {"token_embd.weight", "output.weight"}


def test_an_importance_matrix_comes_back_from_its_file(tmp_path):
    made = quantize.Importance({"blk.0.ffn_up.weight": np.arange(8, dtype=np.float32),
                                "blk.0.ffn_up_exps.weight": np.ones((3, 8), np.float32)}, "texts", 5)
    imatrix.save(made, tmp_path / "i.gguf", 128)
    back = imatrix.load(tmp_path / "i.gguf")
    assert (back.dataset, back.chunks, set(back.values)) == ("texts", 5, set(made.values))
    for name, values in made.values.items():
        np.testing.assert_array_equal(back.values[name], values)
    with pytest.raises(StudioError, match="no importance matrix"):
        convert.convert(settings.STARTER, tmp_path / "m.gguf")
        imatrix.load(tmp_path / "m.gguf")


def test_a_model_that_computes_no_numbers_is_refused(loaded):
    import torch

    folder, model = loaded
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        kept, weight[0, 0] = weight[0, 0].clone(), float("nan")
    try:
        with pytest.raises(StudioError, match="no numbers"):
            imatrix.collect(model, folder, [[1, 2, 3]])
    finally:
        with torch.no_grad():
            weight[0, 0] = kept


def test_it_stays_light_until_it_runs():
    code = ("import sys, time; from studio.recipe import parse; from studio.registry import method; "
            "m = method('quantize', 'gguf'); r = parse({'kind': 'quantize', 'method': 'gguf'}); m.check(r); m.estimate(r); "
            "print([n for n in ('torch', 'transformers', 'xllamacpp') if n in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=settings.ROOT, env=os.environ)
    assert done.stdout.strip() == "[]", done.stderr
