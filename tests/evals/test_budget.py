"""More answers: the estimates against counting by hand, votes, rewards, tokens, a stop that loses nothing, and the starter itself."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import time
from pathlib import Path

import pytest

from studio.datasets import llm_http
from studio.errors import StudioError
from studio.evals import budget_work, results, scaling
from studio.recipe import parse
from studio.registry import method
from tests.llm_stand_in import Asked, Reply, StandIn
from tests.train.conftest import events, run


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_http, "BACKOFF", 0.01)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i} plus 3?", "completion": f"{i} plus 3 is {i + 3}."}) + "\n" for i in range(10)))
    return path


def values(model: str, sums: Path | str, **more) -> dict:
    return {"kind": "eval", "method": "budget", "models": [model], "dataset": str(sums), "samples": 10, "n": [1, 2, 4], "draws": 6} | more


def sometimes(asked: Asked) -> str:
    """Right about half the time, by the seed; wrong in two ways. Always right at temperature 0."""
    i = int(re.search(r"is (\d+) plus", asked.last)[1])
    off = 0 if not asked.body["temperature"] else random.Random(f"{i}/{asked.seed}").choice([0, 0, 1, 2])
    return f"I think it is {i + 3 + off}."


def curve(ctx) -> dict[tuple[str, int], dict]:
    return {(one["method"], one["n"]): one for one in results.opened(ctx.output)["facts"]["curve"]}


def score(row: dict, metric: str) -> float:
    return next(value for name, value in row.items() if name.endswith(f"/{metric}"))


def warned(ctx) -> list[str]:
    return [event["code"] for event in events(ctx.run_dir, "warning")]


# ---- the estimates, against every subset


def subsets(n: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), k))


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 1), (6, 2, 3), (6, 0, 2), (6, 6, 4), (6, 5, 2), (1, 1, 1)])
def test_pass_at_k_is_the_unbiased_estimate(n: int, c: int, k: int) -> None:
    right = [i < c for i in range(n)]
    counted = [any(right[i] for i in part) for part in subsets(n, k)]
    assert scaling.pass_at_k(right, k) == pytest.approx(sum(counted) / len(counted))
    # the product of Chen et al. 2021, as their code writes it
    product = 1.0 if n - c < k else 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1))
    assert scaling.pass_at_k(right, k) == pytest.approx(product)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_best_of_n_is_that_over_all_subsets(k: int) -> None:
    right, rewards = [True, False, True, False, False, True], [0.1, 0.9, 0.5, 0.5, -2.0, 0.9]

    def one(part: tuple[int, ...]) -> float:
        best = max(rewards[i] for i in part)
        tied = [i for i in part if rewards[i] == best]
        return sum(right[i] for i in tied) / len(tied)

    assert scaling.best_of(right, rewards, k) == pytest.approx(sum(map(one, subsets(6, k))) / math.comb(6, k))


def test_a_perfect_reward_reaches_pass_at_k_and_a_blind_one_stays_at_one_answer() -> None:
    right = [True, False, False, True, False, False, False, False]
    for k in range(1, 9):
        assert scaling.best_of(right, [float(one) for one in right], k) == pytest.approx(scaling.pass_at_k(right, k))
        assert scaling.best_of(right, [0.0] * 8, k) == pytest.approx(0.25)


def test_the_majority_is_that_over_all_subsets() -> None:
    right, votes = [True, True, False, False, False], ["7", "7", "8", "8", None]
    assert scaling.majority(right, votes, 1) == pytest.approx(2 / 5)
    # of three: {7,7,x} elects 7 (3 subsets), {8,8,x} elects 8 (3), {7,8,None} is a tie (4)
    assert scaling.majority(right, votes, 3) == pytest.approx((3 + 4 * 0.5) / 10)
    assert scaling.majority(right, votes, 5) == pytest.approx(0.5) and scaling.majority([True], [None], 1) == 0


def test_many_subsets_are_drawn_by_the_seed() -> None:
    drawn = random.Random(0)
    right = [drawn.random() < 0.6 for _ in range(24)]
    votes = ["right" if one else drawn.choice("ab") for one in right]
    every = [scaling._elected(right, votes, part) for part in subsets(24, 3)]
    found = scaling.majority(right, votes, 3)
    assert found == scaling.majority(right, votes, 3) and found == pytest.approx(sum(every) / len(every), abs=0.06)


@pytest.mark.parametrize(("text", "by", "pattern", "vote"), [
    ("So 2 + 3 = 5.", "number", "", "5"), ("It is 5.0", "number", "", "5"), ("No idea.", "number", "", None), ("The Cat!", "words", "", "cat"),
    ("<think>9</think>\\boxed{x = 2}", "words", "", "x 2"), ("answer is red, no, answer is blue", "pattern", r"answer is (\w+)", "blue"),
    ("none", "pattern", r"answer is (\w+)", None), ("AB", "pattern", "[A-Z]", "B")])
def test_what_counts_as_a_vote(text: str, by: str, pattern: str, vote: str | None) -> None:
    assert budget_work.vote_of(text, by, pattern) == vote


# ---- runs


def test_the_curve_is_what_the_answers_give(sums, tmp_path) -> None:
    with StandIn(sometimes) as server:
        summary, ctx = run(values(server.address, sums, ways=["pass_at_k", "self_consistency", "best_of_n"],
                                  rewards=[{"name": "number"}]), tmp_path / "run")
    assert len(server.requests) == 10 * 7 and {request.body["temperature"] for request in server.requests} == {0.0, 0.8}
    samples = list(results.samples(ctx.output))
    per = {line["id"]: [one["right"] for one in line["more"]["answers"]] for line in samples}
    assert len(per) == 10 and all(len(right) == 6 for right in per.values()) and 0 < sum(map(sum, per.values())) < 60
    found = curve(ctx)
    for k in (1, 2, 4):
        each = [scaling.pass_at_k(right, k) for right in per.values()]
        mean = sum(each) / 10
        error = math.sqrt(sum((x - mean) ** 2 for x in each) / 9 / 10)
        point = found["pass_at_k", k]
        assert point["value"] == pytest.approx(mean) and point["stderr"] == pytest.approx(error) and point["questions"] == 10
        assert point["tokens"] == pytest.approx(5 * k)  # "I think it is 7." are five words, which the stand-in counts
        assert found["best_of_n", k]["value"] == pytest.approx(mean)  # a reward that knows the answer
    assert found["self_consistency", 1]["value"] == pytest.approx(found["pass_at_k", 1]["value"])
    assert found["self_consistency", 4]["value"] > found["self_consistency", 1]["value"]
    assert found["greedy", 1]["value"] == 1 and found["greedy", 1]["tokens"] == 5
    row = summary["table"][0]
    assert score(row, "pass@4") == pytest.approx(found["pass_at_k", 4]["value"]) and score(row, "greedy") == 1
    assert warned(ctx) == [] and summary["used"][0]["answers"] == 60


def test_a_reward_that_likes_wrong_answers_makes_it_worse(sums, tmp_path) -> None:
    with StandIn(sometimes) as server:
        _, ctx = run(values(server.address, sums, ways=["best_of_n"], rewards=[{"name": "number", "weight": -1}]), tmp_path / "run")
    found = curve(ctx)
    assert found["best_of_n", 4]["value"] < found["best_of_n", 2]["value"] < found["best_of_n", 1]["value"]


def test_two_models_and_a_reward_model(sums, tmp_path, tiny) -> None:
    """A real reward model of a random initialisation: it gives every answer a number, and the same text the same one."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path / "reward"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                               num_attention_heads=2, num_labels=1, pad_token_id=tokenizer.pad_token_id)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with StandIn(sometimes) as one, StandIn(lambda asked: "It is 3.") as two:
        recipe = values(one.address, sums, models=[one.address, two.address], ways=["best_of_n", "pass_at_k"],
                        reward_model=str(folder), samples=4)
        summary, ctx = run(recipe, tmp_path / "run")
    samples = list(results.samples(ctx.output))
    rewards = {(line["id"], one["text"]): one["reward"] for line in samples if not line["model"] for one in line["more"]["answers"]}
    again = [one["reward"] == pytest.approx(rewards[line["id"], one["text"]], abs=1e-4) for line in samples if not line["model"] for one in line["more"]["answers"]]
    assert all(again) and len(set(rewards.values())) > 4 and len(summary["table"]) == 2
    assert score(summary["table"][1], "best_of@4") == score(summary["table"][1], "pass@4")
    assert warned(ctx) == ["no_variety", "same_reward"]


def test_answers_right_by_a_judge_or_a_pattern(sums, tmp_path) -> None:
    def judge(asked: Asked) -> str:
        question, said = (re.search(rf'## {title}\n"""\n(.*?)\n"""', asked.messages[1]["content"])[1] for title in ("Question", "Answer"))
        if "What is 2 plus" in question:
            return "Who knows?"
        right = int(re.search(r"(\d+) plus", question)[1]) + 3
        return f"Mark: {10 if re.search(rf'is {right}[.]', said) else 1}"

    with StandIn(sometimes) as server, StandIn(judge) as other:
        _, one = run(values(server.address, sums), tmp_path / "one")
        _, two = run(values(server.address, sums, check="judge", judge=other.address), tmp_path / "two")
        _, three = run(values(server.address, sums, check="regex", pattern="is 1?3", samples=10), tmp_path / "three")
    by = {line["prompt"]: line["scores"].get("pass@1") for line in results.samples(one.output)}
    judged = {line["prompt"]: line["scores"].get("pass@1") for line in results.samples(two.output)}
    assert judged.pop("What is 2 plus 3?") is None and all(by[text] == value for text, value in judged.items()) and "undecided" in warned(two)
    assert curve(two)["pass_at_k", 1]["questions"] == 9 and curve(three)["pass_at_k", 1]["value"] < curve(one)["pass_at_k", 1]["value"]


def test_answers_that_never_come_leave_the_larger_budgets_smaller(sums, tmp_path) -> None:
    def part(asked: Asked) -> str | Reply:
        if "is 5 plus" in asked.last and asked.seed % 2:
            return Reply(status=400, raw=b'{"error": {"message": "no"}}')
        return sometimes(asked)

    with StandIn(part) as server:
        _, ctx = run(values(server.address, sums, draws=4), tmp_path / "run")
    found = curve(ctx)
    assert found["pass_at_k", 1]["questions"] == 10 and found["pass_at_k", 4]["questions"] == 9 and "unanswered" in warned(ctx)


def test_a_stop_loses_nothing_and_doubles_nothing(sums, tmp_path) -> None:
    def slow(asked: Asked) -> Reply:
        time.sleep(0.01)
        return Reply(sometimes(asked))

    with StandIn(slow) as server:
        recipe = values(server.address, sums, concurrency=2, ways=["best_of_n", "self_consistency"], rewards=[{"name": "number"}])
        whole, ctx = run(recipe, tmp_path / "whole")
        assert run(recipe, tmp_path / "parts", stop_at=9)[0] is None
        assert run(recipe, tmp_path / "parts", resume=True, stop_at=50)[0] is None
        again, other = run(recipe, tmp_path / "parts", resume=True)
        assert len(server.requests) == 2 * 70
    third, _ = run(recipe, tmp_path / "parts", resume=True)  # the server is gone, and not needed
    assert again["table"] == whole["table"] == third["table"] and curve(other) == curve(ctx)
    assert list(results.samples(other.output)) == list(results.samples(ctx.output))


@pytest.mark.parametrize(("change", "field"), [
    ({"models": []}, "models"), ({"models": ["starter", "starter"]}, "models"), ({"n": [0, 1]}, "n"), ({"n": [1000]}, "n"), ({"draws": 3}, "draws"),
    ({"ways": []}, "ways"), ({"ways": ["best_of_n"]}, "reward_model"), ({"ways": ["best_of_n"], "reward_model": "starter"}, "reward_model"), ({"ways": ["best_of_n"], "rewards": [{"name": "nothing"}]}, "rewards"),
    ({"vote_by": "pattern"}, "vote_pattern"), ({"vote_by": "pattern", "vote_pattern": "("}, "vote_pattern"), ({"check": "judge"}, "judge"),
    ({"check": "regex", "pattern": "("}, "pattern"), ({"dataset": "shipped:nothing"}, "dataset")])
def test_what_cannot_be_measured_is_refused_at_its_field(home, change: dict, field: str) -> None:
    recipe = parse(values("starter", "shipped:sums") | change)
    with pytest.raises(StudioError) as caught:
        method("eval", "budget").check(recipe)
    assert caught.value.field == field and caught.value.hint


def test_the_starter_gets_better_with_more_answers(home, tmp_path) -> None:
    """The real model on its own engine: any of four wild answers is right more often than one."""
    summary, ctx = run(values("starter", "shipped:sums", n=[1, 4], draws=4, temperature=1.5, max_new_tokens=16, samples=12, concurrency=1), tmp_path / "run")
    found = curve(ctx)
    assert found["pass_at_k", 4]["value"] > found["pass_at_k", 1]["value"] > 0.2
    assert 3 < found["pass_at_k", 1]["tokens"] < 17 and found["pass_at_k", 4]["tokens"] == pytest.approx(4 * found["pass_at_k", 1]["tokens"], abs=0.05)
    assert {line["target"] for line in results.samples(ctx.output)} and summary["questions"] == 12
