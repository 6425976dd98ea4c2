"""HQQ: scales and zero points found by half-quadratic splitting, without any texts. Badri and Shaji 2023.

https://dropbox.github.io/hqq_blog/ and the library https://github.com/mobiusml/hqq. Its own way to save is a pickle; here its
tensors go into safetensors under the names that transformers 4 reads (tried with 4.57.6).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from studio import extras
from studio.errors import StudioError
from studio.library import refs
from studio.quantizers import compressed
from studio.quantizers.base import QuantizeMethod, QuantizeRecipe, Stopped
from studio.recipe import field

TYPES = {"8bit": "8 bits", "4bit": "4 bits (usual)", "3bit": "3 bits", "2bit": "2 bits", "1bit": "1 bit"}
KEPT = ("lm_head",)
MIND = "Opens in the Chat tab where the optional part HQQ is installed, and in transformers 4 with the package hqq. Transformers 5 " \
    "itself and most servers do not read it."


class HqqRecipe(QuantizeRecipe):
    """Fields of an HQQ run."""

    method: ClassVar[str] = "hqq"

    types: list[Literal["8bit", "4bit", "3bit", "2bit", "1bit"]] = field(
        ["4bit"], "Variants", "Bits of a weight. Each becomes a model of its own.", widget="lines", choices=TYPES,
        max_length=len(TYPES))
    group_size: Literal[16, 32, 64, 128] = field(
        64, "Group size", "How many neighbouring weights share a scale and a zero point. Smaller groups are closer to the "
        "source and take more room; 2 bits want 16 or 32.", group="method",
        choices={16: "16", 32: "32", 64: "64 (usual)", 128: "128"})
    axis: Literal[0, 1] = field(
        1, "Groups along", "Along the inputs is what fast kernels read; along the outputs is a little closer at 2 bits.",
        group="method", choices={1: "The inputs", 0: "The outputs"})


class Hqq(QuantizeMethod):
    """Half-quadratic quantization."""

    title = "HQQ"
    summary = "8 to 1 bits in seconds without texts. Only programs with the package hqq load it: transformers 5 itself does not."
    paper = "https://dropbox.github.io/hqq_blog/"
    Recipe = HqqRecipe

    @classmethod
    def variants(cls, recipe: HqqRecipe) -> list[str]:
        return list(recipe.types)

    @classmethod
    def bits(cls, recipe: HqqRecipe, variant: str) -> float:
        """A weight's bits (3 are stored ten to a 32-bit word) and its share of a 16-bit scale and a 16-bit zero point."""
        own = int(variant.removesuffix("bit"))
        return (3.2 if own == 3 else own) + 32 / recipe.group_size

    @classmethod
    def check(cls, recipe: HqqRecipe) -> None:
        extras.require("hqq", "method")
        from studio.quantizers import plan

        model = plan.source_of(recipe.model)
        if odd := [width for width in model.meta.get("widths") or [] if width % recipe.group_size]:
            raise StudioError(f"Groups of {recipe.group_size} do not divide the rows of {model.label}, which are {odd[0]} "
                              "wide.", "Choose a smaller group size.", "group_size")
        super().check(recipe)

    @classmethod
    def make(cls, recipe: HqqRecipe, ctx: Any, source: refs.ModelRef, variant: str, folder: Path) -> dict[str, Any]:
        from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
        from safetensors.torch import save_file

        from studio.trainers import load

        load.quiet()
        tokenizer = load.tokenizer(source, recipe.trust_remote_code)
        model = compressed.loaded(source, recipe.trust_remote_code).eval()
        dtype = next(model.parameters()).dtype
        device = "cuda" if _gpu() else "cpu"
        layers = _linear(model)
        held: dict[str, Any] = {}
        for number, (name, layer) in enumerate(layers.items()):
            if ctx.stop_requested:
                raise Stopped
            config = BaseQuantizeConfig(nbits=int(variant.removesuffix("bit")), group_size=recipe.group_size, axis=recipe.axis)
            made = HQQLinear(layer, config, compute_dtype=dtype, device=device, del_orig=False)
            held |= {f"{name}.{key}": _stored(value) for key, value in made.state_dict().items()}
            ctx.progress(number + 1, len(layers) + 1)
        taken = {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
        tied = set(getattr(model, "_tied_weights_keys", None) or []) if model.config.tie_word_embeddings else set()
        held |= {name: _stored(value) for name, value in model.state_dict().items() if name not in taken and name not in tied}
        save_file(held, str(folder / "model.safetensors"), {"format": "pt"})
        _write_config(model, folder, config)
        tokenizer.save_pretrained(str(folder))
        return {"format": "hqq", "quantization": f"{variant.removesuffix('bit')} bits, groups of {recipe.group_size}",
                "bits": compressed.measured_bits(folder, source), "notes": [MIND]}


def _linear(model: Any) -> dict[str, Any]:
    """Name -> layer of what is quantized: every linear layer but the output layer, as the library does it."""
    import torch

    return {name: layer for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear) and name.rpartition(".")[2] not in KEPT}


def _stored(value: Any) -> Any:
    return value.detach().cpu().contiguous().clone()


def _write_config(model: Any, folder: Path, config: dict[str, Any]) -> None:
    """config.json, with the section that transformers up to 4 writes for HQQ."""
    weights = {key: value for key, value in config["weight_quant_params"].items()
               if key in ("nbits", "group_size", "axis", "view_as_float")}
    model.generation_config.save_pretrained(str(folder))
    values = model.config.to_dict() | {"quantization_config": {
        "quant_method": "hqq", "bits": weights["nbits"], "skip_modules": list(KEPT),
        "quant_config": {"weight_quant_params": weights, "scale_quant_params": None, "zero_quant_params": None,
                         "offload_meta": False}}}
    values["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(values, indent=2, default=str) + "\n", "utf-8")


def opened(folder: Path, dtype: Any = None, trust: bool = False) -> Any:
    """The model in a folder that :meth:`Hqq.make` wrote, ready to run; what ``from_pretrained`` would be.

    Raises:
        studio.extras.MissingExtra: hqq is not installed.
        StudioError: the folder holds something else, or is broken.
    """
    extras.require("hqq", "model")
    import torch
    from hqq.core.quantize import HQQLinear
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    del config.quantization_config
    dtype = dtype or config.dtype or torch.bfloat16
    held = load_file(str(folder / "model.safetensors"))
    packed = {name.removesuffix(".W_q") for name in held if name.endswith(".W_q")}
    if not packed:
        raise StudioError(f"{folder.name} holds no weights of HQQ.", "Quantize the model again.", "model")
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust)
    device = "cuda" if _gpu() else "cpu"
    for name in packed:
        parent, _, last = name.rpartition(".")
        layer = HQQLinear(None, None, compute_dtype=dtype, device=device)
        layer.load_state_dict({key.removeprefix(f"{name}."): value for key, value in held.items()
                               if key.startswith(f"{name}.")})
        setattr(model.get_submodule(parent), last, layer)
    plain = {name: value for name, value in held.items() if name.rpartition(".")[0] not in packed}
    missing = set(dict(model.named_parameters())) - set(plain) - {f"{name}.W_q" for name in packed}
    tied = set(getattr(model, "_tied_weights_keys", None) or [])
    if missing - tied:
        raise StudioError(f"{folder.name} lacks weights ({sorted(missing)[0]}).", "Quantize the model again.", "model")
    model.load_state_dict(plain, strict=False)
    model.tie_weights()
    return model.to(device).eval()


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
