"""AWQ: weights that meet large activations are scaled up before rounding, so that they lose least."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.quantizers import compressed
from studio.recipe import field

LIB = "llmcompressor.modifiers.transform.awq.AWQModifier"
Scheme = Literal["W4A16_ASYM", "W4A16", "W3A16", "W8A16"]
SCHEMES = {"W4A16_ASYM": "4 bits with zero points (usual)", "W4A16": "4 bits", "W3A16": "3 bits", "W8A16": "8 bits"}


class AwqRecipe(compressed.CompressedRecipe):
    """Fields of an AWQ run."""

    method: ClassVar[str] = "awq"

    schemes: list[Scheme] = field(
        ["W4A16_ASYM"], "Variants", "Bits of the weights (W) and of what flows through the layers (A), as vLLM calls them. "
        "Each becomes a model of its own.", widget="lines", choices=SCHEMES, max_length=len(SCHEMES))
    duo_scaling: bool = field(
        True, "Look at the weights too", "Scales are found from activations and weights together; off, from activations "
        "alone.", group="method", library=LIB)
    n_grid: int = field(20, "Scales tried", "How many strengths of scaling are tried for each layer. Fewer is quicker and a "
                        "little worse.", group="method", library=LIB, ge=4, le=100)


class Awq(compressed.CompressedMethod):
    """Activation-aware scaling, then rounding."""

    title = "AWQ"
    summary = "4-bit weights that spare the channels that matter, for GPU servers (vLLM, SGLang, transformers)."
    paper = "https://arxiv.org/abs/2306.00978"
    group = "server"
    Recipe = AwqRecipe
    copies = 10.0
    calibrates = True
    word = "AWQ"

    @classmethod
    def pace(cls, recipe: AwqRecipe) -> tuple[float, float]:
        return 0.02, 11 * recipe.n_grid / 20

    @classmethod
    def modifiers(cls, recipe: AwqRecipe, scheme: str) -> list[Any]:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        return [AWQModifier(duo_scaling=recipe.duo_scaling, n_grid=recipe.n_grid),
                QuantizationModifier(config_groups=compressed.config_groups(recipe, scheme), ignore=compressed.IGNORED)]
