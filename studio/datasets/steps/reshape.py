"""Reshape: the same content in another form, for another kind of training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator

from studio.datasets import passes
from studio.datasets.convert import Reject, for_sft
from studio.datasets.passes import Change, Drop
from studio.datasets.step import Step, StepRecipe
from studio.datasets.steps.dedup import content
from studio.datasets.texts import Row
from studio.datasets.version import Item, Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

FORMS = {
    "messages": "Chats: messages", "prompt_completion": "Prompt and completion", "single_turns": "One row for every answer",
    "imitate": "Only what is worth imitating: better answers, good marks", "rated": "Pairs to rated answers (KTO)",
    "pairs": "Rated answers to pairs, where one question has both", "drop_system": "Without the system message",
    "set_system": "With this system message", "as_is": "Nothing",
}


class ReshapeRecipe(StepRecipe):
    method = "reshape"

    to: Literal["messages", "prompt_completion", "single_turns", "imitate", "rated", "pairs", "drop_system",  # type: ignore[valid-type]
                "set_system"] = field("messages", "Into", "What the rows become. Rows that cannot become that are left as they are, "
                                      "or left out where they would not fit.", choices={k: v for k, v in FORMS.items() if k != "as_is"})
    history: bool = field(True, "With what was said before", "Every answer keeps the messages before it; off, only its own question.",
                          when={"to": ["single_turns"]})
    system: str = field("", "System message", "What the system message says.", widget="text", max_length=100_000,
                        when={"to": ["set_system"]})
    replace_system: bool = field(False, "Replace", "Also replace a system message that is there already.", when={"to": ["set_system"]})
    most_pairs: int = field(4, "Pairs of a question, at most", "Where a question has several good and bad answers.", ge=1, le=100,
                            when={"to": ["pairs"]})

    @model_validator(mode="after")
    def _said(self) -> ReshapeRecipe:
        if self.to == "set_system" and not self.system:
            raise ValueError("write the system message")
        return self


class Reshape(Step):
    title, summary = "Reshape", "Gives rows another form: chats, prompts, single answers, pairs, ratings, other system message."
    Recipe = ReshapeRecipe
    group = "shape"
    texts = {"reshaped": "have another form", "split_up": "became several rows", "rated_bad": "are marked bad",
             "no_partner": "have no answer of the other mark to the same question", "paired": "became part of a pair",
             "no_pair": "are no pair", "nothing_left": "hold nothing else"}

    @classmethod
    def work(cls, recipe: ReshapeRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any] | None:
        if recipe.to in ("rated", "single_turns"):
            _several(recipe, source, out, ctx)
        elif recipe.to == "pairs":
            _pairs(recipe, source, out, ctx)
        else:
            form = {"messages": as_messages, "prompt_completion": as_prompt, "imitate": _imitated,
                    "drop_system": lambda row: with_system(row, None, True),
                    "set_system": lambda row: with_system(row, recipe.system, recipe.replace_system)}[recipe.to]
            passes.rewrite(source, out, ctx, lambda row: _decided(row, form(row)))
        return None


def _decided(row: Row, made: Row | Reject) -> Change | Drop | None:
    if isinstance(made, Reject):
        return Drop(made.reason, made.detail)
    return None if made == row else Change(made, "reshaped")


def as_messages(row: Row) -> Row:
    """A chat; plain texts, pairs and ratings stay what they are."""
    if "messages" in row or "text" in row or "chosen" in row or "label" in row:
        return row
    asked = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
    answer = row["completion"] if isinstance(row["completion"], list) else [{"role": "assistant", "content": row["completion"]}]
    more = {key: value for key, value in row.items() if key not in ("prompt", "completion")}
    return {"messages": asked + answer, **more}


def as_prompt(row: Row) -> Row:
    """The last answer apart from what it is given to: as texts where there is just a question, else as messages."""
    if "messages" not in row:
        return row
    *before, last = row["messages"]
    more = {key: value for key, value in row.items() if key != "messages"}
    if len(before) == 1 and before[0].keys() | last.keys() == {"role", "content"} and not more:
        return {"prompt": before[0]["content"], "completion": last["content"]}
    return {"prompt": before, "completion": [last], **more} if before else row


def _imitated(row: Row) -> Row | Reject:
    return for_sft(row)


def with_system(row: Row, text: str | None, replace: bool) -> Row | Reject:
    """The row with another system message, or with none. A prompt that is plain text becomes messages."""
    if "text" in row:
        return row
    key = "messages" if "messages" in row else "prompt"
    turns = row[key] if isinstance(row[key], list) else [{"role": "user", "content": row[key]}]
    has = bool(turns) and turns[0]["role"] == "system"
    if text is None:
        made = turns[1:] if has else turns
        if not made:
            return Reject("nothing_left")
        return {**row, key: made} if has else row
    if has and not replace:
        return row
    made = {**row, key: [{"role": "system", "content": text}, *(turns[1:] if has else turns)]}
    for side in ("completion", "chosen", "rejected"):
        if isinstance(row.get(side), str):
            made[side] = [{"role": "assistant", "content": row[side]}]
    return made


def _several(recipe: ReshapeRecipe, source: Version, out: Writer, ctx: Context) -> None:
    """Rows that become more than one."""
    work = passes.Work(ctx, sum(map(source.count, source.splits)))
    for split, _, batch in passes.batches(source, work):
        out.split = split
        for item in passes.items_of(batch):
            row = item.row
            made = list(_rated(row) if recipe.to == "rated" else single_turns(row, recipe.history))
            if made == [row]:
                out.keep(item)
                continue
            out.change(item, made[0], "split_up" if len(made) > 1 else "reshaped")
            for more in made[1:]:
                out.add(more, item.source, item.score, dict(item.tags or []))
    out.split = "train"


def _rated(row: Row) -> Iterator[Row]:
    """A pair as two rated answers (KTO, arXiv 2402.01306)."""
    if "chosen" not in row:
        yield row
        return
    more = {key: value for key, value in row.items() if key not in ("prompt", "chosen", "rejected")}
    yield {"prompt": row["prompt"], "completion": row["chosen"], "label": True, **more}
    yield {"prompt": row["prompt"], "completion": row["rejected"], "label": False, **more}


def single_turns(row: Row, history: bool = True) -> Iterator[Row]:
    """A row for every answer of a chat; calls of tools and what they bring belong to the answer that follows."""
    answers = [i for i, m in enumerate(row.get("messages", ())) if m["role"] == "assistant" and not m.get("tool_calls")]
    if len(answers) < 2:
        yield row
        return
    turns = row["messages"]
    more = {key: value for key, value in row.items() if key != "messages"}
    head, before = ([turns[0]] if turns[0]["role"] == "system" else []), 0
    for end in answers:
        part = turns[:end + 1] if history else head + [m for m in turns[before:end + 1] if m["role"] != "system"]
        before = end + 1
        yield {"messages": part, **more}


def _pairs(recipe: ReshapeRecipe, source: Version, out: Writer, ctx: Context) -> None:
    """Good answers against bad ones to the same question. Two passes: which questions have both, then their answers."""
    from studio.datasets.ngrams import digest

    total = sum(map(source.count, source.splits))
    work = passes.Work(ctx, 2 * total)
    for split in source.splits:
        out.split = split
        keys, marks, first = np.zeros(source.count(split), np.uint64), np.zeros(source.count(split), np.int8), 0
        for _, first, batch in passes.batches(source, work, [split]):
            for place, row in enumerate(passes.rows_of(batch), first):
                if "label" in row:
                    keys[place] = int.from_bytes(digest(content(row, "question")), "little")
                    marks[place] = 1 if row["label"] else -1
        both = np.intersect1d(keys[marks > 0], keys[marks < 0])
        waiting: dict[int, list[Item]] = {}
        left = dict(zip(*np.unique(keys[np.isin(keys, both) & (marks != 0)], return_counts=True), strict=True)) if len(both) else {}
        left = {int(key): int(n) for key, n in left.items()}
        for _, first, batch in passes.batches(source, work, [split]):
            for place, item in enumerate(passes.items_of(batch), first):
                key = int(keys[place])
                if not marks[place]:
                    out.keep(item)  # no rated answer
                elif key not in left:
                    out.drop(item, "no_partner")
                else:
                    waiting.setdefault(key, []).append(item)
                    if len(waiting[key]) == left[key]:
                        _paired(waiting.pop(key), recipe.most_pairs, out)
    out.split = "train"
    out.seen.update(source.splits)
    if not out.rows["train"]:
        raise StudioError("No question has both a good and a bad answer.",
                          "Pairs can only be made of questions that were answered twice.", "to")


def _paired(items: list[Item], most: int, out: Writer) -> None:
    """Every good answer against every bad one of a question, up to ``most`` pairs, no answer more often than it must be."""
    good, bad = ([item for item in items if (item.label == "good") is side] for side in (True, False))
    pairs = sorted(((i, j) for i in range(len(good)) for j in range(len(bad))), key=lambda p: ((p[1] - p[0]) % len(bad), p))
    used: set[str] = set()
    for i, j in pairs[:most]:
        better, worse = good[i].row, bad[j].row
        if better["completion"] == worse["completion"]:
            continue
        more = {key: value for key, value in better.items() if key in ("contexts", "tags", "tools")}
        made = {"prompt": better["prompt"], "chosen": better["completion"], "rejected": worse["completion"], **more}
        if type(made["chosen"]) is not type(made["rejected"]):
            continue
        out.change(good[i], made, "paired") if not used & {good[i].id} else out.add(made, good[i].source, good[i].score)
        used |= {good[i].id, bad[j].id}
    for item in items:
        if item.id not in used:
            out.drop(item, "no_partner")
        elif item.label == "bad":
            out.rows_in += 1  # it lives on in the pair
