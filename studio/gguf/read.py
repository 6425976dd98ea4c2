"""Reads the head of a GGUF file with a mistrust of everything in it. Needs the standard library only.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (magic, version, counts, metadata, tensors, padding, data;
little endian). A file comes from anywhere, so every count and length is held against the bytes that are left before
anything is made of it: a broken or hostile one costs a bounded time and memory and ends in a :class:`StudioError`.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import StudioError

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 1 had 32-bit lengths, and no program reads it any more
ALIGNMENT = 32  # of tensors, where the file names none
MAX_HEAD = 512 * 1024 * 1024  # bytes of metadata; a vocabulary of 256,000 with its merges takes about 20 MB
MAX_KEYS = 4096
MAX_TENSORS = 200_000
MAX_ITEMS = 8 * 1024 * 1024  # of all arrays together
MAX_NAME = 63  # bytes of a tensor's name, as in ggml
MAX_TEXT = 16 * 1024 * 1024  # bytes of one text, such as a chat template
BLOCKS: dict[int, tuple[str, int, int]] = {  # ggml's number of a type -> (name, values of a block, bytes of a block)
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18)}
FILE_TYPES: dict[int, str] = {  # general.file_type -> what a person calls it
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0"}
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # type -> struct letter
_TEXT, _ARRAY = 8, 9
_KEY = re.compile(r"[A-Za-z0-9_.\-]{1,255}")
_TENSOR = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")  # a name, never a path
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        shape: Rows last, as ggml counts: ``shape[0]`` is the length of a row.
        offset: Where its bytes begin, from the start of the file.
        size: Bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int

    @property
    def values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Array:
    """A list in the metadata: how long it is and where, not its items; :meth:`File.items` reads them."""

    type: int
    count: int
    offset: int


@dataclass(frozen=True)
class File:
    """A checked file.

    Attributes:
        values: Key -> number, text, truth value or :class:`Array`.
        places: Key -> (first byte, byte after the last) of its whole entry, in the order of the file.
        head: Bytes before the tensors' data.
    """

    path: Path
    size: int
    alignment: int
    head: int
    values: dict[str, Any]
    places: dict[str, tuple[int, int]]
    tensors: dict[str, Tensor] = field(repr=False)

    def items(self, key: str) -> list[Any]:
        """Items of a list in the metadata; texts are bytes, as a vocabulary need not be UTF-8."""
        found = self.values.get(key)
        if not isinstance(found, Array):
            return []
        with self.path.open("rb") as raw:
            bytes_ = _Bytes(raw, self.path, self.head, found.offset)
            if found.type == _TEXT:
                return [bytes_.text() for _ in range(found.count)]
            letter = _PLAIN[found.type]
            return list(struct.unpack(f"<{found.count}{letter}", bytes_.take(found.count * struct.calcsize(letter))))

    def number(self, key: str) -> int | float | None:
        """A number under ``architecture.key``, or the largest of a list there."""
        name = f"{self.values.get('general.architecture')}.{key}"
        found = self.values.get(name)
        if isinstance(found, Array) and found.type in _PLAIN and 0 < found.count <= MAX_KEYS:
            return max(self.items(name))
        return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def facts(path: Path) -> dict[str, Any]:
    """What a GGUF file is, or the only one in a folder.

    Returns:
        ``format`` ("gguf"), ``adapter`` (bool), ``architecture`` (llama.cpp's word: ``llama``, ``qwen3``, ...), ``name``,
        ``parameters``, ``size`` (bytes), ``bits`` (a weight), ``quantization`` (``Q4_K_M``, ...), ``file_type`` (its
        number), ``dtype`` (type of most weights), ``types`` (type -> tensors), ``context`` (tokens), ``layers``, ``widths``
        (hidden, feed-forward), ``vocab_size``, ``tokenizer`` (bool), ``tokenizer_model``, ``tokenizer_pre``,
        ``chat_template`` (bool), ``template`` (its text or ``None``), ``bos`` and ``eos`` (ids), ``imatrix`` (``None``, or
        ``entries`` and ``dataset`` of the importance matrix), ``license``, ``file`` (its name). Unknown ones are ``None``.

    Raises:
        StudioError: with ``field="model"``: no such file, several, not a model, cut short, or made to do harm.
    """
    file = only(path) if path.is_dir() else path
    try:
        stat = file.stat()
    except OSError as err:
        raise StudioError(f"{file} cannot be read: {err.strerror}.", "Check its place and permissions.", "model") from err
    found = _facts(file, (stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found | {"types": dict(found["types"]), "widths": list(found["widths"])}


def only(folder: Path) -> Path:
    """The one GGUF file of a folder.

    Raises:
        StudioError: none or several.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix == ".gguf" and p.is_file())
    if not files:
        raise StudioError(f"There is no GGUF file in {folder.name}.", "Choose a folder with one .gguf file.", "model")
    if len(files) > 1:
        parts = re.search(r"-\d{5}-of-\d{5}\.gguf$", files[0].name)
        raise StudioError(f"{folder.name} holds {len(files)} GGUF files; a model is one.",
                          "Join the parts with llama-gguf-split --merge." if parts else
                          "Put each into a folder of its own.", "model")
    return files[0]


@lru_cache(maxsize=64)
def _facts(path: Path, _stamp: tuple) -> dict[str, Any]:
    file = read(path)
    get = file.values.get
    kind = get("general.type", "model")
    if kind not in ("model", "adapter"):
        raise StudioError(f"{path.name} holds no model but a part of one ({str(kind)[:40]}).",
                          "Choose the file of the language model.", "model")
    if (get("split.count") or 1) != 1:
        raise StudioError(f"{path.name} is one part of {get('split.count')}.",
                          "Join the parts with llama-gguf-split --merge.", "model")
    kinds: dict[str, int] = {}
    weights: dict[str, int] = {}
    for tensor in file.tensors.values():
        kinds[tensor.type] = kinds.get(tensor.type, 0) + 1
        weights[tensor.type] = weights.get(tensor.type, 0) + tensor.values
    parameters = sum(weights.values())
    tokens, template = get("tokenizer.ggml.tokens"), get("tokenizer.chat_template")
    number = get("general.file_type")
    entries = get("quantize.imatrix.entries_count")
    vocab = tokens.count if isinstance(tokens, Array) else file.number("vocab_size")
    return {
        "format": "gguf", "adapter": kind == "adapter", "architecture": _words(get("general.architecture")),
        "name": _words(get("general.name")), "parameters": parameters, "size": file.size, "file": path.name,
        "bits": round(8 * sum(t.size for t in file.tensors.values()) / parameters, 3) if parameters else None,
        "quantization": FILE_TYPES.get(number) if isinstance(number, int) else None, "file_type": number,
        "dtype": max(weights, key=weights.get) if weights else None, "types": kinds,
        "context": file.number("context_length"), "layers": file.number("block_count"),
        "widths": [n for n in (file.number("embedding_length"), file.number("feed_forward_length")) if n],
        "vocab_size": vocab, "tokenizer": isinstance(tokens, Array),
        "tokenizer_model": _words(get("tokenizer.ggml.model")), "tokenizer_pre": _words(get("tokenizer.ggml.pre")),
        "chat_template": isinstance(template, str), "template": template if isinstance(template, str) else None,
        "bos": get("tokenizer.ggml.bos_token_id"), "eos": get("tokenizer.ggml.eos_token_id"),
        "imatrix": {"entries": entries, "dataset": _words(get("quantize.imatrix.dataset"))} if entries else None,
        "license": _words(get("general.license")),
    }


def _words(value: Any) -> str | None:
    """A short text out of a file, without what could pass for something else on a page or in a terminal."""
    if not isinstance(value, str):
        return None
    return "".join(c for c in value[:200] if c.isprintable()).strip() or None


def read(path: Path) -> File:
    """The checked head of a GGUF file; the weights are not read.

    Raises:
        StudioError: with ``field="model"``: not GGUF, another version, cut short, or something in it cannot be true.
    """
    try:
        with path.open("rb") as raw:
            return _read(raw, path)
    except OSError as err:
        raise StudioError(f"{path} cannot be read: {err.strerror}.", "Check its place and permissions.", "model") from err


def _read(raw: BinaryIO, path: Path) -> File:
    size = raw.seek(0, 2)
    source = _Bytes(raw, path, min(size, MAX_HEAD), 0)
    if size < 24 or source.take(4) != MAGIC:
        raise StudioError(f"{path.name} is not a GGUF file.", "Choose a file that ends in .gguf and is one.", "model")
    version = source.one("I")
    if version not in VERSIONS:
        swapped = struct.unpack(">I", struct.pack("<I", version))[0] in VERSIONS
        raise StudioError(f"{path.name} is for machines with another byte order." if swapped else
                          f"{path.name} has version {version} of GGUF; known are {VERSIONS[0]} and {VERSIONS[1]}.",
                          "Convert the model again with a current program.", "model")
    count, keys = source.one("Q"), source.one("Q")
    if count > MAX_TENSORS or keys > MAX_KEYS:
        raise source.bad(f"it claims {count} tensors and {keys} facts")
    values, places = _metadata(source, keys)
    alignment = values.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise source.bad("its alignment is not a power of two")
    found = [_tensor(source, alignment) for _ in range(count)]
    head = source.at + -source.at % alignment
    tensors: dict[str, Tensor] = {}
    end = head
    for name, shape, kind, offset, length in sorted(found, key=lambda t: (t[3], t[4])):
        if name in tensors:
            raise source.bad(f"tensor {name} is there twice")
        if head + offset < end:
            raise source.bad(f"tensor {name} lies over another")
        end = head + offset + length
        if end > size:
            raise StudioError(f"{path.name} is cut short: {_mb(end)} are named in it, {_mb(size)} are there.",
                              "Download or convert it again.", "model")
        tensors[name] = Tensor(name, shape, kind, head + offset, length)
    ordered = {entry[0]: tensors[entry[0]] for entry in found}
    return File(path, size, alignment, head, values, places, ordered)


def _metadata(source: _Bytes, keys: int) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    values: dict[str, Any] = {}
    places: dict[str, tuple[int, int]] = {}
    items = 0
    for _ in range(keys):
        began = source.at
        key = source.text(256).decode("utf-8", "replace")
        if not _KEY.fullmatch(key):
            raise source.bad("a name of a fact has odd characters")
        if key in values:
            raise source.bad(f"{key} is there twice")
        kind = source.one("I")
        if kind == _ARRAY:
            values[key], items = _array(source, items)
        elif kind == _TEXT:
            values[key] = source.text(MAX_TEXT).decode("utf-8", "replace")
        elif kind in _PLAIN:
            values[key] = source.one(_PLAIN[kind])
        else:
            raise source.bad(f"{key} has the unknown type {kind}")
        places[key] = (began, source.at)
    return values, places


def _array(source: _Bytes, items: int) -> tuple[Array, int]:
    kind, count = source.one("I"), source.one("Q")
    items += count
    if kind != _TEXT and kind not in _PLAIN:
        raise source.bad("a list holds lists or an unknown type")
    if items > MAX_ITEMS:
        raise source.bad(f"its lists hold more than {MAX_ITEMS} items")
    array = Array(kind, count, source.at)
    if kind == _TEXT:
        if count * 8 > source.left:
            raise source.short()
        for _ in range(count):
            source.skip(source.one("Q"))
    else:
        source.skip(count * struct.calcsize(_PLAIN[kind]))
    return array, items


def _tensor(source: _Bytes, alignment: int) -> tuple[str, tuple[int, ...], str, int, int]:
    name = source.text(MAX_NAME).decode("utf-8", "replace")
    if not _TENSOR.fullmatch(name):
        raise source.bad("a tensor's name is a path or has odd characters")
    dimensions = source.one("I")
    if not 1 <= dimensions <= 4:
        raise source.bad(f"tensor {name} has {dimensions} dimensions")
    shape = tuple(source.one("Q") for _ in range(dimensions))
    kind, offset = source.one("I"), source.one("Q")
    if kind not in BLOCKS:
        raise source.bad(f"tensor {name} has the unknown type {kind}")
    word, values, length = BLOCKS[kind]
    if not all(shape) or math.prod(shape) >= 1 << 62 or shape[0] % values:
        raise source.bad(f"tensor {name} has the impossible shape {'x'.join(map(str, shape))[:80]}")
    if offset % alignment:
        raise source.bad(f"tensor {name} does not lie on a boundary")
    return name, shape, word, offset, math.prod(shape) // values * length


class _Bytes:
    """Reads forward in pieces, never beyond ``end``."""

    def __init__(self, raw: BinaryIO, path: Path, end: int, at: int):
        self.raw, self.path, self.end = raw, path, end
        self.buffer, self.start, self.at = b"", at, at

    @property
    def left(self) -> int:
        return self.end - self.at

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            StudioError: there are not so many.
        """
        if count > self.left:
            raise self.short()
        begin = self.at - self.start
        if begin < 0 or begin + count > len(self.buffer):
            self.raw.seek(self.at)
            self.buffer, self.start, begin = self.raw.read(max(count, min(_CHUNK, self.left))), self.at, 0
            if len(self.buffer) < count:
                raise self.short()
        self.at += count
        return self.buffer[begin:begin + count]

    def skip(self, count: int) -> None:
        if count > self.left:
            raise self.short()
        self.at += count

    def one(self, letter: str) -> Any:
        size = struct.calcsize("<" + letter)
        return struct.unpack("<" + letter, self.take(size))[0]

    def text(self, limit: int = MAX_TEXT) -> bytes:
        length = self.one("Q")
        if length > self.left:
            raise self.short()
        if length > limit:
            raise self.bad(f"a text of {_mb(length)} is too long")
        return self.take(length)

    def short(self) -> StudioError:
        return StudioError(f"{self.path.name} is cut short or broken: a length in it reaches beyond its end.",
                           "Download or convert it again.", "model")

    def bad(self, why: str) -> StudioError:
        return StudioError(f"{self.path.name} is broken or was made to do harm: {why}.",
                           "Do not use it. Get the model from a source you trust.", "model")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"
