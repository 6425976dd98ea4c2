"""Optimizers beyond AdamW: which part each needs, what it goes together with, and those that transformers does not know.

No torch here.
"""

from __future__ import annotations

from typing import Any

from studio.errors import StudioError
from studio.trainers import script_parts

OPTIMS = {"adamw_torch_fused": "AdamW (fused, fastest)", "adamw_torch": "AdamW",
          "adafactor": "Adafactor (little memory)", "adamw_8bit": "AdamW, 8 bit (needs bitsandbytes)",
          "paged_adamw_8bit": "AdamW, 8 bit, paged (GPU)", "lion_32bit": "Lion (half of AdamW's memory)",
          "lion_8bit": "Lion, 8 bit", "muon": "Muon (matrices), AdamW (the rest)",
          "galore_adamw": "GaLore: AdamW on projected gradients", "apollo_adamw": "APOLLO: AdamW's scaling from a projection",
          "stable_adamw": "StableAdamW", "sgd": "SGD"}
OWN = ("muon",)  # made here; transformers has no word for them
LOW_RANK = ("galore_adamw", "apollo_adamw")  # they project the gradients of whole matrices
EXTRA = {"galore_adamw": "galore", "apollo_adamw": "apollo", "stable_adamw": "optimi"}  # word -> optional part that has it
# What an optimizer keeps in a checkpoint beside tensors; anything else in one is not unpickled.
KEPT = {"galore_adamw": ("galore_torch.galore_projector.GaLoreProjector",),
        "apollo_adamw": ("apollo_torch.random_projector.GradientProjector", "apollo_torch.svd_projector.GaLoreProjector")}
PLAIN = "adamw_torch"  # what the library is told where the optimizer is made here


def arguments(recipe: Any) -> dict[str, Any]:
    """Arguments of ``transformers.TrainingArguments`` about the optimizer."""
    if recipe.optim in OWN:
        return {"optim": PLAIN}
    if recipe.optim not in LOW_RANK:
        return {"optim": recipe.optim}
    names = [part.strip() for part in recipe.optim_target_modules.split(",") if part.strip()]
    made: dict[str, Any] = {"optim": recipe.optim,
                            "optim_target_modules": "all-linear" if names in ([], ["all-linear"]) else names}
    return made | ({"optim_args": recipe.optim_args} if recipe.optim_args else {})


def maker(recipe: Any) -> tuple[Any, dict[str, Any]] | None:
    """(function of :mod:`script_parts`, its arguments beside ``args``) for an optimizer that the library does not make."""
    if recipe.optim == "muon":
        return script_parts.muon, {}
    if getattr(recipe, "loraplus_lr_ratio", 1.0) > 1:
        return script_parts.lora_plus, {"ratio": recipe.loraplus_lr_ratio}
    return None


def kept_classes(optim: str) -> list[type]:
    """The classes of :data:`KEPT`, imported, so that a checkpoint with objects of them may be read."""
    import importlib

    return [getattr(importlib.import_module(module), name)
            for module, _, name in (path.rpartition(".") for path in KEPT.get(optim, ()))]


def check(recipe: Any, adapter: bool) -> None:
    """Refuses optimizers that are not there or do not go with the rest.

    Args:
        adapter: Only an adapter is trained.

    Raises:
        StudioError: in the field ``optim`` or ``loraplus_lr_ratio``.
    """
    from studio import extras

    if recipe.optim in EXTRA:
        extras.require(EXTRA[recipe.optim], "optim")
    if adapter and recipe.optim in LOW_RANK:
        raise StudioError("GaLore and APOLLO project the gradients of whole weights; an adapter's are small already.",
                          "Choose AdamW, or fine-tune all weights.", "optim")
    if getattr(recipe, "loraplus_lr_ratio", 1.0) > 1 and recipe.optim not in ("adamw_torch", "adamw_torch_fused",
                                                                              "adamw_8bit", "paged_adamw_8bit"):
        raise StudioError("LoRA+ is made for AdamW.", "Choose an AdamW, or set LoRA+ to 1.", "loraplus_lr_ratio")
