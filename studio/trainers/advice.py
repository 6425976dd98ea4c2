"""An estimate against this machine: does it fit, and what would. No torch here."""

from __future__ import annotations

from typing import Any

from studio import registry
from studio.trainers import safer

KINDS = ("sft", "pretrain", "align")


def room(recipe: Any, needed: int | None, device: str, free: int | None = None) -> dict[str, Any]:
    """Needed against free memory.

    Args:
        needed: Bytes at the peak; ``None``: not known.
        free: Bytes a run may take, where that was measured.

    Returns:
        ``free``, ``total`` (bytes of this machine, or of its first GPU), ``fits``, ``next`` ({field: value} of the first setting
        that is expected to fit, else of the one that needs least), ``keeps`` (it changes nothing of what is learned),
        ``next_fits``. ``None`` stands for what is not known; ``next`` is ``None`` where the recipe fits.
    """
    from studio.jobs.room import free_on

    free = free_on(device) if free is None else free
    fits = needed <= free if needed and free is not None else None
    offer = None
    if fits is False:
        offer = safer.next_safe(recipe, needed, free, weigh)
    return {"free": free, "total": _total(device), "fits": fits, "next": offer.change if offer else None,
            "keeps": offer.keeps if offer else None, "next_fits": offer.fits if offer else None}


def weigh(recipe: Any) -> int | None:
    """Bytes at the peak by formula."""
    return registry.method(recipe.kind, recipe.method).estimate(recipe).memory


def _total(device: str) -> int | None:
    from studio import hardware

    if device == "gpu":
        return next((card["total"] for card in hardware.gpus()), None)
    return hardware.total_memory()
