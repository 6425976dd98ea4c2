"""Samples as TRL's trainers tokenize and cut them, so that what the cut costs is known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from studio.errors import StudioError

Row = dict[str, Any]
SIDES = {"pairs": ("chosen", "rejected"), "unpaired": ("completion",)}
NOUN = {"pairs": "pairs", "unpaired": "answers"}


@dataclass
class Sample:
    """Token ids of a row: what is asked, and the answers given to it.

    Attributes:
        prompt: Tokens that all answers begin behind.
        answers: Tokens of each answer, uncut; the better one first.
    """

    prompt: list[int]
    answers: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens of the longest side before the cut."""
        return len(self.prompt) + max(map(len, self.answers))

    def cut(self, limit: int) -> Sample:
        """What is left of it at ``limit`` tokens a side."""
        room = max(0, limit - len(self.prompt))
        return Sample(self.prompt[:limit], [answer[:room] for answer in self.answers])


def sample(row: Row, shape: str, tokenizer: Any) -> Sample:
    """A row of a shape as ``DPOTrainer`` and ``KTOTrainer`` tokenize it.

    Raises:
        StudioError: the chat template refuses the conversation.
    """
    whole = [ids(tokenizer, row["prompt"], row[side]) for side in SIDES[shape]]
    prompt = ids(tokenizer, row["prompt"])
    # The answer begins where the question alone and the question with its answer part.
    start = min(_shared(prompt, side) for side in whole)
    return Sample(prompt[:start], [side[start:] for side in whole])


def ids(tokenizer: Any, prompt: Any, answer: Any = None) -> list[int]:
    """Token ids of a prompt, alone up to where the answer begins, or with its answer."""
    if isinstance(prompt, str):
        end = tokenizer.eos_token
        text = prompt if answer is None else prompt + answer + ("" if answer.endswith(end) else end)
        return tokenizer(text)["input_ids"]
    try:
        return tokenizer.apply_chat_template(prompt + (answer or []), tokenize=True, return_dict=True,
                                             add_generation_prompt=answer is None)["input_ids"]
    except Exception as err:  # templates are programs of the model's author: they raise what they like
        raise StudioError(f"The model's chat template refuses a conversation: {err}.",
                          "Set 'Chat template' to ChatML, or mend the row (roles must take turns).", "dataset") from err


def _shared(a: list[int], b: list[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass
class Loss:
    """What the cut costs, in rows."""

    whole: bool = False  # its trainer leaves out what is too long
    rows: int = 0
    cut: int = 0  # shortened
    left_out: int = 0  # nothing of the answer would be left, or it may not be shortened
    same: int = 0  # both sides are alike behind the cut

    def warnings(self, noun: str, limit: int) -> list[tuple[str, str, str]]:
        """(code, message, hint) of each."""
        made = []
        if self.left_out:
            why = "they are longer, and this method does not cut" if self.whole else \
                "their question alone fills it, so that nothing of the answer is left"
            made.append(("rows-dropped", f"{self.left_out} of {self.rows} {noun} are left out at {limit} tokens: "
                         f"{why}.", "Raise 'Longest sample'."))
        if self.cut:
            made.append(("truncated", f"{self.cut} of {self.rows} {noun} are cut at {limit} tokens.",
                         "Raise 'Longest sample' to keep their ends."))
        if self.same:
            made.append(("same-answers", f"In {self.same} of {self.rows} pairs both answers are the same once they are "
                         "cut: nothing is learned from them.", "Raise 'Longest sample', or remove these pairs."))
        return made


def fit(rows: Iterable[Row], shape: str, tokenizer: Any, limit: int, whole: bool = False,
        spare: int = 0) -> tuple[list[Row], Loss]:
    """Rows that have something to learn from at ``limit`` tokens, and what the cut costs.

    Args:
        whole: The trainer leaves out what is longer, instead of cutting it.
        spare: Tokens of an answer that must be left.
    """
    kept, loss = [], Loss(whole)
    for row in rows:
        loss.rows += 1
        found = sample(row, shape, tokenizer)
        if (found.length > limit) if whole else (len(found.prompt) + spare >= limit):
            loss.left_out += 1
            continue
        loss.cut += found.length > limit
        sides = found.cut(limit).answers
        loss.same += len(sides) == 2 and sides[0] == sides[1]
        kept.append(row)
    return kept, loss


def told(rows: list[Row], method: Any, recipe: Any, tokenizer: Any, warn: Callable[..., None]) -> list[Row]:
    """Rows that a method can learn from, with a warning for what is cut or left out.

    Raises:
        StudioError: nothing is left (``max_length``).
    """
    kept, loss = fit(rows, method.shape, tokenizer, recipe.max_length, method.whole, method.spare)
    if rows and not kept:
        raise StudioError(f"Nothing is left to learn from: all {loss.rows} {NOUN[method.shape]} are longer than "
                          f"{recipe.max_length} tokens.", "Raise 'Longest sample'.", "max_length")
    for warning in loss.warnings(NOUN[method.shape], recipe.max_length):
        warn(*warning)
    return kept
