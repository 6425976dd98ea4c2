"""Ratings from battles: Elo as they came, Bradley-Terry over all of them, with bootstrap intervals. No torch here.

A battle is ``(a, b, score)``: two names and what ``a`` got, 1 for a win, 0.5 for a tie, 0 for a loss. Both scales are those
of chess: 400 points are odds of ten to one, and the mean is :data:`START`.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

Battle = tuple[str, str, float]
START, SCALE, BASE = 1000.0, 400.0, 10.0
ROUNDS = 200  # bootstrap samples of an interval
TIED = 0.5  # virtual ties a pair, where the votes alone would put somebody infinitely high


def elo(battles: Iterable[Battle], k: float = 4.0) -> dict[str, float]:
    """Elo's update after each battle in its order (Elo 1978; K = 4 as LMSYS' arena chose for ratings that settle)."""
    points: dict[str, float] = defaultdict(lambda: START)
    for a, b, score in battles:
        expected = 1 / (1 + BASE ** ((points[b] - points[a]) / SCALE))
        points[a] += k * (score - expected)
        points[b] -= k * (score - expected)
    return dict(points)


def bradley_terry(battles: Sequence[Battle], steps: int = 10_000, close: float = 1e-10) -> dict[str, float]:
    """The most likely strengths behind the battles; a tie is half a win for each.

    Bradley and Terry 1952, found by the iteration of Hunter 2004 (https://doi.org/10.1214/aos/1079120141). They exist only
    if no group of models won all its battles against the rest (Ford 1957); where one did, every pair that met is
    given a few virtual ties more (:data:`TIED`). Models that were never compared, not even over others, share one scale
    by that each connected group has the mean :data:`START`.
    """
    return _fitted(Counter(battles), steps, close)


def _fitted(outcomes: dict[Battle, int], steps: int, close: float) -> dict[str, float]:
    """:func:`bradley_terry` of battles that are counted already."""
    import numpy as np

    names = sorted({name for a, b, _ in outcomes for name in (a, b)})
    at = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for (a, b, score), times in outcomes.items():
        wins[at[a], at[b]] += score * times
        wins[at[b], at[a]] += (1 - score) * times
    points = np.zeros(len(names))
    for group in _groups(wins + wins.T):
        inner = wins[np.ix_(group, group)]
        if len(_strong(inner)) > 1:
            inner = inner + TIED * ((inner + inner.T) > 0)
        points[group] = _strengths(inner, steps, close)
    return {name: START + float(points[i]) for name, i in at.items()}


def _strengths(wins: Any, steps: int, close: float) -> Any:
    """Points around 0 of models of which each is comparable with each."""
    import numpy as np

    met, won, strength = wins + wins.T, wins.sum(1), np.ones(len(wins))
    for _ in range(steps):
        new = won / (met / (strength[:, None] + strength[None, :])).sum(1)
        new /= np.exp(np.log(new).mean())
        moved, strength = np.abs(np.log(new / strength)).max(), new
        if moved < close:
            break
    return SCALE * np.log(strength) / np.log(BASE)


def _groups(met: Any) -> list[list[int]]:
    """Models that are linked by battles."""
    from scipy.sparse.csgraph import connected_components

    return _by_label(connected_components(met > 0, directed=False)[1])


def _strong(wins: Any) -> list[list[int]]:
    """Groups within which each beat each, directly or over others."""
    from scipy.sparse.csgraph import connected_components

    return _by_label(connected_components(wins > 0, directed=True, connection="strong")[1])


def _by_label(labels: Iterable[int]) -> list[list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        found[int(label)].append(i)
    return list(found.values())


def table(battles: Sequence[Battle], rounds: int = ROUNDS, seed: int = 0) -> list[dict[str, Any]]:
    """``{name, rating, low, high, elo, battles, wins, ties, losses}``, the strongest first. ``low`` to ``high`` holds 95 %
    of the bootstrap samples; ``None`` with one battle alone."""
    points, walked = bradley_terry(battles), elo(battles)
    samples = _bootstrap(battles, rounds, seed)
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for a, b, score in battles:
        place = {1.0: 0, 0.5: 1}.get(score, 2)
        counted[a][place] += 1
        counted[b][2 - place] += 1
    rows = []
    for name, rating in points.items():
        drawn = sorted(sample[name] for sample in samples if name in sample)
        low, high = _between(drawn) if len(battles) > 1 and drawn else (None, None)
        won, tied, lost = counted[name]
        rows.append({"name": name, "rating": rating, "low": low, "high": high, "elo": walked[name],
                     "battles": won + tied + lost, "wins": won, "ties": tied, "losses": lost})
    return sorted(rows, key=lambda row: -row["rating"])


_last: dict[str, Any] = {"battles": (), "table": []}
_working = threading.Lock()


def kept(battles: Sequence[Battle]) -> list[dict[str, Any]]:
    """:func:`table`, worked out once for the same battles. While another thread works one out, the ranking of a moment ago is good
    enough for those who watch: twenty voters would otherwise wait for each other's intervals."""
    asked = tuple(battles)
    known = _last
    if known["battles"] == asked:
        return known["table"]
    if not asked:
        return []
    first = asked[:len(known["battles"])] == known["battles"] != ()  # the same votes and some more
    if not _working.acquire(blocking=not first):
        return known["table"]
    try:
        if _last["battles"] != asked:
            _remember(asked, table(asked))
        return _last["table"]
    finally:
        _working.release()


def _remember(battles: tuple[Battle, ...], made: list[dict[str, Any]]) -> None:
    global _last
    _last = {"battles": battles, "table": made}


def _bootstrap(battles: Sequence[Battle], rounds: int, seed: int) -> list[dict[str, float]]:
    """Ratings of as many battles drawn with replacement. Like battles are drawn by their number: twenty thousand take no
    longer than two hundred."""
    import numpy as np

    kinds, times = zip(*sorted(Counter(battles).items()), strict=True) if battles else ((), ())
    drawn = np.random.default_rng(seed)
    samples = drawn.multinomial(len(battles), np.array(times) / len(battles), rounds) if battles else []
    return [_fitted({kind: int(n) for kind, n in zip(kinds, sample, strict=True) if n}, 500, 1e-6) for sample in samples]


def _between(drawn: list[float], share: float = 0.95) -> tuple[float, float]:
    cut = (1 - share) / 2 * (len(drawn) - 1)
    return drawn[round(cut)], drawn[round(len(drawn) - 1 - cut)]


def matrix(battles: Iterable[Battle]) -> dict[str, Any]:
    """How often each beat each: ``{names, share, battles}``; ``share[i][j]`` is what ``i`` got of its battles with ``j``,
    ``None`` where they never met."""
    names: list[str] = []
    got: dict[tuple[str, str], list[float]] = defaultdict(list)
    for a, b, score in battles:
        names += [name for name in (a, b) if name not in names]
        got[a, b].append(score)
        got[b, a].append(1 - score)
    names.sort()
    return {"names": names, "battles": [[len(got.get((a, b), ())) for b in names] for a in names],
            "share": [[sum(got[a, b]) / len(got[a, b]) if got.get((a, b)) else None for b in names] for a in names]}
