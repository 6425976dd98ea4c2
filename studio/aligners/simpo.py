"""SimPO: the mean likelihood of an answer is its reward, and a margin is asked for. Meng, Xia and Chen 2024."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.aligners.common import PreferenceRecipe, epochs, rate
from studio.aligners.unreferenced import Unreferenced
from studio.errors import StudioError
from studio.recipe import field

LIB = "trl.experimental.cpo.CPOConfig"


class SimpoRecipe(PreferenceRecipe):
    """Fields of a SimPO run."""

    method: ClassVar[str] = "simpo"
    config: ClassVar[str] = LIB

    learning_rate: float = rate(5e-4, "3e-7 to 1e-6 (LoRA: ten times that)")
    num_train_epochs: float = epochs()
    beta: float = field(
        2.0, "Beta", "How sharply the two answers are told apart. 2 to 2.5 is usual, 10 for some chat models.",
        group="method", library=LIB, gt=0, le=100)
    simpo_gamma: float = field(
        1.0, "Margin (gamma)", "How far the better answer has to stand above the worse one. Half of beta is usual "
        "(0.5 to 1.5); higher pushes harder.", group="method", library=LIB, ge=0, le=100)
    loss_type: Literal["simpo", "alphapo"] = field(
        "simpo", "Loss", "AlphaPO bends the reward so that likely answers are pushed less (arXiv 2501.03884).",
        group="method", library=LIB, choices={"simpo": "SimPO", "alphapo": "AlphaPO"})
    alpha: float = field(
        0.25, "Bend (alpha)", "Shape of AlphaPO's reward; 0.25 is the paper's, 0 would be SimPO.", group="method",
        library=LIB, when={"loss_type": ["alphapo"]}, ge=-10, le=10)
    cpo_alpha: float = field(
        0.0, "Imitation", "How much plain imitation of the better answer counts beside it (CPO-SimPO). 0 is SimPO; "
        "0.1 to 1 keeps the answers from falling apart.", group="method", library=LIB, when={"loss_type": ["simpo"]},
        ge=0, le=100)


class Simpo(Unreferenced):
    """Simple preference optimization."""

    title = "SimPO"
    summary = "Pairs without a reference model or a liking for long answers: fast, but it can drift; watch the samples."
    paper = "https://arxiv.org/abs/2405.14734"
    Recipe = SimpoRecipe
    trainer = "trl.experimental.cpo.CPOTrainer"
    arguments = ("beta", "max_length", "loss_type", "simpo_gamma")

    @classmethod
    def settings(cls, recipe: SimpoRecipe) -> dict[str, Any]:
        bent = recipe.loss_type == "alphapo"  # TRL takes alpha with any loss, and sets cpo_alpha to 0 with this one
        return super().settings(recipe) | {"alpha": recipe.alpha if bent else 0.0,
                                           "cpo_alpha": 0.0 if bent else recipe.cpo_alpha}

    @classmethod
    def check(cls, recipe: SimpoRecipe) -> None:
        if recipe.loss_type == "alphapo" and recipe.alpha == 0:
            raise StudioError("AlphaPO with a bend of 0 is SimPO.", "Set it to 0.25, or choose SimPO.", "alpha")
        super().check(recipe)
