"""Steps, seconds and memory of an alignment, from the formulas of plain training. No torch here."""

from __future__ import annotations

from typing import Any

from studio.method import Estimate


def estimate(method: Any, recipe: Any) -> Estimate:
    """As :func:`studio.trainers.plan.estimate`, with the further passes over the model that a method makes."""
    from studio.trainers import plan

    made = plan.estimate(recipe, lora=recipe.train == "lora")
    if made.seconds is not None:
        made.seconds *= method.forwards
    return made
