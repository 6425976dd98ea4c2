"""Element ids, made in one place so that CSS, tests and handlers agree."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*")


def eid(area: str, name: str) -> str:
    """The ``elem_id`` of a part of the page: ``finetune-learning_rate``.

    Raises:
        ValueError: if a part is not lower-case letters, digits, ``_`` and ``-``.
    """
    for part in (area, name):
        if not _WORD.fullmatch(part):
            raise ValueError(f"{part!r} cannot be part of an element id")
    return f"{area}-{name}"


def tab(name: str) -> str:
    """``elem_id`` of a tab; its button in the page is this plus ``-button``."""
    return eid("tab", name)
