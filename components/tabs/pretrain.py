"""Pretrain: a model from nothing but text, or more text for one that exists."""

from __future__ import annotations

from components.shell import Shell
from components.training import build_training_tab


def build(shell: Shell) -> None:
    build_training_tab(shell, "pretrain", "pretrain")
