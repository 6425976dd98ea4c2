"""Rows of a dataset -> the rows that a method of alignment reads; converted where that loses nothing, and told.

Shapes: ``pairs`` ``{prompt, chosen, rejected}`` · ``unpaired`` ``{prompt, completion, label}`` · ``prompts`` ``{prompt,
answer?, and every tag of the row}`` · ``chats`` ``{messages}``. Prompts and answers are lists of messages where
the model has a chat template, else texts.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from studio.datasets import answers
from studio.datasets.convert import for_sft
from studio.datasets.thinking import for_template
from studio.errors import StudioError

Row = dict[str, Any]
LOOKED_AT = 500  # rows that a check reads
# Columns of ours, and words that TRL uses itself when it calls a reward or that make it look for pictures
_TAKEN = ("answer", "label", "tags", "contexts", "tools", "prompts", "completions", "completion_ids", "trainer_state",
          "log_extra", "log_metric", "environments", "image", "images")


@dataclass
class Found:
    """Rows for a trainer."""

    train: list[Row]
    held: list[Row]
    notes: list[str] = field(default_factory=list)  # what was converted or left out, as sentences
    warnings: list[tuple[str, str, str]] = field(default_factory=list)  # (code, message, hint)
    source: Any = None  # the studio.datasets.formats.Rows they come from

    def digest(self) -> str:
        """Of all training rows in their order."""
        made = hashlib.blake2b(digest_size=16)
        for row in self.train:
            made.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
        return made.hexdigest()


def check(recipe: Any, shape: str) -> None:
    """Refuse data that the method cannot read, as far as a quick look tells, and a tracker that is not there.

    Raises:
        StudioError: in the field ``dataset``, ``columns``, ``eval_dataset`` or ``report_to``.
    """
    from studio import extras
    from studio.datasets import formats

    for name in ("dataset", "eval_dataset"):
        if not (ref := getattr(recipe, name)) and name == "eval_dataset":
            continue
        try:
            formats.check(ref, recipe.columns, purpose="as_is")
            _glance(ref, recipe.columns, shape)
        except StudioError as err:
            raise StudioError(err.message, err.hint, name if name == "eval_dataset" else err.field) from err
    if recipe.report_to != "none":
        extras.require(recipe.report_to, "report_to")


def listed(ref: str, columns: dict[str, str], shape: str) -> tuple[Iterator[Row], Any]:
    """The canonical rows of a dataset, and the :class:`studio.datasets.formats.Rows` they come from. Rows for
    ``prompts`` have its further columns among their tags, because rewards read them.

    Raises:
        StudioError: as :func:`studio.datasets.formats.load_rows`.
    """
    from studio.datasets import formats

    found = formats.load_rows(ref, columns, purpose="as_is")
    if shape != "prompts":
        return iter(found), found
    used = {*found.detected.roles.values(), *_ROLES, *_TAKEN}
    return (row | {"tags": {**{name: value for name, value in found.raw.items() if name not in used},
                            **(row.get("tags") or {})}} for row in found), found


@dataclass
class Glance:
    """The first rows of a dataset in a shape.

    Attributes:
        rows: Converted ones.
        total: How many the whole dataset gives, exactly or by its size; ``None`` where that is not known.
        notes: What is done to them, as sentences.
    """

    rows: list[Row]
    total: int | None
    notes: list[str]


def glance(recipe: Any, shape: str) -> Glance:
    """A quick look at the data of a recipe, once per state of the file.

    Raises:
        StudioError: unreadable data, or no rows of that shape.
    """
    return _glance(recipe.dataset, recipe.columns, shape)


def _glance(ref: str, columns: dict[str, str], shape: str) -> Glance:
    from studio.library import refs

    path = refs.resolve_dataset(ref).path
    if path is None:
        return Glance([], None, [])  # what the Hub holds is only known when it is fetched
    state = path.stat()
    return _glanced(ref, tuple(sorted(columns.items())), shape, str(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)
def _glanced(ref: str, columns: tuple, shape: str, path: str, stamp: int, size: int) -> Glance:
    if shape not in _SHAPES:
        return Glance([], None, [])
    each, found = listed(ref, dict(columns), shape)
    first = list(islice(each, LOOKED_AT))
    rows, notes = converted(first, shape, refs_label(ref)) if first else ([], [])
    if len(first) < LOOKED_AT:
        return Glance(rows, len(rows), notes)
    read = found.source.count() if found.detected.canonical else size / max(1, len(json.dumps(first))) * len(first)
    notes = [f"Of the first {LOOKED_AT} rows: {note}" for note in notes]
    return Glance(rows, int(read * len(rows) / len(first)), notes)


def refs_label(ref: str) -> str:
    from studio.library import refs

    return refs.resolve_dataset(ref).label


def read(recipe: Any, shape: str) -> Found:
    """All rows of a recipe in a shape, a part of them kept for validation.

    A row and what is made of it stay on one side: both halves of a pair are learned from, or both are validated on.
    Single marked answers are shuffled once, because their trainer takes them in their order, each batch at a time, and
    learns little from a batch of good ones alone or of the two halves of a pair.

    Raises:
        StudioError: unreadable data, or no rows of that shape.
    """
    from studio.datasets import formats

    each, rows = listed(recipe.dataset, recipe.columns, shape)
    everything = list(each)
    own = recipe.eval_dataset or formats.own_validation(recipe.dataset)
    if own:
        columns = recipe.columns if recipe.eval_dataset else {}
        train, held = everything, list(listed(own, columns, shape)[0])
    else:
        train, held = formats.split(everything, recipe.eval_share, recipe.seed)
    label = refs_label(recipe.dataset)
    if shape == "pairs" and not own:  # a good and a bad answer make a pair, on whichever side they would have stood
        pairs, notes = converted(everything, shape, label)
        made, kept = formats.split(pairs, recipe.eval_share, recipe.seed)
    else:
        made, notes = converted(train, shape, label)
        kept = converted(held, shape, refs_label(own or recipe.dataset))[0] if held else []
    if shape == "unpaired":
        for part in (made, kept):
            random.Random(recipe.seed).shuffle(part)
    return Found(made, kept, notes, _few(everything, made + kept) if shape == "pairs" else [], rows)


def _few(rows: list[Row], pairs: list[Row]) -> list[tuple[str, str, str]]:
    """A warning where most of the marked answers found no partner."""
    marked = sum("label" in row for row in rows)
    if not marked or len(pairs) >= marked / 4:
        return []
    return [("few-pairs", f"Only {len(pairs)} pairs could be made of {marked} marked answers: a pair needs a good and "
             "a bad answer to the same question.", "KTO learns from marked answers as they are.")]


def converted(rows: list[Row], shape: str, label: str) -> tuple[list[Row], list[str]]:
    """Canonical rows in a shape, and sentences that say what was done to them.

    Raises:
        StudioError: none of them can be had in that shape (``dataset``).
    """
    made, notes = _SHAPES[shape](rows)
    if not made:
        message, hint = _LACK[shape]
        raise StudioError(f"{label} {message}", hint, "dataset")
    if len(made) < len(rows) and shape != "unpaired":
        notes.append(f"{len(rows) - len(made)} of {len(rows)} rows are left out: {_LEFT[shape]}.")
    return made, notes


_LACK = {"pairs": ("has no pairs of a better and a worse answer.", "Make pairs of it in the Dataset tab (Pairs), choose "
                   "another dataset, or use a method that learns from single answers."),
         "unpaired": ("has neither marked answers nor pairs.", "Choose answers that were marked good or bad, or pairs of a "
                      "better and a worse answer."),
         "prompts": ("has no questions, only texts.", "Choose chats, questions with answers, or pairs."),
         "chats": ("has no answers to imitate.", "Choose chats or questions with answers.")}
_LEFT = {"pairs": "they have no better and worse answer", "prompts": "they ask nothing", "chats": "they answer nothing"}


def _pairs(rows: list[Row]) -> tuple[list[Row], list[str]]:
    keys = ("prompt", "chosen", "rejected")
    if not any("label" in row for row in rows):
        made = [row for row in rows if "chosen" in row]
        if all("margin" in row for row in made):
            return [{key: row[key] for key in (*keys, "margin")} for row in made], []
        told = ["Some pairs say how much better their answer is and others do not, so none is asked."]
        return [{key: row[key] for key in keys} for row in made], told if any("margin" in row for row in made) else []
    good: dict[str, list[Row]] = {}
    bad: dict[str, list[Row]] = {}
    made = []
    for row in rows:
        if "chosen" in row:
            made.append({key: row[key] for key in keys})
        elif "label" in row and (asked := answers.asked(row)):
            (good if row["label"] else bad).setdefault(answers.key(asked), []).append(row)
    for key, better in good.items():
        for one, two in zip(better, bad.get(key, ()), strict=False):
            prompt = _with_contexts(one)["prompt"]
            made.append({"prompt": prompt, "chosen": one["completion"], "rejected": two["completion"]})
    return made, [f"{len(made)} pairs were made of a good and a bad answer to the same question."] if made else []


def _with_contexts(row: Row) -> Row:
    return for_sft({**row, "label": True})


def _unpaired(rows: list[Row]) -> tuple[list[Row], list[str]]:
    made, pairs = [], 0
    for row in rows:
        if "label" in row:
            prompt = _with_contexts(row)["prompt"]
            made.append({"prompt": prompt, "completion": row["completion"], "label": row["label"]})
        elif "chosen" in row:
            pairs += 1
            made += [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
                     for side in ("chosen", "rejected")]
    told = [f"{pairs} pairs were taken apart: the better answer counts as good, the worse one as bad."] if pairs else []
    return made, told


def _prompts(rows: list[Row]) -> tuple[list[Row], list[str]]:
    made = []
    for row in rows:
        if asked := answers.asked(row):
            prompt = row["prompt"] if isinstance(row.get("prompt"), str) and not row.get("contexts") else asked
            good = row.get("label", True)
            made.append({**(row.get("tags") or {}), "prompt": prompt, "answer": answers.answer(row) if good else ""})
    names = {name for row in made for name in row}
    made = [{name: row.get(name) for name in sorted(names)} for row in made]
    for name in names - {"prompt", "answer"}:
        _one_type(made, name)
    return made, ["Only the questions are given to the model; the answers of the data are kept for the rewards."]


def _one_type(rows: list[Row], name: str) -> None:
    """A column that Arrow can hold unchanged: of one plain type, or lists of texts; all else becomes JSON text.

    Structs would get the keys of all rows, filled with nulls: another JSON Schema than the row's own.
    """
    values = [row[name] for row in rows if row[name] is not None]
    kinds = {type(value) for value in values}
    plain = kinds <= {str} or kinds <= {int, float} or kinds <= {bool}
    if plain or (kinds == {list} and all(isinstance(part, str) for value in values for part in value)):
        return
    for row in rows:
        if row[name] is not None and not isinstance(row[name], str):
            row[name] = json.dumps(row[name], ensure_ascii=False, default=str)


def _chats(rows: list[Row]) -> tuple[list[Row], list[str]]:
    made = []
    for row in rows:
        asked, said = answers.asked(row), answers.answer(row)
        if asked and said and row.get("label", True):
            turns = row["messages"] if "messages" in row else [*asked, {"role": "assistant", "content": said}]
            made.append({"messages": turns})
    return made, []


_SHAPES = {"pairs": _pairs, "unpaired": _unpaired, "prompts": _prompts, "chats": _chats}


def as_chat(rows: Iterable[Row], template: str | None) -> Iterator[Row]:
    """Rows as a model with this chat template reads them: texts become messages. Without a template as they are.

    Raises:
        StudioError: the rows are chats, and there is no template.
    """
    for row in rows:
        yield {key: _turns(value, key, template) if key in _ROLES else value for key, value in row.items()}


_ROLES = {"prompt": "user", "chosen": "assistant", "rejected": "assistant", "completion": "assistant", "messages": ""}


def _turns(value: Any, key: str, template: str | None) -> Any:
    if template is None:
        if isinstance(value, list):
            raise StudioError("The data are chats, and the chat template is set to none.",
                              "Set 'Chat template' to automatic.", "chat_template")
        return value
    turns = [{"role": _ROLES[key], "content": value}] if isinstance(value, str) else value
    return for_template(turns, template)
