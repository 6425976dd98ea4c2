"""Does a tuned model follow a prompt that it is not given any more? Asks held-out questions with and without it."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from studio.datasets import answers, checking, judge, llm, rules
from studio.datasets.generate import Asker, Bad, Generation, Job
from studio.datasets.report import Report
from studio.datasets.steps.distill_prompt import PromptFields, refuse
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

EXAMPLES = 20


class PromptCheckRecipe(PromptFields, llm.ModelFields):
    method = "prompt_check"
    near_duplicates: ClassVar[float] = 0.0

    compare: str = field("", "Model before", "The model before it was tuned, to compare with. Left empty, only the "
                                             "tuned one is asked.", widget="model", max_length=1000)
    questions: int = field(50, "Questions", "How many of the dataset are asked: of its test or validation split where "
                                            "it has one.", ge=1, le=10_000)
    temperature: float = field(0.0, "Temperature", "0 always takes the likeliest words, so the same check gives the "
                                                   "same figures.", group="advanced", ge=0, le=2)


class PromptCheck(Report):
    title = "Check the prompt"
    summary = "Asks a model held-out questions with and without a system prompt, and checks its rules one by one."
    Recipe = PromptCheckRecipe

    @classmethod
    def check(cls, recipe: PromptCheckRecipe) -> None:
        super().check(recipe)
        llm.check(recipe)
        refuse(recipe)
        if not any(line.strip() for line in recipe.rules):
            raise StudioError("There are no rules to check.", "Write at least one, e.g. 'at most: 40 words'.", "rules")
        if recipe.compare:
            llm.check(recipe, recipe.compare, "compare")

    @classmethod
    def work(cls, recipe: PromptCheckRecipe, source: Version, ctx: Context) -> dict[str, Any]:
        """``{split, questions, model, rules: [{rule, judged, unasked, asked, before?}], all: {...}, examples,
        usage}``; each of ``unasked``, ``asked`` and ``before`` is ``{kept, of, undecided}``.
        """
        split = next((name for name in ("test", "validation") if name in source.splits), "train")
        wanted = rules.parse(recipe.rules)
        tally = Tally(wanted)
        with ExitStack() as stack:
            client = stack.enter_context(llm.open(recipe, ctx))
            by = client
            if recipe.judge and any(rule.judged for rule in wanted):
                by = stack.enter_context(checking.judge_of(recipe, ctx))
            before = None
            if recipe.compare:
                before = stack.enter_context(llm.open(recipe, ctx, recipe.compare, name="compare"))
            journal = stack.enter_context(llm.Journal(ctx.run_dir / "journal.jsonl"))
            run = Generation(recipe, Writer(ctx.run_dir / "asked"), ctx, client, journal)

            def make(job: Job, ask: Asker) -> dict[str, Any]:
                return asked(recipe, wanted, job.data, ask, client, before, by)

            jobs = (Job(f"{number}-{item.id}", item.row) for number, item in enumerate(source.items(split)))
            run.work(islice(jobs, recipe.questions), make, total=min(recipe.questions, source.count(split)),
                     settle=lambda job, value: tally.take(value))
            usage = run.client.usage.to_dict()
            label = client.label
        if not tally.questions:
            raise StudioError("Not one question could be asked.", "Choose a dataset with questions, and see the "
                                                                  "log.", "dataset")
        return {"split": split, "questions": tally.questions, "failed": tally.failed, "model": label, "usage": usage,
                **tally.result(), "examples": tally.examples}

    @classmethod
    def headline(cls, found: dict[str, Any]) -> dict[str, Any]:
        return {"questions": found["questions"], **{f"{way}_kept": round(part["kept"] / part["of"], 4)
                                                    for way, part in found["all"].items() if part["of"]}}


def asked(recipe: PromptCheckRecipe, wanted: list[rules.Rule], row: dict[str, Any], ask: Asker, client: llm.Client,
          before: llm.Client | None, by: llm.Client) -> dict[str, Any]:
    """The answers to one question, each with the rules that it keeps."""
    turns = answers.asked(row)
    if not turns:
        raise Bad("no_prompt")
    bare = [turn for turn in turns if turn["role"] != "system"]
    ways = {"unasked": (client, bare), "asked": (client, answers.with_system(turns, recipe.system_prompt))}
    if before is not None:
        ways["before"] = (before, bare)
    found: dict[str, Any] = {"question": judge.question_of(row)}
    for way, (who, messages) in ways.items():
        text = ask.all(way, messages, client=who)[0].text.strip()
        kept = rules.kept(wanted, found["question"], text,
                          lambda rule, way=way: checking.asker(ask, f"judge-{way}-{rule}", by))
        found[way] = {"answer": text, "kept": kept}
    return found


class Tally:
    """Counts the rules that are kept."""

    def __init__(self, wanted: list[rules.Rule]):
        self.wanted = wanted
        self.questions = self.failed = 0
        self.counts: dict[str, Counter[tuple[str, str]]] = {}  # way -> (rule, word) -> answers
        self.examples: list[dict[str, Any]] = []

    def take(self, value: Any) -> None:
        if isinstance(value, list):  # it could not be asked
            self.failed += 1
            return
        self.questions += 1
        for way, part in value.items():
            if way == "question":
                continue
            counts = self.counts.setdefault(way, Counter())
            for rule, held in part["kept"].items():
                counts[rule, "kept" if held is True else "broken" if held is False else "undecided"] += 1
            every = [held for held in part["kept"].values()]
            counts["", "broken" if False in every else "kept" if all(h is True for h in every) else "undecided"] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(value)

    def result(self) -> dict[str, Any]:
        def figures(way: str, rule: str) -> dict[str, int]:
            counts = self.counts[way]
            kept, broken = counts[rule, "kept"], counts[rule, "broken"]
            return {"kept": kept, "of": kept + broken, "undecided": counts[rule, "undecided"]}

        return {"rules": [{"rule": rule.text, "judged": rule.judged}
                          | {way: figures(way, rule.text) for way in self.counts} for rule in self.wanted],
                "all": {way: figures(way, "") for way in self.counts}}
