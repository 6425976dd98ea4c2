"""The training doctor at work: what it finds becomes a warning of the run, once; a run that runs away may be stopped."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from studio.jobs import events
from studio.trainers.doctor import Doctor, Finding


class Checkup(TrainerCallback):
    """Between a trainer's logs and the doctor.

    Args:
        trainer: The trainer that is watched.
        recipe: Its recipe; ``auto_stop`` says whether a training that runs away is stopped.
    """

    def __init__(self, trainer: Any, recipe: Any, ctx: Any):
        self.trainer, self.recipe, self.ctx = trainer, recipe, ctx
        self.doctor: Doctor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        weights = sum(p.numel() for p in self.trainer.model.parameters())
        self.doctor = Doctor(self.recipe, weights, state.max_steps, said(self.ctx))
        for finding in self.doctor.start():
            self.ctx.warning(*finding)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if self.doctor is None or not logs or "train_runtime" in logs:
            return
        for finding in self.doctor.feed(state.global_step, logs):
            self.ctx.warning(*finding)
            if finding.runaway and getattr(self.recipe, "auto_stop", False) and state.global_step < state.max_steps:
                self._stop(finding)

    def _stop(self, finding: Finding) -> None:
        self.ctx.request_stop(f"Stopped by the training doctor: {finding.message}")


def said(ctx: Any) -> set[str]:
    """Codes of the warnings that earlier attempts of this run gave."""
    found, cursor, codes = True, 0, set()
    while found:
        found, cursor = events.read(ctx.run_dir / "events.jsonl", cursor)
        codes |= {event.get("code", "") for event in found if event["e"] == "warning"}
    return codes
