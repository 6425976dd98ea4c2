"""The expected words occur."""

from __future__ import annotations

from studio.rewards.base import Checked


class Contains(Checked):
    title = "The expected words occur"
    help = "1 if the expected words stand somewhere in the answer; 0 if not. A long answer finds them by chance."
