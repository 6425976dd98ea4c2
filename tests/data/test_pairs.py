"""Preference pairs from marks, from review and from votes."""

from __future__ import annotations

from collections import Counter

import pytest

from studio.datasets import edits
from studio.datasets.version import Version
from studio.errors import StudioError


def reasons(version: Version) -> Counter:
    return Counter({r["code"]: r["count"] for r in version.meta["history"][-1]["reasons"]})


def rated(prompt: str, answer: str, label: object, **more: object) -> dict:
    return {"prompt": prompt, "completion": answer, "label": label, **more}


LOGS = [rated("Where is the shop?", "On the market.", "good"), rated("Where is the shop?", "No idea.", "bad", comment="rude"),
        rated("Where is  the shop? ", "Somewhere.", "bad"), rated("When?", "At nine.", "good"), rated("Who?", "Nobody.", "bad"),
        rated("Why?", "So.", "good"), rated("Why?", "So.", "bad")]


def test_good_against_bad_marks(run_step, jsonl) -> None:
    made = run_step("pairs", jsonl("log.jsonl", LOGS))
    assert list(made.rows()) == [{"prompt": "Where is the shop?", "chosen": "On the market.", "rejected": "No idea."}]
    assert dict(next(made.items()).tags)["comment"] == "rude"
    assert reasons(made) == {"spare": 1, "no_partner": 3, "same_pair": 1}
    entry = made.meta["history"][-1]
    assert (entry["rows_in"], entry["rows_out"], entry["dropped"]) == (7, 1, 5)


def test_a_good_answer_from_elsewhere(run_step, jsonl) -> None:
    other = jsonl("good.jsonl", [{"prompt": "Who?", "completion": "The mayor."}, {"prompt": "When?", "completion": "Never used."}])
    made = run_step("pairs", jsonl("log.jsonl", LOGS), good_answers=other)
    assert {r["prompt"]: r["chosen"] for r in made.rows()} == {"Where is the shop?": "On the market.", "Who?": "The mayor."}
    assert made.meta["history"][-1]["facts"]["with_answers_from_elsewhere"] == 1
    with pytest.raises(StudioError) as caught:
        run_step("pairs", jsonl("log.jsonl", LOGS), good_answers="nowhere.jsonl")
    assert caught.value.field == "good_answers"


def test_contexts_belong_to_the_question(run_step, jsonl) -> None:
    """The same words asked about other contexts are another question."""
    rows = [rated("When?", "At nine.", 1, contexts=["The shop opens at nine."]), rated("When?", "At ten.", 0, contexts=["The shop opens at nine."]),
            rated("When?", "At two.", 0, contexts=["The bank opens at one."])]
    (row,) = run_step("pairs", jsonl("log.jsonl", rows)).rows()
    assert row["rejected"] == "At ten." and "The shop opens at nine." in row["prompt"]


def test_several_pairs_of_one_question(run_step, jsonl) -> None:
    rows = [rated("q", f"good {i}", "good") for i in range(3)] + [rated("q", f"bad {i}", "bad") for i in range(4)]
    made = run_step("pairs", jsonl("log.jsonl", rows), per_prompt=2)
    pairs = [(r["chosen"], r["rejected"]) for r in made.rows()]
    assert pairs == [("good 0", "bad 0"), ("good 1", "bad 1")] and reasons(made) == {"spare": 3}


def test_no_pair_at_all_is_a_refusal(run_step, jsonl) -> None:
    with pytest.raises(StudioError, match="no answer to set against"):
        run_step("pairs", jsonl("log.jsonl", LOGS[3:5]))


def review(version: Version, *ops: dict) -> None:
    edits.of(version.ref.removeprefix("library:")).append("train", list(ops))


def test_rewritten_answers_against_those_before(run_step, jsonl) -> None:
    rows = [{"prompt": f"q{i}", "completion": f"old {i}"} for i in range(7)]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)])
    review(made, {"op": "rewrite", "pos": 0, "row": rows[0] | {"completion": "new 0"}}, {"op": "note", "pos": 0, "text": "too short"},
           {"op": "set", "pos": 1, "row": rows[1] | {"prompt": "another question"}}, {"op": "delete", "pos": 2},
           {"op": "keep", "pos": 3}, {"op": "better", "pos": 4}, {"op": "set", "pos": 5, "row": rows[5] | {"completion": "new 5"}})
    pairs = run_step("pairs", made.ref, pairs_from="review")
    assert list(pairs.rows()) == [{"prompt": "q0", "chosen": "new 0", "rejected": "old 0"}, {"prompt": "q5", "chosen": "new 5", "rejected": "old 5"}]
    assert dict(next(pairs.items()).tags) == {"comment": "too short"}
    assert reasons(pairs) == {"not_edited": 3, "question_edited": 1, "no_partner": 1}
    step = pairs.meta["history"][-1]["step"]
    assert step["log"] == made.ref and step["until"] == 1  # later edits change nothing in what the history says


def test_rows_marked_better_and_worse(run_step, jsonl) -> None:
    rows = [{"prompt": "q", "completion": "one"}, {"prompt": "q", "completion": "two"}, {"prompt": "other", "completion": "three"}]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)])
    review(made, {"op": "worse", "pos": 0}, {"op": "better", "pos": 1}, {"op": "worse", "pos": 2})
    pairs = run_step("pairs", made.ref, pairs_from="review")
    assert list(pairs.rows()) == [{"prompt": "q", "chosen": "two", "rejected": "one"}]


def test_pairs_in_review_are_confirmed_or_turned(run_step, jsonl) -> None:
    rows = [{"prompt": f"q{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(3)]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)])
    review(made, {"op": "better", "pos": 0}, {"op": "worse", "pos": 1})
    pairs = run_step("pairs", made.ref, pairs_from="review")
    assert list(pairs.rows()) == [rows[0], {"prompt": "q1", "chosen": "b1", "rejected": "a1"}]


def test_review_of_other_rows_is_refused(run_step, jsonl) -> None:
    one = run_step("import", sources=[jsonl("a.jsonl", [{"prompt": "q", "completion": "a"}])])
    two = run_step("import", sources=[jsonl("b.jsonl", [{"prompt": "q", "completion": "b"}])])
    with pytest.raises(StudioError, match="Nothing was edited"):
        run_step("pairs", one.ref, pairs_from="review")
    review(one, {"op": "better", "pos": 0})
    with pytest.raises(StudioError, match="other rows"):
        run_step("pairs", two.ref, pairs_from="review", log=one.ref)
    with pytest.raises(StudioError, match="of the library"):
        run_step("pairs", "a.jsonl", pairs_from="review")


def vote(prompt: str, a: str, b: str, winner: str) -> dict:
    return {"prompt": prompt, "answer_a": a, "answer_b": b, "winner": winner}


def test_votes_of_an_arena(run_step, jsonl) -> None:
    """Ties are left out; of two answers voted on more than once the majority counts, whichever side they stood on."""
    votes = [vote("q", "x", "y", "a"), vote("q", "y", "x", "b"), vote("q", "y", "x", "a"), vote("q", "x", "y", "tie"),
             vote("r", "x", "y", "b"), vote("s", "x", "y", "a"), vote("s", "x", "y", "b"), vote("t", "x", "y", "tie")]
    made = run_step("pairs", jsonl("votes.jsonl", votes), pairs_from="votes")
    assert list(made.rows()) == [{"prompt": "q", "chosen": "x", "rejected": "y"}, {"prompt": "r", "chosen": "y", "rejected": "x"}]
    assert reasons(made) == {"repeated": 2, "undecided": 2}
    assert made.meta["history"][0]["dropped"] == 2  # the ties, on the way in
    strict = run_step("pairs", jsonl("votes2.jsonl", [*votes, vote("q", "x", "y", "a")]), pairs_from="votes", least_votes=2)
    assert [r["prompt"] for r in strict.rows()] == ["q"]


def test_a_first_vote_that_lost_is_turned(run_step, jsonl) -> None:
    votes = [vote("q", "x", "y", "a"), vote("q", "x", "y", "b"), vote("q", "x", "y", "b")]
    made = run_step("pairs", jsonl("votes.jsonl", votes), pairs_from="votes")
    assert list(made.rows()) == [{"prompt": "q", "chosen": "y", "rejected": "x"}] and reasons(made)["reversed"] == 1


def test_rows_that_are_no_votes_are_refused(run_step, jsonl) -> None:
    with pytest.raises(StudioError, match="no votes"):
        run_step("pairs", jsonl("a.jsonl", [{"prompt": "q", "completion": "a"}]), pairs_from="votes")
