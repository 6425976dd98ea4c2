"""How far a judge can be believed: agreement with people, and whether place or length sways it. Plain numbers in and out, no torch.

Kappa is Cohen's (1960): the agreement beyond what two raters with these habits would reach by chance; 0 is chance, 1 is
always. Its interval is the percentile bootstrap over the items (Efron 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

RESAMPLES = 2000
SURE = 0.05  # a bias is told as one from this probability of chance alone on
LABELS = ("a", "tie", "b")


def kappa(table: Any) -> Any:
    """Cohen's kappa of counts: ``table[i, j]`` items that one rater called ``i`` and the other ``j``; of many tables
    ``(…, k, k)`` many. NaN where both raters call everything the same."""
    import numpy as np

    table = np.asarray(table, dtype=float)
    n = table.sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = np.trace(table, axis1=-2, axis2=-1) / n
        chance = (table.sum(-1) * table.sum(-2)).sum(-1) / n**2
        return np.where(np.isclose(chance, 1.0), math.nan, (seen - chance) / (1 - chance))


def agreement(judge: Sequence[str], people: Sequence[str], labels: Sequence[str] = LABELS, resamples: int = RESAMPLES,
              seed: int = 0) -> dict[str, Any]:
    """``{n, kappa, low, high, same, decided, same_decided, table}`` of two raters' words on the same items.

    ``low`` to ``high`` holds 95 % of the resamples; ``None`` where it cannot be said. ``same`` is the share of equal words,
    ``same_decided`` that among the ``decided`` items on which neither says ``tie``. ``table[i][j]``: judge said
    ``labels[i]``, people ``labels[j]``.
    """
    import numpy as np

    at = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), int)
    for one, other in zip(judge, people, strict=True):
        table[at[one], at[other]] += 1
    n = int(table.sum())
    sides = [at[label] for label in labels if label != "tie"]
    decided = table[np.ix_(sides, sides)]
    low = high = None
    if n > 1:
        drawn = np.random.default_rng(seed).multinomial(n, (table / n).ravel(), resamples).reshape(-1, *table.shape)
        found = kappa(drawn)
        found = found[np.isfinite(found)]
        if len(found):
            low, high = (float(value) for value in np.percentile(found, [2.5, 97.5]))
    value = float(kappa(table)) if n else math.nan
    return {"n": n, "kappa": value if math.isfinite(value) else None, "low": low, "high": high,
            "same": float(np.trace(table)) / n if n else None, "decided": int(decided.sum()),
            "same_decided": float(np.trace(decided) / decided.sum()) if decided.sum() else None, "table": table.tolist()}


def share(hits: int, of: int) -> dict[str, Any]:
    """``{n, hits, share, low, high, p}`` of something that is a coin's toss by chance: Wilson's 95 % interval, and the exact
    two-sided probability of being so far from one half."""
    from scipy.stats import binomtest

    if not of:
        return {"n": 0, "hits": 0, "share": None, "low": None, "high": None, "p": None}
    test = binomtest(hits, of)
    between = test.proportion_ci(0.95, "wilson")
    return {"n": of, "hits": hits, "share": hits / of, "low": float(between.low), "high": float(between.high), "p": float(test.pvalue)}


def position(orders: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Whether the place of an answer sways a judge, from pairs that it saw in both orders.

    Args:
        orders: (verdict with ``a`` shown first, verdict with ``b`` shown first), both told as ``a``, ``b`` or ``tie``.

    Returns:
        ``{pairs, consistent, first, second, half, p, biased}``: pairs judged alike in both orders, pairs where whichever stood
        first (second) won both times, pairs with one tie. ``p`` is the sign test of first against second.
    """
    same = sum(one == other for one, other in orders)
    first, second = (sum(pair == wanted for pair in orders) for wanted in (("a", "b"), ("b", "a")))
    test = share(first, first + second)
    return {"pairs": len(orders), "consistent": same, "first": first, "second": second, "half": len(orders) - same - first - second,
            "p": test["p"], "biased": bool(test["p"] is not None and test["p"] < SURE)}


def shown_first(winners: Sequence[str]) -> dict[str, Any]:
    """The same where every pair was shown in one drawn order only: ``winners`` are ``first``, ``second`` or ``tie``."""
    first, second = winners.count("first"), winners.count("second")
    test = share(first, first + second)
    return {"pairs": len(winners), "consistent": None, "first": first, "second": second, "half": None, "p": test["p"],
            "biased": bool(test["p"] is not None and test["p"] < SURE)}


def longer(outcomes: Sequence[tuple[int, int, float]]) -> dict[str, Any]:
    """How often the longer of two answers wins: :func:`share` and ``biased``. Ties and answers of one length are left out.

    Args:
        outcomes: (length of a, length of b, what a got).
    """
    clear = [(a > b) == (score > 0.5) for a, b, score in outcomes if a != b and score != 0.5]
    made = share(sum(clear), len(clear))
    return made | {"biased": bool(made["p"] is not None and made["p"] < SURE and made["share"] > 0.5)}


def rank_correlation(one: Sequence[float], other: Sequence[float], resamples: int = 500, seed: int = 0) -> dict[str, Any]:
    """``{n, value, low, high}``: Spearman's rank correlation with a bootstrap interval; ``None`` where either never varies."""
    import numpy as np
    from scipy.stats import rankdata

    def of(x: Any, y: Any) -> float:
        x, y = rankdata(x), rankdata(y)
        return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else math.nan

    x, y = np.asarray(one, float), np.asarray(other, float)
    value = of(x, y) if len(x) > 2 else math.nan
    if not math.isfinite(value):
        return {"n": len(x), "value": None, "low": None, "high": None}
    drawn = np.random.default_rng(seed)
    found = [of(x[places], y[places]) for places in (drawn.integers(0, len(x), len(x)) for _ in range(resamples))]
    low, high = np.percentile([v for v in found if math.isfinite(v)], [2.5, 97.5])
    return {"n": len(x), "value": value, "low": float(low), "high": float(high)}
