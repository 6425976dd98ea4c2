"""What the methods share that let the model write and judge what it wrote: fields, refusals, counting. No torch."""

from __future__ import annotations

import importlib.util
import math
from typing import Any, ClassVar

from studio.aligners.base import AlignMethod
from studio.aligners.common import AlignRecipe
from studio.errors import StudioError
from studio.method import Estimate
from studio.recipe import Recipe, field

GRPO = "trl.GRPOConfig"
# A token that is written costs as much time as this many that are learned from (GRPO, starter, 32 answers of 48).
WRITING = 2.2


def has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


class SampleFields(Recipe):
    """How the model draws its answers."""

    max_completion_length: int = field(
        48, "Longest answer", "The model writes at most this many tokens. Writing takes most of the time: as short as "
        "the task allows. 48 suits the starter; 256 to 4096 is usual for large models that reason.", group="method",
        library=GRPO, unit="tokens", ge=1, le=131072)
    temperature: float = field(
        1.0, "Temperature", "How freely words are drawn. Lower makes the answers alike, so that there is nothing to "
        "choose between; 0.7 to 1.2 is usual.", group="method", library=GRPO, gt=0, le=5)
    top_p: float = field(
        1.0, "Top p", "Only the likeliest words that together make up this share are drawn. 1 = all, which is what the "
        "method assumes; a little less keeps nonsense out.", group="method", library=GRPO, gt=0, le=1)
    top_k: int = field(
        0, "Top k", "Only this many of the likeliest words are drawn; 0 = all. Lower is safer and explores less.",
        group="method", library=GRPO, ge=0, le=1_000_000)
    min_p: float | None = field(
        None, "Min p", "Words less likely than this share of the likeliest are not drawn; 0.01 to 0.2 is usual. Left "
        "empty, it is off.", group="advanced", library=GRPO, ge=0, le=1)
    repetition_penalty: float = field(
        1.0, "Repetition penalty", "Above 1, words that were written already are less likely. 1 = off, which keeps "
        "what is drawn and what is learned the same.", group="advanced", library=GRPO, gt=0, le=5)
    use_vllm: bool = field(
        False, "Write with vLLM", "The answers are drawn by vLLM, many times faster for large models on a GPU. Off: by "
        "the model itself.", group="method", library=GRPO, shown="studio.aligners.online:has_vllm")


class RewardFields(Recipe):
    """What makes an answer a good one."""

    rewards: list[dict[str, Any]] = field(
        [], "Rewards", "Functions that score each answer; their weighted sum is what the model learns to raise. Try "
        "them on a few samples before the start.", widget="rewards", max_length=20)
    load_best_model_at_end: bool = field(
        True, "Keep the best", "On: the checkpoint whose answers to the validation prompts earned the most becomes the "
        "result. Off: the last one.", group="watch", library=GRPO)


class GroupFields(RewardFields, SampleFields):
    """Learning from several answers to the same prompt, compared with each other."""

    num_generations: int = field(
        8, "Answers a prompt", "How many answers to each prompt are compared. More finds a good one more often and "
        "costs as much more time; 4 to 16 is usual.", group="method", library=GRPO, ge=2, le=1024)
    steps_per_generation: int = field(
        0, "Steps a generation", "The answers drawn at once are enough for this many batches. More writes in larger, "
        "faster portions, and the model learns from answers that are a little old. 0 = as many as the gradient "
        "accumulation.",
        group="method", library=GRPO, ge=0, le=1024)
    num_iterations: int = field(
        1, "Passes over the answers", "How often each answer is learned from before new ones are drawn. More saves "
        "writing; above 4 the clipping below holds most of it back.", group="method", library=GRPO, ge=1, le=64)
    epsilon: float = field(
        0.2, "Clipping (epsilon)", "How far the likelihood of an answer may move before it is no longer pushed. "
        "Smaller is calmer and slower.", group="method", library=GRPO, gt=0, le=10)
    epsilon_high: float | None = field(
        None, "Clipping upwards", "The same for answers that become likelier: above epsilon it keeps the model "
        "exploring (0.28 in DAPO). Left empty, it is the same.", group="method", library=GRPO, gt=0, le=100)
    mask_truncated_completions: bool = field(
        False, "Leave out cut answers", "On: answers that did not end within the longest length are not learned from. "
        "Off: they count with the reward they got, usually none.", group="method", library=GRPO)
    per_device_train_batch_size: int = field(
        16, "Batch size", "Answers that a step looks at together; a multiple of the answers a prompt. More is steadier "
        "and needs more memory.", group="training", library=GRPO, ge=1, le=4096)
    num_train_epochs: float = field(
        1.0, "Epochs", "How often each prompt is answered. 1 to 3 is usual; the answers are new each time.",
        group="training",
        library=GRPO, gt=0, le=1000)


class GroupRecipe(GroupFields, AlignRecipe):
    """Fields of GRPO and RLOO."""


def per_generation(recipe: Any) -> int:
    """Answers that are drawn at once."""
    return recipe.per_device_train_batch_size * recipe.num_processes * drawn_steps(recipe)


def drawn_steps(recipe: Any) -> int:
    """Batches that the answers drawn at once are enough for."""
    return recipe.steps_per_generation or recipe.gradient_accumulation_steps


def check_groups(recipe: Any) -> None:
    """Refuse a batch that would tear a group of answers apart, naming the nearest that do not.

    Raises:
        StudioError: in the field ``per_device_train_batch_size``.
    """
    drawn, group = per_generation(recipe), recipe.num_generations
    if drawn % group == 0:
        return
    step = group // math.gcd(group, recipe.num_processes * drawn_steps(recipe))
    below = recipe.per_device_train_batch_size // step * step
    near = " or ".join(str(size) for size in (below, below + step) if size)
    raise StudioError(f"{drawn} answers are drawn at once; that is no multiple of the {group} answers a prompt.",
                      f"Set the batch size to {near}, or change 'Answers a prompt'.", "per_device_train_batch_size")


class OnlineMethod(AlignMethod):
    """A method in which the model writes while it learns.

    Attributes:
        new_tokens: The recipe's field for the longest answer.
        written: Answers that are written for each sample that is learned from.
    """

    shape = "prompts"
    new_tokens: ClassVar[str] = "max_completion_length"
    written: ClassVar[float] = 1.0

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio import rewards
        from studio.library import refs

        if "rewards" in type(recipe).model_fields:
            rewards.check(recipe.rewards)
        super().check(recipe)
        if getattr(recipe, "use_vllm", False) and not has_vllm():
            raise StudioError("vLLM is not installed on this machine.", "Turn it off: the model then writes by itself.",
                              "use_vllm")
        longest, room = getattr(recipe, cls.new_tokens), context_of(refs.resolve_model(recipe.model))
        if room and longest >= room:
            raise StudioError(f"Answers of {longest} tokens leave no room for a prompt: the model reads {room} in all.",
                              f"Set 'Longest answer' to {room // 2} or less.", cls.new_tokens)

    @classmethod
    def fitting(cls, recipe: Any, ctx: Any, tokenizer: Any, rows: list[dict]) -> list[dict]:
        """Rows whose prompt leaves room for the longest answer; says how many do not.

        Raises:
            StudioError: none does (``max_completion_length``).
        """
        from studio.library import refs

        room = context_of(refs.resolve_model(recipe.model))
        if not room or not rows:
            return rows
        room -= getattr(recipe, cls.new_tokens)
        kept = [row for row in rows if _tokens(tokenizer, prompt_of(row)) <= room]
        if not kept:
            raise StudioError(f"Every prompt is longer than the {room} tokens that answers leave of the model's "
                              f"context.",
                              "Shorten 'Longest answer', or choose shorter prompts.", cls.new_tokens)
        if len(kept) < len(rows):
            ctx.warning("prompts_too_long", f"{len(rows) - len(kept)} of {len(rows)} prompts are left out: they are "
                        f"longer than {room} tokens, so that no whole answer would fit.",
                        "Shorten 'Longest answer', or choose a model with a longer context.")
        return kept

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        """As for plain training on samples of a prompt and the longest answer, with the writing besides."""
        from types import SimpleNamespace

        longest = getattr(recipe, "max_length", None) or 2 * getattr(recipe, cls.new_tokens)
        made = super().estimate(SimpleNamespace(**recipe.model_dump() | {"max_length": longest}))
        if made.steps and (steps := cls.planned(recipe)):
            if made.seconds is not None:
                made.seconds *= steps / made.steps * (1 + WRITING * cls.written / cls.forwards)
            made.steps = steps
        if made.seconds is not None:
            made.notes.append("The model writes its own answers: the time depends on how long they become.")
        return made

    @classmethod
    def planned(cls, recipe: Any) -> int | None:
        """Steps, as far as the data tell before the start."""
        from studio.trainers import plan

        rows, _ = plan._measure(recipe)
        own = recipe.eval_dataset or not recipe.eval_share
        return cls.steps(recipe, rows if own else rows - round(rows * recipe.eval_share)) if rows else None


    @classmethod
    def script(cls, recipe: Any) -> str:
        raise StudioError(f"{cls.title} has no script to copy.", "GRPO, RLOO and the methods on pairs have one.",
                          "method")


class RewardMethod(OnlineMethod):
    """A method that learns from the scores of reward functions."""

    @classmethod
    def parts(cls, recipe: Any, ctx: Any, tokenizer: Any) -> dict[str, Any]:
        from studio import rewards
        from studio.aligners.rollouts import Heard

        return {"reward_funcs": [Heard(function) for function in rewards.build(recipe.rewards, ctx, recipe)]}

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        from studio import rewards

        return super().settings(recipe) | {"reward_weights": rewards.weights(recipe.rewards), "disable_dropout": True}

    @classmethod
    def end(cls, trainer: Any) -> None:
        from studio import rewards

        rewards.close(trainer.reward_funcs)

    @classmethod
    def outcome(cls, recipe: Any, trainer: Any) -> dict[str, Any]:
        """The mean reward of answers to the validation prompts, before and after; of the training without them."""
        points = [(h["step"], h["eval_reward"]) for h in trainer.state.log_history if "eval_reward" in h]
        seen = [h[name] for h in trainer.state.log_history for name in ("reward", "objective/scores") if name in h]
        made: dict[str, Any] = {"train_reward_first": seen[0], "train_reward": seen[-1]} if seen else {}
        if points:
            best = dict(points).get(trainer.memory["best_step"]) if trainer.pick_best else None
            made |= {"eval_reward_before": points[0][1], "eval_reward": points[-1][1] if best is None else best}
        return made


class GroupMethod(RewardMethod):
    """GRPO and RLOO."""

    arguments = ("num_generations", "num_iterations", "max_completion_length", "temperature", "top_p", "top_k", "min_p",
                 "repetition_penalty", "epsilon", "epsilon_high", "beta", "mask_truncated_completions", "use_vllm")
    forwards = 1.5  # likelihoods of the answers as they were drawn, and of the reference
    eval_generations: ClassVar[int] = 1

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.trainers import plan

        check_groups(recipe)
        super().check(recipe)
        if recipe.extra.get("sync_ref_model"):
            raise StudioError("A reference that follows the model is not kept in checkpoints, so that a stopped run "
                              "could not go on as it was.", "Leave sync_ref_model out.", "extra")
        rows, _ = plan._measure(recipe)
        if rows is not None:
            enough(recipe, rows)

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        group = cls.eval_generations
        held = math.ceil(recipe.per_device_train_batch_size / group) * group
        return super().settings(recipe) | {"steps_per_generation": drawn_steps(recipe), "num_generations_eval": group,
                                           "per_device_eval_batch_size": held}

    @classmethod
    def steps(cls, recipe: Any, samples: int) -> int:
        """Optimiser steps, as the trainer's sampler makes them: whole generations only."""
        if recipe.max_steps > 0:
            return recipe.max_steps
        enough(recipe, samples)
        drawn = samples * recipe.num_generations // per_generation(recipe)
        batches = drawn * drawn_steps(recipe) * recipe.num_iterations
        return max(1, math.ceil(recipe.num_train_epochs * math.ceil(batches / recipe.gradient_accumulation_steps)))

    @classmethod
    def script(cls, recipe: Any) -> str:
        from studio.aligners import script_rl

        return script_rl.write(cls, recipe)

    @classmethod
    def wrap(cls, trainer: type) -> type:
        from studio.aligners.rollouts import Groups

        return Groups.around(trainer)


def enough(recipe: Any, rows: int) -> None:
    """Refuse fewer prompts than one generation takes.

    Raises:
        StudioError: in the field ``per_device_train_batch_size``.
    """
    prompts = per_generation(recipe) // recipe.num_generations
    if rows < prompts:
        raise StudioError(f"{prompts} prompts are answered at once, and there are {rows}.", "Lower the batch size or "
                          "the steps a generation, or take more data.", "per_device_train_batch_size")


def context_of(model: Any) -> int | None:
    """Tokens that a model reads at most; of an adapter its base's."""
    from studio.library import refs

    base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
    return base.meta.get("context")


def prompt_of(row: dict[str, Any]) -> Any:
    """What the model is given of a row: its prompt, or all of a chat but the last answer."""
    if "prompt" in row:
        return row["prompt"]
    turns = row["messages"]
    return turns[:-1] if turns[-1].get("role") == "assistant" else turns


def _tokens(tokenizer: Any, prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True,
                                             return_dict=True)["input_ids"])
