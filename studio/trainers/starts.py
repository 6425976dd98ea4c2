"""Adapters that begin with a part of the weights (PiSSA, OLoRA, LoftQ): what they began with is kept, and taken off again.

Such a start moves the frozen weights, so what is learned fits no unmoved base. With the start subtracted, the result is an
ordinary LoRA of twice the rank for the base as it is. Imports torch, so only ``run`` methods import this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MOVED = ("pissa", "olora")  # values of init_lora_weights
FOLDER = "start"


def keep(model: Any, run_dir: Path, moved: bool = False) -> None:
    """Writes the fresh adapter of a model into the run's folder, if its start moved the base.

    Args:
        moved: It did, though its config does not say so.
    """
    config = getattr(model, "peft_config", {}).get("default")
    if config is None or not (moved or getattr(config, "init_lora_weights", True) in MOVED):
        return
    model.save_pretrained(str(run_dir / FOLDER), selected_adapters=["default"])
    model.studio_start = run_dir / FOLDER


def loftq(model: Any, folder: Path, run_dir: Path) -> None:
    """Puts what 4 bits lost of the weights in ``folder`` into a fresh adapter."""
    from peft import replace_lora_weights_loftq

    replace_lora_weights_loftq(model, model_path=str(next(folder.glob("*.safetensors"))))
    keep(model, run_dir, moved=True)


def arguments(model: Any) -> dict[str, Any]:
    """Arguments of ``save_pretrained`` that subtract the start."""
    start = getattr(model, "studio_start", None)
    return {"path_initial_model_for_weight_conversion": str(start)} if start else {}
