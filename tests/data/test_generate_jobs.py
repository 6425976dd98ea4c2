"""Generation in real worker processes: killed, stopped, cut off from its server, and resumed; no row is lost or
doubled."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from studio.datasets.version import Version
from studio.jobs import store
from studio.jobs.supervisor import stop
from studio.library import artifacts
from studio.recipe import parse
from tests.data.test_generate import brain
from tests.jobs.conftest import Jobs
from tests.llm_stand_in import Asked, Reply, StandIn

RECIPES = {
    "idea": {"task": "Answers hikers about knots.", "count": 30},
    "self_instruct": {"count": 30, "dataset": "seeds.jsonl"},
    "evolve": {"rounds": 2, "dataset": "seeds.jsonl"},
    "generate_from_documents": {"per_part": 2, "part_size": 20, "dataset": "texts.jsonl"},
}


@pytest.fixture
def jobs(home: Path, jsonl) -> Jobs:
    jsonl("seeds.jsonl", [{"instruction": f"Describe how the {word} works in {n} steps.", "output": "Done."}
                          for n, word in enumerate("kettle clock engine loom pump lens radio sail".split())])
    jsonl("texts.jsonl", [{"text": f"The {word} of {place} was built by {n + 10} workers. It stands near the {place} "
                           f"river, and it is used by farmers. In {1900 + n} it burned down, and the people of "
                           f"{place} built it again."}
                          for n, (word, place) in enumerate(zip("mill tower bridge barn school forge inn".split(),
                                                                "Brink Holm Vale Rook Lund Marsh Thorn".split(),
                                                                strict=True))])
    return Jobs(home)


def submit(method: str, server: StandIn, **values) -> str:
    return store.submit(parse({"kind": "data", "method": method, "generator": server.address, "concurrency": 3,
                               **RECIPES.get(method, {}), **values}))["id"]


def made(run: str) -> Version:
    (row,) = results(run)
    assert len(artifacts.listed(run_id=run)) <= 2, "what was brought in first is kept once"
    return Version(row["path"])


def results(run: str) -> list[dict]:
    return [row for row in artifacts.listed(run_id=run) if row["meta"].get("stage") != "step"]


def listing(version: Version) -> list[tuple[str, str]]:
    return [(item.id, item.text) for item in version.items()]


def slow(asked: Asked) -> Reply:
    answer = brain(asked)
    return Reply(answer, delay=0.04) if isinstance(answer, str) else answer


def served(jobs: Jobs, run: str, server: StandIn, count: int) -> None:
    jobs.until(lambda: len(server.requests) >= count or store.get(run)["state"] == "failed", f"{count} requests",
               tick=True)


@pytest.mark.parametrize("method", RECIPES)
def test_killed_again_and_again_it_makes_the_rows_of_an_undisturbed_run(jobs, method):
    with StandIn(slow) as server:
        whole = submit(method, server)
        assert jobs.over(whole)["state"] == "succeeded"
        wanted, asked = listing(made(whole)), len(server.requests)
        server.requests.clear()
        run, kills = submit(method, server), 0
        for share in (0.15, 0.4, 0.7):
            served(jobs, run, server, int(asked * share) + kills * 3)
            os.kill(jobs.until(lambda: jobs.json(run, "guardian.json"), "guardian", tick=True)["worker_pid"],
                    signal.SIGKILL)
            assert jobs.over(run)["state"] == "failed"
            kills += 1
            assert not results(run), "nothing half made is in the library"
            store.resume(run)
        row = jobs.over(run)
        assert row["state"] == "succeeded" and row["attempt"] == 4
        found = made(run)
    assert listing(found) == wanted and found.hash == made(whole).hash
    assert asked <= len(server.requests) <= asked + kills * 3, "only what was under way is asked again"
    before, after = (made(r).meta["history"][-1] for r in (whole, run))
    assert before["reasons"] == after["reasons"]
    for name in ("requests", "prompt_tokens", "completion_tokens"):
        assert before["facts"]["usage"][name] == after["facts"]["usage"][name]


def test_stopped_and_resumed_it_makes_the_rows_of_an_undisturbed_run(jobs):
    with StandIn(slow) as server:
        whole = submit("idea", server)
        jobs.over(whole)
        asked = len(server.requests)
        server.requests.clear()
        run = submit("idea", server)
        for share in (0.3, 0.6):
            served(jobs, run, server, int(asked * share))
            stop(run)
            row = jobs.over(run)
            assert (row["state"], row["reason"]) == ("stopped", "Stopped as asked.")
            store.resume(run)
        assert jobs.over(run)["state"] == "succeeded"
        assert listing(made(run)) == listing(made(whole))
        assert len(server.requests) == asked, "not one request is made twice"
    figures = jobs.events(run, "metric")[-1]["values"]
    assert figures["rows"] == 30 and figures["completion_tokens"] > 0
    assert any(e.get("eta") for e in jobs.events(run, "progress")) and jobs.events(run, "sample")


def test_a_server_that_dies_fails_the_run_cleanly_and_it_goes_on_when_the_server_is_back(jobs):
    server = StandIn(slow)
    server.start()
    try:
        whole = submit("idea", server)
        jobs.over(whole)
        server.requests.clear()
        run = submit("idea", server)
        served(jobs, run, server, 20)
        server.die()
        row = jobs.over(run, timeout=60)
        assert (row["state"], row["field"]) == ("failed", "generator") and "not there any more" in row["reason"]
        assert "resume" in row["hint"] and not results(run)
        server.start()
        server.requests.clear()
        store.resume(run)
        assert jobs.over(run)["state"] == "succeeded"
        assert listing(made(run)) == listing(made(whole)) and len(server.requests) < 62 - 15
    finally:
        server.die()


def test_a_server_that_fails_everything_for_a_while_leaves_no_failures_behind(jobs):
    with StandIn(slow) as server:
        whole = submit("idea", server)
        jobs.over(whole)
        server.requests.clear()
        run = submit("idea", server)
        served(jobs, run, server, 20)
        server.faults += [Reply(status=400)] * 3 + [Reply(status=401)] * 9
        row = jobs.over(run)
        assert row["state"] == "failed" and "ATELIER_KEY_127_0_0_1" in row["hint"]
        server.faults.clear()
        store.resume(run)
        assert jobs.over(run)["state"] == "succeeded"
        assert listing(made(run)) == listing(made(whole))


def test_a_key_is_nowhere_in_the_workspace(jobs, monkeypatch):
    secret = "sk-0a1b2c3d4e5f-secret"
    monkeypatch.setenv("ATELIER_KEY_127_0_0_1", secret)
    with StandIn(slow, key=secret) as server:
        good = submit("idea", server, count=5)
        assert jobs.over(good)["state"] == "succeeded" and {asked.key for asked in server.requests} == {secret}
    with StandIn(slow, key="sk-another") as server:  # its refusal repeats the key it was sent
        bad = submit("idea", server, count=5)
        row = jobs.over(bad)
        assert row["state"] == "failed" and "refuses" in row["reason"] and server.requests[0].key == secret
    files = [path for path in jobs.home.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert secret.encode() not in path.read_bytes(), path


def test_the_generation_steps_of_a_pipeline_keep_a_journal_each(jobs):
    steps = [{"method": "idea", "task": "Knots.", "count": 8}, {"method": "evolve", "rounds": 1}]
    with StandIn(slow) as server:
        steps = [step | {"generator": server.address, "concurrency": 2} for step in steps]
        pipeline = parse({"kind": "data", "method": "pipeline", "steps": steps})
        runs = [store.submit(pipeline)["id"]]
        assert jobs.over(runs[0])["state"] == "succeeded"
        wanted = listing(made(runs[0]))
        for row in artifacts.listed(run_id=runs[0]):
            artifacts.delete(row["id"])  # else the second run takes its second step from the library
        server.requests.clear()
        runs.append(store.submit(pipeline)["id"])
        served(jobs, runs[1], server, 26)
        os.kill(jobs.until(lambda: jobs.json(runs[1], "guardian.json"), "guardian", tick=True)["worker_pid"],
                signal.SIGKILL)
        assert jobs.over(runs[1])["state"] == "failed"
        store.resume(runs[1])
        assert jobs.over(runs[1])["state"] == "succeeded"
    assert len(list(jobs.dir(runs[0]).glob("journal-*.jsonl"))) == 2
    assert listing(made(runs[1])) == wanted
