"""What ORPO, CPO and SimPO share: pairs without a reference model, on trainers of TRL's experimental part."""

from __future__ import annotations

from typing import Any

from studio.aligners.base import AlignMethod


class Unreferenced(AlignMethod):
    """A method on pairs without a reference model."""

    shape = "pairs"
    forwards = 0.8
    spare = 2  # the mean over an answer of no tokens is not a number

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        return super().settings(recipe) | {"remove_unused_columns": False}

    @classmethod
    def wrap(cls, trainer: type) -> type:
        """The trainer with a count of the tokens it sees, of both answers with what is asked."""

        class Counting(trainer):
            _total_train_tokens = 0

            def get_batch_loss_metrics(self, model: Any, batch: dict, train_eval: str = "train") -> Any:
                if train_eval == "train":
                    self._total_train_tokens += sum(int(batch[f"{side}_attention_mask"].sum())
                                                    for side in ("chosen", "rejected"))
                return super().get_batch_loss_metrics(model, batch, train_eval)

        Counting.__name__ = trainer.__name__
        return Counting
