"""Each detector fires on the trouble it is for, and stays quiet on healthy, noisy curves."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest

from studio.trainers.doctor import Doctor, usual_rates

STEPS = 100


def recipe(kind="sft", method="lora", rate=1e-3, **more):
    return SimpleNamespace(kind=kind, method=method, learning_rate=rate, optim="adamw_torch_fused", **more)


def codes(series, kind="sft", method="lora", total=STEPS, doctor=None):
    """Codes found over a run whose logs at each step are ``series(step)``."""
    doctor = doctor or Doctor(recipe(kind, method), total=total)
    return [finding.code for step in range(1, total + 1) for finding in doctor.feed(step, series(step))]


def falling(step, seed, noise, start=3.0, end=1.0, tau=25):
    """A healthy loss: exponential, with the heavy-tailed noise of small batches."""
    draw = random.Random(seed * 100_003 + step)
    return (end + (start - end) * math.exp(-step / tau)) * math.exp(draw.gauss(0, noise))


def healthy(seed, noise):
    def at(step):
        draw = random.Random(seed * 7919 + step)
        loss = falling(step, seed, noise)
        return {"loss": loss, "grad_norm": 2 * math.exp(draw.gauss(0, 0.6)), "learning_rate": 1e-3,
                "mean_token_accuracy": max(0.0, min(1.0, 0.9 - 0.25 * loss + draw.gauss(0, 0.03))), "entropy": loss}
    return at


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.5])
def test_healthy_runs_stay_quiet(noise):
    false = [(code, seed) for seed in range(40) for code in codes(healthy(seed, noise))]
    assert len(false) <= 1, false  # of forty runs


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_a_long_run_that_has_converged_stays_quiet(noise):
    doctor = Doctor(recipe(), total=1500)
    assert codes(healthy(3, noise), total=1500, doctor=doctor) == []
    assert len(doctor.curves["loss"].points) < 600


def healthy_dpo(seed):
    def at(step):
        draw, grown = random.Random(seed * 31 + step), 1 - math.exp(-step / 30)
        return {"loss": 0.69 - 0.4 * grown + draw.gauss(0, 0.05), "grad_norm": 3 + draw.random(), "entropy": 1.5,
                "rewards/chosen": 0.3 * grown + draw.gauss(0, 0.1), "rewards/rejected": -0.9 * grown + draw.gauss(0, 0.1),
                "rewards/margins": 1.2 * grown + draw.gauss(0, 0.1),
                "rewards/accuracies": min(1, 0.5 + 0.4 * grown + draw.gauss(0, 0.08))}
    return at


def healthy_grpo(seed):
    def at(step):
        draw, grown = random.Random(seed * 17 + step), 1 - math.exp(-step / 40)
        return {"loss": draw.gauss(0, 0.05), "grad_norm": abs(draw.gauss(0.5, 0.3)), "reward": grown + draw.gauss(0, 0.1),
                "reward_std": 0.4, "entropy": 1.2 - 0.6 * grown, "kl": 0.02 * grown + abs(draw.gauss(0, 0.004)),
                "completions/mean_length": 60 - 20 * grown + draw.gauss(0, 4), "completions/clipped_ratio": 0.1,
                "frac_reward_zero_std": min(1.0, 0.3 + 0.4 * grown + draw.gauss(0, 0.1))}
    return at


def test_healthy_alignment_stays_quiet():
    assert [c for seed in range(20) for c in codes(healthy_dpo(seed), "align", "dpo")] == []
    assert [c for seed in range(20) for c in codes(healthy_grpo(seed), "align", "grpo")] == []


def over(base, start, **more):
    """``base`` with other values from step ``start`` on; a value may be a function of (steps since, the value there was)."""
    def at(step):
        logs = base(step)
        if step < start:
            return logs
        return logs | {k.replace("__", "/"): v(step - start, logs.get(k.replace("__", "/"))) if callable(v) else v
                       for k, v in more.items()}
    return at


SICK = {
    "not-a-number": (over(healthy(1, 0.1), 40, loss=math.nan), "sft", "lora"),
    "loss-spike": (over(healthy(1, 0.1), 60, loss=lambda n, v: v + 6 if n < 2 else v), "sft", "lora"),
    "divergence": (over(healthy(1, 0.1), 50, loss=lambda n, v: v + 0.12 * n), "sft", "full"),
    "exploding-gradients": (over(healthy(1, 0.1), 50, grad_norm=lambda n, v: v * 1.3 ** n), "sft", "full"),
    "vanishing-gradients": (lambda step: {"loss": 3.0 + 0.01 * math.sin(step), "grad_norm": 10.0 ** (-step / 8)}, "sft", "full"),
    "no-gradient": (lambda step: {"loss": 3.0, "grad_norm": 0.0}, "sft", "lora"),
    "plateau": (lambda step: {"loss": 2.5 + random.Random(step).gauss(0, 0.04), "grad_norm": 1.0}, "sft", "lora"),
    "accuracy-stuck": (over(healthy_dpo(1), 0, rewards__accuracies=lambda n, v: 0.5 + random.Random(n).gauss(0, 0.05)),
                       "align", "dpo"),
    "both-fall": (over(healthy_dpo(1), 0, rewards__chosen=lambda n, v: -0.08 * n, rewards__rejected=lambda n, v: -0.12 * n,
                       rewards__margins=lambda n, v: 0.04 * n), "align", "dpo"),
    "length-hacking": (over(healthy_grpo(1), 0, completions__mean_length=lambda n, v: 40 + 1.5 * n,
                            reward=lambda n, v: 0.02 * n), "align", "grpo"),
    "kl-blow-up": (over(healthy_grpo(1), 50, kl=lambda n, v: 0.05 * 1.4 ** n), "align", "grpo"),
    "entropy-collapse": (over(healthy_grpo(1), 40, entropy=lambda n, v: 0.8 * 0.8 ** n), "align", "grpo"),
    "equal-rewards": (over(healthy_grpo(1), 20, frac_reward_zero_std=0.97), "align", "grpo"),
    "answers-cut": (over(healthy_grpo(1), 10, completions__clipped_ratio=1.0), "align", "grpo"),
}


@pytest.mark.parametrize("code", SICK)
def test_each_trouble_is_found_once(code):
    series, kind, method = SICK[code]
    found = codes(series, kind, method)
    assert found.count(code) == 1, found
    doctor = Doctor(recipe(kind, method), total=STEPS, told=[code])  # a resumed run says nothing twice
    assert code not in codes(series, kind, method, doctor=doctor)


def test_overfitting_needs_a_rising_validation_and_a_falling_training_loss():
    def run(evals, losses):
        doctor = Doctor(recipe(), total=100)
        found = []
        for n, (held, loss) in enumerate(zip(evals, losses, strict=True)):
            for step in range(10 * n, 10 * n + 10):
                found += doctor.feed(step, {"loss": loss})
            found += doctor.feed(10 * n + 10, {"eval_loss": held})
        return [f.code for f in found if f.code == "overfitting"]

    assert run([2.0, 1.5, 1.3, 1.4, 1.5, 1.7], [2.0, 1.4, 1.0, 0.7, 0.4, 0.2]) == ["overfitting"]
    assert run([2.0, 1.5, 1.3, 1.31, 1.3, 1.31], [2.0, 1.4, 1.0, 0.9, 0.85, 0.8]) == []  # flat, not rising
    assert run([2.0, 1.5, 1.3, 1.4, 1.5, 1.7], [2.0, 1.4, 1.0, 1.2, 1.5, 2.0]) == []  # both rise: something else
    assert run([2.0, 1.5, 1.3, 1.5, 1.25, 1.2], [2.0, 1.4, 1.0, 0.7, 0.6, 0.5]) == []  # one bad validation


def test_runaways_are_those_after_which_nothing_good_comes():
    doctor = Doctor(recipe(), total=10)
    assert doctor.feed(1, {"loss": math.inf})[0].runaway
    assert not Doctor(recipe(rate=0.9), 2_600_000).start()[0].runaway


@pytest.mark.parametrize(("kind", "method", "parameters", "rate", "code"), [
    ("sft", "lora", 2_600_000, 3e-3, None), ("sft", "full", 2_600_000, 1e-3, None), ("sft", "full", 7e9, 2e-5, None),
    ("sft", "lora", 7e9, 2e-4, None), ("align", "dpo", 2_600_000, 1e-3, None), ("align", "grpo", 7e9, 1e-6, None),
    ("pretrain", "scratch", 3e6, 3e-3, None), ("sft", "prompt_tuning", 7e9, 0.3, None),
    ("sft", "full", 7e9, 1e-3, "learning-rate-high"), ("sft", "full", 2_600_000, 1e-5, "learning-rate-low"),
    ("sft", "lora", 2_600_000, 0.3, "learning-rate-high"), ("align", "dpo", 7e9, 1e-3, "learning-rate-high"),
    ("sft", "full", None, 0.5, None)])
def test_a_learning_rate_far_from_the_usual(kind, method, parameters, rate, code):
    assert [f.code for f in Doctor(recipe(kind, method, rate), parameters).start()] == ([code] if code else [])


def test_defaults_suit_the_starter_and_presets_some_model():
    from studio import api, registry
    from studio.recipe import parse

    def unusual(values, *sizes):
        chosen = parse(values)
        usual = [usual_rates(chosen, size) for size in sizes] if hasattr(chosen, "learning_rate") else []
        return all(usual) and bool(usual) and not any(low <= chosen.learning_rate <= high for low, high in usual)

    for family in ("sft", "pretrain", "align"):
        if family in registry.FAMILIES:
            for name in registry.FAMILIES[family]:
                assert not unusual({"kind": family, "method": name}, 2_600_000), name
            for preset in api.presets(family):
                assert not unusual(preset["values"], 2_600_000, 3e8, 1e9, 7e9), preset["name"]
