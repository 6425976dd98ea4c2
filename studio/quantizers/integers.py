"""Whole numbers, each weight rounded to the nearest: seconds instead of minutes, no texts needed."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.quantizers import compressed
from studio.recipe import field

Scheme = Literal["W8A16", "W4A16", "W4A16_ASYM", "W3A16", "W2A16", "W8A8"]
SCHEMES = {"W8A16": "8 bits, weights only", "W4A16": "4 bits, weights only", "W4A16_ASYM": "4 bits with zero points",
           "W3A16": "3 bits, weights only", "W2A16": "2 bits, weights only", "W8A8": "8 bits, activations too"}


class IntRecipe(compressed.CompressedRecipe):
    """Fields of plain rounding."""

    method: ClassVar[str] = "int"

    schemes: list[Scheme] = field(
        ["W8A16"], "Variants", "Bits of the weights (W) and of what flows through the layers (A), as vLLM calls them. Each "
        "becomes a model of its own.", widget="lines", choices=SCHEMES, max_length=len(SCHEMES))


class Int(compressed.CompressedMethod):
    """Rounding to the nearest."""

    title = "INT8 and INT4"
    summary = "Whole numbers, rounded to the nearest: ready in seconds, good at 8 bits; below 8, GPTQ or AWQ keep more."
    group = "server"
    Recipe = IntRecipe
    word = "INT"

    @classmethod
    def pace(cls, recipe: IntRecipe) -> tuple[float, float]:
        return 0.02, 0.0

    @classmethod
    def modifiers(cls, recipe: IntRecipe, scheme: str) -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier

        return [QuantizationModifier(config_groups=compressed.config_groups(recipe, scheme), ignore=compressed.IGNORED)]
