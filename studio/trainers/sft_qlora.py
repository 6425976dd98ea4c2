"""QLoRA: LoRA on a base that is held in 4 or 8 bits (bitsandbytes). Dettmers et al. 2023; LLM.int8, 2022."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.recipe import field
from studio.trainers.adapters import LoraMethod, epochs, rate
from studio.trainers.common import DeeperLoraFields, SFTRecipe


class QloraRecipe(DeeperLoraFields, SFTRecipe):
    """Fields of a QLoRA run."""

    method: ClassVar[str] = "qlora"

    learning_rate: float = rate(3e-3, "1e-4 to 2e-4")
    num_train_epochs: float = epochs()
    quant_type: Literal["nf4", "fp4", "int8"] = field(
        "nf4", "Base held in", "How the frozen weights are kept in memory. NF4 takes a quarter of 16 bits and suits nearly all; "
        "8 bits is nearer to the original and takes twice as much.", group="adapter",
        choices={"nf4": "4 bits (NF4)", "fp4": "4 bits (FP4)", "int8": "8 bits (LLM.int8)"})
    bnb_4bit_use_double_quant: bool = field(True, "Quantize the constants too", "Saves another 0.4 bits a weight at no "
                                            "visible cost.", group="adapter",
                                            when={"quant_type": ["nf4", "fp4"]})
    init_lora_weights: Literal["default", "gaussian", "orthogonal", "loftq"] = field(
        "default", "Start of the adapter", "From where it begins to learn. LoftQ (arXiv 2310.08659) begins with what 4 bits "
        "lost of the weights, so that the start is nearer to the whole model; it needs a GPU.", group="adapter",
        library="peft.LoraConfig",
        choices={"default": "From nothing (usual)", "gaussian": "From nothing, normally distributed",
                 "orthogonal": "From nothing, orthogonal", "loftq": "LoftQ: what 4 bits lost (GPU)"})


class Qlora(LoraMethod):
    """Adapter on a quantized model."""

    title = "QLoRA"
    summary = "LoRA on a base held in 4 or 8 bits: models several times larger fit into the same memory."
    paper = "https://arxiv.org/abs/2305.14314"
    Recipe = QloraRecipe

    @classmethod
    def check(cls, recipe: QloraRecipe) -> None:
        from studio.hardware import gpus
        from studio.library import refs

        super().check(recipe)
        if recipe.init_lora_weights == "loftq":
            if not gpus():
                raise StudioError("LoftQ is computed on a GPU, and there is none here.", "Choose another start of the adapter.",
                                  "init_lora_weights")
            if recipe.quant_type != "nf4":
                raise StudioError("LoftQ makes up for what NF4 lost; the base is held otherwise.", "Choose 4 bits (NF4).",
                                  "init_lora_weights")
        model = refs.resolve_model(recipe.model)
        base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
        odd = [size for size in base.meta.get("widths") or [] if size % 64]
        if odd and recipe.quant_type != "int8":
            raise StudioError(f"{base.label} has layers {odd[0]} wide; 4 bits need multiples of 64.",
                              "Choose 8 bits, or LoRA.", "quant_type")

    @classmethod
    def quantization(cls, recipe: QloraRecipe) -> dict[str, Any]:
        if recipe.quant_type == "int8":
            return {"load_in_8bit": True}
        return {"load_in_4bit": True, "bnb_4bit_quant_type": recipe.quant_type,
                "bnb_4bit_use_double_quant": recipe.bnb_4bit_use_double_quant}
