"""From the rows of any dataset to the questions of a benchmark.

A row is what the file holds, its columns as they are; where the studio knows its format, ``question``, ``answer``, ``system``
and ``text`` stand beside them, so that a chat and a table are asked in the same way.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field as attribute
from itertools import islice
from typing import Any

from studio.datasets.convert import Reject, for_sft, normalise, turns_of
from studio.datasets.formats import SAMPLE, open_source
from studio.datasets.judge import question_of
from studio.datasets.roles import Detected, detect, unfolded
from studio.errors import StudioError
from studio.evals.metrics import Metric
from studio.evals.templates import Missing, TooLong, as_text, columns, compiled

Row = dict[str, Any]
MOST_READ = 200_000  # rows that are read to draw from
LEFT_OUT = {
    "no_column": "they lack a column that the template names", "no_question": "the question is empty",
    "no_target": "no right answer stands in them",
    "few_options": "they have fewer than two options", "no_option": "the right answer is none of the options",
    "no_text": "they have no text", "same": "the same question with the same answer was there before", "too_long": "they are too long",
}
_LETTER = re.compile(r"\A\W{0,2}([A-Za-z])\W{0,2}\Z")
LISTED = re.compile(r"^[ \t]*(\([A-Z]\)|[A-Z][.)])[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


@dataclass
class Items:
    """What a dataset gave.

    Attributes:
        items: ``{id, prompt, target, references, choices, gold, text, tags, row}``; of a kind of metric only what it needs.
        fewshot: The same, set aside as examples.
        read: Rows read. ``left_out``: code of :data:`LEFT_OUT` -> how many.
        notes: Sentences on how it was understood.
        columns: Names a template may use, in order.
    """

    items: list[Row] = attribute(default_factory=list)
    fewshot: list[Row] = attribute(default_factory=list)
    read: int = 0
    left_out: Counter[str] = attribute(default_factory=Counter)
    notes: list[str] = attribute(default_factory=list)
    columns: list[str] = attribute(default_factory=list)

    def told(self) -> list[dict[str, Any]]:
        """``[{code, count, message}]`` of what was left out, the most first."""
        return [{"code": code, "count": count, "message": LEFT_OUT[code]} for code, count in self.left_out.most_common()]


class Source:
    """The rows of a dataset as templates see them.

    Raises:
        StudioError: with ``field="dataset"``: it cannot be read, or is empty.
    """

    def __init__(self, ref: str):
        self.ref = ref
        self.reader, self.label = open_source(ref)
        self.sample = list(islice(iter(self.reader), SAMPLE))
        self.detected = self._detected()
        self.columns = list(dict.fromkeys(key for row in islice(self.rows(), SAMPLE) for key in row))

    def _detected(self) -> Detected | None:
        try:
            return getattr(self.reader, "detected", None) or detect(self.sample)
        except StudioError:
            return None  # a table of no known format: its columns are enough

    def rows(self) -> Iterator[Row]:
        unfold = self.detected.unfold if self.detected else ""
        for row in islice(iter(self.reader), MOST_READ):
            for one in unfolded(row, unfold):
                yield self._seen(one)

    def _seen(self, row: Row) -> Row:
        plain = {str(key): value for key, value in row.items()}
        found: Row = {}
        if self.detected:
            made = normalise(row, self.detected)
            if isinstance(made, dict):
                answered = for_sft(made)
                found = _parts(made if isinstance(answered, Reject) else answered)
        tags = plain.get("tags") if isinstance(plain.get("tags"), dict) else {}
        return {key: value for key, value in tags.items() if isinstance(key, str)} | found | plain


def _parts(row: Row) -> Row:
    """question, answer, system and text of a canonical row, as far as it has them."""
    if "text" in row:
        return {"text": row["text"]}
    turns = turns_of(row)
    said = [turn for turn in turns if turn["role"] != "system"]
    if not said or said[-1]["role"] != "assistant":
        return {}
    system = next((turn.get("content") or "" for turn in turns if turn["role"] == "system"), "")
    found = {"question": question_of({"prompt": said[:-1]}), "answer": said[-1].get("content") or ""}
    return found | ({"system": system} if system else {})


def gather(bench: Any, metric: Metric, most: int, source: Source | None = None) -> Items:
    """The questions of a benchmark.

    Args:
        bench: The filled form, a :class:`studio.evals.bench.Benchmark`.
        most: How many at most; fewer than the form's own for a preview, which reads only the first rows.

    Raises:
        StudioError: in the field that is wrong; no row can be used (``dataset``).
    """
    source = source or Source(bench.dataset)
    made = Items(columns=source.columns)
    maker = _Maker(bench, metric, source, made)
    drawn = _drawn(source, bench, most)
    examples = Source(bench.fewshot_dataset) if bench.num_fewshot and bench.fewshot_dataset else None
    apart = 0 if examples else bench.num_fewshot
    for row in drawn:
        made.read += 1
        if (item := maker.item(row)) is None:
            continue
        (made.fewshot if len(made.fewshot) < apart else made.items).append(item)
        if len(made.items) >= most:
            break
    if examples:
        other = _Maker(bench, metric, examples, Items())
        made.fewshot = list(islice(filter(None, map(other.item, examples.rows())), bench.num_fewshot))
    if metric.output == "choice":
        maker.settle(made.items + made.fewshot)
        made.items, made.fewshot = ([item for item in items if maker.right(item)] for items in (made.items, made.fewshot))
    if not made.items:
        raise _nothing(made, bench)
    if len(made.fewshot) < bench.num_fewshot:
        raise StudioError(f"{len(made.fewshot)} rows can serve as examples, but {bench.num_fewshot} are wanted.",
                          "Want fewer, or choose another dataset for them.", "num_fewshot")
    return made


def _drawn(source: Source, bench: Any, most: int) -> Iterator[Row]:
    """The rows in the order they are tried: as in the file, or shuffled by the seed (a preview shows the first as they are)."""
    if not bench.shuffle or most < bench.limit:
        return source.rows()
    rows = list(source.rows())
    random.Random(bench.seed).shuffle(rows)
    return iter(rows)


def _nothing(made: Items, bench: Any) -> StudioError:
    why = "; ".join(f"{one['count']:,} because {one['message']}" for one in made.told()[:3])
    codes = made.left_out.most_common(1)
    where = {"no_target": "target", "no_option": "target", "few_options": "choices", "no_question": "prompt", "no_text": "prompt"}
    lacking = codes and codes[0][0] == "no_column"
    hint = f"The columns are {', '.join(made.columns[:12])}." if made.columns else "Choose data with rows in it."
    return StudioError(f"No question is left: of {made.read:,} rows, {why or 'none can be used'}.", hint,
                       ("prompt" if columns(bench.prompt) - set(made.columns) else "target") if lacking else
                       where.get(codes[0][0], "dataset") if codes else "dataset")


class _Maker:
    """Makes items of rows, and counts what cannot be used."""

    def __init__(self, bench: Any, metric: Metric, source: Source, made: Items):
        self.bench, self.metric, self.made = bench, metric, made
        self.prompt = compiled(bench.prompt, "prompt")
        self.target = self._value(bench.target, "target", source.columns)
        self.choices = _options(bench.choices, source.columns) if metric.output == "choice" else None
        self.seen: set[str] = set()
        self.ids: Counter[str] = Counter()
        self.first = 0  # what the first option's number is

    @staticmethod
    def _value(text: str, field: str, names: list[str]) -> Callable[[Row], Any]:
        """A column's own value where the text is its name, bare or in braces; else a rendered template."""
        bare = text.strip().removeprefix("{{").removesuffix("}}").strip()
        if bare in names:
            return lambda row: row.get(bare)
        return compiled(text, field)

    def item(self, row: Row) -> Row | None:
        try:
            return self._item(row)
        except Missing:
            return self._left("no_column")
        except TooLong:
            return self._left("too_long")
        except _LeftOut as err:
            return self._left(err.args[0])

    def _left(self, code: str) -> None:
        self.made.left_out[code] += 1

    def _item(self, row: Row) -> Row:
        prompt = self.prompt(row)
        if self.metric.output == "loss":
            if not prompt.strip():
                raise _LeftOut("no_text")
            return self._whole({"prompt": "", "text": prompt}, row, prompt)
        if not prompt.strip():
            raise _LeftOut("no_question")
        value = self.target(row) if self.bench.target.strip() else None
        if self.metric.output == "choice":
            return self._choice(row, prompt, value)
        references = [text for text in map(as_text, value if isinstance(value, list) else [value]) if text.strip()]
        if self.metric.target and not references:
            raise _LeftOut("no_target")
        given = {name: row[name] for name in self.metric.columns() if row.get(name) not in (None, "", [])}
        return self._whole({"prompt": prompt, "target": references[0] if references else "", "references": references,
                            "row": json.dumps(given, ensure_ascii=False, default=str)}, row, prompt, *references)

    def _choice(self, row: Row, prompt: str, value: Any) -> Row:
        options, labels = self.choices(row, prompt)
        if len(options) < 2:
            raise _LeftOut("few_options")
        if value is None or value == "" or isinstance(value, (list, dict)):
            raise _LeftOut("no_target")
        return self._whole({"prompt": prompt, "choices": options, "gold": [value, labels]}, row, prompt, *options, as_text(value))

    def _whole(self, item: Row, row: Row, *texts: str) -> Row:
        if sum(map(len, texts)) > 400_000:
            raise _LeftOut("too_long")
        digest = hashlib.sha1("\x1f".join(texts).encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:12]
        if digest in self.seen:
            raise _LeftOut("same")
        self.seen.add(digest)
        tags = {name: as_text(row.get(name))[:200] for name in self.bench.tags}
        return {"id": digest} | item | {"tags": tags}

    def settle(self, items: list[Row]) -> None:
        """Whether numbers of options count from 0 or 1: from 1 where no row says 0 and one says as many as it has options."""
        numbers = [(number, len(item["choices"])) for item in items if (number := _number(item["gold"][0])) is not None]
        if numbers and all(number > 0 for number, _ in numbers) and any(number == many for number, many in numbers):
            self.first = 1
        if any(isinstance(item["gold"][0], int) for item in items):
            self.made.notes.append(f"The right option is given by its number; the first is {self.first}.")

    def right(self, item: Row) -> bool:
        """Put the right option's place into the item."""
        value, labels = item["gold"]
        place = _place(value, item["choices"], labels, self.first)
        if place is None:
            self._left("no_option")
            return False
        item["gold"] = place
        return True


class _LeftOut(Exception):
    """Why a row is no question, as a code of :data:`LEFT_OUT`."""


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() and len(value) < 4 else None


def _place(value: Any, options: list[str], labels: list[str], first: int) -> int | None:
    """Which option is right: said by its text, its label, its letter or its number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = _number(value)
        return number - first if number is not None and 0 <= number - first < len(options) else None
    said = as_text(value).strip()
    for known in (options, labels):
        plain = [text.strip().casefold() for text in known]
        if said.casefold() in plain:  # twice the same option: none can be told to be right
            return plain.index(said.casefold()) if plain.count(said.casefold()) == 1 else None
    if match := _LETTER.match(said):
        place = ord(match[1].upper()) - ord("A")
        return place if place < len(options) else None
    number = _number(said)
    return number - first if number is not None and 0 <= number - first < len(options) else None


def _options(text: str, names: list[str]) -> Callable[[Row, str], tuple[list[str], list[str]]]:
    """How a row's options are found: f(row, question) -> (options, labels).

    ``text`` is a column with a list (or ARC's ``{"text": […], "label": […]}``), several columns parted by commas, a template
    with one option a line, or nothing: then options that the question lists as (A) … (B) … are answered by their letters.
    """
    bare = text.strip().removeprefix("{{").removesuffix("}}").strip()
    parts = [part.strip() for part in bare.split(",")]
    if not bare:
        def listed(row: Row, prompt: str) -> tuple[list[str], list[str]]:
            found = LISTED.findall(prompt)
            return [mark for mark, _ in found], [words for _, words in found]
        return listed
    if bare in names:
        return lambda row, prompt: _listed(row.get(bare))
    if len(parts) > 1 and all(part in names for part in parts):
        return lambda row, prompt: ([as_text(row[part]) for part in parts if row.get(part) not in (None, "")], parts)
    made = compiled(text, "choices")
    return lambda row, prompt: ([line.strip() for line in made(row).splitlines() if line.strip()], [])


def _listed(value: Any) -> tuple[list[str], list[str]]:
    if isinstance(value, str) and value.lstrip()[:1] in "[{":
        try:
            value = json.loads(value)
        except ValueError:
            return [], []
    if isinstance(value, dict):
        texts, labels = value.get("text") or value.get("choices"), value.get("label") or []
        if isinstance(texts, list):
            return [as_text(text) for text in texts], [as_text(label) for label in labels] if isinstance(labels, list) else []
        return [as_text(text) for text in value.values()], [str(key) for key in value]
    if isinstance(value, list):
        texts = [as_text(one.get("text", "")) if isinstance(one, dict) else as_text(one) for one in value]
        return [text for text in texts if text.strip()], []
    return [], []
