"""Verified answers: right ones become rows, right against wrong pairs, everything else is kept aside with its reason."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter

import pytest

from studio import sandbox
from studio.datasets import llm_http
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.context import Context
from studio.library import artifacts
from studio.recipe import parse
from studio.registry import method
from tests.llm_stand_in import Asked, Reply, StandIn


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_http, "BACKOFF", 0.01)


def sums(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {a} + {a + 3}?", "completion": f"#### {2 * a + 3}"} for a in range(count)]


def adder(asked: Asked) -> str:
    """Right, wrong in two ways, or no number, as seed and choice will have it; the same each time it is asked."""
    a, b = map(int, re.findall(r"\d+", asked.last)[:2])
    kind = (asked.seed + 7 * asked.choice) % 4
    how = asked.words(3)
    return (f"{how}: {a} + {b} = {a + b}.", f"{how}: it is {a + b}", f"{how}: that makes {a + b + 1}.", f"{how}, I do not know.")[kind]


def dropped(version: Version) -> list[dict]:
    return [row for batch in version.batches("dropped") for row in batch.to_pylist()] if version.file("dropped").exists() else []


def test_right_answers_become_rows(run_step, jsonl) -> None:
    """Every answer is accounted for: a row, or dropped with its reason; the score is the pass rate of the question."""
    with StandIn(adder) as server:
        made = run_step("verified", jsonl("q.jsonl", sums(20)), generator=server.address, n=6, check="number", per_prompt=2)
    facts = made.meta["history"][-1]["facts"]
    assert facts["questions"] == 20 and facts["answers"] == 120 and facts["solved"] == 20
    right = sum(adder_is_right(row["row"]) for row in dropped(made)) + made.count()
    assert facts["accepted"] == right and facts["accept_rate"] == pytest.approx(right / 120, abs=1e-4)
    rates = Counter()
    for item in made.items():
        row = item.row
        assert adder_is_right(item.text) and 0 < item.score <= 1
        rates[row["prompt"]] += 1
    assert len(rates) == 20 and max(rates.values()) == 2
    entry = made.meta["history"][-1]
    assert entry["rows_in"] == 120 and entry["rows_out"] + entry["dropped"] == 120
    reasons = Counter(row["reason"] for row in dropped(made))
    assert set(reasons) <= {"wrong", "spare", "repeated"} and not any(adder_is_right(r["row"]) for r in dropped(made) if r["reason"] == "wrong")
    assert any("expected" in r["detail"] and "got" in r["detail"] for r in dropped(made))
    assert made.meta["format"] == "prompt_completion" and facts["usage"]["completion_tokens"] > 0


def adder_is_right(text: str) -> bool:
    row = json.loads(text)
    a, b = map(int, re.findall(r"\d+", row["prompt"])[:2])
    return bool(re.search(rf"\b{a + b}\b\.?$", row["completion"]))


@pytest.mark.parametrize("choose", ["first", "shortest", "score", "length"])
def test_right_against_wrong_becomes_pairs(run_step, jsonl, choose) -> None:
    with StandIn(adder) as server:
        made = run_step("verified", jsonl("q.jsonl", sums(12)), generator=server.address, n=6, output="pairs", choose=choose, per_prompt=2)
    assert made.meta["format"] == "preference"
    for row in made.rows():
        a, b = map(int, re.findall(r"\d+", row["prompt"])[:2])
        assert re.search(rf"\b{a + b}\b\.?$", row["chosen"]) and not re.search(rf"\b{a + b}\b\.?$", row["rejected"])
    assert max(Counter(row["prompt"] for row in made.rows()).values()) <= 2
    if choose == "length":
        gaps = [abs(len(r["chosen"]) - len(r["rejected"])) for r in made.rows()]
        assert sum(gaps) / len(gaps) < 12


def test_both_makes_two_datasets_that_train(run_step, jsonl) -> None:
    from studio.datasets import formats

    with StandIn(adder) as server:
        made = run_step("verified", jsonl("q.jsonl", sums(12)), generator=server.address, n=6, output="both", name="sums")
    rows = {row["name"]: row for row in artifacts.listed(("dataset",))}
    assert rows["sums"]["meta"]["format"] == "prompt_completion" and rows["sums · pairs"]["meta"]["format"] == "preference"
    pairs = Version(rows["sums · pairs"]["path"])
    chosen, answered = {r["prompt"]: r["chosen"] for r in pairs.rows()}, {r["prompt"]: r["completion"] for r in made.rows()}
    assert chosen and all(answered[prompt] == text for prompt, text in chosen.items())
    assert list(formats.load_rows(made.ref)) and list(formats.load_rows(rows["sums · pairs"]["ref"]))


def test_questions_that_are_too_easy_too_hard_or_never_right(run_step, jsonl) -> None:
    def answer(asked: Asked) -> str:
        a, b = map(int, re.findall(r"\d+", asked.last)[:2])
        often = {0: 0, 1: 1, 2: 3, 3: 4}[a]  # right answers of four
        return f"{asked.words(2)} {a + b + (asked.choice >= often)}"

    with StandIn(answer) as server:
        ref = jsonl("q.jsonl", sums(4))
        made = run_step("verified", ref, generator=server.address, n=4, least_pass=0.5, most_pass=0.9)
        assert [row["prompt"] for row in made.rows()] == ["What is 2 + 5?"] and next(made.items()).score == 0.75
        assert Counter(row["reason"] for row in dropped(made)) == {"unsolved": 4, "too_hard": 4, "too_easy": 4, "spare": 2, "wrong": 1}
        own = run_step("verified", ref, generator=server.address, n=4, own_answer=True, output="pairs")
    assert {r["prompt"]: r["chosen"] for r in own.rows()}["What is 0 + 3?"] == "#### 3"


def test_chats_keep_their_turns_and_the_system_prompt_as_wished(run_step, jsonl) -> None:
    chat = {"messages": [{"role": "system", "content": "old"}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
                         {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}
    with StandIn(lambda asked: Reply("<think>two and two</think>It is 4.")) as server:
        ref = jsonl("c.jsonl", [chat] * 2)
        made = run_step("verified", ref, generator=server.address, n=2, system_prompt="Be short.")
        bare = run_step("verified", ref, generator=server.address, n=2, system_prompt="Be short.", keep_system=False, keep_reasoning=False)
    (first, _), sent = made.rows(), server.requests[0].messages
    assert [m["content"] for m in sent] == ["Be short.", "Hi", "Hello", "2 + 2?"]
    assert [m["content"] for m in first["messages"]] == ["Be short.", "Hi", "Hello", "2 + 2?", "It is 4."]
    assert first["messages"][-1]["reasoning_content"] == "two and two"
    assert next(bare.rows())["messages"] == chat["messages"][:-1] + [{"role": "assistant", "content": "It is 4."}]


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "-")
def test_unit_tests_from_a_file_of_references(run_step, jsonl) -> None:
    """MBPP's columns: the text is the question, the code is brought in as the answer, the tests stay in the file."""
    rows = [{"text": "Write a function double.", "code": "def double(n): return 2 * n", "test_list": ["assert double(2) == 4", "assert double(0) == 0"]},
            {"text": "Write a function half.", "code": "def half(n): return n / 2", "test_list": ["assert half(2) == 1"]}]

    def answer(asked: Asked) -> str:
        name = "double" if "double" in asked.last else "half"
        return (f"```python\ndef {name}(n):\n    return n * 2\n```", f"```python\nimport os\nos.kill(os.getppid(), 9)\n```",
                f"```python\nwhile True: pass\n```")[asked.choice % 3]

    with StandIn(answer) as server:
        made = run_step("verified", run_step("import", sources=[jsonl("mbpp.jsonl", rows)], columns={"prompt": "text", "completion": "code"},
                                             format="prompt_completion").ref, generator=server.address, n=3, check="unit_tests",
                        references=jsonl("mbpp.jsonl", rows), column="test_list", test_seconds=1, output="pairs")
    (row,) = made.rows()
    assert "n * 2" in row["chosen"] and "os.kill" in row["rejected"]
    details = " ".join(r["detail"] for r in dropped(made))
    assert "takes too long" in details and "assert half(2) == 1" in details and "Operation not permitted" in details


def test_references_that_do_not_fit_are_refused(run_step, jsonl) -> None:
    ref = jsonl("q.jsonl", sums(2))
    with StandIn(adder) as server:
        for rows, word in (([{"x": 1}], "no questions"), ([{"prompt": "What is 0 + 3?"}], "no column 'gold'")):
            with pytest.raises(StudioError, match=word):
                run_step("verified", ref, generator=server.address, references=jsonl("r.jsonl", rows), column="gold")
        made = run_step("verified", ref, generator=server.address, references=jsonl("r.jsonl", [{"prompt": "What is 0 + 3?", "gold": 3}]),
                        column="gold", n=6)
    assert made.count() == 1 and Counter(r["reason"] for r in dropped(made))["no_reference"] == 1


def test_a_judge_that_answers_nonsense_decides_nothing(run_step, jsonl) -> None:
    """No right answer comes of it and no wrong one either; where the judge does keep to the form, its word counts."""
    def judge(asked: Asked) -> str:
        text = json.dumps(asked.messages)
        if "What is 1 +" in text:
            return "I like cheese."
        return "Fine.\nMark: 9" if "What is 0 +" in text else "Bad.\nMark: 2"

    with StandIn(adder) as server, StandIn(judge) as other:
        made = run_step("verified", jsonl("q.jsonl", sums(3)), generator=server.address, n=2, check="judge", judge=other.address)
    assert [row["prompt"] for row in made.rows()] == ["What is 0 + 3?"]
    found = Counter((r["reason"], json.loads(r["row"])["prompt"]) for r in dropped(made))
    assert found[("undecided", "What is 1 + 4?")] == 2 and found[("unsolved", "What is 2 + 5?")] == 2
    assert any("cheese" in r["detail"] for r in dropped(made))
    facts = made.meta["history"][-1]["facts"]
    assert facts["undecided"] == 2 and facts["accept_rate"] == 0.5 and facts["judge_usage"]["requests"] == 2 + 2 + 6


def test_broken_answers_are_neither_right_nor_wrong(run_step, jsonl) -> None:
    def answer(asked: Asked) -> Reply:
        return (Reply("0 + 3 = 3 and", finish="length"), Reply(""), Reply("3"), Reply("4"))[asked.choice]

    with StandIn(answer) as server:
        server.faults.append(Reply(status=500))
        made = run_step("verified", jsonl("q.jsonl", sums(1)), generator=server.address, n=4)
    assert Counter(r["reason"] for r in dropped(made)) == {"cut": 1, "empty": 1, "wrong": 1} and next(made.items()).score == 0.25


def test_stopped_and_resumed_it_loses_and_doubles_nothing(home, run_step, jsonl) -> None:
    """However often it is stopped, the rows are those of one go, and no question is asked twice after its answers came."""
    ref = jsonl("q.jsonl", sums(30))
    values = {"n": 3, "per_prompt": 3, "concurrency": 3}
    with StandIn(adder) as server:
        whole = run_step("verified", ref, generator=server.address, **values)
        wanted, first = list(whole.items()), len(server.requests)
    with StandIn(adder) as server:
        recipe = parse({"kind": "data", "method": "verified", "dataset": ref, "generator": server.address, **values})
        run = store.submit(recipe)
        from studio import settings

        stops = 0
        while True:
            ctx = Context(settings.run_dir(run["id"]), resume=bool(stops))
            limit = len(server.requests) + 7
            watcher = threading.Thread(target=stop_at, args=(ctx, server, limit), daemon=True)
            watcher.start()
            summary = method("data", "verified").run(recipe, ctx)
            ctx.request_stop()
            watcher.join()
            ctx.close()
            if summary is not None:
                break
            stops += 1
            assert stops < 30 and not (ctx.output / "dataset.json").exists()
        assert stops >= 2
        made = Version(ctx.output)
        assert [(i.text, i.score) for i in made.items()] == [(i.text, i.score) for i in wanted]
        assert len(server.requests) <= first + 5 * stops  # only what was under way at a stop
        assert made.meta["history"][-1]["facts"]["answers"] == 90 and made.meta["hash"] == whole.hash


def test_a_killed_worker_loses_and_doubles_nothing(home, jsonl) -> None:
    """SIGKILL in a real worker process, twice; resumed, the rows and the figures are those of an undisturbed run."""
    import os
    import signal

    from tests.jobs.conftest import Jobs

    jobs, ref = Jobs(home), jsonl("q.jsonl", sums(30))
    with StandIn(lambda asked: Reply(adder(asked), delay=0.03)) as server:
        values = {"kind": "data", "method": "verified", "dataset": ref, "generator": server.address, "n": 3, "output": "both", "concurrency": 3}
        whole = store.submit(parse(values))["id"]
        assert jobs.over(whole, timeout=120)["state"] == "succeeded"
        asked = len(server.requests)
        server.requests.clear()
        run = store.submit(parse(values))["id"]
        for share in (0.3, 0.6):
            jobs.until(lambda share=share: len(server.requests) >= asked * share, "requests", timeout=120, tick=True)
            os.kill(jobs.until(lambda: jobs.json(run, "guardian.json"), "guardian", tick=True)["worker_pid"], signal.SIGKILL)
            assert jobs.over(run, timeout=120)["state"] == "failed"
            store.resume(run)
        assert jobs.over(run, timeout=120)["state"] == "succeeded"
    assert asked <= len(server.requests) <= asked + 2 * 5

    def results(run_id: str) -> list[tuple[str, int, list[str]]]:
        rows = [row for row in artifacts.listed(("dataset",), run_id=run_id) if row["meta"].get("stage") != "step"]
        versions = sorted((Version(row["path"]) for row in rows), key=lambda v: v.meta["format"])
        return [(v.hash, v.meta["history"][-1]["facts"]["answers"], [i.text for i in v.items()]) for v in versions]

    assert results(run) == results(whole) and [n for _, n, _ in results(run)] == [90, 90]


def stop_at(ctx: Context, server: StandIn, limit: int) -> None:
    import time

    while len(server.requests) < limit and not ctx.stop_requested:
        time.sleep(0.002)
    ctx.request_stop()


@pytest.mark.parametrize(("fields", "word"), [
    ({"check": "regex", "pattern": "("}, "pattern"), ({"check": "json_schema", "json_schema": "{"}, "json_schema"),
    ({"check": "judge", "judge": "library:none"}, "judge"), ({"references": "nowhere.jsonl"}, "references"),
    ({"generator": "library:none"}, "generator"), ({"check": "magic"}, "check")])
def test_bad_recipes_are_refused_at_their_field(home, jsonl, fields, word) -> None:
    with pytest.raises(StudioError) as caught:
        recipe = parse({"kind": "data", "method": "verified", "dataset": jsonl("q.jsonl", sums(1)), **fields})
        method("data", "verified").check(recipe)
    assert caught.value.field == word
