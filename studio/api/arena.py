"""The arena: blind battles, the ranking they make, and the preferences that come of them.

``voter`` is whoever votes: the signed-in person on a Space, the login where the studio asks for one, else ``None``.
"""

from __future__ import annotations

import random
import re
import time
from typing import Any

from studio.errors import StudioError


def arena(voter: str | None = None) -> dict[str, Any]:
    """What the arena is about: ``{models: [{ref, label}], dataset, columns, tag, settings, prompts, may_change, votes}``."""
    from studio.arena import battles, pool
    from studio.chat import session

    found = pool.load()
    try:
        count = len(pool.prompts(found["dataset"], found["columns"], found["tag"])) if found["dataset"] else 0
    except StudioError:
        count = 0  # it was deleted since; typing a prompt still works
    return found | {"models": [{"ref": ref, "label": session.label_of(ref)} for ref in found["models"]], "prompts": count,
                    "may_change": pool.may_change(voter), "votes": len(battles.votes())}


def arena_setup(values: dict[str, Any], voter: str | None = None) -> dict[str, Any]:
    """Choose the models and the prompts of the arena; as :func:`arena`.

    Raises:
        StudioError: not allowed, too few models, unreadable prompts, bad settings.
    """
    from studio.api.who import scope
    from studio.arena import pool
    from studio.chat import address
    from studio.library.refs import check_owner

    for ref in values.get("models") or []:
        if not address.is_address(ref):
            check_owner(str(ref), scope(voter), "models")
    if values.get("dataset"):
        check_owner(str(values["dataset"]), scope(voter), "dataset")
    pool.save(values, voter)
    return arena(voter)


def arena_start(prompt: str = "", voter: str | None = None) -> dict[str, Any]:
    """A new battle, on a typed prompt or on the next one of the arena's dataset: ``{id, state, prompt, tag, a, b, vote}``.

    Raises:
        StudioError: the arena has no two models yet, or nothing to ask.
    """
    from studio.arena import battles, pool

    found, drawn = pool.load(), random.Random()
    if prompt.strip():
        asked = {"messages": [{"role": "user", "content": prompt.strip()}], "tag": ""}
        source = ""
    else:
        asked, source = pool.next_prompt(found, voter, drawn), found["dataset"]
    return battles.start(found["models"], asked["messages"], voter, source=source, tag=asked["tag"],
                         settings=found["settings"], drawn=drawn)


def arena_poll(id: str, voter: str | None = None) -> dict[str, Any]:
    """A battle as it stands; names only after the vote.

    Raises:
        StudioError: there is none, or it is another person's.
    """
    from studio.arena import battles

    return battles.shown(id, voter)


def arena_stop(id: str, voter: str | None = None) -> dict[str, Any]:
    """End the answers of a battle where they are.

    Raises:
        StudioError: there is none, or it is another person's.
    """
    from studio.arena import battles

    battles.stop(id, voter)
    return battles.shown(id, voter)


def arena_vote(id: str, choice: str, voter: str | None = None) -> dict[str, Any]:
    """Vote ``a``, ``b``, ``tie`` or ``bad`` (both), once; shows who was who.

    Raises:
        StudioError: no such battle or choice, answers still coming, or voted already.
    """
    from studio.arena import battles

    return battles.vote(id, choice, voter)


def arena_table(tag: str = "") -> dict[str, Any]:
    """The ranking: ``{table, matrix, tags: {tag: votes}, votes, both_bad}``.

    A row is ``{ref, label, rating, low, high, elo, battles, wins, ties, losses}``: Bradley-Terry with a 95 % bootstrap
    interval, and Elo in the order of the votes. The matrix is ``{names, labels, share, battles}``.
    """
    from collections import Counter

    from studio.arena import battles, ratings
    from studio.chat import session

    rows = battles.votes()
    tags = Counter(row["tag"] for row in rows if row["tag"])
    rows = [row for row in rows if not tag or row["tag"] == tag]
    outcomes = [battles.outcome(row) for row in rows]
    table = [{"ref": row["name"]} | {key: value for key, value in row.items() if key != "name"} for row in ratings.kept(outcomes)]
    matrix = ratings.matrix(outcomes)
    labels = {ref: session.label_of(ref) for ref in {row["ref"] for row in table} | set(matrix["names"])}
    return {"table": [row | {"label": labels[row["ref"]]} for row in table], "tags": dict(tags), "votes": len(rows),
            "matrix": matrix | {"labels": [labels[name] for name in matrix["names"]]},
            "both_bad": sum(row["vote"] == "bad" for row in rows)}


def arena_dataset(name: str = "", tag: str = "", models: list[str] | None = None,
                  voter: str | None = None) -> dict[str, Any]:
    """The votes as a file of preferences among one's uploads: ``{ref, name, pairs, left_out}``. Ties and votes for
    "both bad" prefer nothing and are left out.

    Raises:
        StudioError: no vote prefers one answer, or not allowed on this Space.
    """
    from studio import settings
    from studio.api.data import safe_name
    from studio.api.library import keep_rows
    from studio.api.who import signed_in
    from studio.arena import battles, pool

    if not pool.may_change(voter):
        raise StudioError("Only the author of this Space can take its votes.", "Copy the Space to make your own.")
    rows = battles.voted(tag, models)
    pairs = [pair for row in rows if (pair := battles.preference(row))]
    if not pairs:
        raise StudioError("No vote prefers one answer to another yet.", "Vote for the left or the right one in a battle.")
    stem = re.sub(r"\.jsonl$", "", safe_name(name or f"arena-votes-{time.strftime('%Y-%m-%d')}"))
    target = keep_rows(stem, pairs, signed_in(voter), "votes")
    return {"ref": target.relative_to(settings.home()).as_posix(), "name": target.name, "pairs": len(pairs),
            "left_out": len(rows) - len(pairs)}
