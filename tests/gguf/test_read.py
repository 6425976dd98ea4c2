"""A GGUF file from anywhere is read or refused: in bounded time and memory, with a plain reason, never with a traceback."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from studio.errors import StudioError
from studio.gguf import read


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("read") / "good.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("model")
    writer.add_name("Good\u202e one")
    writer.add_license("apache-2.0")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_file_type(15)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["a", "b", "ä"])
    writer.add_token_types([1, 1, 3])
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", np.ones((3, 64), np.float16))
    writer.add_tensor("blk.0.attn_q.weight", np.ones((64, 64), np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((96, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_facts(good):
    facts = read.facts(good)
    size = 3 * 64 * 2 + 64 * 64 * 4 + 96 * 34
    weights = 3 * 64 + 64 * 64 + 96 * 32
    assert facts == {
        "format": "gguf", "adapter": False, "architecture": "llama", "name": "Good one", "parameters": weights,
        "size": good.stat().st_size, "file": "good.gguf", "bits": round(8 * size / weights, 3), "quantization": "Q4_K_M",
        "file_type": 15, "dtype": "F32", "types": {"F16": 1, "F32": 1, "Q8_0": 1}, "context": 128, "layers": 1,
        "widths": [64, 96], "vocab_size": 3, "tokenizer": True, "tokenizer_model": "gpt2", "tokenizer_pre": "qwen2",
        "chat_template": True, "template": "{{ messages }}", "bos": None, "eos": 2, "imatrix": None, "license": "apache-2.0"}
    assert read.facts(good.parent) == facts  # a folder with one file
    assert read.read(good).items("tokenizer.ggml.tokens") == [b"a", b"b", "ä".encode()]


def test_sizes_of_types_are_those_of_the_gguf_package():
    for kind, (values, size) in gguf.GGML_QUANT_SIZES.items():
        if kind.name not in ("Q8_1", "Q8_K"):  # of intermediate results, never in a file; the package counts Q8_1 otherwise
            assert read.BLOCKS[int(kind)] == (kind.name, values, size)
    for kind in gguf.LlamaFileType:
        if kind.name != "GUESSED":
            assert read.FILE_TYPES[int(kind)] == kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")


def test_reading_needs_no_library():
    code = "import sys; import studio.gguf.read; print([m for m in ('numpy', 'gguf', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stderr


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "a.weight", shape: tuple = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def made(keys: list[bytes] = (), tensors: list[bytes] = (), data: int = 4096, version: int = 3, counts: tuple | None = None,
         magic: bytes = b"GGUF") -> bytes:
    head = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(keys)))) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


ARCH = entry("general.architecture", 8, text("llama"))
HUGE = 1 << 62
HOSTILE = {
    "empty": b"", "short": b"GGUF\x03", "another magic": made(magic=b"GGML"), "version 1": made(version=1),
    "version 99": made(version=99), "byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64),
    "tensors without end": made(counts=(HUGE, 0)), "keys without end": made(counts=(0, HUGE)),
    "keys that are not there": made([ARCH], counts=(0, 4000), data=0),
    "a key longer than the file": made([struct.pack("<Q", HUGE)], counts=(0, 1)),
    "a text longer than the file": made([entry("a", 8, struct.pack("<Q", 1 << 40))]),
    "a text too long": made([entry("a", 8, struct.pack("<Q", 1 << 25))], data=1 << 26),
    "a list longer than the file": made([entry("a", 9, struct.pack("<IQ", 4, 1 << 22))], data=64),
    "a list without end": made([entry("a", 9, struct.pack("<IQ", 8, HUGE))]),
    "many lists": made([entry(f"a{i}", 9, struct.pack("<IQ", 0, 1 << 22) + bytes(1 << 22)) for i in range(3)]),
    "a list of lists": made([entry("a", 9, struct.pack("<IQ", 9, 1))]), "a kind of value": made([entry("a", 77, b"")]),
    "a key twice": made([ARCH, ARCH]), "a key with a line": made([entry("a\nb", 4, bytes(4))]),
    "alignment 0": made([entry("general.alignment", 4, struct.pack("<I", 0))]),
    "alignment 48": made([entry("general.alignment", 4, struct.pack("<I", 48))]),
    "alignment of text": made([entry("general.alignment", 8, text("32"))]),
    "a name that is a path": made([ARCH], [tensor("../../etc/passwd")]), "an absolute name": made([ARCH], [tensor("/etc/passwd")]),
    "a name that is a device": made([ARCH], [tensor("C:\\a.weight")]), "a name with nothing": made([ARCH], [tensor("a\0b")]),
    "a long name": made([ARCH], [tensor("a" * 64)]), "no name": made([ARCH], [tensor("")]),
    "no dimensions": made([ARCH], [tensor(shape=())]), "five dimensions": made([ARCH], [tensor(shape=(1,) * 5)]),
    "no rows": made([ARCH], [tensor(shape=(32, 0))]), "a shape without end": made([ARCH], [tensor(shape=(HUGE, HUGE))]),
    "half a block": made([ARCH], [tensor(shape=(31,), kind=8)]), "a kind of tensor": made([ARCH], [tensor(kind=99)]),
    "a kind that is gone": made([ARCH], [tensor(kind=4)]), "beyond the end": made([ARCH], [tensor(shape=(1 << 30,))]),
    "an offset beyond the end": made([ARCH], [tensor(offset=1 << 50)]), "a crooked offset": made([ARCH], [tensor(offset=7)]),
    "over another": made([ARCH], [tensor("a", (64,)), tensor("b", (64,), offset=32)]),
    "the same place": made([ARCH], [tensor("a"), tensor("b")]), "a tensor twice": made([ARCH], [tensor(), tensor(offset=128)]),
    "part of two": made([ARCH, entry("split.count", 2, struct.pack("<H", 2))], [tensor()]),
    "eyes only": made([ARCH, entry("general.type", 8, text("mmproj"))], [tensor()]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_true_is_refused(tmp_path, name):
    path = tmp_path / "model.gguf"
    path.write_bytes(HOSTILE[name])
    began = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(StudioError) as caught:
            read.facts(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < 2
    assert caught.value.field == "model" and caught.value.hint and "model.gguf" in caught.value.message
    assert len(caught.value.message) < 300


def test_every_cut_is_noticed(good, tmp_path):
    data = good.read_bytes()
    path = tmp_path / "cut.gguf"
    for end in [*range(0, 900, 7), *range(900, len(data) - 32, 991)]:
        path.write_bytes(data[:end])
        with pytest.raises(StudioError):
            read.facts(path)


def test_flipped_bytes_never_end_in_a_traceback(good, tmp_path):
    data, dice = good.read_bytes(), random.Random(5)
    head = read.read(good).head
    path = tmp_path / "flipped.gguf"
    refused = 0
    for _ in range(1500):
        changed = bytearray(data[:head + 64])
        for _ in range(dice.choice((1, 1, 2, 8))):
            changed[dice.randrange(4, head)] = dice.choice((0, 1, 0x7f, 0x80, 0xff, dice.randrange(256)))
        path.write_bytes(bytes(changed) + data[head + 64:])
        try:
            facts = read.facts(path)
            assert facts["size"] == len(data)
            [read.read(path).items(key) for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")]
        except StudioError:
            refused += 1
    assert 150 < refused < 1500


def test_a_folder_needs_one_file(good, tmp_path):
    with pytest.raises(StudioError, match="no GGUF file"):
        read.facts(tmp_path)
    for number in (1, 2):
        (tmp_path / f"a-0000{number}-of-00002.gguf").write_bytes(good.read_bytes())
    with pytest.raises(StudioError, match="holds 2 GGUF files") as caught:
        read.facts(tmp_path)
    assert "--merge" in caught.value.hint
    with pytest.raises(StudioError, match="cannot be read"):
        read.facts(tmp_path / "none.gguf")


def test_a_large_vocabulary_is_quick(tmp_path):
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_token_list([f"t{i}" for i in range(256_000)])
    writer.add_token_merges([f"t {i}" for i in range(256_000)])
    writer.add_tensor("token_embd.weight", np.ones((3, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    began = time.perf_counter()
    assert read.facts(path)["vocab_size"] == 256_000
    first = time.perf_counter() - began
    began = time.perf_counter()
    read.facts(path)
    assert first < 5 and time.perf_counter() - began < 0.05  # the second time it is known
