"""Does a model keep the rules of a system prompt, with the prompt and without it, rule by rule and model by model?

The same questions and rules as the dataset step ``prompt_check`` (:mod:`studio.datasets.steps.prompt_check`), which asks one
model and keeps its answers as a dataset; here several models are compared and the figures are an evaluation's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from studio.datasets import answers, judge, llm, rules
from studio.datasets.steps import prompt_check
from studio.datasets.steps.distill_prompt import PromptFields, refuse
from studio.errors import StudioError
from studio.evals.probes.asking import Asker, Probe, ProbeRecipe, Round, Task, pair, shown
from studio.evals.probes.intervals import rate
from studio.evals.results import SHARE, Results, Sample
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

WAYS = {"asked": "With the prompt", "unasked": "Without the prompt"}
MOST_READ = 50_000


class PromptFollowingRecipe(PromptFields, ProbeRecipe):
    """The prompt, its rules, and the questions."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "prompt_following"

    dataset: str = field("shipped:polite-heldout", "Dataset", "Questions that none of the models was tuned on. Of a dataset "
                         "with a test or validation split, that one is asked.", widget="dataset", max_length=1000)
    questions: int = field(40, "Questions", "How many of the dataset are asked, from its beginning on.", ge=1, le=10_000)
    judge: str = field("", "Judge", "The model that decides on rules which cannot be counted. Needed where there are such "
                       "rules.", widget="model", max_length=1000)


class PromptFollowing(Probe):
    """Rules of a system prompt, one by one."""

    title = "System-prompt following"
    summary = "Checks the rules of a system prompt one by one on held-out questions, with and without the prompt."
    paper = "https://arxiv.org/abs/2209.15189"
    Recipe = PromptFollowingRecipe

    @classmethod
    def check(cls, recipe: PromptFollowingRecipe) -> None:
        super().check(recipe)
        refuse(recipe)
        if not any(line.strip() for line in recipe.rules):
            raise StudioError("There are no rules to check.", "Write at least one, e.g. 'at most: 40 words'.", "rules")
        texts = [one.text for one in rules.parse(recipe.rules)]
        if twice := next((text for text in texts if texts.count(text) > 1), ""):
            raise StudioError(f"The rule '{twice[:60]}' is listed twice.", "Remove one of the two.", "rules")
        if any(one.judged for one in rules.parse(recipe.rules)) and not recipe.judge:
            told = next(one.text for one in rules.parse(recipe.rules) if one.judged)
            raise StudioError(f"The rule '{told[:60]}' cannot be counted.", "Choose a judge for it, or write it as 'contains: …'.", "judge")
        from studio.library import refs

        refs.resolve_dataset(recipe.dataset)

    @classmethod
    def judged(cls, recipe: PromptFollowingRecipe) -> bool:
        return bool(recipe.judge) and any(one.judged for one in rules.parse(recipe.rules))

    @classmethod
    def requests(cls, recipe: PromptFollowingRecipe) -> int:
        return recipe.questions * 2

    @classmethod
    def tasks(cls, recipe: PromptFollowingRecipe) -> dict[str, Task]:
        wanted = rules.parse(recipe.rules)
        metrics = {"rules_kept": SHARE, "all_rules": SHARE} | {f"rule_{n}": SHARE for n in range(1, len(wanted) + 1)}
        about = {f"rule_{n}": one.text for n, one in enumerate(wanted, 1)}
        return {way: Task(title, "all_rules", metrics, {"about": about}) for way, title in WAYS.items()}

    @classmethod
    def begin(cls, recipe: PromptFollowingRecipe, ctx: Context) -> None:
        ctx.log(f"{len(_questions(recipe))} questions, each with the prompt and without it")

    @classmethod
    def work(cls, recipe: PromptFollowingRecipe, ctx: Context, results: Results, number: int, round: Round) -> None:
        wanted, rows = rules.parse(recipe.rules), _questions(recipe)

        def make(ask: Asker, row: dict[str, Any]) -> dict[str, Sample]:
            found = prompt_check.asked(recipe, wanted, row, ask, round.client, None, round.by)
            return {way: sample_of(recipe, key_of(row), row, way, found) for way in WAYS}

        found = dict(round.each([(key_of(row), row) for row in rows], make))
        for way in WAYS:
            if not results.finished(number, way):
                results.add(number, way, [found[key][way] for row in rows if (key := key_of(row)) in found],
                            usage=round.client.usage.to_dict())
        round.told()

    @classmethod
    def facts(cls, recipe: PromptFollowingRecipe, results: Results) -> dict[str, Any]:
        """``rules``: of each rule its text and, for each model and way, ``{k, n, value, low, high, undecided}``; ``all``: the
        same for answers that keep every rule."""
        wanted = rules.parse(recipe.rules)
        lines = [{"rule": one.text, "judged": one.judged, "cells": []} for one in wanted]
        whole: list[dict[str, Any]] = []
        for number in range(len(results.models)):
            for way in WAYS:
                if (kept := pair(results, number, way)) is None:
                    continue
                for place, line in enumerate(lines, 1):
                    values = [one["scores"][f"rule_{place}"] for one in kept["samples"] if f"rule_{place}" in one["scores"]]
                    line["cells"].append({"model": number, "way": way, "undecided": len(kept["samples"]) - len(values)} | rate(values))
                values = [one["scores"]["all_rules"] for one in kept["samples"] if "all_rules" in one["scores"]]
                whole.append({"model": number, "way": way, "undecided": len(kept["samples"]) - len(values)} | rate(values))
        return {"rules": lines, "all": whole}


def _questions(recipe: PromptFollowingRecipe) -> tuple[dict[str, Any], ...]:
    return _drawn(recipe.dataset, recipe.questions)


@lru_cache(maxsize=2)
def _drawn(ref: str, most: int) -> tuple[dict[str, Any], ...]:
    from studio.datasets import formats
    from studio.datasets.version import META, Version
    from studio.library import refs

    path = refs.resolve_dataset(ref).path
    if path is not None and path.is_dir() and (path / META).exists():
        version = Version(path)
        split = next((name for name in ("test", "validation") if name in version.splits), "train")
        rows: Any = (item.row for item in version.items(split))
    else:
        rows = iter(formats.load_rows(ref, {}, purpose="as_is"))
    made: dict[str, dict[str, Any]] = {}
    for row in rows:
        if answers.asked(row):
            made.setdefault(key_of(row), row)
        if len(made) >= most:
            break
    if not made:
        raise StudioError("Not one row of this dataset asks something.", "Choose a dataset with questions.", "dataset")
    return tuple(made.values())


def key_of(row: dict[str, Any]) -> str:
    """Id of a question, from its text alone."""
    return f"{llm.derived(0, answers.key(answers.asked(row) or [])):08x}"


def sample_of(recipe: PromptFollowingRecipe, key: str, row: dict[str, Any], way: str, found: dict[str, Any]) -> Sample:
    """One answer with the rules that it keeps; a rule that a judge could not decide has no score."""
    part = found[way]
    held = {rule: word for rule, word in part["kept"].items() if word in ("kept", "broken")}
    each = {f"rule_{n}": float(held[rule] == "kept") for n, rule in enumerate(part["kept"], 1) if rule in held}
    scores = dict(each)
    if each:
        scores["rules_kept"] = sum(each.values()) / len(each)
        if len(each) == len(part["kept"]) or 0.0 in each.values():
            scores["all_rules"] = float(all(each.values()))
    broken = next((rule for rule, word in held.items() if word == "broken"), "")
    turns = [turn for turn in answers.asked(row) or [] if turn["role"] != "system"]
    messages = answers.with_system(turns, recipe.system_prompt) if way == "asked" else turns
    return Sample(key, shown(messages), part["answer"], answers.answer(row), scores,
                  {"asked": WAYS[way]} | ({"broken": broken[:80]} if broken else {}),
                  {"question": judge.question_of(row), "kept": part["kept"]})
