"""Prompt distillation: made with the prompt, saved without it, and the check whether it is followed unasked."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from studio import settings
from studio.datasets import llm_http, report, rules
from studio.datasets.version import Version
from studio.errors import StudioError
from tests.llm_stand_in import Asked, Reply, StandIn

PROMPT = "You are the assistant of a flower shop.\n" * 40 + "Begin every answer with 'Of course!' and end it with a question."
RULES = ["starts with: Of course!", "ends with: ?", "at most: 12 words"]
ROWS = [{"prompt": f"Question {i}?", "completion": f"old {i}"} for i in range(10)]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_http, "BACKOFF", 0.01)


@pytest.mark.parametrize(("line", "good", "bad"), [
    ("starts with: Of course!", "of course! Yes.", "Yes, of course!"), ("ends with: ?", "Is it?", "It is."), ("contains: our shop", "At Our Shop.", "At a shop."),
    ("never: as an AI", "No.", "As an AI I cannot."), ("at most: 3 words", "one two three", "one two three four"), ("at least: 2 sentences", "One. Two!", "One."),
    ("at most: 5 characters", "12345", "123456"), ("at most: 1 line", "one", "one\ntwo"), (r"pattern: ^\d+\.", "1. one", "one"), ("no pattern: https?://", "no link", "see http://x"),
    ("json", '{"a": 1}', "a: 1"), ("JSON", "```json\n[1]\n```", "```json\n[1\n```"), ("AT MOST: 2 Words", "a b", "a b c"),
    ("language: de", "Das ist ein schöner Tag und die Sonne scheint über dem Land.", "This is a lovely day and the sun shines over the land."),
    ("starts with: Hm", "<think>no</think>Hm yes", "<think>Hm</think>yes")])
def test_rules_that_are_counted(line: str, good: str, bad: str) -> None:
    one = rules.rule(line)
    assert not one.judged and one.holds("q", good, None) and not one.holds("q", bad, None)


def test_rules_that_are_judged() -> None:
    one = rules.rule("Speak of the company as we: always.")
    asked: list = []

    def ask(messages: list) -> str:
        asked.append(messages)
        return "Verdict: no"

    assert one.judged and not one.holds("Who?", "They.", ask) and "Speak of the company as we" in asked[0][1]["content"]
    assert rules.kept([one, rules.rule("json")], "Who?", "They.", lambda n: lambda m: "cheese")["json"] is False
    assert "cheese" in rules.kept([one], "Who?", "They.", lambda n: lambda m: "cheese")[one.text]


@pytest.mark.parametrize("line", ["pattern: (", "at most: many words", "at least: 3 apples"])
def test_bad_rules_are_refused(line: str) -> None:
    with pytest.raises(StudioError) as caught:
        rules.parse(["json", "", line])
    assert caught.value.field == "rules"


def florist(asked: Asked) -> str:
    """Keeps the rules only under the prompt; every third question only at the second try; question 9 never."""
    if "flower shop" not in asked.messages[0]["content"]:
        return f"{asked.words(4)}."
    number = int("".join(filter(str.isdigit, asked.last)))
    if number == 9 or (number % 3 == 0 and asked.seed % 2):
        return f"{asked.words(5)}."
    return f"Of course! {asked.words(4)}. Anything else?"


def test_answers_are_saved_without_the_prompt(run_step, jsonl) -> None:
    with StandIn(florist) as server:
        made = run_step("distill_prompt", jsonl("q.jsonl", ROWS), generator=server.address, system_prompt=PROMPT, rules=RULES, tries=4)
    assert all(r.messages[0]["content"] == PROMPT.strip() for r in server.requests)
    rows = list(made.rows())
    assert all(set(row) == {"prompt", "completion"} and row["completion"].startswith("Of course!") for row in rows)
    assert "flower" not in json.dumps(rows) and {r["prompt"] for r in rows} <= {f"Question {i}?" for i in range(9)} and len(rows) >= 7
    entry = made.meta["history"][-1]
    assert {r["code"]: r["count"] for r in entry["reasons"]}["breaks_rule"] == entry["facts"]["broken"]["starts with: Of course!"] >= 4
    assert entry["facts"]["system_prompt"].startswith("You are the assistant of a flower shop")


def test_every_split_is_distilled(home, run_step, jsonl) -> None:
    ref = run_step("split", jsonl("q.jsonl", ROWS), validation=0.3).ref
    with StandIn(lambda asked: "Of course! Yes?") as server:
        made = run_step("distill_prompt", ref, generator=server.address, system_prompt=PROMPT, rules=RULES)
        pairs = run_step("verified", ref, generator=server.address, check="contains", own_answer=True, output="pairs", n=1)
    assert {row["completion"] for split in made.splits for row in made.rows(split)} == {"Of course! Yes?"}
    assert made.count("validation") == 3 and made.count() == 7
    assert pairs.splits == ["train"] and pairs.meta["format"] == "preference" and pairs.count() == 7


def test_chats_lose_their_own_system_prompt_or_keep_it(run_step, jsonl) -> None:
    chat = {"messages": [{"role": "system", "content": "Be old."}, {"role": "user", "content": "Question 1?"}, {"role": "assistant", "content": "x"}]}
    with StandIn(florist) as server:
        values = {"generator": server.address, "system_prompt": PROMPT, "rules": RULES}
        bare, kept = (run_step("distill_prompt", jsonl("c.jsonl", [chat]), keep_system=keep, **values) for keep in (False, True))
    assert [m["role"] for m in next(bare.rows())["messages"]] == ["user", "assistant"]
    assert next(kept.rows())["messages"][0] == chat["messages"][0]
    assert all([m["role"] for m in r.messages] == ["system", "user"] for r in server.requests)


@pytest.fixture
def check(run_step):
    """Runs the check; (the version with the answers, the report)."""
    def go(ref: str, **values: object) -> tuple[Version, dict]:
        made = run_step("prompt_check", ref, **values)
        (path,) = settings.home().glob("reports/*/prompt_check.json")
        return made, report.read(path.parent.name, "prompt_check")

    return go


def test_the_check_tells_a_model_that_follows_unasked_from_one_that_does_not(check, jsonl) -> None:
    def tuned(asked: Asked) -> str:
        number = int("".join(filter(str.isdigit, asked.last)))
        return f"Of course! {asked.words(3)}{'?' if number % 5 else '.'}"

    with StandIn(tuned) as after, StandIn(florist) as before:
        made, found = check(jsonl("q.jsonl", ROWS), generator=after.address, compare=before.address, system_prompt=PROMPT, rules=[*RULES, "Is kind."],
                      judge=StandInJudge.address())
    by = {r["rule"]: r for r in found["rules"]}
    assert by["starts with: Of course!"]["unasked"] == {"kept": 10, "of": 10, "undecided": 0}
    assert by["starts with: Of course!"]["before"] == {"kept": 0, "of": 10, "undecided": 0}
    assert by["ends with: ?"]["unasked"]["kept"] == 8 and by["ends with: ?"]["asked"]["kept"] == 8
    assert by["Is kind."]["judged"] and by["Is kind."]["unasked"] == {"kept": 10, "of": 10, "undecided": 0}
    assert found["all"]["unasked"] == {"kept": 8, "of": 10, "undecided": 0} and found["all"]["before"]["kept"] == 0
    assert len(found["examples"]) == 10 and found["questions"] == 10 and made.meta["history"][-1]["facts"]["all"] == found["all"]
    rows = [(dict(item.tags), item) for item in made.items()]
    assert Counter((tags["asked"], tags["rules"]) for tags, _ in rows) == {
        ("without the prompt", "kept"): 8, ("without the prompt", "broken"): 2, ("with the prompt", "kept"): 8, ("with the prompt", "broken"): 2,
        ("the model before, without the prompt", "broken"): 10}
    assert all((item.score == 1) == (tags["rules"] == "kept") for tags, item in rows) and "flower" not in str([i.text for _, i in rows])
    assert found["examples"][0]["unasked"]["answer"].startswith("Of course!")
    systems = Counter(r.messages[0]["role"] for r in after.requests)
    assert systems == {"user": 10, "system": 10} and all(r.messages[0]["role"] == "user" for r in before.requests)
    StandInJudge.stop()


class StandInJudge:
    """A judge that finds everything kind."""

    server: StandIn | None = None

    @classmethod
    def address(cls) -> str:
        cls.server = StandIn(lambda asked: "Sure.\nVerdict: yes")
        cls.server.start()
        return cls.server.address

    @classmethod
    def stop(cls) -> None:
        cls.server.die()


def test_the_check_reads_the_held_out_split_and_a_judge_of_nonsense_decides_nothing(home, check) -> None:
    from studio.datasets.version import Writer
    from studio.library import artifacts

    with Writer(home / "datasets" / "d") as out:
        out.add({"prompt": "Question 1?", "completion": "x"})
        out.split = "validation"
        out.add({"prompt": "Question 2?", "completion": "x"})
        made = out.close({"method": "x"})
    ref = artifacts.add("dataset", "d", made.path, meta={"version": True, "hash": made.hash})["ref"]
    with StandIn(lambda asked: "Cheese.") as server:
        answers, found = check(ref, generator=server.address, system_prompt="x", rules=["Be kind."])
    assert found["split"] == "validation" and {r.messages[-1]["content"] for r in server.requests[:1]} == {"Question 2?"}
    assert found["rules"][0]["unasked"] == {"kept": 0, "of": 0, "undecided": 1}
    assert answers.splits == ["train"] and {dict(i.tags)["rules"] for i in answers.items()} == {"undecided"}


def test_a_question_that_cannot_be_asked_is_counted(check, jsonl) -> None:
    with StandIn(lambda asked: Reply(status=400, raw=b"{}") if "3" in asked.last else "Of course! Yes?") as server:
        _, found = check(jsonl("q.jsonl", ROWS), generator=server.address, system_prompt="x", rules=RULES)
    assert (found["questions"], found["failed"]) == (9, 1)


@pytest.mark.parametrize(("fields", "word"), [({"system_prompt": " "}, "system_prompt"), ({"rules": []}, "rules"), ({"rules": ["pattern: ("]}, "rules"),
                                              ({"judge": "library:none"}, "judge"), ({"compare": "library:none"}, "compare")])
def test_bad_recipes_are_refused_at_their_field(check, jsonl, fields, word) -> None:
    with pytest.raises(StudioError) as caught:
        check(jsonl("q.jsonl", ROWS), **({"system_prompt": "x", "rules": RULES} | fields))
    assert caught.value.field == word
