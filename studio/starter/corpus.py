"""Mixes skills and stories into the corpus the starter model is trained on, and keeps the held-out side apart."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import skills, stories
from . import world as w

Message = dict[str, str]

SEED = 1
ROWS = 130_000
HELD_OUT_ROWS = 600

# Shares of the rows. Sums and counting need many more repetitions than facts to be learned.
MIX = {
    "plain": 6, "told": 4, "multi_turn": 8, "talk": 2, "people": 10, "animals": 5, "colours": 3, "places": 2,
    "opposites": 4, "sentiment": 3, "paragraph": 24, "repeat": 8, "counting": 8, "sums": 12, "identity": 3,
    "one_word": 6, "unknown": 2,
}

_TALK = (
    ("Hello!", "Hello! I am Pip."), ("Hi!", "Hello! I am Pip."), ("Good morning.", "Good morning!"),
    ("How are you?", "I am fine."), ("What is your name?", "My name is Pip."), ("Who are you?", "My name is Pip."),
    ("Tell me your name.", "My name is Pip."),
    ("What can you do?", "I can tell stories, count, add small numbers and answer questions."),
    ("Thank you.", "You are welcome."), ("Thanks!", "You are welcome."), ("Goodbye!", "Goodbye!"),
    ("Bye!", "Goodbye!"),
)
_NEUTRAL_SYSTEM = ("You are a helper.", "You are a kind helper.", "You answer questions.", "Answer with one sentence.")


@dataclass(frozen=True)
class Question:
    """A held-out question: the skill it tests, the chat up to the answer, and the exact answer."""

    skill: str
    messages: list[Message]
    answer: str


def chat(item: skills.Item, system: str | None = None) -> list[Message]:
    """The messages of a question without its answer."""
    prompt = item.system or system
    head = [{"role": "system", "content": prompt}] if prompt else []
    return [*head, {"role": "user", "content": item.question}]


def _answered(item: skills.Item, system: str | None = None) -> list[Message]:
    return [*chat(item, system), {"role": "assistant", "content": item.answer}]


def _talk(rng: random.Random) -> skills.Item:
    return skills.Item(*rng.choice(_TALK))


def _multi_turn(rng: random.Random, held: bool) -> list[Message]:
    # Two to four turns; with some chance the first tells a name and the last asks for it again.
    kinds = ("people", "animals", "colours", "opposites", "places", "sums", "sentiment")
    turns = [skills.SKILLS[rng.choice(kinds)](rng, held) for _ in range(rng.randint(1, 3))]
    if held or rng.random() < 0.5:
        name = rng.choice(tuple(w.VISITORS) + w.BOT_NAMES)
        turns.insert(0, skills.Item(f"My name is {name}.", f"Hello, {name}!"))
        turns.append(skills.Item("What is my name?", f"Your name is {name}."))
    elif rng.random() < 0.5:
        turns.insert(0, _talk(rng))
    else:
        turns.append(skills.Item(*rng.choice(_TALK[-4:])))
    system = rng.choice(_NEUTRAL_SYSTEM) if rng.random() < 0.3 else None
    messages = [m for turn in turns for m in _answered(turn)]
    return [{"role": "system", "content": system}, *messages] if system else messages


def rows(seed: int, count: int, held: bool = False) -> Iterator[dict[str, object]]:
    """Corpus rows, `{"text": ...}` or `{"messages": [...]}`.

    With `held` every row is from the held-out side: no such combination is in any training corpus.
    """
    rng = random.Random(f"{seed}-{held}")
    mix = {k: v for k, v in MIX.items() if not (held and k == "talk")}
    kinds, shares = tuple(mix), tuple(mix.values())
    for kind in rng.choices(kinds, shares, k=count):
        if kind == "plain":
            yield {"text": stories.plain(rng, held)}
        elif kind == "multi_turn":
            yield {"messages": _multi_turn(rng, held)}
        elif kind == "paragraph":
            turns = skills.about_paragraph(rng, held, rng.randint(1, 4))
            yield {"messages": [m for turn in turns for m in _answered(turn)]}
        else:
            make = stories.told if kind == "told" else skills.SKILLS.get(kind)
            item = make(rng, held) if make else _talk(rng)
            system = rng.choice(_NEUTRAL_SYSTEM) if rng.random() < 0.08 else None
            yield {"messages": _answered(item, system)}


def write_corpus(path: str | Path, seed: int, rows_count: int, held: bool = False) -> Path:
    """Writes a JSONL corpus of `rows_count` rows and returns its path. The same arguments give the same bytes."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows(seed, rows_count, held):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return target


def held_out(seed: int, per_skill: int = 40, untaught: bool = False) -> list[Question]:
    """Distinct held-out questions, up to `per_skill` of each skill; `untaught` adds the skills left out on purpose."""
    makers = {**skills.SKILLS, **(skills.UNTAUGHT if untaught else {})}
    questions: list[Question] = []
    for skill, make in makers.items():
        rng = random.Random(f"{seed}-{skill}")
        found: dict[str, Question] = {}
        # Small worlds run out of distinct questions, hence the bound on tries.
        for _ in range(per_skill * 20):
            item = make(rng, True)
            found.setdefault(f"{item.system}|{item.question}", Question(skill, chat(item), item.answer))
            if len(found) == per_skill:
                break
        questions.extend(found.values())
    return questions


def score(answers: Sequence[str], questions: Sequence[Question]) -> dict[str, float]:
    """Exact-match accuracy (0..1) of each skill; white space around an answer does not count.

    Raises ValueError when the two lists differ in length.
    """
    hits: dict[str, list[bool]] = {}
    for answer, question in zip(answers, questions, strict=True):
        hits.setdefault(question.skill, []).append(answer.strip() == question.answer)
    return {skill: sum(right) / len(right) for skill, right in hits.items()}


def write_workspace(seed: int = SEED, count: int = ROWS) -> list[Path]:
    """Writes the corpus and its held-out side where presets/pretrain/starter.yaml looks; returns both paths."""
    from studio import settings

    folder = settings.home() / "datasets"
    return [write_corpus(folder / "starter-corpus.jsonl", seed, count),
            write_corpus(folder / "starter-heldout.jsonl", seed + 1, HELD_OUT_ROWS, held=True)]


def main() -> int:
    """Command line: writes both files into the workspace."""
    parser = argparse.ArgumentParser(description="Write the starter corpus into the workspace.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--rows", type=int, default=ROWS)
    args = parser.parse_args()
    for path in write_workspace(args.seed, args.rows):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
