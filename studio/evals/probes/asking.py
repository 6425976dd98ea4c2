"""Asking several models the same questions, one model after the other; every reply is kept at once in a journal.

    class Mine(Probe):
        @classmethod
        def tasks(cls, recipe): return {"one": Task("One", "score", {"score": SHARE})}
        @classmethod
        def work(cls, recipe, ctx, results, number, round): ...
            for key, value in round.each(items, make): ...
            results.add(number, "one", samples)

Models are anything :mod:`studio.datasets.llm` can ask: of this computer (transformers and llama.cpp alike) or at an address.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field as attribute
from typing import TYPE_CHECKING, Any

from studio.chat import address
from studio.datasets import llm
from studio.datasets.journal import Journal
from studio.datasets.step import Stopped
from studio.errors import StudioError
from studio.evals.results import Results
from studio.jobs.files import read_json
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

if TYPE_CHECKING:
    from studio.jobs.context import Context

MOST = 16  # models of one run
CALM = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 768}  # how a judge speaks


class ProbeRecipe(Recipe):
    """The fields of every evaluation that asks models through their servers."""

    kind = "eval"

    models: list[str] = field([], "Models", "The models that are asked, all of them the same. Yours, GGUF files, hub:owner/name, "
                              "or addresses of OpenAI-compatible servers, http://host:port/v1#model.", widget="models",
                              max_length=MOST)
    max_new_tokens: int = field(128, "Longest answer", "Answers are cut at so many tokens.", group="advanced", unit="tokens",
                                ge=1, le=131_072)
    temperature: float = field(0.0, "Temperature", "0 always takes the likeliest words, so the same run gives the same figures.",
                               group="advanced", ge=0, le=2)
    top_p: float = field(1.0, "Top p", "Chooses among the likeliest words that together have this probability.",
                         group="advanced", gt=0, le=1)
    seed: int = field(0, "Seed", "What is drawn is drawn by this number: the same seed, the same questions.", group="advanced",
                      ge=0, le=2**31 - 1)
    concurrency: int = field(4, "At once", "Requests under way together. Servers answer many; a model of this computer gains "
                             "little.", group="advanced", ge=1, le=64)
    timeout: float = field(300, "Longest wait", "A request without an answer by then is tried again.", group="advanced",
                           unit="s", ge=1, le=3600)
    price_in: float = field(0.0, "Price, read", "Of a million tokens that the models read; 0 = free.", group="advanced", ge=0,
                            le=10_000)
    price_out: float = field(0.0, "Price, written", "Of a million tokens that the models write; 0 = free.", group="advanced",
                             ge=0, le=10_000)


@dataclass(frozen=True)
class Task:
    """A task as :meth:`studio.evals.results.Results.task` takes it."""

    title: str
    main: str
    metrics: dict[str, dict[str, Any]]
    more: dict[str, Any] = attribute(default_factory=dict)


class Probe(Method):
    """Base of these methods: one model at a time, each pair of model and task kept when it is whole."""

    @classmethod
    @abstractmethod
    def tasks(cls, recipe: Any) -> dict[str, Task]:
        """The tasks of a run, in the order they are shown."""

    @classmethod
    @abstractmethod
    def work(cls, recipe: Any, ctx: Context, results: Results, number: int, round: Round) -> None:
        """Ask model ``number`` and add its answers to every task that is not finished."""

    @classmethod
    def begin(cls, recipe: Any, ctx: Context) -> None:
        """Whatever is read once for all models.

        Raises:
            StudioError: the data hold nothing to ask.
        """

    @classmethod
    def facts(cls, recipe: Any, results: Results) -> dict[str, Any]:
        """What a panel or the report shows beside the table, from what is kept."""
        return {}

    @classmethod
    def judged(cls, recipe: Any) -> bool:
        """Whether the recipe's judge is asked."""
        return getattr(recipe, "verdict", "") == "judge"

    @classmethod
    def requests(cls, recipe: Any) -> int | None:
        """Requests for each model, where that is known before."""
        return None

    @classmethod
    def parents(cls, recipe: Any) -> list[tuple[str, str]]:
        """(reference, role) of what is read beside the models."""
        return [(recipe.dataset, "data")] if getattr(recipe, "dataset", "") else []

    @classmethod
    def check(cls, recipe: Any) -> None:
        check_models(recipe)
        if cls.judged(recipe):
            if not recipe.judge.strip():
                raise StudioError("No judge is chosen.", "Choose the model that judges, or let rules decide.", "judge")
            llm.check(recipe, recipe.judge, "judge")

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        """What a server takes is not known before; how often it is asked is."""
        asked = cls.requests(recipe)
        notes = [f"About {asked * len(recipe.models):,} requests, {asked:,} for each model."] if asked and recipe.models else []
        return Estimate(notes=notes)

    @classmethod
    def run(cls, recipe: Any, ctx: Context) -> dict[str, Any]:
        results = Results(ctx, recipe)
        wanted = cls.tasks(recipe)
        for name, task in wanted.items():
            results.task(name, task.title, task.main, task.metrics, **task.more)
        try:
            cls.begin(recipe, ctx)
            with ExitStack() as stack:
                by = None
                if cls.judged(recipe):
                    by = stack.enter_context(llm.open(recipe, ctx, recipe.judge, recipe.judge_model, "judge", **CALM))
                for number, ref in enumerate(recipe.models):
                    results.model(ref, label_of(ref))
                    if all(results.finished(number, name) for name in wanted):
                        ctx.progress(number + 1, len(recipe.models))
                        continue
                    with llm.open(recipe, ctx, ref, "", "models") as client, \
                            Journal(ctx.run_dir / "asked" / f"{number}.jsonl") as journal:
                        cls.work(recipe, ctx, results, number, Round(recipe, ctx, number, client, journal, by))
        except Stopped:
            ctx.log("Stopped; every answer so far is kept and not asked for again.")
        while results.models and not any(results.finished(len(results.models) - 1, name) for name in wanted):
            results.models.pop()
        if not results.models:
            return {"table": [], "tasks": results.tasks}
        return results.finish(parents=cls.parents(recipe), **cls.facts(recipe, results))


class Round:
    """One model being asked. ``client`` answers, ``by`` judges (the model itself where no judge is set)."""

    def __init__(self, recipe: Any, ctx: Context, number: int, client: llm.Client, journal: Journal, by: llm.Client | None):
        self.recipe, self.ctx, self.number, self.client, self.journal = recipe, ctx, number, client, journal
        self.by = by or client
        self.failed: list[str] = []
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._fresh = 0

    def each(self, items: Iterable[tuple[str, Any]], make: Callable[[Asker, Any], Any], done: int = 0,
             total: int = 0) -> Iterator[tuple[str, Any]]:
        """(key, what ``make(ask, item)`` gave) in the order of completion; items without an answer are left out and told.

        Args:
            done, total: Items of this model before these, and in all, for the progress.

        Raises:
            Stopped: as asked.
            StudioError: the server is gone, or answered nothing at all.
        """
        todo = list(items)
        total, given = total or len(todo), 0

        def work(item: tuple[str, Any]) -> Any:
            key, thing = item
            try:
                return make(Asker(self, key), thing)
            except llm.Failed as err:
                with self._lock:
                    self.failed.append(str(err))
                return None

        source = iter(todo)
        with llm.Pool(self.client.concurrency, work) as pool:
            under_way, left = 0, len(todo)
            while left:
                while under_way < self.client.concurrency + 2 and (item := next(source, None)) is not None:
                    pool.put(item[0], item)
                    under_way += 1
                for key, value in pool.take(self.ctx):
                    under_way, left = under_way - 1, left - 1
                    if value is not None:
                        given += 1
                        yield key, value
                    self._tell(done + len(todo) - left, total)
                if self.ctx.stop_requested:
                    self.client.stop()
                    pool.rest(llm.GRACE)
                    raise Stopped
        if todo and not given:
            raise StudioError(f"{self.client.label} answered none of {len(todo)} questions: {self.failed[-1]}",
                              "See to the server or the settings, then resume this run.", "models")

    def told(self) -> None:
        """Say how many questions of this model stayed without an answer."""
        if self.failed:
            self.ctx.warning("unanswered", f"{self.client.label}: {len(self.failed)} questions got no answer ({self.failed[-1]}).",
                             "They count neither as right nor as wrong.")

    def _tell(self, done: int, total: int) -> None:
        spent, models = time.monotonic() - self._began, len(self.recipe.models)
        rest = models - self.number - done / total
        eta = spent / self._fresh * total * rest if self._fresh else None
        self.ctx.progress(self.number + done / total, models, eta)
        self.client.report()

    def replied(self, key: str, messages: llm.Messages, n: int, client: llm.Client, over: dict[str, Any]) -> list[llm.Answer]:
        """Answers from the journal or from the server.

        Raises:
            studio.datasets.llm.Failed: the server gave none; it is asked again when the run is resumed.
        """
        if (record := self.journal.done(key)) is not None:
            answers = [llm.Answer(**one) for one in record]
            for answer in answers:
                client.count(answer)
            return answers
        answers = client.ask(messages, n, **over)
        self.journal.put(key, [asdict(answer) for answer in answers])
        with self._lock:
            self._fresh += 1
        return answers


class Asker:
    """Asks on behalf of one item, as :class:`studio.datasets.generate.Asker` does; each name is asked once in a run's life."""

    def __init__(self, round: Round, key: str):
        self.round, self.key = round, key

    def all(self, name: str, messages: llm.Messages, n: int = 1, client: llm.Client | None = None, **over: Any) -> list[llm.Answer]:
        """``n`` answers as they came. The seed follows from the key alone, so every model gets the same one."""
        key = f"{self.key}/{name}"
        over = {"seed": llm.derived(self.round.recipe.seed, key)} | over
        return self.round.replied(key, list(messages), n, client or self.round.client, over)

    def __call__(self, name: str, messages: llm.Messages, **over: Any) -> str:
        """One answer as text, without what was thought before it."""
        return self.all(name, messages, **over)[0].text.strip()

    def yes(self, name: str, question: str, answer: str, rule: str) -> bool | None:
        """The judge's word whether an answer keeps a rule; ``None`` where it never answered in form."""
        from studio.datasets import checking, judge, verify

        try:
            return judge.follows(checking.asker(self, name, self.round.by), question, answer, rule)
        except verify.Undecided:
            return None


def check_models(recipe: Any) -> None:
    """Refuse an empty list, a model that is listed twice, is not there or cannot write.

    Raises:
        StudioError: in the field ``models``.
    """
    if not recipe.models:
        raise StudioError("No model is chosen.", "Choose one or more.", "models")
    for number, ref in enumerate(recipe.models):
        llm.check(recipe, ref, "models")
        if not address.is_address(ref):
            refs.check_writes(refs.resolve_model(ref), "models")
        if ref in recipe.models[:number]:
            raise StudioError(f"{label_of(ref)} is listed twice.", "Remove one of the two.", "models")


def label_of(ref: str) -> str:
    """What a person calls a model."""
    return address.label(ref) if address.is_address(ref) else refs.resolve_model(ref).label


def pair(results: Results, number: int, task: str) -> dict[str, Any] | None:
    """What is kept of one model and task: ``{"scores", "facts", "samples"}``; ``None`` while it is not whole."""
    return read_json(results._place(number, task))


def shown(messages: llm.Messages) -> str:
    """A chat as the text that a sample keeps: a single question as it is, several messages with their roles."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)
