"""Filter: leave out rows by length, language, marks and what their text looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator, model_validator

from studio.datasets import faults, passes, patterns, tokens
from studio.datasets.step import Step, StepRecipe
from studio.datasets.texts import Row, texts_of, whole
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

MOST = 1_000_000_000
SLOW = 20  # rows that a pattern may take too long for before it is refused


class FilterRecipe(StepRecipe):
    method = "filter"

    drop_empty: bool = field(True, "Drop empty rows", "Leave out rows in which a message has no text.")
    min_chars: int = field(0, "Characters, at least", "Shortest row that stays, all its messages together; 0 = any.", ge=0, le=MOST)
    max_chars: int = field(0, "Characters, at most", "Longest row that stays, all its messages together; 0 = any.", ge=0, le=MOST)
    min_turns: int = field(0, "Messages, at least", "Fewest messages of a row that stays, the system message included; 0 = any.",
                           ge=0, le=30_000)
    max_turns: int = field(0, "Messages, at most", "Most messages of a row that stays, the system message included; 0 = any.",
                           ge=0, le=30_000)
    max_tokens: int = field(0, "Tokens, at most", "Longest row that stays in tokens of the tokenizer below; 0 = any.", ge=0, le=MOST)
    min_tokens: int = field(0, "Tokens, at least", "Shortest row that stays in tokens of the tokenizer below; 0 = any.", ge=0, le=MOST)
    tokenizer: str = field("starter", "Tokenizer", "Model on this disk whose tokenizer counts the tokens.", widget="model",
                           max_length=1000)
    languages: list[str] = field([], "Languages", "Codes of the languages that stay, one a line, e.g. en; empty = any.",
                                 widget="lines", max_length=100)
    keep_unsure: bool = field(True, "Keep unsure languages", f"Keep rows whose language is not sure: those of less than {faults.SIDE} "
                              "characters, code, sums.")
    same_language: bool = field(False, "Answer in the language asked", "Leave out rows whose answers are in another language "
                                "than the questions. Off for translations.")
    labels: Literal["any", "good", "bad"] = field("any", "Marks", "Which of the rated rows stay; rows without a mark are "
                                                  "not touched.", choices={"any": "Any", "good": "Good", "bad": "Bad"})
    by_score: bool = field(False, "By score", "Leave out rows with a score below the least; those without a score go too.")
    min_score: float = field(0.0, "Least score", "Rows with a lower score are left out.", ge=-1e6, le=1e6, when={"by_score": [True]})
    sources: list[str] = field([], "Sources to keep", "Names of the sources that stay, one a line; empty = any.", widget="lines",
                               max_length=200)
    drop_sources: list[str] = field([], "Sources to drop", "Names of the sources that are left out, one a line.", widget="lines",
                                    max_length=200)
    tags: dict[str, str] = field({}, "Tags to keep", "Rows with these tags stay, e.g. site: north. Several values are parted "
                                 "by |.", widget="table")
    drop_tags: dict[str, str] = field({}, "Tags to drop", "Rows with these tags are left out. Several values are parted by |.",
                                      widget="table")
    max_symbols: float = field(1.0, "Share of symbols, at most", "Most of a row that may be neither letter, digit nor space. "
                               "0.3 leaves out tables and markup; 1 = any.", ge=0.0, le=1.0)
    max_repetition: float = field(1.0, "Share of repeated words, at most", "Most of the words that may stand in a run of four "
                                  "that was there before. 0.5 leaves out stuck answers; 1 = any.", ge=0.0, le=1.0)
    drop_suspicious: bool = field(False, "Drop suspicious prompts", "Leave out rows whose prompt or contexts try to turn a model "
                                  "against its instructions (prompt injection).")
    keep_pattern: str = field("", "Keep where it matches", "Regular expression; rows in which it is nowhere found are left out.",
                              max_length=2000)
    drop_pattern: str = field("", "Drop where it matches", "Regular expression; rows in which it is found are left out.",
                              max_length=2000)
    pattern_in: Literal["any", "system", "user", "assistant"] = field(
        "any", "Look in", "Messages the regular expressions look at.",
        choices={"any": "All messages", "system": "System", "user": "User", "assistant": "Assistant"})
    ignore_case: bool = field(True, "Ignore case", "The regular expressions take small and capital letters as the same.")

    @field_validator("keep_pattern", "drop_pattern")
    @classmethod
    def _readable(cls, value: str) -> str:
        patterns.check(value)
        return value

    @field_validator("tags", "drop_tags", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        return {key: str(one) for key, one in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _room(self) -> FilterRecipe:
        for low, high, word in ((self.min_chars, self.max_chars, "characters"), (self.min_turns, self.max_turns, "messages"),
                                (self.min_tokens, self.max_tokens, "tokens")):
            if high and low > high:
                raise ValueError(f"no row has at least {low:,} and at most {high:,} {word}")
        return self


class Filter(Step):
    title, summary = "Filter", "Leaves out rows by length, language, mark, score, source, tag, symbols, repetition or pattern."
    paper = "https://arxiv.org/abs/2112.11446"
    Recipe = FilterRecipe
    texts = {
        "empty": "have an empty message", "short": "are too short", "long": "are too long", "turns": "have too few or too many "
        "messages", "language": "are in another language", "answer_language": "are answered in another language",
        "label": "are marked otherwise", "score": "score too low or not at all", "source": "are from another source",
        "tag": "have other tags", "symbols": "are mostly symbols", "repetition": "repeat themselves", "pattern": "match or miss "
        "the pattern", "suspicious": "try to turn the model against its instructions", "slow": "take too long for the pattern",
    }

    @classmethod
    def check(cls, recipe: FilterRecipe) -> None:
        super().check(recipe)
        if recipe.min_tokens or recipe.max_tokens:
            tokens.check(recipe.tokenizer)

    @classmethod
    def work(cls, recipe: FilterRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any] | None:
        columns, rows = _column_rules(recipe), _row_rules(recipe)
        count = tokens.counter(recipe.tokenizer) if recipe.min_tokens or recipe.max_tokens else None
        if not (columns or rows or count or recipe.drop_empty):
            raise StudioError("The filter lets every row through.", "Set at least one of its rules.", "drop_empty")
        work = passes.Work(ctx, sum(map(source.count, source.splits)))
        for split, _, batch in passes.batches(source, work):
            out.split = split
            reasons = np.full(batch.num_rows, "", object)
            details = np.full(batch.num_rows, "", object)
            for reason, bad in columns:
                reasons[bad(batch) & (reasons == "")] = reason
            if recipe.drop_empty:
                maybe = np.flatnonzero((reasons == "") & _blanks(batch))
                for place, row in zip(maybe, _rows_at(batch, maybe), strict=True):
                    if faults.empty_part(row):
                        reasons[place] = "empty"
            if rows or count:
                left = np.flatnonzero(reasons == "")
                parsed = _rows_at(batch, left)
                said = [whole(row) for row in parsed]
                for place, row, text in zip(left, parsed, said, strict=True):
                    for rule in rows:
                        if hit := rule(row, text):
                            reasons[place], details[place] = hit
                            break
                if count:
                    sizes = np.array(count(said), np.int64)
                    free = reasons[left] == ""
                    reasons[left[free & (sizes < recipe.min_tokens)]] = "short"
                    if recipe.max_tokens:
                        over = free & (sizes > recipe.max_tokens)
                        reasons[left[over]] = "long"
                        details[left[over]] = [f"{n:,} tokens" for n in sizes[over]]
            out.keep_batch(batch, reasons == "", reasons, details)
        out.split = "train"
        return None


def _column_rules(recipe: FilterRecipe) -> list[tuple[str, Callable[[Any], np.ndarray]]]:
    """(reason, which rows of a batch are out) of every rule that a column answers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def numbers(name: str) -> Callable[[Any], np.ndarray]:
        return lambda batch: batch.column(name).to_numpy(zero_copy_only=False)

    def among(name: str, values: list[str]) -> Callable[[Any], np.ndarray]:
        wanted = pa.array(values, pa.string())
        return lambda batch: pc.is_in(batch.column(name), wanted).to_numpy(zero_copy_only=False)

    chars, turns, score = numbers("chars"), numbers("turns"), numbers("score")
    made: list[tuple[str, Callable[[Any], np.ndarray]]] = []
    if recipe.min_chars:
        made.append(("short", lambda b: chars(b) < recipe.min_chars))
    if recipe.max_chars:
        made.append(("long", lambda b: chars(b) > recipe.max_chars))
    if recipe.min_turns or recipe.max_turns:
        most = recipe.max_turns or 1 << 30
        made.append(("turns", lambda b: (turns(b) < recipe.min_turns) | (turns(b) > most)))
    if recipe.languages:
        known = among("lang", [*recipe.languages, *([""] if recipe.keep_unsure else [])])
        short = faults.SIDE if recipe.keep_unsure else 0
        made.append(("language", lambda b: ~known(b) & (chars(b) >= short)))
    if recipe.labels != "any":
        other = among("label", ["bad" if recipe.labels == "good" else "good"])
        made.append(("label", other))
    if recipe.by_score:
        made.append(("score", lambda b: ~(score(b).astype(float) >= recipe.min_score)))  # a missing score is NaN
    if recipe.sources:
        mine = among("source", recipe.sources)
        made.append(("source", lambda b: ~mine(b)))
    if recipe.drop_sources:
        made.append(("source", among("source", recipe.drop_sources)))
    for wanted, keep in ((recipe.tags, True), (recipe.drop_tags, False)):
        for key, values in wanted.items():
            allowed = {value.strip() for value in str(values).split("|")}
            made.append(("tag", lambda b, k=key, v=allowed, keep=keep: _tagged(b, k, v) != keep))
    return made


def _blanks(batch: Any) -> np.ndarray:
    """Rows that may hold an empty text, seen from the JSON they are written in."""
    import pyarrow.compute as pc

    return pc.match_substring_regex(batch.column("row"), r'":("(\\[nrt]|\s)*"|\[\]|null)').to_numpy(zero_copy_only=False)


def _tagged(batch: Any, key: str, values: set[str]) -> np.ndarray:
    return np.array([dict(tags or ()).get(key) in values for tags in batch.column("tags").to_pylist()])


def _rows_at(batch: Any, places: np.ndarray) -> list[Row]:
    return passes.rows_of(batch if len(places) == batch.num_rows else batch.take(places)) if len(places) else []


Rule = Callable[[Row, str], "tuple[str, str] | None"]


def _row_rules(recipe: FilterRecipe) -> list[Rule]:
    """Rules that look into the row, given with all that is said in it: each gives the reason and a detail, or ``None``."""
    made: list[Rule] = []
    if recipe.max_symbols < 1:
        made.append(lambda row, text: ("symbols", f"{share:.0%} symbols")
                    if (share := faults.symbol_share(text)) > recipe.max_symbols else None)
    if recipe.max_repetition < 1:
        made.append(lambda row, text: ("repetition", f"{share:.0%} repeated")
                    if (share := faults.repetition_share(text)) > recipe.max_repetition else None)
    if recipe.drop_suspicious:
        made.append(lambda row, text: ("suspicious", hit[:200]) if (hit := faults.is_injection(row)) else None)
    if recipe.same_language:
        made.append(lambda row, text: ("answer_language", " → ".join(pair)) if (pair := faults.languages_differ(row)) else None)
    for text, keep in ((recipe.keep_pattern, True), (recipe.drop_pattern, False)):
        if text:
            made.append(_pattern_rule(text, keep, recipe))
    return made


def _pattern_rule(text: str, keep: bool, recipe: FilterRecipe) -> Rule:
    find, role, slow = patterns.finder(text, recipe.ignore_case), recipe.pattern_in, 0

    def rule(row: Row, said: str) -> tuple[str, str] | None:
        nonlocal slow
        parts = [part for who, part in texts_of(row) if role == "any" or who == role or (who == "text" and role == "assistant")]
        try:
            hit = find("\n".join(parts))
        except TimeoutError:
            slow += 1
            if slow > SLOW:
                raise StudioError(f"The pattern {text!r} takes more than {patterns.SECONDS:g} s in many rows.",
                                  "Write it without a repetition inside another, such as (a+)+.",
                                  "keep_pattern" if keep else "drop_pattern") from None
            return "slow", f"over {patterns.SECONDS:g} s"
        return None if (hit is not None) == keep else ("pattern", hit or "")

    return rule
