"""Words of the page, from ``assets/locales/<language>/*.json`` (flat objects, merged).

A new language is a folder: whatever it lacks falls back to English. Labels are translated in the browser by its own
language (``label``); texts made in Python are English (``t``). Titles and helps of recipe fields come from the recipes
and may be overridden by ``field.<kind>.<method>.<name>.title`` and ``….help``.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parent.parent / "assets" / "locales"
_made: dict[str, str] = {}


@functools.cache
def catalogue(language: str = "en") -> dict[str, str]:
    """All strings of one language.

    Raises:
        ValueError: if two files of the language define the same key.
    """
    merged: dict[str, str] = {}
    for path in sorted((LOCALES / language).glob("*.json")):
        part = json.loads(path.read_text("utf-8"))
        if twice := merged.keys() & part.keys():
            raise ValueError(f"{path}: {sorted(twice)} are defined twice")
        merged |= part
    return merged


def languages() -> list[str]:
    return sorted(p.name for p in LOCALES.iterdir() if p.is_dir())


def t(key: str, **values: Any) -> str:
    """The English text of ``key`` with ``{name}`` places filled in.

    Raises:
        KeyError: if no locale file defines it.
    """
    text = catalogue()[key]
    return text.format(**values) if values else text


def label(key: str, english: str | None = None) -> Any:
    """A label the browser translates. ``english`` is the text of a key that comes from a recipe, not from a file."""
    import gradio as gr

    if english is not None:
        if not english:
            return None
        _made[key] = english
    elif key not in catalogue():
        raise KeyError(key)
    return gr.I18n()(key)


def tables() -> dict[str, dict[str, str]]:
    """language -> key -> text, for the browser; made keys are in English unless a locale file overrides them."""
    return {language: (_made | catalogue(language) if language == "en" else catalogue(language))
            for language in languages()}
