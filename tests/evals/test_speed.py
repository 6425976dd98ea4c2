"""Speed: the arithmetic, servers of known speed, and the starter behind its real engine."""

from __future__ import annotations

import threading
import time

import pytest

from studio.chat import client
from studio.errors import StudioError
from studio.evals import results as kept
from studio.evals.probes import timing
from studio.recipe import parse
from studio.registry import method
from tests.llm_stand_in import Reply, StandIn
from tests.train.conftest import events, run


def speed(models: list[str], folder, **more):
    values = {"kind": "eval", "method": "speed", "models": models, "batches": [1, 4], "contexts": [64], "ways": [], "new_tokens": 20, "repeats": 3}
    return run(values | more, folder)


def told(asked, count: int = 20) -> str:
    return asked.words(min(count, asked.body["max_tokens"]))


def test_middles_and_parts():
    assert timing.middle([3.0, 1.0, 2.0, 4.0, 5.0]) == {"value": 3.0, "low": 2.0, "high": 4.0, "n": 5}
    assert timing.middle([7.0]) == {"value": 7.0, "low": 7.0, "high": 7.0, "n": 1} and timing.middle([]) is None
    assert timing.percentile([1.0, 2.0, 3.0, 4.0, 5.0], 0.5) == 3.0 and timing.percentile([0.0, 10.0], 0.95) == 9.5 and timing.percentile([], 0.5) is None
    one = timing.Timed(ttft=1.0, seconds=3.0, tokens=21, gaps=[0.1] * 20)
    assert one.per_second == 10.0 and timing.Timed(1.0, 1.0, 1).per_second is None
    assert timing.Timed(1.0, 1.001, 64, gaps=[0.001]).per_second is None  # 64 tokens in two pieces: the clock knows nothing
    assert timing.Timed(1.0, 1.001, 64, gaps=[0.001], told=900.0).per_second == 900.0


def test_no_two_questions_begin_alike():
    made = [timing.filler(20, f"key/{n}") for n in range(50)]
    assert made == [timing.filler(20, f"key/{n}") for n in range(50)] and len({text[:30] for text in made}) > 45
    assert all(text.count(".") == 21 for text in made)


def test_a_server_of_known_speed(home, tmp_path):
    """Each answer takes 0.2 s, however many ask: four askers get four times as much."""
    with StandIn(lambda asked: Reply(told(asked), delay=0.2)) as server:
        summary, ctx = speed([server.address], tmp_path / "run")
        assert all(asked.body["max_tokens"] in (1, 20) and asked.body["temperature"] <= 2 for asked in server.requests)
    scores = {name.partition("/")[2]: value for name, value in summary["table"][0].items()}
    assert 40 < scores["askers_1"] <= 100 and 2.2 < scores["askers_4"] / scores["askers_1"] < 4.5
    assert 200 <= scores["ttft_ms"] < 600 and scores["ttft_ms_64"] >= 200
    [latency] = summary["latency"]
    assert latency["counted"] is False and latency["streams"] and latency["tokens_per_piece"] == pytest.approx(1.0, abs=0.1)
    assert summary["machine"]["cores"] >= 1 and summary["engines"][0]["peak"] == 0 and "peak_memory_mb" not in scores
    lines = list(kept.samples(ctx.output))
    assert sum(line["task"] == "throughput" for line in lines) == 3 * (1 + 4) and {line["more"]["tokens"] for line in lines if line["task"] == "latency"} == {20}
    # what the table says follows from the answers that are kept
    ones = sorted(line["more"]["tokens"] / line["more"]["seconds"] for line in lines if line["id"].startswith("batch-1/"))
    assert scores["askers_1"] == pytest.approx(ones[1], rel=0.05)


def test_one_that_does_not_stream_is_told(home, tmp_path):
    with StandIn(lambda asked: "whole") as server:
        summary, ctx = speed([server.address], tmp_path / "run", batches=[1], ways=["cache"])
    codes = {event["code"] for event in events(ctx.run_dir, "warning")} - {"busy"}
    assert codes == {"no_stream", "no_ways"} and summary["latency"][0]["streams"] is False
    assert "latency/inter_token_p50_ms" not in summary["table"][0] and summary["table"][0]["latency/ttft_ms"] > 0


def test_what_cannot_be_read_is_left_out(home, tmp_path):
    def answer(asked):
        long = len(asked.last) > 3000
        return Reply(status=400, raw=b'{"error": {"message": "This is longer than the context of 500 tokens."}}') if long else told(asked, 12)

    with StandIn(answer) as server:
        summary, ctx = speed([server.address], tmp_path / "run", contexts=[64, 2000], batches=[1], repeats=1)
    assert [one["context"] for one in summary["context"]] == [64] and "context/ttft_ms_2000" not in summary["table"][0]
    assert "too_long" in {event["code"] for event in events(ctx.run_dir, "warning")}


def test_a_stop_is_prompt_and_keeps_what_was_measured(home, tmp_path):
    from studio.jobs.context import Context

    with StandIn(lambda asked: Reply(told(asked), delay=0.1)) as server:
        recipe = parse({"kind": "eval", "method": "speed", "models": [server.address], "batches": [1, 2], "contexts": [64, 128], "ways": [],
                        "new_tokens": 20, "repeats": 4})
        ctx = Context(tmp_path / "run")
        threading.Timer(1.5, ctx.request_stop).start()
        began = time.monotonic()
        assert method("eval", "speed").run(recipe, ctx)["table"] == [] and time.monotonic() - began < 3.5
        first = len(server.requests)
        names = {path.name for path in (tmp_path / "run" / "measured").iterdir()}
        assert "0-latency.json" in names and len(names) < 6
        done = {path: path.read_bytes() for path in (tmp_path / "run" / "measured").iterdir()}
        summary, _ = run(recipe.to_dict(), tmp_path / "run", resume=True)
        assert all(path.read_bytes() == before for path, before in done.items()) and len(server.requests) > first
    assert summary["table"][0]["throughput/askers_2"] > 0 and len(summary["context"]) == 2


def test_a_server_that_dies_says_so(home, tmp_path):
    with StandIn(lambda asked: Reply("one two three", cut=True)) as server, pytest.raises(StudioError, match="went away") as caught:
        speed([server.address], tmp_path / "run")
    assert caught.value.field == "models"


def test_the_starter_behind_its_engine(home, tmp_path):
    from studio.chat import manager

    try:
        summary, ctx = speed(["starter"], tmp_path / "run", contexts=[64, 256, 600], batches=[1, 2, 32], ways=["cache", "no_cache", "prompt_lookup", "assistant"],
                             assistant_model="starter", new_tokens=40, repeats=2)
        assert not manager.engines()  # what was started for this is ended
    finally:
        manager.shutdown_all()
    lines = [line for line in kept.samples(ctx.output) if line["task"] != "ways"]
    tokens = [line["more"]["tokens"] for line in lines]
    assert max(tokens) == 40 and sum(one == 40 for one in tokens) >= 0.7 * len(tokens)  # by the engine's count, so hot that few end early
    [latency] = summary["latency"]
    assert latency["counted"] and latency["streams"] and latency["tokens_per_piece"] < 2  # a packet a token, because of the stop text
    scores = latency["scores"]
    assert 0 < scores["inter_token_p50_ms"] <= scores["inter_token_p95_ms"] and scores["ttft_ms"] > 0
    for line in lines:
        assert 0 < line["more"]["ttft"] <= line["more"]["seconds"]
        if line["more"]["tokens"] > 20:  # the engine's own clock and ours are of one mind
            ours = (line["more"]["tokens"] - 1) / (line["more"]["seconds"] - line["more"]["ttft"])
            assert 0.4 < line["more"]["tokens_per_second"] / ours < 2.5
    asked = {one["context"]: one["prompt_tokens"] for one in summary["context"]}
    assert set(asked) == {64, 256} and abs(asked[256] - 256) < 64 and asked[64] < asked[256]
    assert [one["askers"] for one in summary["throughput"]] == [1, 2] and summary["engines"][0]["peak"] > 100e6
    codes = {event["code"] for event in events(ctx.run_dir, "warning")}
    assert {"too_long", "too_many_askers"} <= codes
    ways = {one["way"]: one for one in summary["ways"]}
    assert ways["no_cache"]["value"] < ways["cache"]["value"] and ways["cache"]["per_forward"] == 1.0
    assert ways["assistant"]["acceptance"] == 1.0 and ways["assistant"]["per_forward"] > 3  # its own words are always taken
    assert ways["prompt_lookup"]["per_forward"] >= 1.0
    assert all(line["more"]["tokens"] == 40 for line in kept.samples(ctx.output) if line["task"] == "ways")


def test_one_that_is_never_done_is_given_up(home, tmp_path):
    with StandIn(lambda asked: Reply("late", delay=4 if asked.number > 1 else 0)) as server, pytest.raises(StudioError, match="not done after 1 s") as caught:
        speed([server.address], tmp_path / "run", timeout=1)
    assert caught.value.field == "timeout"


@pytest.mark.parametrize(("values", "field"), [
    ({"models": []}, "models"), ({"batches": []}, "batches"), ({"batches": [0]}, "batches"), ({"contexts": [-5]}, "contexts"),
    ({"ways": ["assistant"]}, "assistant_model"), ({"ways": ["assistant"], "assistant_model": "library:gone"}, "assistant_model")])
def test_refused_before_the_start_in_its_field(home, values, field):
    with pytest.raises(StudioError) as caught:
        method("eval", "speed").check(parse({"kind": "eval", "method": "speed", "models": ["starter"]} | values))
    assert caught.value.field == field


def test_a_stop_breaks_the_connection(home):
    with StandIn(lambda asked: Reply("late", delay=5)) as server:
        endpoint = client.Endpoint(server.address, "stand-in", remote=True)
        began, asked = time.monotonic(), [(timing.messages(2, "x"), {"max_tokens": 4})] * 3
        with pytest.raises(timing.Stopped):
            timing.together(endpoint, asked, lambda: time.monotonic() - began > 0.3)
        assert time.monotonic() - began < 2
