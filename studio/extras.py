"""Optional parts of the studio: packages installed from the page when they are first needed, never silently."""

from __future__ import annotations

from importlib import metadata
from typing import NamedTuple

from studio.errors import StudioError


class MissingExtra(StudioError):
    """A refusal that installing an optional part would lift; the page offers to do it."""

    def __init__(self, name: str, field: str | None = None):
        part = extra(name)
        self.extra = name
        super().__init__(f"{part.title} is not installed.",
                         f"Install it from the page (about {part.megabytes} MB), or leave this off.", field)


class Extra(NamedTuple):
    """An optional part.

    Attributes:
        title: What a person calls it.
        why: What it is good for, one sentence.
        requirements: What pip installs, with ranges; the same as in pyproject.toml.
        megabytes: Disk it adds, measured on Linux with everything it needs that the studio has not got.
    """

    title: str
    why: str
    requirements: tuple[str, ...]
    megabytes: int


EXTRAS: dict[str, Extra] = {
    "tensorboard": Extra("TensorBoard", "Writes the curves as TensorBoard event files.",
                         ("tensorboard>=2.21,<3",), 49),
    "trackio": Extra("Trackio", "Keeps the curves in a local tracker that can be shared as a Space.",
                     ("trackio>=0.43,<1",), 27),
    "apollo": Extra("APOLLO", "An optimizer that needs little more memory than SGD and learns like AdamW.",
                    ("apollo-torch>=1.0.3,<2",), 1),
    "galore": Extra("GaLore", "AdamW on projected gradients: full fine-tuning in far less memory.",
                    ("galore-torch>=1.0,<2",), 1),
    "exllamav3": Extra("ExLlamaV3", "Makes EXL3 files, for NVIDIA GPUs.", ("exllamav3>=1.6,<2",), 33),
    "hqq": Extra("HQQ", "Quantizes to 8 to 1 bits without texts.", ("hqq>=0.2.8,<0.3",), 2),
    "mlflow": Extra("MLflow", "Keeps the curves in an MLflow database or server.", ("mlflow-skinny>=3.17,<4",), 59),
    "optimi": Extra("optimi", "Optimizers for low precision, StableAdamW among them.", ("torch-optimi>=0.3.3,<1",), 1),
    "ray": Extra("Ray", "Sends runs to a Ray cluster.", ("ray[default]>=2.60,<3",), 310),
    "wandb": Extra("Weights & Biases", "Sends the curves to a Weights & Biases account.", ("wandb>=0.31,<1",), 62),
}


def installed(name: str) -> bool:
    """True if everything an extra asks for is installed, in a version it accepts.

    Raises:
        StudioError: if there is no such extra.
    """
    from packaging.requirements import Requirement

    for wanted in map(Requirement, extra(name).requirements):
        try:
            if not wanted.specifier.contains(metadata.version(wanted.name), prereleases=True):
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def extra(name: str) -> Extra:
    """The extra called ``name``.

    Raises:
        StudioError: naming the ones there are.
    """
    if name not in EXTRAS:
        raise StudioError(f"There is no optional part '{name}'.", f"Known: {', '.join(EXTRAS)}.", "extra")
    return EXTRAS[name]


def require(name: str, field: str | None = None) -> None:
    """Refuse to go on without an extra.

    Args:
        field: Recipe field whose value asks for it.

    Raises:
        MissingExtra: saying how large it is and how to install it.
    """
    if not installed(name):
        raise MissingExtra(name, field)
