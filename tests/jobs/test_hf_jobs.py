"""Runs on a stand-in of Hugging Face Jobs that really runs them: price, secrets, results, stop, time limit, a visitor of a Space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from studio import recipe
from studio.errors import StudioError
from studio.jobs import backends, store
from studio.jobs.backends import tokens
from studio.jobs.supervisor import stop
from tests.hub_stand_in import TOKEN
from tests.jobs_stand_in import JobsHub

pytestmark = pytest.mark.timeout(900)
LONG = 300  # seconds; see test_ray.py


@pytest.fixture
def hub(jobs, monkeypatch, tmp_path) -> Iterator[JobsHub]:
    with JobsHub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # the stand-in takes files by LFS
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("ATELIER_REMOTE_PATIENCE", "8")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield made


def plan(**values: Any) -> Any:
    return recipe.parse({"kind": "sft", "method": "fake", "mode": "emit", **values})


def send(owner: str | None = None, place: dict[str, Any] | None = None, token: str | None = TOKEN, **values: Any) -> str:
    options = {"name": "hf_jobs", "flavor": "cpu-basic", "hours": 1, "agreed": 1.0, **(place or {})}
    made = plan(**values)
    return store.submit(made, owner, backend=backends.check(options, made, token))["id"]


def steps(jobs, run: str) -> list[int]:
    return [event["step"] for event in jobs.events(run, "metric")]


def test_the_price_is_said_and_agreed_to_before_anything_is_asked_for(hub):
    offer = backends.offer("hf_jobs", TOKEN)
    assert offer["unavailable"] == ""
    flavors = offer["fields"][0]["choices"]
    assert [name for name, _ in flavors] == ["cpu-basic", "t4-small"] and "$0.40 an hour" in flavors[1][1]
    told = backends.notes({"name": "hf_jobs", "flavor": "t4-small", "hours": 2.5}, plan(), TOKEN)
    assert told["cost"] == pytest.approx(1.0, abs=0.001)
    with pytest.raises(StudioError) as err:
        send(place={"flavor": "t4-small", "hours": 2.5, "agreed": 0.5})
    assert err.value.field == "backend" and "$1.00" in err.value.message
    for odd in ({"flavor": "h900"}, {"hours": 0}, {"hours": "soon"}, {"image": "a b"}):
        with pytest.raises(StudioError):
            send(place=odd)
    assert backends.notes({"name": "local"}, plan())["cost"] is None
    assert "logged in" in backends.offer("hf_jobs", None)["unavailable"]
    assert not hub.jobs and not hub.created


def test_a_visitor_of_a_space_sees_a_job_through_with_their_own_token(jobs, hub, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "lab/studio")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_space")
    assert tokens.of("ann") is None
    tokens.keep("ann", TOKEN)
    assert tokens.of("ann") == TOKEN and tokens.of("bob") is None and tokens.of(None) is None
    run = send("ann", token=tokens.of("ann"), steps=6, save_every=3)
    row = jobs.wait(run, "succeeded", "failed", "lost", timeout=LONG)
    assert (row["state"], row["reason"]) == ("succeeded", ""), jobs.report()

    job = next(iter(hub.jobs.values()))
    assert job.spec["secrets"] == {"HF_TOKEN": TOKEN} and job.spec["timeoutSeconds"] == 3600
    assert job.spec["flavor"] == "cpu-basic" and job.spec["dockerImage"] == "python:3.11"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert not hub.repos  # everything is home
    assert steps(jobs, run) == [1, 2, 3, 4, 5, 6] and row["summary"]["step"] == 6
    folder = jobs.dir(run)
    assert (folder / "output" / "weights.txt").read_text() == "6"
    assert (folder / "checkpoints" / "checkpoint-3" / "COMPLETE").exists()
    assert "the worker speaks" in (folder / "worker.log").read_text()
    assert jobs.json(run, "result.json")["artifacts"][0]["path"] == str(folder / "output" / "weights.txt")
    kept = [path for path in jobs.home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert TOKEN not in str(job.spec["environment"]) + str(job.spec["command"]) + "".join(job.lines)

    other = send("bob", token=TOKEN, steps=2)  # the server was started again since: nobody's token is known
    row = jobs.wait(other, "failed", timeout=LONG)
    assert "Nobody is logged in" in row["reason"] and len(hub.jobs) == 1
    tokens._held.clear()


def test_a_stop_a_time_limit_and_a_cancel(jobs, hub):
    hub.hold = True
    waiting = send(steps=5)
    jobs.until(lambda: hub.jobs, "it was sent", LONG, tick=True)
    stop(waiting)
    assert jobs.wait(waiting, "stopped", timeout=LONG)["reason"] == "Stopped before it began to work."
    assert next(iter(hub.jobs.values())).stage == "CANCELED"
    hub.hold = False

    run = send(steps=2000, pause=0.05, save_every=20)
    jobs.until(lambda: steps(jobs, run)[-1:] >= [3], "it computes", LONG, tick=True)
    stop(run)
    row = jobs.wait(run, "stopped", timeout=LONG)
    assert row["reason"] == "Stopped as asked."
    last = steps(jobs, run)[-1]
    assert (jobs.dir(run) / "checkpoints" / f"checkpoint-{last}" / "COMPLETE").exists()

    store.resume(run)
    jobs.until(lambda: steps(jobs, run)[-1] > last, "it goes on", LONG, tick=True)
    assert jobs.events(run, "resume")[0]["step"] == last
    newest = (last // 20 + 1) * 20
    jobs.until(lambda: (jobs.dir(run) / "checkpoints" / f"checkpoint-{newest}" / "COMPLETE").exists(), "one is home", LONG, tick=True)
    job = list(hub.jobs.values())[-1]
    job.end("ERROR", "Job timeout")
    row = jobs.wait(run, "lost", "failed", timeout=LONG)
    assert row["state"] == "lost" and "Job timeout" in row["reason"] and "Resume goes on from step" in row["hint"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(job.folder) in str(p.info["cmdline"])]
