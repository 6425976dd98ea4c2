"""The number of a reward model."""

from __future__ import annotations

import math
from typing import Any

from studio.datasets import rewards
from studio.datasets.verify import Undecided, Verdict
from studio.recipe import field
from studio.rewards.base import Options, Reward, Row


class RewardModelOptions(Options):
    reward_model: str = field("", "Reward model", "A model with one number as its answer: made in the Align tab, a "
                              "folder, or hub:owner/name.", widget="model", max_length=1000)
    squash: bool = field(False, "Bring between 0 and 1", "Reward models have scales of their own. With this they "
                         "weigh as much as the other rewards; without it, differences among very good answers stay.")
    batch_size: int = field(8, "Batch", "Answers that it reads at once. More is faster and takes more memory.",
                            unit="answers", ge=1, le=512, group="advanced")
    max_length: int = field(2048, "Longest", "Of longer texts it reads the end.", unit="tokens", ge=16, le=131_072,
                            group="advanced")


class RewardModel(Reward):
    title = "A reward model"
    help = "The number that a model trained on preferences gives. It is fooled by answers unlike those it learned from."
    paper = "https://arxiv.org/abs/2203.02155"
    Options = RewardModelOptions

    def check(self) -> None:
        rewards.check(self.options.reward_model)

    def open(self, ctx: Any, recipe: Any) -> None:
        self.model, self.tokenizer, self.device = rewards.load(self.options.reward_model)
        places = getattr(self.model.config, "max_position_embeddings", None) or 1 << 30
        self.limit = min(self.options.max_length, self.tokenizer.model_max_length, places)

    def scores(self, answers: list[str], rows: list[Row]) -> list[Verdict | Undecided]:
        texts = [rewards.text_of({"prompt": row["prompt"], "completion": answer}, "", self.tokenizer)
                 for answer, row in zip(answers, rows, strict=True)]
        found, _ = rewards.rewards_of(self.model, self.tokenizer, self.device, texts, self.options.batch_size,
                                      self.limit,
                                      lambda done: None)
        return [Verdict(value > 0, self._scaled(value), f"the model says {value:.3g}") if math.isfinite(value)
                else Undecided("the model gives no number") for value in found]

    def _scaled(self, value: float) -> float:
        """The sigmoid, as in the loss of reward models; written so that it cannot overflow."""
        return 0.5 + 0.5 * math.tanh(value / 2) if self.options.squash else value

    def close(self) -> None:
        self.model = self.tokenizer = None
