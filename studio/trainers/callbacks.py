"""What the person sees while it trains: metrics, progress, answers to fixed prompts; and the stop they may ask for."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

NEW_TOKENS = 64


@contextlib.contextmanager
def same_randomness() -> Iterator[None]:
    """Whatever is drawn inside leaves the random states outside as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def answer(model: Any, tokenizer: Any, prompts: list[str], chat: bool = True,
           new_tokens: int = NEW_TOKENS) -> list[str]:
    """Greedy answers, all prompts in one batch; as chats if there is a chat template, else as text to go on with."""
    texts, chat = prompts, chat and bool(tokenizer.chat_template)
    if chat:
        texts = [tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False,
                                               add_generation_prompt=True) for p in prompts]
    encoded = [tokenizer(t, add_special_tokens=not chat)["input_ids"] for t in texts]
    longest = max(map(len, encoded))
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 20
    new_tokens = max(1, min(new_tokens, limit - longest))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    ids = torch.tensor([[pad] * (longest - len(e)) + e for e in encoded], device=model.device)
    mask = torch.tensor([[0] * (longest - len(e)) + [1] * len(e) for e in encoded], device=model.device)
    ends = model.generation_config.eos_token_id
    ends = ([] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [ends])
    ends = sorted({*ends, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])})
    was_training = model.training
    model.eval()
    try:
        with same_randomness(), torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False,
                                 use_cache=True, temperature=None, top_p=None, top_k=None, pad_token_id=pad,
                                 eos_token_id=ends or None)
    finally:
        model.train(was_training)
    return [tokenizer.decode(row[longest:], skip_special_tokens=True).strip() for row in out]


class Watch(TrainerCallback):
    """Between the trainer and ``ctx``. Also keeps the best, stops early, and resumes the counters."""

    def __init__(self, trainer: Any, ctx: Any, prompts: list[str], chat: bool = True):
        self.trainer, self.ctx, self.prompts, self.chat = trainer, ctx, prompts, chat
        self.started, self.first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.ctx.resume_from:
            self.trainer.restore(self.ctx.resume_from)
        elif args.eval_strategy != "no" or self.prompts:  # the model as it came, for before and after
            with same_randomness():
                if args.eval_strategy != "no":
                    self.trainer.evaluate()
                self._answer(0)
        self.started, self.first = time.perf_counter(), state.global_step
        self.ctx.progress(state.global_step, state.max_steps)
        self.trainer.start_clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done = state.global_step - self.first
        eta = (time.perf_counter() - self.started) / done * (state.max_steps - state.global_step)
        self.ctx.progress(state.global_step, state.max_steps, eta)
        stop = self.trainer.agreed(self.ctx.stop_requested)
        if stop and state.global_step < state.max_steps and not self.trainer.hold_stop():
            # A validation that is due still runs: without it the resumed run would lack it, and the random numbers it draws.
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "train_runtime" not in logs:  # the last one only sums up; the run's summary says it better
            self.ctx.metric(state.global_step, logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict | None = None, **_: Any) -> None:
        if state.global_step == 0:
            return
        memory, loss = self.trainer.memory, self.trainer.verdict(metrics or {})
        if loss is not None and (memory["best"] is None or loss < memory["best"]):
            memory |= {"best": loss, "best_step": state.global_step, "bad": 0}
            control.should_save = control.should_save or self.trainer.pick_best
        elif loss is not None:
            memory["bad"] += 1
            if self.trainer.patience and memory["bad"] >= self.trainer.patience:
                self.ctx.log(f"Stopped early at step {state.global_step}: {memory['bad']} validations brought nothing "
                             "better.")
                control.should_training_stop = control.should_save = True
        self._answer(state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.prompts or args.eval_strategy != "no" or state.global_step == self.first:
            return
        # There is no validation to go with, so the prompts are answered at each checkpoint.
        if state.global_step % max(1, int(state.save_steps)) == 0:
            start = time.perf_counter()
            self._answer(state.global_step)
            self.trainer.pause(time.perf_counter() - start)

    def _answer(self, step: int) -> None:
        if not self.prompts or not self.trainer.is_world_process_zero():
            return
        answers = answer(self.trainer.model, self.trainer.processing_class, self.prompts, self.chat)
        for prompt, text in zip(self.prompts, answers, strict=True):
            self.ctx.sample(step, prompt, text)
