"""Merge: several models into one, by mergekit's methods and a few more."""

from __future__ import annotations

from components.shell import Shell
from components.training import build_training_tab


def build(shell: Shell) -> None:
    build_training_tab(shell, "merge", "merge", panel="mergepanel")
