"""Continued pretraining: an existing model reads on, in raw text or whole chats. Gururangan et al. 2020."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.method import Estimate, Method
from studio.recipe import field
from studio.trainers.common import (SFT, ChatFields, DataFields, ExtraFields, LearnFields, LengthFields, ModelFields,
                                   PackFields, RopeFields, SpreadFields, WatchFields)


class ContinuedRecipe(ExtraFields, RopeFields, WatchFields, SpreadFields, PackFields, LearnFields, ChatFields,
                      LengthFields, DataFields, ModelFields):
    """Fields of a continued pretraining run."""

    kind: ClassVar[str] = "pretrain"
    method: ClassVar[str] = "continued"

    assistant_only_loss: bool = field(False, "Learn from the answers only", "Off: every word of a chat is learned "
                                      "from, as in pretraining. On: only the assistant's.", library=SFT)
    learning_rate: float = field(3e-4, "Learning rate", "How large each step is. Too high: old skills are lost. Too "
                                 "low: nothing new is learned. 3e-4 suits the starter; 1e-5 to 5e-5 is usual for "
                                 "models of a billion and more.", group="training", widget="log", library=SFT, gt=0,
                                 le=1.0)
    num_train_epochs: float = field(1.0, "Epochs", "How often the data is seen.", group="training", library=SFT, gt=0,
                                    le=1000)
    packing: bool = field(True, "Packing", "Joins texts end to end and cuts them in blocks of the longest length, so "
                          "that no time goes to padding.", group="training", library=SFT)

    def beyond(self) -> dict[str, Any]:
        """Arguments of the library's config that only this recipe has."""
        return {"packing": False}  # blocks are made here


class Continued(Method):
    """All weights, on running text."""

    title = "Continued pretraining"
    summary = "Lets an existing model read more text, such as the language of a field, before it is fine-tuned."
    paper = "https://arxiv.org/abs/2004.10964"
    Recipe = ContinuedRecipe

    @classmethod
    def check(cls, recipe: ContinuedRecipe) -> None:
        from studio.trainers import sft

        sft.check(recipe)

    @classmethod
    def estimate(cls, recipe: ContinuedRecipe) -> Estimate:
        from studio.trainers import plan

        return plan.estimate(recipe, lora=False)

    @classmethod
    def run(cls, recipe: ContinuedRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import blocks, sft

        return sft.run(recipe, ctx, encode_as=blocks.uncut(recipe), table=blocks.table)
