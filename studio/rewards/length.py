"""An answer of the right length."""

from __future__ import annotations

from typing import Any, Literal

from studio.datasets import ngrams
from studio.datasets.verify import Verdict
from studio.errors import StudioError
from studio.recipe import field
from studio.rewards.base import Options, Reward, Row


class LengthOptions(Options):
    unit: Literal["words", "tokens", "characters"] = field(
        "words", "Counted in", "What is counted. Tokens are those of the model that learns.",
        choices={"words": "Words", "tokens": "Tokens", "characters": "Characters"})
    least: int = field(1, "At least", "Shorter answers score less, empty ones 0. 0 = also an empty answer is long "
                       "enough.", ge=0, le=1_000_000)
    most: int = field(50, "At most", "Longer answers score less.", ge=0, le=1_000_000)
    slope: int = field(20, "Falls over", "How far outside the range the score has fallen to 0; 0 = at once. A slope "
                       "can be learned from, an edge hardly.", ge=0, le=1_000_000)


class Length(Reward):
    title = "Length"
    help = "1 within a range of lengths, falling evenly to 0 outside it. Keeps answers from growing or shrinking."
    paper = "https://arxiv.org/abs/2503.14476"
    Options = LengthOptions

    def check(self) -> None:
        if self.options.least > self.options.most:
            raise StudioError(f"'At least' ({self.options.least}) is more than 'At most' ({self.options.most}).",
                              "Turn them round.", "least")

    def open(self, ctx: Any, recipe: Any) -> None:
        if self.options.unit == "tokens":
            from studio.library import refs
            from studio.trainers import load

            self.tokenizer = load.tokenizer(refs.resolve_model(recipe.model),
                                            getattr(recipe, "trust_remote_code", False))

    def count(self, answer: str) -> int:
        if self.options.unit == "words":
            return len(ngrams.words([answer])[0])
        if self.options.unit == "tokens":
            return len(self.tokenizer(answer, add_special_tokens=False)["input_ids"])
        return len(answer)

    def score(self, answer: str, row: Row) -> Verdict:
        o, size = self.options, self.count(answer)
        if not size and o.least:
            return Verdict(False, 0.0, "the answer is empty")  # next to the range, but nothing to be learned
        outside = max(o.least - size, size - o.most, 0)
        if not outside:
            return Verdict(True, 1.0, f"{size} {o.unit}")
        wanted = f"at least {o.least}" if size < o.least else f"at most {o.most}"
        return Verdict(False, max(0.0, 1 - outside / o.slope) if o.slope else 0.0, f"{size} {o.unit}, {wanted} wanted")
