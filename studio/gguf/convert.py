"""Writes a GGUF file from a model folder, tensor by tensor: never more than a piece of one is in memory, and no torch.

It stands on the ``gguf`` package (names of tensors and facts, the writer). Against llama.cpp's own converter it knows fewer
architectures, takes a fraction of the time, and takes tokenizers that were trained at home. ``docs/gguf.md`` lists what
differs, ``tests/gguf/test_convert.py`` compares both.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.gguf import archs, vocab, weights
from studio.gguf.types import FILE_TYPE
from studio.library import modelinfo

OUTTYPES = ("f32", "f16", "bf16", "q8_0")


class Stopped(Exception):
    """``stop`` said so; nothing is left on the disk."""


def shapes(folder: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape (length of a row first) and type of every tensor that :func:`convert` would write. Reads headers only.

    Raises:
        StudioError: see :func:`convert`.
    """
    config, kind, pieces = _plan(folder)
    base = native(pieces)
    return [(name, tuple(reversed(piece.shape)), _type(name, piece, base)) for name, piece in pieces.items()]


def model(folder: Path) -> Any:
    """What the mixes of :mod:`studio.gguf.recipes` depend on."""
    from studio.gguf.recipes import Model

    config, kind, _ = _plan(folder)
    return Model(kind.name, config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"],
                 config.get("num_local_experts") or config.get("num_experts") or 0)


def check(folder: Path) -> None:
    """Refuse what :func:`convert` would refuse, from headers and the tokenizer's file.

    Raises:
        StudioError: see :func:`convert`.
    """
    config, kind, _ = _plan(folder)
    archs.facts(config, kind)
    vocab.read(folder, config["vocab_size"])


def convert(folder: Path, out: Path, outtype: str = "auto", *, name: str = "",
            progress: Callable[[int, int], None] | None = None, stop: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Write ``folder`` (saved by transformers, safetensors) as the GGUF file ``out``.

    Args:
        outtype: ``f32`` | ``f16`` | ``bf16`` | ``q8_0`` for the matrices; norms and biases are always F32. ``auto``: as they
            are stored, so that nothing is lost.
        name: ``general.name``; else what the model card or the folder says.
        progress: Called with bytes written and bytes in all.
        stop: Asked after every piece.

    Returns:
        ``outtype``, ``tensors``, ``parameters``, ``size`` (bytes), ``notes`` (sentences on what llama.cpp does differently).

    Raises:
        StudioError: an architecture or tokenizer that cannot be converted, broken files, a full disk.
        Stopped: ``stop`` said so.
    """
    import gguf

    if outtype not in (*OUTTYPES, "auto"):
        raise StudioError(f"{outtype} is no type of a base file.", f"Choose one of {', '.join(OUTTYPES)}.", "types")
    config, kind, pieces = _plan(folder)
    base = native(pieces) if outtype == "auto" else outtype.upper()
    words = vocab.read(folder, config["vocab_size"])
    facts = archs.facts(config, kind)
    part = out.with_name(out.name + ".part")
    writer = gguf.GGUFWriter(None, kind.name)
    try:
        kinds = {new: _type(new, piece, base) for new, piece in pieces.items()}
        for new, piece in pieces.items():
            writer.add_tensor_info(new, piece.shape, _numpy(kinds[new]), _bytes(piece, kinds[new]),
                                   gguf.GGMLQuantizationType[kinds[new]])
        _describe(writer, folder, name)
        for call, value in facts.calls:
            getattr(writer, f"add_{call}")(value)
        writer.add_file_type(FILE_TYPE[base])
        _vocabulary(writer, folder, words)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.write_header_to_file(part)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total = sum(_bytes(piece, kinds[new]) for new, piece in pieces.items())
        done = 0
        for new, piece in pieces.items():
            stream = _Stream(piece, kinds[new], progress, stop, done, total)
            writer.write_tensor_data(stream)
            done += stream.nbytes
        writer.close()
        _flush(part)
        part.rename(out)
    except OSError as err:
        raise StudioError(f"{out.name} could not be written: {err.strerror or err}.", "Free disk space and start again.",
                          "model") from err
    finally:
        writer.close()
        part.unlink(missing_ok=True)
    return {"outtype": base.lower(), "tensors": len(pieces), "size": out.stat().st_size,
            "parameters": sum(math.prod(piece.shape) for piece in pieces.values()), "notes": facts.notes + words.notes}


def native(pieces: dict[str, weights.Piece]) -> str:
    """The type in which most weights are stored; doubles become F32."""
    found: dict[str, int] = {}
    for piece in pieces.values():
        for part in piece.parts:
            found[part.kind] = found.get(part.kind, 0) + math.prod(part.shape)
    kind = max(found, key=found.get)
    return "F32" if kind == "F64" or len(found) > 1 and "F32" in found and found["F32"] > sum(found.values()) // 100 else kind


def _plan(folder: Path) -> tuple[dict[str, Any], archs.Architecture, dict[str, weights.Piece]]:
    if not (folder / "config.json").is_file():
        raise StudioError(f"{folder.name} is not a model folder: there is no config.json in it.",
                          "Choose a folder saved by transformers (save_pretrained).", "model")
    found = modelinfo._json(folder / "config.json")
    kind = archs.of(found, folder.name)
    config = archs.flat(found)
    return config, kind, archs.tensors(config, kind, weights.stored(folder))


def _type(name: str, piece: weights.Piece, base: str) -> str:
    """Norms, biases, gates of experts and everything with one dimension are F32; llama.cpp computes them so."""
    if len(piece.shape) <= 1 or not name.endswith(".weight") or name.endswith(("_norm.weight", "ffn_gate_inp.weight")):
        return "F32"
    return "F16" if base == "Q8_0" and piece.shape[-1] % 32 else base


def _numpy(kind: str) -> Any:
    import numpy as np

    return np.dtype(np.float16 if kind == "F16" else np.float32)


def _bytes(piece: weights.Piece, kind: str) -> int:
    count = math.prod(piece.shape)
    return {"F32": 4 * count, "F16": 2 * count, "BF16": 2 * count, "Q8_0": count // 32 * 34}[kind]


def _describe(writer: Any, folder: Path, name: str) -> None:
    """``general.*``: name, licence, base models, languages, from the model card and the name of the folder."""
    import gguf

    total, shared, expert, experts = writer.get_total_parameter_count()
    try:
        found = gguf.Metadata.load(None, folder, name or None, total)
    except Exception:  # a card is text that anyone wrote; a model is converted without it
        found = gguf.Metadata()
    found.name = found.name or name or folder.name
    found.size_label = found.size_label or gguf.size_label(total, shared, expert, experts)
    writer.add_type(gguf.GGUFType.MODEL)
    found.set_gguf_meta_model(writer)


def _vocabulary(writer: Any, folder: Path, words: vocab.Vocabulary) -> None:
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    if words.scores is not None:
        writer.add_token_scores(words.scores)
    writer.add_token_types(words.types)
    for flag, value in words.flags.items():
        getattr(writer, {"add_space_prefix": "add_add_space_prefix"}.get(flag, f"add_{flag}"))(value)
    if words.charsmap:
        writer.add_precompiled_charsmap(words.charsmap)
    try:
        found = vocab.special(folder, len(words.tokens), words.model == "gpt2", words.model == "t5")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
        raise StudioError(f"The special tokens of {folder.name} could not be read ({err}).",
                          "Save the model again with its tokenizer.", "model") from err
    if words.model == "gpt2" and not found.merges:
        raise StudioError(f"The tokenizer of {folder.name} has no merges.", "Save the model again with its tokenizer.",
                          "model")
    if "eos" not in found.special_token_ids:
        words.notes.append("The model names no end token; programs will write on until they are stopped.")
    found.add_to_gguf(writer, quiet=True)


class _Stream:
    """What the writer takes for an array: it computes and writes the tensor piece by piece."""

    def __init__(self, piece: weights.Piece, kind: str, progress: Callable[[int, int], None] | None,
                 stop: Callable[[], bool] | None, done: int, total: int):
        self.piece, self.kind, self.progress, self.stop = piece, kind, progress, stop
        self.done, self.total, self.nbytes = done, total, _bytes(piece, kind)

    def tofile(self, file: Any) -> None:
        import gguf
        import numpy as np

        at = self.done
        for block in self.piece.blocks():
            if self.stop and self.stop():
                raise Stopped
            if self.kind == "F32":
                made = np.ascontiguousarray(block)
            elif self.kind == "F16":
                with np.errstate(over="ignore"):
                    made = block.astype(np.float16)
            else:
                made = gguf.quants.quantize(block, gguf.GGMLQuantizationType[self.kind])
            file.write(made.data)
            at += made.nbytes
            if self.progress:
                self.progress(at, self.total)
        if at - self.done != self.nbytes:
            raise RuntimeError(f"wrote {at - self.done} of {self.nbytes} bytes of a tensor")


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
