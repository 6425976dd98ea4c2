"""Is this answer right? Small functions that say so, for one answer and the row it was asked from.

    verdict = check("number")("So she has 12 + 30 = 42 apples.", {"answer": "... #### 42"})
    verdict.ok, verdict.score, verdict.reason

Every check is ``f(answer: str, row: dict, **options) -> Verdict``: the step ``verified``, rewards of reinforcement
learning and evaluations use the same ones. A check knows nothing of files, models or runs; one that asks a model is
given ``ask``.

What is expected stands in the row: in ``row[column]``, among its tags, or, where no column is named, as the row's own
answer (``completion``, the last message of the assistant, ``answer`` ...).
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.datasets import numeric
from studio.errors import StudioError

Row = dict[str, Any]
Checker = Callable[..., "Verdict"]
PATTERN_SECONDS = 1.0  # a regular expression that takes longer on one answer has run wild
_EXPECTED = ("completion", "answer", "expected", "solution", "reference", "target", "output", "label_answer", "chosen")
_THINK = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """Whether an answer passes, a score from 0 to 1, and the reason in a few words, at least where it does not."""

    ok: bool
    score: float
    reason: str = ""


class Undecided(Exception):
    """The check could not come to a verdict (a judge that never answered in form); the answer is neither right nor
    wrong."""


RIGHT = Verdict(True, 1.0)
CHECKS: dict[str, Checker] = {}
TITLES: dict[str, str] = {}


def register(name: str, title: str) -> Callable[[Checker], Checker]:
    """Add a check under a name; another one of that name is replaced."""
    def put(function: Checker) -> Checker:
        CHECKS[name], TITLES[name] = function, title
        return function

    return put


def check(name: str) -> Checker:
    """The check of a name.

    Raises:
        StudioError: there is none.
    """
    if name not in CHECKS:
        raise StudioError(f"There is no check '{name}'.", f"Known: {', '.join(CHECKS)}.", "check")
    return CHECKS[name]


def expected(row: Row, column: str = "") -> Any:
    """What a row expects, or ``None``.

    Args:
        column: A key of the row or of its tags; empty = the row's own answer.
    """
    if column:
        value = row.get(column)
        return (row.get("tags") or {}).get(column) if value is None else value
    if isinstance(row.get("messages"), list):
        return next((m.get("content") for m in reversed(row["messages"]) if m.get("role") == "assistant"), None)
    value = next((row[key] for key in _EXPECTED if row.get(key) not in (None, "", [])), None)
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "content" in value[-1]:
        return value[-1]["content"]
    return value


def final(answer: str) -> str:
    """An answer without the reasoning that a model wrote before it; what stands in ``<answer>`` last, if it does."""
    text = _THINK.sub("", answer, count=1)
    return found[-1].strip() if (found := _ANSWER.findall(text)) else text


def _wanted(row: Row, column: str) -> list[str]:
    """The expected answers as texts: a list allows any of them."""
    value = expected(row, column)
    values = value if isinstance(value, list) else [value]
    return [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in values if value is not None and value != ""]


def _wrong(reason: str, score: float = 0.0) -> Verdict:
    return Verdict(False, score, reason[:300])


_NOTHING = _wrong("the row does not say what is expected")


@register("exact", "The same text")
def exact(answer: str, row: Row, column: str = "", **_: Any) -> Verdict:
    """The same characters but for blanks around them."""
    wanted = _wanted(row, column)
    if not wanted:
        return _NOTHING
    said = final(answer).strip()
    return RIGHT if any(said == text.strip() for text in wanted) else _wrong(f"expected {wanted[0].strip()!r}")


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and double blanks (the SQuAD rule,
    https://arxiv.org/abs/1606.05250)."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(" " if c in string.punctuation or unicodedata.category(c).startswith("P") else c for c in text)
    return " ".join(word for word in text.split() if word not in ("a", "an", "the"))


@register("normalised", "The same words")
def same_words(answer: str, row: Row, column: str = "", **_: Any) -> Verdict:
    """The same but for case, punctuation, articles and blanks; a boxed answer counts for the whole."""
    wanted = _wanted(row, column)
    if not wanted:
        return _NOTHING
    said = {normalised(part) for part in (final(answer), numeric.boxed(answer) or "") if part} - {""}
    right = {normalised(part) for text in wanted for part in (final(text), numeric.boxed(text) or "") if part}
    return RIGHT if said & right else _wrong(f"expected {wanted[0].strip()!r}")


@register("contains", "The expected words occur")
def contains(answer: str, row: Row, column: str = "", **_: Any) -> Verdict:
    """The expected words stand in the answer, one behind the other."""
    wanted = [text for text in map(normalised, _wanted(row, column)) if text]
    if not wanted:
        return _NOTHING
    said = f" {normalised(final(answer))} "
    return RIGHT if any(f" {text} " in said for text in wanted) else _wrong(f"expected {wanted[0]!r} in it")


@register("number", "The same number at the end")
def number(answer: str, row: Row, column: str = "", tolerance: float = 1e-6, **_: Any) -> Verdict:
    """The final number of the answer (see :func:`studio.datasets.numeric.final_number`) is the expected one.

    Args:
        tolerance: The greatest difference, as a share of the expected number where that is above 1.
    """
    right = [value for text in _wanted(row, column) if (value := numeric.final_number(text)) is not None]
    if not right:
        return _wrong("the row expects no number")
    said = numeric.final_number(final(answer))
    if said is None:
        return _wrong("no number in the answer")
    if any(numeric.close(said, value, tolerance) for value in right):
        return RIGHT
    return _wrong(f"expected {right[0]:f}, got {said:f}")


@register("regex", "A pattern is found")
def matches(answer: str, row: Row, pattern: str = "", column: str = "", ignore_case: bool = False,
            thinking: bool = False, **_: Any) -> Verdict:
    """A regular expression is found somewhere in the answer; the row's own (``column``) where none is given.

    Args:
        thinking: Look also at the reasoning before the answer.
    """
    source = pattern or next(iter(_wanted(row, column)), "")
    if not source:
        return _NOTHING
    try:
        found = compiled(source, ignore_case).search(answer if thinking else final(answer), timeout=PATTERN_SECONDS)
    except TimeoutError:
        return _wrong("the pattern takes too long on this answer")
    return RIGHT if found else _wrong("the pattern is not found")


def compiled(source: str, ignore_case: bool = False) -> Any:
    """A pattern whose search can be given a time limit.

    Raises:
        StudioError: it is none.
    """
    import regex

    try:
        return regex.compile(source, regex.MULTILINE | (regex.IGNORECASE if ignore_case else 0))
    except regex.error as err:
        raise StudioError(f"'{source}' is no regular expression: {err}.", "Write a pattern as in Python's re.",
                          "pattern") from err


_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+.#-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)",
                    re.DOTALL | re.MULTILINE)


def fenced(text: str, *languages: str) -> list[str]:
    """The blocks of code in a text; those of ``languages`` where there are any."""
    blocks = [(match[2].lower(), match[3]) for match in _FENCE.finditer(text)]
    named = [code for language, code in blocks if language in languages]
    return named or [code for _, code in blocks]


@register("json_schema", "JSON of a given shape")
def json_shape(answer: str, row: Row, schema: str | dict[str, Any] = "", column: str = "", **_: Any) -> Verdict:
    """The answer is JSON (alone, or its last block of code) that fits a JSON Schema; the row's own where none is
    given."""
    import jsonschema

    value = schema or expected(row, column)
    if not value:
        return _NOTHING
    try:
        validator = validator_of(value)
    except StudioError as err:
        return _wrong(err.message)
    said = final(answer)
    for text in [said, *reversed(fenced(said, "json"))]:
        try:
            made = json.loads(text)
        except (ValueError, RecursionError):
            continue
        try:
            fault = next(validator.iter_errors(made), None)
        except (jsonschema.exceptions.SchemaError, RecursionError, Exception) as err:
            return _wrong(f"the schema cannot be used: {err}")
        where = f" at {'/'.join(map(str, fault.absolute_path))}" if fault is not None and fault.absolute_path else ""
        return RIGHT if fault is None else _wrong(f"{fault.message}{where}", 0.5)
    return _wrong("the answer is not JSON")


def validator_of(schema: str | dict[str, Any]) -> Any:
    """A JSON Schema, checked. It never fetches anything it refers to.

    Raises:
        StudioError: it is none.
    """
    import jsonschema
    import referencing

    try:
        value = json.loads(schema) if isinstance(schema, str) else schema
        kind = jsonschema.validators.validator_for(value, jsonschema.Draft202012Validator)
        kind.check_schema(value)
    except (ValueError, TypeError, AttributeError, jsonschema.exceptions.SchemaError) as err:
        said = getattr(err, "message", str(err))
        raise StudioError(f"That is no JSON Schema: {said}.", 'For example {"type": "object"}.', "schema") from err
    return kind(value, registry=referencing.Registry())


@register("unit_tests", "Tests of the code pass")
def unit_tests(answer: str, row: Row, column: str = "tests", seconds: float = 5, memory: int = 512 << 20,
               packages: bool = False, **_: Any) -> Verdict:
    """The code in the answer passes its tests in the sandbox; the score is the share of tests that pass.

    The tests are Python (one text or a list of them; MBPP's ``test_list``, HumanEval's ``test`` with its
    ``entry_point``) or pairs of input and output for a program (``[{"input", "output"}]``, or ``{"inputs",
    "outputs"}`` as in APPS).

    Raises:
        StudioError: this machine cannot confine code; see :mod:`studio.sandbox`.
    """
    from studio import sandbox

    tests = expected(row, column)
    if isinstance(tests, str) and tests.lstrip()[:1] in "[{":
        try:
            tests = json.loads(tests)
        except ValueError:
            pass  # Python that begins with a bracket
    if not tests:
        return _NOTHING
    code = code_of(final(answer))
    for name in ("test_setup_code", "test_imports"):  # MBPP's, of its two editions
        if before := expected(row, name):
            code = f"{_lines(before)}\n{code}"
    limits = {"seconds": seconds, "memory": memory, "packages": packages}
    if cases := _cases(tests):
        return _programs(code, cases, limits)
    texts = [str(text) for text in (tests if isinstance(tests, list) else [tests])]
    entry = expected(row, "entry_point")
    if isinstance(entry, str) and entry.isidentifier():
        call = f"check({entry})"
        texts = [f"{text}\n{call}" if "def check(" in text and call not in text else text for text in texts]
    made = sandbox.run(code, texts, **limits)
    return RIGHT if made.ok else _wrong(made.reason, made.passed / max(1, made.total))


def code_of(answer: str) -> str:
    """The program in an answer: its Python blocks, else its blocks of code, else all of it."""
    blocks = fenced(answer, "python", "py", "python3")
    return "\n\n".join(blocks) if blocks else answer


def _cases(tests: Any) -> list[tuple[str, str]]:
    """(input, output) of every case, if the tests are such."""
    if isinstance(tests, dict) and isinstance(tests.get("inputs"), list) and isinstance(tests.get("outputs"), list):
        return [(_lines(i), _lines(o)) for i, o in zip(tests["inputs"], tests["outputs"], strict=False)]
    if isinstance(tests, list) and all(isinstance(case, dict) and {"input", "output"} <= set(case) for case in tests):
        return [(_lines(case["input"]), _lines(case["output"])) for case in tests]
    return []


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _programs(code: str, cases: list[tuple[str, str]], limits: dict[str, Any]) -> Verdict:
    from studio import sandbox

    passed, reason = 0, ""
    for given, right in cases:
        made = sandbox.run(code, stdin=given, **limits)
        same = made.ok and made.output.split() == right.split()
        passed += same
        if not same and not reason:
            reason = f"expected {right.strip()[:80]!r}, got {made.output.strip()[:80]!r}" if made.ok else made.reason
        if made.code in ("timeout", "memory", "output", "disk"):
            break  # the other cases would cost as much
    return RIGHT if passed == len(cases) else _wrong(reason, passed / len(cases))


@register("judge", "A judge is content")
def judged(answer: str, row: Row, ask: Callable[[list[dict[str, str]]], str] | None = None, rubric: str = "",
           column: str = "", threshold: float = 0.7, **_: Any) -> Verdict:
    """A model marks the answer by a rubric; it passes from ``threshold`` (0 to 1) on.

    Args:
        ask: Gives the judge's answer to messages.
        column: What is expected, shown to the judge as the reference; empty = none is shown.

    Raises:
        Undecided: the judge never answered in form.
    """
    from studio.datasets import judge

    if ask is None:
        raise StudioError("No judge is chosen.", "Choose the model that judges.", "judge")
    reference = next(iter(_wanted(row, column)), "") if column else ""
    mark = judge.mark(ask, judge.question_of(row), final(answer), rubric, reference)
    share = judge.share(mark.score)
    return Verdict(share >= threshold, share, (mark.reason or f"marked {mark.score:g}")[:300])
