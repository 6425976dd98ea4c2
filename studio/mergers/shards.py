"""What lies in a model's files, without loading it: the place and shape of each weight, and the words of its tokenizer."""

from __future__ import annotations

import json
import math
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studio.errors import StudioError
from studio.library import modelinfo

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
         "F8_E4M3": 1, "F8_E5M2": 1}
MAX_TOKENIZER = 128 * 1024 * 1024  # bytes of a tokenizer.json that is read


class Tensor(NamedTuple):
    """A weight in a safetensors file; ``begin`` is where its data start, in bytes from the start of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def values(self) -> int:
        return math.prod(self.shape)


def tensors(folder: Path) -> dict[str, Tensor]:
    """Name -> place of every weight of a whole model.

    Raises:
        StudioError: a file is broken or missing.
    """
    modelinfo.describe(folder)  # tells what is broken, in plain words
    files = sorted({path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter")})
    index = folder / "model.safetensors.index.json"
    named = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    if not named and (folder / "model.safetensors").is_file():
        named = {"model.safetensors"}
    files = [path for path in files if not named or path.name in named]
    return _tensors(tuple((path, state.st_size, state.st_mtime_ns) for path in files if (state := path.stat())))


@lru_cache(maxsize=32)
def _tensors(files: tuple[tuple[Path, int, int], ...]) -> dict[str, Tensor]:
    found = {}
    for path, _, _ in files:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, modelinfo.MAX_HEADER)))
        header.pop("__metadata__", None)
        for name, one in header.items():
            begin, end = one["data_offsets"]
            found[name] = Tensor(path, one["dtype"], tuple(one["shape"]), 8 + length + begin, end - begin)
    return found


def settings_of(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model."""
    return _json(folder / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise StudioError(f"{path.parent.name}/{path.name} cannot be read.", "Download or save the model again.",
                          "config") from err
    return value if isinstance(value, dict) else {}


def template(folder: Path | None) -> str | None:
    """The chat template in a folder, if there is one."""
    if folder is None:
        return None
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8").strip() or None
    if not (folder / "tokenizer_config.json").is_file():
        return None
    found = _json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several by name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) and found.strip() else None


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Word -> number of a tokenizer.json; ``None`` where there is none or it has another form."""
    path = folder / "tokenizer.json"
    try:
        state = path.stat()
    except OSError:
        return None
    return _vocabulary(path, state.st_size, state.st_mtime_ns) if state.st_size <= MAX_TOKENIZER else None


@lru_cache(maxsize=4)
def _vocabulary(path: Path, size: int, stamp: int) -> dict[str, int] | None:
    try:
        told = json.loads(path.read_text("utf-8"))
        words = told["model"]["vocab"]
        found = {one[0]: i for i, one in enumerate(words)} if isinstance(words, list) else dict(words)
        found.update({one["content"]: one["id"] for one in told.get("added_tokens") or []})
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return found


class Words(NamedTuple):
    """Two tokenizers beside each other: words that only one has, and numbers that mean another word in each."""

    first_only: int
    second_only: int
    clashes: int
    example: str = ""

    @property
    def same(self) -> bool:
        return not (self.first_only or self.second_only or self.clashes)


def compare(first: Path, second: Path) -> Words | None:
    """How the tokenizers of two folders differ; ``None`` where one cannot be read."""
    stamps = []
    for folder in (first, second):
        try:
            state = (folder / "tokenizer.json").stat()
        except OSError:
            return None
        stamps.append((state.st_size, state.st_mtime_ns))
    return _compare(first, second, *stamps)


@lru_cache(maxsize=64)
def _compare(first: Path, second: Path, *stamps: tuple[int, int]) -> Words | None:
    a, b = vocabulary(first), vocabulary(second)
    if a is None or b is None:
        return None
    other = {number: word for word, number in b.items()}
    clashing = [(word, other[number]) for word, number in a.items() if other.get(number, word) != word]
    return Words(len(a.keys() - b.keys()), len(b.keys() - a.keys()), len(clashing),
                 f"{clashing[0][0]!r} and {clashing[0][1]!r}" if clashing else "")
