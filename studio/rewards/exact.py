"""The same text as expected."""

from __future__ import annotations

from studio.rewards.base import Checked


class Exact(Checked):
    title = "The same text"
    help = "1 if the answer is the expected text, character by character but for blanks around it; else 0."
