"""Settings drawn at random. Bergstra and Bengio 2012."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.sweeps import space as spaces
from studio.sweeps.common import Sweep, SweepRecipe

REDRAWS = 30  # tries for a setting that was not there yet


class RandomRecipe(SweepRecipe):
    """Fields of a random search."""

    method: ClassVar[str] = "random"


class Random(Sweep):
    """At random."""

    title = "Random"
    summary = "Draws settings at random: better than a grid where only a few of the varied settings matter."
    paper = "https://www.jmlr.org/papers/v13/bergstra12a.html"
    Recipe = RandomRecipe

    @classmethod
    def sampler(cls, recipe: RandomRecipe, seed: int) -> Any:
        """The sampler of Optuna that draws the next trial."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)

    @classmethod
    def suggest(cls, study: Any, recipe: RandomRecipe, axes: list[spaces.Axis], number: int,
                known: list[dict[str, Any]]) -> Any:
        from optuna.samplers import RandomSampler
        from optuna.trial import TrialState

        seed = (recipe.seed * 1009 + number) % 2**32
        distributions = {axis.field: axis.distribution() for axis in axes}
        study.sampler = cls.sampler(recipe, seed)
        for again in range(1, REDRAWS):  # the same setting twice would tell nothing new
            trial = study.ask(distributions)
            if trial.params not in known:
                return trial
            study.tell(trial, state=TrialState.FAIL)
            study.sampler = RandomSampler(seed=(seed + again * 7919) % 2**32)
        left = (values for values in spaces.combinations(axes, len(known) + 1) or [] if values not in known)
        if values := next(left, None):  # nearly all were drawn before: take one that was not
            study.enqueue_trial(values)
        return study.ask(distributions)
