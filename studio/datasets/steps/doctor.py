"""Data doctor: every fault of a dataset that is known to harm training, with the step that mends it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.datasets import faults, passes, personal, tokens
from studio.datasets.checks import WHOLE_SHARE
from studio.datasets.report import Report
from studio.datasets.similar import Similar
from studio.datasets.step import StepRecipe
from studio.datasets.steps.decontaminate import learned, said
from studio.datasets.steps.dedup import Ranking, best_of, keys_of
from studio.datasets.steps.diagnoses import DIAGNOSES, diagnosis
from studio.datasets.steps.near_dedup import parts_of
from studio.datasets.texts import Row, answer, texts_of, whole
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.library import refs
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

EXAMPLES = 8
LEAST_ANSWERS = 10  # rows from which on unfinished answers can be told from a style without full stops


class DoctorRecipe(StepRecipe):
    method = "doctor"

    max_chars: int = field(20_000, "Long from", "Rows with more characters count as over-long; 0 = none does.", unit="characters", ge=0,
                           le=1_000_000_000)
    max_tokens: int = field(0, "Long from, in tokens", "Rows with more tokens than the model's context count as over-long; 0 = not "
                            "counted.", unit="tokens", ge=0, le=1_000_000_000)
    tokenizer: str = field("starter", "Tokenizer", "Model on this disk whose tokenizer counts the tokens.", widget="model",
                           max_length=1000)
    near: bool = field(True, "Near duplicates", "Look for rows that say nearly the same as another.")
    threshold: float = field(0.8, "Similarity", "Rows at least this similar (Jaccard) are near duplicates.", gt=0.3, lt=1.0,
                             when={"near": [True]})
    against: list[str] = field([], "Evaluation sets", "Sets whose rows must not stand in the training rows, one a line; the dataset's own "
                               "validation and test rows are looked for in any case.", widget="lines", max_length=200)
    ngram: int = field(8, "Words in a row", "Length of the runs of words that training and evaluation rows are compared by.", ge=4,
                       le=50, group="advanced")
    overlap: float = field(0.7, "Share of a message", "A training row that holds this part of the words of an evaluation message is "
                           "contaminated.", gt=0.0, le=1.0, group="advanced")
    personal: bool = field(True, "Personal data", "Look for e-mail addresses, phone, card and identity numbers, IPs and keys.")
    region: str = field("US", "Phone numbers of", "Country (two letters) whose phone numbers are also known without +.", max_length=2,
                        when={"personal": [True]}, group="advanced")
    languages: bool = field(True, "Languages", "Look for answers in another language than the question; takes half of the time.")


class Doctor(Report):
    title, summary = "Data doctor", "Looks for everything that is known to harm training and names the step that mends it."
    Recipe = DoctorRecipe
    others = {"against": "reference"}  # further datasets, so that nobody names another person's

    @classmethod
    def check(cls, recipe: DoctorRecipe) -> None:
        super().check(recipe)
        if recipe.max_tokens:
            tokens.check(recipe.tokenizer)
        for ref in recipe.against:
            try:
                refs.resolve_dataset(ref)
            except StudioError as err:
                raise StudioError(err.message, err.hint, "against") from err

    @classmethod
    def work(cls, recipe: DoctorRecipe, source: Version, ctx: Context) -> dict[str, Any]:
        total, train = sum(map(source.count, source.splits)), source.count()
        found = Found()
        index, names = learned(source, recipe.against, True, recipe.ngram, recipe.overlap)
        work = passes.Work(ctx, total + train * (bool(names) + recipe.near))
        rows = _Rows(recipe, found)
        same = _Same(train, found)
        near = Similar(ctx.run_dir / "near", recipe.threshold) if recipe.near else None
        try:
            for split, first, batch in passes.batches(source, work):
                parsed = passes.rows_of(batch)
                rows.look(split, first, parsed, batch.column("lang").to_pylist(), batch.column("chars").to_pylist())
                if split == "train":
                    same.add(first, batch, parsed)
                    if names:
                        index.count(parsed)
                    if near:
                        near.add(parts_of(parsed))
            rows.close()
            twice = same.close()
            if near:
                parent, how = near.duplicates(same.facts.rank(), work.part(train))
                for pos in np.flatnonzero((parent >= 0) & ~twice):
                    found.add("near_duplicate", "train", int(pos), f"{how[pos]:.0%} like row {parent[pos] + 1:,}")
        finally:
            if near:
                near.__exit__()
        if names:
            for _, first, batch in passes.batches(source, work, ["train"]):
                for place, hit in enumerate(index.find(passes.rows_of(batch)), first):
                    if hit:
                        found.add("contaminated", "train", place, said(hit, names))
        main = rows.main_language()
        return {"checked": total, "findings": found.list(total, recipe, main), "languages": dict(rows.langs.most_common(20))}

    @classmethod
    def headline(cls, found: dict[str, Any]) -> dict[str, Any]:
        return {"checked": found["checked"], "findings": len(found["findings"])}


class Found:
    """Faults counted, with the first few places of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def add(self, code: str, split: str, pos: int, text: str = "") -> None:
        self.counts[code] += 1
        places = self.examples.setdefault(code, [])
        if len(places) < EXAMPLES:
            places.append({"pos": pos, "split": split, "text": _short(text)})

    def list(self, total: int, recipe: DoctorRecipe, main: str) -> list[dict[str, Any]]:
        """Every finding, the gravest first."""
        order = {"error": 0, "warning": 1, "info": 2}
        made = [diagnosis(code, count, total, self.examples[code], recipe, main)
                for code in DIAGNOSES if (count := self.counts[code])]
        return sorted(made, key=lambda one: (order[one["severity"]], -one["count"]))


class _Rows:
    """Faults of single rows."""

    def __init__(self, recipe: DoctorRecipe, found: Found):
        self.recipe, self.found = recipe, found
        self.count = tokens.counter(recipe.tokenizer) if recipe.max_tokens else None
        self.langs: Counter[str] = Counter()
        self.foreign: dict[str, list[tuple[str, int, str]]] = {}  # the first rows of each language
        self.open: list[tuple[str, int, str]] = []
        self.answered = self.unfinished = 0

    def look(self, split: str, first: int, rows: list[Row], langs: list[str], chars: list[int]) -> None:
        sizes = self.count([whole(row) for row in rows]) if self.count else None
        for i, row in enumerate(rows):
            pos = first + i
            for code, text in self._faults(row):
                self.found.add(code, split, pos, text)
            if sizes and sizes[i] > self.recipe.max_tokens:
                self.found.add("too_long", split, pos, f"{sizes[i]:,} tokens")
            elif not sizes and self.recipe.max_chars and chars[i] > self.recipe.max_chars:
                self.found.add("too_long", split, pos, f"{chars[i]:,} characters")
            if langs[i] and chars[i] >= faults.SIDE:
                self.langs[langs[i]] += 1
                if len(places := self.foreign.setdefault(langs[i], [])) < EXAMPLES:
                    places.append((split, pos, whole(row)))
            if not ("text" in row or "label" in row):
                self.answered += 1
                if faults.unfinished(row):
                    self.unfinished += 1
                    if len(self.open) < EXAMPLES:
                        self.open.append((split, pos, "…" + answer(row)[-120:]))

    def _faults(self, row: Row):
        if faults.empty_part(row):
            yield "empty", ""
            return
        order = faults.ordered(row)
        if order is not None:
            last = row["messages"][-1]["role"] if "messages" in row else "assistant"
            yield ("no_end" if last != "assistant" else "role_order",
                   " › ".join(m["role"] for m in row.get("messages", row.get("prompt", ()))))
        parts = [text for _, text in texts_of(row)]
        if text := next(filter(faults.is_broken, parts), None):
            yield "encoding", _around(text, faults.broken_at(text))
        if text := next(filter(faults.SPECIAL.search, parts), None):
            yield "special_tokens", _around(text, faults.SPECIAL.search(text).start())
        for text in parts:
            if faults.quickly_repeats(text) and (hit := faults.repeated(text)):
                yield "repeated", _around(text, hit[0])
                break
        if text := faults.is_injection(row):
            hit = faults.INJECTION.search(text)
            yield "injection", _around(text, hit.start())
        if self.recipe.personal:
            yield from self._personal([*parts, *row.get("contexts", ()), row.get("comment") or ""])
        if self.recipe.languages and (pair := faults.languages_differ(row)):
            yield "answer_language", f"{pair[0]} › {pair[1]}: {answer(row)}"

    def _personal(self, parts: list[str]):
        seen = set()
        for text in parts:
            for one in personal.find(text, region=self.recipe.region):
                code = "secrets" if one.kind == "secret" else "personal"
                if code not in seen:
                    seen.add(code)
                    yield code, f"{personal.KINDS[one.kind][1]}: {_around(text, one.start)}"

    def main_language(self) -> str:
        return self.langs.most_common(1)[0][0] if self.langs else ""

    def close(self) -> None:
        """Findings that only the whole of the rows shows."""
        main = self.main_language()
        for lang, count in self.langs.items():
            if lang != main:
                for split, pos, text in self.foreign[lang]:
                    self.found.add("languages", split, pos, f"{lang}: {text}")
                self.found.counts["languages"] += count - len(self.foreign[lang])
        if self.unfinished and self.answered >= LEAST_ANSWERS and self.unfinished <= (1 - WHOLE_SHARE) * self.answered:
            for split, pos, text in self.open:
                self.found.add("unfinished", split, pos, text)
            self.found.counts["unfinished"] += self.unfinished - len(self.open)


class _Same:
    """Training rows that are alike, that answer the same question otherwise, or contradict each other's mark."""

    def __init__(self, total: int, found: Found):
        self.found, self.total = found, total
        self.facts = Ranking(total, "longest")
        self.rows, self.asked, self.answers, self.talks = (np.zeros(total, np.uint64) for _ in range(4))

    def add(self, first: int, batch: Any, rows: list[Row]) -> None:
        part = slice(first, first + batch.num_rows)
        self.facts.add(first, batch)
        self.rows[part] = keys_of(batch)
        plain = np.array(["label" not in row and "chosen" not in row and "text" not in row for row in rows], bool)
        if plain.any():
            self.asked[part] = np.where(plain, keys_of(batch, "question"), 0)
            self.answers[part] = np.where(plain, keys_of(batch, "answer"), 0)
        marked = np.array(["label" in row for row in rows], bool)
        if marked.any():
            self.talks[part] = np.where(marked, keys_of(batch, "conversation"), 0)

    def close(self) -> np.ndarray:
        """Tell what was found; gives the rows that repeat an earlier one."""
        every = np.arange(self.total)
        first = best_of(self.rows, every)
        for pos in np.flatnonzero(first != every):
            self.found.add("duplicate", "train", int(pos), f"like row {first[pos] + 1:,}")
        one = best_of(self.asked, every)
        for pos in np.flatnonzero((one != every) & (self.answers != self.answers[one])):
            self.found.add("conflicting", "train", int(pos), f"another answer to the question of row {one[pos] + 1:,}")
        both = best_of(self.talks, every)
        clash = self.facts.contradict(np.where(self.talks == 0, every.astype(np.uint64), self.talks)) & (self.talks != 0)
        for pos in np.flatnonzero(clash):
            other = both[pos] if both[pos] != pos else int(np.flatnonzero((both == pos) & (every != pos))[0])
            self.found.add("contradicting", "train", int(pos), f"marked otherwise than row {other + 1:,}")
        return first != every


def _short(text: str, most: int = 160) -> str:
    text = " ".join(text[:most * 4].split())
    return text if len(text) <= most else text[:most] + "…"


def _around(text: str, place: int) -> str:
    """A stretch of the text with what was found in it."""
    start = max(0, place - 40)
    return ("…" if start else "") + text[start:place + 80]
