"""Robustness: does the answer change when only the wording does?

Each question is asked plainly and in variations that leave its meaning alone, in the spirit of CheckList
(https://arxiv.org/abs/2005.04118). Every kind of variation is a task over the same questions, so what is lost to it is a
paired difference. ``flip_rate`` is the share of variations whose answer is right where the plain one is wrong or the other way
round; ``same_answer`` that of answers in the same words.
"""

from __future__ import annotations

import random
import statistics
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from studio.datasets import llm, verify
from studio.datasets.llm import Messages
from studio.errors import StudioError
from studio.evals.probes import items, perturb, words
from studio.evals.probes.asking import Asker, Probe, ProbeRecipe, Round, Task, pair, shown
from studio.evals.probes.intervals import rate
from studio.evals.results import SHARE, Results, Sample
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

KINDS = {"paraphrase": "In other words", "typos": "With typing mistakes", "case": "Other case", "whitespace": "Other blanks",
         "choices": "Other order of choices", "system": "Other system prompts", "framing": "Other frames"}
PLAIN = "plain"
BAD = {"higher_is_better": False, "low": 0.0, "high": 1.0}
MATCHES = {"contains": "The words of the right answer occur", "normalised": "The same words", "exact": "The same text",
           "number": "The same number at the end"}


class RobustnessRecipe(ProbeRecipe):
    """Which questions, and how they are varied."""

    method: ClassVar[str] = "robustness"

    dataset: str = field("shipped:polite-heldout", "Dataset", "Questions with right answers: chats, questions and answers, or rows with a "
                         "question, choices and an answer.", widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by itself.",
                                    widget="hidden")
    questions: int = field(40, "Questions", "How many rows, drawn once by the seed. Each is asked plainly and in every "
                           "variation.", ge=2, le=10_000)
    kinds: list[Literal[*KINDS]] = field(  # type: ignore[valid-type]
        ["paraphrase", "typos", "case", "whitespace", "choices", "system", "framing"], "Variations",
        "What is changed. The order of choices can only be changed where rows have choices.", choices=dict(KINDS))
    variants: int = field(2, "Of each kind", "Variations of each kind a question. More make smaller errors.", ge=1, le=16)
    match: Literal[*MATCHES] = field(  # type: ignore[valid-type]
        "contains", "Right is", "How an answer is told right from wrong. Of multiple choice the chosen option counts.",
        choices=dict(MATCHES))
    typo_rate: float = field(0.15, "Mistakes", "Share of the words that get a typing mistake, at least one a question.",
                             group="method", gt=0, le=1, when={"kinds": ["typos"]})
    systems: list[str] = field(list(perturb.SYSTEMS), "System prompts", "Prompts that should not change what is right, one a "
                               "line.", group="method", widget="lines", max_length=20, when={"kinds": ["system"]})
    generator: str = field("", "Paraphrases by", "A model that says each question in other words, once for all models. Left "
                           "empty, sentences of ours are put around it.", widget="model", max_length=1000, group="method")
    generator_model: str = field("", "Paraphrasing model at the address", "Which of that server's models writes them.",
                                 max_length=300, group="advanced")


class Robustness(Probe):
    """The same questions, varied."""

    title = "Robustness"
    summary = "Asks the same questions in other words, with typing mistakes, in another order, and shows how much of the score stays."
    paper = "https://arxiv.org/abs/2005.04118"
    Recipe = RobustnessRecipe

    @classmethod
    def check(cls, recipe: RobustnessRecipe) -> None:
        super().check(recipe)
        from studio.library import refs

        refs.resolve_dataset(recipe.dataset)
        if not recipe.kinds:
            raise StudioError("No variation is chosen.", "Choose at least one.", "kinds")
        if "system" in recipe.kinds and not any(line.strip() for line in recipe.systems):
            raise StudioError("There are no system prompts to vary.", "Write some, or leave that variation out.", "systems")
        if recipe.generator:
            llm.check(recipe, recipe.generator, "generator")

    @classmethod
    def requests(cls, recipe: RobustnessRecipe) -> int:
        return recipe.questions * (1 + recipe.variants * len(recipe.kinds))

    @classmethod
    def tasks(cls, recipe: RobustnessRecipe) -> dict[str, Task]:
        varied = {"score": SHARE, "flip_rate": BAD, "same_answer": SHARE}
        made = {PLAIN: Task("As it is", "score", {"score": SHARE})}
        for name, title in KINDS.items():
            if name in recipe.kinds and (name != "choices" or _has_choices(recipe)):
                made[name] = Task(title, "score", varied)
        return made

    @classmethod
    def begin(cls, recipe: RobustnessRecipe, ctx: Context) -> None:
        asked = _questions(recipe)
        ctx.log(f"{len(asked)} questions, each plainly and in {len(cls.tasks(recipe)) - 1} kinds of {recipe.variants} variations")
        if "choices" in recipe.kinds and not _has_choices(recipe):
            ctx.warning("no_choices", "These rows have no choices, so their order is not varied.",
                        "Choose a dataset with the columns question, choices and answer.")

    @classmethod
    def work(cls, recipe: RobustnessRecipe, ctx: Context, results: Results, number: int, round: Round) -> None:
        asked, tasks = _questions(recipe), list(cls.tasks(recipe))
        written = paraphrases(recipe, ctx, asked) if recipe.generator and "paraphrase" in tasks else {}
        total, done = len(asked) * (1 + recipe.variants * (len(tasks) - 1)), 0

        def make(ask: Asker, job: tuple[items.Question, str, int]) -> Sample:
            return answered(recipe, *job, ask, written)

        def samples(kind: str, count: int) -> dict[str, Sample]:
            jobs = [(f"{kind}/{one.id}/{n}", (one, kind, n)) for one in asked for n in range(count)]
            found = dict(round.each(jobs, make, done, total))
            return {found[key].id: found[key] for key, _ in jobs if key in found}

        plain = samples(PLAIN, 1)
        done = len(asked)
        if not results.finished(number, PLAIN):
            results.add(number, PLAIN, plain.values())
        for kind in tasks[1:]:
            if not results.finished(number, kind):
                found = samples(kind, recipe.variants)
                for sample in found.values():
                    if (base := plain.get(sample.id.partition(".")[0])) is not None:
                        sample.scores |= {"flip_rate": float(base.scores["score"] != sample.scores["score"]),
                                          "same_answer": float(_alike(base, sample))}
                results.add(number, kind, found.values(), usage=round.client.usage.to_dict())
            done += len(asked) * recipe.variants
        round.told()

    @classmethod
    def facts(cls, recipe: RobustnessRecipe, results: Results) -> dict[str, Any]:
        """``kinds``: of each model and kind its score, loss against the plain one, flips with Wilson intervals; ``spread``: of
        each model the best and worst kind, and how far single variations of a question are apart."""
        kinds, spread = [], []
        for number in range(len(results.models)):
            if (plain := pair(results, number, PLAIN)) is None:
                continue
            base, means = plain["scores"]["score"][0], {}
            by_question: dict[str, list[float]] = {one["id"]: [one["scores"]["score"]] for one in plain["samples"]}
            for kind in cls.tasks(recipe):
                if (kept := pair(results, number, kind)) is None:
                    continue
                found = rate([one["scores"]["score"] for one in kept["samples"]])
                means[kind] = found["value"]
                line = {"model": number, "kind": kind} | found | {"lost": base - found["value"]}
                if kind != PLAIN:
                    line["flips"] = rate([one["scores"]["flip_rate"] for one in kept["samples"] if "flip_rate" in one["scores"]])
                    line["same"] = kept["scores"].get("same_answer", [None])[0]
                    for one in kept["samples"]:
                        by_question.setdefault(one["id"].partition(".")[0], []).append(one["scores"]["score"])
                kinds.append(line)
            several = [values for values in by_question.values() if len(values) > 1]
            spread.append({"model": number, "plain": base, "best": max(means.values()), "worst": min(means.values()),
                           "worst_kind": min(means, key=means.__getitem__), "spread": max(means.values()) - min(means.values()),
                           "unstable": rate([float(len(set(values)) > 1) for values in several]),
                           "deviation": statistics.fmean(statistics.pstdev(values) for values in several) if several else 0.0})
        return {"kinds": kinds, "spread": spread}

    @classmethod
    def parents(cls, recipe: RobustnessRecipe) -> list[tuple[str, str]]:
        return super().parents(recipe) + ([(recipe.generator, "paraphraser")] if recipe.generator else [])


def _questions(recipe: RobustnessRecipe) -> list[items.Question]:
    return list(_drawn(recipe.dataset, tuple(sorted(recipe.columns.items())), recipe.questions, recipe.seed))


@lru_cache(maxsize=2)
def _drawn(ref: str, columns: tuple[tuple[str, str], ...], most: int, seed: int) -> tuple[items.Question, ...]:
    return tuple(items.drawn(ref, dict(columns), most, seed))


def _has_choices(recipe: RobustnessRecipe) -> bool:
    return bool(_questions(recipe)[0].options)


def _alike(one: Sample, other: Sample) -> bool:
    picked = one.more.get("chosen"), other.more.get("chosen")
    return picked[0] == picked[1] if any(picked) else verify.normalised(one.answer) == verify.normalised(other.answer)


def varied(recipe: RobustnessRecipe, one: items.Question, kind: str, number: int,
           written: dict[str, list[str]]) -> tuple[Messages, list[str] | None, str]:
    """(messages, order of the options, what was done) of one variation; the same for every model and every run of the seed."""
    rng = random.Random(f"{recipe.seed}/{one.id}/{kind}/{number}")
    if kind == "paraphrase":
        own = written.get(one.id, [])
        if number < len(own):
            return one.asked(own[number]), None, "by a model"
        return one.asked(perturb.templated(one.text, number, int(one.id, 16) % len(perturb.TEMPLATES))), None, "by a template"
    if kind == "typos":
        return one.asked(perturb.typos(one.text, rng, recipe.typo_rate)), None, ""
    if kind == "case":
        return one.asked(perturb.cased(one.text, number)), None, ("small", "capitals", "titles")[number % 3]
    if kind == "whitespace":
        return one.asked(perturb.spaced(one.text, rng, number)), None, ""
    if kind == "choices":
        order = perturb.shuffled(list(one.options), rng)
        return one.asked(options=order), order, ""
    if kind == "system":
        every = [line.strip() for line in recipe.systems if line.strip()]
        system = every[(int(one.id, 16) + number) % len(every)]
        return one.asked(system=system), None, system[:80]
    if kind == "framing":
        name, frame = perturb.FRAMES[number % len(perturb.FRAMES)]
        whole = one.asked()
        return [*whole[:-1], *frame(str(whole[-1]["content"]))], None, name
    return one.asked(), None, ""


def answered(recipe: RobustnessRecipe, one: items.Question, kind: str, number: int, ask: Asker,
             written: dict[str, list[str]]) -> Sample:
    """One answer, right or wrong."""
    messages, order, how = varied(recipe, one, kind, number, written)
    text = ask("answer", messages)
    more: dict[str, Any] = {"question": one.text}
    if one.options:
        chosen = one.chosen(text, order)
        right, more = chosen == one.target, more | {"chosen": chosen, "options": order or list(one.options)}
    elif recipe.match == "contains":
        right = words.says(text, one.target, one.text)
    else:
        right = verify.check(recipe.match)(text, {"answer": one.target}).ok
    tags = one.tags | {"variation": KINDS.get(kind, PLAIN)} | ({"way": how} if how else {})
    return Sample(one.id if kind == PLAIN else f"{one.id}.{number}", shown(messages), text, one.target, {"score": float(right)}, tags, more)


def paraphrases(recipe: RobustnessRecipe, ctx: Context, asked: list[items.Question]) -> dict[str, list[str]]:
    """Question -> what the generator model made of it, asked for once a run and used for every model.

    A text that lost a name or a number is not used; a template stands in its place.
    """
    from studio.datasets.journal import Journal

    with Journal(ctx.run_dir / "asked" / "paraphrases.jsonl") as journal:
        if all(f"{one.id}/{n}" in journal for one in asked for n in range(recipe.variants)):
            made = {f"{one.id}/{n}": journal.done(f"{one.id}/{n}") for one in asked for n in range(recipe.variants)}
        else:
            with llm.open(recipe, ctx, recipe.generator, recipe.generator_model, "generator", temperature=0.7, max_new_tokens=512) as client:
                todo = ((key, perturb.rephrasing(one.text), {}) for one in asked for n in range(recipe.variants)
                        if (key := f"{one.id}/{n}") not in journal)
                for key, found in client.map(todo):
                    journal.put(key, {"text": "" if isinstance(found, llm.Failed) else found[0].text.strip().strip('"')})
            made = {f"{one.id}/{n}": journal.done(f"{one.id}/{n}") for one in asked for n in range(recipe.variants)}
    kept = {one.id: [text for n in range(recipe.variants) if perturb.usable(one.text, text := made[f"{one.id}/{n}"]["text"])]
            for one in asked}
    count, lost = len(made), len(made) - sum(map(len, kept.values()))
    if lost:
        ctx.warning("paraphrases", f"{lost} of {count} paraphrases lost a name or a number or say nothing new.",
                    "Templates stand in their place; another generator may do better.")
    return kept
