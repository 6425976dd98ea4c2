"""PPO: the policy follows a reward model, with a value model that foresees its scores. Ziegler et al. 2019.

From TRL 1.12, the last release that has it, in an environment of its own (:mod:`studio.environments`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.aligners.common import AlignRecipe, rate
from studio.aligners.online import OnlineMethod
from studio.errors import StudioError
from studio.recipe import field

PPO = "trl.experimental.ppo.PPOConfig"  # of TRL 1.12


class PpoRecipe(AlignRecipe):
    """Fields of a PPO run, in the names of TRL 1.12."""

    method: ClassVar[str] = "ppo"

    reward_model: str = field(
        "", "Reward model", "The reward model that scores the answers; make one with the method 'Reward model'. A copy "
        "of it begins as the value model.", widget="model", max_length=1000)
    learning_rate: float = rate(3e-4, "1e-6 to 5e-6 (LoRA: ten times that)")
    total_episodes: int = field(
        0, "Episodes", "Answers that are drawn in the whole run; 0 = as the epochs say. More goes further.",
        group="method",
        ge=0, le=100_000_000)
    num_ppo_epochs: int = field(
        4, "Passes over the answers", "How often each batch of answers is learned from. Fewer is calmer.",
        group="method", ge=1,
        le=100)
    num_mini_batches: int = field(
        1, "Parts of a batch", "Into how many parts a batch of answers is split for learning. More parts make more, "
        "smaller steps.", group="method", ge=1, le=1024)
    response_length: int = field(
        48, "Longest answer", "The model writes this many tokens. 48 suits the starter; 128 to 1024 is usual for large "
        "models.",
        group="method", unit="tokens", ge=1, le=131072)
    temperature: float = field(
        0.7, "Temperature", "How freely words are drawn. Higher explores more.", group="method", gt=0, le=5)
    missing_eos_penalty: float | None = field(
        1.0, "Penalty for no end", "Taken off the score of an answer that does not end within its length. Left empty, "
        "nothing is.", group="method", gt=0, le=1000)
    kl_coef: float = field(
        0.05, "KL penalty", "Taken off for moving away from the model it was. Higher changes less.", group="method",
        ge=0, le=10)
    kl_estimator: Literal["k1", "k3"] = field(
        "k1", "KL estimate", "How the distance is estimated: the plain way, or one that scatters less.", group="method",
        choices={"k1": "k1: plain", "k3": "k3: scatters less"})
    cliprange: float = field(
        0.2, "Clipping", "How far the likelihood of an answer may move in a batch. Smaller is calmer and slower.",
        group="method", gt=0, le=10)
    vf_coef: float = field(
        0.1, "Weight of the value", "How much the value model's error counts. Higher foresees better and steers less.",
        group="method", ge=0, le=100)
    cliprange_value: float = field(
        0.2, "Clipping of the value", "How far a foreseen value may move in a batch. Smaller is calmer.",
        group="method", gt=0,
        le=100)
    gamma: float = field(
        1.0, "Discount (gamma)", "How much a later reward counts now. 1 = fully, which is usual for answers.",
        group="method",
        ge=0, le=1)
    lam: float = field(
        0.95, "Lambda", "Between trusting the value model (0) and what really came (1).", group="method", ge=0, le=1)
    whiten_rewards: bool = field(
        False, "Even out rewards", "Brings the rewards of a batch to the same spread. Calms rewards of very different "
        "size.",
        group="method")
    num_train_epochs: float = field(
        1.0, "Epochs", "How often each prompt is answered, where the episodes are left at 0. 1 to 3 is usual.",
        group="training", gt=0, le=1000)
    per_device_train_batch_size: int = field(
        8, "Batch size", "Answers that a step looks at together. More is steadier and needs more memory.",
        group="training",
        ge=1, le=4096)


class Ppo(OnlineMethod):
    """Proximal policy optimization."""

    title = "PPO"
    summary = "Follows a reward model, held back by the model it was. The classic; GRPO and RLOO need less."
    paper = "https://arxiv.org/abs/1909.08593"
    Recipe = PpoRecipe
    environment = "trl-1.12"
    trainer = "trl.experimental.ppo.PPOTrainer"
    new_tokens = "response_length"
    forwards = 6.0
    arguments = ("num_ppo_epochs", "num_mini_batches", "response_length", "temperature", "missing_eos_penalty",
                 "kl_coef",
                 "kl_estimator", "cliprange", "vf_coef", "cliprange_value", "gamma", "lam", "whiten_rewards")

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.library import refs

        if not recipe.reward_model:
            raise StudioError("There is no reward model.", "Make one with the method 'Reward model', and choose it "
                              "here.",
                              "reward_model")
        try:
            reward = refs.resolve_model(recipe.reward_model)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "reward_model") from err
        if not reward.meta.get("reward"):
            raise StudioError(f"{reward.label} writes; it gives no score.", "Choose a reward model.", "reward_model")
        super().check(recipe)
        if recipe.extra:
            raise StudioError("PPO has no further settings here.", "Leave the table empty.", "extra")
        if recipe.num_processes > 1 or recipe.strategy != "ddp":
            raise StudioError("PPO runs in one process here.", "Set 'Processes' to 1.", "num_processes")
        batch = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
        if batch % recipe.num_mini_batches:
            below = recipe.num_mini_batches * max(1, batch // recipe.num_mini_batches)
            raise StudioError(f"{batch} answers cannot be split into {recipe.num_mini_batches} equal parts.",
                              f"Use a batch size of {below} or {below + recipe.num_mini_batches}, or other parts.",
                              "num_mini_batches")

    @classmethod
    def steps(cls, recipe: Any, samples: int) -> int:
        batch = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
        if recipe.max_steps > 0:
            return recipe.max_steps
        return max(1, -(-(recipe.total_episodes or int(recipe.num_train_epochs * samples)) // batch))

    @classmethod
    def script(cls, recipe: Any) -> str:
        raise StudioError("PPO runs with another release of TRL than this script would be for.",
                          "Copy the script of RLOO or GRPO, which learn from the same reward model.", "method")

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        from studio.aligners import ppo_run

        return ppo_run.run(cls, recipe, ctx)
