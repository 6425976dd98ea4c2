"""Self-Instruct: from some seed tasks a model writes new ones, which are kept only if they are unlike all before them.

After Wang et al., https://arxiv.org/abs/2212.10560: each request shows eight tasks (six of the seeds, two of those
made); a new one is kept if its ROUGE-L with every other is below 0.7 and it asks for nothing that a text cannot hold.
Unlike in the paper, input and answer are written in one go, as chat models do that well.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from studio.datasets import llm
from studio.datasets.generate import (TEXTS, Asker, Bad, Generation, Job, Made, MakeRecipe, MakeStep, chat,
                                      instruction, numbered, rows_of)
from studio.datasets.generate_text import Rouge, listed, unquoted, words
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

TASKS = """Here are tasks that people give to an assistant:

{shown}

Write {count} more tasks of the same manner and quality, each about something else and asking for something else than \
all the others: vary the verb, the subject, the length, and questions with orders. A task can be solved by writing \
text alone. Where it needs a text, a table or code to work on, put that into the task itself. One task a line, \
numbered {first} to {last}, and nothing else."""

SHOWN_SEEDS, SHOWN_MADE = 6, 2
LONGEST = 150  # words, as in the paper
_NO_TEXT = re.compile(r"\b(images?|graphs?|pictures?|photos?|files?|maps?|draw|plots?|go "
                      r"to|videos?|audio|music|flowcharts?|diagrams?|screenshots?)\b", re.IGNORECASE)


class SelfInstructRecipe(MakeRecipe):
    method = "self_instruct"

    count: int = field(100, "New rows", "How many new tasks with answers to make.", ge=1, le=1_000_000)
    batch: int = field(5, "Tasks a request", "How many new tasks are asked for at once. Small models do better with "
                       "few.", ge=1, le=20)
    rouge: float = field(0.7, "Different enough below", "A new task is dropped if its ROUGE-L with any other reaches "
                         "this; lower gives fewer, more different tasks.", ge=0.1, le=1)
    keep_seeds: bool = field(True, "Keep the seed tasks", "Put the rows of the dataset before the new ones.")
    system_prompt: str = field("", "System prompt", "Told to the model when it answers; not kept in the rows.",
                               widget="text", group="advanced", max_length=20_000)


class SelfInstruct(MakeStep):
    title = "From seed tasks"
    summary = "Self-Instruct: writes new tasks in the manner of yours, unlike all before, and answers them."
    paper = "https://arxiv.org/abs/2212.10560"
    Recipe = SelfInstructRecipe
    texts = TEXTS | {"too_similar": "are too much like another task", "no_text_task": "ask for something that is no "
                     "text",
                     "too_long": "are too long"}

    @classmethod
    def calls(cls, recipe: SelfInstructRecipe) -> float:
        return 1 + 1 / recipe.batch

    @classmethod
    def work(cls, recipe: SelfInstructRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        seeds = []
        for item in rows_of(source, "seed tasks"):
            if text := instruction(item.row):
                seeds.append(text)
            if recipe.keep_seeds:
                out.keep(item)
        if not seeds:
            raise StudioError("The dataset holds no tasks.", "Choose one with questions and answers.", "dataset")
        pool, made, answers, under_way = Rouge(seeds), [], deque[Job](), {"tasks": 0, "answer": 0}
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)
            for text in seeds:
                run.seen.find(text)

            def expected() -> int:
                return run.kept + under_way["answer"] + under_way["tasks"] * recipe.batch

            def jobs() -> Iterator[Job | None]:
                for number in numbered(recipe.count):
                    while answers or expected() >= recipe.count:
                        under_way["answer"] += bool(answers)
                        yield answers.popleft() if answers else None
                    rng = random.Random(f"{recipe.seed}/tasks/{number}")
                    shown = rng.sample(seeds, min(SHOWN_SEEDS, len(seeds)))
                    shown += rng.sample(made, min(SHOWN_MADE, len(made)))
                    rng.shuffle(shown)
                    under_way["tasks"] += 1
                    yield Job(f"tasks/{number}", shown)
                while answers or under_way["tasks"]:
                    under_way["answer"] += bool(answers)
                    yield answers.popleft() if answers else None

            def make(job: Job, ask: Asker) -> Any:
                if job.key.startswith("answer/"):
                    return [Made(chat("", job.data, ask("answer", job.data, recipe.system_prompt)), "")]
                shown = "\n".join(f"{n}. {' '.join(text.split())}" for n, text in enumerate(job.data, 1))
                first = len(job.data) + 1
                asked = TASKS.format(shown=shown, count=recipe.batch, first=first, last=first + recipe.batch - 1)
                # the last item of a cut answer may be half a task, the ones before it are whole
                answer = ask.all("list", asked)[0]
                found = listed(answer.text, recipe.batch + 1)
                found = (found[:-1] if answer.cut else found)[:recipe.batch]
                if not found:
                    raise Bad("not_in_form" if answer.text else "empty", answer.text)
                return found

            def settle(job: Job, value: Any) -> None:
                under_way[job.key.partition("/")[0]] -= 1
                if isinstance(value[0], (Made, Bad)):
                    return run.take(job, value)
                for text in map(unquoted, value):
                    if bad := cls.unfit(text, pool, recipe.rouge):
                        run.refuse(bad)
                    elif how := run.seen.find(text):
                        run.refuse(Bad("duplicate" if how == "exact" else "near_duplicate", text))
                    else:
                        pool.add(text)
                        made.append(text)
                        answers.append(Job(f"answer/{job.key.rpartition('/')[2]}-{len(made)}", text))

            run.work(jobs(), make, want=recipe.count, settle=settle)
            run.too_few(recipe.count)
            return run.facts(seeds=len(seeds), tasks=len(made))

    @classmethod
    def unfit(cls, text: str, pool: Rouge, limit: float) -> Bad | None:
        """Why a task is not taken, by the rules of the paper."""
        size = len(words(text))
        if size < 3:
            return Bad("too_short", text)
        if size > LONGEST:
            return Bad("too_long", text)
        if found := _NO_TEXT.search(text):
            return Bad("no_text_task", f"{found[0]}: {text}")
        if not text[0].isalnum() and text[0] not in "\"'“¿¡(":
            return Bad("not_in_form", text)
        if (score := pool.highest(text, limit)) >= limit:
            return Bad("too_similar", f"{score:.2f}: {text}")
        return None
