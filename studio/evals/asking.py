"""Questions of an evaluation, and asking models for their answers so that a stop loses nothing.

    work = Asking(recipe, ctx, journal, lambda: llm.open(recipe, ctx, ref, "", "models"), bar)
    for key, found in work.each(jobs, make):      # make(data, ask) -> plain values, in a thread
        ...

What ``make`` gave stands in the journal beside every reply it is made of: a run that goes on opens no model whose work is done.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.datasets import llm
from studio.datasets.generate import Asker, Replies
from studio.datasets.verify import Undecided
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.jobs.context import Context

Row = dict[str, Any]
Turns = list[dict[str, str]]
TAG = 60  # characters of a value that answers may be grouped by


@dataclass
class Question:
    """A row of a dataset that asks something.

    Attributes:
        id: Follows from what is asked alone, so that it is the same in every run.
        messages: What a model is asked.
        target: The row's own answer, or an empty string.
        asked: ``{prompt, answer, and every tag}``, as checks and rewards read it.
        row: The canonical row.
    """

    id: str
    messages: Turns
    target: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    asked: Row = field(default_factory=dict)
    row: Row = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The question as a person or a judge reads it."""
        return text_of(self.messages)


def text_of(messages: Turns) -> str:
    """A conversation as text; a single message as it is."""
    from studio.datasets import judge

    return judge.question_of({"prompt": messages})


def questions(ref: str, columns: dict[str, str], samples: int, seed: int, ctx: Any = None) -> list[Question]:
    """Rows of a dataset that ask something, ``samples`` of them drawn by the seed, in the order of the data.

    Raises:
        StudioError: unreadable data, or none that ask anything (``dataset``).
    """
    from studio.aligners import data
    from studio.datasets import answers

    each, found = data.listed(ref, columns, "prompts")
    rows = [row for row in each if answers.asked(row)]
    asked = data.converted(rows, "prompts", data.refs_label(ref))[0]
    if ctx is not None:
        ctx.log(f"{found.detected.title}. {' '.join(found.detected.evidence)}")
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(samples, len(rows))))
    return numbered([_question(rows[i], asked[i]) for i in chosen])


def _question(row: Row, asked: Row) -> Question:
    from studio.datasets import answers

    turns = [{"role": turn["role"], "content": str(turn.get("content") or "")} for turn in answers.asked(row)]
    tags = {name: str(value) for name, value in (row.get("tags") or {}).items()
            if isinstance(value, (str, int, bool)) and 0 < len(str(value)) <= TAG}
    return Question("", turns, asked.get("answer") or "", tags, asked, row)


def numbered(found: list[Question]) -> list[Question]:
    """Gives questions their ids; one that is asked twice has another one the second time."""
    from studio.arena.battles import digest

    seen: dict[str, int] = {}
    for one in found:
        mark = digest(one.messages)
        seen[mark] = seen.get(mark, 0) + 1
        one.id = mark if seen[mark] == 1 else f"{mark}-{seen[mark]}"
    return found


def check_models(refs: list[str], name: str = "models") -> None:
    """Refuse models that cannot be asked, without asking them.

    Raises:
        StudioError: none, one twice, one that is not there or cannot write; in that field.
    """
    from studio.chat import address, session
    from studio.library import refs as library

    if not refs:
        raise StudioError("No model is chosen.", "Choose one or more.", name)
    for number, ref in enumerate(refs):
        if ref in refs[:number]:
            raise StudioError(f"{session.label_of(ref)} is listed twice.", "Remove one of the two.", name)
        llm.check(None, ref, name)
        if not address.is_address(ref):
            library.check_writes(library.resolve_model(ref), name)


class Bar:
    """Progress over all parts of a run, and the time left as the work of this attempt foretells it."""

    def __init__(self, ctx: Context, total: int):
        self.ctx, self.total, self.done, self.fresh, self.began = ctx, total, 0, 0, time.monotonic()

    def step(self, fresh: bool = True, count: int = 1) -> None:
        self.done += count
        self.fresh += count * fresh
        spent = time.monotonic() - self.began
        left = max(0, self.total - self.done)
        self.ctx.progress(self.done, max(self.total, self.done), left * spent / self.fresh if self.fresh else None)


class Asking(Replies):
    """See the module.

    Args:
        opening: Gives the client, called when the first thing is left to do.
    """

    def __init__(self, recipe: Any, ctx: Context, journal: llm.Journal, opening: Callable[[], llm.Client], bar: Bar):
        super().__init__(journal)
        self.recipe, self.ctx, self.opening, self.bar = recipe, ctx, opening, bar
        self.client: llm.Client = None  # type: ignore[assignment]

    def each(self, jobs: Iterable[tuple[str, Any]], make: Callable[[Any, Asker], Row]) -> Iterator[tuple[str, Row]]:
        """(key, what ``make`` gave) of every job, those of an earlier attempt first, then in the order of completion. Where the
        server gave no answer it is ``{"failed": why}``, where a judge never answered in form ``{"undecided": what it said}``.

        Raises:
            Stopped: as asked; all that is answered is in the journal.
            StudioError: the server is gone.
        """
        todo: list[tuple[str, Any]] = []
        for key, data in jobs:
            if (known := self.journal.done(f"{key}=")) is None:
                todo.append((key, data))
            else:
                self.bar.step(False)
                yield key, known
        if not todo:
            return
        if self.ctx.stop_requested:
            raise llm.Stopped

        def work(item: tuple[str, Any]) -> Row:
            ask = Asker(self, item[0])
            try:
                made = make(item[1], ask)
            except Undecided as err:
                made = {"undecided": str(err)}
            except llm.Failed as err:
                return {"failed": str(err)}  # asked again when the run goes on, unless the journal knows better
            self.journal.put(f"{item[0]}=", made)
            return made

        with self.opening() as self.client:
            source, under_way = iter(todo), 0
            with llm.Pool(self.client.concurrency, work) as pool:
                while True:
                    while under_way < self.client.concurrency + 2 and (item := next(source, None)) is not None:
                        pool.put(item[0], item)
                        under_way += 1
                    if not under_way:
                        return
                    for key, found in pool.take(self.ctx):
                        under_way -= 1
                        self.bar.step()
                        self.client.report()
                        yield key, found
                    if self.ctx.stop_requested:
                        self.client.stop()
                        pool.rest(llm.GRACE)
                        raise llm.Stopped


def spent(ask_all: list[llm.Answer]) -> list[int]:
    """[tokens read, tokens written] of some answers, as far as the server tells them."""
    return [sum(answer.prompt_tokens or 0 for answer in ask_all), sum(answer.completion_tokens or 0 for answer in ask_all)]
