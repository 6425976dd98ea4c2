"""Trainers that write while they learn: roll-outs a person can read, a stop that is heard while writing, and resumes
that are exact although answers are drawn for several steps at once.

Imports torch, so only worker-side code imports this module.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from studio.rewards.base import question_of, text_of
from studio.trainers.callbacks import same_randomness

SHOWN = 8  # roll-outs of a logged step that are told
LONGEST = 4000  # characters of a prompt or an answer that are told
TOLD_EVERY = 1.0  # seconds between progress reports while the model writes


class Stopped(Exception):
    """The person's stop, while the model wrote."""


class Heard:
    """A reward function that remembers what it gave last, and why."""

    def __init__(self, function: Any):
        self.function, self.__name__ = function, function.__name__
        self.given: list[float | None] = []
        self.reasons: list[str] = []

    def __call__(self, *args: Any, **kwargs: Any) -> list[float | None]:
        self.given = list(self.function(*args, **kwargs))
        self.reasons = list(getattr(self.function, "reasons", ()))
        return self.given

    def close(self) -> None:
        if ending := getattr(self.function, "close", None):
            ending()


class Writes:
    """Put in front of a trainer that writes. Subclasses name the trainer's own methods that do.

    The stop is heard at each word. What was drawn since the last whole step is given up then, and the state of that
    step is stored, random numbers included, so that a resumed run draws the same answers again.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self._whole: dict[str, Any] | None = None  # what the last whole step left, but for the weights
        self._told = 0.0
        super().__init__(*args, **kwargs)
        self.add_callback(_Steps(self))
        inner = self.accelerator.unwrap_model(self.model)
        inner = inner.get_base_model() if hasattr(inner, "peft_config") else inner
        inner.register_forward_pre_hook(self._word)
        self._writing, self._words = False, 0

    @classmethod
    def around(cls, trainer: type) -> type:
        """The class of a trainer with this in front."""
        return _around(cls, trainer)

    def most_words(self) -> int:
        """Tokens of the longest answer."""
        return int(self.generation_config.max_new_tokens)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Forward passes inside draw words, one each."""
        self._writing, self._words = True, 0
        config = self.accelerator.unwrap_model(self.model).generation_config
        try:
            yield
        except Stopped:
            self.accelerator.unwrap_model(self.model).generation_config = config  # TRL puts it back only in the end
            raise
        finally:
            self._writing = False

    def _word(self, *_: Any) -> None:
        if not self._writing:
            return
        self._words += 1
        if not self.model.training:
            return  # an evaluation: its answers are few, and the step behind it is whole
        if self.ctx.stop_requested and self.can_give_up():
            raise Stopped
        now = time.monotonic()
        if now - self._told > TOLD_EVERY and self.state.max_steps:
            self._told = now
            share = min(1.0, self._words / max(1, self.most_words()))
            self.ctx.progress(round(self.state.global_step + 0.9 * share, 2), self.state.max_steps, self.left())

    def left(self) -> float | None:
        """Seconds to go, once a step is done."""
        done = self.state.global_step - self.first_step
        if not done:
            return None
        return (time.perf_counter() - self.began) / done * (self.state.max_steps - self.state.global_step)

    def can_give_up(self) -> bool:
        """What was drawn in this step can be drawn again from the state behind the last whole one."""
        return self._whole is not None and self.args.world_size == 1

    def keep_whole(self, randomness: bool) -> None:
        """Remember what the step that just ended (or is about to begin) left.

        Args:
            randomness: Also the random states; those count from the end of a step on.
        """
        kept = self._whole or {}
        if randomness or "random" not in kept:
            kept["random"] = random.getstate(), np.random.get_state(), torch.get_rng_state(), (
                torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])
        windows = {name: {key: list(values) for key, values in window["train"].items()}
                   for name in ("_metrics", "_stored_metrics") if (window := getattr(self, name, None))}
        kept |= {"windows": windows, "stats": {k: list(v) for k, v in getattr(self, "stats", {}).items()},
                 "loss": self._tr_loss.clone() if torch.is_tensor(getattr(self, "_tr_loss", None)) else None,
                 "tokens": self.state.num_input_tokens_seen}
        self._whole = kept

    def _put_back(self) -> None:
        kept = self._whole
        python, numbers, cpu, gpus = kept["random"]
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        for name, window in kept["windows"].items():
            held = getattr(self, name)["train"]
            held.clear()
            for key, values in window.items():
                held[key] = values
        if kept["stats"]:
            self.stats = kept["stats"]
        if kept["loss"] is not None:
            self._tr_loss.copy_(kept["loss"])
        self.state.num_input_tokens_seen = kept["tokens"]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)
        except Stopped:
            self._put_back()
            self.optimizer.zero_grad()
            if self.state.global_step:
                self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
            return None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Every validation draws with the same seed: two differ by the model alone. Training goes on undisturbed."""
        with same_randomness():
            torch.manual_seed(self.args.seed)
            return super().evaluate(*args, **kwargs)

    def tell(self, found: list[dict[str, Any]]) -> None:
        """A readable few of roll-outs: the best, the worst and some between."""
        ranked = sorted(found, key=lambda one: one["advantage"], reverse=True)
        places = sorted({round(i) for i in np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked)))})
        for place in places:
            self.ctx.rollout(self.state.global_step, **ranked[place])

    def heard(self, prompts: list, completions: list, advantages: list[float]) -> list[dict[str, Any]]:
        """Roll-outs as events, with what the reward functions just gave."""
        made = []
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            rewards = {f.__name__: f.given[i] for f in self.reward_funcs if i < len(f.given)}
            notes = {f.__name__: f.reasons[i] for f in self.reward_funcs if i < len(f.reasons) and f.reasons[i]}
            made.append({"prompt": _short(question_of(prompt)), "completion": _short(text_of(completion)),
                         "rewards": rewards, "advantage": round(float(advantages[i]), 4), "notes": notes})
        return made


class _Rewarded(Writes):
    """Learns from rewards: what is best is what earns most."""

    def verdict(self, metrics: dict[str, float]) -> float | None:
        """What the best checkpoint has least of: lost reward. The loss of these methods says nothing of the answers."""
        earned = metrics.get("eval_reward")
        return None if earned is None else -earned

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs.pop("eval_loss", None)
        telling = "loss" in logs
        super().log(logs, start_time)
        if telling and self._last:
            self.tell(self._last)
            self._last = []

    def __init__(self, *args: Any, **kwargs: Any):
        self._last: list[dict[str, Any]] = []  # roll-outs of the last generation
        super().__init__(*args, **kwargs)


class Groups(_Rewarded):
    """GRPO and RLOO draw answers for a cycle of steps. Stops, checkpoints and validations wait for its end."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if getattr(self, "ref_model",
                   None) is not None:  # TRL loads it by name: without the adapter folded into the model
            self.ref_model.load_state_dict(self.accelerator.unwrap_model(self.model).state_dict())

    def most_words(self) -> int:
        return int(self.max_completion_length or 1)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self.writing():
            return super()._generate_single_turn(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list) -> Any:
        made = super()._generate_and_score_completions(inputs)
        if self.model.training:
            n, logs = len(inputs), self._logs
            prompts, completions, advantages = (list(logs[k])[-n:] for k in ("prompt", "completion", "advantages"))
            self._last = self.heard(prompts, completions, advantages)
        return made

    def hold_stop(self) -> bool:
        return self._step % (self.args.steps_per_generation * self.num_iterations) != 0

    def can_give_up(self) -> bool:
        # a cycle that ends within an optimiser step leaves no whole state from which the next one could begin
        return super().can_give_up() and self._whole.get("cycle", False)

    def keep_whole(self, randomness: bool) -> None:
        super().keep_whole(randomness)
        self._whole["cycle"] = not self.hold_stop()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if getattr(self, "use_adaptive_entropy", False):
            self.memory["entropy"] = [self.entropy_coef, self._last_world_entropy]
        super()._save_checkpoint(model, trial)

    def restore(self, checkpoint: Any) -> None:
        super().restore(checkpoint)
        if entropy := self.memory.get("entropy"):
            self.entropy_coef, self._last_world_entropy = entropy


class Pairs(_Rewarded):
    """Online DPO: two answers to each prompt, the better one above the worse one."""

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        with self.writing():
            return super()._generate(*args, **kwargs)

    def _calculate_rewards_from_functions(self, prompts: list, completions: list, completion_ids_list: list,
                                          **columns: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards_from_functions(prompts, completions, completion_ids_list, **columns)
        if self.model.training:
            half = len(prompts) // 2  # the second half answers the same prompts once more
            other = torch.cat([rewards[half:], rewards[:half]])
            self._last = self.heard(prompts, completions, ((rewards - other) / 2).tolist())
        return rewards

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Two answers to each validation prompt, scored; TRL's trainer has no validation of its own."""
        start, was_training = time.perf_counter(), self.model.training
        self.model.eval()
        rows, size, rewards = list(self.eval_dataset), self.args.per_device_eval_batch_size, []
        given: dict[str, list[float]] = {f.__name__: [] for f in self.reward_funcs}
        try:
            with same_randomness():
                torch.manual_seed(self.args.seed)
                for at in range(0, len(rows), size):
                    rewards += self._scored(rows[at:at + size], given)
        finally:
            self.model.train(was_training)
        made = {"eval_reward": sum(rewards) / len(rewards), "epoch": self.state.epoch}
        made |= {f"eval_rewards/{name}/mean": sum(values) / len(values) for name, values in given.items() if values}
        self.log(made)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, made)
        self.pause(time.perf_counter() - start)
        return made

    def _scored(self, rows: list[dict], given: dict[str, list[float]]) -> list[float]:
        prompts = [row["prompt"] for row in rows]
        _, _, ids, _, _ = self._generate(self.model, prompts)
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        chat = isinstance(prompts[0], list)
        answers = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
        columns = {key: [row[key] for row in rows] * 2 for key in rows[0] if key != "prompt"}
        rewards = self._calculate_rewards_from_functions(prompts * 2, answers, [row.tolist() for row in ids], **columns)
        for function in self.reward_funcs:
            given[function.__name__] += [value for value in function.given if value is not None]
        return rewards.tolist()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.memory["stats"] = {key: [float(v) for v in values] for key, values in self.stats.items()}
        super()._save_checkpoint(model, trial)

    def restore(self, checkpoint: Any) -> None:
        super().restore(checkpoint)
        for key, values in self.memory.pop("stats", {}).items():
            self.stats[key] = list(values)


class Distilled(Writes):
    """GKD and GOLD: what the model (or its teacher) writes is learned from with the teacher's likelihoods."""

    def generate_on_policy_outputs(self, *args: Any, **kwargs: Any) -> Any:
        with self.writing():
            return super().generate_on_policy_outputs(*args, **kwargs)


class _Steps(TrainerCallback):
    """Keeps the state of the last whole step, and moves what falls within a cycle to its end."""

    def __init__(self, trainer: Any):
        self.trainer, self.owed = trainer, set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.began, self.trainer.first_step = time.perf_counter(), state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.keep_whole(randomness=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.hold_stop() and state.global_step < state.max_steps:
            for wish in ("should_save", "should_evaluate"):
                if getattr(control, wish):
                    self.owed.add(wish)
                    setattr(control, wish, False)
        else:
            for wish in self.owed:
                setattr(control, wish, True)
            self.owed.clear()
        self.trainer.keep_whole(randomness=True)


@lru_cache(maxsize=32)
def _around(part: type, trainer: type) -> type:
    return type(f"{part.__name__}{trainer.__name__}", (part, trainer), {})


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
