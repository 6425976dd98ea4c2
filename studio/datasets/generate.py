"""What all generation steps share: jobs worked off side by side, settled in order, written down as they come.

    with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
        run = Generation(recipe, out, ctx, client, journal)
        run.work(jobs, make, want=recipe.count)
        return run.facts()

``make(job, ask)`` runs in a thread and asks as often as it needs; every reply goes into the journal first. Its results
are *settled* in the order of the jobs, in one thread: there duplicates are found and rows are written. A new job is
begun only when the one ``2 * concurrency`` before it is settled, so what a job may know of earlier rows never depends
on chance: a run that was stopped or killed and resumed makes the rows that an uninterrupted one would have made, each
once.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from studio.datasets import llm
from studio.datasets.generate_text import Seen, refuses, repeats
from studio.datasets.step import Step, Stopped
from studio.datasets.version import Row, Version, Writer
from studio.errors import StudioError
from studio.method import Estimate
from studio.recipe import field as recipe_field

if TYPE_CHECKING:
    from studio.jobs.context import Context

TEXTS = {
    "empty": "are empty", "cut": "were cut at the longest answer", "refusal": "are refusals",
    "not_in_form": "are not in the form asked for", "duplicate": "repeat another row",
    "near_duplicate": "nearly repeat another row", "runs_in_circles": "run in circles",
    "not_grounded": "say what the text does not", "failed": "got no answer from the server",
    "unanswerable": "cannot be answered from the text", "too_short": "are too short",
    "low_score": "were rated too low"}
RECENT = 5  # rows that a new one is told to differ from
STALE = 100  # jobs in a row that brought next to nothing: the model has no more to say
_END = object()
LENGTHS = ("one short sentence", "one or two sentences", "a short paragraph", "a long, detailed message")
STYLES = (
    "plain and direct", "polite", "in a hurry, with few words", "chatty, with a bit of background",
    "precise and technical", "unsure what exactly to ask for", "as a beginner would say it",
    "as an expert would say it", "with a small typing mistake or two", "as a list of wishes")
KINDS = (
    "a question", "a request to write something", "a request to explain something",
    "a request to compare two things", "a problem to solve", "a request for advice",
    "a request to improve something that the message includes", "an unusual case at the edge of the task",
    "something that a person meets every day")


class MakeRecipe(llm.ModelFields):
    """The fields of every generation step."""

    near_duplicates: float = recipe_field(0.85, "Too alike from", "Share of words and pairs of words in common from "
                                          "which a new row counts as a repetition; 0 drops exact repetitions only.",
                                          group="advanced", ge=0, le=1)


@dataclass(frozen=True)
class Job:
    """One piece of work. ``key`` names it in the journal; ``seed`` makes what is drawn for it the same in every
    run."""

    key: str
    data: Any = None


@dataclass
class Made:
    """A row that was made. ``text`` is what is compared with the other rows (empty: nothing), ``near`` whether
    roughly."""

    row: Row
    text: str = ""
    near: bool = True
    score: float | None = None
    tags: dict[str, Any] = field(default_factory=dict)


class Bad(Exception):
    """A generation that is not used: a key of the step's texts, and what was seen."""

    def __init__(self, reason: str, detail: str = "", row: Any = None):
        super().__init__(reason)
        self.reason, self.detail, self.row = reason, detail, row


class MakeStep(Step):
    """Base of the generation steps."""

    group, others, texts = "make", {"generator": "generator"}, TEXTS

    @classmethod
    def check(cls, recipe: Any) -> None:
        super().check(recipe)
        llm.check(recipe)

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        """What a server takes is not known before; how often it is asked is."""
        notes = []
        if rows := getattr(recipe, "count", 0) or _rows(recipe.dataset):
            notes.append(f"About {round(rows * cls.calls(recipe)):,} requests, if nothing is dropped.")
        if recipe.generator == "starter":
            notes.append("The starter answers simple questions of its small world; it is far too small to follow "
                         "these instructions. Choose a larger model or a server.")
        return Estimate(notes=notes)

    @classmethod
    def calls(cls, recipe: Any) -> float:
        """Requests for each new row, or for each row of the dataset where there is no number of rows to reach."""
        return 1.0


def _rows(ref: str) -> int:
    """Rows of a dataset, as far as that is known without reading it."""
    from studio.library import refs

    try:
        rows = refs.resolve_dataset(ref).meta.get("rows") or 0
    except StudioError:
        return 0
    return rows.get("train", 0) if isinstance(rows, dict) else rows if isinstance(rows, int) else 0


class Replies:
    """Replies that stand in a journal before anybody uses them, so that a run that goes on asks nothing twice."""

    def __init__(self, journal: llm.Journal):
        self.journal = journal
        self._failures: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def replied(self, key: str, client: llm.Client, messages: llm.Messages, n: int,
                over: dict[str, Any]) -> tuple[list[llm.Answer], bool]:
        """(answers, fresh?) from the journal or from the server.

        A failure is written down only when something succeeds after it. So a server that dies leaves no failures
        behind that a resumed run would believe.
        """
        record = self.journal.done(key)
        if record is not None:
            if "failed" in record:
                raise llm.Failed(*record["failed"])
            answers = [llm.Answer(**answer) for answer in record["answers"]]
            for answer in answers:
                client.count(answer)
            return answers, False
        try:
            answers = client.ask(messages, n, **over)
        except llm.Failed as err:
            with self._lock:
                self._failures.append((key, {"failed": [err.reason, err.detail]}))
            raise
        with self._lock:
            for failed in self._failures:
                self.journal.put(*failed)
            self._failures.clear()
            self.journal.put(key, {"answers": [asdict(answer) for answer in answers]})
        return answers, True


class Generation(Replies):
    """See the module. ``kept`` rows so far; ``recent`` the newest texts; ``dropped`` by reason."""

    def __init__(self, recipe: Any, out: Writer, ctx: Context, client: llm.Client, journal: llm.Journal,
                 source: str = ""):
        super().__init__(journal)
        self.recipe, self.out, self.ctx, self.client = recipe, out, ctx, client
        self.source = source or f"made by {client.label}"
        self.seen = Seen(recipe.near_duplicates)
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.kept = self.settled = 0
        self.dropped: Counter[str] = Counter()
        self.tired = False
        self._fresh = 0
        self._began = time.monotonic()

    # ---- working off

    def work(self, jobs: Iterable[Job | None], make: Callable[[Job, Asker], Any], want: int | None = None,
             total: int = 0, settle: Callable[[Job, Any], None] | None = None) -> None:
        """Work ``jobs`` off until they end or ``want`` rows are kept.

        Args:
            jobs: ``None`` among them means that nothing can be begun before another job is settled.
            make: Gives a list of :class:`Made` or :class:`Bad` (or anything that ``settle`` takes), or raises ``Bad``.
            total: Number of jobs, for the progress, where that is known.
            settle: Called in order with each job and its result; by default rows are kept or dropped.

        Raises:
            Stopped: as asked; everything answered so far is in the journal.
            StudioError: the server is gone.
        """
        settle = settle or self.take
        source, more, recent = iter(jobs), True, deque(maxlen=STALE)
        waiting: deque[Job] = deque()
        ready: dict[str, tuple[Any, bool]] = {}
        start = self.kept

        def attempt(job: Job) -> tuple[Any, bool]:
            ask = Asker(self, job.key)
            try:
                return make(job, ask), ask.fresh
            except Bad as bad:
                return [bad], ask.fresh
            except llm.Failed as err:
                return [Bad("failed", str(err))], ask.fresh

        with llm.Pool(self.client.concurrency, attempt) as pool:
            while True:
                while more and len(waiting) < 2 * self.client.concurrency:
                    if want is not None and self.kept - start + len(waiting) >= want:
                        break
                    job = next(source, _END)
                    if job is _END:
                        more = False
                    if job is _END or job is None:
                        break
                    waiting.append(job)
                    pool.put(job.key, job)
                if not waiting:
                    self.ctx.progress(self.settled, self.settled, 0.0)
                    return
                while waiting[0].key not in ready:
                    ready.update(pool.take(self.ctx))
                    if self.ctx.stop_requested:
                        self.client.stop()
                        pool.rest(llm.GRACE)
                        raise Stopped
                job, before = waiting.popleft(), self.kept
                value, fresh = ready.pop(job.key)
                self._fresh += fresh
                settle(job, value)
                self.settled += 1
                recent.append(self.kept > before)
                self.tell(want, total, self.kept - start)
                if want is not None and len(recent) == STALE and sum(recent) <= STALE // 50:
                    self.tired, more = True, False

    def collect(self, jobs: Iterable[Job], make: Callable[[Job, Asker], Any]) -> list[Any]:
        """The results of some jobs, in order; ``None`` for those that failed. Nothing is written to the dataset."""
        found: list[Any] = []

        def settle(job: Job, value: Any) -> None:
            found.append(None if isinstance(value, list) and value and isinstance(value[0], Bad) else value)

        before = self.settled
        self.work(jobs, make, settle=settle)
        self.settled = before
        return found

    def take(self, job: Job, value: Any) -> None:
        """Keep or drop what a job made."""
        for one in value or [Bad("empty")]:
            if isinstance(one, Bad):
                self.refuse(one)
            else:
                self.accept(one)

    def accept(self, made: Made) -> bool:
        """Write a row unless it repeats one."""
        if made.text and (how := self.seen.find(made.text, made.near)):
            self.refuse(Bad("duplicate" if how == "exact" else "near_duplicate", made.text, made.row))
            return False
        self.out.add(made.row, self.source, made.score, made.tags)
        self.out.rows_in += 1
        self.kept += 1
        if made.text:
            self.recent.append(" ".join(made.text.split())[:160])
        if self._fresh and (self.kept <= 10 or self.kept % 25 == 0):
            self.show(made.row)
        return True

    def refuse(self, bad: Bad) -> None:
        self.dropped[bad.reason] += 1
        self.out.reject(bad.reason, bad.detail, self.source, bad.row if bad.row is not None else bad.detail)

    def show(self, row: Row) -> None:
        from studio.datasets.convert import turns_of

        turns = turns_of(row)
        asked = "\n".join(str(turn["content"]) for turn in turns[:-1] if turn["role"] != "system")
        self.ctx.sample(self.kept, asked[:2000], str(turns[-1]["content"])[:4000], self.client.label)

    def tell(self, want: int | None, total: int, kept: int) -> None:
        """Progress, figures, and the time left as the fresh answers of this attempt foretell it."""
        done, whole = (kept, want) if want else (self.settled, total or self.settled)
        spent = time.monotonic() - self._began
        rate = (done / self.settled if self.settled else 0) * self._fresh / spent if spent > 0 else 0
        self.ctx.progress(done, whole, (whole - done) / rate if rate else None)
        self.client.report(rows=self.out.rows_out, dropped=sum(self.dropped.values()))

    def facts(self, **more: Any) -> dict[str, Any]:
        """What stands with the step in the history: who made it, at what cost, and what became of it."""
        usage = self.client.usage.to_dict()
        if not self.kept and self.out.rows_out:
            top = ", ".join(f"{n:,} {self.out.texts.get(code, code)}" for code, n in self.dropped.most_common(3))
            self.ctx.warning("nothing_made", "The model made no usable row" + (f": {top}." if top else "."),
                             "Look at what was dropped, ask a stronger model, or loosen the step.")
        return {"generator": self.client.label, "usage": usage, "jobs": self.settled, "made": self.kept} | more

    def too_few(self, want: int) -> None:
        """Say why fewer rows than wanted were made."""
        if self.kept >= want:
            return
        top = ", ".join(f"{n:,} {self.out.texts.get(code, code)}" for code, n in self.dropped.most_common(3))
        why = "the model had nothing new to say any more" if self.tired else "too many were dropped"
        said = f" ({top})." if top else "."
        self.ctx.warning("too_few_rows", f"{self.kept:,} of {want:,} rows were made: {why}{said}",
                         "Widen the task, give more topics, raise the temperature, or ask a stronger model.")


class Asker:
    """Asks on behalf of one job: ``ask("answer", messages)`` is a checked text; each name is asked once in a run's
    life.

    ``run`` is a :class:`Generation`, or any :class:`Replies` with a ``recipe`` and a ``client``.
    """

    def __init__(self, run: Any, key: str):
        self.run, self.key, self.fresh = run, key, False
        self.rng = random.Random(f"{run.recipe.seed}/{key}")

    def __call__(self, name: str, messages: str | llm.Messages, system: str = "", form: bool = True,
                 **over: Any) -> str:
        """One answer.

        Args:
            name: Of the question within the job.
            messages: Messages, or the text of a single one.
            form: Refuse answers that are empty, cut, refusals or run in circles.

        Raises:
            Bad: with the reason.
            llm.Failed: the server gave no answer.
        """
        answer = self.all(name, messages, system, **over)[0]
        return usable(answer) if form else answer.text

    def all(self, name: str, messages: str | llm.Messages, system: str = "", n: int = 1,
            client: llm.Client | None = None, **over: Any) -> list[llm.Answer]:
        """``n`` answers as they came."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        if system:
            turns.insert(0, {"role": "system", "content": system})
        key = f"{self.key}/{name}"
        over = {"seed": llm.derived(self.run.recipe.seed, key)} | over
        answers, fresh = self.run.replied(key, client or self.run.client, turns, n, over)
        self.fresh |= fresh
        return answers


def usable(answer: llm.Answer) -> str:
    """The text of an answer.

    Raises:
        Bad: empty, cut, a refusal, or running in circles.
    """
    text = answer.text.strip()
    if answer.finish == "content_filter" or (text and refuses(text)):
        raise Bad("refusal", text)
    if not text:
        raise Bad("cut" if answer.cut else "empty", "only thoughts" if answer.reasoning else "")
    if answer.cut:
        raise Bad("runs_in_circles" if repeats(text) else "cut", text)
    if repeats(text):
        raise Bad("runs_in_circles", text)
    return text


def chat(system: str, *turns: str) -> Row:
    """A canonical row from turns that begin with the user's."""
    head = [{"role": "system", "content": system}] if system else []
    said = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    return {"messages": head + said}


def exchange(row: Row) -> tuple[llm.Messages, str]:
    """(everything before the last answer, that answer) of a canonical row; a plain text is an answer to nothing."""
    from studio.datasets.convert import turns_of

    turns = [{"role": turn["role"], "content": str(turn.get("content") or "")} for turn in turns_of(row)]
    return (turns[:-1], turns[-1]["content"]) if turns and turns[-1]["role"] == "assistant" else (turns, "")


def instruction(row: Row) -> str:
    """The newest message of the user, or a plain text as a whole."""
    turns, answer = exchange(row)
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "" if turns else answer)


def replaced(row: Row, turns: llm.Messages, answer: dict[str, Any]) -> Row:
    """A row of the same content with another last answer; what it knows beside (contexts, tags) stays."""
    kept = {key: row[key] for key in ("tools", "contexts", "comment", "tags") if key in row}
    if "contexts" in row:
        return {"prompt": turns, "completion": [answer], "label": True} | kept
    return {"messages": [*turns, answer]} | kept


def numbered(count: int, start: int = 0) -> Iterator[int]:
    """Numbers of jobs for ``count`` rows: as many more as are likely to be dropped."""
    return iter(range(start, start + count * 4 + 40))


def axes(rng: random.Random, topics: list[str], number: int) -> dict[str, str]:
    """What makes one row different from the next: its topic in turn, the rest drawn."""
    drawn = {"kind": rng.choice(KINDS), "style": rng.choice(STYLES), "length": rng.choice(LENGTHS)}
    return ({"topic": topics[number % len(topics)]} if topics else {}) | drawn


def reminder(recent: Iterable[str]) -> str:
    """The newest rows, to be told to a model that is asked for another."""
    lines = "\n".join(f"- {text}" for text in recent)
    return f"\n\nThese exist already; write something clearly different:\n{lines}" if lines else ""


def rows_of(source: Version | None, what: str, split: str = "train") -> Iterator[Any]:
    """Items of the rows that a step reads.

    Raises:
        StudioError: there are none.
    """
    if source is None or not source.count():
        raise StudioError(f"There are no {what}.", "Choose a dataset that holds some.", "dataset")
    yield from source.items(split)

