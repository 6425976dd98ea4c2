"""The starter world: reproducible, held-out questions apart from training, scoring exact, answers right."""

import json
import random
import re

import pytest

from studio.starter import corpus, skills, stories
from studio.starter import world as w


@pytest.fixture(scope="module")
def training() -> list[dict]:
    return list(corpus.rows(1, 40_000))


def _questions(rows) -> set[str]:
    return {m["content"] for r in rows if "messages" in r for m in r["messages"] if m["role"] == "user"}


def test_same_seed_same_bytes(tmp_path):
    a = corpus.write_corpus(tmp_path / "a.jsonl", 3, 500).read_bytes()
    b = corpus.write_corpus(tmp_path / "sub" / "b.jsonl", 3, 500).read_bytes()
    c = corpus.write_corpus(tmp_path / "c.jsonl", 4, 500).read_bytes()
    assert a == b != c
    rows = [json.loads(line) for line in a.decode().splitlines()]
    assert len(rows) == 500
    assert {tuple(r) for r in rows} == {("text",), ("messages",)}


def test_chats_are_the_larger_part(training):
    assert sum("messages" in r for r in training) > 0.6 * len(training)


@pytest.mark.parametrize("skill", [s for s in skills.SKILLS if s not in ("identity", "unknown")])
def test_held_out_questions_are_not_in_training(training, skill):
    questions = [q for q in corpus.held_out(7, 100) if q.skill == skill]
    assert len(questions) >= 12
    seen = _questions(training)
    assert not [q for q in questions if q.messages[-1]["content"] in seen]


def test_held_out_names_are_not_in_training(training):
    # Here the combination is system prompt and question; each alone is common.
    seen = {(r["messages"][0]["content"], r["messages"][1]["content"]) for r in training if "messages" in r}
    held = [q for q in corpus.held_out(7, 100) if q.skill == "identity"]
    assert len(held) > 20
    assert not [q for q in held if (q.messages[0]["content"], q.messages[1]["content"]) in seen]


def test_held_out_unknowns_are_not_in_training(training):
    # As a follow-up to a paragraph the same words are another question, with an answer.
    seen = {m["content"] for r in training if "messages" in r for m in r["messages"][:2] if m["role"] == "user"}
    held = [q for q in corpus.held_out(7, 100) if q.skill == "unknown"]
    assert len(held) > 40
    assert not [q for q in held if q.messages[-1]["content"] in seen]


def test_held_out_texts_are_not_in_training(training):
    seen = {r["text"] for r in training if "text" in r}
    held = [r["text"] for r in corpus.rows(9, 2000, held=True) if "text" in r]
    assert held and not seen & set(held)


def test_every_fact_is_taught(training):
    answers = {m["content"] for r in training if "messages" in r for m in r["messages"] if m["role"] == "assistant"}
    missing = [q.answer for q in corpus.held_out(7, 300) if q.skill in ("people", "animals", "colours", "opposites",
                                                                         "places") and q.answer not in answers]
    assert not missing


def test_untaught_skills_are_untaught(training):
    text = "\n".join(json.dumps(r) for r in training)
    assert "Of course!" not in text and "Is there anything else" not in text and "Lumi" not in text
    totals = [int(a) + int(b) for a, b in re.findall(r"(\d+) \+ (\d+)", text)]
    assert totals and max(totals) <= 20


def test_sums_pairs_are_apart_whatever_the_order(training):
    seen = {tuple(sorted((int(a), int(b)))) for a, b in re.findall(r"(\d+) \+ (\d+)", str(training))}
    held = {tuple(sorted(int(x) for x in re.findall(r"\d+", q.messages[-1]["content"])))
            for q in corpus.held_out(7, 100) if q.skill == "sums"}
    assert held and not seen & held


def test_sums_and_counts_are_right():
    rng = random.Random(0)
    for make in (skills.sums, skills.harder_sums):
        for _ in range(300):
            a, b, total = map(int, re.findall(r"\d+", make(rng, False).answer))
            assert a + b == total
    for _ in range(300):
        item = skills.counting(rng, False)
        if item.question.startswith("Count"):
            first, last = map(int, re.findall(r"\d+", item.question))
            assert [int(x) for x in re.findall(r"\d+", item.answer)] == list(range(first, last + 1))
        else:
            things = item.question.split("? ")[1].split()
            assert str(len(things)) in item.answer and len(set(things)) == 1


def test_paragraph_answers_follow_from_the_paragraph():
    rng = random.Random(0)
    for _ in range(300):
        item = skills.paragraph(rng, False)
        value = item.answer.removesuffix(".").split()[-1]
        name = item.answer.split()[0]
        assert value in item.question
        assert name in item.question or name == "The"


def test_stories_are_five_to_eight_sentences_about_their_hero():
    rng = random.Random(0)
    for _ in range(200):
        body, hero, _ = stories.story(rng, False)
        count = len(re.findall(r"[.?!]\"?(?= [A-Z\"]|$)", body))
        assert 5 <= count <= 9 and hero in body and "{" not in body


def test_people_are_fixed_and_apart_from_visitors():
    assert len(w.PEOPLE) == 20
    assert not {p.name for p in w.PEOPLE} & set(w.VISITORS)
    anna = w.PEOPLE[0]
    assert (anna.name, anna.he) == ("Anna", "she")


def test_articles_and_plurals():
    assert [w.an(x) for x in ("owl", "cat")] == ["an owl", "a cat"]
    assert [w.plural(x) for x in ("mouse", "sheep", "box", "dog")] == ["mice", "sheep", "boxes", "dogs"]


def test_score_counts_exact_answers_per_skill():
    questions = [corpus.Question("a", [], "Yes."), corpus.Question("a", [], "No."), corpus.Question("b", [], "7.")]
    assert corpus.score([" Yes.\n", "no.", "7."], questions) == {"a": 0.5, "b": 1.0}
    with pytest.raises(ValueError):
        corpus.score(["Yes."], questions)


def test_system_prompts_are_obeyed_in_the_answers():
    rng = random.Random(0)
    for _ in range(100):
        assert len(skills.one_word(rng, False).answer.split()) == 1
        item = skills.identity(rng, False)
        assert item.answer.removeprefix("My name is ").removesuffix(".") in item.system
