"""What more answers are worth, computed from one pool of drawn answers a question: pass@k, the best by a reward, the majority.

Each function gives the value to be expected of ``k`` answers drawn from the pool without replacement, so every budget uses all
answers and none is drawn twice for it. No torch, nothing of runs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from math import comb

SUBSETS = 400  # subsets a majority is counted in, where there are more than that


def pass_at_k(right: Sequence[bool], k: int) -> float:
    """Probability that one of ``k`` is right: ``1 - C(n - c, k) / C(n, k)``, the unbiased estimate of Chen et al. 2021
    (https://arxiv.org/abs/2107.03374)."""
    n, c = len(right), sum(right)
    return 1.0 - comb(n - c, k) / comb(n, k)


def best_of(right: Sequence[bool], rewards: Sequence[float], k: int) -> float:
    """Probability that the answer with the highest reward of ``k`` is right; among equal rewards chance decides."""
    n, below, value = len(right), 0, 0.0
    for reward in sorted(set(rewards)):
        equal = [i for i in range(n) if rewards[i] == reward]
        upto = below + len(equal)
        value += (comb(upto, k) - comb(below, k)) / comb(n, k) * sum(right[i] for i in equal) / len(equal)
        below = upto
    return value


def majority(right: Sequence[bool], votes: Sequence[Hashable | None], k: int, seed: int = 0) -> float:
    """Probability that the answer most of ``k`` give is right (self-consistency, Wang et al. 2022, https://arxiv.org/abs/2203.11171).

    Counted in all subsets, or in :data:`SUBSETS` drawn ones where there are more. Among equally frequent answers chance
    decides; ``None`` casts no vote, and where nobody votes it is wrong.
    """
    n = len(right)
    if comb(n, k) <= SUBSETS:
        parts = list(combinations(range(n), k))
    else:
        drawn = random.Random(f"{seed}/{n}/{k}")
        parts = [tuple(drawn.sample(range(n), k)) for _ in range(SUBSETS)]
    return sum(_elected(right, votes, part) for part in parts) / len(parts)


def _elected(right: Sequence[bool], votes: Sequence[Hashable | None], part: Sequence[int]) -> float:
    counts = Counter(votes[i] for i in part if votes[i] is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    chosen = [i for i in part if votes[i] is not None and counts[votes[i]] == most]
    return sum(right[i] for i in chosen) / len(chosen)  # equally frequent answers have equally many places each
