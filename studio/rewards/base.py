"""The contract of a reward: one class, one file, one line in :mod:`studio.rewards`.

    class Polite(Reward):
        title, help = "Polite", "Says whether the answer says please."

        class Options(Options):
            word: str = field("please", "Word", "The word that is looked for, in small letters.", max_length=40)

        def score(self, answer, row):
            return Verdict(self.options.word in answer.lower(), float(self.options.word in answer.lower()))

``row`` holds the dataset's columns, the tags among them, and ``prompt``. A reward that scores many answers at once
(a model) writes ``scores`` instead of ``score``. One that has nothing to say of an answer raises or gives
:class:`~studio.datasets.verify.Undecided`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from studio.datasets import verify
from studio.datasets.verify import Undecided, Verdict
from studio.recipe import field

Row = dict[str, Any]
NOT_COLUMNS = ("trainer_state", "log_extra", "log_metric", "environments")  # what TRL gives a function besides


class Options(BaseModel):
    """What every reward can be told."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=False)

    weight: float = field(1.0, "Weight", "How much this reward counts beside the others; below 0 it is a penalty.",
                          ge=-100, le=100)


class Reference(Options):
    """Options of a reward that compares with what the row expects."""

    column: str = field("", "Expected in", "The column or tag that holds what is expected. Left empty, it is the "
                        "row's own answer.", group="advanced", max_length=200)


class Reward:
    """One reward with its options.

    Attributes:
        title: What a person calls it.
        help: What it scores, one sentence.
        paper: Where it is described, if it is.
        needs: The row must hold this column (``column`` of the options), or it has nothing to say.
    """

    title: ClassVar[str]
    help: ClassVar[str]
    paper: ClassVar[str] = ""
    needs: ClassVar[bool] = False
    Options: ClassVar[type[Options]] = Options

    def __init__(self, name: str, options: Any):
        self.name, self.options = name, options

    def check(self) -> None:
        """Refuse options that cannot work; light.

        Raises:
            StudioError: with the option as its field.
        """

    def open(self, ctx: Any, recipe: Any) -> None:
        """Load or start what scoring needs, before the training draws its first random number."""

    def score(self, answer: str, row: Row) -> Verdict:
        """The score of one answer, best between 0 and 1, with the reason.

        Raises:
            Undecided: nothing can be said of it.
        """
        raise TypeError(f"{type(self).__name__} has neither score nor scores")

    def scores(self, answers: list[str], rows: list[Row]) -> list[Verdict | Undecided]:
        """The scores of many answers, in their order."""
        return [self._one(answer, row) for answer, row in zip(answers, rows, strict=True)]

    def _one(self, answer: str, row: Row) -> Verdict | Undecided:
        try:
            if self.needs and verify.expected(row, self.options.column) in (None, "", []):
                column = self.options.column
                return Undecided(f"the row has no '{column}'" if column else "the row does not say what is expected")
            return self.score(answer, row)
        except Undecided as err:
            return err

    def close(self) -> None:
        """End what was started."""


class Checked(Reward):
    """A reward that is a check of :mod:`studio.datasets.verify` of the same name; options are its arguments."""

    needs = True
    Options = Reference

    def score(self, answer: str, row: Row) -> Verdict:
        return verify.check(self.name)(answer, row, **self.options.model_dump(exclude={"weight"}))


class Function:
    """A reward as TRL calls it; see :func:`studio.rewards.build`."""

    def __init__(self, reward: Reward, name: str, ctx: Any):
        self.reward, self.ctx = reward, ctx
        self.__name__ = name
        self.reasons: list[str] = []
        self.missing = 0
        self._warned = False

    def __call__(self, prompts: list[Any], completions: list[Any], completion_ids: list[Any] | None = None,
                 **columns: Any) -> list[float | None]:
        columns = {key: values for key, values in columns.items() if key not in NOT_COLUMNS
                   and isinstance(values, (list, tuple)) and len(values) == len(prompts)} | {"prompt": prompts}
        rows = [{key: values[i] for key, values in columns.items()} for i in range(len(prompts))]
        found = self.reward.scores([text_of(completion) for completion in completions], rows)
        made = [one.score if isinstance(one, Verdict) and math.isfinite(one.score) else None for one in found]
        self.reasons = [one.reason if isinstance(one, Verdict) else str(one) for one in found]
        self._count(made)
        return made

    def _count(self, made: list[float | None]) -> None:
        missing = made.count(None)
        self.missing += missing
        if missing and not self._warned and self.ctx is not None:
            self._warned = True
            self.ctx.warning(
                "reward_missing", f"'{self.reward.title}' has no score for {missing} of {len(made)} answers: "
                f"{self.reasons[made.index(None)]}.", "Answers without it are compared by the other rewards alone. Is "
                "it so for most of them, stop and try the rewards on a few samples.")

    def close(self) -> None:
        self.reward.close()


def text_of(completion: Any) -> str:
    """The text of an answer: as it is, or what its last message of the assistant says."""
    if isinstance(completion, str):
        return completion
    said = next((turn for turn in reversed(completion or []) if turn.get("role", "assistant") == "assistant"), {})
    content = said.get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content or ""


def question_of(prompt: Any) -> str:
    """What was asked last, as text."""
    if isinstance(prompt, str):
        return prompt
    return text_of([{**turn, "role": "assistant"} for turn in prompt or [] if turn.get("role") == "user"][-1:])
