"""Unsloth's model and adapter under the studio's trainer, offered where Unsloth is installed and there is a GPU.

Unsloth exchanges TRL's trainers for its own when it is imported, all but under ``UNSLOTH_ALLOW_CPU``, which on a machine
with a GPU changes nothing else (read in 2026.10.9). Whole checkpoints, exact resume and the doctor need TRL's own, so that is
asked for, and looked after. Its loss would leave the logits away; without labels in the call it does not.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from studio.errors import StudioError

# Its own TRL (1.15 at most) is older than the studio's, so pip must not choose.
INSTALL = "pip install --no-deps unsloth unsloth_zoo, and what they miss when they are imported"


def here() -> bool:
    """Whether it is installed and there is an NVIDIA GPU for it."""
    from studio.hardware import gpus

    return bool(gpus()) and find_spec("unsloth") is not None


def wanted(recipe: Any) -> bool:
    return getattr(recipe, "unsloth", False)


def check(recipe: Any, is_adapter: bool) -> None:
    """Refuses Unsloth where it is not, and what nobody knows of it.

    Args:
        is_adapter: The model to start from is an adapter.

    Raises:
        StudioError: in the field to change.
    """
    if not wanted(recipe):
        return
    if not here():
        missing = "is not installed" if find_spec("unsloth") is None else "needs a GPU, and there is none here"
        raise StudioError(f"Unsloth {missing}.", f"Turn it off, or: {INSTALL}.", "unsloth")
    for wrong, field, what in (
            (is_adapter, "model", "begins a new adapter; the model chosen is one already"),
            (recipe.use_dora, "use_dora", "has no fast way for DoRA"),
            (recipe.init_lora_weights not in ("default", "gaussian"), "init_lora_weights", "begins from nothing"),
            (recipe.packing, "packing", "may let packed samples see each other"),
            (recipe.padding_free, "padding_free", "may let samples without padding see each other"),
            (recipe.rope_scaling != "none", "rope_scaling", "stretches positions in its own way"),
            (recipe.strategy != "ddp", "strategy", "shards in its own way"),
            (recipe.kernels != "none", "kernels", "brings its own kernels"),
            (getattr(recipe, "quant_type", "nf4") == "fp4", "quant_type", "holds the base in NF4 or 8 bits"),
            (not getattr(recipe, "bnb_4bit_use_double_quant", True) and recipe.quant_type == "nf4",
             "bnb_4bit_use_double_quant", "quantizes the constants too")):
        if wrong:
            raise StudioError(f"Unsloth {what}.", "Change this, or turn Unsloth off.", field)


def _library() -> Any:
    """Unsloth's door, with TRL's trainers left as they are.

    Raises:
        StudioError: it cannot be imported, or put itself in front of the trainer.
    """
    import trl

    from studio import settings

    before = trl.SFTTrainer, trl.SFTTrainer.__init__
    os.environ |= {"UNSLOTH_ALLOW_CPU": "1", "UNSLOTH_RETURN_LOGITS": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(settings.home() / "cache" / "unsloth"))  # else the folder we are in
    try:
        from unsloth import FastLanguageModel
    except Exception as err:  # it looks at drivers, compilers and versions when it is imported, and raises what it likes
        raise StudioError(f"Unsloth cannot be used: {(str(err).strip() or type(err).__name__).splitlines()[0]}",
                          "Turn it off, or install the version it asks for.", "unsloth") from err
    if (trl.SFTTrainer, trl.SFTTrainer.__init__) != before:
        raise StudioError("This version of Unsloth replaces the trainer, so nothing could be resumed or watched.",
                          "Turn it off, or install another version.", "unsloth")
    return FastLanguageModel


def model(ref: Any, dtype: str, recipe: Any, quantization: dict[str, Any]) -> Any:
    """The frozen base, loaded and changed by Unsloth.

    Args:
        dtype: Word for the precision of the weights that are not quantized.
        quantization: As for ``BitsAndBytesConfig``.

    Raises:
        StudioError: it does not know the model, or is not what we know.
    """
    import torch

    library = _library()
    try:
        made, _ = library.from_pretrained(
            model_name=ref.source, revision=ref.revision, max_seq_length=recipe.max_length, dtype=getattr(torch, dtype),
            load_in_4bit=bool(quantization.get("load_in_4bit")), load_in_8bit=bool(quantization.get("load_in_8bit")),
            trust_remote_code=recipe.trust_remote_code, use_gradient_checkpointing=recipe.gradient_checkpointing,
            random_state=recipe.seed, fix_tokenizer=False,
            use_exact_model_name=True)  # not the copy of it that Unsloth has on the Hub
    except (ValueError, RuntimeError, OSError) as err:
        raise StudioError(f"Unsloth cannot load {ref.label}: {(str(err).strip() or type(err).__name__).splitlines()[0]}",
                          "Turn it off.", "unsloth") from err
    made.config.use_cache = False
    return made


def adapter(model: Any, config: Any, recipe: Any) -> Any:
    """The model with a fresh LoRA, put on by Unsloth.

    Args:
        config: PEFT's ``LoraConfig``.
    """
    names = ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "layers_to_transform", "modules_to_save",
             "init_lora_weights")
    values = {name: getattr(config, name) for name in names}
    where = config.target_modules if isinstance(config.target_modules, str) else sorted(config.target_modules)
    return _library().get_peft_model(model, target_modules=where, use_gradient_checkpointing=recipe.gradient_checkpointing,
                                     random_state=recipe.seed, **values)
