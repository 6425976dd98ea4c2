"""The fields with which a recipe says how answers are checked, and the check made of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from studio.datasets import answers, llm, verify
from studio.datasets.step import StepRecipe
from studio.datasets.verify import Verdict
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.datasets.generate import Asker
    from studio.jobs.context import Context

MOST_REFERENCES = 1_000_000
CALM = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 768}  # a judge says its likeliest words, not too many
_QUESTIONS = ("prompt", "question", "instruction", "problem", "text", "task", "query", "input")
_TOLD = {"check": ["judge"]}


class CheckFields(StepRecipe):
    """How an answer is checked."""

    check: Literal[*verify.CHECKS] = field(  # type: ignore[valid-type]
        "number", "Check", "How an answer is told right from wrong.", choices=dict(verify.TITLES))
    column: str = field("", "Expected in", "The column or tag that holds what is expected (the answer, the pattern, "
                                           "the schema, the tests). Left empty, it is the row's own answer; for "
                                           "tests, 'tests'.", max_length=200)
    references: str = field("", "References", "A file or dataset whose rows hold the question and that column, e.g. "
                                              "the tests of a task. Left empty, the rows themselves hold it.",
                                              widget="dataset", max_length=1000)
    tolerance: float = field(1e-6, "Tolerance", "The greatest difference between two numbers, as a share of the "
                                                "expected one where that is above 1.",
                                                ge=0, le=1, when={"check": ["number"]}, group="advanced")
    pattern: str = field("", "Pattern", "A regular expression that is found in a right answer.", max_length=2000,
                         when={"check": ["regex"]})
    ignore_case: bool = field(False, "Ignore case", "Capital letters do not matter to the pattern.",
                              when={"check": ["regex"]}, group="advanced")
    json_schema: str = field("", "JSON Schema", "The shape of a right answer, e.g. {\"type\": "
                                                "\"object\"}.", widget="text",
                             max_length=100_000, when={"check": ["json_schema"]})
    test_seconds: float = field(5, "Time for tests", "Processor time that an answer's code and its tests "
                                                     "get.", unit="s",
                                gt=0, le=120, when={"check": ["unit_tests"]}, group="advanced")
    test_memory: int = field(512, "Memory for tests", "Memory that they get.", unit="MB", ge=64, le=16_384,
                             when={"check": ["unit_tests"]}, group="advanced")
    test_packages: bool = field(False, "Installed packages", "The code may import what is installed beside the "
                                                             "studio, e.g. numpy, not only Python's own library.",
                                                             when={"check": ["unit_tests"]}, group="advanced")
    judge: str = field("", "Judge", "The model that judges: a model of yours or the address of a server. Left empty, "
                                    "the model that answers judges itself.",
                                    widget="model", max_length=1000, when=_TOLD)
    judge_model: str = field("", "Judge at the address", "Which of that server's models judges.", max_length=300,
                             group="advanced", when=_TOLD)
    rubric: str = field("", "Rubric", "What makes a good answer, in your words. Left empty: correct, complete, to the "
                                      "point, clear.", widget="text", max_length=20_000, when=_TOLD)
    threshold: float = field(0.7, "Passes from", "The judge's mark, as a share of the highest, from which an answer "
                                                 "passes.",
                             ge=0, le=1, when=_TOLD)


def refuse(recipe: Any) -> None:
    """Refuse what can be known to fail: a bad pattern or schema, a judge that is not there, no sandbox on this
    machine.

    Raises:
        StudioError: naming the field.
    """
    if recipe.check == "regex" and recipe.pattern:
        verify.compiled(recipe.pattern)
    if recipe.check == "json_schema" and recipe.json_schema:
        try:
            verify.validator_of(recipe.json_schema)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "json_schema") from err
    if recipe.check == "unit_tests":
        from studio import sandbox

        sandbox.require()
    if recipe.check == "judge" and recipe.judge:
        llm.check(recipe, recipe.judge, "judge")
    if recipe.references:
        from studio.library import refs

        try:
            refs.resolve_dataset(recipe.references)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "references") from err


class Checking:
    """A check with everything a recipe says about it: ``checking(answer, row, turns, ask)`` is the verdict.

    Raises:
        StudioError: the references cannot be read.
    """

    def __init__(self, recipe: Any):
        self.function = verify.check(recipe.check)
        column = recipe.column or ("tests" if recipe.check == "unit_tests" else "")
        self.options: dict[str, Any] = {
            "column": column, "tolerance": recipe.tolerance, "pattern": recipe.pattern,
            "ignore_case": recipe.ignore_case, "schema": recipe.json_schema, "seconds": recipe.test_seconds,
            "memory": recipe.test_memory << 20,
            "packages": recipe.test_packages, "rubric": recipe.rubric, "threshold": recipe.threshold}
        self.references = references(recipe.references, column) if recipe.references else None
        self.judges = recipe.check == "judge"

    def row_of(self, row: dict[str, Any], turns: answers.Turns) -> dict[str, Any] | None:
        """The row that says what is expected; ``None`` if no reference belongs to the question."""
        if self.references is None:
            return row
        return self.references.get(_key(str(turns[-1].get("content") or "")))

    def __call__(self, answer: str, row: dict[str, Any], ask: Callable[..., str] | None = None) -> Verdict:
        return self.function(answer, row, ask=ask, **self.options)


def judge_of(recipe: Any, ctx: Context) -> llm.Client:
    """The client of a recipe's judge: it says its likeliest words."""
    return llm.open(recipe, ctx, recipe.judge, recipe.judge_model, "judge", **CALM)


def asker(ask: Asker, name: str, client: llm.Client) -> Any:
    """A judge as :mod:`studio.datasets.judge` calls it; every question goes through the journal."""
    count = iter(range(1000))

    def one(messages: list[dict[str, str]]) -> str:
        return ask.all(f"{name}/{next(count)}", messages, client=client, **CALM)[0].text

    return one


def references(ref: str, column: str = "") -> dict[str, dict[str, Any]]:
    """Question -> raw row of a dataset.

    Raises:
        StudioError: no column holds questions, or the wanted one is missing (``references``).
    """
    from studio.datasets.formats import open_source

    found: dict[str, dict[str, Any]] = {}
    try:
        rows = open_source(ref)[0]
        for number, row in enumerate(rows, 1):
            if number > MOST_REFERENCES:
                break
            if isinstance(row.get("messages"), list):
                turns = answers.asked(row) or [{}]
                question: Any = turns[-1].get("content")
            else:
                question = next((row[name] for name in _QUESTIONS if isinstance(row.get(name), str)), None)
                if question and isinstance(row.get("input"), str) and row["input"] and question is not row["input"]:
                    question = f"{question}\n\n{row['input']}"
            if question:
                found.setdefault(_key(question), row)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "references") from err
    if not found:
        raise StudioError("The references hold no questions.",
                          f"One column must be called {', '.join(_QUESTIONS[:4])} ...",
                          "references")
    if column and not any(verify.expected(row, column) is not None for row in found.values()):
        names = ", ".join(next(iter(found.values())))
        raise StudioError(f"The references have no column '{column}'.", f"They have {names}.", "column")
    return found


def _key(question: str) -> str:
    return " ".join(question.split())


class Clock:
    """True once a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 1
        return True
