"""FP8: weights (and what flows through the layers) as 8-bit floating point numbers, E4M3. Micikevicius et al. 2022."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from studio.quantizers import compressed
from studio.recipe import field

SCHEMES = {"FP8_DYNAMIC": "8 bits, activations measured while it runs (no texts needed)",
           "FP8": "8 bits, activations measured on texts", "NVFP4A16": "4 bits, weights only (Blackwell GPUs)"}


class Fp8Recipe(compressed.QuantizeRecipe):
    """Fields of an FP8 run."""

    method: ClassVar[str] = "fp8"

    schemes: list[Literal["FP8_DYNAMIC", "FP8", "NVFP4A16"]] = field(
        ["FP8_DYNAMIC"], "Variants", "Floating point formats, as vLLM calls them. GPUs from Ada and Hopper on compute in FP8, "
        "Blackwell in FP4 too; others unpack the weights.", widget="lines", choices=SCHEMES, max_length=len(SCHEMES))


class Fp8(compressed.CompressedMethod):
    """Small floating point numbers."""

    title = "FP8"
    summary = "Half the size in seconds and nearly without loss, for recent GPU servers."
    paper = "https://arxiv.org/abs/2209.05433"
    group = "server"
    Recipe = Fp8Recipe
    copies = 8.0

    @classmethod
    def needs_texts(cls, recipe: Fp8Recipe) -> bool:
        return "FP8" in recipe.schemes

    @classmethod
    def pace(cls, recipe: Fp8Recipe) -> tuple[float, float]:
        return 0.02, 1.0

    @classmethod
    def make(cls, recipe: Fp8Recipe, ctx: Any, source: Any, variant: str, folder: Path) -> dict[str, Any]:
        return compressed.made(cls, recipe, ctx, source, variant, folder, calibrated=variant == "FP8")

    @classmethod
    def modifiers(cls, recipe: Fp8Recipe, scheme: str) -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(config_groups=compressed.config_groups(recipe, scheme), ignore=compressed.IGNORED)]
