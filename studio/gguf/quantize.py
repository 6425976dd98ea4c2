"""Quantizes a GGUF file by the functions of llama.cpp itself, which the library ``xllamacpp`` carries along.

``llama-quantize`` is no library function there, but ``ggml_quantize_chunk``, which rounds rows of one tensor, is exported;
it is called by ctypes. Which tensor gets which type is :mod:`studio.gguf.recipes`. So progress counts bytes, a stop takes
effect within a piece, and memory holds a piece of one tensor. The file equals llama-quantize's byte for byte.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.gguf import read, recipes
from studio.gguf.convert import Stopped
from studio.gguf.types import FILE_TYPE, TYPES

PIECE = 1 << 20  # weights rounded at a time by one thread
VERSION = 2  # general.quantization_version: how blocks are laid out
ALIGN = 32
NUMBER = {name: number for number, (name, _, _) in read.BLOCKS.items()}
_DROPPED = ("general.quantization_version", "general.file_type", "split.no", "split.count", "split.tensors.count",
            "quantize.imatrix.file", "quantize.imatrix.dataset", "quantize.imatrix.entries_count",
            "quantize.imatrix.chunks_count")


@dataclass(frozen=True)
class Importance:
    """How much each input of each matrix matters.

    Attributes:
        values: GGUF tensor -> mean of the squares of each input, float32 ``(inputs,)`` or ``(experts, inputs)``.
        dataset: The texts it is from, written into the file.
        chunks: How many texts.
        file: Its own name, written into the file.
    """

    values: dict[str, Any] = field(repr=False)
    dataset: str = ""
    chunks: int = 0
    file: str = "imatrix"


def quantize(source: Path, out: Path, variant: str, *, importance: Importance | None = None,
             output_tensor_type: str | None = None, token_embedding_type: str | None = None, pure: bool = False,
             leave_output_tensor: bool = False, threads: int = 1, progress: Callable[[int, int], None] | None = None,
             stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Write the GGUF file ``source`` (F32, F16 or BF16) as ``variant`` to ``out``.

    Args:
        output_tensor_type, token_embedding_type, pure, leave_output_tensor: As llama-quantize's options of these names.
        threads: Rows of a tensor are shared among so many.
        progress: Called with weights done and weights in all.
        stop: Asked after every piece.

    Returns:
        ``bits`` (a weight, of the written file), ``size``, ``tensors``, ``types`` (type -> tensors), ``fallbacks`` (tensor ->
        wanted and taken type, where rows do not divide into blocks), ``uncalibrated`` (quantized tensors without importance).

    Raises:
        StudioError: an unknown variant, a source that is quantized or holds no numbers, an importance matrix that lacks
            what the variant needs, a full disk.
        Stopped: ``stop`` said so; nothing is left on the disk.
    """
    if variant not in TYPES:
        raise StudioError(f"{variant} is no type of a GGUF file.", f"Known are {', '.join(TYPES)}.", "types")
    file = read.read(source)
    tensors = [(t.name, t.shape, t.type) for t in file.tensors.values()]
    if rounded := [t for t in file.tensors.values() if t.type not in recipes.FLOATS]:
        raise StudioError(f"{source.name} is quantized already ({rounded[0].name}: {rounded[0].type}).",
                          "Rounding twice adds the errors; start from a file in 16 or 32 bits.", "model")
    choice = recipes.choose(tensors, variant, model(file), imatrix=importance is not None, pure=pure,
                            output_tensor_type=output_tensor_type, token_embedding_type=token_embedding_type,
                            leave_output_tensor=leave_output_tensor)
    _check(file, choice, variant, importance)
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as target, source.open("rb") as raw, ThreadPoolExecutor(max(1, threads)) as pool:
            target.write(_head(file, choice, variant, importance, raw))
            work = _Work(file, source, importance, pool, max(1, threads), progress, stop)
            for name, kind in choice.types.items():
                work.tensor(file.tensors[name], kind, target)
            target.flush()
            os.fsync(target.fileno())
        part.rename(out)
    except OSError as err:
        raise StudioError(f"{out.name} could not be written: {err.strerror or err}.", "Free disk space and start again.",
                          "model") from err
    finally:
        part.unlink(missing_ok=True)
    kinds: dict[str, int] = {}
    for kind in choice.types.values():
        kinds[kind] = kinds.get(kind, 0) + 1
    return {"bits": round(8 * recipes.size(tensors, choice.types) / sum(t.values for t in file.tensors.values()), 3),
            "size": out.stat().st_size, "tensors": len(tensors), "types": kinds, "fallbacks": choice.fallbacks,
            "uncalibrated": work.uncalibrated if importance else []}


def model(file: read.File) -> recipes.Model:
    """What the mixes depend on, from the facts of a file."""
    return recipes.Model(str(file.values.get("general.architecture")), int(file.number("block_count") or 0),
                         _first(file, "attention.head_count"), _first(file, "attention.head_count_kv"),
                         int(file.number("expert_count") or 0))


def _first(file: read.File, key: str) -> int:
    """A number, or the first of a list with one for each layer."""
    name = f"{file.values.get('general.architecture')}.{key}"
    items = file.items(name) or [file.values.get(name)]
    return int(items[0]) if isinstance(items[0], int) else 0


def _check(file: read.File, choice: recipes.Choice, variant: str, importance: Importance | None) -> None:
    import numpy as np

    if choice.needing and importance is None:
        raise StudioError(f"{variant} rounds so coarsely that it needs an importance matrix ({choice.needing[0]}).",
                          "Turn on the importance matrix and choose calibration texts.", "imatrix")
    values = importance.values if importance else {}
    if importance and (missing := [name for name in choice.needing if name not in values]):
        raise StudioError(f"The importance matrix lacks {len(missing)} tensors that {variant} needs it for ({missing[0]}).",
                          "Choose a type of three bits or more, or longer calibration texts.", "types")
    for name, found in values.items():
        tensor = file.tensors.get(name)
        if tensor is None:
            continue
        wanted = tensor.shape[0] * (tensor.shape[2] if len(tensor.shape) > 2 else 1)
        if found.size != wanted or not np.isfinite(found).all():
            raise StudioError(f"The importance matrix does not fit {name}: {found.size} numbers for {wanted} inputs.",
                              "Make it from this model.", "imatrix")


def _head(file: read.File, choice: recipes.Choice, variant: str, importance: Importance | None, raw: Any) -> bytes:
    """Everything before the weights: the source's facts as they are, the new type, and where each tensor lies."""
    entries = []
    for key, (begin, end) in file.places.items():
        if key not in _DROPPED:
            raw.seek(begin)
            entries.append(raw.read(end - begin))
    entries += [_number("general.quantization_version", VERSION), _number("general.file_type", FILE_TYPE[variant])]
    if importance:
        entries.append(_text("quantize.imatrix.file", importance.file))
        entries += [_text("quantize.imatrix.dataset", importance.dataset)] if importance.dataset else []
        entries.append(_number("quantize.imatrix.entries_count", len(importance.values)))
        entries += [_number("quantize.imatrix.chunks_count", importance.chunks)] if importance.chunks else []
    made = [b"GGUF", struct.pack("<IQQ", 3, len(choice.types), len(entries)), *entries]
    offset = 0
    for name, kind in choice.types.items():
        shape = file.tensors[name].shape
        made.append(struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
                    + struct.pack("<IQ", NUMBER[kind], offset))
        offset += -(-_bytes(shape, kind) // ALIGN) * ALIGN
    head = b"".join(made)
    return head + bytes(-len(head) % ALIGN)


def _number(key: str, value: int) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<II", 4, value)


def _text(key: str, value: str) -> bytes:
    data = value.encode("utf-8")[:127].decode("utf-8", "ignore").encode("utf-8")  # as long as llama-quantize's may be
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", 8, len(data)) + data


def _bytes(shape: tuple[int, ...], kind: str) -> int:
    values, size = recipes.BLOCK[kind]
    return math.prod(shape) // values * size


class _Work:
    """Rounds one tensor after another and counts."""

    def __init__(self, file: read.File, source: Path, importance: Importance | None, pool: ThreadPoolExecutor, threads: int,
                 progress: Callable[[int, int], None] | None, stop: Callable[[], bool] | None):
        self.source, self.importance, self.pool, self.threads = source, importance, pool, threads
        self.progress, self.stop = progress, stop
        self.done, self.total = 0, sum(t.values for t in file.tensors.values())
        self.uncalibrated: list[str] = []

    def tensor(self, tensor: read.Tensor, kind: str, target: Any) -> None:
        width, rows = tensor.shape[0], tensor.values // tensor.shape[0]
        weights = self._weights(tensor, kind)
        each = tensor.shape[1] if len(tensor.shape) > 2 else rows  # rows of one expert
        step = max(1, PIECE // width)
        spans = [(at, min(at + step, first + each)) for first in range(0, rows, each)
                 for at in range(first, first + each, step)]
        for low in range(0, len(spans), self.threads):
            if self.stop and self.stop():
                raise Stopped
            group = spans[low:low + self.threads]
            jobs = [self.pool.submit(_rows, self.source, tensor, kind, begin, end,
                                     None if weights is None else weights[begin // each]) for begin, end in group]
            for job, (begin, end) in zip(jobs, group, strict=True):
                target.write(job.result())
                self.done += (end - begin) * width
            if self.progress:
                self.progress(self.done, self.total)
        target.write(bytes(-_bytes(tensor.shape, kind) % ALIGN))

    def _weights(self, tensor: read.Tensor, kind: str) -> Any:
        """Importance ``(experts, inputs)`` of a tensor, or ``None``."""
        import numpy as np

        if self.importance is None or kind == tensor.type:
            return None
        found = self.importance.values.get(tensor.name)
        if found is None:
            self.uncalibrated.append(tensor.name)
            return None
        return np.ascontiguousarray(found, np.float32).reshape(-1, tensor.shape[0])


def _rows(source: Path, tensor: read.Tensor, kind: str, begin: int, end: int, importance: Any) -> Any:
    """Rows ``begin`` to ``end`` of a tensor in another type, as bytes."""
    import numpy as np

    width, count = tensor.shape[0], (end - begin) * tensor.shape[0]
    size = recipes.BLOCK[tensor.type][1]
    raw = np.fromfile(source, np.uint8, count * size, offset=tensor.offset + begin * width * size)
    if raw.size != count * size:
        raise StudioError(f"{source.name} is cut short.", "Convert the model again.", "model")
    if kind == tensor.type:
        return raw.data
    if tensor.type == "BF16":
        values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.view(np.float16 if tensor.type == "F16" else np.float32).astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise StudioError(f"{tensor.name} holds values that are no numbers, so it cannot be rounded.",
                          "The model is broken, as after a training that diverged. Choose an earlier checkpoint.", "model")
    made = np.empty(_bytes((width, end - begin), kind), np.uint8)
    lib = library()
    pointer = None if importance is None else importance.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    size = lib.ggml_quantize_chunk(NUMBER[kind], values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), made.ctypes.data,
                                   0, end - begin, width, pointer)
    if size != made.size or not lib.ggml_validate_row_data(NUMBER[kind], made.ctypes.data, made.size):
        raise RuntimeError(f"{tensor.name}: ggml wrote {size} of {made.size} bytes, or bytes that are no {kind}")
    return made.data


@lru_cache(maxsize=1)
def library() -> Any:
    """xllamacpp's shared object with the functions used here declared.

    Its functions of ggml are no documented promise, so each type's name and size is compared with ours first.

    Raises:
        StudioError: not installed, or another version than this one knows.
    """
    spec = importlib.util.find_spec("xllamacpp")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    found = sorted(folder.glob("xllamacpp*.so")) if folder else []
    wrong = StudioError("The library that rounds weights (xllamacpp) is missing or of another version.",
                        "Install the project again: python launch.py setup")
    if not found:
        raise wrong
    try:
        lib = ctypes.CDLL(str(found[0]))
        pointer, floats, long = ctypes.c_void_p, ctypes.POINTER(ctypes.c_float), ctypes.c_int64
        for name, result, takes in (("ggml_quantize_chunk", ctypes.c_size_t,
                                     (ctypes.c_int, floats, pointer, long, long, long, floats)),
                                    ("ggml_validate_row_data", ctypes.c_bool, (ctypes.c_int, pointer, ctypes.c_size_t)),
                                    ("ggml_type_name", ctypes.c_char_p, (ctypes.c_int,)),
                                    ("ggml_type_size", ctypes.c_size_t, (ctypes.c_int,)),
                                    ("ggml_blck_size", long, (ctypes.c_int,))):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, takes
    except (OSError, AttributeError) as err:
        raise wrong from err
    used = {kind.base for kind in TYPES.values()} | {"Q4_1", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_S"}
    for kind in used:
        number, (values, size) = NUMBER[kind], recipes.BLOCK[kind]
        same = (lib.ggml_type_name(number) or b"").decode().upper() == kind.upper()
        if not same or lib.ggml_blck_size(number) != values or lib.ggml_type_size(number) != size:
            raise wrong
    return lib
