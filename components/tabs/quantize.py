"""Quantize: smaller variants of a model, each proven to answer like it."""

from __future__ import annotations

from components.shell import Shell
from components.training import build_training_tab


def build(shell: Shell) -> None:
    build_training_tab(shell, "quantize", "quantize", panel="quantizepanel")
