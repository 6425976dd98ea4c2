"""Prompt distillation: answers made with a long system prompt, saved without it, so that a tuned model follows it
unasked.

Context distillation of https://arxiv.org/abs/2112.00861 (section 2.4) and https://arxiv.org/abs/2209.15189. The report
``prompt_check`` tells afterwards whether the tuned model does.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

from studio.datasets import answers, checking, judge, llm, rules
from studio.datasets.generate import TEXTS, Asker, Bad, Generation, Job, MakeStep, usable
from studio.datasets.step import StepRecipe
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class PromptFields(StepRecipe):
    """A system prompt and the rules in it that can be checked one by one."""

    system_prompt: str = field("", "System prompt", "What the model is told before every question, however long.",
                               widget="text", max_length=200_000)
    rules: list[str] = field([], "Rules", "What an answer that follows the prompt does, one rule a line: 'starts "
                                          "with: Of course!', 'ends with: ?', 'contains: …', 'never: …', 'at most: 40 "
                                          "words', 'pattern: …', 'language: de', 'json'. Any other sentence is put to "
                                          "the judge.", widget="lines", max_length=50)
    judge: str = field("", "Judge", "The model that decides on rules which cannot be counted. Left empty, the model "
                                    "that answers judges itself.", widget="model", max_length=1000)
    judge_model: str = field("", "Judge at the address", "Which of that server's models judges.", max_length=300,
                             group="advanced")


def refuse(recipe: Any) -> None:
    """Refuse an empty prompt, bad rules and a judge that is not there.

    Raises:
        StudioError: naming the field.
    """
    if not recipe.system_prompt.strip():
        raise StudioError("There is no system prompt.", "Write what the model is told before every "
                                                        "question.", "system_prompt")
    rules.parse(recipe.rules)
    if recipe.judge:
        llm.check(recipe, recipe.judge, "judge")


class DistillPromptRecipe(PromptFields, llm.ModelFields):
    method = "distill_prompt"
    near_duplicates: ClassVar[float] = 0.0

    tries: int = field(2, "Tries", "An answer that breaks a rule is asked for again, up to so many answers in "
                                   "all.", ge=1, le=16)
    keep_system: bool = field(False, "Keep rows' own system prompts", "Off: rows are saved without any system prompt. "
                                                                      "On: one that a row had stays; the long prompt "
                                                                      "never does.", group="advanced")


class DistillPrompt(MakeStep):
    title = "Distil a prompt"
    summary = "Answers questions with a system prompt and saves them without it, so that a model follows it unasked."
    paper = "https://arxiv.org/abs/2209.15189"
    Recipe = DistillPromptRecipe
    others = {"generator": "generator", "judge": "judge"}
    texts = TEXTS | {"no_prompt": "ask no question", "breaks_rule": "break a rule", "undecided": "could not be judged",
                     "distilled": "are answered as the prompt wants it"}

    @classmethod
    def check(cls, recipe: DistillPromptRecipe) -> None:
        super().check(recipe)
        refuse(recipe)

    @classmethod
    def work(cls, recipe: DistillPromptRecipe, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any]:
        assert source is not None
        wanted = rules.parse(recipe.rules)
        broken = {rule.text: 0 for rule in wanted}
        with ExitStack() as stack:
            client = stack.enter_context(llm.open(recipe, ctx))
            by = client
            if recipe.judge and any(rule.judged for rule in wanted):
                by = stack.enter_context(checking.judge_of(recipe, ctx))
            journal = stack.enter_context(llm.journal(ctx, out))
            run = Generation(recipe, out, ctx, client, journal)

            def make(job: Job, ask: Asker) -> tuple[dict[str, Any], list[Bad]]:
                return attempt(recipe, wanted, job.data[1].row, ask, by)

            def settle(job: Job, value: Any) -> None:
                out.split, item = job.data
                row, bad = value if isinstance(value, tuple) else (None, value)
                for one in bad:
                    if one.reason == "breaks_rule":
                        broken[one.detail] += 1
                    run.refuse(one)
                if row is not None:
                    out.change(item, row, "distilled")
                    run.kept += 1
                    if run.kept <= 10 or run.kept % 50 == 0:
                        run.show(row)

            # Every split: rows to validate on that do not follow the prompt would measure something else.
            jobs = (Job(f"{split}-{number}-{item.id}", (split, item)) for split in source.splits
                    for number, item in enumerate(source.items(split)))
            run.work(jobs, make, total=sum(map(source.count, source.splits)), settle=settle)
            return run.facts(system_prompt=recipe.system_prompt[:2000], broken=broken)


def attempt(recipe: DistillPromptRecipe, wanted: list[rules.Rule], row: dict[str, Any], ask: Asker,
            by: llm.Client) -> tuple[dict[str, Any] | None, list[Bad]]:
    """(the row with an answer that keeps every rule, or ``None``; the answers before it that did not)."""
    turns = answers.asked(row)
    if not turns:
        raise Bad("no_prompt", row=row)
    bare = turns if recipe.keep_system else [turn for turn in turns if turn["role"] != "system"]
    bad: list[Bad] = []
    for number in range(recipe.tries):
        answer, = ask.all(f"answer-{number}", answers.with_system(turns, recipe.system_prompt))
        try:
            text = usable(answer)
        except Bad as err:
            bad.append(err)
            continue
        made = answers.answered(row, text, answer.reasoning, None if bare == turns else bare)
        found = rules.kept(wanted, judge.question_of(row), text,
                           lambda rule, number=number: checking.asker(ask, f"judge-{number}-{rule}", by))
        wrong = next((rule for rule, held in found.items() if held is not True), None)
        if wrong is None:
            return made, bad
        bad.append(Bad("breaks_rule", wrong, made) if found[wrong] is False
                   else Bad("undecided", str(found[wrong]), made))
    return None, bad
