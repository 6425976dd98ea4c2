"""Online DPO: two answers to each prompt are drawn while it learns, the better one is raised. Guo et al. 2024."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.aligners.common import AlignRecipe, rate
from studio.aligners.online import RewardFields, RewardMethod, context_of
from studio.recipe import field

ONLINE_DPO = "trl.experimental.online_dpo.OnlineDPOConfig"


class OnlineDpoRecipe(RewardFields, AlignRecipe):
    """Fields of an Online DPO run."""

    method: ClassVar[str] = "online_dpo"
    config: ClassVar[str] = ONLINE_DPO

    learning_rate: float = rate(5e-4, "5e-7 to 5e-6 (LoRA: ten times that)")
    num_train_epochs: float = field(
        1.0, "Epochs", "How often each prompt is answered. 1 to 3 is usual; the answers are new each time.",
        group="training",
        library=ONLINE_DPO, gt=0, le=1000)
    per_device_train_batch_size: int = field(
        8, "Batch size", "Prompts that a step looks at together; each gets two answers. More is steadier and needs "
        "more memory.",
        group="training", library=ONLINE_DPO, ge=1, le=4096)
    beta: float = field(
        0.1, "Beta", "How strongly the model is held to what it was. Higher changes less; 0.1 is usual.",
        group="method",
        library=ONLINE_DPO, gt=0, le=10)
    loss_type: Literal["sigmoid", "ipo"] = field(
        "sigmoid", "Loss", "How the better answer is raised above the worse one. IPO stops at a fixed distance, for "
        "rewards that are always sure.", group="method", library=ONLINE_DPO, choices={"sigmoid": "Sigmoid: as in DPO",
                                                                                      "ipo": "IPO"})
    max_new_tokens: int = field(
        48, "Longest answer", "The model writes at most this many tokens. Writing takes most of the time: as short as "
        "the task allows. 48 suits the starter; 128 to 1024 is usual for large models.", group="method",
        library=ONLINE_DPO,
        unit="tokens", ge=1, le=131072)
    temperature: float = field(
        0.9, "Temperature", "How freely words are drawn. Lower makes the two answers alike, so that there is nothing "
        "to choose between.", group="method", library=ONLINE_DPO, gt=0, le=5)
    top_p: float = field(
        1.0, "Top p", "Only the likeliest words that together make up this share are drawn; 1 = all. A little less "
        "keeps nonsense out.", group="method", library=ONLINE_DPO, gt=0, le=1)
    top_k: int = field(
        0, "Top k", "Only this many of the likeliest words are drawn; 0 = all. Lower is safer and explores less.",
        group="method", library=ONLINE_DPO, ge=0, le=1_000_000)
    missing_eos_penalty: float | None = field(
        None, "Penalty for no end", "Taken off the reward of an answer that does not end within the longest length. "
        "Left empty, nothing is.", group="method", library=ONLINE_DPO, gt=0, le=1000)


class OnlineDpo(RewardMethod):
    """Online direct preference optimization."""

    title = "Online DPO"
    summary = "DPO on answers of its own: two are drawn for each prompt, rewards or a judge say which is better."
    paper = "https://arxiv.org/abs/2402.04792"
    Recipe = OnlineDpoRecipe
    trainer = "trl.experimental.online_dpo.OnlineDPOTrainer"
    arguments = ("beta", "loss_type", "max_new_tokens", "temperature", "top_p", "top_k", "missing_eos_penalty")
    new_tokens = "max_new_tokens"
    written = 2.0
    forwards = 2.7

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        from studio.library import refs

        # prompts that would be cut were left out before
        room = context_of(refs.resolve_model(recipe.model)) or 1 << 20
        return super().settings(recipe) | {"max_length": room}

    @classmethod
    def wrap(cls, trainer: type) -> type:
        from studio.aligners.rollouts import Pairs

        return Pairs.around(trainer)
