"""Words of the page, from ``assets/locales/<language>/*.json`` (flat objects, merged), and in other languages also the core's texts.

The core speaks English. What the page says of itself has a key; what the core says (titles and helps of methods and fields, see
:mod:`components.languages`) is translated by its English text, from ``assets/locales/<language>/core/*.json``. Both are looked up in the
browser (``core.js``, ``words.js``), so a page costs the server the same in every language. What a language lacks stays English.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parent.parent / "assets" / "locales"
COOKIE = "studio_language"
NAMES = {"en": "English", "ru": "Русский", "zh-Hant": "繁體中文"}
# What browsers call them; a language that is not asked for by one of these is chosen in the page's header.
_ASKED = {"zh-tw": "zh-Hant", "zh-hk": "zh-Hant", "zh-mo": "zh-Hant"}


@functools.cache
def catalogue(language: str = "en") -> dict[str, str]:
    """All words of one language that have a key.

    Raises:
        ValueError: if two files of the language define the same key.
    """
    return _merged(LOCALES / language)


@functools.cache
def translations(language: str) -> dict[str, str]:
    """English text of the core -> the same in ``language``; empty for English.

    Raises:
        ValueError: if two files of the language define the same text.
    """
    return _merged(LOCALES / language / "core")


def _merged(folder: Path) -> dict[str, str]:
    merged: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        part = json.loads(path.read_text("utf-8"))
        if twice := merged.keys() & part.keys():
            raise ValueError(f"{path}: {sorted(twice)} are defined twice")
        merged |= part
    return merged


def languages() -> list[str]:
    """The languages there are, English first."""
    found = {path.name for path in LOCALES.iterdir() if path.is_dir()}
    return [name for name in NAMES if name in found] + sorted(found - set(NAMES))


def asked(header: str, cookie: str = "") -> str:
    """The language to show: the one that was chosen, else the first that the browser asks for and that is there.

    Args:
        header: ``Accept-Language``, e.g. ``zh-TW,zh;q=0.9,en;q=0.8``.
        cookie: The ``Cookie`` header.
    """
    known = {name.lower(): name for name in languages()}
    if chosen := re.search(rf"(?:^|;\s*){COOKIE}=([\w-]+)", cookie):
        if found := known.get(chosen[1].lower()):
            return found
    weighed = [(float(q or 1), -place, code.lower()) for place, (code, q) in
               enumerate(re.findall(r"([A-Za-z-]+)(?:\s*;\s*q=([01](?:\.\d+)?))?", header[:500]))]
    for weight, _, code in sorted(weighed, reverse=True):
        for name in (code, _ASKED.get(code, ""), "-".join(code.split("-")[:2]), code.split("-")[0]):
            if weight and name.lower() in known:
                return known[name.lower()]
    return "en"


def spoken(language: str) -> dict[str, Any]:
    """What the browser needs to speak: ``{"language", "languages", "strings", "words", "texts"}``; the last two are of a
    language other than English."""
    other = language != "en"
    return {"language": language, "languages": [[name, NAMES.get(name, name)] for name in languages()], "strings": catalogue(),
            "words": catalogue(language) if other else {}, "texts": translations(language) if other else {}}


def t(key: str, **values: Any) -> str:
    """The English text of ``key`` with ``{name}`` places filled in.

    Raises:
        KeyError: if no locale file defines it.
    """
    text = catalogue()[key]
    return text.format(**values) if values else text
