"""The same words as expected."""

from __future__ import annotations

from studio.rewards.base import Checked


class Normalised(Checked):
    title = "The same words"
    help = "1 if the answer is the expected one but for case, punctuation, articles and blanks; else 0."
    paper = "https://arxiv.org/abs/1606.05250"
