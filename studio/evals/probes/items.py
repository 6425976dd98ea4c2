"""Questions with their right answers, from any dataset: chats, questions and answers, or multiple choice."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from studio.datasets import answers, verify
from studio.datasets.llm import Messages, derived
from studio.errors import StudioError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_QUESTIONS = ("question", "query", "prompt", "problem", "instruction", "text", "input", "goal")
_OPTIONS = ("choices", "options", "endings", "candidates")
_ANSWERS = ("answer", "target", "label", "gold", "answer_index", "answerKey", "completion", "output")
_LETTER = re.compile(r"^\W*([A-Z])(?=[.):,\]*\"']|\s*$|\s*\n)", re.IGNORECASE)  # "A horse." names no letter
_NAMED = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\W*([A-Z])\b")
MOST_READ = 50_000


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: From its text, so the same question has it in every run and whatever was drawn beside it.
        turns: The messages; for a multiple choice the question alone, without its options.
        target: The right answer; of a multiple choice the text of the right option.
        options: Empty unless it is a multiple choice.
    """

    id: str
    turns: Messages
    target: str
    options: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return str(self.turns[-1]["content"])

    def asked(self, text: str | None = None, options: list[str] | None = None, system: str = "") -> Messages:
        """The messages with another wording, order of options or system prompt."""
        text = self.text if text is None else text
        if self.options:
            lines = [f"{LETTERS[n]}. {one}" for n, one in enumerate(options or self.options)]
            text = "\n".join([text, *lines, "Answer with the letter of the right answer."])
        turns = [*self.turns[:-1], {**self.turns[-1], "content": text}]
        return answers.with_system(turns, system)

    def chosen(self, answer: str, options: list[str] | None = None) -> str | None:
        """The option that an answer names by its letter or its text; ``None`` if it names none."""
        options = list(options or self.options)
        said = verify.final(answer).strip()
        if (match := _LETTER.match(said) or _NAMED.search(said)) and (at := LETTERS.index(match[1].upper())) < len(options):
            return options[at]
        found = [one for one in options if verify.normalised(one) and verify.normalised(one) in verify.normalised(said)]
        return max(found, key=len) if found and not any(one not in max(found, key=len) for one in found) else None


def drawn(ref: str, columns: dict[str, str], most: int, seed: int) -> list[Question]:
    """Questions with answers of a dataset, ``most`` of them drawn by the seed, in the order of the data.

    Raises:
        StudioError: unreadable data, or none that ask something with a known answer (``dataset``).
    """
    every = _choices(ref) or _answered(ref, columns)
    if not every:
        raise StudioError("No row of this dataset asks something and says what is right.",
                          "Choose chats, questions with answers, or rows with a question, choices and an answer.", "dataset")
    if len(every) > most:
        every = [every[n] for n in sorted(random.Random(f"{seed}/items").sample(range(len(every)), most))]
    return every


def _choices(ref: str) -> list[Question]:
    """Rows with a question, a list of options, and the right one as a number, a letter or a text."""
    from studio.datasets import formats

    made = {}
    for row in islice(formats.open_source(ref)[0], MOST_READ):
        question = next((row[name] for name in _QUESTIONS if isinstance(row.get(name), str) and row[name]), None)
        options = next((row[name] for name in _OPTIONS if row.get(name)), None)
        if isinstance(options, dict):  # as of ARC: {"text": [...], "label": [...]}
            labels, options = options.get("label"), options.get("text")
        else:
            labels = None
        if not question or not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
            if not made:
                return []
            continue
        options = [str(one) for one in options]
        right = _right(next((row[name] for name in _ANSWERS if row.get(name) is not None), None), options, labels)
        if right is None:
            continue
        tags = {key: str(row[key]) for key in ("topic", "category", "subject", "skill", "tag") if isinstance(row.get(key), str)}
        one = Question(_id(question, "/".join(options)), [{"role": "user", "content": question}], right, tuple(options), tags)
        made[one.id] = one
    return list(made.values())


def _right(value: Any, options: list[str], labels: Any) -> str | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(labels, list) and str(value) in map(str, labels):
        return options[[str(one) for one in labels].index(str(value))]
    if isinstance(value, str) and value in options:
        return value
    if isinstance(value, str) and len(value.strip()) == 1 and value.strip().upper() in LETTERS[:len(options)]:
        return options[LETTERS.index(value.strip().upper())]
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return options[number] if 0 <= number < len(options) else None


def _answered(ref: str, columns: dict[str, str]) -> list[Question]:
    from studio.datasets import formats

    made = {}
    for row in islice(formats.load_rows(ref, columns, purpose="as_is"), MOST_READ):
        turns, right = answers.asked(row), answers.answer(row)
        if not turns or not right.strip() or turns[-1].get("role") != "user":
            continue
        turns = [{"role": turn["role"], "content": str(turn.get("content") or "")} for turn in turns]
        tags = {key: str(value) for key, value in (row.get("tags") or {}).items() if isinstance(value, (str, int))}
        one = Question(_id(answers.key(turns), right), turns, right.strip(), (), tags)
        made[one.id] = one
    return list(made.values())


def _id(question: str, more: str) -> str:
    return f"{derived(0, f'{question}/{more}'):08x}"
