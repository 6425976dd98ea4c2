"""Auto-Evol: the way in which tasks are evolved is itself improved, on a sample, before the whole dataset is evolved.

After Zeng et al., https://arxiv.org/abs/2406.00770: the sample is evolved; the model reads what became of it and says
what went wrong; from that it writes several better ways; each is tried on the sample, and the one whose answers fail
least is taken.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

from studio.datasets.generate import Asker, Bad, Generation, Job
from studio.datasets.generate_text import plain, refuses, sections, unquoted

if TYPE_CHECKING:
    from studio.datasets.steps.evolve import EvolveRecipe

RESULT = "REWRITTEN TASK"

FIRST_WAY = """Step 1: List ways in which this very task could be made a little harder without changing its subject.
Step 2: Choose several of them that go together, and plan how to apply them.
Step 3: Carry out the plan; add no more than twenty words or so at a time.
Step 4: Read the result as the person who asks: is it clear, possible, and still one task? Mend what is not."""

REQUEST = """Rewrite a task into a harder version of itself, working as follows.

{way}

<task>
{task}
</task>

Write down each step briefly, and then close with:
{result}: <the rewritten task, complete, nothing after it>"""

ANALYSE = """Tasks were made harder in rounds, in this way:

{way}

This is what became of some of them:

{trials}

Where did a round not make the task harder, lose something that the task needs, make it unclear or impossible, or \
change the subject? Name the faults of the way itself, one a line, numbered, with the round that shows it."""

IMPROVE = """Tasks are made harder in this way:

{way}

It was tried, and these faults were found:

{faults}

Write a better way that avoids them and fits any task of this kind: numbered steps, general, without examples of \
single tasks, at most 200 words. Write the steps and nothing else."""

# What answers to a badly evolved task look like, after the paper: nothing was asked, or what was needed is missing.
_STAGNANT = re.compile(r"\b(understood|thank you|got it)\b", re.IGNORECASE)
_MISSING = re.compile(r"\b(please (provide|share|specify|give)|could you (provide|share|clarify|specify)|i need more "
                      r"(information|details))\b",
                      re.IGNORECASE)


def request(way: str, task: str) -> str:
    return REQUEST.format(way=way, task=task, result=RESULT)


def fails(answer: str) -> bool:
    """The answer shows that its task was not evolved well."""
    text = answer.strip()
    return (not text or refuses(text) or bool(_MISSING.search(text[:400]))
            or (bool(_STAGNANT.search(text)) and text.endswith("?"))
            or (text.lower().startswith("sure") and text.endswith("?")))


def improve(recipe: EvolveRecipe, run: Generation, tasks: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """(the best way found, what was tried: ``way``, ``failed`` share of the sample, ``step``)."""
    sample = random.Random(f"{recipe.seed}/auto").sample(tasks, min(recipe.auto_sample, len(tasks)))
    way, (rate, trials) = FIRST_WAY, _tried(run, FIRST_WAY, sample, "auto/0")
    history = [{"step": 0, "way": way, "failed": round(rate, 3)}]
    for step in range(1, recipe.auto_steps + 1):
        run.ctx.log(f"Auto-Evol, improvement {step}: {rate:.0%} of the sample fail so far")
        shown = "\n\n".join(trials[:6])
        ways = run.collect((Job(f"auto/{step}/{n}", (way, shown)) for n in range(recipe.auto_candidates)), _better)
        tried = [(*_tried(run, one, sample, f"auto/{step}/{n}"), one) for n, one in enumerate(ways) if one]
        history += [{"step": step, "way": one, "failed": round(failed, 3)} for failed, _, one in tried]
        best = min(tried, key=lambda item: item[0], default=None)
        if best is None or best[0] > rate:
            break
        rate, trials, way = best
        if rate == 0:
            break
    return way, history


def _better(job: Job, ask: Asker) -> str:
    way, trials = job.data
    faults = ask("faults", ANALYSE.format(way=way, trials=trials))
    return ask("way", IMPROVE.format(way=way, faults=faults))


def _tried(run: Generation, way: str, sample: list[str], key: str) -> tuple[float, list[str]]:
    """(share of a sample that fails, what became of each task)."""

    def make(job: Job, ask: Asker) -> tuple[bool, str]:
        task, lines, bad = job.data, [f"Task: {job.data}"], False
        for number in (1, 2):
            said = ask(f"evolve{number}", request(way, task), form=False)
            made = unquoted((sections(said, RESULT) or {}).get(RESULT, ""))
            bad = not made or plain(made) == plain(task)
            lines.append(f"Round {number}: {made or '(no rewritten task)'}")
            if bad:
                break
            task = made
        if not bad:
            try:
                bad = fails(ask("answer", task))
            except Bad:
                bad = True
        return bad, "\n".join(lines)[:3000]

    found = [one for one in run.collect((Job(f"{key}/{n}", task) for n, task in enumerate(sample)), make) if one]
    # what the server did not answer counts as failed, so that a way is not chosen for want of evidence
    return 1 - sum(not bad for bad, _ in found) / len(sample), [text for _, text in found]
