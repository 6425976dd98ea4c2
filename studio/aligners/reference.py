"""The frozen model that DPO and KTO compare with: refused, loaded and resumed. No torch at import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.errors import StudioError

WEIGHTS = "reference.safetensors"


def check(recipe: Any) -> None:
    """What TRL would refuse once everything is loaded, and a reference of other words.

    Raises:
        StudioError: in the field ``sync_ref_model`` or ``ref_model``.
    """
    from studio.library import refs

    if recipe.sync_ref_model and recipe.train == "lora":
        raise StudioError("A reference can only follow when all weights are trained: for an adapter it is the model "
                          "without it.", "Turn it off, or train all weights.", "sync_ref_model")
    if recipe.sync_ref_model and recipe.precompute_ref_log_probs:
        raise StudioError("A reference that follows cannot be asked beforehand.", "Turn one of the two off.",
                          "sync_ref_model")
    if not recipe.ref_model:
        return
    try:
        other = refs.resolve_model(recipe.ref_model)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "ref_model") from err
    refs.check_writes(other, "ref_model")
    refs.check_loads(other, "ref_model")
    words = [_words(one) for one in (refs.resolve_model(recipe.model), other)]
    if all(words) and words[0] != words[1]:
        raise StudioError(f"{other.label} has {words[1]} words and the model {words[0]}: they cannot be compared.",
                          "Choose a reference with the same tokenizer.", "ref_model")


def _words(model: Any) -> int | None:
    from studio.library import refs

    base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
    return base.meta.get("vocab_size")


def parts(recipe: Any) -> dict[str, Any]:
    """The trainer's ``ref_model``, where it is not the model without its adapter.

    TRL would read it from the folder that the model's config names, which is not the model where an adapter was merged.
    """
    from studio.library import refs
    from studio.trainers import load, plan, settings

    itself = recipe.model if recipe.train == "full" and not recipe.precompute_ref_log_probs else ""
    if not (wanted := recipe.ref_model or itself):
        return {}
    gpu = settings.has_gpu()
    dtype = plan.load_dtype(recipe, gpu, recipe.train == "lora")
    ref = refs.fetched(refs.resolve_model(wanted))
    return {"ref_model": load.model(ref, dtype, recipe.trust_remote_code, gpu, merge=True)}


def wrap(trainer: type) -> type:
    """A trainer resumed exactly with an adapter beside its frozen copy, and with a reference that follows."""
    from safetensors.torch import load_model, save_model

    class Referring(trainer):
        def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(checkpoint, model)
            model = model or self.model
            if "ref" in getattr(model, "peft_config", {}):  # transformers loads only the adapters in subfolders
                model.load_adapter(checkpoint, "default", is_trainable=True)

        def _complete(self, folder: Path) -> None:
            if self.args.sync_ref_model:
                save_model(self.accelerator.unwrap_model(self.ref_model), str(folder / WEIGHTS))
            super()._complete(folder)

        def restore(self, checkpoint: Path) -> None:
            super().restore(checkpoint)
            if (checkpoint / WEIGHTS).exists():
                load_model(self.accelerator.unwrap_model(self.ref_model), str(checkpoint / WEIGHTS))

    Referring.__name__ = trainer.__name__
    return Referring
