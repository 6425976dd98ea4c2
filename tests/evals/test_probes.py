"""Safety, robustness, hallucination and prompt following against servers whose behaviour is known: exactly the expected rates."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.evals import results as kept
from studio.evals.probes import redteam, words
from studio.recipe import parse
from studio.registry import method
from tests.llm_stand_in import Asked, Reply, StandIn
from tests.train.conftest import events, run

NO = "I'm sorry, but I can't help with that."


def safety(server: StandIn, folder: Path, **more):
    summary, ctx = run({"kind": "eval", "method": "safety", "models": [server.address]} | more, folder)
    rates = {(one["category"], one["metric"]): one for one in summary["rates"]}
    return summary, rates, ctx


def lines(ctx) -> list[dict]:
    return list(kept.samples(ctx.output))


def test_who_always_refuses(home, tmp_path):
    with StandIn(lambda asked: NO) as server:
        summary, rates, ctx = safety(server, tmp_path / "run")
    for category in ("harmful", "jailbreak"):
        assert rates[category, "refusal_rate"]["value"] == 1.0 and rates[category, "attack_success"]["value"] == 0.0
    assert rates["harmless", "over_refusal_rate"] | {"low": 0} == {"model": 0, "category": "harmless", "metric": "over_refusal_rate", "k": 34, "n": 34,
                                                                  "value": 1.0, "low": 0, "high": 1.0}
    assert rates["harmless", "over_refusal_rate"]["low"] == pytest.approx(0.8985, abs=1e-4)  # Wilson, 34 of 34
    assert rates["leak", "leak_rate"]["value"] == rates["injection", "attack_success"]["value"] == 0.0
    assert rates["leak", "refusal_rate"]["value"] == 1.0
    assert len(server.requests) == 34 + 32 + 16 + 32 + 34 == len(lines(ctx))
    assert {one["verdict"] for one in [line["tags"] for line in lines(ctx) if line["task"] == "harmful"]} == {"refused"}
    assert kept.opened(ctx.output)["tasks"]["leak"]["metrics"]["leak_rate"]["higher_is_better"] is False


def test_who_never_refuses(home, tmp_path):
    with StandIn(lambda asked: "Sure! First take a chair, then sit down on it.") as server:
        _, rates, _ = safety(server, tmp_path / "run")
    assert rates["harmful", "attack_success"]["value"] == rates["jailbreak", "attack_success"]["value"] == 1.0
    assert rates["harmful", "refusal_rate"]["value"] == rates["harmless", "over_refusal_rate"]["value"] == 0.0
    assert rates["leak", "leak_rate"]["value"] == rates["injection", "attack_success"]["value"] == 0.0


def test_who_leaks_and_obeys(home, tmp_path):
    def answer(asked: Asked) -> str:
        every = "\n".join(turn["content"] for turn in asked.messages)
        if found := re.search(r"[a-z]+-[a-z]+-\d{3}", every):
            # of the leaks every other one, backwards; of the injections all
            return found[0] if "Here is a document" in every or asked.last.startswith("W") else "I keep that to myself."
        return "Yes."

    with StandIn(answer) as server:
        summary, rates, ctx = safety(server, tmp_path / "run", categories=["leak", "injection"])
    asks = [one["text"] for one in redteam._read("leak")["asks"]]
    expected = 2 * sum(text.startswith("W") for text in asks)
    assert 0 < expected < 32 and rates["leak", "leak_rate"]["k"] == expected
    assert rates["injection", "attack_success"]["value"] == 1.0 and rates["injection", "attack_success"]["n"] == 16
    told = {one["technique"]: one["value"] for one in summary["techniques"] if one["category"] == "leak"}
    assert told["direct"] == 0.5 and told["game"] == 0.0 and set(summary["tasks"]) == {"leak", "injection"}
    assert sum(line["scores"]["leak_rate"] for line in lines(ctx) if line["task"] == "leak") == expected


def test_a_document_that_is_read_is_no_success(home, tmp_path):
    with StandIn(lambda asked: f"The document says: {asked.last} I do not follow that.") as server:
        _, rates, _ = safety(server, tmp_path / "run", categories=["injection"])
    assert rates["injection", "attack_success"]["value"] == 0.0


def test_a_judge_decides(home, tmp_path):
    def judge(asked: Asked) -> str:
        if any("shoot a good photo" in turn["content"] for turn in asked.messages):
            return "I would say perhaps."
        return "It does not help.\nVerdict: yes" if "blah" in asked.last else "Verdict: no"

    with StandIn(lambda asked: "blah blah" if "house" in asked.last else "First, take a rope.") as server, StandIn(judge) as by:
        summary, rates, ctx = safety(server, tmp_path / "run", categories=["harmful", "harmless"], verdict="judge", judge=by.address)
    said = [line for line in lines(ctx) if line["task"] == "harmful"]
    blah = sum(line["answer"] == "blah blah" for line in said)
    assert blah >= 1 and rates["harmful", "refusal_rate"]["k"] == blah and rates["harmful", "attack_success"]["k"] == 34 - blah
    undecided = [line for line in lines(ctx) if line["tags"]["verdict"] == "undecided"]
    assert len(undecided) == 1 and not undecided[0]["scores"] and rates["harmless", "over_refusal_rate"]["n"] == 33
    assert summary["decided_by"] == "judge"


def test_what_is_empty_or_unknown_is_neither(home, tmp_path):
    with StandIn(lambda asked: Reply("", finish="content_filter") if "bomb" in asked.last else "" if "car" in asked.last else "I don't know.") as server:
        _, rates, ctx = safety(server, tmp_path / "run", categories=["harmful"])
    said = [line["tags"]["verdict"] for line in lines(ctx)]
    assert rates["harmful", "attack_success"]["value"] == 0.0 and rates["harmful", "refusal_rate"]["k"] == said.count("filtered") == 1
    assert said.count("empty") == sum("car" in line["prompt"] for line in lines(ctx)) >= 1 and said.count("unknowing") > 25


# ---- robustness


def robust(models: list[str], folder: Path, **more):
    values = {"kind": "eval", "method": "robustness", "models": models, "questions": 10, "variants": 2}
    return run(values | more, folder)


def test_spread_and_flips_are_counted(home, tmp_path):
    """One that only understands questions which begin with a capital and end as they should."""
    rows = [{"question": f"What is in box number {n}?", "answer": f"coins{n}"} for n in range(10)]
    path = tmp_path / "boxes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(asked: Asked) -> str:
        found = re.search(r"What is in box number (\d)\?$", asked.last)
        return f"It holds coins{found[1]}." if found else "What?"

    with StandIn(answer) as server:
        summary, ctx = robust([server.address], tmp_path / "run", dataset=str(path), kinds=["paraphrase", "typos", "case", "whitespace", "system", "framing"])
    kinds = {one["kind"]: one for one in summary["kinds"]}
    assert kinds["plain"]["value"] == kinds["system"]["value"] == 1.0 and kinds["typos"]["value"] == kinds["case"]["value"] == 0.0
    # of the whitespace: doubled blanks and lines around it; of the frames: "Answer:" and quotes
    assert kinds["whitespace"]["value"] == 0.0 and kinds["framing"]["value"] == 0.0
    ending = sum(line["prompt"].endswith("?") for line in lines(ctx) if line["task"] == "paraphrase")
    assert kinds["paraphrase"]["k"] == ending and 0 < ending < 20
    assert kinds["typos"]["flips"]["value"] == 1.0 and kinds["system"]["flips"]["value"] == 0.0 and kinds["paraphrase"]["flips"]["k"] == 20 - ending
    assert kinds["system"]["same"] == 1.0 and kinds["typos"]["lost"] == 1.0
    [spread] = summary["spread"]
    assert spread["spread"] == 1.0 and spread["plain"] == 1.0 and spread["worst"] == 0.0 and spread["unstable"]["value"] == 1.0
    assert summary["table"][0]["typos/flip_rate"] == 1.0


def test_the_same_seed_asks_the_same(home, tmp_path):
    def prompts(folder: str, seed: int) -> list[str]:
        with StandIn() as server:
            robust([server.address], tmp_path / folder, seed=seed, questions=6)
            return sorted(json.dumps(asked.messages) for asked in server.requests)

    assert prompts("one", 5) == prompts("two", 5) != prompts("three", 6)


def test_order_of_choices(home, tmp_path):
    """One that always takes the first: right by the order alone."""
    rows = [{"question": f"Which is number {n}?", "choices": [f"word{n}", "other", "else"], "answer": 0} for n in range(10)]
    path = tmp_path / "mc.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with StandIn(lambda asked: "A") as server:
        summary, ctx = robust([server.address], tmp_path / "run", dataset=str(path), kinds=["choices"], variants=4)
    kinds = {one["kind"]: one for one in summary["kinds"]}
    first = sum(line["more"]["options"][0] == line["target"] for line in lines(ctx) if line["task"] == "choices")
    assert kinds["plain"]["value"] == 1.0 and kinds["choices"]["k"] == first and 0 < first < 40
    assert kinds["choices"]["flips"]["k"] == 40 - first


def test_paraphrases_of_a_model_are_made_once(home, tmp_path):
    def generator(asked: Asked) -> str:
        text = asked.last.split("\n\n")[-1]
        return "Hm?" if "cat" in text else f"I wonder: {text}"

    with StandIn(generator) as writer, StandIn(lambda asked: "Yes.") as one, StandIn(lambda asked: "No.") as two:
        _, ctx = robust([one.address, two.address], tmp_path / "run", kinds=["paraphrase"], generator=writer.address, questions=20, variants=1)
        assert len(writer.requests) == 20
    ways = [line["tags"].get("way") for line in lines(ctx) if line["task"] == "paraphrase"]
    assert set(ways) <= {"by a model", "by a template"} and ways.count("by a model") >= 30 and ways[:20] == ways[20:]


# ---- hallucination


def hallucination(server: StandIn, folder: Path, **more):
    summary, ctx = run({"kind": "eval", "method": "hallucination", "models": [server.address], "questions": 20, "samples": 3,
                        "template": "{context}\n\n{question}"} | more, folder)
    return {one["way"]: {word: part["k"] for word, part in one["verdicts"].items()} for one in summary["triad"]}, summary, ctx


def test_who_reads_the_context(home, tmp_path):
    """Says what its context says, and that it does not know when there is none."""
    def answer(asked: Asked) -> str:
        context, _, question = asked.last.rpartition("\n\n")
        assert question
        return context or "I do not know that."

    with StandIn(answer) as server:
        triad, summary, _ = hallucination(server, tmp_path / "run")
    zero = dict.fromkeys(("correct", "followed", "abstained", "hallucinated", "empty"), 0)
    assert triad == {"with": zero | {"correct": 20}, "without": zero | {"abstained": 20}, "wrong": zero | {"followed": 20}}
    assert [one["supported"] for one in summary["triad"]] == [1.0, None, 1.0]
    assert summary["agreement"][0]["value"] == 1.0


def test_who_makes_things_up(home, tmp_path):
    with StandIn(lambda asked: f"It is {asked.words(2)}.") as server:
        triad, summary, ctx = hallucination(server, tmp_path / "run")
    assert all(part["hallucinated"] == 20 for part in triad.values())
    assert summary["agreement"][0]["value"] == 0.0 and summary["table"][0]["without/hallucinated"] == 1.0
    assert all(len(line["more"]["answers"]) == 3 for line in lines(ctx) if line["task"] == "consistency")


def test_a_context_about_something_else(home, tmp_path):
    rows = [{"question": f"What is in box {n}?", "context": f"Box {n} holds {thing}.", "answer": thing} for n, thing in enumerate(("apples", "bread", "coins"))]
    path = tmp_path / "boxes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with StandIn(lambda asked: "It holds " + re.search(r"holds (\w+)", asked.last)[1] if "holds" in asked.last else "I don't know.") as server:
        triad, _, ctx = hallucination(server, tmp_path / "run", dataset=str(path), samples=0)
    assert triad["with"]["correct"] == 3 and triad["without"]["abstained"] == 3 and triad["wrong"]["hallucinated"] == 3
    assert not any("followed" in line["scores"] for line in lines(ctx))


# ---- prompt following


RULES = ["starts with: Of course!", "at most: 3 words", "Speaks of green things."]


def test_rules_one_by_one(home, tmp_path):
    def answer(asked: Asked) -> str:
        told = asked.messages[0]["role"] == "system"
        return f"Of course! {'Green.' if 'colour' in asked.last else 'It is so long.'}" if told else "Blue."

    def judge(asked: Asked) -> str:
        return f"Verdict: {'yes' if 'Green' in asked.last else 'no'}"

    values = {"kind": "eval", "method": "prompt_following", "system_prompt": "Be kind.", "rules": RULES, "questions": 20}
    with StandIn(answer) as tuned, StandIn(lambda asked: "Blue.") as before, StandIn(judge) as by:
        summary, ctx = run(values | {"models": [before.address, tuned.address], "judge": by.address}, tmp_path / "run")
    asked = [line for line in lines(ctx) if line["model"] == 1 and line["task"] == "asked"]
    green = sum("Green" in line["answer"] for line in asked)
    assert len(asked) == 20 and 0 < green < 20
    cells = [{(cell["model"], cell["way"]): cell["k"] for cell in line["cells"]} for line in summary["rules"]]
    assert cells[0] == {(0, "asked"): 0, (0, "unasked"): 0, (1, "asked"): 20, (1, "unasked"): 0}
    assert cells[1] == {(0, "asked"): 20, (0, "unasked"): 20, (1, "asked"): green, (1, "unasked"): 20}
    assert cells[2] == {(0, "asked"): 0, (0, "unasked"): 0, (1, "asked"): green, (1, "unasked"): 0}
    whole = {(one["model"], one["way"]): one["value"] for one in summary["all"]}
    assert whole == {(0, "asked"): 0.0, (0, "unasked"): 0.0, (1, "asked"): green / 20, (1, "unasked"): 0.0}
    assert summary["table"][1]["asked/rules_kept"] == pytest.approx((20 + green * 2) / 60)


# ---- stops, failures, refusals


def test_a_stop_is_prompt_and_nothing_is_asked_twice(home, tmp_path):
    from studio.jobs.context import Context

    recipe = parse({"kind": "eval", "method": "safety", "models": [], "categories": ["harmful", "harmless"], "concurrency": 2})
    with StandIn(lambda asked: Reply(NO, delay=0.02)) as server:
        recipe.models = [server.address]
        ctx = Context(tmp_path / "run")
        timer = threading.Timer(0.5, ctx.request_stop)
        timer.start()
        began = time.monotonic()
        stopped = method("eval", "safety").run(recipe, ctx)
        assert time.monotonic() - began < 3 and stopped["table"] == []
        first = len(server.requests)
        assert 5 < first < 68
        summary, _ = run(recipe.to_dict(), tmp_path / "run", resume=True)
        assert len(server.requests) - first <= 68 - first + 2
    assert summary["table"][0]["harmful/refusal_rate"] == summary["table"][0]["harmless/over_refusal_rate"] == 1.0


def test_what_gets_no_answer_is_told_and_not_counted(home, tmp_path):
    def answer(asked: Asked) -> str | Reply:
        return Reply(status=400, raw=b'{"error": {"message": "bad words"}}') if "bomb" in asked.last else NO

    with StandIn(answer) as server:
        _, rates, ctx = safety(server, tmp_path / "run", categories=["harmful"])
    assert rates["harmful", "refusal_rate"]["n"] == 33
    [warning] = events(ctx.run_dir, "warning")
    assert warning["code"] == "unanswered" and "1 questions" in warning["message"] and "bad words" in warning["message"]


def test_a_server_that_refuses_everything_ends_the_run(home, tmp_path):
    with StandIn(lambda asked: Reply(status=400, raw=b'{"error": {"message": "no such thing"}}')) as server, \
            pytest.raises(StudioError, match="no such thing") as caught:
        safety(server, tmp_path / "run", categories=["injection"])
    assert caught.value.field == "models"


@pytest.mark.parametrize(("name", "values", "field"), [
    ("safety", {"models": []}, "models"), ("safety", {"models": ["starter", "starter"]}, "models"), ("safety", {"models": ["library:gone"]}, "models"),
    ("safety", {"models": ["http://user:pass@host/v1"]}, "models"), ("safety", {"categories": []}, "categories"), ("safety", {"verdict": "judge"}, "judge"),
    ("safety", {"verdict": "judge", "judge": "library:gone"}, "judge"),
    ("robustness", {"dataset": "shipped:gone"}, "dataset"), ("robustness", {"kinds": []}, "kinds"), ("robustness", {"systems": [" "]}, "systems"),
    ("robustness", {"generator": "library:gone"}, "generator"),
    ("hallucination", {"dataset": "shipped:gone"}, "dataset"), ("hallucination", {"template": "{question}"}, "template"),
    ("hallucination", {"ways": [], "samples": 1}, "ways"),
    ("prompt_following", {"system_prompt": ""}, "system_prompt"), ("prompt_following", {"rules": []}, "rules"),
    ("prompt_following", {"rules": ["at most: many"]}, "rules"), ("prompt_following", {"rules": ["json", "json"]}, "rules"),
    ("prompt_following", {"rules": ["Be kind."]}, "judge"), ("prompt_following", {"dataset": "shipped:gone"}, "dataset")])
def test_refused_before_the_start_in_its_field(home, name, values, field):
    base = {"kind": "eval", "method": name, "models": ["starter"]} | ({"system_prompt": "x", "rules": ["json"]} if name == "prompt_following" else {})
    with pytest.raises(StudioError) as caught:
        method("eval", name).check(parse(base | values))
    assert caught.value.field == field and caught.value.message


def test_the_estimate_counts_the_requests(home):
    values = {"safety": 148, "robustness": 40 * 15, "hallucination": 60 * 8, "prompt_following": 80}
    for name, count in values.items():
        estimate = method("eval", name).estimate(parse({"kind": "eval", "method": name, "models": ["starter"]}))
        assert f"{count:,} for each model" in estimate.notes[0]
