"""LoRA on a machine that has memory for small batches only, added from outside: ``ATELIER_PLUGINS=tests.train.hungry:register``.

``ATELIER_TEST_BATCH`` is the largest batch that fits, ``ATELIER_TEST_FROM`` the step from which larger ones do not, and
``ATELIER_TEST_ROOM`` the megabytes of address space that the kernel gives beyond what the process has when training begins.
"""

from __future__ import annotations

import os
from typing import Any

from studio.trainers.sft_lora import Lora, LoraRecipe


class HungryRecipe(LoraRecipe):
    """Fields of LoRA."""

    method = "hungry"


class Hungry(Lora):
    """LoRA that runs out of memory."""

    title = "Hungry"
    Recipe = HungryRecipe

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        import torch

        from studio.trainers.loop import StudioTrainer

        most, start = int(os.environ.get("ATELIER_TEST_BATCH", 1 << 20)), int(os.environ.get("ATELIER_TEST_FROM", 0))
        room, real = int(os.environ.get("ATELIER_TEST_ROOM", 0)), StudioTrainer.training_step
        if room:
            _limit(None)

        def step(self: Any, model: Any, inputs: dict, *more: Any) -> Any:
            if room:
                _limit(room)
            if self.state.global_step >= start and len(inputs["input_ids"]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return real(self, model, inputs, *more)

        StudioTrainer.training_step = step
        try:
            return super().run(recipe, ctx)
        finally:
            StudioTrainer.training_step = real


def _limit(megabytes: int | None) -> None:
    """What the kernel gives this process from now on; ``None``: all there is."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if megabytes is None:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    elif resource.getrlimit(resource.RLIMIT_AS)[0] == hard:
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + megabytes * 2**20, hard))


def register(families: dict[str, Any]) -> None:
    families["sft"].add("hungry", "tests.train.hungry:Hungry")
