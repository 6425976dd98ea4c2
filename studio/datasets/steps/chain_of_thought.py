"""Chain of thought: questions with answers get the reasoning that leads there.

After Wei et al., https://arxiv.org/abs/2201.11903. Where a row has an answer, reasoning that ends elsewhere is
dropped; with ``rationalise`` the last attempt is told the right answer, as in STaR (https://arxiv.org/abs/2203.14465).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets import llm
from studio.datasets.generate import (TEXTS, Asker, Bad, Generation, Job, Made, MakeRecipe, MakeStep, exchange,
                                      replaced, rows_of, usable)
from studio.datasets.generate_text import json_in, plain, words
from studio.datasets.version import Version, Writer
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

THINK = """Work the task below out step by step. Write down each step with its reason, check the result, and then \
close with a line of its own:

Answer: <the final answer alone>"""

HINT = """{think}

It is known that the final answer is: {answer}
Find the steps that lead there, and write as if you had not been told."""

_ANSWER = re.compile(r"(?:^|\n)[\s*#_>]*(?:final\s+)?answer\b[\s*_]*(?:is\b)?[\s*_]*[:=][\s*_]*(.+?)\s*\Z",
                     re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_TOLD = re.compile(r"\b(known (?:that|answer)|(?:was|been|were|am) told|given answer|provided answer|as "
                   r"(?:stated|given) above)\b", re.IGNORECASE)


class ChainOfThoughtRecipe(MakeRecipe):
    method = "chain_of_thought"

    check_answer: Literal["same", "none"] = field(
        "same", "Check", "Drop reasoning that ends at another answer than the row has; rows without one are not "
        "checked.",
        choices={"same": "Against the row's answer", "none": "Not checked"})
    tries: int = field(2, "Attempts", "How often a row is tried until its reasoning ends at the right answer.", ge=1,
                       le=16)
    rationalise: bool = field(False, "Tell the answer at last", "If all attempts fail, one more is made with the "
                              "answer told.")
    place: Literal["thinking", "answer"] = field(
        "thinking", "Reasoning goes", "Where the reasoning stands: as the thinking of the message, for models that "
        "think first, or in the answer itself.", choices={"thinking": "Into the thinking",
                                                          "answer": "Into the answer"})
    keep_answer: bool = field(True, "Keep the row's answer", "Show the answer that the row had after the reasoning, "
                              "instead of the model's own words for it.", group="advanced",
                              when={"place": ["thinking"]})


class ChainOfThought(MakeStep):
    title, summary = "Add reasoning", "Writes the steps that lead to each answer, and drops those that end elsewhere."
    paper = "https://arxiv.org/abs/2201.11903"
    Recipe = ChainOfThoughtRecipe
    texts = TEXTS | {"wrong_answer": "end at another answer", "no_question": "hold no question",
                     "no_steps": "hold no steps", "reasoned": "got their reasoning", "told": "say that they were told "
                     "the answer"}

    @classmethod
    def work(cls, recipe: ChainOfThoughtRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        used = {"first": 0, "later": 0, "told": 0}
        with llm.open(recipe, ctx) as client, llm.journal(ctx, out) as journal:
            run = Generation(recipe, out, ctx, client, journal)

            def make(job: Job, ask: Asker) -> tuple[Made, int]:
                turns, known = exchange(job.data.row)
                if not turns:
                    raise Bad("no_question")
                system = "\n\n".join([*(t["content"] for t in turns if t["role"] == "system"), THINK])
                talk = [turn for turn in turns if turn["role"] != "system"]
                wanted = final(known) if recipe.check_answer == "same" and known else ""
                bad = Bad("wrong_answer")
                for attempt in range(recipe.tries + (recipe.rationalise and bool(wanted))):
                    told = attempt == recipe.tries
                    try:
                        answer = ask.all(f"try{attempt}", talk, HINT.format(think=system, answer=wanted) if told
                                         else system)[0]
                        steps, said = parted(answer)
                        if told and _TOLD.search(steps):
                            raise Bad("told", steps)
                        if wanted and not same(said, wanted):
                            raise Bad("wrong_answer", f"{said[:100]} instead of {wanted[:100]}", steps)
                    except Bad as err:
                        bad = err
                        continue
                    sound = wanted or recipe.check_answer == "none"
                    shown = known if known and recipe.keep_answer and sound else said
                    message: dict[str, Any] = {"role": "assistant"}
                    if recipe.place == "thinking":
                        message |= {"content": shown, "reasoning_content": steps}
                    else:
                        message["content"] = f"{steps}\n\nAnswer: {said}"
                    return Made(replaced(job.data.row, turns, message)), 2 if told else min(attempt, 1)
                raise bad

            def settle(job: Job, value: Any) -> None:
                out.split = job.key.partition("/")[0]
                if isinstance(value, list):
                    run.dropped[value[0].reason] += 1
                    return out.drop(job.data, value[0].reason, value[0].detail)
                made, how = value
                used[("first", "later", "told")[how]] += 1
                out.change(job.data, made.row, "reasoned")
                run.kept += 1
                if run.kept <= 10:
                    run.show(made.row)

            jobs = (Job(f"{split}/{number}", item) for split in source.splits
                    for number, item in enumerate(rows_of(source, "questions", split)))
            run.work(jobs, make, total=sum(map(source.count, source.splits)), settle=settle)
            return run.facts(attempts=used)


def parted(answer: llm.Answer) -> tuple[str, str]:
    """(steps, final answer) of a reply; a thinking model's thoughts are its steps.

    Raises:
        Bad: there is no final answer, or nothing before it.
    """
    text = usable(answer)
    if isinstance(data := json_in(text) if text.startswith("{") else None, dict) and data.get("answer"):
        return str(data.get("steps") or data.get("reasoning") or answer.reasoning), str(data["answer"])
    match = _ANSWER.search(text)
    if match:
        steps, said = text[:match.start()].strip(), match[1].strip().strip("*_ ")
    elif boxed := _BOXED.findall(text):
        steps, said = text, boxed[-1].strip()
    elif answer.reasoning:
        steps, said = "", text
    else:
        raise Bad("not_in_form", text)
    steps = steps if len(words(steps)) >= 3 else answer.reasoning
    if len(words(steps)) < 3:
        raise Bad("no_steps", text)
    return steps.strip(), said


def final(text: str) -> str:
    """The final answer within a longer one: behind ``Answer:`` or ``####``, in a box, else all of it."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    if boxed := _BOXED.findall(text):
        return boxed[-1].strip()
    match = _ANSWER.search(text)
    return match[1].strip() if match else text.strip()


def same(said: str, wanted: str) -> bool:
    """Two final answers agree: the same words, the same number where the wanted one is a number, or the wanted words
    within it."""
    a, b = plain(said), plain(wanted)
    if a == b:
        return True
    numbers = _NUMBER.findall(wanted)
    if len(numbers) == 1 and len(words(wanted)) <= 4 or (numbers and plain(wanted) == plain(numbers[0])):
        mine = _NUMBER.findall(said)
        return bool(mine) and _value(mine[-1]) == _value(numbers[0])
    held, theirs = words(wanted), words(said)
    short, long = sorted((held, theirs), key=len)
    if not short or len(long) > 40 + len(short):
        return False
    if set(short) & {"not", "no", "never"} != set(long) & {"not", "no", "never"}:
        return False
    mine = _NUMBER.findall(said)
    if mine and numbers and _value(mine[-1]) != _value(numbers[-1]):
        return False
    return any(long[i:i + len(short)] == short for i in range(len(long) - len(short) + 1))


def _value(number: str) -> float | str:
    text = number.replace(",", "").replace("−", "-")
    top, _, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if bottom else float(top)
    except (ValueError, ZeroDivisionError):
        return text
