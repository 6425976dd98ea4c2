"""What GPTQ, AWQ, SmoothQuant, FP8 and plain rounding share: llmcompressor's one call, watched, and stored as compressed-tensors.

https://github.com/vllm-project/llm-compressor. Imports of it stay inside functions.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.library import refs
from studio.quantizers.base import QuantizeMethod, QuantizeRecipe, Stopped
from studio.recipe import field

# Kept in 16 bits: the output layer, and what chooses the experts of a mixture.
IGNORED = ["lm_head", "re:.*embed_out$", "re:.*mlp.gate$", "re:.*block_sparse_moe.gate$", "re:.*router.*"]
SCHEMES = {  # bits of the weights, whether in groups with scales of their own, whether they have zero points
    "W2A16": (2, True, False), "W3A16": (3, True, False), "W4A16": (4, True, False), "W4A16_ASYM": (4, True, True),
    "W8A16": (8, True, False), "W8A8": (8, False, False),
    "FP8_DYNAMIC": (8, False, False), "FP8": (8, False, False), "NVFP4A16": (4, True, False)}
_PASS = re.compile(r"\((\d+)/(\d+)\): (Calibrating|Propagating)")
UNPACKED = "transformers unpacks the weights to 16 bits in memory when it loads them; vLLM keeps them packed."


class CompressedRecipe(QuantizeRecipe):
    """Fields of every method that stores compressed-tensors."""

    group_size: Literal[32, 64, 128, -1] = field(
        128, "Group size", "How many neighbouring weights of a row share a scale. Smaller groups are closer to the source "
        "and take a little more room. It counts for the schemes with 16-bit activations.", group="method",
        choices={32: "32", 64: "64", 128: "128 (usual)", -1: "The whole row"})


class CompressedMethod(QuantizeMethod):
    """A method of llmcompressor; subclasses give ``modifiers``.

    Attributes:
        word: The method in the name of a variant, e.g. ``GPTQ``.
    """

    word: ClassVar[str] = ""
    copies = 6.0

    @classmethod
    def modifiers(cls, recipe: Any, scheme: str) -> list[Any]:
        """Modifiers of llmcompressor that make the scheme, in their order. Imports it."""
        raise StudioError(f"{cls.title} has no modifiers.")

    @classmethod
    def variants(cls, recipe: Any) -> list[str]:
        return list(recipe.schemes)

    @classmethod
    def bits(cls, recipe: Any, variant: str) -> float:
        """A weight's own bits and its share of the group's scale (16 bits; NVFP4: 8) and zero point (as a weight)."""
        own, grouped, zero = SCHEMES[variant]
        size = grouping(recipe, variant)
        scale = 8 if variant.startswith("NVFP4") else 16
        return own + (scale + (own if zero else 0)) / size if grouped and size > 0 else own

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.quantizers import plan

        model = plan.source_of(recipe.model)
        for scheme in cls.variants(recipe):
            size = grouping(recipe, scheme)
            odd = [width for width in model.meta.get("widths") or [] if size > 0 and width > size and width % size]
            if odd and SCHEMES[scheme][1]:
                fits = next((n for n in (64, 32) if not any(width % n for width in odd)), None)
                raise StudioError(f"Groups of {size} do not divide the rows of {model.label}, which are {odd[0]} wide.",
                                  f"Choose a group size of {fits}." if fits else "Choose 'The whole row' as group size.",
                                  "group_size" if "group_size" in type(recipe).model_fields else None)
        super().check(recipe)

    @classmethod
    def make(cls, recipe: Any, ctx: Any, source: refs.ModelRef, variant: str, folder: Path) -> dict[str, Any]:
        return made(cls, recipe, ctx, source, variant, folder, cls.calibrates)


def made(method: type[CompressedMethod], recipe: Any, ctx: Any, source: refs.ModelRef, variant: str, folder: Path,
         calibrated: bool) -> dict[str, Any]:
    """Loads, quantizes and writes one variant; its facts.

    Raises:
        Stopped: a stop was asked for.
        StudioError: the model cannot be quantized so.
    """
    from studio.trainers import load

    load.quiet()
    tokenizer = load.tokenizer(source, recipe.trust_remote_code)
    model = loaded(source, recipe.trust_remote_code)
    try:
        oneshot(model, method.modifiers(recipe, variant), recipe, ctx, tokenizer if calibrated else None)
        model.save_pretrained(str(folder), save_compressed=True)
    except ValueError as err:
        raise readable(err, source) from err
    tokenizer.save_pretrained(str(folder))
    return {"format": "compressed-tensors", "quantization": f"{method.word} {variant}".strip(),
            "bits": measured_bits(folder, source), "notes": [UNPACKED]}


def grouping(recipe: Any, scheme: str) -> int:
    """Weights that share a scale; NVFP4 has groups of 16 by its definition."""
    return 16 if scheme.startswith("NVFP4") else getattr(recipe, "group_size", 128)


def config_groups(recipe: Any, scheme: str) -> dict[str, Any]:
    """The preset scheme of compressed-tensors, with the recipe's group size."""
    from compressed_tensors.quantization import QuantizationStrategy, preset_name_to_scheme

    made = preset_name_to_scheme(scheme, ["Linear"])
    if made.weights.strategy == QuantizationStrategy.GROUP and made.weights.num_bits != 16:
        size = grouping(recipe, scheme)
        more = {"strategy": "group", "group_size": size} if size > 0 else {"strategy": "channel", "group_size": None}
        made.weights = type(made.weights).model_validate(made.weights.model_dump() | more)
    return {"group_0": made}


def loaded(source: refs.ModelRef, trust: bool) -> Any:
    """The source with its weights in 16 bits: what is not quantized is stored so."""
    from studio.trainers import load

    made = load.model(source, "float16" if source.meta.get("dtype") == "F16" else "bfloat16", trust)
    made.config.use_cache = True
    return made


def oneshot(model: Any, modifiers: list[Any], recipe: Any, ctx: Any, tokenizer: Any = None) -> None:
    """llmcompressor's call, with progress and a stop between two layers; ``tokenizer``: calibrate, on the recipe's texts.

    Raises:
        Stopped: a stop was asked for.
        StudioError: no calibration texts.
    """
    from datasets import Dataset
    from llmcompressor import oneshot as run
    from llmcompressor.core import reset_session

    from studio.quantizers import calibration

    more: dict[str, Any] = {}
    if tokenizer is not None:
        ids = calibration.tokens(recipe, tokenizer)
        more = {"dataset": Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}),
                "num_calibration_samples": len(ids), "max_seq_length": recipe.max_seq_length,
                "shuffle_calibration_samples": False}
    reset_session()
    try:
        with watched(ctx):
            run(model=model, recipe=modifiers, **more)
    finally:
        reset_session()
    if ctx.stop_requested:
        raise Stopped


@contextlib.contextmanager
def watched(ctx: Any) -> Iterator[None]:
    """llmcompressor tells how far it is by bars (tqdm) and lines (loguru): both become progress, and both are where a stop
    takes hold. Without an accelerator its cache of activations must not pin memory, which AWQ would die of."""
    import torch
    from llmcompressor.modifiers.transform.awq import base as awq
    from llmcompressor.pipelines.cache import IntermediatesCache
    from llmcompressor.pipelines.sequential import pipeline
    from loguru import logger

    seen = {"layer": 0, "layers": 0}

    def halt() -> None:
        if ctx.stop_requested:
            raise Stopped

    class Bar(pipeline.tqdm):
        """The library's bar, silent on the terminal, that reports to the run."""

        def __init__(self, *args: Any, **kwargs: Any):
            match = _PASS.match(str(kwargs.get("desc") or ""))
            if match:
                seen.update(layer=int(match[1]) - 1, layers=int(match[2]))
            self.share = {"Calibrating": (0.0, 0.4), "Propagating": (0.9, 1.0)}.get(match[3]) if match else None
            super().__init__(*args, **kwargs | {"disable": True})

        def __iter__(self) -> Iterator[Any]:
            total = self.total or len(self.iterable)
            for number, item in enumerate(self.iterable):
                halt()
                yield item
                if self.share and seen["layers"]:
                    low, high = self.share
                    ctx.progress(seen["layer"] + low + (high - low) * (number + 1) / max(1, total), seen["layers"])
                elif seen["layers"]:  # inside a layer, between the two passes
                    ctx.progress(seen["layer"] + 0.4 + 0.5 * (number + 1) / max(1, total), seen["layers"])

    def told(message: Any) -> None:
        halt()
        if message.record["level"].name == "WARNING" and "No accelerator" not in message.record["message"]:
            ctx.log(message.record["message"])

    kept = [(pipeline, "tqdm", pipeline.tqdm), (awq, "tqdm", awq.tqdm)]
    if not torch.accelerator.is_available():
        kept.append((IntermediatesCache, "pin_memory", IntermediatesCache.__dict__["pin_memory"]))
        IntermediatesCache.pin_memory = lambda *args, **kwargs: None
    pipeline.tqdm = awq.tqdm = Bar
    sink = logger.add(told, level="INFO", catch=False, format="{message}")
    try:
        yield
    finally:
        logger.remove(sink)
        for owner, name, value in kept:
            setattr(owner, name, value)


def readable(err: ValueError, source: refs.ModelRef) -> Exception:
    """The library's refusal of a group size in a person's words; any other error as it is."""
    if "group_size" in str(err) and "divisib" in str(err):
        return StudioError(f"The group size does not divide the rows of some layers of {source.label}.",
                           "Choose a smaller group size, or the whole row.", "group_size")
    return err


def measured_bits(folder: Path, source: refs.ModelRef) -> float:
    """Bits of the stored weights for each weight of the source."""
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return round(total * 8 / max(1, source.meta.get("parameters") or 1), 2)
