"""Runs on a real Ray cluster of one node: seen through, stopped, resumed, and every part of it killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray", reason="the optional part Ray is not installed")

from studio import recipe  # noqa: E402
from studio.errors import StudioError  # noqa: E402
from studio.jobs import backends, store  # noqa: E402
from studio.jobs.context import checkpoints  # noqa: E402
from studio.jobs.supervisor import stop  # noqa: E402
from tests.ray_cluster import Cluster, free_port  # noqa: E402

pytestmark = pytest.mark.timeout(900)
LONG = 300  # seconds; a job starts in about five, on two cores that forty processes want in two hundred


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def send(jobs, cluster, monkeypatch) -> Any:
    """``send(mode, place={...}, **values)`` -> id of a run that was sent to the cluster."""
    monkeypatch.setenv("ATELIER_REMOTE_PATIENCE", "15")

    def submit(mode: str = "emit", place: dict[str, Any] | None = None, **values: Any) -> str:
        made = recipe.parse({"kind": "sft", "method": "fake", "mode": mode, **values})
        where = backends.check({"name": "ray", "address": cluster.address, **(place or {})}, made)
        return store.submit(made, backend=where)["id"]

    return submit


def steps(jobs, run: str) -> list[int]:
    return [event["step"] for event in jobs.events(run, "metric")]


def remote(jobs, run: str) -> dict[str, Any]:
    return jobs.json(run, "remote.json") or {}


def computing(run: str) -> list[psutil.Process]:
    """Processes of the other side that belong to a run: the job's program and its worker."""
    found = []
    for process in psutil.process_iter():
        try:
            line, env = " ".join(process.cmdline()), process.environ()
        except psutil.Error:
            continue
        if "studio.jobs.worker" in line and env.get("ATELIER_RUN_DIR", "").endswith(run) and "atelier-job-" in env["STUDIO_HOME"]:
            found += [process, process.parent()]
    return [process for process in found if process]


def until_it_computes(jobs, run: str, step: int = 1) -> None:
    jobs.until(lambda: steps(jobs, run)[-1:] >= [step] and computing(run), f"{run} at step {step}", LONG, tick=True)


def none_left(jobs, cluster: Cluster, run: str) -> None:
    jobs.until(lambda: not computing(run), "its processes are gone", 60)


def test_a_run_is_seen_through_beside_a_local_one(jobs, send, cluster):
    local = jobs.submit("wait")  # holds the only compute slot of this machine
    run = send(steps=6, save_every=3)
    row = jobs.wait(run, "succeeded", "failed", "lost", timeout=LONG)
    assert (row["state"], row["reason"]) == ("succeeded", "") and row["backend"]["name"] == "ray"
    assert store.get(local)["state"] == "running"
    assert steps(jobs, run) == [1, 2, 3, 4, 5, 6]
    assert row["summary"] == {"step": 6, "first": 0, "threads": 1, "nan": "NaN"}
    folder = jobs.dir(run)
    assert (folder / "output" / "weights.txt").read_text() == "6"
    assert (folder / "checkpoints" / "checkpoint-3" / "COMPLETE").exists()
    assert "the worker speaks" in (folder / "worker.log").read_text()
    assert jobs.json(run, "result.json")["artifacts"][0]["path"] == str(folder / "output" / "weights.txt")
    assert jobs.events(run, "artifact")[0]["path"] == str(folder / "output" / "weights.txt")
    from studio.library import artifacts

    made = artifacts.listed(run_id=run)
    assert [item["name"] for item in made] == ["weights"] and Path(made[0]["path"]).is_file()
    assert (folder / "remote.json").stat().st_mode & 0o077 == 0
    token = remote(jobs, run)["token"]
    assert token not in "".join((folder / name).read_text() for name in ("events.jsonl", "worker.log", "recipe.yaml"))
    none_left(jobs, cluster, run)
    stop(local)
    jobs.wait(local, "stopped")


def test_a_stop_brings_its_checkpoint_home_and_the_run_goes_on_there(jobs, send, cluster, tmp_path):
    """Over a folder that both sides see: the courier finds the same things in another way."""
    shared = tmp_path / "shared"
    shared.mkdir()
    run = send(place={"storage": str(shared)}, steps=400, pause=0.05)
    jobs.until(lambda: steps(jobs, run)[-1:] >= [2], "it computes", LONG, tick=True)
    stop(run)
    row = jobs.wait(run, "stopped", timeout=LONG)
    assert row["reason"] == "Stopped as asked."
    last = max(int(path.name.split("-")[1]) for path in (jobs.dir(run) / "checkpoints").iterdir())
    assert last == row["summary"]["step"] == steps(jobs, run)[-1] < 400
    first = remote(jobs, run)["job"]
    assert not list(shared.iterdir())
    store.resume(run)
    jobs.until(lambda: steps(jobs, run)[-1] > last, "it goes on", LONG, tick=True)
    assert remote(jobs, run)["job"] != first
    assert steps(jobs, run)[:last + 1] == list(range(1, last + 2))
    stop(run, now=True)
    assert jobs.wait(run, "stopped", timeout=LONG)["reason"].startswith("Stopped at once")
    jobs.until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if str(shared) in str(p.info["cmdline"])], "gone")


def test_killed_parts_tell_so_and_lose_nothing(jobs, send, cluster):
    run = send(steps=2000, pause=0.05, save_every=10)
    until_it_computes(jobs, run, 12)
    computing(run)[0].send_signal(signal.SIGKILL)  # the worker there
    row = jobs.wait(run, "failed", "lost", timeout=LONG)
    assert row["state"] == "failed" and "other machine was killed by signal 9" in row["reason"]
    home = jobs.dir(run) / "checkpoints"
    assert (home / "checkpoint-10" / "COMPLETE").exists() and not list(home.glob("*.part"))
    newest = max(int(path.name.split("-")[1]) for path in home.glob("checkpoint-*"))

    first = len(steps(jobs, run))
    store.resume(run)
    jobs.until(lambda: len(steps(jobs, run)) > first and computing(run), "it computes again", LONG, tick=True)
    assert [event["step"] for event in jobs.events(run, "resume")] == [newest]
    job, here = remote(jobs, run)["job"], jobs.json(run, "guardian.json")
    for pid in (here["pid"], here["worker_pid"]):  # guardian and courier here: nobody watches it
        os.kill(pid, signal.SIGKILL)
    assert jobs.wait(run, "lost", timeout=LONG)["state"] == "lost"
    seen = len(steps(jobs, run))
    assert computing(run)
    time.sleep(1)  # it goes on there

    store.resume(run)
    jobs.until(lambda: len(steps(jobs, run)) > seen + 10, "news of the same job", LONG, tick=True)
    assert remote(jobs, run)["job"] == job and len(jobs.events(run, "resume")) == 1
    second = steps(jobs, run)[first:]
    assert second == list(range(newest + 1, newest + 1 + len(second)))  # nothing twice, nothing left out
    jobs.until(lambda: (home / f"checkpoint-{newest + 10}" / "COMPLETE").exists(), "a checkpoint came home", LONG, tick=True)
    computing(run)[1].send_signal(signal.SIGKILL)  # the job itself
    row = jobs.wait(run, "failed", "lost", timeout=LONG)
    assert row["state"] == "lost" and "ended without a word" in row["reason"] and "Resume goes on from step" in row["hint"]
    none_left(jobs, cluster, run)


def test_what_cannot_start_is_told(jobs, send, cluster, monkeypatch):
    with pytest.raises(StudioError) as err:
        send(place={"address": f"http://127.0.0.1:{free_port()}"})
    assert err.value.field == "backend" and "No Ray cluster answers" in err.value.message
    with pytest.raises(StudioError):
        send(place={"cpus": "many"})
    from studio.jobs.backends import parcel

    run = send(place={"cpus": 500})  # more than the cluster has: it waits in Ray's own queue
    jobs.until(lambda: remote(jobs, run).get("job"), "it was sent", LONG, tick=True)
    stop(run)
    assert jobs.wait(run, "stopped", timeout=LONG)["reason"] == "Stopped before it began to work."
    assert parcel.needed()["torch"]


def test_the_last_a_cluster_that_is_gone_leaves_no_run_that_lies(jobs, send, cluster):
    run = send(steps=1000, pause=0.05, save_every=10)
    until_it_computes(jobs, run)
    jobs.until(lambda: (jobs.dir(run) / "checkpoints" / "checkpoint-10" / "COMPLETE").exists(), "it came home", LONG, tick=True)
    there = computing(run)
    cluster.kill()
    row = jobs.wait(run, "lost", "failed", timeout=LONG)
    assert row["state"] == "lost" and "Nothing was heard" in row["reason"]
    assert "If the job still runs, Resume goes back to it." in row["hint"] and "step" in row["hint"]
    jobs.until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in there), "the worker ended", 60)
    assert jobs.events(run, "warning") == [] or jobs.events(run, "warning")[0]["code"] == "remote_silent"
    store.resume(run, backend=dict(backends.LOCAL))  # the cluster is gone for good: on with it here
    newest = int(checkpoints(jobs.dir(run) / "checkpoints")[-1].name.split("-")[1])  # one half come home does not count
    jobs.until(lambda: jobs.events(run, "resume"), "it goes on here", LONG, tick=True)
    assert jobs.events(run, "resume")[0]["step"] == newest
    stop(run)
    jobs.wait(run, "stopped")
