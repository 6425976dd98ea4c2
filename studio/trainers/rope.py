"""Longer contexts by RoPE scaling (linear, dynamic NTK, YaRN): which, kept where, and how a model is loaded with it.

A whole model has it in its ``config.json``. An adapter keeps it beside its weights in ``rope.json``, because it is trained
on a base that was loaded with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.jobs.files import read_json, write_json

FILE = "rope.json"  # {"rope_type": "linear" | "dynamic" | "yarn", "factor": float}


def of_recipe(recipe: Any, ref: Any = None) -> dict[str, Any] | None:
    """What a recipe asks for, else what the adapter that it starts from was trained with; ``None``: nothing."""
    if getattr(recipe, "rope_scaling", "none") != "none":
        return {"rope_type": recipe.rope_scaling, "factor": recipe.rope_factor}
    return ref.meta.get("rope") if ref is not None and ref.is_adapter else None


def of_adapter(folder: Path) -> dict[str, Any] | None:
    """What the adapter in a folder was trained with."""
    found = read_json(folder / FILE)
    return found if isinstance(found, dict) and {"rope_type", "factor"} <= found.keys() else None


def longest(context: int | None, rope: dict[str, Any] | None) -> int | None:
    """Tokens that a model reads with it."""
    return int(context * rope["factor"]) if context and rope else context


def config(source: Any, rope: dict[str, Any], trust: bool = False) -> Any:
    """The config of a model with its positions stretched. Imports transformers.

    Raises:
        StudioError: the model has no RoPE, several kinds of it, or a stretched one.
    """
    from transformers import AutoConfig

    from studio.trainers.script_parts import stretch

    made = AutoConfig.from_pretrained(source.source, revision=source.revision, trust_remote_code=trust)
    known = getattr(made.get_text_config(), "rope_parameters", None) or {}
    if known.get("rope_type") != "default":
        why = f"is stretched already ({known['rope_type']})" if known.get("rope_type") else \
            "does not turn its positions (RoPE), or in several ways"
        raise StudioError(f"{source.label} {why}.", "Turn off the longer context, or choose another model.", "rope_scaling")
    stretch(made, rope["rope_type"], rope["factor"])
    return made


def mark(model: Any, rope: dict[str, Any] | None) -> None:
    """Remember on a loaded model what it was loaded with."""
    from studio.trainers.script_parts import forget_lengths

    model.studio_rope = rope
    if rope and rope["rope_type"] == "dynamic":
        forget_lengths(model)


def keep(model: Any, folder: Path) -> None:
    """Write it beside an adapter's weights."""
    rope = getattr(model.get_base_model(), "studio_rope", None) if hasattr(model, "peft_config") else None
    if rope:
        write_json(folder / FILE, rope)
