"""bitsandbytes: LLM.int8() (Dettmers et al. 2022) and the 4-bit formats of QLoRA (Dettmers et al. 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from studio.library import refs
from studio.quantizers import compressed
from studio.quantizers.base import QuantizeMethod, QuantizeRecipe, Stopped
from studio.recipe import field

LIB = "transformers.BitsAndBytesConfig"
TYPES = {"int8": "8 bits (LLM.int8)", "nf4": "4 bits, normal float (usual)", "fp4": "4 bits, floating point"}
BLOCK = 64  # weights that share a scale
MIND = "Needs the package bitsandbytes to load. It is meant for GPUs; on a processor it works, and int8 is slow."


class BitsAndBytesRecipe(QuantizeRecipe):
    """Fields of a bitsandbytes run."""

    method: ClassVar[str] = "bitsandbytes"

    types: list[Literal["int8", "nf4", "fp4"]] = field(
        ["nf4"], "Variants", "int8 keeps most. nf4 has its 16 steps where weights are most often, fp4 is a plain 4-bit float. "
        "Each becomes a model of its own.", widget="lines", choices=TYPES, max_length=len(TYPES))
    bnb_4bit_use_double_quant: bool = field(
        True, "Quantize the scales too", "Saves 0.4 bits a weight in the 4-bit variants, with hardly any loss.", group="method",
        library=LIB)
    llm_int8_threshold: float = field(
        6.0, "Outlier threshold", "Columns with an activation beyond this are computed in 16 bits (int8 only). 6 is the "
        "paper's; 0 = none.", group="advanced", library=LIB, ge=0, le=100)


class BitsAndBytes(QuantizeMethod):
    """8 or 4 bits without texts."""

    title = "bitsandbytes"
    summary = "8 or 4 bits in seconds, no texts needed; loads in transformers and takes LoRA training on top."
    paper = "https://arxiv.org/abs/2305.14314"
    group = "transformers"
    Recipe = BitsAndBytesRecipe
    copies = 6.0

    @classmethod
    def variants(cls, recipe: BitsAndBytesRecipe) -> list[str]:
        return list(recipe.types)

    @classmethod
    def pace(cls, recipe: BitsAndBytesRecipe) -> tuple[float, float]:
        return 0.03, 0.0

    @classmethod
    def bits(cls, recipe: BitsAndBytesRecipe, variant: str) -> float:
        """4 bits and a 32-bit scale for 64 weights; double quantization: 8 bits and a 32-bit one for 256 of them
        (QLoRA, section 3). int8: a 32-bit scale a row, which is next to nothing."""
        if variant == "int8":
            return 8.0
        return 4 + (8 / BLOCK + 32 / (BLOCK * 256) if recipe.bnb_4bit_use_double_quant else 32 / BLOCK)

    @classmethod
    def make(cls, recipe: BitsAndBytesRecipe, ctx: Any, source: refs.ModelRef, variant: str,
             folder: Path) -> dict[str, Any]:
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        from studio.trainers import load

        load.quiet()
        tokenizer = load.tokenizer(source, recipe.trust_remote_code)
        dtype = torch.float16 if source.meta.get("dtype") == "F16" else torch.bfloat16
        model = load._loaded(AutoModelForCausalLM, source, recipe.trust_remote_code, dtype=dtype,
                             device_map="auto" if torch.cuda.is_available() else "cpu",
                             quantization_config=BitsAndBytesConfig(**cls.arguments(recipe, variant, dtype)))
        if ctx.stop_requested:
            raise Stopped
        ctx.progress(1, 2)
        # Before any forward pass: on a processor the first one turns the weights around in place, and what is saved then
        # loads as something else without a word.
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        ctx.progress(2, 2)
        doubled = variant != "int8" and recipe.bnb_4bit_use_double_quant
        return {"format": "bitsandbytes", "quantization": f"{variant}{' double' if doubled else ''}",
                "bits": compressed.measured_bits(folder, source), "notes": [MIND]}

    @staticmethod
    def arguments(recipe: BitsAndBytesRecipe, variant: str, dtype: Any) -> dict[str, Any]:
        """Of ``BitsAndBytesConfig``; ``dtype``: in which the 4-bit layers compute."""
        if variant == "int8":
            return {"load_in_8bit": True, "llm_int8_threshold": recipe.llm_int8_threshold}
        return {"load_in_4bit": True, "bnb_4bit_quant_type": variant, "bnb_4bit_compute_dtype": dtype,
                "bnb_4bit_use_double_quant": recipe.bnb_4bit_use_double_quant}
