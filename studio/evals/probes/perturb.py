"""The same question in other words, with slips of the finger, in other frames. Everything follows from a key and a seed alone.

    rng = random.Random(f"{seed}/{item}/{number}")
    typos("Where does Anna live?", rng, 0.1) -> "Wheer does Anna live?"

Numbers and names (words with a capital letter that do not begin a sentence) stay as they are: with another name it would be
another question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from studio.datasets.llm import Messages

_WORD = re.compile(r"[^\W\d_]{3,}")
_NEIGHBOURS = {"a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk", "k": "jl",
               "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb",
               "w": "qe", "x": "zc", "y": "tu", "z": "x"}
TEMPLATES = ("Please tell me: {q}", "I would like to know this: {q}", "{q} Thank you.", "Could you answer this for me? {q}",
             "Here is my question. {q}", "{q} I am curious.", "A friend asked me: {q}", "Tell me, if you can: {q}")
SYSTEMS = ("You are a helpful assistant.", "Answer the question.", "You are an expert. Think well and answer.",
           "You answer questions of people who are in a hurry.")
FRAMES: tuple[tuple[str, Callable[[str], Messages]], ...] = (
    ("question and answer", lambda q: [_user(f"Question: {q}\nAnswer:")]),
    ("in quotes", lambda q: [_user(f"\"{q}\"")]),
    ("after a greeting", lambda q: [_user("Hello!"), {"role": "assistant", "content": "Hello!"}, _user(q)]),
    ("as an instruction", lambda q: [_user(f"### Instruction:\n{q}\n\n### Response:")]))
_REPHRASE = ("Say the same in other words. Keep every name and every number, and ask for exactly the same. Write only the new "
             "text, nothing else.\n\n{q}")


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def typos(text: str, rng: random.Random, rate: float = 0.15) -> str:
    """Slips in ``rate`` of the words, at least one where a word can bear it: letters swapped, left out, doubled, or the key
    beside them; never the first letter of a word."""
    places = [m for m in _WORD.finditer(text) if not _is_name(text, m)]
    if not places:
        return text
    count = min(len(places), max(1, round(rate * len(places))))
    for match in sorted(rng.sample(places, count), key=lambda m: -m.start()):
        text = text[:match.start()] + _slip(match[0], rng) + text[match.end():]
    return text


def _is_name(text: str, match: re.Match[str]) -> bool:
    if not match[0][0].isupper():
        return False
    before = text[:match.start()].rstrip(" \"'([{\n")
    return bool(before) and before[-1] not in ".!?:"


def _slip(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    kind = rng.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap" and at < len(word) - 1 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2:]
    if kind == "drop":
        return word[:at] + word[at + 1:]
    near = _NEIGHBOURS.get(word[at].lower(), "")
    if kind == "neighbour" and near:
        return word[:at] + rng.choice(near) + word[at + 1:]
    return word[:at] + word[at] + word[at:]


def cased(text: str, number: int) -> str:
    """All small letters, all capitals, or each word with a capital, in turn."""
    return (text.lower(), text.upper(), text.title())[number % 3]


def spaced(text: str, rng: random.Random, number: int) -> str:
    """Blanks and ends as people send them: doubled, in front, without the mark at the end, on lines of their own."""
    kind = number % 4
    if kind == 0:
        parts = text.split(" ")
        at = rng.sample(range(len(parts)), max(1, len(parts) // 3))
        return " ".join(part + " " * (place in at) for place, part in enumerate(parts))
    if kind == 1:
        return f"\n  {text}  \n"
    if kind == 2:
        return text.rstrip(" .!?")
    return re.sub(r"(?<=[.!?]) ", "\n\n", text) + "\n"


def templated(text: str, number: int, first: int = 0) -> str:
    """The question within another sentence."""
    return TEMPLATES[(first + number) % len(TEMPLATES)].replace("{q}", text)


def rephrasing(text: str) -> Messages:
    """What a generator model is asked for."""
    return [_user(_REPHRASE.replace("{q}", text))]


def usable(text: str, made: str) -> bool:
    """Whether a model's paraphrase still asks the same, as far as rules tell: another text of like length with every number and
    every name in it."""
    if not made.strip() or made.strip() == text.strip() or len(made) > 3 * len(text) + 80:
        return False
    names = {m[0] for m in _WORD.finditer(text) if _is_name(text, m)} | set(re.findall(r"\d+", text))
    return all(name in made for name in names)


def shuffled(options: list[str], rng: random.Random) -> list[str]:
    """The options in another order; with two or more never in the same."""
    if len(set(options)) < 2:
        return list(options)
    while True:
        made = rng.sample(options, len(options))
        if made != options:
            return made
