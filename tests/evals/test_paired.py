"""Paired differences: the intervals are scipy's, the test of flips is the exact binomial one, and only like questions are paired."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from studio import api
from studio.errors import StudioError
from studio.evals import paired
from studio.evals.results import Sample
from tests.evals.made import answers, evaluated


def by_scipy(a, b, seed: int = 1) -> tuple[float, float]:
    found = stats.bootstrap((a, b), lambda x, y, axis=-1: y.mean(axis=axis) - x.mean(axis=axis), paired=True, vectorized=True,
                            method="percentile", n_resamples=20_000, rng=seed)
    return found.confidence_interval.low, found.confidence_interval.high


@pytest.mark.parametrize("kind", ["right or wrong", "numbers"])
def test_the_interval_is_that_of_scipy(kind):
    rng = np.random.default_rng(5)
    if kind == "numbers":
        a = rng.normal(0.4, 0.2, 300)
        b = a + rng.normal(0.03, 0.1, 300)
    else:
        a = rng.integers(0, 2, 400).astype(float)
        b = np.where(rng.random(400) < 0.2, rng.integers(0, 2, 400), a).astype(float)
    made = paired.difference(a, b, resamples=20_000)
    low, high = by_scipy(a, b)
    width = high - low
    assert made["delta"] == pytest.approx(b.mean() - a.mean())
    assert made["low"] == pytest.approx(low, abs=0.03 * width) and made["high"] == pytest.approx(high, abs=0.03 * width)
    wide = 2 * 1.96 * np.sqrt(a.var() / len(a) + b.var() / len(b))
    assert width < 0.75 * wide, "pairing is what makes it narrow"


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (3, 9), (9, 3), (40, 17), (200, 260), (7, 7), (0, 30)])
def test_flips_are_tested_exactly(better, worse):
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert paired.mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)
    a, b = [0.0] * better + [1.0] * worse + [1.0] * 5, [1.0] * better + [0.0] * worse + [1.0] * 5
    assert paired.difference(a, b)["p"] == pytest.approx(expected, rel=1e-9)


def test_numbers_are_tested_by_signs_as_scipy_does():
    rng = np.random.default_rng(2)
    a = rng.normal(0, 1, 10)
    b = a + rng.normal(0.4, 0.6, 10)
    exact = stats.permutation_test((a, b), lambda x, y, axis=-1: (y - x).mean(axis=axis), permutation_type="samples",
                                   vectorized=True, n_resamples=np.inf).pvalue
    assert paired.difference(a, b)["p"] == pytest.approx(exact)
    a = rng.normal(0, 1, 60)
    b = a + rng.normal(0.15, 0.5, 60)
    many = stats.permutation_test((a, b), lambda x, y, axis=-1: (y - x).mean(axis=axis), permutation_type="samples",
                                  vectorized=True, n_resamples=20_000, rng=0).pvalue
    assert paired.difference(a, b, resamples=20_000)["p"] == pytest.approx(many, abs=0.01)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 300 draws from a world where the difference is 0.1, about 95 % of the intervals hold it."""
    rng, hit = np.random.default_rng(0), 0
    for trial in range(300):
        a = rng.random(120)
        made = paired.difference(a, a + 0.1 + rng.normal(0, 0.3, 120), 500, seed=trial)
        hit += made["low"] <= 0.1 <= made["high"]
    assert 270 <= hit <= 297


def test_less_is_better_for_a_loss():
    made = paired.difference([1.0, 2.0, 3.0], [0.5, 1.5, 3.5], higher=False)
    assert (made["better"], made["worse"], made["same"]) == (2, 1, 0) and made["delta"] == pytest.approx(-1 / 6)


def test_one_question_has_no_interval():
    made = paired.difference([0.0], [1.0])
    assert made["low"] is None and made["p"] is None and made["delta"] == 1


def test_a_large_evaluation_takes_little_time_and_memory():
    import time

    rng = np.random.default_rng(0)
    a = rng.random(20_000)
    began = time.process_time()
    made = paired.difference(a, a + rng.normal(0, 0.1, 20_000))
    assert made["low"] < made["high"] and time.process_time() - began < 4


def test_two_models_of_one_run_are_paired_by_question():
    base, tuned = [1.0] * 30 + [0.0] * 20, [1.0] * 20 + [0.0] * 10 + [1.0] * 20
    run = evaluated({"starter": "Starter", "library:tuned": "Tuned"}, {"sums": {"starter": answers(base), "library:tuned": answers(tuned)}})
    [line] = api.eval_pairs({"run": run, "model": 0}, {"run": run, "model": "library:tuned"})
    assert line["a"] == 0.6 and line["b"] == 0.8 and line["delta"] == pytest.approx(0.2) and line["main"]
    assert (line["better_answers"], line["worse_answers"], line["same"], line["n"]) == (20, 10, 20, 50)
    assert line["p"] == pytest.approx(stats.binomtest(10, 30).pvalue) and not line["sure"] and not line["worse"]
    kinds = [flip["kind"] for flip in line["flips"]]
    assert kinds == ["worse"] * 10 + ["better"] * 20
    assert line["flips"][0] == {"id": "20", "kind": "worse", "prompt": "Question 20?", "target": "20", "a": "20", "b": "no", "a_score": 1.0,
                                "b_score": 0.0, "tags": {}}
    [back] = api.eval_pairs({"run": run, "model": 1}, {"run": run, "model": 0})
    assert back["worse"] and back["delta"] == pytest.approx(-0.2)
    assert [back["low"], back["high"]] == pytest.approx([-line["high"], -line["low"]], abs=0.02)


def test_runs_pair_on_the_questions_both_have():
    one = evaluated({"starter": "Starter"}, {"sums": {"starter": answers([1.0, 1.0, 0.0, 0.0])}, "own": {"starter": answers([1.0])}})
    two = evaluated({"library:t": "T"}, {"sums": {"library:t": answers([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])}})
    [line] = api.eval_pairs({"run": one}, {"run": two})
    assert line["n"] == 4 and line["left_out"] == 2 and line["a"] == 0.5 and line["b"] == 0.75
    assert line["delta"] == pytest.approx(0.25)


def test_a_corpus_score_has_no_interval():
    """BLEU of a corpus is not the mean of its sentences'; an interval of those would be of something else."""
    made = {ref: [Sample(str(i), "q", "a", "t", {"bleu": value + i}) for i in range(6)] for ref, value in (("starter", 10.0), ("x", 12.0))}
    run = evaluated({"starter": "Starter", "x": "X"}, {"translate": made},
                    corpus={("starter", "translate"): {"bleu": (31.0, 1.0)}, ("x", "translate"): {"bleu": (30.0, 1.0)}})
    [line] = api.eval_pairs({"run": run, "model": 0}, {"run": run, "model": 1})
    assert (line["a"], line["b"], line["delta"], line["low"], line["worse"]) == (31.0, 30.0, -1.0, None, True)


@pytest.mark.parametrize(("side", "word"), [({"run": "rnothing00"}, "no run"), ({"run": "../x"}, "not a run id"),
                                            ({"run": "RUN", "model": 7}, "did not ask"), ({"run": "RUN", "model": "hub:no/no"}, "did not ask")])
def test_what_is_not_there_is_told(side, word):
    run = evaluated({"starter": "Starter"}, {"sums": {"starter": answers([1.0])}})
    side = side | ({"run": run} if side["run"] == "RUN" else {})
    with pytest.raises(StudioError, match=word):
        api.eval_pairs({"run": run}, side)


def test_another_persons_evaluation_is_not_there(monkeypatch):
    run = evaluated({"starter": "Starter"}, {"sums": {"starter": answers([1.0])}}, owner="ann")
    monkeypatch.setenv("SPACE_ID", "a/b")
    assert api.eval_pairs({"run": run}, {"run": run}, "ann")
    for person in ("ben", None):
        with pytest.raises(StudioError, match="no run"):
            api.eval_pairs({"run": run}, {"run": run}, person)


def test_a_mean_over_tokens_has_its_interval() -> None:
    rng = np.random.default_rng(4)
    tokens = rng.integers(1, 40, (60, 2))
    losses = np.column_stack([2 + rng.normal(0, 0.4, 60), 1.7 + rng.normal(0, 0.4, 60)])
    known = [tuple({"scores": {"loss": float(losses[i, j]), "perplexity": float(np.exp(losses[i, j]))}, "more": {"tokens": int(tokens[i, j])}}
                   for j in (0, 1)) for i in range(60)]
    values = [float((losses[:, j] * tokens[:, j]).sum() / tokens[:, j].sum()) for j in (0, 1)]
    found = paired.by_tokens(known, "loss", values)
    drawn = []
    for _ in range(2000):  # by hand: questions with their tokens, one draw at a time
        at = rng.integers(0, 60, 60)
        drawn.append(np.subtract(*[(losses[at, j] * tokens[at, j]).sum() / tokens[at, j].sum() for j in (1, 0)]))
    assert (found["low"], found["high"]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    assert found["low"] < values[1] - values[0] < found["high"] < 0 and found["p"] < 0.05
    power = paired.by_tokens(known, "perplexity", list(np.exp(values)))
    assert power["low"] < math.exp(values[1]) - math.exp(values[0]) < power["high"] < 0
    assert paired.by_tokens(known, "loss", [9.0, 9.0]) is None, "what the answers do not add up to has no interval"
