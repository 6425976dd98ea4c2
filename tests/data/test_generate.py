"""The generation steps against a server that answers in their form, and one that does all they must not believe."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from studio import registry
from studio.datasets import llm_http
from studio.datasets.generate_text import (Rouge, Seen, listed, plain, rating, refuses, repeats, rouge_l, sections,
                                           support, unquoted, verdict)
from studio.datasets.steps.chain_of_thought import same
from studio.datasets.steps.documents import split
from studio.errors import StudioError
from studio.recipe import parse
from tests.llm_stand_in import Asked, Reply, StandIn

MAKE = ["idea", "generate_from_documents", "self_instruct", "evolve", "personas", "chain_of_thought",
        "branch_solve_merge", "backtranslate"]


def brain(asked: Asked) -> str | Reply:
    """Answers every template of the steps in the form that it asks for."""
    text, said = asked.last, asked.words()
    if "Write the system prompt of that assistant" in text:
        return brain.system
    if re.search(r"^(List|Name) (\d+|the faults)|List \d+ topics|Name \d+ other people", text, re.MULTILINE):
        return "\n".join(f"{n}. A {' '.join(asked.words(40).split()[n * 4:n * 4 + 4])} person" for n in range(1, 8))
    if "more tasks of the same manner" in text:
        found = asked.words(50).split()
        return "\n".join(f"{n + 9}. Explain {' '.join(found[n * 10:n * 10 + 9])}." for n in range(5))
    if "Write one question" in text:
        topic = re.search(r"<text>\s*(.*?)\s*</text>", text, re.DOTALL)[1].split()
        return f"Question: What about {' '.join(topic[:2])} and {asked.words(3)}?"
    if "Reply yes or no" in text:
        return "No, they differ." if "Do both ask" in text else "Yes. It says so."
    if "Score: <number>" in text:
        return "It fits.\nScore: 5"
    if "REWRITTEN TASK" in text:
        return f"Step 1: ...\nREWRITTEN TASK: Explain {said}."
    if "into two to" in text:
        return "1. The first matter of it\n2. The second matter of it"
    system = asked.messages[0]["content"] if asked.messages[0]["role"] == "system" else ""
    if "Work the task below out" in system:
        sums = [int(n) for n in re.findall(r"\d+", text)]
        return f"First I take {sums[0]} and then I add {sums[1]}.\n\nAnswer: {sum(sums)}"
    if "from the text that you are given" in system:
        return text.partition("\n\n")[0]
    return f"{said.capitalize()}."


brain.system = "You help hikers with knots. Answer in short numbered steps."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(llm_http, "BACKOFF", 0.01)
    with StandIn(brain) as one:
        yield one


@pytest.fixture
def seeds(jsonl) -> str:
    return jsonl("seeds.jsonl", [{"instruction": f"{verb} {noun}.", "output": "Done."} for verb, noun in [
        ("Describe how", "a kettle boils"), ("Translate into French:", "the red door"),
        ("List three uses of", "an old newspaper"),
        ("Who wrote", "the book about the white whale"), ("Sort these numbers:", "4, 9, 1")]])


@pytest.fixture
def texts(jsonl) -> str:
    things = [("tower", "Brink", "mill", "spring", "bells"), ("bridge", "Holm", "quay", "summer", "boats"),
              ("library", "Vale", "school", "winter", "maps"), ("garden", "Rook", "wall", "autumn", "roses")]
    return jsonl("texts.jsonl", [
        {"text": f"The {what} of {where} stands near the old {other}. It was built in {1900 + n} by forty workers. "
                 f"People visit it in {season} to see the {sight}."}
        for n, (what, where, other, season, sight) in enumerate(things)])


def rows_and_reasons(version) -> tuple[list, Counter]:
    entry = version.meta["history"][-1]
    assert entry["rows_out"] == version.count()
    changed = ("merged", "reasoned")
    assert entry["dropped"] == sum(r["count"] for r in entry["reasons"] if r["code"] not in changed)
    return list(version.rows()), Counter({r["code"]: r["count"] for r in entry["reasons"]})


def facts(version) -> dict:
    return version.meta["history"][-1]["facts"]


def test_from_an_idea(run_step, server):
    made = run_step("idea", generator=server.address, task="Answers hikers about knots.", count=12, price_in=1,
                    price_out=2)
    rows, reasons = rows_and_reasons(made)
    assert len(rows) == 12 and not reasons and len({row["messages"][1]["content"] for row in rows}) == 12
    assert all([m["role"] for m in row["messages"]] == ["system", "user", "assistant"] for row in rows)
    assert rows[0]["messages"][0]["content"] == facts(made)["system_prompt"] == brain.system
    usage = facts(made)["usage"]
    assert usage["requests"] == 2 + 24 == len(server.requests) and usage["cost"] > 0
    assert usage["cost"] == pytest.approx((usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 1e6, abs=1e-6)
    topics = facts(made)["topics"]
    assert len(topics) == 7 and {dict(item.tags)["topic"] for item in made.items()} <= set(topics)
    asked = [a.last for a in server.requests if "Write one message" in a.last]
    assert "Topic: " in asked[0] and any("These exist already" in text for text in asked)
    assert len({text.split("It is: ")[1].split("\n")[0] for text in asked}) > 3, "rows are asked for in different ways"


def test_ten_to_look_at_then_the_full_run_goes_on_from_them(run_step, server):
    ten = run_step("idea", generator=server.address, task="Answers hikers about knots.", count=10)
    before = len(server.requests)
    full = run_step("idea", generator=server.address, task="Answers hikers about knots.", count=30,
                    continue_from=ten.ref)
    rows = [item.id for item in full.items()]
    assert rows[:10] == [item.id for item in ten.items()] and len(set(rows)) == len(rows) == 30
    assert all(facts(full)[name] == facts(ten)[name] for name in ("system_prompt", "topics"))
    assert len(server.requests) - before == 40, "only the missing rows are asked for"
    with pytest.raises(StudioError, match="10 rows already"):
        run_step("idea", generator=server.address, task="x", count=10, continue_from=ten.ref)
    ours = run_step("idea", generator=server.address, task="x", system_prompt="Be brief.", topics=["ropes"], count=3,
                    turns=2, keep_system=False)
    assert all([m["role"] for m in row["messages"]] == ["user", "assistant"] * 2 for row in ours.rows())
    assert facts(ours)["system_prompt"] == "Be brief." and facts(ours)["usage"]["requests"] == 12


def test_from_documents(run_step, server, texts):
    made = run_step("generate_from_documents", texts, generator=server.address, per_part=2, part_size=12,
                    judge=server.address)
    rows, _ = rows_and_reasons(made)
    assert rows and facts(made)["documents"] == 4 and facts(made)["parts"] == 12
    for row in rows:
        assert row["label"] is True and len(row["contexts"]) == 1 and row["completion"] == row["contexts"][0]
        assert not row["prompt"].startswith("Question")
    assert facts(made)["usage"]["requests"] + facts(made).get("judge", {}).get("requests", 0) == len(server.requests)
    plain_rows = run_step("generate_from_documents", texts, generator=server.address, questions=["When was it built?"],
                          answer="without_text")
    assert [row["messages"][0]["content"] for row in plain_rows.rows()] == ["When was it built?"] * 4
    assert run_step("generate_from_documents", texts, generator=server.address, count=2, part_size=12).count() <= 4


@pytest.mark.parametrize(("answer", "reason"), [
    ("It was built in 1899 by forty workers.", "not_grounded"), ("Emperor Hadrian had it built.", "not_grounded"),
    ("Bananas ripen quickly beside apples overnight.", "not_grounded"), ("NOT IN THE TEXT", "unanswerable"),
    ("I do not know who built it.", "unanswerable"), ("I'm sorry, but I cannot answer that.", "refusal"),
    ("", "empty"), (Reply("It was built by", finish="length"), "cut"), ("It was built. " * 20, "runs_in_circles"),
    (Reply("x", finish="content_filter"), "refusal"), (Reply(status=400), "failed")])
def test_bad_answers_are_kept_aside_with_their_reason(run_step, texts, answer, reason):
    def reply(asked: Asked) -> str | Reply:
        if "library" in asked.last or "Write one question" in asked.last:
            return brain(asked)
        return answer

    with StandIn(reply) as server:
        made = run_step("generate_from_documents", texts, generator=server.address, questions=["Who built it?"])
    _, reasons = rows_and_reasons(made)
    assert reasons == {reason: 3} and made.count() == 1
    dropped = [row for batch in made.batches("dropped") for row in batch.to_pylist()]
    assert {row["reason"] for row in dropped} == {reason} and all(row["detail"] or row["row"] for row in dropped)
    assert reason in registry.method("data", "generate_from_documents").texts


def test_a_judge_that_talks_nonsense_supports_nothing(run_step, texts):
    with StandIn(lambda asked: "Perhaps 42!" if "Reply yes or no" in asked.last else brain(asked)) as server:
        with pytest.raises(StudioError, match="No row is left.*unsupported"):
            run_step("generate_from_documents", texts, generator=server.address, judge=server.address)


def test_self_instruct(run_step, server, seeds):
    made = run_step("self_instruct", seeds, generator=server.address, count=60)
    rows, reasons = rows_and_reasons(made)
    asked = [row["messages"][0]["content"] for row in rows]
    assert len(rows) == 65 and asked[0] == "Describe how a kettle boils."
    assert set(reasons) <= {"too_similar", "near_duplicate"}
    for number, text in enumerate(asked):
        assert Rouge(asked[:number]).highest(text) < 0.7
    shown = [a.last for a in server.requests if "more tasks" in a.last]
    assert shown[0].count("\n5. ") and "Explain" in shown[-1].partition("Write 5 more")[0], "made ones are shown too"
    assert len(shown) <= 18 and run_step("self_instruct", seeds, generator=server.address, count=3,
                                         keep_seeds=False).count() == 3


def test_self_instruct_leaves_out_what_the_paper_leaves_out(run_step, seeds):
    lists = iter(["9. Draw a picture of a cat on a mat.\n10. Describe how a kettle boils\n11. Go\n12. Name a river in "
                  "Peru and its length.",
                  "1. " + "word " * 200 + "\n2. Compare tea with coffee for a tired nurse.", "*", "1. Plan a picnic "
                  "for ten children."])

    def reply(asked: Asked) -> str:
        return next(lists, "") if "more tasks" in asked.last else "Fine."

    with StandIn(reply) as server:
        made = run_step("self_instruct", seeds, generator=server.address, count=3, concurrency=1)
    rows, reasons = rows_and_reasons(made)
    assert [row["messages"][0]["content"] for row in rows[5:]] == [
        "Name a river in Peru and its length.", "Compare tea with coffee for a tired nurse.", "Plan a picnic for ten "
        "children."]
    assert reasons == {"no_text_task": 1, "too_similar": 1, "too_short": 1, "too_long": 1, "not_in_form": 1}


def test_evolve(run_step, server, seeds):
    made = run_step("evolve", seeds, generator=server.address, rounds=2)
    rows, reasons = rows_and_reasons(made)
    assert len(rows) == 5 + 10 and not reasons
    tags = [dict(item.tags) for item in made.items() if item.tags]
    assert Counter(tag["round"] for tag in tags) == {"1": 5, "2": 5} and len({tag["operation"] for tag in tags}) >= 3
    first = rows[5]["messages"][0]["content"]
    assert any(first in a.last and "Here is a task" in a.last or first in a.last and "harder version" in a.last
               for a in server.requests), \
        "the second round starts from what the first made"


@pytest.mark.parametrize(("evolved", "answer", "same", "reason"), [
    ("Describe how a kettle boils, rewritten prompt", "Fine steam.", "No", "copies"),
    ("Sort it and name a {}.", "Fine steam.", "Yes", "no_gain"), ("{same}", "Fine steam.", "No", "no_gain"),
    ("Sort it and name a {}.", "Oh, sorry, no idea.", "No", "refusal"),
    ("Sort it and name a {}.", "the ... of, and.", "No", "no_answer")])
def test_evolve_eliminates_as_the_paper_does(run_step, seeds, evolved, answer, same, reason):
    def reply(asked: Asked) -> str:
        if "Do both ask" in asked.last:
            return same
        if "<task>" in asked.last:
            task = re.search(r"<task>\n(.*)\n</task>", asked.last)[1]
            return evolved.format(asked.words(9), same=task)
        return answer

    with StandIn(reply) as server:
        made = run_step("evolve", seeds, generator=server.address, rounds=2)
    rows, reasons = rows_and_reasons(made)
    assert len(rows) == 5 and reasons == {reason: 10}


def test_auto_evol_takes_the_way_that_fails_least(run_step, seeds):
    ways = iter(["Way A: bad.", "Way B: good.", "Way C: bad."])

    def reply(asked: Asked) -> str:
        if "Write a better way" in asked.last:
            return next(ways, "Way D: bad.")
        if "REWRITTEN TASK" in asked.last:
            good = "Way B" in asked.last
            return f"Step 1\n**REWRITTEN TASK:** {'Explain' if good else 'Unclear'} {asked.words(9)}."
        if asked.last.startswith("Unclear"):
            return "Could you provide more details?"
        return brain(asked)

    with StandIn(reply) as server:
        made = run_step("evolve", seeds, generator=server.address, auto=True, rounds=1, concurrency=1)
    found = facts(made)
    assert found["method_prompt"] == "Way B: good." and [h["failed"] for h in found["improvements"]] == [1, 1, 0, 1]
    assert found["operations"] == {"auto": 5} and made.count() == 10
    with StandIn(reply) as server:
        run_step("evolve", seeds, generator=server.address, auto=True, rounds=1, method_prompt="Way B: mine.")
        assert not any("better way" in a.last for a in server.requests)


@pytest.mark.parametrize("write", ["message", "problem", "text"])
def test_personas(run_step, server, texts, write):
    made = run_step("personas", generator=server.address, count=8, write=write, most_personas=6, expand=1,
                    task="repairing bicycles")
    rows, _ = rows_and_reasons(made)
    assert len(rows) == 8 and made.meta["format"] == ("text" if write == "text" else "messages")
    people = {dict(item.tags)["persona"] for item in made.items()}
    assert len(people) == 6 == facts(made)["personas"]
    if write == "message":
        from_texts = run_step("personas", texts, generator=server.address, count=4)
        assert from_texts.count() == 4 and facts(from_texts)["personas"] == 4
        known = ["A sailor who cannot swim.", "A baker."]
        own = run_step("personas", generator=server.address, count=4, personas=known)
        assert {dict(item.tags)["persona"] for item in own.items()} == set(known)


def test_chain_of_thought_checks_the_answer(run_step, server, jsonl):
    ref = jsonl("sums.jsonl", [{"question": f"What is {a} plus {b}?", "answer": f"They think.\n#### "
                                f"{a + b + (a == 3)}"}
                               for a, b in [(1, 2), (3, 4), (5, 6)]])
    made = run_step("chain_of_thought", ref, generator=server.address)
    rows, reasons = rows_and_reasons(made)
    assert reasons == {"reasoned": 2, "wrong_answer": 1} and len(rows) == 2
    last = rows[0]["messages"][-1]
    assert last["reasoning_content"] == "First I take 1 and then I add 2." and last["content"].endswith("#### 3")
    assert [item.id for item in made.items()] and facts(made)["attempts"] == {"first": 2, "later": 0, "told": 0}
    inside = run_step("chain_of_thought", ref, generator=server.address, check_answer="none", place="answer")
    assert inside.count() == 3
    assert next(inside.rows())["messages"][-1]["content"] == "First I take 1 and then I add 2.\n\nAnswer: 3"


def test_chain_of_thought_tells_the_answer_at_last(run_step, jsonl):
    def reply(asked: Asked) -> str:
        told = re.search(r"final answer is: (.*)", asked.messages[0]["content"])
        return f"I add up with care.\nAnswer: {told[1] if told else 'nobody knows'}"

    with StandIn(reply) as server:
        made = run_step("chain_of_thought", jsonl("s.jsonl", [{"prompt": "2 + 2?", "completion": "4"}]),
                        generator=server.address, tries=2, rationalise=True)
        assert facts(made)["attempts"] == {"first": 0, "later": 0, "told": 1} and len(server.requests) == 3


def test_branch_solve_merge(run_step, server, seeds):
    made = run_step("branch_solve_merge", seeds, generator=server.address, keep_thoughts=True)
    rows, reasons = rows_and_reasons(made)
    assert reasons == {"merged": 5} and facts(made)["aspects"] == {"2": 5} and facts(made)["usage"]["requests"] == 20
    merges = [a.last for a in server.requests if "Join them" in a.last]
    assert all("1. The first matter of it\n" in merge for merge in merges)
    assert sum(rows[0]["messages"][-1]["reasoning_content"] in merge for merge in merges) == 1
    with StandIn(lambda asked: "It cannot be parted." if "into two to" in asked.last else brain(asked)) as stubborn:
        with pytest.raises(StudioError, match="5 were not parted"):
            run_step("branch_solve_merge", seeds, generator=stubborn.address)


def test_backtranslate(run_step, texts):
    def reply(asked: Asked) -> str:
        if "Score:" in asked.last:
            scores = {"tower": "Good.\nScore: 5", "bridge": "**Score:** 5", "library": "Hm.\nScore: 2"}
            return next((said for word, said in scores.items() if word in asked.last), "Hm.")
        return f'Instruction: "Tell me of the {asked.last.split("<text>")[1].split()[1]}."'

    with StandIn(reply) as server:
        made = run_step("backtranslate", texts, generator=server.address)
    rows, reasons = rows_and_reasons(made)
    assert reasons == {"low_score": 1, "no_score": 1} and [row["messages"][0]["content"] for row in rows] == [
        "Tell me of the tower.", "Tell me of the bridge."]
    assert rows[0]["messages"][1]["content"].startswith("The tower of Brink") 
    assert [item.score for item in made.items()] == [5, 5]
    assert facts(made)["scores"] == {"2": 1, "5": 2}


def test_other_splits_are_treated_as_the_rows_are(run_step, server, texts, jsonl):
    """Reasoning is added to validation rows too; the texts of a validation split are no questions and answers."""
    sums = jsonl("sums.jsonl", [{"prompt": f"What is {n} plus 2?", "completion": str(n + 2)} for n in range(20)])
    parted = run_step("split", sums, validation=0.2)
    made = run_step("chain_of_thought", parted.ref, generator=server.address)
    assert made.meta["rows"] == parted.meta["rows"] and len(parted.meta["rows"]) == 2
    assert all("reasoning_content" in row["messages"][-1] for split in made.splits for row in made.rows(split))
    parts = run_step("split", texts, validation=0.25)
    assert run_step("generate_from_documents", parts.ref, generator=server.address).splits == ["train"]


@pytest.mark.parametrize("method", MAKE)
def test_whatever_a_server_says_a_step_ends_well(run_step, seeds, texts, method, monkeypatch):
    """Nonsense of every kind: the step ends with rows, or with a plain word why there are none."""
    monkeypatch.setattr(llm_http, "BACKOFF", 0.0)
    kinds = ["", "yes", "###", "1.", "{}", '["a", "b"]', "Sorry, I cannot.", "the the the the the the the the",
             "\x00\ud83d", "9" * 400, None]

    def reply(asked: Asked) -> str | Reply:
        kind = kinds[asked.number % len(kinds)]
        if kind is None:
            return [Reply(status=400), Reply(finish="length"), Reply("hm", finish="odd"),
                    Reply("1. one\n2. two\n3.", finish="length")][asked.seed % 4]
        return kind.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if "\ud83d" in kind else kind

    dataset = "" if method in ("idea", "personas") else texts if "docu" in method or "back" in method else seeds
    task = {"task": "Anything."} if method == "idea" else {}
    with StandIn(reply) as server:
        try:
            made = run_step(method, dataset, generator=server.address, **task)
        except StudioError as err:
            assert err.message and "Traceback" not in err.message
        else:
            assert made.count() == made.meta["history"][-1]["rows_out"]


def test_a_model_with_nothing_new_to_say_ends_the_run(run_step, monkeypatch):
    with StandIn(lambda asked: "The same every time, again and again?" if "Write one message" in asked.last
                 else "Fine.") as server:
        made = run_step("idea", generator=server.address, task="x", system_prompt="x", topics=["y"], count=500)
        assert made.count() == 1 and len(server.requests) < 260
    reasons = rows_and_reasons(made)[1]
    assert set(reasons) == {"duplicate"}
    from studio import settings
    from studio.jobs import events

    found = events.read(settings.run_dir(made.run_id) / "events.jsonl", 0)[0]
    assert [e["code"] for e in found if e["e"] == "warning"] == ["too_few_rows"]


@pytest.mark.parametrize(("values", "field"), [
    ({"method": "idea"}, "task"), ({"method": "evolve", "dataset": "shipped:polite", "operations": []}, "operations"),
    ({"method": "evolve", "dataset": "shipped:polite", "operations": ["x"]}, "operations"),
    ({"method": "self_instruct"}, "dataset"), ({"method": "backtranslate", "dataset": "nowhere.jsonl"}, "dataset"),
    ({"method": "generate_from_documents", "dataset": "shipped:moon-stories", "judge": "nobody"}, "judge"),
    ({"method": "generate_from_documents", "dataset": "shipped:moon-stories", "overlap": 300}, "overlap"),
    ({"method": "idea", "task": "x", "generator": "http://a:b@c/v1"}, "generator"),
    ({"method": "idea", "task": "x", "continue_from": "shipped:polite"}, "continue_from")])
def test_what_cannot_work_is_refused_at_its_field(home, values, field):
    with pytest.raises(StudioError) as err:
        recipe = parse({"kind": "data"} | values)
        registry.method("data", recipe.method).check(recipe)
    assert err.value.field == field


def test_how_often_a_model_will_be_asked_is_said_before(home):
    def notes(method, **values):
        recipe = parse({"kind": "data", "method": method, **values})
        return registry.method("data", method).estimate(recipe).notes

    assert notes("idea", task="x", count=50, generator="http://h/v1") == ["About 100 requests, if nothing is dropped."]
    assert "too small" in notes("idea", task="x", count=50)[1]
    evolve = notes("evolve", dataset="shipped:polite", generator="http://h/v1", check_gain=False, rounds=2)
    assert evolve == ["About 800 requests, if nothing is dropped."]


# ---- reading and comparing texts


def test_sections_in_every_dress():
    wanted = {"QUESTION": "Why?", "ANSWER": "Because\nso."}
    for text in ("QUESTION: Why?\nANSWER: Because\nso.", "**Question:** Why?\n\n**Answer:** Because\nso.",
                 "### Question\nWhy?\n### Answer\nBecause\nso.", "<question>Why?</question> "
                 "<answer>\nBecause\nso.</answer>",
                 'Sure!\n```json\n{"question": "Why?", "answer": "Because\\nso."}\n```'):
        assert sections(text, "QUESTION", "ANSWER") == wanted, text
    assert sections("QUESTION: Why?", "QUESTION", "ANSWER") is None and sections("", "A") is None


def test_lists_in_every_dress():
    for text in ("1. one\n2) two\n3: three", "- one\n* two\n• three", '["one", "two", "three"]', "Here they are:\n1. "
                 "one\n2. two\n3. three",
                 "one\ntwo\nthree", '1. "one"\n2. **two**\n3. three', '```json\n["one", "two", "three"]\n```'):
        assert listed(text) == ["one", "two", "three"], text
    assert listed("") == [] and listed("***") == []


def test_words_of_refusal():
    for text in ("I'm sorry, but I can't help with that.", "As an AI language model, I do not", "I cannot assist",
                 "Sorry, but I won't", "I am unable to", "I apologize, but"):
        assert refuses(text), text
    for text in ("I cannot wait to tell you!", "Sorry is a short word.", "Cannot is one word.", "You are right, I "
                 "think.", "I'm glad you ask."):
        assert not refuses(text), text


def test_verdicts_and_ratings():
    said = ("Yes.", "**No**, it does not, yes?", "I think yes", "perhaps", "")
    assert [verdict(text) for text in said] == [True, False, True, None, None]
    assert [rating(t) for t in ("Score: 4", "4", "I give 3/5", "Score: 9", "none", "**Score:** 5",
                                "Rating (1-5): 2")] == [4, 4, 3, None, None, 5, 2]
    assert unquoted('**Question:** "Why?"') == "Why?" and unquoted('"a" and "b"') == '"a" and "b"'


def test_support_finds_what_is_not_there():
    text = "The tower of Brink was built in 1903 by forty workers who lived nearby."
    assert support("Forty workers built it in 1903.", text) == (1.0, [])
    assert support("The workers are living nearby.", text)[0] == 1.0
    assert support("It was built in 1904.", text)[1] == ["1904"]
    assert support("It stands in Paris.", text)[1] == ["Paris"]
    assert support("Bananas are yellow fruit.", text)[0] == 0
    assert support("Cora has the kite.", "Amy has a drum.", "Who has Cora's kite?") == (0.0, ["Cora"])
    assert support("Sandport is home to Amy.", "Amy lives in Hilltop.", "Who lives in Sandport?")[1] == ["Sandport"]


def test_support_on_the_shipped_ratings():
    """Of the answers that people marked good none is flagged; of those made up all are. What is put together wrongly
    from words of the contexts is not seen: that needs a judge."""
    import json

    from studio import settings

    seen: Counter = Counter()
    for line in (settings.DATASETS / "rated-answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        contexts = "\n".join(row["contexts"])
        share, strange = support(row["answer"], contexts, row["question"])
        if "I do not know" in row["answer"]:
            continue
        value = row["answer"].rstrip(".").split()[-1]
        wrong = "made up" if row["comment"].startswith("Wrong") else ""
        kind = "good" if row["rating"] == "good" else "mixed" if value in contexts else wrong
        seen[kind, share < 0.6 or bool(strange)] += 1
    assert seen["good", False] == 69 and not seen["good", True]
    assert seen["made up", True] == 8 and not seen["made up", False] and seen["mixed", False] == 13


def test_rouge_l_is_that_of_the_definition():
    def slow(a, b):
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        return 2 * table[-1][-1] / (len(a) + len(b))

    import random

    rng = random.Random(1)
    for _ in range(300):
        a, b = (["abcdefg"[rng.randrange(7)] for _ in range(rng.randint(1, 30))] for _ in range(2))
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(slow(a, b))
    pool = Rouge([" ".join(rng.choices("abcdefghijklmnop", k=12)) for _ in range(500)])
    text = "a b c d e f g h i j k l"
    assert pool.highest(text) == pytest.approx(max(slow(text.split(), kept) for kept, _ in pool._kept))


def test_seen_finds_exact_and_near():
    seen = Seen(0.85)
    long = "Explain how the old water mill near the river grinds corn into flour for the bakers of the village"
    assert not seen.find(long) and seen.find(long.upper() + "!") == "exact" and seen.find(long + " today") == "near"
    assert not seen.find("Explain how the new wind mill on the hill makes power for the whole town")
    assert not seen.find("Why?")
    assert seen.find("why") == "exact" and not seen.find("Why not?") and not Seen(0).find("a b c d e f")


def test_texts_that_run_in_circles():
    assert repeats("so it goes so it goes so it goes so it goes so it goes so it goes") and repeats("no " * 9)
    assert not repeats("Row, row, row your boat, gently down the stream.") and not repeats("")


def test_same_answers():
    for said, wanted in [("7", "3 + 4 is 7."), ("The answer is 1,000", "1000"), ("Paris.", "paris"),
                         ("It is Paris", "Paris"), ("1/2", "0.5"), ("-3", "−3"), ("**42**", "42")]:
        assert same(said, wanted), (said, wanted)
    for said, wanted in [("8", "7"), ("London", "Paris"), ("", "Paris"), ("It is not Paris", "Paris"), ("17", "7"),
                         ("3 + 4 is 8", "3 + 4 is 7")]:
        assert not same(said, wanted), (said, wanted)


def test_parts_of_a_text_hold_all_of_it():
    text = "\n\n".join(f"Paragraph {n} has some words. " + "It goes on for a while with more of them. " * 5
                       for n in range(20))
    parts = split(text, 60)
    assert all(len(part.split()) <= 60 for part in parts) and plain(" ".join(parts)) == plain(text)
    assert len(split("数" * 500, 100)) == 5 and split("one two", 10) == []
