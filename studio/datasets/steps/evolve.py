"""Evol-Instruct: tasks are made harder, round by round, and answered anew; with Auto-Evol the way of doing so is
improved first.

After Xu et al., https://arxiv.org/abs/2304.12244: each round draws one of five operations in depth or the one in
breadth; a result that gained nothing, cannot be answered, or repeats the request is dropped, and its task tries again
in the next round.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from studio.datasets import llm
from studio.datasets.generate import (TEXTS, Asker, Bad, Generation, Job, Made, MakeRecipe, MakeStep, chat, exchange,
                                      instruction, rows_of)
from studio.datasets.generate_text import only_filler, plain, sections, unquoted, verdict, words
from studio.datasets.steps import evolve_auto
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

DEPTH = """Rewrite the task below into a harder version of itself, one that even good assistants find difficult, and \
that a person can still understand, would really ask, and can get answered by text alone. Keep every table, code and \
input that it holds.

How: {how}
Make it longer by no more than twenty words or so.

<task>
{task}
</task>

Write the rewritten task and nothing else."""

BREADTH = """Here is a task:

<task>
{task}
</task>

Invent another one of the same field that is rarer, of about the same length and difficulty, and clearly about \
something else. A person must understand it, would really ask it, and can get it answered by text alone.

Write the new task and nothing else."""

OPERATIONS = {
    "constraints": "add one more condition or requirement that the answer must meet.",
    "deepen": "where it asks about a matter, ask about it in more depth and breadth.",
    "concretize": "replace general notions by more specific ones.",
    "reasoning": "if a few simple thoughts solve it now, change it so that several steps of reasoning are needed, and "
    "ask for them.",
    "complicate_input": "add data that have to be worked on: a table, a piece of code, JSON, a formula, or a text of "
    "a few lines.",
    "breadth": "",
}

EQUAL = """First task:
{first}

Second task:
{second}

Do both ask for the same: the same conditions, in the same depth and breadth? Reply yes or no."""

SORRY = 80  # words: a shorter answer that says sorry is a refusal, after the paper
_COPIED = re.compile(r"(given|rewritten|new|original|harder) (task|prompt|instruction|version)|</?task>|version of "
                     r"itself", re.IGNORECASE)


class EvolveRecipe(MakeRecipe):
    method = "evolve"

    rounds: int = field(2, "Rounds", "How often each task is evolved; each round starts from what the one before it "
                        "made.", ge=1, le=8)
    operations: list[str] = field(list(OPERATIONS), "Operations", "What a round may do, one a line: constraints, "
                                  "deepen, concretize, reasoning, complicate_input (in depth), breadth (another task "
                                  "of the field).", widget="lines",
                                  max_length=len(OPERATIONS))
    auto: bool = field(False, "Auto-Evol", "Instead of drawing operations, let the model work out a way of evolving "
                       "that fits your tasks, on a sample first.")
    method_prompt: str = field("", "Way of evolving", "What Auto-Evol tells the model to do. Left empty, it is worked "
                               "out first and shown with the result.", widget="text", max_length=20_000,
                               when={"auto": [True]})
    auto_steps: int = field(2, "Improvements", "How often Auto-Evol improves its way of evolving.", group="advanced",
                            ge=1, le=10, when={"auto": [True]})
    auto_sample: int = field(6, "Sample", "Tasks on which Auto-Evol tries each way.", group="advanced", ge=2, le=100,
                             when={"auto": [True]})
    auto_candidates: int = field(3, "Ways a step", "How many new ways Auto-Evol tries in each improvement.",
                                 group="advanced", ge=1, le=10, when={"auto": [True]})
    keep_seeds: bool = field(True, "Keep the tasks", "Put the rows of the dataset before the new ones.")
    check_gain: bool = field(True, "Check the gain", "Ask the model whether the new task really asks for more; costs "
                             "one request a row.",
                             group="advanced")

    @field_validator("operations")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in OPERATIONS:
                raise ValueError(f"'{name}' is no operation; choose among {', '.join(OPERATIONS)}")
        return value


class Evolve(MakeStep):
    title = "Evolve tasks"
    summary = "Evol-Instruct: makes your tasks harder and more varied, round by round, and answers them."
    paper = "https://arxiv.org/abs/2304.12244"
    Recipe = EvolveRecipe
    texts = TEXTS | {"no_gain": "ask for nothing more than before", "copies": "repeat the request to the model",
                     "no_answer": "have an answer "
                     "without content", "no_task": "hold no task"}

    @classmethod
    def check(cls, recipe: EvolveRecipe) -> None:
        super().check(recipe)
        if not recipe.operations and not recipe.auto:
            raise StudioError("No operation is chosen.", "Choose at least one, or Auto-Evol.", "operations")

    @classmethod
    def calls(cls, recipe: EvolveRecipe) -> float:
        return recipe.rounds * (2.0 + recipe.check_gain)

    @classmethod
    def work(cls, recipe: EvolveRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        done: dict[str, int] = {}
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)
            tasks = []
            for item in rows_of(source, "tasks"):
                if task := instruction(item.row):
                    run.seen.find(task)
                    if recipe.auto and len(tasks) < 1000:
                        tasks.append(task)
                if recipe.keep_seeds:
                    out.keep(item)
            auto, history = recipe.method_prompt, []
            if recipe.auto and not auto:
                auto, history = evolve_auto.improve(recipe, run, tasks)

            def make(job: Job, ask: Asker) -> list[Made | Bad]:
                turns, _ = exchange(job.data)
                system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
                task, found = instruction(job.data), []
                if not task:
                    raise Bad("no_task")
                for number in range(recipe.rounds):
                    operation = "auto" if recipe.auto else ask.rng.choice(recipe.operations)
                    try:
                        made, answer = _evolved(ask, number, task, operation, auto, recipe.check_gain, system)
                    except Bad as bad:
                        found.append(bad)
                        continue  # the task tries again in the next round
                    except llm.Failed as err:
                        found.append(Bad("failed", str(err)))
                        continue
                    task = made
                    tags = {"operation": operation, "round": str(number + 1)}
                    found.append(Made(chat(system, made, answer), made, tags=tags))
                return found

            def settle(job: Job, value: Any) -> None:
                for one in value:
                    if isinstance(one, Bad):
                        run.refuse(one)
                    elif run.accept(one):
                        done[one.tags["operation"]] = done.get(one.tags["operation"], 0) + 1

            jobs = (Job(f"task/{number}", row) for number, row in enumerate(source.rows()))
            run.work(jobs, make, total=source.count(), settle=settle)
            more = {"method_prompt": auto, "improvements": history} if recipe.auto else {}
            return run.facts(operations=dict(sorted(done.items())), **more)


def _evolved(ask: Asker, number: int, task: str, operation: str, auto: str, check_gain: bool,
             system: str) -> tuple[str, str]:
    """(evolved task, its answer), past the rules of elimination."""
    if operation == "auto":
        said = ask(f"evolve{number}", evolve_auto.request(auto, task))
        made = (sections(said, evolve_auto.RESULT) or {}).get(evolve_auto.RESULT, "")
        if not made:
            raise Bad("not_in_form", said)
    else:
        text = (BREADTH if operation == "breadth" else DEPTH).format(how=OPERATIONS[operation], task=task)
        made = ask(f"evolve{number}", text)
    made = unquoted(made)
    if _COPIED.search(made) and not _COPIED.search(task):
        raise Bad("copies", made)
    if plain(made) == plain(task) or only_filler(made):
        raise Bad("no_gain", made)
    if check_gain:
        said = ask.all(f"gain{number}", EQUAL.format(first=task, second=made), temperature=0.0)[0].text
        if verdict(said):
            raise Bad("no_gain", made)
    answer = ask(f"answer{number}", made, system)
    if only_filler(answer):
        raise Bad("no_answer", answer, chat("", made, answer))
    if "sorry" in answer.lower() and len(words(answer)) < SORRY:
        raise Bad("refusal", answer, chat("", made, answer))
    return made, answer
