"""SmoothQuant: outliers are moved from the activations into the weights, so that both fit 8 bits."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.quantizers import compressed, gptq
from studio.recipe import field

LIB = "llmcompressor.modifiers.transform.smoothquant.SmoothQuantModifier"


class SmoothQuantRecipe(compressed.QuantizeRecipe):
    """Fields of a SmoothQuant run."""

    method: ClassVar[str] = "smoothquant"

    schemes: list[Literal["W8A8"]] = field(
        ["W8A8"], "Variants", "8 bits for the weights and for what flows through the layers (W8A8), as vLLM calls it.",
        widget="lines", choices={"W8A8": "8 bits, activations too"}, max_length=1)
    smoothing_strength: float = field(
        0.8, "Smoothing strength", "How much of the outliers is moved into the weights: 0 nothing, 1 all. The paper uses "
        "0.5; 0.8 is usual for Llama-like models.", group="method", library=LIB, ge=0, le=1)
    rounding: Literal["gptq", "rtn"] = field(
        "gptq", "Rounding", "GPTQ fits the rounded weights to the texts; to the nearest is quick.", group="method",
        choices={"gptq": "GPTQ", "rtn": "To the nearest"})


class SmoothQuant(compressed.CompressedMethod):
    """8 bits in weights and activations."""

    title = "SmoothQuant"
    summary = "8 bits for weights and activations, for fast integer arithmetic on servers."
    paper = "https://arxiv.org/abs/2211.10438"
    group = "server"
    Recipe = SmoothQuantRecipe
    copies = 9.0
    calibrates = True
    word = "SmoothQuant"

    @classmethod
    def pace(cls, recipe: SmoothQuantRecipe) -> tuple[float, float]:
        return (0.4 if recipe.rounding == "gptq" else 0.02), 1.5

    @classmethod
    def modifiers(cls, recipe: SmoothQuantRecipe, scheme: str) -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

        groups = compressed.config_groups(recipe, scheme)
        rounds = gptq.modifier(groups) if recipe.rounding == "gptq" else \
            QuantizationModifier(config_groups=groups, ignore=compressed.IGNORED)
        return [SmoothQuantModifier(smoothing_strength=recipe.smoothing_strength), rounds]
