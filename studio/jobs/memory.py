"""When memory ran out: the next safe setting of a run, and its recipe written anew. No torch here, and recipes only "
"inside
functions: every guardian imports this."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from studio.errors import StudioError

AGAIN = 75  # exit code of a worker whose recipe was changed and that is to begin afresh, with all memory given back


def offer(recipe: Any) -> dict[str, Any]:
    """Field -> value of the next setting with which the run would learn the same; empty where there is none."""
    from studio.trainers import safer

    if not hasattr(recipe, "on_out_of_memory"):
        return {}
    found = safer.next_safe(recipe, offers=False)
    return found.change if found else {}


def words(change: dict[str, Any]) -> str:
    """``batch 2 × 4, gradient checkpointing``."""
    said = []
    if "per_device_train_batch_size" in change:
        said.append(f"batch {change['per_device_train_batch_size']} × {change['gradient_accumulation_steps']}")
    if change.get("gradient_checkpointing"):
        said.append("gradient checkpointing")
    return ", ".join(said)


def rewrite(folder: Path, change: dict[str, Any]) -> Any:
    """Change a run's ``recipe.yaml``; the one before is kept as ``recipe.attempt-N.yaml``. Returns the new recipe.

    Raises:
        StudioError: values the recipe does not take.
        OSError: a full disk; the old recipe is then still there.
    """
    from studio.recipe import load
    from studio.trainers import safer

    path = folder / "recipe.yaml"
    made = safer.changed(load(path), change)
    number = 1 + len(list(folder.glob("recipe.attempt-*.yaml")))
    part = folder / ".recipe.yaml.part"
    part.write_text(made.to_yaml(), "utf-8")
    kept = folder / f"recipe.attempt-{number}.yaml"
    kept.write_bytes(path.read_bytes())
    os.replace(part, path)
    return made


def repair(ctx: Any, recipe: Any) -> bool:
    """Take the next setting by itself, if the person ticked that and there is one; says so in the run."""
    change = offer(recipe)
    if getattr(recipe, "on_out_of_memory", "") != "repair" or not change:
        return False
    try:
        rewrite(ctx.run_dir, change)
    except OSError:
        return False  # a full disk as well: the person has to decide
    ctx.warning("memory-repaired", f"Memory ran out, so it goes on with {words(change)} instead of batch "
                f"{recipe.per_device_train_batch_size} × {recipe.gradient_accumulation_steps}.",
                "It learns the same, only slower: as many samples are looked at in each step.")
    return True


def present(folder: Path) -> dict[str, Any] | None:
    """The recipe of a run whose recipe was changed on the way, as plain values; ``None`` if it never was."""
    if not (folder / "recipe.attempt-1.yaml").exists():
        return None
    from studio.recipe import load

    try:
        return load(folder / "recipe.yaml").to_dict()
    except (StudioError, OSError):
        return None


def kills() -> int | None:
    """How many processes the kernel has ended for want of memory since the machine was started (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
    except (OSError, ValueError):
        return None
