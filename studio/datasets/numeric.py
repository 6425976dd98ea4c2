"""The number that an answer ends with, however it is written."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"""
    (?<![\w.])                                    # not inside a word or a version: x86, v1.2.3
    (?:(?<![\w)\]])[-+])?(?:[$€£¥]\s?)?(?:(?<=[$€£¥])-)?
    (?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
    (?:[eE][-+]?\d{1,3}(?!\w))?
    (?:\s?/\s?\d+(?:\.\d+)?(?![\d/]))?            # a fraction
    """, re.VERBOSE)
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(-?[\d.,]+)\s*\}\s*\{\s*(-?[\d.,]+)\s*\}|(\d)(\d))")
_SAID = re.compile(r"\banswer\b\W{0,4}(?:is|are|=|:)|^\s*A\s*:", re.IGNORECASE | re.MULTILINE)
_BLANKS = re.compile(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))")  # 12 345 with a blank that does not break


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, its braces balanced."""
    found = None
    for match in re.finditer(r"\\f?boxed\s*\{", text):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                found = text[match.end():place].strip()
                break
    return found


def numbers(text: str) -> list[Decimal]:
    r"""Every number of a text, in order: ``1,234.5``, ``-3/4``, ``$20``, ``15%`` (as 15), ``2e-3``,
    ``\frac{1}{2}``."""
    text = text.replace("\u2212", "-").replace("\\$", "$").replace("{,}", ",").replace("\\!", "").replace("\\,", "")
    text = _BLANKS.sub("", text)
    text = _FRACTION.sub(lambda m: f"{' ' if text[m.start() - 1:m.start()].isdigit() else ''}"
                                   f"{m[1] or m[3]}/{m[2] or m[4]} ", text)
    return [value for match in _NUMBER.finditer(text) if (value := _value(match[0])) is not None]


def _value(written: str) -> Decimal | None:
    over, _, under = re.sub(r"[\s,$€£¥]", "", written).partition("/")
    try:
        value = Decimal(over) / Decimal(under) if under else Decimal(over)
    except (InvalidOperation, ZeroDivisionError):
        return None
    return value if value.is_finite() else None


def final_number(text: str) -> Decimal | None:
    r"""The number that is the answer: behind the last ``####`` (GSM8K), in the last ``\boxed{}``, behind the last
    "answer is", else the last one of all. A comma groups thousands; a decimal comma is not understood.
    """
    if "####" in text:
        found = numbers(text.rpartition("####")[2].strip().partition("\n")[0])
        if found:
            return found[0]
    if (inside := boxed(text)) is not None and (found := numbers(inside)):
        return found[-1]
    marks = list(_SAID.finditer(text))
    if marks:
        tail = text[marks[-1].end():].lstrip().partition("\n")[0]
        if found := numbers(tail.rpartition("=")[2]) if "=" in tail else numbers(tail):
            return found[0]
    found = numbers(text)
    return found[-1] if found else None


def close(one: Decimal, other: Decimal, tolerance: float) -> bool:
    """At most ``tolerance`` apart, as a share of ``other`` where that is above 1."""
    return abs(one - other) <= Decimal(str(tolerance)) * max(Decimal(1), abs(other))
