"""Verified answers: several answers to every question, each checked; the right ones become rows, right against wrong
pairs.

Rejection sampling as in RFT (https://arxiv.org/abs/2308.01825) and STaR (https://arxiv.org/abs/2203.14465). It is
on-policy when the model that answers is the one that is trained next.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from studio.datasets import answers, checking, llm
from studio.datasets.checking import CheckFields, Checking
from studio.datasets.generate import TEXTS, Asker, Bad, Generation, Job, MakeStep
from studio.datasets.generate_text import plain
from studio.datasets.step import entry_of, facts_of, inputs_of, name_of
from studio.datasets.verify import Undecided, Verdict
from studio.datasets.version import Item, Version, Writer
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

class VerifiedRecipe(CheckFields, llm.ModelFields):
    method = "verified"
    near_duplicates: ClassVar[float] = 0.0  # answers to one question may be alike

    n: int = field(4, "Answers a question", "More find a right answer to more questions, and cost as much "
                                            "more.", ge=1, le=64)
    output: Literal["sft", "pairs", "both"] = field(
        "sft", "Makes", "Right answers to imitate, pairs of a right and a wrong one to prefer, or a dataset of each.",
        choices={"sft": "Right answers", "pairs": "Preference pairs", "both": "A dataset of each"})
    per_prompt: int = field(1, "Rows a question", "At most so many different right answers, or pairs, of one "
                                                  "question.", ge=1,
                            le=64)
    choose: Literal["first", "shortest", "score", "length"] = field(
        "first", "Which", "Which of several right answers is taken, and which wrong one it is set against. Of like "
                          "length: so that a pair does not teach length.", group="advanced",
        choices={"first": "The first", "shortest": "The shortest right one", "score": "The best against the worst by "
                                                                                      "score",
                 "length": "Those of like length"})
    least_pass: float = field(0.0, "Least pass rate", "Questions that are answered right more seldom are left out.",
                              group="advanced", ge=0, le=1)
    most_pass: float = field(1.0, "Greatest pass rate", "Questions that are answered right more often are left out: "
                                                        "there is little to learn from them.",
                                                        group="advanced", ge=0, le=1)
    own_answer: bool = field(False, "Fall back to the row's answer", "Where every answer is wrong, the answer that "
                                                                     "the row has is taken as the right "
                                                                     "one.", group="advanced")
    system_prompt: str = field("", "System prompt", "Stands before every question while asking: 'Think step by step and "
                               "end with #### and the number', say.", widget="text", max_length=50_000)
    keep_system: bool = field(True, "Keep the system prompt", "Save it with the rows. Without it, the model learns to "
                                                              "do the same unasked.", group="advanced")
    keep_reasoning: bool = field(True, "Keep reasoning", "Save what a model thinks before it "
                                                         "answers.", group="advanced")


@dataclass
class Tried:
    """One answer and what the check said; without a verdict it is neither right nor wrong, for ``reason``."""

    text: str
    reasoning: str = ""
    verdict: Verdict | None = None
    reason: str = ""
    detail: str = ""


class Verified(MakeStep):
    title = "Verified answers"
    summary = "Asks a model several times, checks every answer, and keeps the right ones, or right against wrong."
    paper = "https://arxiv.org/abs/2308.01825"
    Recipe = VerifiedRecipe
    others = {"generator": "generator", "judge": "judge", "references": "references"}
    texts = TEXTS | {
        "wrong": "are wrong", "unsolved": "are wrong, as all answers to their question", "undecided": "could not be "
                                                                                                      "judged",
        "no_prompt": "ask no question", "no_reference": "have no reference", "spare": "are right but more than wanted",
        "repeated": "repeat another answer to the same question", "too_easy": "belong to a question that is too easy",
        "too_hard": "belong to a question that is too hard", "verified": "have a verified answer"}

    @classmethod
    def check(cls, recipe: VerifiedRecipe) -> None:
        super().check(recipe)
        checking.refuse(recipe)

    @classmethod
    def work(cls, recipe: VerifiedRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        assert source is not None
        if recipe.output == "pairs":
            out.seen.update(source.splits)  # rows of the other splits are no pairs
        check = Checking(recipe)
        if recipe.n > 1 and recipe.temperature == 0:
            ctx.warning("same_answers", "At temperature 0 all answers to a question are the same.", "Raise it, e.g. "
                                                                                                    "to 0.8.")
        with ExitStack() as stack:
            client = stack.enter_context(llm.open(recipe, ctx))
            judge = stack.enter_context(checking.judge_of(recipe, ctx)) if check.judges and recipe.judge else client
            journal = stack.enter_context(llm.journal(ctx, out))
            pairs = None
            if recipe.output == "both":
                pairs = stack.enter_context(Writer(ctx.run_dir / f"pairs-{out.folder.name}", cls.texts))
            run = Generation(recipe, out, ctx, client, journal)
            tally = Tally(recipe, run, out, pairs)
            jobs = (Job(f"{number}-{item.id}", item) for number, item in enumerate(source.items()))
            run.work(jobs, lambda job, ask: attempts(recipe, check, judge, job.data, ask), total=source.count(),
                     settle=lambda job, value: tally.take(job.data, value))
            facts = run.facts(**tally.facts(), **({"judge": judge.label, "judge_usage": judge.usage.to_dict()}
                                                  if judge is not client else {}))
            if pairs is not None and pairs.rows["train"]:
                made = pairs.close(entry_of(recipe), source, inputs=inputs_of(cls, recipe), facts=facts)
                parents = [(recipe.dataset, "dataset")] if recipe.dataset else []
                name = f"{recipe.name or name_of(recipe)} · pairs"
                ctx.artifact("dataset", made.path, name, facts_of(made), parents)
        return facts


def attempts(recipe: Any, check: Checking, judge: llm.Client, item: Item, ask: Asker) -> list[Tried]:
    """All answers to one question, checked.

    Raises:
        Bad: the row asks nothing, or no reference belongs to it.
        llm.Failed: the server gave no answer.
    """
    row = item.row
    turns = answers.asked(row)
    if not turns:
        raise Bad("no_prompt", row=row)
    expected = check.row_of(row, turns)
    if expected is None:
        raise Bad("no_reference", row=row)
    found = []
    for number, answer in enumerate(ask.all("answers", answers.with_system(turns, recipe.system_prompt), n=recipe.n)):
        text = answer.text.strip()
        one = Tried(text, answer.reasoning if recipe.keep_reasoning else "")
        if not text or answer.cut:
            one.reason = "cut" if answer.cut else "empty"
        else:
            try:
                one.verdict = check(text, _judged_row(expected, turns),
                                    checking.asker(ask, f"judge-{number}", judge))
            except Undecided as err:
                one.reason, one.detail = "undecided", str(err)
        found.append(one)
    return found


def _judged_row(expected: dict[str, Any], turns: answers.Turns) -> dict[str, Any]:
    """The row of a check; a reference row that names its question otherwise gets it under ``prompt``."""
    return expected if "prompt" in expected or "messages" in expected else {**expected, "prompt": turns}


class Tally:
    """Writes the rows of each question, in order, and counts."""

    def __init__(self, recipe: VerifiedRecipe, run: Generation, out: Writer, pairs: Writer | None):
        self.recipe, self.run, self.out = recipe, run, out
        self.sft = out if recipe.output != "pairs" else None
        self.pairs = out if recipe.output == "pairs" else pairs
        self.questions = self.answers = self.accepted = self.undecided = self.solved = self.pairs_made = 0
        self._second = checking.Clock()

    def take(self, item: Item, value: list[Any]) -> None:
        if value and isinstance(value[0], Bad):
            for bad in value:
                self.run.refuse(bad)
            return
        tried: list[Tried] = value
        right = [one for one in tried if one.verdict and one.verdict.ok]
        wrong = [one for one in tried if one.verdict and not one.verdict.ok]
        decided = [one for one in tried if one.reason != "undecided"]  # a cut or empty answer is no right one
        rate = len(right) / len(decided) if decided else None
        self.questions += 1
        self.answers += len(tried)
        self.accepted += len(right)
        self.undecided += len(tried) - len(decided)
        self.solved += bool(right)
        self.out.rows_in += len(right) + len(wrong)
        for one in tried:
            if one.verdict is None:
                self._drop(item, one, one.reason, one.detail, counted=False)
        self._write(item, right, wrong, rate)
        if self._second():
            self.run.ctx.metric(self.questions, accept_rate=self.accepted / max(1, self.answers),
                                solved=self.solved / self.questions)

    def _write(self, item: Item, right: list[Tried], wrong: list[Tried], rate: float | None) -> None:
        recipe, row = self.recipe, item.row
        if right and rate is not None and not recipe.least_pass <= rate <= recipe.most_pass:
            for one in right + wrong:
                self._drop(item, one, "too_easy" if rate > recipe.most_pass else "too_hard", f"pass rate {rate:.2f}")
            return
        ranked = distinct(right, lambda one: self._drop(item, one, "repeated"))
        lost = "wrong" if right else "unsolved"
        against = distinct(wrong, lambda one: self._drop(item, one, lost, one.verdict.reason))
        if recipe.choose == "shortest":
            ranked.sort(key=lambda one: len(one.text))
        elif recipe.choose == "score":
            ranked.sort(key=lambda one: -one.verdict.score)
            against.sort(key=lambda one: one.verdict.score)
        own = answers.answer(row)
        if not ranked and recipe.own_answer and own and (against or self.pairs is None):
            ranked = [Tried(own, verdict=Verdict(True, 1.0))]
            self.out.rows_in += 1
        used: set[int] = set()
        turns = answers.asked(row) or []
        if recipe.keep_system:
            turns = answers.with_system(turns, recipe.system_prompt)
        tags = dict(item.tags or [])
        if self.pairs is not None:
            for one, other in match(ranked, against, recipe.choose)[:recipe.per_prompt]:
                self.pairs.add(answers.pair(turns, one.text, other.text), item.source, rate, tags)
                used |= {id(one), id(other)}
                self.pairs_made += 1
                if self.pairs is not self.out:
                    self.pairs.rows_in += 2
        if self.sft is not None:
            same = turns == answers.asked(row)
            for number, one in enumerate(ranked[:recipe.per_prompt]):
                made = answers.answered(row, one.text, one.reasoning, None if same else turns)
                if number == 0:
                    self.sft.rows_in -= 1  # counted above
                    self.sft.change(item, made, "verified", rate)
                else:
                    self.sft.add(made, item.source, rate, tags)
                used.add(id(one))
                self.run.kept += 1
                if self.run.kept <= 5 or self.run.kept % 50 == 0:
                    self.run.show(made)
        for one in ranked:
            if id(one) not in used:
                self._drop(item, one, "spare")
        for one in against:
            if id(one) not in used:
                self._drop(item, one, lost, one.verdict.reason)

    def _drop(self, item: Item, one: Tried, reason: str, detail: str = "", counted: bool = True) -> None:
        """Keep an answer aside with its reason; ``counted`` ones are among the rows in already."""
        made = answers.answered(item.row, one.text, one.reasoning)
        self.run.dropped[reason] += 1
        self.out.reject(reason, detail, item.source, made)
        self.out.rows_in -= counted

    def facts(self) -> dict[str, Any]:
        decided = self.answers - self.undecided
        return {"questions": self.questions, "answers": self.answers, "accepted": self.accepted,
                "undecided": self.undecided, "solved": self.solved,
                "accept_rate": round(self.accepted / decided, 4) if decided else None,
                **({"pairs": self.pairs_made} if self.pairs is not None else {})}


def distinct(tried: list[Tried], again: Any) -> list[Tried]:
    """The first of each answer; the others go to ``again``."""
    seen: set[str] = set()
    found = []
    for one in tried:
        if (text := plain(one.text)) in seen:
            again(one)
        else:
            seen.add(text)
            found.append(one)
    return found


def match(right: list[Tried], wrong: list[Tried], how: str) -> list[tuple[Tried, Tried]]:
    """Pairs, the best first; no answer is used twice."""
    if how != "length":
        return list(zip(right, wrong, strict=False))
    rest, made = list(wrong), []
    for one in right:
        if not rest:
            break
        near = min(rest, key=lambda other: abs(len(other.text) - len(one.text)))
        rest.remove(near)
        made.append((one, near))
    return sorted(made, key=lambda pair: abs(len(pair[0].text) - len(pair[1].text)))
