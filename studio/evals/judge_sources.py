"""Where the answers that a judge reads come from: models asked now, a finished evaluation, columns of data, battles of the arena."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from studio import settings
from studio.datasets import llm
from studio.errors import StudioError
from studio.evals import results
from studio.evals.asking import Asking, Bar, Question, questions, text_of

TAKEN = "answer"  # the row's own answer, among the columns with answers


@dataclass
class Item:
    """A question with what was said to it.

    Attributes:
        answers: Number of the model -> its answer.
        facts: Number of the model -> what else is known of that answer: tokens, whether it was cut, why there is none.
        vote: Of a battle: what its left model got from a person (1, 0.5 or 0); ``None`` elsewhere.
    """

    id: str
    question: str
    target: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    vote: float | None = None

    def pairs(self, against: str) -> list[tuple[int, int]]:
        """Which of the models meet here; of a battle its two, the left one first."""
        there = list(self.answers)
        if self.vote is not None:
            return [(there[0], there[1])]
        return [(0, other) for other in there if other and 0 in there] if against == "first" else list(combinations(sorted(there), 2))


@dataclass
class Source:
    """The models by (reference, label), and their answers. ``asked``: the questions, where the models have yet to answer them."""

    models: list[tuple[str, str]]
    items: list[Item]
    parents: list[tuple[str, str]] = field(default_factory=list)
    asked: list[Question] = field(default_factory=list)


def opened(run: str, task: str = "") -> tuple[Path, dict[str, Any]]:
    """(folder, figures) of a finished evaluation.

    Raises:
        StudioError: there is none, or it has no such task (``run``, ``task``).
    """
    if not run:
        raise StudioError("No evaluation is named.", "Open one on the Eval tab; its number stands in the address.", "run")
    try:
        folder = settings.run_dir(run) / "output"
        found = results.opened(folder)
    except (StudioError, ValueError, OSError):
        found = None
    if found is None or not (folder / results.SAMPLES).is_file():
        raise StudioError(f"The run {run} holds no answers to judge.", "Name an evaluation that is finished.", "run")
    if task and task not in found["tasks"]:
        raise StudioError(f"That run has no task '{task}'.", f"It has {', '.join(found['tasks'])}.", "task")
    return folder, found


def voted(owner: str | None) -> list[dict[str, Any]]:
    """Battles with a vote and two answers that ``owner`` may read: on a Space everybody's for its author, else one's own."""
    from studio.arena import battles, pool

    rows = battles.voted(voter=None if owner is None or pool.may_change(owner) else owner)
    return [row for row in rows if row["a_answer"].get("text", "").strip() and row["b_answer"].get("text", "").strip()]


def arena_prompts() -> dict[str, Any]:
    """The arena's choice of prompts.

    Raises:
        StudioError: it has none (``arena_prompts``).
    """
    from studio.arena import pool

    found = pool.load()
    if not found["dataset"]:
        raise StudioError("The arena has no prompts of its own.", "Choose a dataset in its settings, or one here.", "arena_prompts")
    return found


def size(recipe: Any) -> tuple[int, int]:
    """(questions, models) as far as they are known without reading the data."""
    if recipe.answers_from == "votes":
        rows = voted(None)
        return min(recipe.samples, len(rows)), 2
    if recipe.answers_from == "run":
        found = opened(recipe.run, recipe.task)[1]
        asked = sum(max((one["n"] for one in found["scores"] if one["task"] == task), default=0) for task in found["tasks"]
                    if recipe.task in ("", task))
        return min(recipe.samples, asked or recipe.samples), len(found["models"])
    return recipe.samples, len(recipe.models if recipe.answers_from == "models" else recipe.answer_columns)


def read(recipe: Any, ctx: Any, owner: str | None) -> Source:
    """Models and questions, with answers as far as they are there already.

    Raises:
        StudioError: unreadable data, a run or column that is not there, nothing to judge.
    """
    made = {"models": _models, "run": _run, "columns": _columns, "votes": _votes}[recipe.answers_from](recipe, ctx, owner)
    if recipe.mode == "reference":
        kept = [place for place, item in enumerate(made.items) if item.target.strip()]
        if not kept:
            raise StudioError("None of the questions has a right answer to judge beside.", "Choose data with answers, or give marks.", "dataset")
        if len(kept) < len(made.items):
            ctx.log(f"{len(made.items) - len(kept)} of {len(made.items)} questions have no right answer and are left out.")
        made.items = [made.items[place] for place in kept]
        made.asked = [made.asked[place] for place in kept] if made.asked else []
    return made


def _models(recipe: Any, ctx: Any, owner: str | None) -> Source:
    from studio.chat import session

    ref, columns = recipe.dataset, recipe.columns
    if recipe.arena_prompts:
        found = arena_prompts()
        ref, columns = found["dataset"], found["columns"]
    asked = questions(ref, columns, recipe.samples, recipe.seed, ctx)
    return Source([(one, session.label_of(one)) for one in recipe.models], [_item(one) for one in asked], [(ref, "data")], asked)


def _item(one: Question) -> Item:
    return Item(one.id, one.text, one.target, one.tags)


def _columns(recipe: Any, ctx: Any, owner: str | None) -> Source:
    from studio.datasets import answers

    items = []
    for one in questions(recipe.dataset, recipe.columns, recipe.samples, recipe.seed, ctx):
        item = _item(one)
        for number, name in enumerate(recipe.answer_columns):
            if name in ("chosen", "rejected") and name in one.row:
                value: Any = answers.answer(one.row, name)
            elif name in (TAKEN, "completion"):
                value = answers.answer(one.row)
            else:
                value = (one.row.get("tags") or {}).get(name)
            if value not in (None, ""):
                item.answers[number] = str(value)
        item.tags = {name: value for name, value in item.tags.items() if name not in recipe.answer_columns}
        items.append(item)
    for number, name in enumerate(recipe.answer_columns):
        if not any(number in item.answers for item in items):
            raise StudioError(f"The dataset has no column '{name}' with answers.", "Write it as the dataset does.", "answer_columns")
    return Source([(f"{results.COLUMN}{name}", name) for name in recipe.answer_columns], items, [(recipe.dataset, "data")])


def _run(recipe: Any, ctx: Any, owner: str | None) -> Source:
    folder, found = opened(recipe.run, recipe.task)
    several = len(found["tasks"]) > 1 and not recipe.task
    items: dict[tuple[str, str], Item] = {}
    for line in results.samples(folder):
        if recipe.task not in ("", line["task"]):
            continue
        key = (line["task"], line["id"])
        item = items.setdefault(key, Item(f"{line['task']}:{line['id']}" if several else line["id"], line["prompt"],
                                          line.get("target") or "", dict(line.get("tags") or {})))
        item.answers[line["model"]] = line["answer"]
    return Source([(one["ref"], one["label"]) for one in found["models"]], drawn(list(items.values()), recipe))


def _votes(recipe: Any, ctx: Any, owner: str | None) -> Source:
    return battles_of(voted(owner), recipe)


def battles_of(rows: list[dict[str, Any]], recipe: Any, most: int | None = None) -> Source:
    """Battles as questions with two answers each, so many of them drawn by the seed."""
    from studio.arena import battles
    from studio.chat import session

    rows = drawn(rows, recipe, most)
    refs = sorted({row[side] for row in rows for side in ("a", "b")})
    items = []
    for row in rows:
        said = {refs.index(row[side]): row[f"{side}_answer"]["text"] for side in ("a", "b")}
        items.append(Item(row["id"], text_of(row["prompt"]), "", {"tag": row["tag"]} if row["tag"] else {}, said, vote=battles.SCORE[row["vote"]]))
    return Source([(ref, session.label_of(ref)) for ref in refs], items)


def drawn(rows: list, recipe: Any, most: int | None = None) -> list:
    """``samples`` of them by the seed, in their order."""
    chosen = sorted(random.Random(recipe.seed).sample(range(len(rows)), min(recipe.samples if most is None else most, len(rows))))
    return [rows[i] for i in chosen]


def answer(source: Source, recipe: Any, ctx: Any, journal: llm.Journal, bar: Bar) -> None:
    """Let the models answer, one model after the other, so that only one is in memory.

    Raises:
        studio.datasets.step.Stopped: as asked.
        StudioError: a model or server that is not there.
    """
    for number, (ref, label) in enumerate(source.models):
        work = Asking(recipe, ctx, journal, lambda ref=ref: llm.open(recipe, ctx, ref, "", "models"), bar)
        jobs = [(f"answer/{number}/{item.id}", one) for item, one in zip(source.items, source.asked, strict=True)]
        places = {key: item for (key, _), item in zip(jobs, source.items, strict=True)}
        for key, found in work.each(jobs, _said):
            item = places[key]
            item.facts[number] = {name: value for name, value in found.items() if name != "text"}
            if "text" in found:
                item.answers[number] = found["text"]
        missing = sum(number not in item.answers for item in source.items)
        if missing:
            why = next(item.facts[number].get("failed", "") for item in source.items if number not in item.answers)
            ctx.warning("unanswered", f"{label} gave no answer to {missing} of {len(source.items)} questions: {why}.",
                        "They are not judged for it.")


def _said(question: Question, ask: Any) -> dict[str, Any]:
    made = ask.all("answer", question.messages)[0]
    return {"text": made.text, "cut": made.cut, "tokens": made.completion_tokens}
