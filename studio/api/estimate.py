"""What a run will take, measured by two real steps, against what this machine has."""

from __future__ import annotations

import threading
from typing import Any

from studio import registry
from studio.api.who import signed_in
from studio.errors import StudioError

PATIENCE = 300  # seconds for loading, preparing and the steps
_one = threading.Lock()


def measure(values: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """Run two steps on the longest samples, in a process of its own that leaves nothing behind.

    Returns:
        ``steps``, ``seconds`` (of the whole run), ``memory`` (bytes at the peak, ``None`` where it ran out), ``free``
        (bytes a run may take now), ``total``, ``fits``, ``next`` ({field: value} that is expected to fit, ``None`` where it
        fits or nothing is left), ``keeps`` (``next`` changes nothing of what is learned), ``notes``.

    Raises:
        StudioError: a recipe that may not start, a model that is not on this machine yet, another measurement going on.
    """
    from studio.api.recipes import checked
    from studio.hardware import cores
    from studio.jobs import probe, store
    from studio.jobs.model import LIGHT_KINDS
    from studio.library import refs
    from studio.trainers import advice

    recipe = checked(values, signed_in(owner))
    if recipe.kind not in advice.KINDS:
        raise StudioError("Only training can be measured.", "The estimate is all there is.")
    if (model := getattr(recipe, "model", "")) and refs.resolve_model(model).path is None:
        raise StudioError("This model is not on this machine yet.",
                          "Start the run: it is downloaded then, and can be measured afterwards.", "model")
    if not _one.acquire(blocking=False):
        raise StudioError("Another measurement is going on.", "Try again when it is over.")
    try:
        beside = [run for run in store.active() if run["kind"] not in LIGHT_KINDS]
        found = probe.call("studio.trainers.measure:measure", {
            "values": recipe.to_dict(), "threads": 1 if beside else max(1, cores() - 1)}, timeout=PATIENCE)
    finally:
        _one.release()
    told = registry.method(recipe.kind, recipe.method).estimate(recipe)
    notes = ["Another run computes at the same time, so this took longer than it would alone."] if beside else []
    needed = found["memory"]
    if found.pop("out_of_memory"):  # how much it wanted is not known: more than there was
        needed = max(told.memory or 0, int(1.2 * found["free"]))
        notes.append("Memory ran out in the first steps.")
    found |= advice.room(recipe, needed, found["device"], found["free"])
    return {"steps": None, "seconds": None} | found | {"notes": notes}
