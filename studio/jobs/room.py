"""Room in memory for a run: chat engines that nobody talks to just now give way to it. No torch here."""

from __future__ import annotations

import os
import traceback
from typing import Any

from studio import hardware
from studio.chat import records


def make(method: Any, recipe: Any, ctx: Any) -> None:
    """Unload idle chat engines, the longest idle first, until the run's estimated memory fits, and say so in the run.

    An engine that is answering stays. Nothing is done where the need or what is free is not known. A courtesy:
    whatever goes wrong here, the run goes on.
    """
    try:
        if not any(records.alive(record) for _, record in records.everything()):
            return  # the usual case, and the quick one
        wanted = method.estimate(recipe)
        free = free_on(wanted.device)
        if not wanted.memory or free is None or wanted.memory <= free:
            return
        from studio.chat import manager

        ended = manager.free_memory(lambda: (free_on(wanted.device) or 0) >= wanted.memory,
                                    f"run:{getattr(ctx, 'run_id', '')}")
        if ended:
            names = ", ".join(label for label, _ in ended)
            ctx.log(f"Unloaded from the chat to make room: {names}. This run needs about "
                    f"{hardware.size(wanted.memory)} of memory, {hardware.size(free)} were free. Chatting loads what "
                    "was unloaded again.")
    except Exception:
        traceback.print_exc()


def free_on(device: str) -> int | None:
    """Bytes a run may take of the machine's memory, or with ``device="gpu"`` of the first card it may use."""
    if device != "gpu":
        return hardware.free_memory()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    cards = hardware.gpus(fresh=True)
    card = cards[int(first)] if first.isdigit() and int(first) < len(cards) else cards[0] if cards else {}
    return card["total"] - card["used"] if card.get("total") and card.get("used") is not None else None
