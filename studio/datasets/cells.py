"""Single cells: texts, numbers, JSON written into strings, and the marks of broken text."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from studio.datasets.rows import loads, too_deep

MAX_LITERAL = 200_000  # characters of a Python literal that is still parsed
_SURROGATE = re.compile("[\ud800-\udfff]")
# UTF-8 read as Windows-1252 or Latin-1: "Ã©", "â€™", "Â ", "ðŸ˜€"; and the replacement character.
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039]"
                       "|\u00e2(\u20ac|\u0080|\u201a|\u201e|\u2020)|\u00f0(\u0178|\u009f)|\u00ef\u00bf\u00bd|\ufffd")
_DONE = re.compile(r"""[.!?…。！？:;)\]}>*`"'”’»\d|$=%]\s*$""")


def parsed(value: Any) -> Any:
    """A JSON list or object that is written in a string, as the value; anything else as it is.

    Python's own notation (``[{'role': 'user'}]``, as pandas writes it into CSV) is read too.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] not in ("[", "{") or text[-1:] not in ("]", "}"):
        return value
    try:
        made = loads(text)
    except ValueError:
        if "'" not in text or len(text) > MAX_LITERAL:
            return value
        try:
            made = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return value
    return value if too_deep(made) or not isinstance(made, (list, dict)) else made


def as_text(value: Any) -> str | None:
    """A cell as text: strings as they are, numbers written out, text parts joined; ``None`` for anything else."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value) if not value.isascii() else value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return str(value) if abs(value) < 1e300 else None
    if isinstance(value, list) and value:
        parts = [part.get("text", part.get("value")) if isinstance(part, dict) and part.get("type", "text") == "text" else part
                 for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(as_text(part) or "" for part in parts)
    return None


def is_mojibake(text: str) -> bool:
    """Looks like text whose bytes were once read in the wrong encoding."""
    return not text.isascii() and bool(_MOJIBAKE.search(text))


def ends_whole(text: str) -> bool:
    """Ends like a finished text: with a full stop, a bracket, a quote, a digit or code."""
    return bool(_DONE.search(text))


def compact(value: Any) -> str:
    """Canonical JSON: the same text for the same content, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
