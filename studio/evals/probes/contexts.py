"""Questions that a context answers: from the starter's little world, or from a dataset with questions, contexts and answers.

The paragraphs of the little world are of two kinds. About *visitors* nobody knows anything but what the paragraph says: asked
without it, the only honest answer is not to know. About *residents* the starter learned the truth, so a paragraph that says
otherwise sets its memory against the text. For any other model both are made up.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from studio.datasets import answers
from studio.datasets.llm import derived
from studio.errors import StudioError

_CONTEXTS = ("context", "contexts", "passage", "document", "documents", "article", "paragraph", "input")
_QUESTIONS = ("question", "query", "prompt", "instruction")
_ANSWERS = ("answer", "answers", "target", "completion", "response", "output")
MOST_READ = 50_000


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        context: The text that answers it.
        wrong: Another text: one that says something else (``false`` is then what it says), or one about something else.
        answer: What is right, as short as it is.
        false: What the wrong text says; empty where it does not answer at all.
    """

    id: str
    question: str
    context: str
    answer: str
    wrong: str
    false: str = ""
    tags: dict[str, str] = field(default_factory=dict)


def little_world(most: int, seed: int) -> list[Asked]:
    """Questions about paragraphs of the starter's world, half of them about visitors; the same for the same seed."""
    from studio.starter import skills, world

    rng, made = random.Random(f"contexts/{seed}"), {}
    pools = {"town": world.TOWNS, "pet": world.PETS, "food": world.FOODS, "job": world.JOBS}
    people = {one.name: (one.he, {relation: getattr(one, relation) for relation in pools}) for one in world.PEOPLE}
    for _ in range(most * 50):
        if len(made) == most:
            break
        known, relation, several = len(made) % 2 == 1, rng.choice(tuple(pools)), rng.random() < 0.5
        names = rng.sample(tuple(people if known else world.VISITORS), 3)
        facts = [people[name][1] if known else {key: rng.choice(pool) for key, pool in pools.items()} for name in names]
        other = rng.choice([value for value in pools[relation] if value not in [one[relation] for one in facts]])
        if several and relation == "town":  # where three of them live, one asked for
            at, said = rng.randrange(3), [(name, "town", one["town"]) for name, one in zip(names, facts, strict=True)]
        else:  # three things about one
            order = rng.sample([key for key in pools if key != relation], 2)
            order.insert(at := rng.randrange(3), relation)
            he = people[names[0]][0] if known else world.VISITORS[names[0]]
            said = [(names[0] if not n else world.cap(he), key, facts[0][key]) for n, key in enumerate(order)]
            names = [names[0]] * 3
        text = [skills.person_answer(*one) for one in said]
        false = [skills.person_answer(name, key, other if n == at else value) for n, (name, key, value) in enumerate(said)]
        if len({value for _, _, value in said}) < 3 or not world.is_held_out(" ".join(text), 2):
            continue
        question = rng.choice(skills._PEOPLE_FORMS[relation]).format(n=names[at])
        one = Asked(_id(question, " ".join(text)), question, " ".join(text), said[at][2], " ".join(false), other,
                    {"about": "resident" if known else "visitor", "relation": relation})
        made.setdefault(one.id, one)
    return list(made.values())


def drawn(ref: str, most: int, seed: int) -> list[Asked]:
    """Questions of a dataset with columns for the question, its context and the answer, ``most`` drawn by the seed.

    ``wrong_context`` and ``wrong_answer`` are taken where the rows have them; else the context of another row stands in, one
    that does not hold the answer.

    Raises:
        StudioError: no row has all three (``dataset``).
    """
    from studio.datasets import formats
    from studio.evals.probes import words

    rows = []
    for row in islice(formats.open_source(ref)[0], MOST_READ):
        question = next((row[name] for name in _QUESTIONS if isinstance(row.get(name), str) and row[name].strip()), "")
        context = _text(next((row[name] for name in _CONTEXTS if row.get(name)), ""), "\n\n")
        answer = _text(next((row[name] for name in _ANSWERS if row.get(name)), ""), first=True)
        if isinstance(row.get("messages"), list):
            answer = answers.answer(row)
        if question and context and answer:
            rows.append((question, context, answer, row))
    if not rows:
        raise StudioError("No row of this dataset has a question, a context and an answer.",
                          "Name its columns 'question', 'context' and 'answer', or leave the dataset empty for the built-in "
                          "questions.", "dataset")
    rng = random.Random(f"contexts/{seed}")
    chosen = rows if len(rows) <= most else [rows[n] for n in sorted(rng.sample(range(len(rows)), most))]
    made = []
    for question, context, answer, row in chosen:
        wrong, false = _text(row.get("wrong_context"), "\n\n"), _text(row.get("wrong_answer"), first=True)
        if not wrong:
            others = [one[1] for one in rng.sample(rows, min(len(rows), 20)) if one[1] != context and not words.says(one[1], answer, question)]
            wrong, false = (others[0], "") if others else ("", "")
        tags = {key: str(row[key]) for key in ("topic", "category", "level") if isinstance(row.get(key), str)}
        made.append(Asked(_id(question, context), question.strip(), context, answer.strip(), wrong, false, tags))
    return made


def _text(value: Any, between: str = "\n", first: bool = False) -> str:
    """A column as text: of a list all of it or the first, of SQuAD's ``{"text": [...]}`` its texts."""
    if isinstance(value, dict):
        value = value.get("text") or value.get("content") or value.get("value") or ""
    if isinstance(value, list):
        parts = [_text(one, between, first) for one in value]
        return (parts[0] if parts else "") if first else between.join(filter(None, parts))
    return str(value).strip() if value is not None else ""


def _id(question: str, context: str) -> str:
    return f"{derived(0, f'{question}/{context}'):08x}"
