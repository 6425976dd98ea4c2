"""The trainer: TRL's SFTTrainer with a faster loss, exact resume and checkpoints that are whole or not there.

Imports torch, so only ``run`` methods import this module.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from studio.errors import StudioError
from studio.jobs.context import COMPLETE, checkpoints, mark_complete
from studio.jobs.explain import disk_full
from studio.jobs.files import read_json, write_json
from studio.library import bases
from studio.trainers.callbacks import Watch

STATE = "studio.json"
ENCODER = "prompt_encoder.safetensors"
# Above this the logits of a batch are not built: TRL's tiled loss is slower on small models but needs far less memory.
PLAIN_LOSS_BYTES = 1 << 30


class StudioTrainer(SFTTrainer):
    """SFTTrainer whose loss is the model's own unless the logits would be huge.

    Accuracy and entropy are computed at logging steps only, from the logits of that step. The number of tokens and the
    loss of an unfinished logging window are kept in each checkpoint, so that a resumed curve is the uninterrupted one.
    """

    def __init__(self, *args: Any, ctx: Any, keep: int, best: bool, patience: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.ctx, self.keep = ctx, keep
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.memory = {"num_tokens": 0, "best": None, "best_step": None, "bad": 0, "window": 0.0, "logged": 0,
                       "seconds": 0.0}
        self.pick_best, self.patience = best, patience
        self._tokens: Any = 0
        self._clock, self._clock_tokens = 0.0, 0
        self._paused = 0.0
        vocab = self.model.get_output_embeddings().weight.shape[0]
        longest = self.args.max_length or 1024
        rows = max(self.args.per_device_train_batch_size, self.args.per_device_eval_batch_size)
        self.plain = (vocab * rows * longest * 4 <= PLAIN_LOSS_BYTES and self.args.loss_type == "nll"
                      and not self.aux_loss_enabled and self.label_smoother is None
                      and not self.args.activation_offloading)

    # -- loss ------------------------------------------------------------------------------------------------------

    def compute_loss(self, model: Any, inputs: dict, return_outputs: bool = False,
                     num_items_in_batch: Any = None) -> Any:
        training = self.model.training
        if training:
            mask = inputs.get("attention_mask")
            self._tokens = self._tokens + (inputs["input_ids"].numel() if mask is None else mask.sum())
        if not self.plain:
            made = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self._metrics["train" if training else "eval"].pop("num_tokens", None)
            return made
        inputs["use_cache"] = False
        loss, outputs = Trainer.compute_loss(self, model, inputs, True, num_items_in_batch)
        if not training or self._logs_next():
            # learned tokens before the text (P-Tuning, prompt tuning) have logits but no labels
            logits = outputs.logits[:, -inputs["labels"].shape[1]:]
            self._measure(logits, inputs["labels"], "train" if training else "eval")
        return (loss, outputs) if return_outputs else loss

    def _logs_next(self) -> bool:
        step = self.state.global_step + 1
        return step % self.state.logging_steps == 0 or (step == 1 and self.args.logging_first_step)

    @torch.no_grad()
    def _measure(self, logits: torch.Tensor, labels: torch.Tensor, mode: str) -> None:
        labels = labels[:, 1:]
        seen = labels != -100
        if not bool(seen.any()):
            return
        logits, labels = logits[:, :-1][seen], labels[seen]
        accuracy = (logits.argmax(-1) == labels).float().mean()
        entropy = sum(torch.distributions.Categorical(logits=part.float(), validate_args=False).entropy().sum()
                      for part in logits.split(1024)) / len(labels)
        self._metrics[mode]["mean_token_accuracy"].append(accuracy.item())
        self._metrics[mode]["entropy"].append(entropy.item())

    def floating_point_ops(self, inputs: dict) -> int:
        return 0  # walks over all parameters at each step for a figure that nobody is shown

    # -- logging ---------------------------------------------------------------------------------------------------

    def count_tokens(self) -> int:
        """Tokens trained on since the very start, resumed parts included."""
        self.memory["num_tokens"] += int(self._tokens)
        self._tokens = 0
        return self.memory["num_tokens"]

    def pause(self, seconds: float) -> None:
        """Time that was not training, to be left out of tokens per second."""
        self._paused += seconds

    def start_clock(self) -> None:
        self._clock, self._paused, self._clock_tokens = time.perf_counter(), 0.0, self.count_tokens()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            tokens, now = self.count_tokens(), time.perf_counter()
            busy = now - self._clock - self._paused
            logs["num_tokens"] = tokens
            if tokens > self._clock_tokens and busy > 0:
                logs["tokens_per_second"] = (tokens - self._clock_tokens) / busy
            self.memory["seconds"] += max(busy, 0.0)
            self._clock, self._clock_tokens, self._paused = now, tokens, 0.0
        logs.pop("total_flos", None)
        super().log(logs, start_time)
        if "loss" in logs and not math.isfinite(logs["loss"]):
            raise StudioError(f"The loss became {logs['loss']} at step {self.state.global_step}: the training ran "
                              "away.", "Lower the learning rate, or turn on gradient clipping, and resume from an "
                              "earlier checkpoint.", "learning_rate")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        start = time.perf_counter()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.pause(time.perf_counter() - start)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        start, step = time.perf_counter(), self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if (folder / COMPLETE).exists():
            return
        self.count_tokens()
        self.memory |= {"window": float(self._tr_loss.item()), "logged": self._globalstep_last_logged}
        try:
            shutil.rmtree(folder, ignore_errors=True)
            Trainer._save_checkpoint(self, model, trial)  # TRL's own would write a model card into every checkpoint
            (folder / STATE).write_text(json.dumps(self.memory), "utf-8")
            if encoder := self._prompt_encoder():
                save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, folder / ENCODER)
            mark_complete(folder)
        except BaseException as err:
            shutil.rmtree(folder, ignore_errors=True)
            if disk_full(err):
                raise StudioError(f"The disk is full: checkpoint {step} could not be written.",
                                  "Free some space and resume; earlier checkpoints are whole.") from err
            raise
        self._rotate()
        self.pause(time.perf_counter() - start)

    def _rotate(self) -> None:
        """Deletes old checkpoints once the new one is whole. The best and the newest are never deleted."""
        done = checkpoints(self.args.output_dir)
        best = f"checkpoint-{self.memory['best_step']}"
        spare = [p for p in done[:-1] if p.name != best or not self.pick_best]
        for path in spare[: max(0, len(done) - self.keep)]:
            # The mark goes first, so that a kill in between leaves no half checkpoint that looks whole.
            (path / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)

    def _prompt_encoder(self) -> Any:
        """What makes the learned tokens of P-Tuning and its kin; PEFT stores only the tokens that it made."""
        return getattr(self.accelerator.unwrap_model(self.model), "prompt_encoder", None)

    def _load_encoder(self, checkpoint: Path) -> None:
        if (checkpoint / ENCODER).exists():
            self._prompt_encoder().load_state_dict(load_file(checkpoint / ENCODER))

    def restore(self, checkpoint: Path) -> None:
        """Counters and the unfinished logging window of ``checkpoint``; call when training begins."""
        self._load_encoder(checkpoint)
        try:
            self.memory |= json.loads((checkpoint / STATE).read_text("utf-8"))
        except (OSError, ValueError):
            return  # a checkpoint of plain TRL
        self._tr_loss += self.memory["window"]
        self._globalstep_last_logged = self.memory["logged"]

    def load_best(self) -> int | None:
        """Puts the best checkpoint's weights into the model; returns its step, ``None`` if the last one stays."""
        step = self.memory["best_step"]
        if not self.pick_best or step is None or step == self.state.global_step:
            return None
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if not (folder / COMPLETE).exists():
            return None
        self.state.best_model_checkpoint = str(folder)
        self._load_best_model()
        self._load_encoder(folder)
        return step


def clean(folder: Path) -> None:
    """Removes checkpoints that a kill left half written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)


def same_data(rows: Any, ctx: Any) -> None:
    """Refuses to resume on other data than the run began with: the curve would be a mixture of two runs.

    Raises:
        StudioError: the tokens differ from those of the first attempt.
    """
    digest = hashlib.blake2b(digest_size=16)
    for batch in rows.with_format("arrow").iter(10_000):
        digest.update(batch["input_ids"].combine_chunks().flatten().to_numpy(zero_copy_only=False).tobytes())
    found, path = digest.hexdigest(), ctx.run_dir / "data.json"
    known = read_json(path)
    if ctx.resume_from and known and known["tokens"] != found:
        raise StudioError("The training data are not those this run began with.",
                          "Put the old file back, or start a new run from the checkpoint you like best.", "dataset")
    write_json(path, {"tokens": found, "rows": len(rows)})


def has_gpu(recipe: Any = None) -> bool:
    return torch.cuda.is_available() and not os.environ.get("STUDIO_CPU")


def arguments(recipe: Any, ctx: Any, steps: int, held: bool) -> SFTConfig:
    """The library's own config for a recipe.

    Args:
        steps: Optimiser steps of the whole run, for the intervals that are left to the studio.
        held: There are validation samples.
    """
    from studio.trainers.plan import intervals, uses_bf16

    gpu = has_gpu()
    eval_steps, save_steps = intervals(recipe, steps, held)
    config: dict[str, Any] = dict(output_dir=str(ctx.checkpoints), num_train_epochs=recipe.num_train_epochs,
                                  max_steps=recipe.max_steps, learning_rate=recipe.learning_rate,
                                  lr_scheduler_type=recipe.lr_scheduler_type, warmup_steps=recipe.warmup_steps,
                                  weight_decay=recipe.weight_decay, max_grad_norm=recipe.max_grad_norm,
                                  optim=recipe.optim, seed=recipe.seed,
                                  per_device_train_batch_size=recipe.per_device_train_batch_size,
                                  per_device_eval_batch_size=recipe.per_device_train_batch_size,
                                  gradient_accumulation_steps=recipe.gradient_accumulation_steps,
                                  max_length=recipe.max_length, packing=recipe.packing,
                                  neftune_noise_alpha=recipe.neftune_noise_alpha or None,
                                  bf16=uses_bf16(recipe, torch.cuda.is_bf16_supported() if gpu else None),
                                  use_cpu=not gpu, gradient_checkpointing=recipe.gradient_checkpointing,
                                  logging_steps=recipe.logging_steps, logging_first_step=True, eval_strategy="steps"
                                  if held else "no", eval_steps=eval_steps if held else None, save_strategy="steps",
                                  save_steps=save_steps, report_to=recipe.report_to,
                                  trust_remote_code=recipe.trust_remote_code, disable_tqdm=True,
                                  logging_nan_inf_filter=False, dataset_kwargs={"skip_prepare_dataset": True},
                                  completion_only_loss=False, dataloader_pin_memory=gpu,)
    try:
        return SFTConfig(**(config | getattr(recipe, "beyond", dict)() | recipe.extra))
    except (ValueError, TypeError, ImportError) as err:
        field = next((f for f in ("optim", "lr_scheduler_type", "report_to", "bf16") if f in str(err)), "extra")
        raise StudioError(f"The library refuses these settings: {str(err).splitlines()[0]}", "Change the field.",
                          field) from err


def dataset(samples: list, recipe: Any) -> Any:
    """Samples as the library's table; packed ones best-fit-decreasing, as TRL packs them."""
    from datasets import Dataset

    made = Dataset.from_dict({"input_ids": [s.input_ids for s in samples], "labels": [s.labels for s in samples]})
    if recipe.packing:
        from trl import pack_dataset

        made = pack_dataset(made, recipe.max_length, "bfd")
    return made


def train(model: Any, tokenizer: Any, recipe: Any, ctx: Any, train_data: Any, eval_data: Any, steps: int,
          peft_config: Any = None, chat: bool = True) -> StudioTrainer:
    """Runs the training to its end or to the person's stop, and returns the trainer.

    Args:
        steps: Optimiser steps of the whole run.
        chat: The prompts to watch are asked as chats, not given as text to go on with.

    Raises:
        StudioError: settings the library refuses, other data than before, a full disk, a loss that ran away.
    """
    torch.set_num_threads(max(1, ctx.threads))
    clean(ctx.checkpoints)
    same_data(train_data, ctx)
    if peft_config is not None or hasattr(model, "peft_config"):
        bases.keep(ctx.run_dir, recipe.model, ctx.resume_from is not None)
        if told := bases.replaced_by_ref(recipe.model):
            ctx.warning("base-replaced", *told)
    held = eval_data is not None and len(eval_data) > 0
    args = arguments(recipe, ctx, steps, held)
    trainer = StudioTrainer(model, args, train_dataset=train_data, eval_dataset=eval_data if held else None,
                            processing_class=tokenizer, peft_config=peft_config, ctx=ctx, keep=recipe.save_total_limit,
                            best=recipe.load_best_model_at_end and held, patience=recipe.early_stopping_patience)
    trainer.add_callback(Watch(trainer, ctx, recipe.sample_prompts, chat))
    try:
        trainer.train(resume_from_checkpoint=str(ctx.resume_from) if ctx.resume_from else None)
    except OSError as err:
        if disk_full(err):
            raise StudioError("The disk is full.",
                              "Free some space and resume; earlier checkpoints are whole.") from err
        raise
    return trainer
