"""An answer that does not repeat itself."""

from __future__ import annotations

import numpy as np

from studio.datasets import ngrams
from studio.datasets.verify import Verdict
from studio.recipe import field
from studio.rewards.base import Options, Reward, Row


class RepetitionOptions(Options):
    n: int = field(3, "Words in a row", "How many words make one piece that must not come again. Fewer find more.",
    ge=1, le=20)
    allowed: float = field(0.1, "Allowed", "The share of repeated pieces that costs nothing: some is ordinary "
                           "language.",
                           ge=0, lt=1)


class Repetition(Reward):
    """seq-rep-n of Welleck et al. 2019, turned round so that more is better."""

    title = "No repetition"
    help = "1 if the answer repeats next to none of its runs of words, falling to 0 where it says nothing new."
    paper = "https://arxiv.org/abs/1908.04319"
    Options = RepetitionOptions

    def score(self, answer: str, row: Row) -> Verdict:
        ids, rows = ngrams.words([answer])
        if not len(ids):
            return Verdict(False, 0.0, "the answer has no words")
        found, _ = ngrams.ngrams(ids, rows, self.options.n, short=False)
        share = 1 - len(np.unique(found)) / len(found) if len(found) else 0.0
        over = max(0.0, share - self.options.allowed) / (1 - self.options.allowed)
        return Verdict(not over, 1 - over, f"{share:.0%} of its runs of {self.options.n} words come again")
