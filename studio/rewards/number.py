"""The same number at the end."""

from __future__ import annotations

from studio.recipe import field
from studio.rewards.base import Checked, Reference


class NumberOptions(Reference):
    tolerance: float = field(1e-6, "Tolerance", "The greatest difference that still counts, as a share of the expected "
                             "number where that is above 1.", group="advanced", ge=0, le=1)


class Number(Checked):
    title = "The same number"
    help = "1 if the last number of the answer (or the one in \\boxed{} or after ####) is the expected one; else 0."
    paper = "https://arxiv.org/abs/2110.14168"
    Options = NumberOptions
