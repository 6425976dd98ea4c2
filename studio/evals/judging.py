"""Which of two answers is better, by a judge: what it is asked, what is made of what it says, and one verdict of two orders.

After the pairwise comparison of MT-Bench (Zheng et al. 2023, https://arxiv.org/abs/2306.05685). Judges tend to prefer whichever
answer stands first, so both orders are asked for, and a rule says what counts where they contradict each other. One mark
for one answer is in :mod:`studio.datasets.judge`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from studio.datasets.judge import SYSTEM, THINK, Ask, persist, quoted

RUBRIC = ("Which answer is more correct, more complete and more to the point? Which does what was asked, in the form that was asked "
          "for, and is clearer? How long an answer is and which of them stands first must not matter. If neither is better, "
          "it is a tie.")
NOTHING = "(no text)"  # an empty answer, as a judge is shown it
RULES = {"tie": "A tie", "average": "Half a win each way", "drop": "Left out"}
SCORE = {"a": 1.0, "tie": 0.5, "b": 0.0}
_SYSTEM = SYSTEM.replace("You mark one answer by a rubric. The question and the answer are",
                         "You compare two answers by a rubric. The question and the answers are")
_FORM = ("First write one or two sentences of reasons. Then write on a line of its own exactly one of:\n"
         "Verdict: A\nVerdict: B\nVerdict: tie")
_AGAIN = "That was not in the form. Write one line and nothing else:\nVerdict: A\nor\nVerdict: B\nor\nVerdict: tie"
_WHO = r"(?:(?:answer|assistant)\s+)?((?-i:[ABC])|(?:a\s+)?tie|(?:a\s+)?draw)"
# The surest first. [[A]], [[B]] and [[C]] (a tie) are how MT-Bench asks for it, and what judges trained on it answer.
_VERDICTS = [re.compile(text, re.IGNORECASE | re.MULTILINE) for text in (
    rf"^\W*Verdict\W+{_WHO}\W*$",
    rf"\[\[\s*{_WHO}\s*\]\]",
    rf"\b(?:verdict|winner)\b\W{{0,8}}(?:is\b\W{{0,4}})?{_WHO}\b(?!')",
    rf"\A\W*{_WHO}\W*\Z")]


@dataclass(frozen=True)
class Choice:
    """``a``, ``b`` or ``tie``, and the judge's reasons."""

    verdict: str
    reason: str = ""

    def turned(self) -> Choice:
        """The same choice with the two answers named the other way round."""
        return Choice({"a": "b", "b": "a"}.get(self.verdict, "tie"), self.reason)


def messages(question: str, a: str, b: str, rubric: str = "", reference: str = "") -> list[dict[str, str]]:
    """What a judge is asked for a choice."""
    parts = [("Rubric", rubric or RUBRIC), ("Question", quoted(question)), ("Reference answer", quoted(reference) if reference else ""),
             ("Answer A", quoted(a.strip() or NOTHING)), ("Answer B", quoted(b.strip() or NOTHING))]
    body = "\n\n".join(f"## {title}\n{text}" for title, text in parts if text)
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"{body}\n\n## Your task\n{_FORM}"}]


def parse(text: str) -> Choice | None:
    """The choice in what a judge said, or ``None``: none, or several that differ."""
    text = THINK.sub("", text)
    for piece in re.findall(r"\{[^{}]*\}", text):
        try:
            made = json.loads(piece)
        except ValueError:
            continue
        for key in ("verdict", "winner", "better"):
            if isinstance(made.get(key), str) and (found := _word(made[key])):
                return Choice(found, str(made.get("reason") or made.get("explanation") or "")[:300])
    for pattern in _VERDICTS:
        said = {_word(match[1]) for match in pattern.finditer(text)}
        if len(said) == 1:
            return Choice(said.pop(), _reason(text))
        if said:
            return None
    return None


def _word(said: str) -> str:
    word = said.strip().lower().removeprefix("answer ").removeprefix("assistant ").removeprefix("a ").strip()
    return {"a": "a", "b": "b", "c": "tie", "tie": "tie", "draw": "tie"}.get(word, "")


def _reason(text: str) -> str:
    kept = [line.strip() for line in text.strip().splitlines() if line.strip() and not any(p.search(line) for p in _VERDICTS[:2])]
    return " ".join(kept)[:300]


def compare(ask: Ask, question: str, a: str, b: str, rubric: str = "", reference: str = "") -> Choice:
    """The judge's choice between two answers in this order, asked for up to three times.

    Raises:
        studio.datasets.verify.Undecided: it never answered in form.
    """
    return persist(ask, messages(question, a, b, rubric, reference), parse, _AGAIN)


def combined(one: str, other: str, rule: str) -> float | None:
    """What the first answer gets of two verdicts on the same pair, both told in the same names: 1, 0.5 or 0.

    Args:
        rule: Where they differ: ``tie`` (0.5, as MT-Bench counts), ``average`` (the mean of both, so 0.75 for a win and a tie)
            or ``drop`` (``None``: no verdict).
    """
    if one == other:
        return SCORE[one]
    return {"tie": 0.5, "average": (SCORE[one] + SCORE[other]) / 2, "drop": None}[rule]
