"""Personas: the same request, made by as many different people as there are, gives as many different rows.

After Ge et al., https://arxiv.org/abs/2406.20094: personas come from a list, from texts (who would read or write
this?), or from the model; each may bring in people related to it; then each person writes a message, a problem or a
text.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets import llm
from studio.datasets.generate import (Asker, Bad, Generation, Job, Made, MakeRecipe, MakeStep, chat, numbered,
                                      reminder, rows_of)
from studio.datasets.generate_text import Seen, listed, unquoted, words
from studio.datasets.steps.documents import document
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

FROM_TEXT = """<text>
{text}
</text>

Who is likely to write, read, need or argue with this text? Describe one such person in a single sentence: work or \
situation, what they know, what they care about. The more specific, the better. Begin with "A" or "An" and write \
nothing else."""

LIST = """List {count} people who might come with this: {task}

Take them from all walks of life, ages, places and levels of knowledge, also unlikely ones. Describe each in one \
specific sentence that begins with "A" or "An". One person a line, numbered."""

RELATED = """Here is a person: {persona}

Name {count} other people who are closely connected to this person, e.g. by work, family, need or dispute, and who \
differ from each other. Describe each in one specific sentence that begins with "A" or "An". One person a line, \
numbered."""

WRITE = {
    "message": "Write a message that this person would send to an assistant.",
    "problem": "Write a problem that takes several steps of reasoning to solve and that comes up in the life of this "
    "person. It has one right answer that can be worked out from what it says.",
    "text": "Write a text that this person would write for others, full of what only they know.",
}
ASK = """Here is a person: {persona}

{what}{task}
Write it as this person would, with the knowledge, the words and the worries they have, but do not describe the \
person. Write nothing but that {kind}.{language}{recent}"""


class PersonasRecipe(MakeRecipe):
    method = "personas"

    write: Literal["message", "problem", "text"] = field(
        "message", "Each writes", "What every person is asked for.",
        choices={"message": "A message to an assistant", "problem": "A problem to solve", "text": "A text"})
    task: str = field("", "About", "What it is to be about, or what the assistant is for. Left empty, anything.",
                      widget="text", max_length=8000)
    count: int = field(100, "Rows", "How many rows to make.", ge=1, le=1_000_000)
    personas: list[str] = field([], "Personas", "Who writes, one a line. Left empty, they are found in the texts of "
                                "the dataset, or made up by the model where there is none.", widget="lines",
                                max_length=10_000)
    most_personas: int = field(100, "Personas at most", "How many are found or made up.", ge=1, le=100_000)
    expand: int = field(0, "Related people", "How often the circle is widened to people connected to those found, up "
                        "to the most.", ge=0,
                        le=6)
    system_prompt: str = field("", "System prompt", "Told to the model when it answers, and put at the head of the "
                               "rows.", widget="text",
                               group="advanced", max_length=20_000)
    language: str = field("", "Language", "In which people write. Left empty, that of the task.", group="advanced",
                          max_length=60)


class Personas(MakeStep):
    title, summary = "From personas", "Lets many different people ask, each in their own way, and answers them."
    paper = "https://arxiv.org/abs/2406.20094"
    Recipe = PersonasRecipe
    starts = True

    @classmethod
    def calls(cls, recipe: PersonasRecipe) -> float:
        return 1.0 + (recipe.write != "text")

    @classmethod
    def work(cls, recipe: PersonasRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)
            out.seen.update(source.splits if source else [])  # what people were found in is no row
            people = list(dict.fromkeys(recipe.personas)) or _found(run, recipe, source)
            if not people:
                raise StudioError("The model described no personas.", "Write some yourself, or ask a stronger model.",
                                  "personas")
            for number in range(recipe.expand):
                if len(people) >= recipe.most_personas:
                    break
                people = _widened(run, people, number, recipe.most_personas)
            ctx.log(f"{len(people):,} personas")
            task = f" It is about this: {recipe.task}" if recipe.task else ""
            language = f"\nWrite in {recipe.language}." if recipe.language else ""
            order = random.Random(f"{recipe.seed}/order").sample(people, len(people))

            def jobs() -> Any:
                for number in numbered(recipe.count):
                    yield Job(f"row/{number}", (order[number % len(order)], list(run.recent)))

            def make(job: Job, ask: Asker) -> list[Made]:
                persona, recent = job.data
                said = unquoted(ask("write", ASK.format(persona=persona, what=WRITE[recipe.write], task=task,
                                                        kind=recipe.write, language=language,
                                                        recent=reminder(recent))))
                if len(words(said)) < 3:
                    raise Bad("too_short", said)
                if recipe.write == "text":
                    return [Made({"text": said}, said, tags={"persona": persona})]
                answer = ask("answer", said, recipe.system_prompt)
                return [Made(chat(recipe.system_prompt, said, answer), said, tags={"persona": persona})]

            run.work(jobs(), make, want=recipe.count)
            run.too_few(recipe.count)
            return run.facts(personas=len(people), some_personas=people[:50])


def _found(run: Generation, recipe: PersonasRecipe, source: Version | None) -> list[str]:
    """Personas from the texts of a dataset, or made up."""
    if source is not None:
        texts = [item for number, item in enumerate(rows_of(source, "texts")) if number < recipe.most_personas]
        made = run.collect((Job(f"who/{number}", item) for number, item in enumerate(texts)),
                           lambda job, ask: [ask("persona", FROM_TEXT.format(text=document(job.data.row)[:6000]))])
    else:
        wanted = -(-recipe.most_personas // 10)
        task = recipe.task or "any wish or question at all"
        made = run.collect((Job(f"who/{number}") for number in range(wanted)), lambda job, ask: listed(
            ask("list", LIST.format(count=min(10, recipe.most_personas), task=task)), longest=400))
    return _different([person for some in made for person in some or []], recipe.most_personas)


def _widened(run: Generation, people: list[str], number: int, most: int) -> list[str]:
    made = run.collect((Job(f"related/{number}/{n}", person) for n, person in enumerate(people)), lambda job,
                       ask: listed(
        ask("list", RELATED.format(persona=job.data, count=3)), 3, 400))
    return _different(people + [person for some in made for person in some or []], most)


def _different(people: list[str], most: int) -> list[str]:
    """Personas that are sentences, and no two nearly the same (the paper takes 0.9)."""
    seen, kept = Seen(0.9), []
    for person in people:
        person = unquoted(" ".join(person.split()))
        if len(words(person)) >= 3 and not seen.find(person):
            kept.append(person)
    return kept[:most]
