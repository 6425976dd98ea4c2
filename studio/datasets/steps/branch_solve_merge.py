"""Branch-Solve-Merge: a task is parted into aspects, each is worked out by itself, and the parts are joined to one
answer.

After Saha et al., https://arxiv.org/abs/2310.15123. Good for tasks with many wishes at once, where a single answer
forgets some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studio.datasets import llm
from studio.datasets.generate import (TEXTS, Asker, Bad, Generation, Job, MakeRecipe, MakeStep, exchange, replaced,
                                      rows_of)
from studio.datasets.generate_text import listed
from studio.datasets.version import Version, Writer
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

BRANCH = """Here is a task:

<task>
{task}
</task>

Part it into two to {most} aspects that can be worked on one by one and together cover all that is asked for, with \
every wish and condition. Do not solve anything yet. One aspect a line, numbered, each in one sentence."""

SOLVE = """Here is a task:

<task>
{task}
</task>

Work on this aspect of it alone, and leave the rest to others:
{aspect}

Write only the result for this aspect."""

MERGE = """Here is a task:

<task>
{task}
</task>

Its aspects were worked on one by one:

{parts}

Join them to one answer to the whole task: complete, without repetition, of one piece, keeping every wish and \
condition of the task. Correct what contradicts. Do not speak of aspects or parts. Write nothing but the answer."""


class BranchSolveMergeRecipe(MakeRecipe):
    method = "branch_solve_merge"

    branches: int = field(4, "Aspects at most", "Into how many aspects a task may be parted; each is one request "
                          "more.", ge=2, le=12)
    keep_thoughts: bool = field(False, "Keep the parts as thinking", "Put the aspects and their solutions into the "
                                "thinking of the message, for models that think first.", group="advanced")


class BranchSolveMerge(MakeStep):
    title = "Branch, solve, merge"
    summary = "Parts each task into aspects, works them out one by one and joins them to a better answer."
    paper = "https://arxiv.org/abs/2310.15123"
    Recipe = BranchSolveMergeRecipe
    texts = TEXTS | {"no_question": "hold no task", "not_parted": "were not parted into aspects",
                     "merged": "got a merged answer"}

    @classmethod
    def calls(cls, recipe: BranchSolveMergeRecipe) -> float:
        return 2.0 + recipe.branches

    @classmethod
    def work(cls, recipe: BranchSolveMergeRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        counted: dict[str, int] = {}
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)

            def make(job: Job, ask: Asker) -> tuple[dict[str, Any], int]:
                turns, _ = exchange(job.data.row)
                if not turns:
                    raise Bad("no_question")
                system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
                talk = [turn for turn in turns if turn["role"] != "system"]
                task = talk[-1]["content"]
                if len(talk) > 1:
                    task = "\n\n".join(f"{turn['role'].title()}: {turn['content']}" for turn in talk)
                cool = min(0.5, recipe.temperature)
                said = ask("branch", BRANCH.format(task=task, most=recipe.branches), system, temperature=cool)
                aspects = listed(said)[:recipe.branches]
                if len(aspects) < 2:
                    raise Bad("not_parted", said)
                solved = [ask(f"solve{n}", SOLVE.format(task=task, aspect=aspect), system) for n,
                          aspect in enumerate(aspects)]
                pairs = enumerate(zip(aspects, solved, strict=True), 1)
                parts = "\n\n".join(f"{n}. {aspect}\n{text}" for n, (aspect, text) in pairs)
                answer = {"role": "assistant", "content": ask("merge", MERGE.format(task=task, parts=parts), system)}
                if recipe.keep_thoughts:
                    answer["reasoning_content"] = parts
                return replaced(job.data.row, turns, answer), len(aspects)

            def settle(job: Job, value: Any) -> None:
                out.split = job.key.partition("/")[0]
                if isinstance(value, list):
                    run.dropped[value[0].reason] += 1
                    return out.drop(job.data, value[0].reason, value[0].detail)
                row, aspects = value
                counted[str(aspects)] = counted.get(str(aspects), 0) + 1
                out.change(job.data, row, "merged")
                run.kept += 1
                if run.kept <= 10:
                    run.show(row)

            jobs = (Job(f"{split}/{number}", item) for split in source.splits
                    for number, item in enumerate(rows_of(source, "tasks", split)))
            run.work(jobs, make, total=sum(map(source.count, source.splits)), settle=settle)
            return run.facts(aspects=dict(sorted(counted.items())))
