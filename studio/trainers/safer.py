"""The next safe setting when memory does not suffice. Pure arithmetic on recipes: no torch, nothing is measured here.

The ladder goes down from what changes nothing in the result: smaller batches of which as many more are added up (the
effective batch, the number of steps and the order of the data stay), then gradient checkpointing (the same numbers,
slower). Below that are offers only, because they change what is learned: shorter samples, an adapter instead of all weights, a
base held in 4 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

BATCH, STEPS, AGAIN, LONGEST = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
                                "max_length")
SHORTEST = 64  # tokens; below that hardly a chat is left
_SMALLER = {"full": "lora", "lora": "qlora"}  # methods of fine-tuning, by the memory that the next one saves


class Step(NamedTuple):
    """A change of settings.

    Attributes:
        change: Field -> new value, counted from the recipe as it was given.
        keeps: The run learns the same from the same data; a run that is under way may take it.
    """

    change: dict[str, Any]
    keeps: bool


class Offer(NamedTuple):
    """The first step that is expected to fit, or else the one that needs least (``fits`` is then false)."""

    change: dict[str, Any]
    keeps: bool
    memory: int | None
    fits: bool | None


def ladder(recipe: Any) -> list[Step]:
    """Every step down from a recipe, the one that costs least first; empty where there is none."""
    found: list[Step] = []
    change: dict[str, Any] = {}
    batch, steps = getattr(recipe, BATCH, 1), getattr(recipe, STEPS, 1)
    least = getattr(_method(recipe), "least_batch", 1)
    while (part := _smallest_factor(batch)) and batch // part >= least:
        batch, steps = batch // part, steps * part
        change = {BATCH: batch, STEPS: steps}
        found.append(Step(dict(change), True))
    if getattr(recipe, AGAIN, True) is False and recipe.method != "prefix_tuning":  # its learned cache forbids it
        change[AGAIN] = True
        found.append(Step(dict(change), True))
    longest = getattr(recipe, LONGEST, None) or 0
    while longest // 2 >= SHORTEST:
        longest //= 2
        found.append(Step(change | {LONGEST: longest}, False))
    if recipe.kind == "sft" and recipe.method in _SMALLER:
        found.append(Step({"method": _SMALLER[recipe.method]}, False))
    return found


def next_safe(recipe: Any, needed: float | None = None, free: float | None = None,
              weigh: Callable[[Any], float | None] | None = None, offers: bool = True) -> Offer | None:
    """The next setting to try.

    Args:
        needed: Bytes at the peak with the recipe as it is, measured or estimated.
        free: Bytes there are. Without both the first step is the answer.
        weigh: ``recipe -> bytes`` by formula. What was needed is scaled by how it changes.
        offers: Also steps that change what is learned.

    Returns:
        ``None`` where nothing can be made smaller.
    """
    steps = [step for step in ladder(recipe) if offers or step.keeps]
    before = weigh(recipe) if weigh else None
    if not steps or not needed or free is None or not weigh or not before:
        return Offer(*steps[0], None, None) if steps else None
    lightest: Offer | None = None
    for step in steps:
        after = weigh(changed(recipe, step.change))
        if after is None:
            continue
        memory = int(needed * after / before)
        if memory <= free:
            return Offer(*step, memory, True)
        if lightest is None or memory < (lightest.memory or 0):
            lightest = Offer(*step, memory, False)
    return lightest


def changed(recipe: Any, change: dict[str, Any]) -> Any:
    """The recipe with other values; another method's recipe keeps what both have.

    Raises:
        StudioError: a value that the recipe does not take.
    """
    from studio.recipe import parse

    values = recipe.to_dict() | change
    if "method" in change:
        known = type(parse({"kind": recipe.kind, "method": change["method"]})).model_fields
        values = {name: value for name, value in values.items() if name in known or name in ("kind", "method")}
    return parse(values)


def _method(recipe: Any) -> Any:
    from studio import registry

    family = registry.FAMILIES.get(recipe.kind)
    return family.get(recipe.method) if family is not None and recipe.method in family else None


def _smallest_factor(number: int) -> int | None:
    """The smallest divisor above 1, so that nothing of a batch is lost: 6 → 2, 9 → 3, 7 → 7."""
    return next((n for n in range(2, number + 1) if number % n == 0), None)
