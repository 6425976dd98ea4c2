"""What a language lacks: ``python -m components.languages ru`` lists keys and texts that are missing, unused or lost a place."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from components import strings
from studio import api
from studio.recipe import fields
from studio.registry import FAMILIES

TOLD = ("title", "summary", "help", "about", "unit", "placeholder", "for_whom", "detail")  # the same as in words.js


def core_texts() -> dict[str, str]:
    """Every fixed text by which the core explains itself -> where it comes from (a family of methods, or an API function)."""
    found: dict[str, str] = {}

    def walk(value: Any, where: str) -> None:
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(one, where)
        for key in TOLD if isinstance(value, dict) else ():
            plain(value.get(key), where)
        for pair in value.get("choices") or [] if isinstance(value, dict) else ():
            if isinstance(pair, (list, tuple)) and len(pair) == 2 and str(pair[0]) != pair[1]:
                plain(pair[1], where)

    def plain(text: Any, where: str) -> None:
        if isinstance(text, str) and re.search(r"[A-Za-z]{2}", text):
            found.setdefault(text, where)

    for kind, family in FAMILIES.items():
        for _, method in family.items():
            plain(method.title, kind)
            plain(method.summary, kind)
            for spec in fields(method.Recipe):
                walk({"title": spec.title, "help": spec.help, "unit": spec.unit, "choices": spec.choices}, kind)
                if " " in spec.placeholder:
                    plain(spec.placeholder, kind)
        walk(api.presets(kind), "presets")
    for name in ("rewards_catalogue", "merge_methods", "data_steps"):
        walk(getattr(api, name)(), name)
    walk([data for data in api.datasets(None) if data["ref"].startswith("shipped:")], "shipped")
    return found


def lacks(language: str) -> dict[str, list[str]]:
    """``{"keys", "unused keys", "texts", "unused texts", "places"}``: all empty for a whole language. ``places`` are words in
    which a ``{name}`` of the English ones is missing or invented."""
    english, words = strings.catalogue(), strings.catalogue(language)
    texts, said = core_texts(), strings.translations(language)
    places = [key for key, text in (words | said).items() if key in english and held(text) != held(english[key])
              or key not in english and held(text) != held(key)]
    return {"keys": sorted(english.keys() - words.keys()), "unused keys": sorted(words.keys() - english.keys()),
            "texts": sorted(texts.keys() - said.keys()), "unused texts": sorted(said.keys() - texts.keys()), "places": sorted(places)}


def held(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


def main(argv: list[str]) -> int:
    found = lacks(argv[0])
    print(json.dumps(found, ensure_ascii=False, indent=1))
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
