"""Quality scores: a judge marks every row by a rubric, or a reward model made here does."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from studio.datasets import answers, judge, llm, rewards
from studio.datasets.generate import Asker, Bad, Generation, Job, MakeStep
from studio.datasets.step import Step
from studio.datasets.verify import Undecided
from studio.datasets.version import Item, Version, Writer
from studio.method import Estimate
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

_JUDGE, _REWARD = {"by": ["judge"]}, {"by": ["reward_model"]}
SAME = 4  # rows with the same mark, and no other, from which the judge is doubted
TEXT_RUBRIC = ("Is the text well written, coherent and free of faults? Does it hold knowledge or language worth "
               "learning from? Advertisements, lists of links, fragments and repetition are worth 3 at most.")


class ScoreRecipe(llm.ModelFields):
    method = "score"
    near_duplicates: ClassVar[float] = 0.0

    by: Literal["judge", "reward_model"] = field(
        "judge", "Scored by", "A judge reads every row and marks it from 1 to 10, with reasons. A reward model gives "
                              "a number of its own scale, much faster.",
                              choices={"judge": "A judge", "reward_model": "A reward model"})
    rubric: str = field("", "Rubric", "What makes a good row, in your words. Left empty: correct, complete, to the "
                                      "point, clear.", widget="text", max_length=20_000, when=_JUDGE)
    reward_model: str = field("", "Reward model", "A model with one number as its answer: made in the Align tab, a "
                                                  "folder, or hub:owner/name.",
                                                  widget="model", max_length=1000, when=_REWARD)
    max_length: int = field(2048, "Longest row", "Of longer rows the reward model sees the end.",
                                                 unit="tokens", ge=16, le=131_072,
                            group="advanced", when=_REWARD)
    batch_size: int = field(8, "Batch", "Rows that the reward model reads at once.",
                                        unit="rows", ge=1, le=512, group="advanced",
                            when=_REWARD)
    drop_below: float | None = field(None, "Drop below", "Rows with a lower score are left out; rows without one "
                                                         "stay. Empty = none is left out.", ge=-1e9, le=1e9)
    keep_reasons: bool = field(False, "Keep the reasons", "Save what the judge says as the tag 'why'.", when=_JUDGE,
                               group="advanced")
    temperature: float = field(0.0, "Temperature", "0: the judge says its likeliest mark.",
                                                   group="advanced", ge=0, le=2)
    generator: str = field("starter", "Judge", "The model that judges: one of yours, hub:owner/name, or the address "
                                               "of an OpenAI-compatible server like http://host:port/v1.",
                                               widget="model", max_length=1000, when=_JUDGE)

    @property
    def scorer(self) -> str:
        """The model that the scores come from."""
        return self.generator if self.by == "judge" else self.reward_model


class Score(MakeStep):
    title = "Score"
    summary = "Gives every row a score, by a judge with a rubric or by a reward model; can drop the low ones."
    paper = "https://arxiv.org/abs/2306.05685"
    Recipe = ScoreRecipe
    group = "clean"
    others = {"scorer": "scorer"}
    texts = {"low_score": "have a low score"}
    # Why a row has no score; these rows stay, with the tag 'unscored'.
    unscored: ClassVar[dict[str, str]] = {"not_in_form": "the judge did not answer in form",
                                                         "failed": "the judge gave no answer"}

    @classmethod
    def check(cls, recipe: ScoreRecipe) -> None:
        if recipe.by == "judge":
            super().check(recipe)
        else:
            super(MakeStep, cls).check(recipe)
            rewards.check(recipe.reward_model)

    @classmethod
    def estimate(cls, recipe: ScoreRecipe) -> Estimate:
        return Step.estimate.__func__(cls, recipe)

    @classmethod
    def work(cls, recipe: ScoreRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        assert source is not None
        if recipe.by == "reward_model":
            tally = Tally(recipe, out)
            facts = rewards.score(recipe, source, ctx, tally.take)
            return facts | tally.facts()
        return judged(recipe, source, out, ctx)


def judged(recipe: ScoreRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
    """Ask the judge for every row; of a pair for both sides, the score is how much better the chosen one is."""
    tally = Tally(recipe, out)
    with ExitStack() as stack:
        client = stack.enter_context(llm.open(recipe, ctx))
        journal = stack.enter_context(llm.journal(ctx, out))
        run = Generation(recipe, out, ctx, client, journal)

        def make(job: Job, ask: Asker) -> tuple[float, str] | list[Bad]:
            row = job.data.row
            try:
                marks = [judge.mark(_asker(ask, side, recipe), *shown(row, side), recipe.rubric or rubric_of(row))
                         for side in (("chosen", "rejected") if "rejected" in row else ("",))]
            except Undecided as err:
                return [Bad("not_in_form", str(err))]
            value = marks[0].score - (marks[1].score if len(marks) > 1 else 0)
            return value, marks[0].reason

        def settle(job: Job, value: Any) -> None:
            if isinstance(value, list):
                (bad,) = value
                tally.take(job.data, None, bad.reason if bad.reason in Score.unscored else "failed", bad.detail)
            else:
                tally.take(job.data, value[0], "", value[1] if recipe.keep_reasons else "")

        jobs = (Job(f"{number}-{item.id}", item) for number, item in enumerate(source.items()))
        run.work(jobs, make, total=source.count(), settle=settle)
        if tally.count == 0 and tally.without:
            why = ", ".join(f"{n:,} because {Score.unscored[code]}" for code, n in tally.without.most_common())
            ctx.warning("nothing_scored", f"Not one of {source.count():,} rows got a score: {why}.",
                        f"Choose a stronger judge. It last said: {tally.said[:200]}")
        elif tally.count >= SAME and tally.low == tally.high:
            ctx.warning("same_score", f"The judge gave all {tally.count:,} rows the same mark, {tally.low:g}.",
                        "It may not judge at all: read some rows, write a sharper rubric, or choose a stronger judge.")
        return {"judge": client.label, "usage": client.usage.to_dict()} | tally.facts()


def _asker(ask: Asker, side: str, recipe: ScoreRecipe) -> Any:
    count = iter(range(100))

    def one(messages: list[dict[str, str]]) -> str:
        return ask.all(f"{side or 'mark'}/{next(count)}", messages, temperature=recipe.temperature)[0].text

    return one


def shown(row: dict[str, Any], side: str) -> tuple[str, str]:
    """(question, answer) as the judge is shown them; a plain text has no question."""
    return ("", row["text"]) if "text" in row else (judge.question_of(row), answers.answer(row, side))


def rubric_of(row: dict[str, Any]) -> str:
    return TEXT_RUBRIC if "text" in row else judge.RUBRIC


class Tally:
    """Writes rows with their scores and counts."""

    def __init__(self, recipe: ScoreRecipe, out: Writer):
        self.recipe, self.out = recipe, out
        self.count = 0
        self.total = 0.0
        self.low = self.high = 0.0
        self.without: Counter[str] = Counter()
        self.said = ""
        self.histogram: Counter[int] = Counter()

    def take(self, item: Item, score: float | None, reason: str = "", detail: str = "") -> None:
        """A row with its score, or without one for a reason; nobody's word is not a score of zero."""
        tags = {key: value for key, value in item.tags or [] if key not in ("unscored", "why")}
        if score is None:
            self.without[reason] += 1
            self.said = detail
            self.out.keep(replace(item, score=None, tags=list((tags | {"unscored": reason}).items())))
            return
        if detail:
            tags["why"] = detail
        self.low, self.high = (min(self.low, score), max(self.high, score)) if self.count else (score, score)
        self.count += 1
        self.total += score
        self.histogram[round(score)] += 1
        made = replace(item, score=score, tags=list(tags.items()) or None)
        if self.recipe.drop_below is not None and score < self.recipe.drop_below:
            self.out.drop(made, "low_score", f"{score:.4g}")
        else:
            self.out.keep(made)

    def facts(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self.count:
            figures = {"mean": round(self.total / self.count, 4), "lowest": round(self.low, 4),
                       "highest": round(self.high, 4)}
        if 0 < len(self.histogram) <= 40:
            figures["histogram"] = {str(key): n for key, n in sorted(self.histogram.items())}
        return {"scored": self.count, **figures,
                **({"unscored": [{"code": code, "message": Score.unscored.get(code, code), "count": n}
                                 for code, n in self.without.most_common()]} if self.without else {})}


