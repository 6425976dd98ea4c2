"""Steps, seconds and memory of an alignment, from the formulas of plain training. No torch here."""

from __future__ import annotations

from typing import Any

from studio.aligners import cut, data
from studio.errors import StudioError
from studio.method import Estimate


def estimate(method: Any, recipe: Any) -> Estimate:
    """As :func:`studio.trainers.plan.estimate`, with both answers of a pair, the passes through the model that a method
    makes besides, and the copy of the model that it compares with."""
    from studio.trainers import plan

    sides = len(cut.SIDES.get(method.shape, ("",)))
    lora = recipe.train == "lora"
    counted, notes = _counted(method, recipe)
    made = plan.estimate(recipe, lora=lora, counted=counted, sides=sides)
    made.notes += notes
    if made.seconds is not None:
        made.seconds = plan.CPU_START + (made.seconds - plan.CPU_START) * method.forwards
    if made.memory is not None and method.reference and _copied(recipe):
        made.memory += _size(recipe) * (2 if made.device == "gpu" else 4)
    return made


def _copied(recipe: Any) -> bool:
    """A second model stays in memory: a reference that is another one, or the start where all weights are trained."""
    return bool(recipe.ref_model) or (recipe.train == "full" and not recipe.precompute_ref_log_probs)


def _size(recipe: Any) -> int:
    from studio.library import refs

    try:
        model = refs.resolve_model(recipe.ref_model or recipe.model)
        base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
    except StudioError:
        return 0
    return base.meta.get("parameters") or 0


def _counted(method: Any, recipe: Any) -> tuple[tuple[int | None, float], list[str]]:
    """((samples, mean characters of a side), what is done to the data)."""
    try:
        seen = data.glance(recipe, method.shape)
    except StudioError:
        return (None, 0.0), []  # check() is what refuses bad data; an estimate never keeps a person from typing
    names = cut.SIDES.get(method.shape, ())
    if not names or not seen.rows:
        return (seen.total, 0.0), seen.notes
    asked = sum(_characters(row["prompt"]) for row in seen.rows) * len(names)
    said = sum(_characters(row[name]) for row in seen.rows for name in names)
    return (seen.total, (asked + said) / (len(seen.rows) * len(names))), seen.notes


def _characters(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(len(turn.get("content") or "") for turn in value)
