"""Ratings equal reference computations; intervals, separation and tables."""

from __future__ import annotations

import math
import random

import pytest

from studio.arena import ratings

STRONG = {"great": 1200.0, "good": 1050.0, "fair": 950.0, "poor": 800.0}


def _battles(n: int, seed: int = 1, ties: float = 0.15) -> list[ratings.Battle]:
    drawn, names, made = random.Random(seed), list(STRONG), []
    for _ in range(n):
        a, b = drawn.sample(names, 2)
        won = drawn.random() < 1 / (1 + 10 ** ((STRONG[b] - STRONG[a]) / 400))
        made.append((a, b, 0.5 if drawn.random() < ties else float(won)))
    return made


def test_elo_is_elos_formula():
    """Two equals: the winner takes half of K. Then the expectation is 1/(1+10^(d/400))."""
    points = ratings.elo([("a", "b", 1.0)], k=32)
    assert points == {"a": 1016.0, "b": 984.0}
    points = ratings.elo([("a", "b", 1.0), ("a", "b", 0.5)], k=32)
    assert points["a"] == pytest.approx(1016 + 32 * (0.5 - 1 / (1 + 10 ** (-32 / 400))))
    assert sum(points.values()) == pytest.approx(2000)


def test_bradley_terry_is_the_logistic_regression_without_penalty():
    """The same likelihood, maximised by another library: one column a model, +1 for the first and -1 for the second."""
    optimize = pytest.importorskip("scipy.optimize")
    import numpy as np

    battles, names = _battles(600), sorted(STRONG)
    rows = np.zeros((len(battles), len(names)))
    for i, (a, b, _) in enumerate(battles):
        rows[i, names.index(a)], rows[i, names.index(b)] = 1, -1
    score = np.array([s for *_, s in battles])

    def loss(theta):
        z = rows @ theta
        return np.sum(np.logaddexp(0, -z) * score + np.logaddexp(0, z) * (1 - score)) + 1e-12 * theta @ theta

    theta = optimize.minimize(loss, np.zeros(len(names)), method="BFGS", options={"gtol": 1e-9}).x
    expected = 1000 + (theta - theta.mean()) * 400 / math.log(10)
    found = ratings.bradley_terry(battles)
    assert [found[name] for name in names] == pytest.approx(list(expected), abs=0.01)


def test_the_order_of_the_votes_does_not_matter():
    battles = _battles(200)
    assert ratings.bradley_terry(battles) == pytest.approx(ratings.bradley_terry(battles[::-1]))
    assert ratings.bradley_terry(battles) == pytest.approx(ratings.bradley_terry([(b, a, 1 - s) for a, b, s in battles]))


def test_who_wins_always_is_not_infinitely_strong():
    found = ratings.bradley_terry([("a", "b", 1.0)] * 10)
    assert found["a"] > found["b"] and found["a"] < 2000
    assert found["a"] - found["b"] == pytest.approx(400 * math.log10((10 + ratings.TIED) / ratings.TIED))


def test_groups_that_never_met_have_one_mean():
    found = ratings.bradley_terry([("a", "b", 1.0), ("a", "b", 0.0), ("c", "d", 1.0), ("c", "d", 1.0), ("c", "d", 0.0)])
    assert found["a"] == found["b"] == pytest.approx(1000)
    assert (found["c"] + found["d"]) / 2 == pytest.approx(1000)
    assert found["c"] - found["d"] == pytest.approx(400 * math.log10(2))


def test_intervals_hold_the_truth_and_shrink():
    few, many = ratings.table(_battles(60), rounds=100), ratings.table(_battles(2000), rounds=60)
    assert [row["name"] for row in many] == ["great", "good", "fair", "poor"]
    width = {row["name"]: row["high"] - row["low"] for row in few}
    for row in many:
        assert row["low"] <= row["rating"] <= row["high"]
        assert row["high"] - row["low"] < width[row["name"]] / 2
        assert row["battles"] == row["wins"] + row["ties"] + row["losses"]
    truth = {name: points - 1000 for name, points in STRONG.items()}
    shrunk = sum(abs(row["rating"] - 1000) < abs(truth[row["name"]]) for row in many)
    assert shrunk >= 3, "a tie is half a win, so 15 % of ties draw the strengths together"
    assert ratings.table(_battles(60), rounds=100) == few, "the same seed draws the same"
    assert ratings.table([("a", "b", 1.0)])[0]["low"] is None


def test_the_matrix_counts_both_sides():
    found = ratings.matrix([("a", "b", 1.0), ("b", "a", 1.0), ("a", "b", 0.5), ("c", "a", 0.0)])
    assert found["names"] == ["a", "b", "c"]
    assert found["battles"] == [[0, 3, 1], [3, 0, 0], [1, 0, 0]]
    assert found["share"] == [[None, 0.5, 1.0], [0.5, None, None], [0.0, None, None]]


def test_the_same_battles_are_rated_once_and_who_watches_does_not_wait(monkeypatch):
    import threading

    from studio.arena import ratings

    calls, going, go_on = [], threading.Event(), threading.Event()

    def slow(battles, **_):
        calls.append(len(battles))
        if len(calls) > 1:
            going.set()
            go_on.wait(10)
        return [{"name": "a", "battles": len(battles)}]

    monkeypatch.setattr(ratings, "table", slow)
    monkeypatch.setattr(ratings, "_last", {"battles": (), "table": []})
    one = [("a", "b", 1.0)]
    assert ratings.kept([]) == []
    assert ratings.kept(one) == ratings.kept(one) == [{"name": "a", "battles": 1}] and calls == [1]
    worker = threading.Thread(target=ratings.kept, args=(one * 2,))
    worker.start()
    assert going.wait(10)
    assert ratings.kept(one * 3) == [{"name": "a", "battles": 1}], "the ranking of a moment ago, at once"
    go_on.set()
    worker.join(10)
    assert ratings.kept(one * 2) == [{"name": "a", "battles": 2}] and calls == [1, 2]
    assert ratings.kept([("c", "d", 0.0)]) == [{"name": "a", "battles": 1}], "other battles: never the ranking of these"
