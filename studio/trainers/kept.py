"""What every trainer of the studio keeps: whole checkpoints, exact resume, the best weights, honest counters.

``kept(trl.DPOTrainer)`` is that trainer with all of it. Imports torch, so only ``run`` methods import this module.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from studio.errors import StudioError
from studio.jobs.context import COMPLETE, checkpoints, mark_complete
from studio.jobs.explain import disk_full
from studio.jobs.files import read_json, write_json
from studio.trainers import optimizers, ranks, rope, starts
from studio.trainers.callbacks import Watch
from studio.trainers.checkup import Checkup

STATE = "studio.json"
ENCODER = "prompt_encoder.safetensors"
_WINDOWS = ("_metrics", "_stored_metrics")  # where TRL's trainers gather what they log, by "train" and "eval"


class Kept:
    """Put in front of a trainer of TRL. The number of tokens and the unfinished logging window are kept in each
    checkpoint, so that a resumed curve is the uninterrupted one.

    Args:
        ctx: The run.
        keep: Checkpoints that stay besides the best one.
        best: The weights of the lowest validation loss become the result.
        patience: Validations without anything better after which the training ends; 0 = never.
    """

    def __init__(self, *args: Any, ctx: Any, keep: int, best: bool, patience: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if own := getattr(self.args, "studio_optimizer", None):
            self.optimizer_cls_and_kwargs = own[0], {"args": self.args} | own[1]
        if hasattr(self.model, "create_or_update_model_card"):
            self.model.create_or_update_model_card = lambda folder: None  # PEFT's, in each checkpoint: slower than its weights
        if kwargs.get("peft_config") is not None:
            starts.keep(self.model, ctx.run_dir)
        if ranks.learned(self.model):
            ranks.save_as_lora(self.model)
        self.ctx, self.keep, self.pick_best, self.patience = ctx, keep, best, patience
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.memory = {"num_tokens": 0, "best": None, "best_step": None, "bad": 0, "window": 0.0, "logged": 0,
                       "seconds": 0.0, "metrics": {}}
        self._clock, self._clock_tokens, self._clock_step = 0.0, 0, 0
        self._paused = 0.0

    def hold_stop(self) -> bool:
        """A stop has to wait, because the state of this very step cannot be stored (the middle of a generation)."""
        return False

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes it: all of them have to stop at the same step."""
        if self.args.world_size == 1:
            return wish
        return bool(self.accelerator.reduce(torch.tensor(float(wish), device=self.accelerator.device), "sum").item())

    def verdict(self, metrics: dict[str, float]) -> float | None:
        """What the best checkpoint has least of, from the numbers of a validation."""
        return metrics.get("eval_loss")

    def floating_point_ops(self, inputs: dict) -> int:
        return 0  # walks over all parameters at each step for a figure that nobody is shown

    # -- logging ---------------------------------------------------------------------------------------------------

    def count_tokens(self) -> int:
        """Tokens trained on since the very start, resumed parts included."""
        counted = max(int(getattr(self, "_total_train_tokens", 0)), int(self.state.num_input_tokens_seen))
        self.memory["num_tokens"] = max(counted, self.memory["num_tokens"])
        return self.memory["num_tokens"]

    def pause(self, seconds: float) -> None:
        """Time that was not training, to be left out of tokens per second."""
        self._paused += seconds

    def start_clock(self) -> None:
        self._clock, self._paused, self._clock_tokens = time.perf_counter(), 0.0, self.count_tokens()
        self._clock_step = self.state.global_step

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            tokens, now, step = self.count_tokens(), time.perf_counter(), self.state.global_step
            busy = now - self._clock - self._paused
            if tokens:
                logs["num_tokens"] = tokens
            if busy > 0 and step > self._clock_step:
                samples = (step - self._clock_step) * self.args.train_batch_size * self.args.gradient_accumulation_steps
                logs["samples_per_second"] = samples * self.args.world_size / busy
            if tokens > self._clock_tokens and busy > 0:
                logs["tokens_per_second"] = (tokens - self._clock_tokens) / busy
            self.memory["seconds"] += max(busy, 0.0)
            self._clock, self._clock_tokens, self._clock_step, self._paused = now, tokens, step, 0.0
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
        self.memory |= {"window": float(self._tr_loss.item()), "logged": self._globalstep_last_logged,
                        "metrics": {name: {key: [float(v) for v in values] for key, values in window["train"].items()}
                                    for name in _WINDOWS if (window := getattr(self, name, None))}}
        first = self.is_world_process_zero()
        try:
            if first:
                shutil.rmtree(folder, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            Trainer._save_checkpoint(self, model, trial)  # TRL's own would write a model card into every checkpoint
            self.accelerator.wait_for_everyone()
            if first:
                self._complete(folder)
                self._rotate()
            self.accelerator.wait_for_everyone()
        except BaseException as err:
            shutil.rmtree(folder, ignore_errors=True)
            if disk_full(err):
                raise StudioError(f"The disk is full: checkpoint {step} could not be written.",
                                  "Free some space and resume; earlier checkpoints are whole.") from err
            raise
        self.pause(time.perf_counter() - start)

    def _complete(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps(self.memory), "utf-8")
        if encoder := self._prompt_encoder():
            save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, folder / ENCODER)
        rope.keep(self.accelerator.unwrap_model(self.model), folder)
        if ranks.learned(self.model):
            ranks.keep(self.model, folder)
        mark_complete(folder)

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

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with torch.serialization.safe_globals(optimizers.kept_classes(str(self.args.optim.value))):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if ranks.learned(self.model):
            ranks.load(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def restore(self, checkpoint: Path) -> None:
        """Counters and the unfinished logging window of ``checkpoint``; call when training begins."""
        self._load_encoder(checkpoint)
        try:
            self.memory |= json.loads((checkpoint / STATE).read_text("utf-8"))
        except (OSError, ValueError):
            return  # a checkpoint of plain TRL
        self._tr_loss += self.memory["window"]
        self._globalstep_last_logged = self.memory["logged"]
        self._total_train_tokens = self.memory["num_tokens"]
        for name, window in self.memory.pop("metrics", {}).items():
            for key, values in window.items():
                getattr(self, name)["train"][key] = list(values)

    def load_best(self) -> int | None:
        """Puts the best checkpoint's weights into the model; returns its step, ``None`` if the last one stays."""
        step = self.memory["best_step"]
        if not self.pick_best or step is None or step == self.state.global_step:
            return None
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if not (folder / COMPLETE).exists():
            return None
        self.state.best_model_checkpoint = str(folder)
        if ranks.learned(self.model):
            ranks.load(self.model, folder)
        else:
            self._load_best_model()
        self._load_encoder(folder)
        return step


@lru_cache(maxsize=32)
def kept(trainer: type) -> type:
    """A trainer class with all that :class:`Kept` keeps."""
    return trainer if issubclass(trainer, Kept) else type(f"Studio{trainer.__name__}", (Kept, trainer), {})


def clean(folder: Path) -> None:
    """Removes checkpoints that a kill left half written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)


def same_data(digest: str, rows: int, ctx: Any) -> None:
    """Refuses to resume on other data than the run began with: the curve would be a mixture of two runs.

    Args:
        digest: Of all that is trained on, in its order.

    Raises:
        StudioError: it differs from that of the first attempt.
    """
    path = ctx.run_dir / "data.json"
    known = read_json(path)
    if ctx.resume_from and known and known["tokens"] != digest:
        raise StudioError("The training data are not those this run began with.",
                          "Put the old file back, or start a new run from the checkpoint you like best.", "dataset")
    write_json(path, {"tokens": digest, "rows": rows})


def digest_of(rows: Any, column: str = "input_ids") -> str:
    """Digest of a column of token lists of a table."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in rows.with_format("arrow").iter(10_000):
        digest.update(batch[column].combine_chunks().flatten().to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def go(trainer: Any, recipe: Any, ctx: Any, prompts: list[str], chat: bool = True) -> Any:
    """Train to the end or to the person's stop; returns the trainer.

    Args:
        recipe: What the training doctor compares with.
        prompts: Answered at every validation, so that the person sees the answers change.
        chat: They are asked as chats, not given as text to go on with.

    Raises:
        StudioError: a full disk, or a loss that ran away.
    """
    if ctx.trial is not None:
        ctx.trial(trainer)  # only measured: it does not come back
    trainer.add_callback(Watch(trainer, ctx, prompts, chat))
    trainer.add_callback(Checkup(trainer, recipe, ctx))
    try:
        trainer.train(resume_from_checkpoint=str(ctx.resume_from) if ctx.resume_from else None)
    except OSError as err:
        if disk_full(err):
            raise StudioError("The disk is full.",
                              "Free some space and resume; earlier checkpoints are whole.") from err
        raise
    return trainer
