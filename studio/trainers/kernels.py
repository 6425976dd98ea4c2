"""Faster kernels of other projects, offered where they are installed and help: on a GPU. No torch on import."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from studio.errors import StudioError

PACKAGES = {"liger": ("liger_kernel", "Liger", "pip install liger-kernel"),
            "unsloth": ("unsloth", "Unsloth", "pip install unsloth")}


def here(name: str) -> bool:
    """Whether a kernel is installed and there is a GPU for it."""
    from studio.hardware import gpus

    return bool(gpus()) and find_spec(PACKAGES[name][0]) is not None


def any_here() -> bool:
    return any(here(name) for name in PACKAGES)


def check(recipe: Any) -> None:
    """Refuses kernels that are not here or do not go with the rest.

    Raises:
        StudioError: in the field ``kernels``.
    """
    name = recipe.kernels
    if name == "none":
        return
    module, title, install = PACKAGES[name]
    if not here(name):
        missing = "is not installed" if find_spec(module) is None else "needs a GPU, and there is none here"
        raise StudioError(f"{title} {missing}.", f"Choose the library's own kernels, or: {install}.", "kernels")
    if name == "unsloth" and recipe.method not in ("lora", "qlora", "full"):
        raise StudioError("Unsloth trains LoRA, QLoRA and all weights only.", "Choose one of them, or Liger.", "kernels")
    if recipe.rope_scaling != "none" and name == "unsloth":
        raise StudioError("Unsloth stretches the context itself.", "Turn off the longer context, or choose Liger.", "kernels")


def prepare(name: str) -> None:
    """What has to happen before transformers and TRL are used: Unsloth patches both when it is imported."""
    if name == "unsloth":
        import unsloth  # noqa: F401


def arguments(name: str) -> dict[str, Any]:
    """Arguments of TRL's config. Its fused head stays; Liger takes the layers (norms, RoPE, feed-forward)."""
    return {"use_liger_kernel": True} if name == "liger" else {}
