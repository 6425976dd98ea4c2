"""Asking a model: every fault of a server, keys, and the journal that makes runs resumable."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from studio.datasets import llm, llm_http
from studio.datasets.llm import Failed, Journal, Stopped
from studio.errors import StudioError
from studio.jobs.context import Context
from tests.llm_stand_in import Asked, Reply, StandIn

ASK = [{"role": "user", "content": "Name a fruit."}]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_http, "BACKOFF", 0.01)


@pytest.fixture
def client(home: Path, fast: None):
    """``client(server, field=value)`` opens a client in a run of its own."""
    opened: list[llm.Client] = []

    def make(server: StandIn, **values):
        ctx = Context(home / "runs" / f"rtest{len(opened)}")
        recipe = llm.ModelFields(**({"generator": server.address, "concurrency": 3} | values))
        opened.append(llm.open(recipe, ctx))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
        one.ctx.close()


def test_an_answer_with_its_tokens_and_cost(client):
    with StandIn(lambda asked: Reply("<think>Round.</think> An apple.")) as server:
        one = client(server, price_in=1_000, price_out=2_000)
        (answer,) = one.ask(ASK)
    assert (answer.text, answer.reasoning, answer.finish) == ("An apple.", "Round.", "stop")
    assert (one.usage.prompt_tokens, one.usage.completion_tokens) == (3, 3) and one.usage.cost == pytest.approx(0.009)
    sent = server.requests[0].body
    assert sent["model"] == "stand-in" and sent["max_tokens"] == 1024 and sent["temperature"] == 0.8


def test_several_answers_from_servers_that_give_one_or_many(client):
    for most, requests in ((1, 3), (8, 1), (2, 2)):
        with StandIn(most_choices=most) as server:
            found = client(server).ask(ASK, n=3)
            assert len({answer.text for answer in found}) == 3 and len(server.requests) == requests


def test_the_model_at_an_address(client):
    with StandIn(models=("first", "second")) as server:
        assert client(server).endpoint.model == "first"
        assert client(server, generator_model="second").endpoint.model == "second"
        assert client(server, generator=f"{server.address}#second").endpoint.model == "second"
        assert client(server, generator=f"{server.address}/chat/completions",
                      generator_model="a#b").endpoint.model == "a#b"


@pytest.mark.parametrize("fault", [
    Reply(status=500), Reply(status=503, raw=b"<html><title>Busy</title></html>"), Reply(raw=b"<html>hello</html>"),
    Reply(raw=b""), Reply(raw=b'{"choices": [{"message": {"content": "An app'), Reply(raw=b'{"choices": []}'),
    Reply(raw=b"[]"), Reply(raw=b'{"error": {"message": "overloaded"}}'), Reply(cut=True), Reply(drop=True),
    Reply(status=429), Reply(raw=b'{"choices": [3]}'), Reply(status=504)],
    ids=["500", "503 page", "page", "nothing", "torn", "no choices", "list", "error in 200", "cut", "drop", "429",
         "odd", "504"])
def test_a_passing_fault_is_tried_again(client, fault):
    with StandIn(lambda asked: "An apple.") as server:
        server.faults += [fault, fault]
        one = client(server)
        assert one.ask(ASK)[0].text == "An apple." and len(server.requests) == 3
        assert one.usage.retries == 2 and one.usage.failed == 0


@pytest.mark.parametrize(("fault", "reason"), [
    (Reply(status=500), "server_error"), (Reply(raw=b"<html>hello</html>"), "not_json"),
    (Reply(cut=True), "broken_off"),
    (Reply(status=400, raw=b'{"error": {"message": "the prompt is too long"}}'), "refused_request")])
def test_a_lasting_fault_has_its_reason(client, fault, reason):
    with StandIn() as server:
        server.faults += [fault] * 20
        with pytest.raises(Failed) as failed:
            client(server).ask(ASK)
    assert failed.value.reason == reason and failed.value.reason in llm_http.REASONS
    if reason == "refused_request":
        assert len(server.requests) == 1 and "too long" in failed.value.detail


def test_a_timeout(client):
    with StandIn(lambda asked: Reply("late", delay=3)) as server:
        began = time.monotonic()
        with pytest.raises(Failed, match="in time"):
            client(server, timeout=1).ask(ASK)
        assert len(server.requests) == 3 and time.monotonic() - began < 5


@pytest.mark.parametrize("asked", ["1", "date"])
def test_patience_that_is_asked_for_is_given_by_all(client, asked):
    import email.utils

    wait = asked if asked == "1" else email.utils.formatdate(time.time() + 2, usegmt=True)
    with StandIn() as server:
        one = client(server)
        server.faults += [Reply(status=429, headers={"Retry-After": wait})]
        began = time.monotonic()
        assert one.ask(ASK) and time.monotonic() - began > 0.8
        server.faults += [Reply(status=429, headers={"Retry-After": "1"})]
        other = threading.Thread(target=one.ask, args=(ASK,), daemon=True)
        other.start()
        while one.usage.retries < 2:
            time.sleep(0.01)
        began = time.monotonic()
        one.ask(ASK)
        assert time.monotonic() - began > 0.6
        other.join()


def test_settings_that_a_server_does_not_know_are_left_out(client):
    with StandIn(refuse=("seed", "max_tokens", "temperature")) as server:
        with pytest.raises(Failed, match="max_tokens"):
            client(server).ask(ASK)
    with StandIn(refuse=("seed", "top_p")) as server:
        one = client(server)
        assert one.ask(ASK) and len(server.requests) == 3 and one.ask(ASK) and len(server.requests) == 4
    with StandIn() as server:
        server.faults += [Reply(status=400, raw=b'{"error": {"message": "Use \'max_completion_tokens\' instead."}}')]
        client(server).ask(ASK)
        assert "max_tokens" not in server.requests[1].body and server.requests[1].body["max_completion_tokens"] == 1024


@pytest.mark.parametrize(("finish", "text", "wanted"), [
    (None, "A fig.", ""), ("end_turn", "A fig.", "stop"), ("MAX_TOKENS", "A fig.", "length"),
    ("content_filter", "", "content_filter"),
    (7, "A fig.", "7"), ("stop", "one two three four", "length")])
def test_finish_reasons(client, finish, text, wanted):
    with StandIn(lambda asked: Reply(text, finish=finish)) as server:
        (answer,) = client(server, max_new_tokens=4).ask(ASK)
    assert (answer.text, answer.finish) == (text, wanted)


def test_answers_without_usage_are_told_not_guessed(client):
    with StandIn(lambda asked: Reply("A fig.", usage=False)) as server:
        one = client(server)
        one.ask(ASK)
    assert (one.usage.uncounted, one.usage.completion_tokens) == (1, 0)


def test_map_asks_side_by_side_and_gives_failures_their_place(client):
    def answer(asked: Asked) -> Reply:
        if asked.last == "3":
            return Reply(status=400)
        return Reply(f"got {asked.last}", delay=0.15 if asked.last == "0" else 0.02)

    with StandIn(answer) as server:
        one = client(server, concurrency=4)
        found = list(one.map((str(i), [{"role": "user", "content": str(i)}], {}) for i in range(12)))
    assert sorted(key for key, _ in found) == sorted(map(str, range(12))) and found[0][0] != "0"
    texts = {key: value[0].text for key, value in found if key != "3"}
    assert texts == {str(i): f"got {i}" for i in range(12) if i != 3}
    assert isinstance(dict(found)["3"], Failed) and 2 <= server.most_at_once <= 4
    seeds = {asked.last: asked.seed for asked in server.requests}
    assert len(set(seeds.values())) == 12


def test_the_seed_of_a_request_is_that_of_its_key(client):
    def seeds(order):
        with StandIn() as server:
            list(client(server, seed=5).map((str(i), ASK, {}) for i in order))
            return sorted(asked.seed for asked in server.requests)

    assert seeds(range(6)) == seeds(reversed(range(6)))


def test_map_reads_its_requests_as_it_goes(client):
    read = []

    def requests():
        for i in range(1000):
            read.append(i)
            yield str(i), ASK, {}

    with StandIn() as server:
        for _ in client(server).map(requests()):
            break
    assert len(read) < 12


def test_a_stop_gives_what_is_there_and_ends(client):
    with StandIn(lambda asked: Reply("x", delay=0.3)) as server:
        one, found = client(server), []
        with pytest.raises(Stopped):
            for key, _ in one.map((str(i), ASK, {}) for i in range(100)):
                found.append(key)
                one.ctx.request_stop()
        assert 1 <= len(found) == len(set(found)) <= len(server.requests) <= 6


def test_a_stop_does_not_wait_for_a_server_that_hangs(client, monkeypatch):
    monkeypatch.setattr(llm, "GRACE", 0.3)
    with StandIn(lambda asked: Reply("x", delay=20)) as server:
        one = client(server)
        threading.Timer(0.3, one.ctx.request_stop).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            list(one.map((str(i), ASK, {}) for i in range(9)))
        assert time.monotonic() - began < 3


def test_a_server_that_dies_ends_the_run_and_says_how_to_go_on(client):
    with StandIn() as server:
        one = client(server)

        def requests():
            for i in range(100):
                if i == 10:
                    server.die()
                yield str(i), ASK, {}

        with pytest.raises(StudioError, match="not there any more") as err:
            list(one.map(requests()))
    assert "resume" in err.value.hint and err.value.field == "generator"


def test_a_server_that_fails_everything_ends_the_run(client):
    with StandIn(lambda asked: Reply(status=500)) as server:
        with pytest.raises(StudioError, match="in a row"):
            list(client(server).map((str(i), ASK, {}) for i in range(100)))
        assert len(server.requests) < 100


def test_a_server_that_refuses_everything_from_the_start_ends_the_run(client):
    with StandIn(lambda asked: Reply(status=400, raw=b'{"error": {"message": "roles must alternate"}}')) as server:
        with pytest.raises(StudioError, match="roles must alternate"):
            list(client(server).map((str(i), ASK, {}) for i in range(100)))
        assert len(server.requests) < 30
    with StandIn(lambda asked: Reply(status=400) if asked.number else "Yes.") as server:
        found = [answer for _, answer in client(server, concurrency=1).map((str(i), ASK, {}) for i in range(50))]
        assert sum(isinstance(answer, Failed) for answer in found) == 49, "single requests may be refused"


def test_no_quota_left_is_no_reason_to_wait(client):
    with StandIn(lambda asked: Reply(status=429, raw=b'{"error": {"code": "insufficient_quota"}}')) as server:
        with pytest.raises(StudioError, match="insufficient_quota"):
            client(server).ask(ASK)
        assert len(server.requests) == 1


def test_a_refused_key_is_never_repeated(client, monkeypatch):
    monkeypatch.setenv("ATELIER_KEY_127_0_0_1", "sk-very-secret")
    with StandIn(key="another") as server:
        one = client(server)
        with pytest.raises(StudioError) as err:
            one.ask(ASK)
    assert server.requests[0].key == "sk-very-secret"
    assert "sk-very-secret" not in str(err.value) and "ATELIER_KEY_127_0_0_1" in err.value.hint


@pytest.mark.parametrize("ref", ["http://", "https://user:pass@host/v1", "http://host/v1?key=sk-1", "library:nope", "",
                                 "nowhere"])
def test_a_model_that_cannot_be_asked_is_refused_before_the_run(home, ref):
    with pytest.raises(StudioError) as err:
        llm.check(llm.ModelFields(generator=ref))
    assert err.value.field == "generator"


def test_no_server_at_the_address(client):
    server = StandIn()
    server.port = 9
    with pytest.raises(StudioError) as err:
        client(server)
    assert err.value.field == "generator"


def test_the_journal_survives_a_torn_line(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.put("a", {"text": "one\n\u2028two"})
        journal.put("b", [1, 2])
        journal.put("a", {"text": "again"})
        assert journal.done("a") == {"text": "one\n\u2028two"} and journal.done("c") is None and len(journal) == 2
    with open(path, "ab") as file:
        file.write(b'{"key": "c", "rec')
    with Journal(path) as journal:
        assert "c" not in journal and journal.done("b") == [1, 2]
        journal.put("c", 3)
    with Journal(path) as journal:
        assert [journal.done(key) for key in "abc"] == [{"text": "one\n\u2028two"}, [1, 2], 3]


def test_the_journal_takes_many_threads(tmp_path: Path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        threads = [threading.Thread(target=lambda t=t: [journal.put(f"{t}-{i}", {"i": i, "t": t}) for i in range(200)])
                   for t in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(journal.done(f"{t}-{i}") == {"i": i, "t": t} for t in range(8) for i in range(200))
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert len(journal) == 1600
