"""Pairs from other ways of saying which answer is better: a verdict between two, scores beside them, a ranked list."""

from __future__ import annotations

import math
from typing import Any

from studio.datasets.cells import parsed

_FIRST = {"a", "model_a", "answer_a", "response_a", "output_a", "assistant_a", "first", "left", "chosen_a",
          "a_is_better", "a>b",
          "a>>b"}
_SECOND = {"b", "model_b", "answer_b", "response_b", "output_b", "assistant_b", "second", "right", "chosen_b",
           "b_is_better",
           "b>a", "b>>a"}


def number(value: Any) -> float | None:
    """A finite number, also where it is written as text."""
    if isinstance(value, bool):
        return None
    try:
        made = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None


def counting(values: list[Any], column: str = "") -> str:
    """How verdicts between two answers are written: ``words`` | ``from 0`` | ``from 1`` | ``1 is first`` | ``signed``.

    An empty string if they are no verdicts. ``labels`` of 1 and 0 mean first and second as in Stanford's SHP; a scale below
    and above zero means the first where it is negative, as in HelpSteer 3.
    """
    words = [str(value).strip().lower().replace(" ", "_") for value in values]
    known = sum(word in _FIRST | _SECOND for word in words)
    if known and known >= 0.3 * len(words):
        return "words"
    numbers = {number(value) for value in values}
    if not numbers or None in numbers:
        return ""
    if any(n < 0 for n in numbers):
        return "signed"
    if numbers <= {0.0, 1.0}:
        return "1 is first" if column == "labels" else "from 0"
    return "from 1" if numbers <= {1.0, 2.0} else ""


def first_wins(value: Any, how: str) -> bool | None:
    """Whether the first of two answers is the better one; ``None`` for a tie or anything else."""
    if how == "words":
        word = str(value).strip().lower().replace(" ", "_")
        return True if word in _FIRST else False if word in _SECOND else None
    found = number(value)
    if found is None:
        return None
    if how == "signed":
        return None if found == 0 else found < 0
    first, second = {"from 0": (0, 1), "from 1": (1, 2), "1 is first": (1, 0)}[how]
    return True if found == first else False if found == second else None


def answers_in(value: Any) -> list[tuple[str, float | None]] | None:
    """(text, score) of every answer in a list of at least two; ``None`` if it is no such list."""
    value = parsed(value)
    if not isinstance(value, list) or len(value) < 2:
        return None
    made: list[tuple[str, float | None]] = []
    for item in value:
        score = None
        if isinstance(item, dict):
            score = next((number(item[k]) for k in ("overall_score", "score", "rating", "reward", "overall_rating",
                                                    "fine-grained_score")
                          if number(item.get(k)) is not None), None)
            item = next((item[k] for k in ("response", "text", "content", "completion", "output", "answer")
                         if isinstance(item.get(k), str)), None)
        if not isinstance(item, str):
            return None
        made.append((item, score))
    return made


def extremes(value: Any, scores: Any = None) -> tuple[str, str, float | None] | None:
    """(best, worst, distance of their scores) of a list of answers. Without scores it must be exactly (better, worse).

    ``scores`` is a list of numbers of the same length. ``None``: no such list, or all are rated alike.
    """
    found = answers_in(value)
    if not found:
        return None
    beside = parsed(scores)
    if isinstance(beside, list) and len(beside) == len(found):
        found = [(text, number(score)) for (text, _), score in zip(found, beside, strict=True)]
    rated = [(score, text) for text, score in found if score is not None]
    if len(rated) >= 2:
        best, worst = max(rated, key=lambda r: r[0]), min(rated, key=lambda r: r[0])
        return (best[1], worst[1], best[0] - worst[0]) if best[0] > worst[0] else None
    return (found[0][0], found[1][0], None) if len(found) == 2 else None
