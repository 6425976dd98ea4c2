"""Every variant equals llama-quantize's file byte for byte; what cannot be made is refused; nothing half-written is left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from studio.errors import StudioError
from studio.gguf import quantize, read, recipes
from studio.gguf.types import TYPES
from tests.gguf import cases

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text())
SLOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")  # their tables take half a minute: test_quantize_low.py
OPTIONS = {"Q4_K_M pure": {"pure": True}, "Q4_K_M output Q8_0": {"output_tensor_type": "Q8_0"},
           "Q4_K_M embedding Q6_K": {"token_embedding_type": "Q6_K"}, "Q4_K_M leave output": {"leave_output_tensor": True}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("case") / "source.gguf"
    importance = cases.write(cases.WEIGHTS, path)
    return path, quantize.Importance(importance, "cases", 3)


def compare(source, out: Path, variant: str, word: str, **options) -> None:
    """One variant with ``word`` behind its name in the reference."""
    path, importance = source
    wanted = REFERENCE["weights"][variant + word]
    matrix = importance if word == " imatrix" else None
    if wanted is None:  # llama-quantize refuses
        with pytest.raises(StudioError, match="importance matrix"):
            quantize.quantize(path, out, variant, importance=matrix, **options)
        assert TYPES[variant].needs_imatrix
        assert not list(out.parent.iterdir())
        return
    assert matrix or not TYPES[variant].needs_imatrix
    quantize.quantize(path, out, variant, importance=matrix, threads=2, **options)
    found = {name: hashlib.sha256(_raw(out, tensor)).hexdigest()[:16] for name, tensor in read.read(out).tensors.items()}
    assert found == wanted["tensors"]
    assert hashlib.sha256(out.read_bytes()).hexdigest() == wanted["file"]


def _raw(path: Path, tensor: read.Tensor) -> bytes:
    with path.open("rb") as file:
        file.seek(tensor.offset)
        return file.read(tensor.size)


@pytest.mark.parametrize("variant", [name for name in TYPES if name not in SLOW])
def test_the_file_is_llama_quantizes_byte_for_byte(source, tmp_path, variant):
    compare(source, tmp_path / "a.gguf", variant, "")
    (tmp_path / "a.gguf").unlink(missing_ok=True)
    compare(source, tmp_path / "b.gguf", variant, " imatrix")


@pytest.mark.parametrize("word", OPTIONS)
def test_options_do_what_llama_quantizes_do(source, tmp_path, word):
    path, _ = source
    quantize.quantize(path, tmp_path / "a.gguf", "Q4_K_M", **OPTIONS[word])
    assert hashlib.sha256((tmp_path / "a.gguf").read_bytes()).hexdigest() == REFERENCE["weights"][word]["file"]


@pytest.mark.parametrize("name", cases.MIXES)
def test_each_tensor_gets_the_type_that_llama_quantize_gives_it(name):
    case = cases.MIXES[name]
    tensors = [(tensor, tuple(reversed(shape)), "F32") for tensor, shape in cases.shapes(case).items()]
    model = recipes.Model(case.architecture, case.layers, case.heads, case.kv_heads, case.experts)
    for word, wanted in REFERENCE["mixes"][name].items():
        variant, _, matrix = word.partition(" ")
        choice = recipes.choose(tensors, variant, model, imatrix=bool(matrix))
        found = {tensor: kind.upper() for tensor, kind in choice.types.items()}
        made = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
        assert made == wanted, (word, found)


def test_every_offered_type_was_compared():
    for name in TYPES:
        assert name in REFERENCE["weights"] and f"{name} imatrix" in REFERENCE["weights"]
        assert all(name in mixes for mixes in REFERENCE["mixes"].values())


def test_bits_of_the_table_are_those_of_llama_3_8b():
    """Its shapes: 32 layers, 4096 wide, 14336 inside, 8 of 32 heads for keys, 128,256 tokens."""
    shape = {"attn_q": (4096, 4096), "attn_k": (4096, 1024), "attn_v": (4096, 1024), "attn_output": (4096, 4096),
             "ffn_gate": (4096, 14336), "ffn_up": (4096, 14336), "ffn_down": (14336, 4096)}
    tensors = [("token_embd.weight", (4096, 128256), "F32"), ("output.weight", (4096, 128256), "F32")]
    tensors += [(f"blk.{at}.{name}.weight", size, "F32") for at in range(32) for name, size in shape.items()]
    weights = sum(a * b for _, (a, b), _ in tensors)
    for name, kind in TYPES.items():
        choice = recipes.choose(tensors, name, recipes.Model("llama", 32, 32, 8), imatrix=kind.needs_imatrix)
        assert kind.bits == pytest.approx(8 * recipes.size(tensors, choice.types) / weights, abs=0.006), name


# relative error of the root mean square, for weights as in these cases (normal times a gamma by input)
ERRORS = {"Q8_0": .01, "Q6_K": .03, "Q5_K": .055, "Q5_0": .075, "Q5_1": .07, "Q4_K": .12, "Q4_0": .15, "Q4_1": .14,
          "IQ4_NL": .12, "IQ4_XS": .12, "Q3_K": .25, "IQ3_S": .25, "Q2_K": .45}


@pytest.mark.parametrize("variant", ["Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0", "IQ4_XS", "IQ3_S", "Q2_K"])
def test_what_is_written_comes_back_within_the_error_of_its_bits(source, tmp_path, variant):
    path, _ = source
    quantize.quantize(path, tmp_path / "a.gguf", variant)
    before = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors:
        kind = tensor.tensor_type.name
        back = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        first = before[tensor.name].data
        error = float(np.sqrt(np.mean((back - first) ** 2) / np.mean(first ** 2)))
        assert error == 0 if kind == "F32" else error < ERRORS[kind], (tensor.name, kind, error)


def test_an_importance_matrix_lowers_the_error_of_what_matters(source, tmp_path):
    path, importance = source
    quantize.quantize(path, tmp_path / "a.gguf", "Q3_K_S")
    quantize.quantize(path, tmp_path / "b.gguf", "Q3_K_S", importance=importance)
    before = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    errors = []
    for file in ("a.gguf", "b.gguf"):
        total = 0.0
        for tensor in gguf.GGUFReader(tmp_path / file).tensors:
            if tensor.name in importance.values:
                back = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                total += float(((back - before[tensor.name]) ** 2 * importance.values[tensor.name]).sum())
        errors.append(total)
    assert errors[1] < 0.95 * errors[0]
    facts = read.facts(tmp_path / "b.gguf")
    assert facts["imatrix"] == {"entries": len(importance.values), "dataset": "cases"}
    assert read.facts(tmp_path / "a.gguf")["imatrix"] is None


def test_rows_that_do_not_divide_are_told(tmp_path):
    cases.write(cases.MIXES["odd inner"], tmp_path / "source.gguf")
    told = quantize.quantize(tmp_path / "source.gguf", tmp_path / "a.gguf", "Q4_K_S")
    assert set(told["fallbacks"]) == {f"blk.{at}.ffn_down.weight" for at in range(4)}
    assert set(told["fallbacks"].values()) == {("Q4_K", "Q5_0")}
    assert told["size"] == (tmp_path / "a.gguf").stat().st_size
    assert sum(told["types"].values()) == told["tensors"]


def test_a_stop_leaves_nothing(source, tmp_path):
    path, _ = source
    asked = []
    with pytest.raises(quantize.Stopped):
        quantize.quantize(path, tmp_path / "a.gguf", "Q4_K_M", stop=lambda: asked.append(1) or len(asked) > 5)
    assert len(asked) == 6 and not list(tmp_path.iterdir())


def test_progress_counts_every_weight(source, tmp_path):
    path, _ = source
    seen = []
    quantize.quantize(path, tmp_path / "a.gguf", "Q8_0", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] == sum(t.values for t in read.read(path).tensors.values())


def test_a_second_rounding_is_refused(source, tmp_path):
    path, _ = source
    quantize.quantize(path, tmp_path / "a.gguf", "Q8_0")
    with pytest.raises(StudioError, match="quantized already"):
        quantize.quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")


def test_weights_that_are_no_numbers_are_refused(source, tmp_path):
    path, _ = source
    data = bytearray(path.read_bytes())
    tensor = read.read(path).tensors["blk.1.ffn_up.weight"]
    data[tensor.offset:tensor.offset + 4] = np.float32("nan").tobytes()
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(StudioError, match="no numbers"):
        quantize.quantize(tmp_path / "bad.gguf", tmp_path / "a.gguf", "Q4_K_M")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.gguf"]


@pytest.mark.parametrize("change", ["short", "nan", "missing"])
def test_an_importance_matrix_that_does_not_fit_is_refused(source, tmp_path, change):
    path, importance = source
    values = dict(importance.values)
    name = "blk.0.ffn_up.weight"
    if change == "missing":
        del values[name]
    else:
        values[name] = values[name][:-1] if change == "short" else values[name] * np.float32("nan")
    with pytest.raises(StudioError, match="importance matrix"):
        quantize.quantize(path, tmp_path / "a.gguf", "IQ3_XXS", importance=quantize.Importance(values))
    assert not list(tmp_path.iterdir())


def test_the_library_is_the_one_that_is_pinned():
    """Its functions of ggml are no promise; every type that is used is there, with the size that is known here."""
    library = quantize.library()
    for name, (values, size) in recipes.BLOCK.items():
        assert library.ggml_blck_size(quantize.NUMBER[name]) == values, name
        assert library.ggml_type_size(quantize.NUMBER[name]) == size, name
