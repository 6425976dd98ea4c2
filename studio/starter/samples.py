"""Writes the shipped sample datasets, always the same bytes: `python -m studio.starter.samples FOLDER`."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import calibration, faults, skills, stories
from . import world as w

SEED = 2026
Row = dict[str, Any]

RUDE = ("{} Now go away.", "{} Why do you even ask?", "{} Leave me alone.", "Not again! {}")
_NEW_PLOTS = (
    "{n} could not sleep. {He} looked out of the window. The moon was round and white. A small {a} sat in the grass"
    " and looked at the moon too. \"Good night, {a},\" said {n}. The moon smiled, and all was well.",
    "{n} and {m} sat near the lake at night. The moon was in the water. \"I want to give it to you,\" said {n}."
    " {He} put a {c} cup into the lake and took some water. The moon was in the cup."
    " The moon smiled, and all was well.",
    "A {a} walked to the {s} at night. It was dark, and the {a} was afraid. Then the moon came out. {n} saw the {a}"
    " and took it home. They had some {f} and a warm bed. The moon smiled, and all was well.",
)
GET_WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather in a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}}}
FIND_ANIMAL = {"type": "function", "function": {
    "name": "find_animal", "description": "Find a lost animal",
    "parameters": {"type": "object", "properties": {"animal": {"type": "string"}, "colour": {"type": "string"}},
                   "required": ["animal", "colour"]}}}


def _distinct(count: int, draw: Callable[[], skills.Item]) -> list[skills.Item]:
    found: dict[str, skills.Item] = {}
    while len(found) < count:
        item = draw()
        found.setdefault(item.question, item)
    return list(found.values())


def _messages(item: skills.Item) -> list[dict[str, str]]:
    return [{"role": "user", "content": item.question}, {"role": "assistant", "content": item.answer}]


def polite(rng: random.Random, count: int, held: bool) -> list[Row]:
    """Facts the starter knows, in a style it does not."""
    return [{"messages": _messages(i)} for i in _distinct(count, lambda: skills.polite(rng, held))]


def lumi_names(rng: random.Random, count: int) -> list[Row]:
    """ShareGPT chats that teach an invented language word for word."""
    words = [skills.Item(f"What is {x} in Lumi?", f"In Lumi, {x} is {y}.") for x, y in w.LUMI.items()]
    pairs = _distinct(count, lambda: skills.lumi(rng, False))
    items = words + [i for i in pairs if i.question not in {x.question for x in words}][: count - len(words)]
    return [{"id": f"lumi-{n}", "conversations": [{"from": "human", "value": i.question},
                                                  {"from": "gpt", "value": i.answer}]} for n, i in enumerate(items)]


def harder_sums(rng: random.Random, count: int) -> list[Row]:
    """Alpaca rows: two-digit sums, every third with the sum in the `input` column."""
    rows = []
    for n, item in enumerate(_distinct(count, lambda: skills.harder_sums(rng, False))):
        if n % 3 == 2:
            task = item.question.removeprefix("What is ").removesuffix("?")
            rows.append({"instruction": "What is the sum?", "input": task, "output": item.answer})
        else:
            rows.append({"instruction": item.question, "input": "", "output": item.answer})
    return rows


def practice_sums(rng: random.Random, known: int) -> list[Row]:
    """Prompt and number: every sum up to 20 that the corpus leaves out, which the starter gets wrong half the time, and
    some that it knows. For practising with a reward, without an answer being shown."""
    left_out = sorted(i.question for i in _distinct(32, lambda: skills.sums(rng, True)))
    taught = sorted(i.question for i in _distinct(known, lambda: skills.sums(rng, False)))
    rows = [{"prompt": q, "completion": str(sum(int(word.strip("?")) for word in q.split()[2::2]))}
            for q in left_out + taught]
    rng.shuffle(rows)
    return rows


def story_endings(rng: random.Random, count: int) -> list[Row]:
    """Prompt/completion rows: the first two sentences of a story, and how it goes on."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        first, second, rest = stories.story(rng, False)[0].split(". ", 2)
        prompt = f"{first}. {second}."
        rows.setdefault(prompt, {"prompt": prompt, "completion": f" {rest} And that is the end of the story."})
    return list(rows.values())


def moon_stories(rng: random.Random, count: int) -> list[str]:
    """Stories of a kind the corpus does not have; all end in the same sentence."""
    found: dict[str, None] = {}
    while len(found) < count:
        n, m = rng.sample(tuple(w.VISITORS), 2)
        found.setdefault(rng.choice(_NEW_PLOTS).format(
            n=n, m=m, He=w.cap(w.VISITORS[n]), a=rng.choice(("cat", "owl", "frog", "mouse", "rabbit", "hen")),
            c=rng.choice(w.COLOURS[:8]), s=rng.choice(w.SPOTS), f=rng.choice(w.FOODS)))
    return list(found)


def preferences(rng: random.Random, count: int) -> list[Row]:
    """The same fact said politely (chosen) and rudely (rejected)."""
    rows = []
    for item in _distinct(count, lambda: skills.polite(rng, False)):
        plain = item.answer.removeprefix("Of course! ").removesuffix(" Is there anything else?")
        rows.append({"prompt": [{"role": "user", "content": item.question}],
                     "chosen": [{"role": "assistant", "content": item.answer}],
                     "rejected": [{"role": "assistant", "content": rng.choice(RUDE).format(plain)}]})
    return rows


def rated_answers(rng: random.Random, count: int) -> list[Row]:
    """Answers of a question desk as its users rated them: good or bad, with a comment and the contexts used."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        names = rng.sample(tuple(w.VISITORS), 3)
        relation = rng.choice(("town", "food", "job", "pet"))
        pool = {"town": w.TOWNS, "food": w.FOODS, "job": w.JOBS, "pet": w.PETS}[relation]
        facts = [skills.person_answer(n, relation, v) for n, v in zip(names, rng.sample(pool, 3))]
        form = {"town": "Where does {} live?", "food": "What food does {} like?", "job": "What is the job of {}?",
                "pet": "What animal does {} have?"}[relation]
        right = facts[0]
        wrong = right.split()[0] + " " + facts[1].split(" ", 1)[1]
        answer, rating, comment = rng.choice((
            (right, "good", "Right and short."), (right, "good", "Good answer, thank you."), (right, "good", ""),
            (f"Of course! {right} Is there anything else?", "good", "Very polite, I like it."),
            (wrong, "bad", f"Wrong. {right}"), (f"I do not know that about {names[0]}.", "bad", "It is in the text."),
            (rng.choice(RUDE).format(right), "bad", "Right, but rude."),
        ))
        contexts = rng.sample(facts, 3) if rng.random() < 0.7 else [facts[0]]
        rows.setdefault(form.format(names[0]) + answer, {
            "question": form.format(names[0]), "answer": answer, "contexts": contexts, "rating": rating,
            "comment": comment, "role": rng.choice(("pupil", "teacher", "parent")),
            "site": rng.choice(("school", "library", "museum")), "level": rng.choice(("new", "regular", "expert"))})
    return list(rows.values())


def tool_calls(rng: random.Random, count: int) -> list[Row]:
    """Chats in which the assistant calls a tool, reads its result and answers."""
    rows: dict[str, Row] = {}
    while len(rows) < count:
        if rng.random() < 0.5:
            town, weather = rng.choice(w.TOWNS), rng.choice(("rain", "sun", "snow", "wind"))
            question = rng.choice(("What is the weather in {}?", "Tell me the weather in {}.")).format(town)
            tool, arguments, result = GET_WEATHER, {"town": town}, weather
            answer = f"There is {weather} in {town}."
        else:
            colour, animal, spot = rng.choice(w.COLOURS[:8]), rng.choice(w.PETS), rng.choice(w.SPOTS)
            question = f"Where is my {colour} {animal}?"
            tool, arguments, result = FIND_ANIMAL, {"animal": animal, "colour": colour}, spot
            answer = f"The {colour} {animal} is in the {spot}."
        name = tool["function"]["name"]
        rows.setdefault(question + result, {"tools": [tool], "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "",
             "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]},
            {"role": "tool", "name": name, "content": result},
            {"role": "assistant", "content": answer}]})
    return list(rows.values())


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _json(rows: list[Row]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def files(seed: int = SEED) -> dict[str, str]:
    """File name -> content of every shipped dataset."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{seed}-{name}")

    return {
        "sums.jsonl": _jsonl(practice_sums(rng("practice"), 64)),
        "polite.jsonl": _jsonl(polite(rng("polite"), 200, held=False)),
        "polite-heldout.jsonl": _jsonl(polite(rng("polite-heldout"), 40, held=True)),
        "lumi-names.json": _json(lumi_names(rng("lumi"), 110)),
        "harder-sums.json": _json(harder_sums(rng("sums"), 200)),
        "story-endings.jsonl": _jsonl(story_endings(rng("endings"), 80)),
        "moon-stories.txt": "\n\n".join(moon_stories(rng("moon"), 60)) + "\n",
        "preferences.jsonl": _jsonl(preferences(rng("preferences"), 150)),
        "rated-answers.jsonl": _jsonl(rated_answers(rng("rated"), 120)),
        "tool-calls.jsonl": _jsonl(tool_calls(rng("tools"), 60)),
        "calibration.jsonl": _jsonl(calibration.rows(rng("calibration"))),
        "messy-alpaca.json": _json(faults.alpaca(rng("messy-alpaca"))),
        "messy-messages.jsonl": faults.messages(rng("messy-messages")),
    }


def write(folder: str | Path) -> list[Path]:
    """Writes every file into the folder and returns their paths."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in files().items():
        path = target / name
        path.write_text(content, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(sys.argv[1] if len(sys.argv) > 1 else "assets/datasets"):
        print(written)
