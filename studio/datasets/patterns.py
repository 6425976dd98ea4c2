"""Regular expressions that a person typed: understood before anything starts, and never let to run for ever."""

from __future__ import annotations

from collections.abc import Callable

SECONDS = 1.0  # for one text; patterns that take longer backtrack without end


def check(pattern: str) -> None:
    """
    Raises:
        ValueError: not a regular expression, saying what is wrong and where.
    """
    import regex

    try:
        regex.compile(pattern)
    except regex.error as err:
        raise ValueError(f"not a regular expression: {err}") from err


def finder(pattern: str, ignore_case: bool = True) -> Callable[[str], str | None]:
    """A function that gives the first match in a text, or ``None``; it raises ``TimeoutError`` after :data:`SECONDS`."""
    import regex

    made = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)

    def find(text: str) -> str | None:
        hit = made.search(text, timeout=SECONDS)
        return None if hit is None else hit[0][:200]

    return find
