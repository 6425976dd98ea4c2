"""Faster kernels of other projects, offered where they are installed and help: on a GPU. No torch here.

Unsloth, which changes the model as it is loaded, has a switch and a module of its own.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from studio.errors import StudioError

PACKAGES = {"liger": ("liger_kernel", "Liger", "pip install liger-kernel")}


def here(name: str) -> bool:
    """Whether a kernel is installed and there is a GPU for it."""
    from studio.hardware import gpus

    return bool(gpus()) and find_spec(PACKAGES[name][0]) is not None


def any_here() -> bool:
    return any(here(name) for name in PACKAGES)


def check(recipe: Any) -> None:
    """Refuses kernels that are not here.

    Raises:
        StudioError: in the field ``kernels``.
    """
    if recipe.kernels == "none" or here(recipe.kernels):
        return
    module, title, install = PACKAGES[recipe.kernels]
    missing = "is not installed" if find_spec(module) is None else "needs a GPU, and there is none here"
    raise StudioError(f"{title} {missing}.", f"Choose the library's own kernels, or: {install}.", "kernels")


def arguments(name: str) -> dict[str, Any]:
    """Arguments of TRL's config. Its fused head stays; Liger takes the layers (norms, RoPE, feed-forward)."""
    return {"use_liger_kernel": True} if name == "liger" else {}
