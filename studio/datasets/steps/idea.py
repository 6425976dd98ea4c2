"""From an idea: a task in a sentence or two becomes a system prompt, topics, messages of users, and answers to
them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studio.datasets import llm
from studio.datasets.generate import (Asker, Generation, Job, Made, MakeRecipe, MakeStep, axes, chat, numbered,
                                      reminder)
from studio.datasets.generate_text import listed, unquoted
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

SYSTEM = """Somebody wants an assistant for this task:

{task}

Write the system prompt of that assistant: who it is, what it does, how its answers look, and what it leaves alone. \
Address the assistant as "you". At most 150 words. Write the system prompt and nothing else."""

TOPICS = """An assistant has these instructions:

{system}

List {count} topics that people will come to it with. They should be as different from each other as can be: common \
ones, rare ones, easy ones, hard ones. One topic a line, two to eight words each, numbered."""

MESSAGE = """An assistant has these instructions:

{system}

Write one message that a person might send to it.
{axes}
Write the message as that person would type it, complete, with every detail that is needed to answer it. Do not \
answer it and do not explain it: write nothing but the message.{language}{recent}"""

FOLLOW_UP = """This is a conversation between a person and an assistant:

{conversation}

Write what the person says next: something that follows from the last answer, e.g. a question about a detail, a \
change of mind, or the next step. Write nothing but that message.{language}"""

_AXES = {"topic": "Topic: {}", "kind": "It is: {}", "style": "It is written: {}", "length": "Length: {}"}


class IdeaRecipe(MakeRecipe):
    method = "idea"

    task: str = field("", "Task", "What the model shall be good at, in your own words: for whom, about what, in which "
                      "manner.", widget="text", max_length=8000,
                      placeholder="Answers questions of hikers about knots, with short numbered steps.")
    count: int = field(10, "Rows", "How many rows to make. Look at ten first; a later run with more goes on from "
                       "them.", ge=1,
                       le=1_000_000)
    system_prompt: str = field("", "System prompt", "What the model is told before it answers. Left empty, it is "
                               "written first, from the task, and shown with the result.", widget="text",
                               max_length=20_000)
    topics: list[str] = field([], "Topics", "What the rows are about, one a line, in turn. Left empty, they are "
                              "listed by the model first.", widget="lines", max_length=2000)
    continue_from: str = field("", "Go on from", "What an earlier run made of the same idea: its rows are kept, its "
                               "system prompt and topics are used again, and only the missing rows are made.",
                               widget="dataset", max_length=1000)
    turns: int = field(1, "Exchanges", "Questions and answers in each conversation.", group="advanced", ge=1, le=10)
    keep_system: bool = field(True, "Keep the system prompt", "Put it at the head of every row. Without it the model "
                              "learns the behaviour by itself.", group="advanced")
    language: str = field("", "Language", "In which people write. Left empty, that of the task.", group="advanced",
                          max_length=60)


class Idea(MakeStep):
    title, summary = "From an idea", "Describe a task; a model writes questions for it and answers them."
    Recipe = IdeaRecipe
    starts = True
    others = {"generator": "generator", "continue_from": "dataset"}

    @classmethod
    def check(cls, recipe: IdeaRecipe) -> None:
        super().check(recipe)
        if not recipe.task and not recipe.system_prompt:
            raise StudioError("The task is not described.", "Say in a sentence or two what the model shall do.",
                              "task")
        if recipe.continue_from:
            earlier = _earlier(recipe.continue_from)
            if earlier.count() >= recipe.count:
                raise StudioError(f"{recipe.continue_from} has {earlier.count():,} rows already.",
                                  "Ask for more rows than that.", "count")

    @classmethod
    def calls(cls, recipe: IdeaRecipe) -> float:
        return 2.0 * recipe.turns

    @classmethod
    def work(cls, recipe: IdeaRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        earlier = _earlier(recipe.continue_from) if recipe.continue_from else None
        known = _facts(earlier) if earlier else {}
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)
            for version in filter(None, (source, earlier)):
                _take_over(run, version)
            system = recipe.system_prompt or known.get("system_prompt") or _written(run, recipe)
            ctx.log(f"System prompt: {system}")
            topics = recipe.topics or known.get("topics") or _topics(run, recipe, system)
            start = int(known.get("used", 0))
            language = f"\nWrite in {recipe.language}." if recipe.language else ""
            used = start

            def jobs() -> Any:
                nonlocal used
                for number in numbered(wanted, start):
                    used = number + 1
                    yield Job(f"row/{number}", list(run.recent))

            def make(job: Job, ask: Asker) -> list[Made]:
                drawn = axes(ask.rng, topics, int(job.key.rpartition("/")[2]))
                lines = "\n".join(_AXES[name].format(value) for name, value in drawn.items())
                asked = MESSAGE.format(system=system, axes=lines, language=language, recent=reminder(job.data))
                said = [unquoted(ask("message", asked))]
                for turn in range(recipe.turns):
                    if turn:
                        talk = "\n\n".join(f"{('Person', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(said))
                        asked = FOLLOW_UP.format(conversation=talk, language=language)
                        said.append(unquoted(ask(f"message{turn}", asked)))
                    said.append(ask(f"answer{turn}" if turn else "answer", chat("", *said)["messages"], system))
                row = chat(system if recipe.keep_system else "", *said)
                return [Made(row, said[0], tags={key: drawn[key] for key in ("topic", "kind", "style")
                                                 if key in drawn})]

            wanted = recipe.count - run.out.rows_out + (source.count() if source else 0)
            run.work(jobs(), make, want=wanted)
            run.too_few(wanted)
            return run.facts(system_prompt=system, topics=topics, used=used)


def _earlier(ref: str) -> Version:
    from studio.library import refs

    try:
        return Version(refs.resolve_dataset(ref).path or "")
    except StudioError as err:
        raise StudioError(err.message, err.hint, "continue_from") from err


def _facts(version: Version) -> dict[str, Any]:
    """What the newest idea step of a version noted."""
    for entry in reversed(version.meta["history"]):
        if entry["step"].get("method") == IdeaRecipe.method:
            return entry.get("facts") or {}
    return {}


def _take_over(run: Generation, version: Version) -> None:
    """Rows that are there already: kept, and not made once more."""
    for item in version.items():
        run.out.keep(item)
        row = item.row
        if "messages" in row and (said := [m["content"] for m in row["messages"] if m["role"] == "user"]):
            run.seen.find(said[0])
            run.recent.append(" ".join(said[0].split())[:160])


def _written(run: Generation, recipe: IdeaRecipe) -> str:
    asked = SYSTEM.format(task=recipe.task)
    made = run.collect([Job("system")], lambda job, ask: ask("prompt", asked, temperature=0.3))[0]
    if made is None:
        run.ctx.warning("no_system_prompt", "The model wrote no usable system prompt; the task itself is used as one.",
                        "Write one yourself, or ask a stronger model.")
    return made or recipe.task


def _topics(run: Generation, recipe: IdeaRecipe, system: str) -> list[str]:
    count = max(5, min(60, recipe.count // 2))
    asked = TOPICS.format(system=system, count=count)
    made = run.collect([Job("topics")], lambda job, ask: listed(ask("list", asked), longest=120))[0]
    if not made or len(made) < 3:
        run.ctx.warning("no_topics", "The model listed no usable topics; rows differ by their kind, style and length "
                        "only.",
                        "Write some topics yourself.")
        return []
    return made
