"""What kind of failure an answer is, from the answer, the right one and what the task keeps of it. Rules alone, no model."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

# In the order in which they are looked for: an answer is of the first kind that fits.
KINDS = {
    "empty": "no answer", "refusal": "refuses", "repeats": "repeats itself", "cut": "cut at its greatest length",
    "language": "in another language", "close_choice": "the right option came a close second", "choice": "another option, clearly",
    "unlikely": "other words were likelier than the right ones", "form": "right, but not in the form asked for",
    "no_number": "no number where one is asked for", "number": "another number",
    "partly": "partly right", "short": "much shorter than the right answer", "long": "much longer than the right answer",
    "other": "something else",
}
CLOSE = 0.5  # nats by which an option may be less likely than the chosen one and still be a close second
_REFUSAL = re.compile(r"\b(i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:no|')t|cannot|will not|won't)|as an ai|не могу|к сожалению|抱歉|無法|无法)",
                      re.IGNORECASE)
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_WORD = re.compile(r"\w+")


def kind_of(answer: str, target: str, more: dict[str, Any] | None = None, prompt: str = "") -> str:
    """Key of :data:`KINDS`."""
    more = more or {}
    if "loglikelihood" in more and not more.get("options"):
        return "unlikely"
    if not answer.strip():
        return "empty"
    if more.get("options"):
        return _choice(answer, target, more)
    if _REFUSAL.search(answer[:300]) and not _REFUSAL.search(target):
        return "refusal"
    if repeats(answer):
        return "repeats"
    if more.get("truncated") or more.get("finish_reason") == "length":
        return "cut"
    if _other_language(answer, target or prompt):
        return "language"
    found = [_against(answer, one) for one in alternatives(target)]
    return min(found, key=list(KINDS).index, default="other")


def alternatives(target: str) -> list[str]:
    """Right answers of a task that takes several; they come as one text."""
    return [one.strip() for one in target.split(" | ") if one.strip()]


def _against(answer: str, target: str) -> str:
    said, right = words(answer), words(target)
    if right and f" {' '.join(right)} " in f" {' '.join(said)} " or plain(answer) == plain(target):
        return "form"
    wanted = numbers(target)
    if wanted and len(right) <= 6:  # the answer is a number, maybe with a unit
        found = numbers(answer)
        return "no_number" if not found else "form" if found[-1] == wanted[-1] else "number"
    shared = sum((Counter(said) & Counter(right)).values())
    if shared and 2 * shared / (len(said) + len(right)) >= 0.5:
        return "partly"
    if len(right) >= 4 and len(said) * 3 < len(right):
        return "short"
    return "long" if len(said) > max(12, 3 * len(right)) else "other"


def _choice(answer: str, target: str, more: dict[str, Any]) -> str:
    """Options as texts, as ``[text, log-likelihood]`` or as ``{text, loglikelihood}``."""
    scores = {}
    for option in more["options"]:
        parts = [option.get("text"), option.get("loglikelihood")] if isinstance(option, dict) else option
        if isinstance(parts, (list, tuple)) and len(parts) > 1 and isinstance(parts[1], (int, float)):
            scores[str(parts[0]).strip()] = float(parts[1])
    one, two = scores.get(answer.strip()), scores.get(target.strip())
    return "close_choice" if one is not None and two is not None and abs(one - two) < CLOSE else "choice"


def repeats(text: str) -> bool:
    """Whether a phrase of one to eight words stands four times in a row, or a run of signs goes on for long."""
    said = words(text)
    for size in range(1, 9):
        run = 0
        for at in range(size, len(said)):
            run = run + 1 if said[at] == said[at - size] else 0
            if run >= 3 * size:
                return True
    return bool(re.search(r"(.{1,4}?)\1{19,}", text))


def _other_language(answer: str, like: str) -> bool:
    from studio.datasets.language import language

    if len(answer) < 20 or len(like) < 20:
        return False
    one, two = language(answer), language(like)
    return bool(one and two and one != two)


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def plain(text: str) -> str:
    """Letters and digits alone, in small letters."""
    return "".join(words(text))


def numbers(text: str) -> list[str]:
    return [found.replace(",", "").replace("−", "-").rstrip(".") for found in _NUMBER.findall(text)]
