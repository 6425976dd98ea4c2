"""What a report is made of: sections of blocks that know nothing of the file they end up in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cell:
    """A place of a table. ``tone``: ``good``, ``bad``, ``best``, ``muted`` or nothing."""

    text: str
    tone: str = ""


@dataclass
class Text:
    text: str
    tone: str = ""


@dataclass
class Points:
    """A list."""

    lines: list[str]


@dataclass
class Table:
    """``numbers``: columns that are set flush right."""

    head: list[str]
    rows: list[list[str | Cell]]
    numbers: tuple[int, ...] = ()
    wide: tuple[float, ...] = ()  # share of each column in print


@dataclass
class Chart:
    """A picture: ``draw(figure)`` draws it with matplotlib; ``alt`` says what it shows."""

    draw: Any
    alt: str
    height: float = 2.6  # inches, of 7 wide


@dataclass
class Answers:
    """One question with the answers of several models. ``right``: yes, no, or not known."""

    prompt: str
    target: str
    answers: list[tuple[str, str, bool | None]]
    note: str = ""


@dataclass
class Code:
    """Text as it is, e.g. a recipe; folded in HTML."""

    title: str
    text: str


@dataclass
class Section:
    title: str
    blocks: list[Any] = field(default_factory=list)
    level: int = 1


def cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def number(value: Any, digits: int = 4) -> str:
    """A measured number in few digits."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.{digits - 1}e}" if abs(value) < 1e-3 or abs(value) >= 1e6 else f"{value:.{digits}g}"


def signed(value: float | None) -> str:
    """A difference: with its sign, to three places where that says something."""
    if value is None:
        return "–"
    size = f"{abs(value):.3f}" if 0.0005 <= abs(value) < 100 else number(abs(value), 3)
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{size}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def value_text(value: Any) -> str:
    """A setting as one reads it."""
    if value is None or value == "" or value == [] or value == {}:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    if isinstance(value, (list, tuple)) and all(isinstance(one, (str, int, float)) for one in value):
        return ", ".join(value_text(one) for one in value)
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
