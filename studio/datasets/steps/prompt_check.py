"""Does a tuned model follow a prompt that it is not given any more? Asks held-out questions with and without it."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from studio.datasets import answers, checking, judge, llm, rules
from studio.datasets.generate import TEXTS, Asker, Bad, Generation, Job, MakeStep
from studio.datasets.report import Report, path_of
from studio.datasets.steps.distill_prompt import PromptFields, refuse
from studio.datasets.version import Item, Version, Writer
from studio.errors import StudioError
from studio.jobs.files import write_json
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

EXAMPLES = 20
WAYS = {"unasked": "without the prompt", "asked": "with the prompt", "before": "the model before, without the prompt"}


class PromptCheckRecipe(PromptFields, llm.ModelFields):
    method = "prompt_check"
    near_duplicates: ClassVar[float] = 0.0

    compare: str = field("", "Model before", "The model before it was tuned, to compare with. Left empty, only the "
                                             "tuned one is asked.", widget="model", max_length=1000)
    questions: int = field(50, "Questions", "How many of the dataset are asked: of its test or validation split where "
                                            "it has one.", ge=1, le=10_000)
    temperature: float = field(0.0, "Temperature", "0 always takes the likeliest words, so the same check gives the "
                                                   "same figures.", group="advanced", ge=0, le=2)


class PromptCheck(MakeStep, Report):
    """The figures are kept as a report on the questions; the answers become a dataset, to be looked through."""

    title = "Check a prompt"
    summary = "Asks a model held-out questions with and without a system prompt, and checks its rules one by one."
    Recipe = PromptCheckRecipe
    others = {"generator": "generator", "compare": "before", "judge": "judge"}
    texts = TEXTS | {"no_prompt": "ask no question"}

    @classmethod
    def check(cls, recipe: PromptCheckRecipe) -> None:
        super().check(recipe)
        refuse(recipe)
        if not any(line.strip() for line in recipe.rules):
            raise StudioError("There are no rules to check.", "Write at least one, e.g. 'at most: 40 words'.", "rules")
        if recipe.compare:
            llm.check(recipe, recipe.compare, "compare")

    @classmethod
    def work(cls, recipe: PromptCheckRecipe, source: Version, out: Writer,  # type: ignore[override]
             ctx: Context) -> dict[str, Any]:
        """``{split, questions, failed, model, rules: [{rule, judged, unasked, asked, before?}], all: {...}, usage}``;
        each of ``unasked``, ``asked`` and ``before`` is ``{kept, of, undecided}``. The report has ``examples`` too.
        """
        began = time.time()
        split = next((name for name in ("test", "validation") if name in source.splits), "train")
        out.seen.update(source.splits)  # the rows are answers: no split of the questions belongs to them
        wanted = rules.parse(recipe.rules)
        with ExitStack() as stack:
            client = stack.enter_context(llm.open(recipe, ctx))
            by = client
            if recipe.judge and any(rule.judged for rule in wanted):
                by = stack.enter_context(checking.judge_of(recipe, ctx))
            before = None
            if recipe.compare:
                before = stack.enter_context(llm.open(recipe, ctx, recipe.compare, name="compare"))
            journal = stack.enter_context(llm.journal(ctx, out))
            run = Generation(recipe, out, ctx, client, journal)
            tally = Tally(wanted, run)

            def make(job: Job, ask: Asker) -> dict[str, Any]:
                return asked(recipe, wanted, job.data.row, ask, client, before, by)

            jobs = (Job(f"{number}-{item.id}", item) for number, item in enumerate(source.items(split)))
            run.work(islice(jobs, recipe.questions), make, total=min(recipe.questions, source.count(split)),
                     settle=lambda job, value: tally.take(job.data, value))
            facts = {"split": split, "questions": tally.questions, "failed": tally.failed, "model": client.label,
                     "usage": client.usage.to_dict()}
        if not tally.questions:
            raise StudioError("Not one question could be asked.", "Choose a dataset with questions, and see the "
                                                                  "log.", "dataset")
        facts |= tally.result()
        path = path_of(source.hash, recipe.method)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"recipe": recipe.to_dict(), "made": time.time(), "seconds": round(time.time() - began, 2),
                          "version_hash": source.hash, **facts, "examples": tally.examples})
        shares = {f"{way}_kept": part["kept"] / part["of"] for way, part in facts["all"].items() if part["of"]}
        ctx.metric(tally.questions, shares)
        for way, part in facts["all"].items():
            ctx.log(f"{WAYS[way].capitalize()}: {part['kept']} of {part['of']} answers keep every rule")
        return facts


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
        found[way] = {"answer": text, "kept": {rule: "kept" if held is True else "broken" if held is False else held
                                               for rule, held in kept.items()}}
    return found


class Tally:
    """Writes the answers and counts the rules that they keep."""

    def __init__(self, wanted: list[rules.Rule], run: Generation):
        self.wanted, self.run = wanted, run
        self.questions = self.failed = 0
        self.counts: dict[str, Counter[tuple[str, str]]] = {}  # way -> (rule, word) -> answers
        self.examples: list[dict[str, Any]] = []

    def take(self, item: Item, value: Any) -> None:
        if isinstance(value, list):  # it could not be asked
            self.failed += 1
            self.run.take(Job(""), value)
            return
        self.questions += 1
        turns = [turn for turn in answers.asked(item.row) or [] if turn["role"] != "system"]
        for way, part in value.items():
            if way == "question":
                continue
            counts, held = self.counts.setdefault(way, Counter()), part["kept"]
            for rule, word in held.items():
                counts[rule, word if isinstance(word, str) and word in ("kept", "broken") else "undecided"] += 1
            words = set(held.values())
            whole = "broken" if "broken" in words else "kept" if words == {"kept"} else "undecided"
            counts["", whole] += 1
            self.write(item, way, turns, part, whole)
        if len(self.examples) < EXAMPLES:
            self.examples.append(value)

    def write(self, item: Item, way: str, turns: answers.Turns, part: dict[str, Any], whole: str) -> None:
        broken = next((rule for rule, word in part["kept"].items() if word == "broken"), "")
        tags = {"asked": WAYS[way], "rules": whole} | ({"broken": broken[:80]} if broken else {})
        if not part["answer"]:
            self.run.refuse(Bad("empty", WAYS[way], item.row))
            return
        score = sum(word == "kept" for word in part["kept"].values()) / len(part["kept"])
        self.run.out.add(answers.answered(item.row, part["answer"], turns=turns), item.source, score, tags)
        self.run.out.rows_in += 1
        self.run.kept += 1

    def result(self) -> dict[str, Any]:
        def figures(way: str, rule: str) -> dict[str, int]:
            counts = self.counts[way]
            kept, broken = counts[rule, "kept"], counts[rule, "broken"]
            return {"kept": kept, "of": kept + broken, "undecided": counts[rule, "undecided"]}

        return {"rules": [{"rule": rule.text, "judged": rule.judged}
                          | {way: figures(way, rule.text) for way in self.counts} for rule in self.wanted],
                "all": {way: figures(way, "") for way in self.counts}}
