"""Rules that an answer must keep, one a line: some are checked by counting and comparing, the others by a judge.

    starts with: Of course!          contains: our shop            at most: 40 words
    ends with: ?                     never: as an AI               at least: 2 sentences
    pattern: ^\\d+\\.                  no pattern: https?://         language: de
    json                             Speak of the company as "we". <- anything else: a judge decides
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.datasets import verify
from studio.errors import StudioError

_LINE = re.compile(r"\s*(starts with|ends with|contains|never|no pattern|pattern|at most|at least|language)\s*:"
                   r"\s*(.+?)\s*\Z", re.IGNORECASE | re.DOTALL)
_AMOUNT = re.compile(r"(\d+)\s*(words?|characters?|sentences?|lines?)?\Z", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?…]+(?:[\"')\]”’]*)(?:\s|\Z)|[。！？]")
_COUNT: dict[str, Callable[[str], int]] = {
    "word": lambda text: len(text.split()), "character": len, "line": lambda text: len(text.strip().splitlines()),
    "sentence": lambda text: max(1, len(_SENTENCE.findall(text)))}


@dataclass(frozen=True)
class Rule:
    """One rule. ``kept(answer)`` says whether it is kept; a rule without it needs a judge."""

    text: str
    kept: Callable[[str], bool] | None = None

    @property
    def judged(self) -> bool:
        return self.kept is None

    def holds(self, question: str, answer: str, ask: Callable[[list[dict[str, str]]], str]) -> bool:
        """Whether an answer keeps the rule.

        Raises:
            studio.datasets.verify.Undecided: the judge never answered in form.
        """
        if self.kept is not None:
            return self.kept(verify.final(answer).strip())
        from studio.datasets import judge

        return judge.follows(ask, question, verify.final(answer), self.text)


def parse(lines: list[str]) -> list[Rule]:
    """The rules of a recipe; blank lines are passed over.

    Raises:
        StudioError: with ``field="rules"``.
    """
    return [rule(line) for line in lines if line.strip()]


def rule(line: str) -> Rule:
    """One rule from its line.

    Raises:
        StudioError: with ``field="rules"``: a bad pattern or amount.
    """
    line = line.strip()
    if line.lower() in ("json", "is json"):
        return Rule(line, _is_json)
    match = _LINE.match(line)
    if not match:
        return Rule(line)
    word, text = match[1].lower(), match[2]
    folded = text.casefold()
    if word in ("pattern", "no pattern"):
        found = _searcher(text)
        return Rule(line, found if word == "pattern" else lambda answer: not found(answer))
    if word in ("at most", "at least"):
        return Rule(line, _amount(word, text))
    if word == "language":
        return Rule(line, lambda answer: _language(answer) == folded)
    kept = {"starts with": lambda answer: answer.casefold().startswith(folded),
            "ends with": lambda answer: answer.casefold().endswith(folded),
            "contains": lambda answer: folded in answer.casefold(),
            "never": lambda answer: folded not in answer.casefold()}[word]
    return Rule(line, kept)


def _searcher(source: str) -> Callable[[str], bool]:
    try:
        pattern = verify.compiled(source)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "rules") from err

    def found(answer: str) -> bool:
        try:
            return bool(pattern.search(answer, timeout=verify.PATTERN_SECONDS))
        except TimeoutError:
            return False

    return found


def _amount(word: str, text: str) -> Callable[[str], bool]:
    match = _AMOUNT.match(text)
    if not match:
        raise StudioError(f"'{word}: {text}' is no amount.",
                          f"Write '{word}: 40 words', or characters, sentences, lines.", "rules")
    limit, count = int(match[1]), _COUNT[(match[2] or "words").lower().rstrip("s")]
    return (lambda answer: count(answer) <= limit) if word == "at most" else (lambda answer: count(answer) >= limit)


def _language(text: str) -> str:
    from studio.datasets.language import language

    return language(text)


def _is_json(answer: str) -> bool:
    for text in [answer, *verify.fenced(answer, "json")]:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            continue
        return True
    return False


def kept(rules: list[Rule], question: str, answer: str, ask: Callable[[str], Any]) -> dict[str, bool | str]:
    """Rule -> whether it is kept, or why that is not known.

    Args:
        ask: Gives for the number of a rule the judge that is asked about it.
    """
    found: dict[str, bool | str] = {}
    for number, one in enumerate(rules):
        try:
            found[one.text] = one.holds(question, answer, ask(str(number)))
        except verify.Undecided as err:
            found[one.text] = str(err)
    return found
