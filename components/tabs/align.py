"""Align: teach a model what people prefer, from comparisons, marks, scores or a stronger model."""

from __future__ import annotations

from components.shell import Shell
from components.training import build_training_tab


def build(shell: Shell) -> None:
    build_training_tab(shell, "align", "align")
