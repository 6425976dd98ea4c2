"""The training doctor: looks at the logged numbers and says in plain words what goes wrong. No torch here.

Each detector compares parts of a curve with its own noise, so that a healthy but jumpy run stays quiet; whatever is found is
told once. The thresholds were set on healthy runs of the tests and on synthetic curves (``tests/unit/test_training_doctor.py``).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

KEPT = 512  # points of a curve; beyond that neighbours are averaged, so that each detector sees the whole of it
LEVEL = 10  # values whose median is a level
RUNAWAY = {"not-a-number", "divergence", "kl-blow-up", "entropy-collapse"}  # nothing good comes after these
REINFORCED = {"grpo", "rloo", "online_dpo", "ppo"}  # their loss says nothing about how well it goes


class Finding(NamedTuple):
    """What was noticed. ``code`` is stable, for tests and docs."""

    code: str
    message: str
    hint: str

    @property
    def runaway(self) -> bool:
        return self.code in RUNAWAY


class Curve:
    """A logged value over the run: thinned as a whole, exact at its end."""

    def __init__(self) -> None:
        self.points: list[float] = []
        self.first: list[float] = []
        self.recent: deque[float] = deque(maxlen=24)
        self.count = 0
        self.best = math.inf  # the lowest level it has held over LEVEL values
        self._merged, self._open = 1, []  # how many values one point stands for

    def add(self, value: float) -> None:
        self.count += 1
        self.recent.append(value)
        if len(self.first) < 10:
            self.first.append(value)
        if self.count % 5 == 0 and self.count >= LEVEL:
            self.best = min(self.best, statistics.median(self.last(LEVEL)))
        self._open.append(value)
        if len(self._open) < self._merged:
            return
        self.points.append(statistics.fmean(self._open))
        self._open = []
        if len(self.points) >= KEPT:
            self.points = [(a + b) / 2 for a, b in zip(self.points[::2], self.points[1::2], strict=True)]
            self._merged *= 2

    def thirds(self) -> tuple[float, float, float]:
        """(mean of the first third, mean of the last third, standard error of their difference)."""
        part = max(1, len(self.points) // 3)
        first, last = self.points[:part], self.points[-part:]
        return statistics.fmean(first), statistics.fmean(last), self.noise() * math.sqrt(2 / part)

    def noise(self) -> float:
        """Spread of a point around its neighbours: a trend is no noise."""
        steps = [abs(b - a) for a, b in zip(self.points, self.points[1:], strict=False)]
        return 1.4826 * statistics.median(steps) / math.sqrt(2) if steps else 0.0

    def last(self, count: int) -> list[float]:
        return list(self.recent)[-count:]


class Doctor:
    """Feed it what a trainer logs.

    Args:
        recipe: The run's recipe.
        parameters: Weights of the model, where known.
        total: Optimiser steps of the whole run.
        told: Codes of what was said before, by an earlier attempt.
    """

    def __init__(self, recipe: Any, parameters: int | None = None, total: int = 0, told: Iterable[str] = ()):
        self.recipe, self.parameters, self.total = recipe, parameters, total
        self.method = str(recipe.method)
        self.told = set(told)
        self.curves: dict[str, Curve] = {}
        self.evals: list[tuple[float, float | None]] = []  # (validation loss, training loss then)
        self.step = 0

    def start(self) -> list[Finding]:
        """What can be said before the first step."""
        return self._new(self._rate())

    def feed(self, step: int, logs: dict[str, Any]) -> list[Finding]:
        """What the numbers of one logging step show for the first time."""
        self.step = step
        odd = []
        for name, value in logs.items():
            if not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                odd.append(name)
                continue
            self.curves.setdefault(name, Curve()).add(float(value))
        if "eval_loss" in logs and "eval_loss" not in odd:
            loss = self.curves.get("loss")
            self.evals.append((float(logs["eval_loss"]), statistics.median(loss.last(5)) if loss else None))
            return self._new([*self._odd(odd), *self._overfit()])
        return self._new([*self._odd(odd), *self._spike(), *self._diverged(), *self._gradients(), *self._plateau(),
                          *self._chance(), *self._aligned()])

    def _new(self, found: Iterable[Finding]) -> list[Finding]:
        fresh = [finding for finding in found if finding.code not in self.told]
        self.told |= {finding.code for finding in fresh}
        return fresh

    def _curve(self, name: str, least: int) -> Curve | None:
        found = self.curves.get(name)
        return found if found is not None and found.count >= least else None

    @property
    def _share(self) -> float:
        return self.step / self.total if self.total else 0.0

    # -- any training --------------------------------------------------------------------------------------------------

    def _odd(self, names: list[str]) -> Iterator[Finding]:
        if seen := [name for name in names if name in ("loss", "eval_loss", "grad_norm")]:
            what = {"loss": "loss", "eval_loss": "validation loss", "grad_norm": "gradient"}[seen[0]]
            yield Finding("not-a-number", f"The {what} is no number any more at step {self.step}.",
                          "Lower the learning rate, turn on gradient clipping, or turn bfloat16 off; then resume from an "
                          "earlier checkpoint.")

    def _spike(self) -> Iterator[Finding]:
        loss = self._curve("loss", 18)
        if loss is None or self.method in REINFORCED:
            return
        *before, last, now = loss.recent
        if min(before) <= 0:
            return
        # By factors, not differences: the losses of small batches vary by a share of themselves, some by a large one.
        middle, spread = statistics.median(before), _spread([math.log(value) for value in before])
        high = max(middle * math.exp(max(5.5 * spread, math.log(1.5))), middle + 0.3)
        far = max(middle * math.exp(max(10 * spread, math.log(3))), middle + 1)
        if min(last, now) > high or now > far:
            yield Finding("loss-spike", f"The loss jumped from about {middle:.3g} to {now:.3g} at step {self.step}.",
                          "Once is often one odd batch. If it comes back, lower the learning rate, warm up longer, or look for odd "
                          "rows in the data.")

    def _diverged(self) -> Iterator[Finding]:
        loss = self._curve("loss", 20)
        if loss is None or self.method in REINFORCED:
            return
        now, best = statistics.median(loss.last(LEVEL)), loss.best
        noise = 1.25 * max(loss.noise(), _spread(loss.last(LEVEL))) / math.sqrt(LEVEL)
        if now > best + max(0.5, 0.5 * abs(best), 8 * noise) and min(loss.last(3)) > best:
            yield Finding("divergence", f"The loss has risen to about {now:.3g}, after it had been at {best:.3g}: the training "
                          "runs away.", "Stop, lower the learning rate to a third, and start again or resume from the best "
                          "checkpoint.")

    def _gradients(self) -> Iterator[Finding]:
        norm, loss = self._curve("grad_norm", 15), self.curves.get("loss")
        if norm is None:
            return
        first, now = statistics.median(norm.first), statistics.median(norm.last(5))
        if now > max(50.0, 30 * first):
            yield Finding("exploding-gradients", f"The gradient is {now / max(first, 1e-12):.0f} times as large as at the start.",
                          "Lower the learning rate; keep gradient clipping on (1.0 is usual).")
        if self.method in REINFORCED or loss is None:
            return  # equal rewards give no gradient, and have a finding of their own
        if max(norm.last(5)) == 0:
            yield Finding("no-gradient", "The gradient is zero: no weight is being changed.",
                          "Check that something is learned from: the preview colours it; and that layers are chosen to be trained.")
        elif now < max(1e-4 * first, 1e-9) and statistics.median(loss.last(5)) > 0.5 * statistics.median(loss.first[:5]):
            yield Finding("vanishing-gradients", f"The gradient has shrunk to {now:.1g}, and the loss is still high.",
                          "Raise the learning rate, or choose another optimizer or schedule.")

    def _plateau(self) -> Iterator[Finding]:
        loss = self._curve("loss", 30)
        if loss is None or self.method in REINFORCED or not 0.4 <= self._share <= 1:
            return
        first, last, error = loss.thirds()
        still = 0.98 * first < last < 1.1 * first and statistics.median(loss.first) < 1.1 * last
        if first > 0.1 and still and error < 0.01 * first:
            yield Finding("plateau", f"The loss has hardly moved: {first:.3g} at first, {last:.3g} now.",
                          "Raise the learning rate (three times is a good next try), or check that the data hold something new to "
                          "this model.")

    def _overfit(self) -> Iterator[Finding]:
        if len(self.evals) < 5:
            return
        losses = [loss for loss, _ in self.evals]
        best = min(range(len(losses)), key=losses.__getitem__)
        after, then, now = losses[best + 1:], self.evals[best][1], self.evals[-1][1]
        rising = len(after) >= 3 and all(loss > losses[best] + max(0.02, 0.03 * abs(losses[best])) for loss in after[-3:])
        if rising and then is not None and now is not None and now < then:
            yield Finding("overfitting", f"The validation loss rises ({losses[best]:.3g} at best, {losses[-1]:.3g} now) while the "
                          "training loss falls: it learns the examples by heart.",
                          "'Keep the best' saves the right moment. Fewer epochs, a lower rank, some dropout or more data help; "
                          "'Stop early after' ends such runs.")

    def _chance(self) -> Iterator[Finding]:
        for name in ("rewards/accuracies", "accuracy"):
            curve = self._curve(name, 15)
            if curve is None or self._share < 0.4:
                continue
            _, last, error = curve.thirds()
            if abs(last - 0.5) < 0.04 and error < 0.04:
                yield Finding("accuracy-stuck", f"It tells the better answer from the worse no better than by chance ({last:.0%}).",
                              "Raise the learning rate, or check that the pairs are the right way round and really differ.")
        accuracy, loss = self._curve("mean_token_accuracy", 30), self._curve("loss", 30)
        if accuracy is not None and loss is not None and self._share >= 0.4 and self.method not in REINFORCED:
            first, last, error = accuracy.thirds()
            if last < first + 0.005 and last < 0.3 and error < 0.01:
                yield Finding("accuracy-stuck", f"The share of tokens it gets right stays at {last:.0%}.",
                              "Raise the learning rate, train longer, or check in the preview what it learns from.")

    def _rate(self) -> Iterator[Finding]:
        rate, usual = getattr(self.recipe, "learning_rate", None), usual_rates(self.recipe, self.parameters)
        if not rate or usual is None:
            return
        low, high = usual
        if low <= rate <= high:
            return
        much, way = ("high", "Too high, the loss jumps or old skills are lost") if rate > high else \
            ("low", "Too low, hardly anything is learned")
        yield Finding(f"learning-rate-{much}", f"The learning rate {rate:g} is unusually {much} for this method and a model of this "
                      f"size.", f"{way}. Usual is {low:.0e} to {high:.0e}.".replace("e-0", "e-"))

    # -- alignment -----------------------------------------------------------------------------------------------------

    def _aligned(self) -> Iterator[Finding]:
        yield from self._both_fall()
        yield from self._length_hacking()
        yield from self._far_from_base()
        yield from self._collapsed()
        for name, code, message, hint in (
                ("frac_reward_zero_std", "equal-rewards", "Nearly all answers to a question get the same reward, so nothing is "
                 "learned from them.", "Use easier or harder questions, a finer reward, more generations or a higher temperature."),
                ("completions/clipped_ratio", "answers-cut", "Nearly all answers are cut at the longest length before they end.",
                 "Raise the longest answer, or reward ending; a model that never learned its end token needs SFT first.")):
            curve = self._curve(name, 5)
            if curve is not None and statistics.fmean(curve.last(5)) > 0.9:
                yield Finding(code, message, hint)

    def _both_fall(self) -> Iterator[Finding]:
        margin, chosen, rejected = (self._curve(f"rewards/{name}", 12) for name in ("margins", "chosen", "rejected"))
        if margin is None or chosen is None or rejected is None:
            return
        (m0, m1, me), (c0, c1, ce), (r0, r1, re) = margin.thirds(), chosen.thirds(), rejected.thirds()
        if m1 > m0 + 3 * me and c0 - c1 > max(1.0, 3 * ce, 0.5 * (m1 - m0)) and r0 - r1 > 3 * re and c1 < 0:
            yield Finding("both-fall", "The margin rises, but the chosen answers become less likely too: the model moves away from "
                          "both.", "Lower the learning rate or raise beta, mix in some of the SFT loss, or "
                          "stop earlier.")

    def _length_hacking(self) -> Iterator[Finding]:
        reward, length = self._curve("reward", 12), self._curve("completions/mean_length", 12)
        if reward is None or length is None:
            return
        (r0, r1, re), (l0, l1, le) = reward.thirds(), length.thirds()
        if r1 > r0 + 3 * re and l1 > 1.5 * l0 + 3 * le and _together(reward.points, length.points) > 0.8:
            yield Finding("length-hacking", f"Reward and length rise together ({l0:.0f} to {l1:.0f} tokens): it may be rewarded for "
                          "talking.", "Add the length reward with a small weight, or read some roll-outs to see whether the longer "
                          "answers are better.")

    def _far_from_base(self) -> Iterator[Finding]:
        for name, most in (("kl", {"grpo": 1.0, "rloo": 10.0}.get(self.method, 50.0)), ("objective/kl", 50.0)):
            kl = self._curve(name, 8)
            if kl is None:
                continue
            first, now = statistics.median(kl.points[:max(3, len(kl.points) // 3)]), min(kl.last(3))
            if now > max(most, 10 * abs(first)):
                yield Finding("kl-blow-up", f"The model has moved far from where it began (KL {now:.3g}).",
                              "Raise beta, lower the learning rate, and go back to an earlier checkpoint: what it says now is often "
                              "no language any more.")

    def _collapsed(self) -> Iterator[Finding]:
        if self.method not in REINFORCED:
            return  # everywhere else a falling entropy is learning
        for name in ("entropy", "objective/entropy"):
            entropy = self._curve(name, 8)
            if entropy is None:
                continue
            first, now = statistics.median(entropy.first[:5]), max(entropy.last(3))
            if first > 0.05 and now < 0.1 * first and now < 0.1:
                yield Finding("entropy-collapse", "It says nearly the same every time (entropy has collapsed), so there is nothing "
                              "left to choose from.", "Raise the temperature or beta, lower the learning rate, and go back to an "
                              "earlier checkpoint.")


# Usual learning rates by size of the model: (up to so many weights, lowest, highest), wide on purpose. Small models bear more.
_FULL = ((5e7, 5e-5, 1e-2), (5e8, 5e-6, 2e-3), (3e9, 1e-6, 3e-4), (math.inf, 5e-7, 1e-4))
_ADAPTER = ((5e7, 2e-4, 3e-2), (5e8, 5e-5, 1e-2), (3e9, 2e-5, 2e-3), (math.inf, 1e-5, 1e-3))
_ALIGN = ((5e7, 1e-6, 5e-3), (5e8, 3e-7, 1e-3), (3e9, 1e-7, 3e-4), (math.inf, 5e-8, 1e-4))
_PROMPT = ((math.inf, 1e-4, 1.0),)
_SCRATCH = ((5e7, 2e-4, 2e-2), (5e8, 5e-5, 3e-3), (math.inf, 1e-5, 1e-3))
_RATES = {"sft/full": _FULL, "sft/freeze": _FULL, "pretrain/continued": _FULL, "pretrain/scratch": _SCRATCH,
          "sft/prompt_tuning": _PROMPT, "sft/p_tuning": _PROMPT, "sft/prefix_tuning": _PROMPT, "sft/ia3": _PROMPT,
          "sft/vera": _PROMPT}


def usual_rates(recipe: Any, parameters: int | None) -> tuple[float, float] | None:
    """Lowest and highest usual learning rate for a method and a size; ``None`` where nobody knows the size."""
    if not parameters or getattr(recipe, "optim", "").startswith(("adafactor", "sgd", "muon", "lomo", "galore", "apollo")):
        return None  # other optimizers mean something else by it
    table = _RATES.get(f"{recipe.kind}/{recipe.method}") or (_ALIGN if recipe.kind == "align" else _ADAPTER)
    return next((low, high) for most, low, high in table if parameters <= most)


def _spread(values: list[float]) -> float:
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - middle) for value in values)


def _together(one: list[float], two: list[float]) -> float:
    """Correlation of two curves where both were logged."""
    count = min(len(one), len(two))
    try:
        return statistics.correlation(one[-count:], two[-count:])
    except statistics.StatisticsError:
        return 0.0  # one of them does not move
