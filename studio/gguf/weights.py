"""Tensors of a model folder, a few rows at a time: what a converter reads. Files are safetensors, in any number of parts.

Format: https://github.com/huggingface/safetensors#format (8 bytes length, JSON header, data).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.library import modelinfo

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # kinds that hold plain weights -> bytes of one
ROWS = 4 * 1024 * 1024  # weights held at a time


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file. ``shape`` as in torch, ``offset`` from the start of the file."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Piece:
    """One tensor to be written, made of stored ones.

    Attributes:
        parts: What it is made of, one below the other.
        shape: Of the result, as in torch; the last is the length of a row.
        rows: For each row of the result the row of the parts, or ``None`` where they are in order.
        add: Added to every weight.
        values: The weights themselves, for a tensor that is in no file.
    """

    parts: tuple[Stored, ...]
    shape: tuple[int, ...]
    rows: Any = None
    add: float = 0.0
    values: Any = None

    @property
    def width(self) -> int:
        """Length of a row. Of a vector whose values are put in another order, each is a row."""
        return 1 if len(self.shape) == 1 and self.rows is not None else self.shape[-1]

    @property
    def count(self) -> int:
        """Rows."""
        return math.prod(self.shape) // self.width

    def blocks(self) -> Iterator[Any]:
        """Arrays of float32 ``(rows, length of a row)``, in order, together the whole tensor."""
        import numpy as np

        width = self.width
        if self.values is not None:
            yield np.asarray(self.values, np.float32).reshape(-1, width)
            return
        step = max(1, ROWS // width)
        if self.rows is None:
            for part in self.parts:
                total = math.prod(part.shape) // width
                for at in range(0, total, step):
                    yield self._moved(_rows(part, width, at, min(at + step, total)))
            return
        heights = [math.prod(part.shape) // width for part in self.parts]
        for at in range(0, self.count, step):
            wanted = self.rows[at:at + step]
            block = np.empty((len(wanted), width), np.float32)
            first = 0
            for part, height in zip(self.parts, heights, strict=True):
                mine = (wanted >= first) & (wanted < first + height)
                if mine.any():
                    low, high = int(wanted[mine].min()) - first, int(wanted[mine].max()) - first + 1
                    block[mine] = _rows(part, width, low, high)[wanted[mine] - first - low]
                first += height
            yield self._moved(block)

    def _moved(self, block: Any) -> Any:
        return block + block.dtype.type(self.add) if self.add else block


def whole(stored: Stored) -> Piece:
    return Piece((stored,), stored.shape)


def _rows(part: Stored, width: int, low: int, high: int) -> Any:
    """Rows ``low`` to ``high`` of a stored tensor as float32."""
    import numpy as np

    bytes_ = FLOATS[part.kind]
    kind = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}[part.kind]
    raw = np.fromfile(part.path, kind, (high - low) * width, offset=part.offset + low * width * bytes_)
    if raw.size != (high - low) * width:
        raise StudioError(f"{part.path.name} is cut short.", "Download or save the model again.", "model")
    if part.kind == "BF16":
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32, copy=False).reshape(-1, width)


def stored(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model, from the headers of its files.

    Raises:
        StudioError: no weights, a file missing, broken or cut short, or weights that are rounded already.
    """
    modelinfo.describe(folder)  # refuses folders without weights, with pickles only, and with parts missing
    names = {path.name for path in folder.iterdir()}
    found: dict[str, Stored] = {}
    for name in modelinfo._weight_files(folder, names):
        for tensor, entry in _header(folder / name).items():
            if entry.kind not in FLOATS and not tensor.endswith((".inv_freq", ".attention.bias", ".masked_bias")):
                raise StudioError(f"The weights of {folder.name} are rounded already ({entry.kind}: {tensor}).",
                                  "Choose the model it was made from, in 16 or 32 bits.", "model")
            found[tensor] = entry
    return found


def _header(path: Path) -> dict[str, Stored]:
    modelinfo._tensors(path)  # refuses what is broken or cut short
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    made = {}
    for name, entry in header.items():
        shape = tuple(int(size) for size in entry["shape"])
        begin, end = entry["data_offsets"]
        if begin < 0 or end - begin != math.prod(shape) * FLOATS.get(entry["dtype"], 0) and entry["dtype"] in FLOATS:
            raise StudioError(f"{path.parent.name}/{path.name} is broken: the size of {name} does not fit its shape.",
                              "Download or save the model again.", "model")
        made[name] = Stored(path, entry["dtype"], shape, 8 + length + begin)
    return made
