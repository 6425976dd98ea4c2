"""Blind battles: one prompt, two models whose names are hidden, one vote.

A battle belongs to whoever asked for it and takes exactly one vote, which cannot be changed: the database refuses a second.
States: ``answering`` → ``ready`` → ``voted``, or ``failed`` where a model gave no answer. Which model stands left is drawn
for every battle. The answers are written by threads of this process; a battle whose process died has failed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections import Counter
from itertools import combinations
from typing import Any

from sqlalchemy import func, insert, select, update

from studio.chat import session
from studio.chat.client import Stop
from studio.errors import StudioError
from studio.library.artifacts import new_id
from studio.library.database import reading, writing
from studio.library.tables import battles as table

VOTES = ("a", "b", "tie", "bad")
SCORE = {"a": 1.0, "b": 0.0, "tie": 0.5, "bad": 0.5}  # what the left one got; both bad counts as a tie, as in LMSYS' arena
MAX_PROMPT = 20_000  # characters
_FACTS = ("ttft", "tokens_per_second", "tokens", "finish")
_writing: dict[tuple[str, str], "_Answer"] = {}  # (battle, side) -> the answer that comes
_lock = threading.Lock()
_log = logging.getLogger(__name__)


class _Answer(threading.Thread):
    """One side's answer on its way."""

    def __init__(self, battle: str, side: str, ref: str, messages: list[dict[str, str]], settings: dict[str, Any]):
        super().__init__(daemon=True, name=f"battle-{battle}-{side}")
        self.battle, self.side, self.ref, self.messages, self.settings = battle, side, ref, messages, settings
        self.stopped = Stop()
        self.news: dict[str, Any] = {"text": "", "state": "loading"}

    def run(self) -> None:
        try:
            for event in session.stream(self.ref, self.messages, self.settings, self.stopped):
                if event["state"] == "loading":
                    continue
                facts = {key: event[key] for key in _FACTS if event.get(key) is not None}
                self.news = {"text": event["text"], "state": "answering", **facts}
            self.news |= {"state": "done"}
        except StudioError as err:
            self.news |= {"state": "failed", "error": err.message, "hint": err.hint}
        except Exception as err:
            _log.exception("battle %s", self.battle)
            self.news |= {"state": "failed", "error": f"{type(err).__name__}: {err}", "hint": "The studio's log says more."}
        if not self.news["text"].strip() and self.news["state"] == "done":
            self.news |= {"state": "failed", "error": "It answered nothing.", "hint": "Start another battle."}
        with _lock:
            _kept(self.battle, self.side, self.news)
            del _writing[self.battle, self.side]


def start(models: list[str], messages: list[dict[str, str]], voter: str | None, *, source: str = "", tag: str = "",
          settings: dict[str, Any] | None = None, drawn: random.Random | None = None) -> dict[str, Any]:
    """Draw two of the models and let both answer; see :func:`shown` for what comes back.

    The pair that has met least is taken, so that few battles tell much; who stands left is chance.

    Args:
        models: References, at least two different ones.
        messages: The conversation to answer, ending with the person's turn.
        source: The dataset the prompt is from; empty where it was typed.
        tag: What kind of prompt it is, for the table by tag.

    Raises:
        StudioError: too few models, nothing asked, or settings out of bounds.
    """
    models = list(dict.fromkeys(model for model in models if model))
    if len(models) < 2:
        raise StudioError("A battle needs two models.", "Choose at least two.", "models")
    asked = messages[-1]["content"].strip() if messages else ""
    if not asked:
        raise StudioError("There is nothing to ask.", "Write a prompt, or choose a dataset of prompts.", "prompt")
    if sum(len(turn["content"]) for turn in messages) > MAX_PROMPT:
        raise StudioError(f"A prompt has at most {MAX_PROMPT:,} characters.", "Shorten it.", "prompt")
    settings = session.check_settings(settings or {})
    drawn = drawn or random.Random()
    mark = digest(messages)
    a, b = _pair(models, mark, voter, drawn)
    battle = new_id("b")
    with writing() as db:
        db.execute(insert(table).values(id=battle, created=time.time(), voter=voter, source=source, prompt=messages,
                                        digest=mark, tag=tag[:80], settings=settings, a=a, b=b, a_answer={}, b_answer={},
                                        state="answering"))
    with _lock:
        for side, ref in (("a", a), ("b", b)):
            _writing[battle, side] = made = _Answer(battle, side, ref, messages, settings)
            made.start()
    return shown(battle, voter)


def digest(messages: list[dict[str, str]]) -> str:
    """Tells one conversation from another."""
    return hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=12).hexdigest()


def _pair(models: list[str], mark: str, voter: str | None, drawn: random.Random) -> tuple[str, str]:
    """The two that met least, among those that this voter has not yet judged on this prompt as long as there are such."""
    met: Counter[frozenset[str]] = Counter()
    fought = select(table.c.a, table.c.b, func.count()).where(table.c.state != "failed").group_by(table.c.a, table.c.b)
    with reading() as db:
        for a, b, times in db.execute(fought):
            met[frozenset((a, b))] += times
        judged = {frozenset((a, b)) for a, b, _ in db.execute(fought.where(table.c.digest == mark, table.c.voter == voter))}
    pairs = [frozenset(pair) for pair in combinations(models, 2)]
    fresh = [pair for pair in pairs if pair not in judged] or pairs
    least = min(met[pair] for pair in fresh)
    pair = sorted(drawn.choice([pair for pair in fresh if met[pair] == least]))
    drawn.shuffle(pair)
    return pair[0], pair[1]


def seen(voter: str | None) -> Counter[str]:
    """How often this person was shown each conversation."""
    with reading() as db:
        rows = db.execute(select(table.c.digest).where(table.c.voter == voter, table.c.state != "failed")).scalars()
        return Counter(rows)


def _kept(battle: str, side: str, news: dict[str, Any]) -> None:
    """Write an answer that is over; with both there the battle can be voted on. The caller holds the lock."""
    answer = {key: value for key, value in news.items() if key != "state"}
    with writing() as db:
        db.execute(update(table).where(table.c.id == battle).values({f"{side}_answer": answer}))
        row = db.execute(select(table).where(table.c.id == battle)).mappings().one()
        sides = [row["a_answer"], row["b_answer"]]
        if row["state"] == "answering" and all(sides):
            failed = any("error" in one for one in sides)
            db.execute(update(table).where(table.c.id == battle).values(state="failed" if failed else "ready"))


def _row(battle: str, voter: str | None) -> dict[str, Any]:
    with reading() as db:
        row = db.execute(select(table).where(table.c.id == str(battle))).mappings().first()
    if row is None or row["voter"] != voter:
        raise StudioError("There is no such battle.", "Start another one.")
    return dict(row)


def shown(battle: str, voter: str | None) -> dict[str, Any]:
    """A battle as its voter may see it: ``{id, state, prompt, tag, a, b, vote}``.

    A side is ``{text, state, error, hint}``; the models' names and how fast they were (which would give them away) are
    there only when the vote is cast, or where it failed.

    Raises:
        StudioError: there is none, or it is another person's.
    """
    with _lock:
        running = {side: dict(_writing[battle, side].news) for side in ("a", "b") if (battle, side) in _writing}
        row = _row(battle, voter)
    if row["state"] == "answering" and not running:  # its process died
        with writing() as db:
            db.execute(update(table).where(table.c.id == battle, table.c.state == "answering").values(state="failed"))
        row["state"] = "failed"
    told = row["state"] in ("voted", "failed")
    found: dict[str, Any] = {key: row[key] for key in ("id", "state", "prompt", "tag", "vote")}
    for side in ("a", "b"):
        news = running.get(side) or {"state": "done", **row[f"{side}_answer"]}
        if "error" in news:
            news["state"] = "failed"
        elif row["state"] == "failed" and not news.get("text"):
            news |= {"state": "failed", "error": "The studio was closed while it answered.", "hint": "Start another battle."}
        hidden = () if told else _FACTS
        found[side] = {key: value for key, value in news.items() if key not in hidden}
        if told:
            found[side] |= {"ref": row[side], "label": session.label_of(row[side])}
    return found


def vote(battle: str, choice: str, voter: str | None) -> dict[str, Any]:
    """Cast the one vote of a battle and show who was who.

    Raises:
        StudioError: no such battle, no such choice, answers still coming, or it was voted on already.
    """
    if choice not in VOTES:
        raise StudioError(f"'{choice}' is no vote.", f"One of {', '.join(VOTES)}.", "vote")
    _row(battle, voter)
    with writing() as db:
        done = db.execute(update(table).where(table.c.id == battle, table.c.state == "ready", table.c.vote.is_(None))
                          .values(vote=choice, voted=time.time(), state="voted"))
    if not done.rowcount:
        state = _row(battle, voter)["state"]
        raise StudioError({"voted": "This battle was voted on already.", "failed": "This battle has failed."}
                          .get(state, "The answers are still coming."), "Start another one.", "vote")
    return shown(battle, voter)


def stop(battle: str, voter: str | None) -> None:
    """End the answers of a battle; what is there can be voted on.

    Raises:
        StudioError: there is none, or it is another person's.
    """
    _row(battle, voter)
    with _lock:
        chosen = [_writing[battle, side] for side in ("a", "b") if (battle, side) in _writing]
    for one in chosen:
        one.stopped()
    for one in chosen:
        one.join(3)


def voted(tag: str = "", models: list[str] | None = None, voter: str | None = None) -> list[dict[str, Any]]:
    """Every battle that was voted on, in the order of the votes.

    Args:
        tag: Only prompts of this kind.
        models: Only battles between these.
        voter: Only this person's; ``None``: everybody's.
    """
    query = select(table).where(table.c.state == "voted").order_by(table.c.voted, table.c.id)
    query = query.where(table.c.tag == tag) if tag else query
    query = query.where(table.c.voter == voter) if voter is not None else query
    with reading() as db:
        rows = [dict(row) for row in db.execute(query).mappings()]
    return [row for row in rows if not models or (row["a"] in models and row["b"] in models)]


def votes() -> list[dict[str, Any]]:
    """``{a, b, vote, tag}`` of every battle that was voted on, in the order of the votes."""
    with reading() as db:
        return [dict(row) for row in db.execute(select(table.c.a, table.c.b, table.c.vote, table.c.tag).where(
            table.c.state == "voted").order_by(table.c.voted, table.c.id)).mappings()]


def outcome(row: dict[str, Any]) -> tuple[str, str, float]:
    """A voted battle as :mod:`studio.arena.ratings` counts it."""
    return row["a"], row["b"], SCORE[row["vote"]]


def preference(row: dict[str, Any]) -> dict[str, Any] | None:
    """A voted battle as a row of preferences; ``None`` for a tie or two bad ones, which prefer nothing."""
    if row["vote"] not in ("a", "b") or row["a_answer"]["text"] == row["b_answer"]["text"]:
        return None
    good, bad = (row["a_answer"], row["b_answer"]) if row["vote"] == "a" else (row["b_answer"], row["a_answer"])
    said = [{"role": "assistant", "content": one["text"]} for one in (good, bad)]
    made = {"prompt": row["prompt"], "chosen": said[:1], "rejected": said[1:]}
    return made | ({"tag": row["tag"]} if row["tag"] else {})
