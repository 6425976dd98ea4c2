"""Guided search: Optuna's tree-structured Parzen estimator. Bergstra et al. 2011; Akiba et al. 2019."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.recipe import field
from studio.sweeps.common import SweepRecipe
from studio.sweeps.random import Random


class BayesRecipe(SweepRecipe):
    """Fields of a guided search."""

    method: ClassVar[str] = "bayes"

    n_startup_trials: int = field(5, "Trials before the first verdict", "So many trials are drawn at random and run to "
                                  "their end before the search is guided and the median stops one. Higher looks "
                                  "around more.", library="optuna.samplers.TPESampler", ge=1, le=500)


class Bayes(Random):
    """Learns from the trials so far."""

    title = "Guided (Bayesian)"
    summary = "Learns from the trials so far where better settings lie: finds good ones with the fewest runs."
    paper = "https://arxiv.org/abs/1907.10902"
    Recipe = BayesRecipe

    @classmethod
    def sampler(cls, recipe: BayesRecipe, seed: int) -> Any:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, n_startup_trials=recipe.n_startup_trials)
