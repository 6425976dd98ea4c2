"""Two models on the same questions: the difference, how sure it is, and which answers flipped. No torch here.

Each question is answered by both, so the questions' own difficulty cancels out; the interval of the difference is much narrower than
two standard errors suggest (Efron and Tibshirani 1993, chapter 10; Miller 2024, https://arxiv.org/abs/2411.00640).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from studio.evals.finished import Evaluation

RESAMPLES, LEVEL = 2000, 0.95
FLIPS = 60  # examples told of a task
_FEW = 256  # different differences up to which they are drawn by their number
_CELLS = 4_000_000  # numbers drawn at once


def difference(a: Sequence[float], b: Sequence[float], resamples: int = RESAMPLES, seed: int = 0, higher: bool = True) -> dict[str, Any]:
    """What changes from ``a`` to ``b``, scores of the same questions in the same order.

    Args:
        resamples: Bootstrap samples of the interval, and random signs of the test.
        higher: Whether a higher score is better.

    Returns:
        ``{delta, low, high, p, n, better, worse, same}``: the mean of ``b - a`` with its 95 % paired bootstrap interval
        (percentiles); ``p`` of no difference, by the exact McNemar test where all scores are 0 or 1 and else by turning signs
        at random; on how many questions ``b`` was better, worse, the same. With fewer than two questions there is
        no interval and no ``p``.
    """
    import numpy as np

    one, two = np.asarray(a, float), np.asarray(b, float)
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError("the scores of two models must be of the same questions")
    change = two - one
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    if not higher:
        better, worse = worse, better
    told = {"delta": float(change.mean()) if len(change) else math.nan, "low": None, "high": None, "p": None, "n": len(change),
            "better": better, "worse": worse, "same": len(change) - better - worse}
    if len(change) < 2:
        return told
    rng = np.random.default_rng(seed)
    low, high = np.quantile(means(change, resamples, rng), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    binary = bool(np.isin(one, (0, 1)).all() and np.isin(two, (0, 1)).all())
    p = mcnemar(better, worse) if binary else _signs(change, resamples, rng)
    return told | {"low": float(low), "high": float(high), "p": p}


def means(values: Any, resamples: int, rng: Any) -> Any:
    """Means of ``resamples`` samples with replacement, each as large as ``values``."""
    import numpy as np

    kinds, times = np.unique(values, return_counts=True)
    if len(kinds) <= _FEW:  # as many of each kind as drawing rows one by one would give
        return rng.multinomial(len(values), times / len(values), resamples) @ kinds / len(values)
    block = max(1, _CELLS // len(values))
    return np.concatenate([values[rng.integers(0, len(values), (min(block, resamples - at), len(values)))].mean(axis=1)
                           for at in range(0, resamples, block)])


def _signs(change: Any, resamples: int, rng: Any) -> float:
    """Share of random signs that give at least this mean difference; exact where there are few."""
    import numpy as np

    moved = change[change != 0]
    if not len(moved):
        return 1.0
    found = abs(moved.sum()) - 1e-12 * np.abs(moved).sum()
    if len(moved) <= 12:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((np.abs(signs @ moved) >= found).mean())
    block, hits = max(1, _CELLS // len(moved)), 0
    for at in range(0, resamples, block):
        signs = rng.integers(0, 2, (min(block, resamples - at), len(moved)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ moved) >= found).sum())
    return (hits + 1) / (resamples + 1)


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided McNemar test: how likely so uneven a split of the flips is by chance (McNemar 1947)."""
    flips, fewer = better + worse, min(better, worse)
    if better == worse:
        return 1.0
    term, total = 1, 0
    for k in range(fewer + 1):
        total += term
        term = term * (flips - k) // (k + 1)
    return min(1.0, 2 * (total / (1 << flips)))


def pairs(a: Evaluation, one: int, b: Evaluation, two: int, resamples: int = RESAMPLES, seed: int = 0) -> list[dict[str, Any]]:
    """Every metric of every task that both were asked: see :func:`studio.api.insight.eval_pairs`."""
    found = []
    for task, facts in a.tasks.items():
        if task not in b.tasks:
            continue
        left, right = ({line["id"]: line for line in side.answers(number, task)} for side, number in ((a, one), (b, two)))
        both = [key for key in left if key in right]
        for metric, how in facts["metrics"].items():
            if (line := _line(a, one, b, two, task, metric, how, [(left[key], right[key]) for key in both], resamples, seed)) is None:
                continue
            line["main"] = metric == facts["main"]
            line["left_out"] = len(left) + len(right) - 2 * len(both)
            found.append({"task": task, "title": facts["title"]} | line)
    return found


def change(a: Evaluation, one: int, b: Evaluation, two: int, task: str, metric: str, higher: bool = True,
           resamples: int = RESAMPLES) -> dict[str, Any]:
    """``{delta, low, high, p, n, sure, worse}`` of one metric of one task, without the examples."""
    left, right = ({line["id"]: line for line in side.answers(number, task)} for side, number in ((a, one), (b, two)))
    both = [(left[key], right[key]) for key in left if key in right]
    line = _line(a, one, b, two, task, metric, {"higher_is_better": higher}, both, resamples, 0, examples=False) or {}
    return {key: line[key] for key in ("delta", "low", "high", "p", "n", "sure", "worse") if key in line}


def _line(a: Evaluation, one: int, b: Evaluation, two: int, task: str, metric: str, how: dict[str, Any], both: list[tuple],
          resamples: int, seed: int, examples: bool = True) -> dict[str, Any] | None:
    scores = (a.score(one, task, metric), b.score(two, task, metric))
    if any(score is None or score["value"] is None for score in scores):
        return None
    higher = how.get("higher_is_better", True)
    known = [(x, y) for x, y in both if _has(x, metric) and _has(y, metric)]
    made = difference([x["scores"][metric] for x, _ in known], [y["scores"][metric] for _, y in known], resamples, seed, higher)
    values = [score["value"] for score in scores]
    if len(known) == scores[0]["n"] == scores[1]["n"] and len(known) and not _are_means(values, known, metric):
        # a corpus BLEU is no mean of its sentences: they bound nothing; a loss is a mean over tokens
        made |= by_tokens(known, metric, values, resamples, seed) or {"low": None, "high": None, "p": None}
        made["delta"] = values[1] - values[0]
    elif known:  # of the questions both have, where those are fewer
        values = [math.fsum(side["scores"][metric] for side in sides) / len(known) for sides in zip(*known, strict=True)]
    else:
        made["delta"] = values[1] - values[0]
    sure = made["low"] is not None and (made["low"] > 0 or made["high"] < 0)
    up = made["delta"] > 0 if higher else made["delta"] < 0
    better, lost = made.pop("better"), made.pop("worse")
    return made | {"metric": metric, "a": values[0], "b": values[1], "higher_is_better": higher, "sure": sure,
                   "worse": not up and made["delta"] != 0, "worse_answers": lost, "better_answers": better,
                   "low_bound": how.get("low"), "high_bound": how.get("high"), "flips": flips(known, metric, higher) if examples else []}


def _has(line: dict[str, Any], metric: str) -> bool:
    value = line["scores"].get(metric)
    return isinstance(value, (int, float)) and math.isfinite(value)


def by_tokens(known: list[tuple], metric: str, values: list[float], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any] | None:
    """``{low, high, p}`` of a figure that is a mean over tokens, or the exponential of one (a perplexity): whole questions are
    drawn, with their tokens. ``None`` where the answers do not add up to the figures.

    ``p`` is twice the share of draws on the other side of no difference.
    """
    import numpy as np

    if len(known) < 2 or not all(isinstance(line["more"].get("tokens"), int) for pair in known for line in pair):
        return None
    tokens = np.array([[line["more"]["tokens"] for line in side] for side in zip(*known, strict=True)], float)
    scores = np.array([[line["scores"][metric] for line in side] for side in zip(*known, strict=True)], float)
    power = metric == "perplexity"
    if power:
        scores = np.log(np.maximum(scores, 1e-300))
    summed = scores * tokens
    told = summed.sum(1) / np.maximum(tokens.sum(1), 1)
    if not np.allclose(np.exp(told) if power else told, values, rtol=1e-3, atol=1e-6):
        return None
    rng, n, drawn = np.random.default_rng(seed), len(known), []
    for at in range(0, resamples, block := max(1, _CELLS // n)):
        times = rng.multinomial(n, np.full(n, 1 / n), min(block, resamples - at))
        means = (times @ summed.T) / np.maximum(times @ tokens.T, 1)
        drawn.append(np.subtract(*(np.exp(means) if power else means).T[::-1]))
    change = np.concatenate(drawn)
    low, high = np.quantile(change, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    other = min((change <= 0).sum(), (change >= 0).sum())
    return {"low": float(low), "high": float(high), "p": min(1.0, float(2 * (other + 1) / (resamples + 1)))}


def _are_means(values: list[float], known: list[tuple], metric: str) -> bool:
    sides = [math.fsum(line["scores"][metric] for line in side) / len(known) for side in zip(*known, strict=True)]
    return all(math.isclose(value, mean, rel_tol=1e-4, abs_tol=1e-6) for value, mean in zip(values, sides, strict=True))


def flips(known: list[tuple], metric: str, higher: bool = True, most: int = FLIPS) -> list[dict[str, Any]]:
    """Questions whose score changed, the greatest losses first, then the greatest gains: ``{id, kind, prompt, target, a, b, a_score,
    b_score, tags}``; ``kind`` is ``worse`` or ``better``."""
    made = []
    for x, y in known:
        change = y["scores"][metric] - x["scores"][metric]
        if change:
            made.append((change if higher else -change, x, y))
    lost, won = sorted((one for one in made if one[0] < 0), key=lambda one: one[0]), sorted((one for one in made if one[0] > 0), key=lambda one: -one[0])
    share = max(most // 2, most - len(won))
    return [{"id": x["id"], "kind": "worse" if change < 0 else "better", "prompt": x["prompt"][-2000:], "target": x["target"],
             "a": x["answer"][:2000], "b": y["answer"][:2000], "a_score": x["scores"][metric], "b_score": y["scores"][metric],
             "tags": x["tags"]} for change, x, y in [*lost[:share], *won[:most - len(lost[:share])]]]
