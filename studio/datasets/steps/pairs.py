"""Preference pairs from what people did: answers marked good and bad, answers rewritten in review, votes between
two."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field as plain_field
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets import answers, edits
from studio.datasets.step import Step, StepRecipe, Stopped, report, watched
from studio.datasets.version import Item, Version, Writer
from studio.errors import StudioError
from studio.library import artifacts, refs
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

_RATED = {"pairs_from": ["marks"]}


class PairsRecipe(StepRecipe):
    method = "pairs"

    pairs_from: Literal["marks", "review", "votes"] = field(
        "marks", "Made from", "Marks: a good answer against a bad one to the same question. Review: a rewritten "
                              "answer against the one before, and rows marked better against worse. Votes: which of "
                              "two answers people chose.",
        choices={"marks": "Good and bad marks", "review": "Edits and review", "votes": "Votes between two answers"})
    good_answers: str = field("", "Good answers from", "A dataset whose answers stand in where a question has only "
                                                       "bad ones.",
                              widget="dataset", max_length=1000, when=_RATED)
    per_prompt: int = field(1, "Pairs a question", "At most so many; no answer is used twice.", ge=1, le=64)
    log: str = field("", "Edits of", "The dataset whose edits are read; left empty, this dataset's "
                                     "own.", widget="dataset",
                     max_length=1000, group="advanced", when={"pairs_from": ["review"]})
    until: int = field(0, "Up to", "How many lines of the log of edits count, so that later ones change nothing here; "
                                   "0 = all there are now.", unit="lines", ge=0, le=1_000_000_000, group="advanced",
                       when={"pairs_from": ["review"]})
    least_votes: int = field(1, "Least votes", "Two answers are a pair from so many votes for the same one more than "
                                               "for the other.",
                                               ge=1, le=1000, when={"pairs_from": ["votes"]}, group="advanced")


class Pairs(Step):
    title = "Preference pairs"
    summary = "Makes pairs of a better and a worse answer from good and bad marks, from review, or from votes."
    Recipe = PairsRecipe
    group, others = "make", {"good_answers": "answers", "log": "edits"}
    texts = {"no_partner": "have no answer to set against", "no_prompt": "ask no question",
             "same_pair": "are both marked good and bad", "spare": "are more than wanted", "unmarked": "have no mark",
             "not_edited": "were not edited or marked", "question_edited": "had their question edited, not their "
                                                                           "answer",
             "no_pair": "are no pairs", "undecided": "have as many votes for the one as for the other",
             "reversed": "had the worse answer first: swapped", "paired": "became part of a pair",
             "repeated": "repeat another vote"}

    @classmethod
    def check(cls, recipe: PairsRecipe) -> None:
        super().check(recipe)
        if recipe.good_answers:
            try:
                refs.resolve_dataset(recipe.good_answers)
            except StudioError as err:
                raise StudioError(err.message, err.hint, "good_answers") from err
        if recipe.pairs_from == "review":
            log_of(recipe.log or recipe.dataset, recipe.until)

    @classmethod
    def work(cls, recipe: PairsRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        assert source is not None
        if recipe.pairs_from == "votes":
            return from_votes(recipe, source, out, ctx)
        out.seen.update(source.splits)  # rows of the other splits are no pairs
        if recipe.pairs_from == "review":
            return from_review(recipe, source, out, ctx)
        return from_marks(recipe, ((item, mark_of(item.row)) for item in watched(source, ctx)), out, ctx)


def mark_of(row: dict[str, Any]) -> bool | None:
    label = row.get("label")
    return label if isinstance(label, bool) else None


def short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).digest()


@dataclass(slots=True)
class _Group:
    """Answers to one question."""

    turns: answers.Turns
    good: list[Item] = plain_field(default_factory=list)
    bad: list[Item] = plain_field(default_factory=list)


def from_marks(recipe: PairsRecipe, marked: Iterator[tuple[Item, bool | None]], out: Writer,
               ctx: Context) -> dict[str, Any]:
    """Pairs of a good and a bad answer to the same question, contexts included."""
    elsewhere = answers_of(recipe.good_answers, ctx) if recipe.good_answers else {}
    groups: dict[bytes, _Group] = {}
    for item, good in marked:
        row = item.row
        turns = answers.asked(row)
        if good is None or not turns:
            out.drop(item, "unmarked" if turns else "no_prompt")
            continue
        group = groups.setdefault(short(answers.key(turns)), _Group(turns))
        (group.good if good else group.bad).append(item)
    made = borrowed = 0
    for key, group in groups.items():
        better = [(answers.answer(item.row), item) for item in group.good]
        if not better and (text := elsewhere.get(key) or elsewhere.get(short(answers.key(group.turns[-1:])))):
            better = [(text, None)]
        made_here = pair_up(recipe, group, better, out)
        made += made_here
        borrowed += made_here if better and better[0][1] is None else 0
    facts = {"questions": len(groups), "pairs": made}
    return facts | ({"with_answers_from_elsewhere": borrowed} if recipe.good_answers else {})


def pair_up(recipe: PairsRecipe, group: _Group, better: list[tuple[str, Item | None]], out: Writer) -> int:
    """Write the pairs of one question, drop what is left of it; the number of pairs."""
    bad = list(group.bad)
    said_good = {text.strip() for text, _ in better}
    for item in [item for item in bad if answers.answer(item.row).strip() in said_good]:
        out.drop(item, "same_pair")
        bad.remove(item)
    made = 0
    for text, item in better:
        if made == recipe.per_prompt or not bad:
            if item is not None:
                out.drop(item, "spare" if made else "no_partner")
            continue
        worse = bad.pop(0)
        row = answers.pair(group.turns, text, answers.answer(worse.row))
        comment = worse.row.get("comment")
        tags = dict((item or worse).tags or []) | dict(worse.tags or []) | ({"comment": comment} if comment else {})
        out.add(row, worse.source, tags=tags)
        out.rows_in += 1 if item is None else 2
        made += 1
    for item in bad:
        out.drop(item, "spare" if made else "no_partner")
    return made


def answers_of(ref: str, ctx: Context) -> dict[bytes, str]:
    """Question -> answer of a dataset; for questions behind contexts or a system prompt also the bare question.

    Raises:
        StudioError: with ``field="good_answers"``.
    """
    from studio.datasets.formats import load_rows

    found: dict[bytes, str] = {}
    try:
        for row in load_rows(ref):
            if ctx.stop_requested:
                raise Stopped
            if (turns := answers.asked(row)) and (text := answers.answer(row)):
                found.setdefault(short(answers.key(turns)), text)
                found.setdefault(short(answers.key(turns[-1:])), text)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "good_answers") from err
    return found


# ---- review


def log_of(ref: str, until: int) -> edits.Edits:
    """The log of edits of a dataset.

    Raises:
        StudioError: no dataset of the library, or nothing was done to it.
    """
    kind, _, rest = ref.partition(":")
    if kind != "library":
        raise StudioError("Only a dataset of the library has edits.", "Bring it in and review some rows "
                                                                      "first.", "dataset")
    log = edits.of(rest.partition("#")[0], until)
    if not log.marks:
        raise StudioError("Nothing was edited or marked in this dataset.", "Rewrite or mark some answers "
                                                                           "first.", "dataset")
    return log


def from_review(recipe: PairsRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
    """An edited answer against the one before it; then rows marked better against rows marked worse."""
    ref = recipe.log or recipe.dataset or _ref_of(source)
    log = log_of(ref, recipe.until)
    meta = artifacts.get(ref.partition(":")[2].partition("#")[0])["meta"]
    if meta.get("hash") != source.hash:
        raise StudioError("These edits were made on other rows.", "Choose the dataset that was reviewed.", "log")
    recipe.log, recipe.until = ref.partition("#")[0], log.stamp  # so that the history says which edits these were
    marks = log.of("train")
    counts: Counter[str] = Counter()

    def rest() -> Iterator[tuple[Item, bool | None]]:
        """Writes what is a pair by itself, gives what may become one with another row."""
        for position, item in enumerate(watched(source, ctx)):
            mark = marks.get(position)
            if mark is None or mark.deleted or (mark.row is None and mark.review not in ("better", "worse")):
                out.drop(item, "not_edited")
                continue
            row = item.row
            turns, before = answers.asked(row), answers.answer(row)
            tags = dict(item.tags or []) | ({"comment": mark.note} if mark.note else {})
            if mark.row is not None:
                after = answers.answer(mark.row)
                if turns and after.strip() and after != before and answers.asked(mark.row) == turns:
                    out.add(answers.pair(turns, after, before), item.source, tags=tags)
                    out.rows_in += 1
                    counts["rewritten"] += 1
                else:
                    out.drop(item, "question_edited")
            elif "rejected" in row:
                worse = mark.review == "worse"
                made = row | {"chosen": row["rejected"], "rejected": row["chosen"]} if worse else row
                out.change(item, made, "reversed") if worse else out.keep(item)
                counts["judged"] += 1
            else:
                yield item, mark.review == "better"

    facts = from_marks(recipe, rest(), out, ctx)
    return {"edits": log.stamp, **counts, "better_worse": facts["pairs"]}


def _ref_of(source: Version) -> str:
    """Reference of a version that a pipeline hands on by its files."""
    return next((row["ref"] for row in artifacts.listed(("dataset",)) if row["path"] == str(source.path)), "")


# ---- votes


def from_votes(recipe: PairsRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
    """One pair of every two answers that were voted on: the one with more votes. Ties were left out on the way in."""
    if source.meta["format"] != "preference":
        raise StudioError("These rows are no votes.", "Choose rows of prompt, answer_a, answer_b and winner, or "
                                                      "pairs.", "dataset")
    votes: dict[bytes, Counter[bool]] = defaultdict(Counter)
    first: set[bytes] = set()
    began, total = time.monotonic(), 2 * source.count()
    for number, item in enumerate(source.items(), 1):
        key, straight = _ballot(item.row)
        votes[key][straight] += 1
        if number % 512 == 0:
            report(ctx, number, total, began)
    made: Counter[bytes] = Counter()
    for number, item in enumerate(source.items(), 1):
        row = item.row
        key, straight = _ballot(row)
        ahead = votes[key][True] - votes[key][False]
        asked_key = short(answers.key(answers.asked(row) or []))
        if abs(ahead) < recipe.least_votes:
            out.drop(item, "undecided", f"{votes[key][True]} against {votes[key][False]}")
        elif key in first:
            out.drop(item, "repeated")
        elif made[asked_key] >= recipe.per_prompt:
            out.drop(item, "spare")
        else:
            first.add(key)
            made[asked_key] += 1
            if straight == (ahead > 0):
                out.keep(item)
            else:
                out.change(item, row | {"chosen": row["rejected"], "rejected": row["chosen"]}, "reversed")
        if number % 512 == 0:
            report(ctx, source.count() + number, total, began)
    return {"votes": source.count(), "duels": len(votes), "pairs": len(first)}


def _ballot(row: dict[str, Any]) -> tuple[bytes, bool]:
    """(which two answers to which question, whether the one that sorts first was chosen)."""
    question = answers.key(answers.asked(row) or [])
    chosen, rejected = answers.answer(row, "chosen"), answers.answer(row, "rejected")
    low, high = sorted((chosen, rejected))
    return short(f"{question}\0{low}\0{high}"), chosen == low
