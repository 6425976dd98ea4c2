"""What an arena is about: which models meet, and where its prompts come from. One per workspace.

On a Space its author chooses, and every visitor who is signed in votes on that; elsewhere whoever is at the machine does both.
"""

from __future__ import annotations

import os
import random
from functools import lru_cache
from itertools import islice
from typing import Any

from studio import settings
from studio.arena import battles
from studio.chat import address, session
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.library import refs

FILE = "arena.json"
MOST_MODELS, MOST_PROMPTS = 32, 2000
EMPTY: dict[str, Any] = {"models": [], "dataset": "", "columns": {}, "tag": "", "settings": {}}


def load() -> dict[str, Any]:
    """``{models, dataset, columns, tag, settings}``; ``tag`` is the column whose value groups the prompts."""
    return EMPTY | {key: value for key, value in (read_json(settings.home() / FILE) or {}).items() if key in EMPTY}


def may_change(person: str | None) -> bool:
    """Whether this person may choose models and prompts: on a Space only its author."""
    return not settings.on_space() or (bool(person) and person == os.environ.get("SPACE_AUTHOR_NAME"))


def save(values: dict[str, Any], person: str | None) -> dict[str, Any]:
    """Choose models and prompts; what is not given stays.

    Raises:
        StudioError: not allowed, fewer than two models or one that cannot write, unreadable prompts, bad settings.
    """
    if not may_change(person):
        raise StudioError("Only the author of this Space can change its arena.", "Copy the Space to make your own.", "models")
    made = load() | {key: value for key, value in values.items() if key in EMPTY}
    made["models"] = list(dict.fromkeys(str(ref).strip() for ref in made["models"] if str(ref).strip()))
    if not 2 <= len(made["models"]) <= MOST_MODELS:
        raise StudioError(f"An arena has two to {MOST_MODELS} models; {len(made['models'])} are chosen.",
                          "Choose at least two.", "models")
    for ref in made["models"]:
        if not address.is_address(ref):
            refs.check_writes(refs.resolve_model(ref), "models")
    session.check_settings(made["settings"])
    if made["dataset"] and not prompts(made["dataset"], made["columns"], made["tag"]):
        raise StudioError("There are no questions in this dataset.", "Choose one of prompts or chats.", "dataset")
    write_json(settings.home() / FILE, made)
    return made


def prompts(ref: str, columns: dict[str, str], tag: str) -> list[dict[str, Any]]:
    """``{messages, tag}`` of the first rows of a dataset.

    Raises:
        StudioError: unreadable data.
    """
    found = refs.resolve_dataset(ref)
    stamp = found.path.stat().st_mtime_ns if found.path else 0
    return _prompts(ref, tuple(sorted(columns.items())), tag, str(found.path), stamp)


@lru_cache(maxsize=8)
def _prompts(ref: str, columns: tuple, tag: str, path: str, stamp: int) -> list[dict[str, Any]]:
    from studio.aligners import data
    from studio.datasets import answers

    each, _ = data.listed(ref, dict(columns), "prompts")
    made = []
    for row in islice(each, MOST_PROMPTS):
        if asked := answers.asked(row):
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in asked]
            made.append({"messages": turns, "tag": str((row.get("tags") or {}).get(tag) or "") if tag else ""})
    return made


def next_prompt(pool: dict[str, Any], voter: str | None, drawn: random.Random) -> dict[str, Any]:
    """A prompt of the arena's dataset that this person has seen least.

    Raises:
        StudioError: the arena has no dataset, or it cannot be read any more.
    """
    if not pool["dataset"]:
        raise StudioError("This arena has no prompts of its own.", "Write one, or choose a dataset of prompts.", "prompt")
    offered = prompts(pool["dataset"], pool["columns"], pool["tag"])
    if not offered:
        raise StudioError("There are no questions in this dataset.", "Choose one of prompts or chats.", "dataset")
    seen = battles.seen(voter)
    counts = [seen.get(battles.digest(one["messages"]), 0) for one in offered]
    least = min(counts)
    return drawn.choice([one for one, count in zip(offered, counts, strict=True) if count == least])
