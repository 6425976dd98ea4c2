"""A run that has a hundred thousand points behind it and goes on, for measuring what watching costs."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from studio.method import Method
from studio.recipe import Recipe, field


class LongRecipe(Recipe):
    kind, method = "sft", "long"

    points: int = field(100_000, "Points", "Points written at once.", ge=0)


def values(step: int) -> dict[str, float]:
    """Four curves, none of which is smooth."""
    return {"loss": 1 / math.sqrt(step) + 0.1 * math.sin(step), "learning_rate": 1e-3 / step,
            "grad_norm": 1 + math.cos(step), "tokens_per_second": 1000.0 + step % 7}


class Long(Method):
    title, summary = "Long", "Writes many points at once and then ten a second."
    Recipe = LongRecipe

    @classmethod
    def run(cls, recipe: LongRecipe, ctx: Any) -> dict[str, Any]:
        began = time.time()
        with open(ctx.run_dir / "events.jsonl", "a") as file:  # as the context writes them, but in one go
            file.writelines(json.dumps({"t": began, "e": "metric", "step": step, "values": values(step)}) + "\n"
                            for step in range(1, recipe.points + 1))
        step = recipe.points
        while not ctx.stop_requested:
            step += 1
            ctx.metric(step, values(step))
            ctx.progress(step, recipe.points * 2)
            time.sleep(0.1)
        return {"step": step}


def register(families: dict[str, Any]) -> None:
    families["sft"].add("long", "tests.benchmarks.longrun:Long")
