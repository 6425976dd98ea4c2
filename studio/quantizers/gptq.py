"""GPTQ: weights are rounded one column after the other, and what is not rounded yet makes up for the error."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.quantizers import compressed
from studio.recipe import field

LIB = "llmcompressor.modifiers.gptq.GPTQModifier"
Scheme = Literal["W4A16", "W4A16_ASYM", "W3A16", "W2A16", "W8A16", "W8A8"]
SCHEMES = {"W4A16": "4 bits", "W4A16_ASYM": "4 bits with zero points", "W3A16": "3 bits", "W2A16": "2 bits",
           "W8A16": "8 bits", "W8A8": "8 bits, activations too"}


class GptqRecipe(compressed.CompressedRecipe):
    """Fields of a GPTQ run."""

    method: ClassVar[str] = "gptq"

    schemes: list[Scheme] = field(
        ["W4A16"], "Variants", "Bits of the weights (W) and of what flows through the layers (A), as vLLM calls them. Each "
        "becomes a model of its own.", widget="lines", choices=SCHEMES, max_length=len(SCHEMES))
    actorder: Literal["static", "weight", "group", "none"] = field(
        "static", "Order of the columns", "Columns whose inputs are largest are rounded first, while much is left to make up "
        "for it. Static is as good as any and costs nothing later.", group="method",
        choices={"static": "By activation, groups fixed before (static)", "weight": "By activation (weight)",
                 "group": "By activation, groups too (group)", "none": "As they stand"})
    dampening_frac: float = field(
        0.01, "Dampening", "Added to the diagonal of the Hessian, as a share of its mean, so that it can be inverted. Raise "
        "it when a layer cannot be.", group="advanced", library=LIB, gt=0, le=1)
    block_size: int = field(128, "Columns at once", "How many columns are rounded before the error is spread over the rest.",
                            group="advanced", library=LIB, ge=16, le=1024)


class Gptq(compressed.CompressedMethod):
    """Second-order rounding, layer by layer."""

    title = "GPTQ"
    summary = "4-bit weights fitted to texts, for GPU servers (vLLM, SGLang, transformers)."
    paper = "https://arxiv.org/abs/2210.17323"
    group = "server"
    Recipe = GptqRecipe
    copies = 10.0
    calibrates = True
    word = "GPTQ"

    @classmethod
    def pace(cls, recipe: GptqRecipe) -> tuple[float, float]:
        return 0.33, 1.0

    @classmethod
    def modifiers(cls, recipe: GptqRecipe, scheme: str) -> list[Any]:
        return [modifier(compressed.config_groups(recipe, scheme), recipe.actorder, recipe.dampening_frac,
                         recipe.block_size)]


def modifier(groups: dict[str, Any], actorder: str = "static", dampening_frac: float = 0.01,
             block_size: int = 128) -> Any:
    """llmcompressor's ``GPTQModifier`` on every linear layer but the output layer."""
    from llmcompressor.modifiers.gptq import GPTQModifier

    return GPTQModifier(config_groups=groups, ignore=compressed.IGNORED, dampening_frac=dampening_frac,
                        block_size=block_size, actorder=None if actorder == "none" else actorder)
