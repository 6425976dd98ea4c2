"""A few samples scored before anything is trained, and why. Runs in a probe (:mod:`studio.jobs.probe`)."""

from __future__ import annotations

import re
from itertools import islice
from types import SimpleNamespace
from typing import Any

from studio import rewards
from studio.datasets import llm
from studio.errors import StudioError
from studio.recipe import parse
from studio.rewards.base import question_of
from studio.rewards.judge import Aside

ROWS, ANSWERS = 4, 2  # rows of the data; answers of the model to each
LONGEST = 256  # tokens of such an answer: somebody is waiting
SHOWN = 4000  # characters of a text
_NUMBER = re.compile(r"\d+(?!.*\d)", re.DOTALL)


def tried(values: dict[str, Any], text: str | None = None, row: int = 0, generate: bool = False) -> dict[str, Any]:
    """Score answers to the first rows of a recipe's data.

    Args:
        values: A recipe with ``rewards``, as plain values.
        text: An answer that a person typed, to row number ``row``; nothing else is scored then.
        generate: Let the model answer too.

    Returns:
        ``rewards`` [{name, title, weight}], ``rows`` [{prompt, samples: [{kind, text, total, scores: [{score,
        reason}]}]}] and ``notes`` (sentences). ``kind`` is ``reference`` (the row's own answer), ``damaged`` (the same,
        made wrong), ``model`` or ``typed``; a score or total is ``None`` where nothing can be said.

    Raises:
        StudioError: bad rewards or data, or a model that is not there.
    """
    recipe = parse(values)
    heard = Heard()
    found = _rows(recipe)
    if text is None:
        tries = [sample for number, one in enumerate(found) for sample in _samples(number, one["answer"])]
        if generate:
            tries = sorted(tries + _answers(recipe, found, heard), key=lambda sample: sample[0])
    else:
        tries = [(min(max(0, row), len(found) - 1), "typed", text)]
    functions = rewards.build(recipe.rewards, heard, recipe)
    try:
        scores = [_scored(function, found, tries) for function in functions]
    finally:
        rewards.close(functions)
    weights = rewards.weights(recipe.rewards)
    made: list[dict[str, Any]] = [{"prompt": question_of(one["prompt"])[:SHOWN], "samples": []} for one in found]
    for i, (number, kind, said) in enumerate(tries):
        mine = [each[i] for each in scores]
        known = [weight * one["score"] for weight, one in zip(weights, mine, strict=True) if one["score"] is not None]
        made[number]["samples"].append({"kind": kind, "text": said[:SHOWN], "total": sum(known) if known else None,
                                        "scores": mine})
    shown = [{"name": function.__name__, "title": function.reward.title, "weight": weight}
             for function, weight in zip(functions, weights, strict=True)]
    return {"rewards": shown, "rows": [one for one in made if one["samples"]],
            "notes": heard.notes + _doubts(made, shown)}


def _rows(recipe: Any) -> list[dict[str, Any]]:
    """The first rows as the trainer gives them to the rewards."""
    from studio.aligners import data

    found = list(islice(data.listed(recipe.dataset, recipe.columns, "prompts")[0], ROWS))
    return data.converted(found, "prompts", data.refs_label(recipe.dataset))[0]


def _samples(number: int, answer: str) -> list[tuple[int, str, str]]:
    return [(number, "reference", answer), (number, "damaged", damaged(answer))] if answer else []


def damaged(answer: str) -> str:
    """An answer made wrong: its last number one higher, or, where there is none, its words turned round."""
    if match := _NUMBER.search(answer):
        return f"{answer[:match.start()]}{int(match[0]) + 1}{answer[match.end():]}"
    return " ".join(reversed(answer.split()))


def _answers(recipe: Any, found: list[dict[str, Any]], heard: Heard) -> list[tuple[int, str, str]]:
    """What the model says as it is now."""
    longest = min(LONGEST, getattr(recipe, "max_completion_length", None) or LONGEST)
    settings = SimpleNamespace(temperature=getattr(recipe, "temperature", 1.0), top_p=1.0, max_new_tokens=longest,
                               seed=0, concurrency=1, timeout=120, price_in=0.0, price_out=0.0)
    made = []
    with llm.open(settings, Aside(None), recipe.model, "", "model") as client:
        for number, row in enumerate(found):
            asked = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
            try:
                made += [(number, "model", answer.text) for answer in client.ask(asked, n=ANSWERS)]
            except llm.Failed as err:
                heard.notes.append(f"The model gave no answer to row {number + 1}: {err}.")
    return made


def _scored(function: Any, found: list[dict[str, Any]], tries: list[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """{score, reason} of every try, by one reward."""
    rows = [found[number] for number, _, _ in tries]
    columns = {key: [row[key] for row in rows] for key in found[0] if key != "prompt"}
    scores = function(prompts=[row["prompt"] for row in rows], completions=[text for _, _, text in tries], **columns)
    return [{"score": score, "reason": reason} for score, reason in zip(scores, function.reasons, strict=True)]


def _doubts(rows: list[dict[str, Any]], shown: list[dict[str, Any]]) -> list[str]:
    """What a careful person would notice."""
    pairs = [(good, bad) for row in rows for good in row["samples"] for bad in row["samples"]
             if (good["kind"], bad["kind"]) == ("reference", "damaged")]
    notes = []
    lost = [good for good, bad in pairs
            if good["total"] is None or bad["total"] is None or good["total"] <= bad["total"]]
    if lost:
        notes.append(f"{len(lost)} of {len(pairs)} right answers score no higher than the same answer made wrong: "
                     "these rewards do not tell right from wrong.")
    for number, one in enumerate(shown):
        values = [sample["scores"][number]["score"] for row in rows for sample in row["samples"]]
        if len(values) > 1 and set(values) == {None}:
            notes.append(f"'{one['title']}' has nothing to say of any of these answers.")
    return notes


class Heard:
    """Keeps what a run would be told, as sentences."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def log(self, text: str) -> None:
        """Loading and the like."""

    def warning(self, code: str, message: str, hint: str = "") -> None:
        self.notes.append(message)


def check(recipe: Any) -> None:
    """Refuse a recipe whose rewards cannot be tried.

    Raises:
        StudioError: it has none.
    """
    if not hasattr(recipe, "rewards"):
        raise StudioError("This method learns without rewards.", "Choose GRPO or RLOO.", "method")
    rewards.check(recipe.rewards)
