"""The metrics of own benchmarks: right, wrong and odd answers; BLEU, chrF and ROUGE as their libraries have them."""

from __future__ import annotations

import json
import random

import pytest

from studio import sandbox
from studio.errors import StudioError
from studio.evals.metrics import METRICS, catalogue, metric_of, streams
from tests.data.test_embedding import model as static  # noqa: F401 - a fixture
from tests.llm_stand_in import StandIn

WORDS = "the cat sat on a mat while rain fell over green hills and two dogs ran home late at night".split()


def score(name: str, answer: str, *right: str, options: dict | None = None, row: dict | None = None, prompt: str = "?") -> dict[str, float]:
    metric = metric_of(name, options)
    metric.open()
    try:
        return metric.score(answer, {"references": list(right), "row": row or {}, "prompt": prompt}).values
    finally:
        metric.close()


def drawn(seed: int, count: int = 60) -> tuple[list[str], list[list[str]]]:
    """Answers and one to three right answers each; some are empty, equal, or of another script."""
    rng = random.Random(seed)

    def text(most: int = 14) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    references = [[text() for _ in range(rng.randint(1, 3))] for _ in range(count)]
    answers = [rng.choice([text(), one[0], one[-1] + " ran", "", "кошка сидит"]) for one in references]
    return answers, references


def test_every_metric_says_what_it_is() -> None:
    listed = catalogue()
    assert [one["name"] for one in listed] == list(METRICS)
    for one in listed:
        assert one["title"] and one["help"].endswith(".") and one["names"] and one["output"] in ("choice", "text", "loss")
        assert not {"weight", "at_once"} & {option["name"] for option in one["options"]}
        assert all(option["title"] and option["help"] for option in one["options"])
    json.dumps(listed)


@pytest.mark.parametrize(("answer", "right", "loose", "expected"), [
    (" Paris ", ["Paris"], False, 1.0), ("paris", ["Paris"], False, 0.0), ("paris.", ["The Paris"], True, 1.0), ("Rome", ["Paris", "Rome"], False, 1.0),
    ("", ["Paris"], False, 0.0), ("", ["Paris"], True, 0.0), ("Париж", ["париж"], True, 1.0), ("Paris, France", ["Paris"], True, 0.0),
    (" ] ) ", ["] )"], True, 1.0), ("] ]", ["] )"], True, 0.0)])
def test_exact(answer: str, right: list[str], loose: bool, expected: float) -> None:
    assert score("exact", answer, *right, options={"loose": loose}) == {"exact_match": expected}


def test_fuzzy() -> None:
    assert score("fuzzy", "The Grass is green!", "grass is green") == {"fuzzy": 1.0, "fuzzy_match": 1.0, "f1": 1.0}
    near = score("fuzzy", "grass is gren", "grass is green")
    assert 0.9 < near["fuzzy"] < 1 and near["fuzzy_match"] == 1.0 and near["f1"] == pytest.approx(2 / 3)
    assert score("fuzzy", "grass is gren", "grass is green", options={"threshold": 0.99})["fuzzy_match"] == 0.0
    assert score("fuzzy", "xyz", "grass is green", "xyz")["fuzzy"] == 1.0, "of several right answers the nearest counts"
    assert score("fuzzy", "", "grass") == {"fuzzy": 0.0, "fuzzy_match": 0.0, "f1": 0.0}
    assert score("fuzzy", "a " * 50_000, "b " * 50_000)["f1"] == 0.0, "long texts end"


@pytest.mark.parametrize(("answer", "right", "expected"), [
    ("So 6 * 7 = 42.", "#### 42", 1.0), ("43", "42", 0.0), ("no idea", "42", 0.0), ("$1,200", "1200", 1.0), ("\\boxed{0.5}", "1/2", 1.0), ("", "42", 0.0),
    ("<think>it is 7</think> 42", "42", 1.0), ("-3", "3", 0.0)])
def test_number(answer: str, right: str, expected: float) -> None:
    assert score("number", answer, right) == {"exact_match": expected}


def test_number_within_a_tolerance() -> None:
    assert score("number", "99", "100") == {"exact_match": 0.0}
    assert score("number", "99", "100", options={"tolerance": 0.02}) == {"exact_match": 1.0}


def test_regex() -> None:
    assert score("regex", "It is (B).", options={"pattern": r"\(B\)"}) == {"regex_match": 1.0}
    assert score("regex", "It is b.", options={"pattern": r"\(B\)"}) == {"regex_match": 0.0}
    assert score("regex", "abc", options={"column": "wanted"}, row={"wanted": "^abc$"}) == {"regex_match": 1.0}
    assert score("regex", "abc", options={"column": "wanted"}) == {}, "a row without its pattern has no score"
    assert score("regex", "a" * 40 + "!", options={"pattern": r"^(a+)+$"}) == {"regex_match": 0.0}, "a pattern that runs wild is ended"
    for bad, field in (({}, "pattern"), ({"pattern": "(("}, "pattern")):
        with pytest.raises(StudioError) as err:
            metric_of("regex", bad).check()
        assert err.value.field == field


def test_json_schema() -> None:
    schema = '{"type": "object", "required": ["name"]}'
    assert score("json_schema", '{"name": "A"}', options={"json_schema": schema}) == {"schema_match": 1.0, "valid_json": 1.0}
    assert score("json_schema", '```json\n{"age": 1}\n```', options={"json_schema": schema}) == {"schema_match": 0.0, "valid_json": 1.0}
    assert score("json_schema", "name: A", options={"json_schema": schema}) == {"schema_match": 0.0, "valid_json": 0.0}
    assert score("json_schema", "[" * 5000, options={"json_schema": schema})["valid_json"] == 0.0
    assert score("json_schema", "[1]", options={"column": "shape"}, row={"shape": {"type": "array"}})["schema_match"] == 1.0
    for bad in ({}, {"json_schema": '{"type": 7}'}, {"json_schema": "no"}):
        with pytest.raises(StudioError) as err:
            metric_of("json_schema", bad).check()
        assert err.value.field == "json_schema"


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing())
def test_unit_tests() -> None:
    row = {"tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]}
    assert score("unit_tests", "```python\ndef add(a, b):\n    return a + b\n```", row=row) == {"pass@1": 1.0, "tests_passed": 1.0}
    assert score("unit_tests", "def add(a, b):\n    return a * b", row=row) == {"pass@1": 0.0, "tests_passed": 0.5}
    assert score("unit_tests", "this is no code", row=row) == {"pass@1": 0.0, "tests_passed": 0.0}
    assert score("unit_tests", "def add(a, b): return a + b") == {}, "a row without tests has no score"
    began = score("unit_tests", "while True: pass", row=row, options={"seconds": 1.0})
    assert began == {"pass@1": 0.0, "tests_passed": 0.0}


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing())
def test_an_answer_may_go_on_where_the_question_ends() -> None:
    row = {"test": "def check(f):\n    assert f(3) == 9", "entry_point": "square"}
    options = {"column": "test", "complete": True}
    asked = 'def square(x):\n    """x times x"""\n'
    assert score("unit_tests", "    return x * x\n", row=row, options=options, prompt=asked)["pass@1"] == 1.0
    assert score("unit_tests", "```python\ndef square(x):\n    return x ** 2\n```", row=row, options=options, prompt=asked)["pass@1"] == 1.0
    assert score("unit_tests", "    return x + x\n", row=row, options=options, prompt=asked)["pass@1"] == 0.0


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "zh", "none"])
def test_bleu_is_that_of_sacrebleu(tokenize: str) -> None:
    import sacrebleu

    answers, references = drawn(1)
    metric = metric_of("bleu", {"tokenize": tokenize})
    # their own way for different numbers of right answers: None where an answer has fewer
    theirs = [[one[i] if i < len(one) else None for one in references] for i in range(3)]
    assert metric.corpus(answers, references) == sacrebleu.corpus_bleu(answers, theirs, tokenize=tokenize).score > 0
    mine = score("bleu", answers[0], *references[0], options={"tokenize": tokenize})["bleu"]
    assert mine == sacrebleu.sentence_bleu(answers[0], references[0], tokenize=tokenize).score


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_that_of_sacrebleu(word_order: int) -> None:
    import sacrebleu

    answers, references = drawn(2)
    metric = metric_of("chrf", {"word_order": word_order})
    for some in ([one[:1] for one in references], references):
        each = [[i for i in range(len(some)) if len(some[i]) == n] for n in (1, 2, 3)]
        for places in filter(None, each):  # sacrebleu takes only the same number for all
            mine, theirs = [some[i] for i in places], [answers[i] for i in places]
            assert metric.corpus(theirs, mine) == sacrebleu.corpus_chrf(theirs, list(zip(*mine, strict=True)), word_order=word_order).score


def test_saying_a_right_answer_again_changes_nothing() -> None:
    import sacrebleu

    answers, references = drawn(3)
    once = [one[:1] for one in references]
    thrice = [one * 3 for one in once]
    assert sacrebleu.corpus_bleu(answers, streams(thrice)).score == sacrebleu.corpus_bleu(answers, streams(once)).score
    assert sacrebleu.corpus_chrf(answers, streams(thrice)).score == sacrebleu.corpus_chrf(answers, streams(once)).score


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_that_of_rouge_score(stemmer: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    answers, references = drawn(4)
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
    for answer, right in zip(answers, references, strict=True):
        found = theirs.score_multi(right, answer)
        assert score("rouge", answer, *right, options={"use_stemmer": stemmer}) == {name: one.fmeasure for name, one in found.items()}


def test_rouge_sees_other_scripts_if_told() -> None:
    assert score("rouge", "кошка сидит дома", "кошка сидит дома")["rougeL"] == 0.0, "rouge-score's own way"
    assert score("rouge", "Кошка сидит дома", "кошка сидит дома", options={"any_script": True})["rougeL"] == 1.0
    assert score("rouge", "猫坐在家里", "猫坐在外面", options={"any_script": True})["rouge1"] == pytest.approx(0.6)


def test_embedding(static) -> None:
    options = {"model": static.name}
    metric_of("embedding", options).check()
    same, other = (score("embedding", answer, "the car is big", options=options)["cosine"] for answer in ("the automobile is large", "w7 w8 w9"))
    assert same > 0.95 > 0.5 > other
    assert score("embedding", "nonsense", "the car", options=options) == {"cosine": 0.0}
    for bad in ("", "nowhere", "../elsewhere", "/etc"):
        with pytest.raises(StudioError) as err:
            metric_of("embedding", {"model": bad}).check()
        assert err.value.field == "model"


def test_judge() -> None:
    asked = []

    def answer(one) -> str:
        asked.append(one.last)
        return "Good.\nMark: 8" if "green" in one.last.partition("## Answer")[2] else "I would rather not say."

    with StandIn(answer) as judge:
        options = {"judge": judge.address, "rubric": "Is it true?", "reference": True}
        metric_of("judge", options).check()
        assert score("judge", "Grass is green.", "Green.", options=options, prompt="What colour is grass?") == {"judge_score": pytest.approx(8.0)}
        assert all(part in asked[0] for part in ("Is it true?", "What colour is grass?", "Green."))
        assert score("judge", "It is blue.", "Green.", options=options) == {}, "a judge that never answers in form gives no score"
        assert "Reference" in asked[0]
        score("judge", "Grass is green.", "Secret.", options=options | {"reference": False})
        assert "Secret" not in asked[-1]
    with pytest.raises(StudioError) as err:
        metric_of("judge").check()
    assert err.value.field == "judge"


def test_what_is_no_metric_is_refused() -> None:
    for name, options, field in (("nonsense", {}, "metric"), (None, {}, "metric"), ("number", {"tolerance": -1}, "tolerance"), ("number", {"weight": 2}, "options"),
                                 ("number", {"column": "x"}, "options"), ("exact", {"nothing": 1}, "nothing"), ("unit_tests", {"at_once": 3}, "options")):
        with pytest.raises(StudioError) as err:
            metric_of(name, options)
        assert err.value.field == field, (name, options)
