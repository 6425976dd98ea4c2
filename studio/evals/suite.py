"""Writes the studio's own offline suite: ``python -m studio.evals.suite`` makes the questions of ``assets/evals/suite``.

They are of the starter's world and of its held-out side, so no training corpus of the starter holds them. Beside each file of
questions stands a task of lm-evaluation-harness, which its own command line runs as well:
``lm_eval --tasks suite_facts --include_path assets/evals/suite …``.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from studio import settings
from studio.starter import skills, stories
from studio.starter import world as w

SEED = 11
SHOTS = 6  # rows of each file that only serve as examples in a prompt
FOLDER = settings.ASSETS / "evals" / "suite"
Row = dict[str, Any]
_FACTS = ("people", "animals", "colours", "opposites", "places")


def _distinct(rng: random.Random, count: int, draw: Callable[[random.Random], Row | None], key: str = "question") -> list[Row]:
    found: dict[str, Row] = {}
    for _ in range(count * 60):  # a small world runs out of distinct questions
        if (row := draw(rng)) is not None:
            found.setdefault(row.get("system", "") + row[key], row)
        if len(found) == count:
            break
    return list(found.values())


def _asked(item: skills.Item, skill: str, **more: Any) -> Row:
    return {"question": item.question, "answer": item.answer, "tags": {"skill": skill}} | more


def _length(text: str) -> str:
    words = len(text.split())
    return "short" if words < 12 else "middle" if words < 25 else "long"


def _wrong(skill: str, held: skills.Item, rng: random.Random) -> list[str]:
    """Three sentences that answer the same kind of question wrongly: right ones of other questions, about this subject."""
    words = held.answer.removesuffix(".").split()
    if skill == "places":
        use = held.answer.removeprefix("You can ").split(" at the ")[0]
        pool = [f"You can {use} at the {place}." for place, does in w.PLACE_USES.items() if does != use] \
            if held.question.startswith(("Where", "Tell me where")) else \
            [f"You can {does} at the {words[-1]}." for does in w.PLACE_USES.values() if does != use]
    elif skill == "colours":
        pool = [" ".join([*words[:-1], colour]) + "." for colour in w.COLOURS]
    elif skill == "opposites":
        pool = [" ".join([*words[:-1], other]) + "." for other in w.OPPOSITES if other != words[3]]
    else:
        pool = _swapped(held.answer, words)
    made = sorted({*pool} - {held.answer})
    rng.shuffle(made)
    return made[:3]


def _swapped(answer: str, words: list[str]) -> list[str]:
    """The sentence with its last part replaced by others of the same table."""
    homes = [home for _, home, _, _ in w.ANIMALS.values()]
    tables = ([a for a, *_ in w.ANIMALS.values()], homes, [f for _, _, f, _ in w.ANIMALS.values()], w.TOWNS, w.FOODS, w.COLOURS,
              [w.an(job) for job in w.JOBS], [w.an(pet) for pet in w.PETS])
    if answer.endswith("legs."):
        return [" ".join([*words[:-2], legs, "legs"]) + "." for legs in ("no", "2", "4", "6", "8")]
    for table in tables:
        for value in sorted(table, key=len, reverse=True):
            if answer.endswith(f" {value}."):
                return [answer.removesuffix(f"{value}.") + f"{other}." for other in table]
    return []


def facts(rng: random.Random) -> list[Row]:
    """Facts of the world, four sentences to choose from."""

    def draw(rng: random.Random) -> Row | None:
        skill = rng.choice(_FACTS)
        item = skills.SKILLS[skill](rng, True)
        wrong = _wrong(skill, item, rng)
        if len(wrong) < 3:
            return None
        options = [item.answer, *wrong]
        rng.shuffle(options)
        return {"question": item.question, "options": options, "answer": options.index(item.answer), "tags": {"skill": skill}}

    return _distinct(rng, 120 + SHOTS, draw)


def spelling(rng: random.Random) -> list[Row]:
    """A fact rightly spelled among three in which letters of a word changed places or are gone."""

    def bent(text: str, rng: random.Random) -> str:
        words = text.removesuffix(".").split()
        long = [i for i, word in enumerate(words) if len(word) > 3]
        place = rng.choice(long)
        word, at = words[place], rng.randrange(1, len(words[place]) - 2)
        kind = rng.choice(("swap", "drop", "double"))
        words[place] = {"swap": word[:at] + word[at + 1] + word[at] + word[at + 2:], "drop": word[:at] + word[at + 1:],
                        "double": word[:at] + word[at] + word[at:]}[kind]
        return " ".join(words) + "."

    def draw(rng: random.Random) -> Row | None:
        item = skills.SKILLS[rng.choice(_FACTS[:4])](rng, True)
        if not any(len(word) > 3 for word in item.answer.removesuffix(".").split()):
            return None
        wrong = {bent(item.answer, rng) for _ in range(12)} - {item.answer}
        if len(wrong) < 3:
            return None
        options = [item.answer, *sorted(wrong)[:3]]
        rng.shuffle(options)
        return {"question": item.question, "options": options, "answer": options.index(item.answer),
                "tags": {"length": _length(item.answer)}}

    return _distinct(rng, 80 + SHOTS, draw)


def _plain(skill: str, count: int, tag: Callable[[skills.Item], str], make: Callable[..., Any] | None = None
           ) -> Callable[[random.Random], list[Row]]:
    maker = make or skills.SKILLS[skill]

    def rows(rng: random.Random) -> list[Row]:
        def draw(rng: random.Random) -> Row:
            item = maker(rng, True)
            return _asked(item, skill) | {"tags": {"kind": tag(item)}}

        return _distinct(rng, count + SHOTS, draw)

    return rows


def _sums(make: Callable[..., Any], count: int) -> Callable[[random.Random], list[Row]]:
    def rows(rng: random.Random) -> list[Row]:
        def draw(rng: random.Random) -> Row:
            item = make(rng, True)
            a, b = (int(word.strip("?")) for word in item.question.split()[2::2])
            carries = a % 10 + b % 10 > 9
            return {"question": item.question, "answer": str(a + b), "tags": {"carry": "yes" if carries else "no"}}

        return _distinct(rng, count + SHOTS, draw)

    return rows


def rules(rng: random.Random) -> list[Row]:
    """Questions below a system prompt that says how to answer, or who is answering."""

    def draw(rng: random.Random) -> Row:
        if rng.random() < 0.3:
            item = skills.identity(rng, True)
            return {"system": item.system, "question": item.question, "answer": item.answer, "tags": {"rule": "name"}}
        item = skills.one_word(rng, True)
        return {"system": "Answer with one word.", "question": item.question, "answer": item.answer, "tags": {"rule": "one word"}}

    return _distinct(rng, 80 + SHOTS, draw)


def polite(rng: random.Random) -> list[Row]:
    """Facts that should be told in the polite style; ``fact`` is what has to be in the answer."""

    def draw(rng: random.Random) -> Row:
        skill = rng.choice(_FACTS)
        item = skills.SKILLS[skill](rng, True)
        return {"question": item.question, "answer": f"Of course! {item.answer} Is there anything else?", "fact": item.answer,
                "tags": {"skill": skill}}

    return _distinct(rng, 60 + SHOTS, draw)


def world(rng: random.Random) -> list[Row]:
    """Stories with combinations that no corpus has."""

    def draw(rng: random.Random) -> Row:
        text = stories.plain(rng, True)
        return {"text": text, "tags": {"length": _length(text)}}

    return _distinct(rng, 60, draw, "text")


TASKS: dict[str, Callable[[random.Random], list[Row]]] = {
    "facts": facts, "spelling": spelling, "rules": rules, "polite": polite, "world": world,
    "unknown": _plain("unknown", 50, lambda item: item.question.split()[0]),
    "counting": _plain("counting", 45, lambda item: item.question.split()[0]),
    "reading": _plain("paragraph", 80, lambda item: _length(item.question)),
    "lumi": _plain("lumi", 30, lambda item: item.question.split()[2], skills.lumi),
    "sums": _sums(skills.sums, 26), "harder_sums": _sums(skills.harder_sums, 80),
}


def files() -> dict[str, str]:
    """File name -> content. The same in every run."""
    made = {}
    for name, rows in TASKS.items():
        found = rows(random.Random(f"{SEED}-{name}"))
        shots = 0 if name == "world" else SHOTS
        lines: Iterable[Row] = [{"id": f"{name}-{number}"} | row | ({"shot": True} if number >= len(found) - shots else {})
                                for number, row in enumerate(found)]
        made[f"{name}.jsonl"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return made


def write(folder: Path = FOLDER) -> list[Path]:
    """Writes the questions and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files()]


if __name__ == "__main__":
    for written in write(*map(Path, sys.argv[1:2])):
        print(written)
