"""A first guess at a benchmark of a dataset: which column is the question, which the answer, and what scores it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import Any

from studio.datasets import numeric
from studio.datasets.verify import normalised
from studio.evals.bench_items import LISTED, SAMPLE, Source
from studio.evals.templates import as_text

QUESTIONS = ("question", "prompt", "problem", "input", "instruction", "query", "text", "sentence", "turns", "goal", "ctx", "story")
ANSWERS = ("answer", "target", "label", "answerkey", "answer_key", "solution", "completion", "output", "response", "reference",
           "references", "gold", "correct", "answers", "translation", "summary")
OPTIONS = ("choices", "options", "endings", "answers", "candidates")
TESTS = ("test_list", "tests", "test", "test_cases", "unit_tests")
TAGS = ("category", "topic", "subject", "task", "type", "level", "difficulty", "skill", "source", "lang", "language")
_MARK = re.compile(r"\(?[A-Z][.)]?")
FEW = 12  # different answers that are as good as options


def suggest(ref: str) -> dict[str, Any]:
    """A first guess at the form for a dataset.

    Returns:
        ``{label, columns, values: {prompt, target, metric, choices?, options?, tags?, max_gen_toks?}, why: [sentences],
        sample: [first rows]}``.

    Raises:
        StudioError: with ``field="dataset"``: it cannot be read.
    """
    source = Source(ref)
    rows = list(islice(source.rows(), SAMPLE))
    names = source.columns
    known = {name.lower(): name for name in reversed(names)}
    values, why = _guess(rows, names, known)
    tags = [known[name] for name in TAGS if name in known and known[name] not in (values.get("prompt", ""), values.get("target", ""))
            and 1 < len({as_text(row.get(known[name])) for row in rows}) <= 50]
    if tags:
        values["tags"] = tags[:4]
    shown = [{name: as_text(row.get(name))[:300] for name in names[:40]} for row in rows[:3]]
    return {"label": source.label, "columns": names, "values": values, "why": why, "sample": shown}


def _guess(rows: list[dict[str, Any]], names: list[str], known: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    question = next((known[name] for name in QUESTIONS if name in known), names[0] if names else "text")
    answer = next((known[name] for name in ANSWERS if name in known and known[name] != question and _held(rows, known[name])), "")
    tests = next((known[name] for name in TESTS if name in known and known[name] != question), "")
    asked = _template(question, rows)
    if tests:
        listed = isinstance(next((row.get(tests) for row in rows if row.get(tests)), None), list)
        shown = f"{{{{{tests} | join('\\n')}}}}" if listed else f"{{{{{tests}}}}}"
        code = next((known[name] for name in ("code", "canonical_solution") if name in known), answer)
        complete = "entry_point" in known and question.lower() == "prompt"
        return {"metric": "unit_tests", "prompt": asked if complete else f"{asked}\nYour code should pass these tests:\n{shown}\n",
                "target": f"{{{{{code}}}}}" if code else "", "max_gen_toks": 512,
                "until": ["\ndef ", "\nclass ", "\nif __name__"] if complete else [],
                "options": {"column": tests} | ({"complete": True} if complete else {})}, [f"'{tests}' holds tests: the answer is code."]
    if found := _options(rows, known, names, answer):
        return {"metric": "multiple_choice", "prompt": asked, "target": f"{{{{{answer}}}}}", "choices": found}, [
            f"'{found}' holds options."]
    if not answer:
        if set(names) <= {"text", "meta", "source", "id", "url", "title", "label"} and "text" in names:
            return {"metric": "perplexity", "prompt": "{{text}}", "target": ""}, [
                "Plain texts: how well a model foretells them can be measured."]
        return {"metric": "judge", "prompt": asked, "target": ""}, ["No right answers are there: a judge can mark what is answered."]
    return _answered(rows, asked, answer)


def _held(rows: list[dict[str, Any]], name: str) -> bool:
    """Whether most rows have it; MT-Bench gives right answers to its sums alone."""
    return sum(row.get(name) not in (None, "", []) for row in rows) > len(rows) / 2


def _answered(rows: list[dict[str, Any]], asked: str, answer: str) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {"prompt": asked, "target": f"{{{{{answer}}}}}"}
    said = [text.strip() for row in rows if (text := as_text(row.get(answer))).strip()]
    if said and sum("####" in text or "\\boxed" in text for text in said) > len(said) / 2:
        return values | {"metric": "number", "max_gen_toks": 256}, [f"'{answer}' ends in a number behind #### or in \\boxed{{}}."]
    if said and all(len(text) < 24 and numeric.final_number(text) is not None and not any(c.isalpha() for c in text) for text in said):
        return values | {"metric": "number"}, [f"'{answer}' holds numbers."]
    asked_of = asked.strip("{} ")
    listed = sum(bool(_MARK.fullmatch(text)) and len(LISTED.findall(as_text(row.get(asked_of)))) > 1
                 for row in rows if (text := as_text(row.get(answer)).strip()))
    if said and listed > 0.9 * len(said):
        return values | {"metric": "multiple_choice"}, [f"'{answer}' is the letter of an option that the question lists."]
    counts = Counter(said)
    if said and 1 < len(counts) <= FEW and len(said) >= 4 * len(counts) and all(len(text) < 40 for text in counts):
        listed = "\n".join(sorted(counts))
        return values | {"metric": "multiple_choice", "choices": listed}, [
            f"'{answer}' has only {len(counts)} different values: they are taken as options."]
    words = sorted(len(text.split()) for text in said)
    if words and words[len(words) // 2] <= 4:
        return values | {"metric": "exact"} | ({"options": {"loose": True}} if all(map(normalised, said)) else {}), [f"'{answer}' holds short answers."]
    return values | {"metric": "rouge"}, [f"'{answer}' holds longer answers, which can be said in many words; a judge is the other way."]


def _template(question: str, rows: list[dict[str, Any]]) -> str:
    value = next((row.get(question) for row in rows if row.get(question)), "")
    if isinstance(value, list):
        return f"{{{{{question}[0]}}}}"  # the first turn of several
    return f"{{{{{question}}}}}" if question.isidentifier() else "{{question}}"


def _options(rows: list[dict[str, Any]], known: dict[str, str], names: list[str], answer: str) -> str:
    def lists(name: str) -> bool:
        held = [row.get(name) for row in rows if row.get(name) not in (None, "")]
        return bool(held) and all(isinstance(one, list) and len(one) > 1 or isinstance(one, dict) and isinstance(one.get("text"), list)
                                  for one in held)

    if not answer:
        return ""
    if found := next((known[name] for name in OPTIONS if name in known and known[name] != answer and lists(known[name])), ""):
        return found
    for letters in (["A", "B", "C", "D"], ["a", "b", "c", "d"], ["option_a", "option_b", "option_c", "option_d"],
                    ["opa", "opb", "opc", "opd"], ["A", "B"], ["choice1", "choice2"], ["option1", "option2"]):
        if set(letters) <= set(names):
            more = [name for name in ("E", "e", "option_e") if name in names and len(letters) == 4]
            return ", ".join(letters + more)
    return ""
