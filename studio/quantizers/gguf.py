"""GGUF, the format of llama.cpp, Ollama and LM Studio: one file that holds weights, tokenizer and chat template."""

from __future__ import annotations

import difflib
import re
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from studio.errors import StudioError
from studio.gguf.types import TYPES
from studio.library import modelinfo, refs
from studio.quantizers.base import QuantizeMethod, QuantizeRecipe, Stopped
from studio.recipe import field

TENSOR_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
                "Q3_K", "Q2_K")  # of one tensor, without those that need an importance matrix
TensorType = Literal["", "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL",
                     "IQ4_XS", "Q3_K", "Q2_K"]
_OWN = {"": "As the type says"} | {name: name for name in TENSOR_TYPES}
BASE = 0.25  # share of the first variant's progress in which the model is converted
WEIGH = 0.5  # share at which the importance matrix is there
CONVERTING = 0.01  # processor seconds a million weights, measured on random models of 13 and 82 million
ROUNDING = {"float": 0.005, "legacy": 0.012, "ternary": 0.015, "k": 0.05, "i": 0.3}  # the same, by kind of type
COARSE = 0.5  # I-quants of two bits and less


class GgufRecipe(QuantizeRecipe):
    """Which files, and how carefully."""

    method: ClassVar[str] = "gguf"

    types: list[str] = field(["Q4_K_M", "Q8_0"], "Types", "One file is made of each. Q8_0 answers like the source, Q4_K_M is "
                             "the usual choice; the fewer bits, the smaller and the worse.", widget="lines",
                             choices={name: f"{name}: {kind.about}" for name, kind in TYPES.items()}, max_length=40)
    imatrix: bool = field(False, "Importance matrix", "Reads the calibration texts with the model first, and rounds what "
                          "matters there more carefully. Helps below five bits; needed below three.")
    output_tensor_type: TensorType = field("", "Type of the output layer", "More bits for the layer that chooses the words, "
                                           "against the mix that belongs to the type.", group="advanced", choices=_OWN)
    token_embedding_type: TensorType = field("", "Type of the embeddings", "Bits for the table of the tokens, against the mix "
                                             "that belongs to the type.", group="advanced", choices=_OWN)
    leave_output_tensor: bool = field(False, "Leave the output layer", "Keeps it in the precision of the source, where it is "
                                      "not shared with the embeddings.", group="advanced")
    pure: bool = field(False, "One type for all", "No mix: every matrix in the same type. Smaller, and worse than the mix.",
                       group="advanced")

    @field_validator("types")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        made = []
        for name in value:
            name = name.strip().upper().replace("-", "_")
            if name not in TYPES:
                near = difflib.get_close_matches(name, TYPES, 1)
                raise ValueError(f"{name[:20]} is no type of a GGUF file" + (f"; did you mean {near[0]}?" if near else ""))
            made.append(name)
        return made


class Gguf(QuantizeMethod):
    """Own converter, llama.cpp's own rounding."""

    title = "GGUF"
    summary = "One file for llama.cpp, Ollama and LM Studio, from 16 bits a weight down to two."
    paper = "https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"
    group = "local"
    Recipe = GgufRecipe
    whole = True
    copies = 4.0  # the importance matrix runs the model; without one a piece of a tensor is held
    scratch = 4.0  # the base file, as precise as the source

    @classmethod
    def variants(cls, recipe: GgufRecipe) -> list[str]:
        return list(recipe.types)

    @classmethod
    def needs_texts(cls, recipe: GgufRecipe) -> bool:
        return recipe.imatrix

    @classmethod
    def pace(cls, recipe: GgufRecipe) -> tuple[float, float]:
        each = [COARSE if name.startswith(("IQ1", "IQ2")) else ROUNDING[TYPES[name].kind] for name in recipe.types]
        if not each:
            return 0.0, 0.0
        return (sum(each) + CONVERTING) / len(each), recipe.imatrix / len(each)  # converted and weighed once for all

    @classmethod
    def bits(cls, recipe: GgufRecipe, variant: str) -> float:
        """Exact for a model whose files are here, fallbacks and all; else what the type takes of a large model."""
        from studio.quantizers import plan

        try:
            model = plan.source_of(recipe.model)
            if model.path:
                return _bits(model.path, modelinfo._stamp(model.path), variant, recipe.imatrix, recipe.output_tensor_type,
                             recipe.token_embedding_type, recipe.pure, recipe.leave_output_tensor)
        except StudioError:
            pass  # check() says why
        return TYPES[variant].bits

    @classmethod
    def check(cls, recipe: GgufRecipe) -> None:
        from studio.quantizers import plan

        if not recipe.imatrix and (needy := [name for name in recipe.types if TYPES[name].needs_imatrix]):
            raise StudioError(f"{needy[0]} rounds so coarsely that without an importance matrix nothing is left of the model.",
                              "Turn on the importance matrix, or choose Q2_K or larger.", "imatrix")
        if recipe.imatrix and not recipe.dataset:
            raise StudioError("An importance matrix is made from texts, and none are chosen.",
                              "Choose the shipped calibration texts or texts of your own.", "dataset")
        model = plan.source_of(recipe.model)
        if model.path:
            _convertible(model.path, modelinfo._stamp(model.path))
        plan.check(cls, recipe)

    @classmethod
    def run(cls, recipe: GgufRecipe, ctx: Any) -> dict[str, Any]:
        try:
            return super().run(recipe, ctx)
        finally:
            shutil.rmtree(_scratch(ctx), ignore_errors=True)

    @classmethod
    def make(cls, recipe: GgufRecipe, ctx: Any, source: refs.ModelRef, variant: str, folder: Path) -> dict[str, Any]:
        from studio.gguf import convert, quantize

        label = recipe.name or refs.resolve_model(recipe.model).label

        def share(low: float, high: float) -> Any:
            return lambda done, total: ctx.progress(low + (high - low) * done / max(1, total), 1.0)

        def stop() -> bool:
            return ctx.stop_requested

        try:
            first = not (_scratch(ctx) / "base.gguf").is_file()
            notes = cls._base(ctx, source, label, share(0, BASE), stop)
            importance = cls._importance(recipe, ctx, source, share(BASE if first else 0, WEIGH), stop)
            told = quantize.quantize(
                _scratch(ctx) / "base.gguf", folder / f"{_slug(label)}-{variant}.gguf", variant, importance=importance,
                output_tensor_type=recipe.output_tensor_type or None, pure=recipe.pure,
                token_embedding_type=recipe.token_embedding_type or None, leave_output_tensor=recipe.leave_output_tensor,
                threads=ctx.threads, progress=share(WEIGH if first else 0, 1), stop=stop)
        except convert.Stopped as err:
            raise Stopped from err
        notes = [*notes, *cls._told(ctx, variant, told)]
        return {"format": "gguf", "quantization": variant, "bits": told["bits"], "types": told["types"],
                "fallbacks": len(told["fallbacks"]), "file": f"{_slug(label)}-{variant}.gguf",
                **({"imatrix": {"entries": len(importance.values), "texts": importance.chunks,
                                "dataset": importance.dataset}} if importance else {}),
                **({"notes": notes} if notes else {})}

    @classmethod
    def _base(cls, ctx: Any, source: refs.ModelRef, label: str, progress: Any, stop: Any) -> list[str]:
        """The file that all variants are made from, once; what llama.cpp does differently with this model."""
        from studio.gguf import convert

        base, said = _scratch(ctx) / "base.gguf", _scratch(ctx) / "notes.txt"
        if not base.is_file():
            base.parent.mkdir(parents=True, exist_ok=True)
            facts = convert.convert(source.path, base, name=label, progress=progress, stop=stop)
            said.write_text("\n".join(facts["notes"]), "utf-8")
            for note in facts["notes"]:
                ctx.warning("gguf-differs", note)
        return [line for line in said.read_text("utf-8").splitlines() if line]

    @classmethod
    def _importance(cls, recipe: GgufRecipe, ctx: Any, source: refs.ModelRef, progress: Any, stop: Any) -> Any:
        if not recipe.imatrix:
            return None
        from studio.gguf import imatrix
        from studio.quantizers import calibration
        from studio.trainers import load

        path = _scratch(ctx) / "imatrix.gguf"
        if not path.is_file():
            ctx.log("Reading the calibration texts with the model.")
            tokens = calibration.tokens(recipe, load.tokenizer(source, recipe.trust_remote_code))
            model = load.model(source, "auto", recipe.trust_remote_code).eval()
            found = imatrix.collect(model, source.path, tokens, recipe.dataset, progress=progress, stop=stop)
            imatrix.save(found, path, recipe.max_seq_length)
        return imatrix.load(path)

    @classmethod
    def _told(cls, ctx: Any, variant: str, told: dict[str, Any]) -> list[str]:
        """Sentences on what a person would not expect of this type."""
        notes = []
        if told["fallbacks"]:
            pairs = sorted({f"{taken} instead of {wanted}" for wanted, taken in told["fallbacks"].values()})
            notes.append(f"{len(told['fallbacks'])} of {told['tensors']} tensors have rows that do not divide into the blocks "
                         f"of their type and keep more bits ({', '.join(pairs)}).")
            ctx.warning("gguf-fallback", f"{variant}: {notes[-1]}", "The file is larger than its name says, and not worse.")
        missing = [name for name in told["uncalibrated"] if name not in ("token_embd.weight", "output.weight")]
        if missing:
            notes.append(f"The importance matrix has nothing on {len(missing)} tensors (such as {missing[0]}); they were "
                         f"rounded without it.")
            ctx.warning("gguf-uncalibrated", f"{variant}: {notes[-1]}")
        return notes


def _scratch(ctx: Any) -> Path:
    return Path(ctx.run_dir) / "gguf"


def _slug(label: str) -> str:
    """A file name that any system and any command line takes."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[:60] or "model"


@lru_cache(maxsize=16)
def _convertible(folder: Path, _stamp: tuple) -> None:
    """Refuse before the start what the converter would refuse.

    Raises:
        StudioError: see :func:`studio.gguf.convert.convert`.
    """
    from studio.gguf import convert

    convert.check(folder)


@lru_cache(maxsize=256)
def _bits(folder: Path, _stamp: tuple, variant: str, imatrix: bool, output: str, embedding: str, pure: bool,
          leave: bool) -> float:
    from studio.gguf import convert, recipes

    shapes = convert.shapes(folder)
    choice = recipes.choose(shapes, variant, convert.model(folder), imatrix=imatrix, output_tensor_type=output or None,
                            token_embedding_type=embedding or None, pure=pure, leave_output_tensor=leave)
    weights = sum(_values(shape) for _, shape, _ in shapes)
    return 8 * recipes.size(shapes, choice.types) / weights


def _values(shape: tuple[int, ...]) -> int:
    made = 1
    for size in shape:
        made *= size
    return made
