"""One run from start to end, in every way it can end. Real processes."""

from __future__ import annotations

import os

import psutil
import pytest

from studio.jobs import store
from studio.jobs.supervisor import Supervisor, stop, threads_for


def test_a_run_succeeds_and_its_result_is_in_the_library(jobs):
    from studio.library import artifacts

    run = jobs.submit(steps=4)
    row = jobs.over(run)
    assert (row["state"], row["exit_code"], row["reason"]) == ("succeeded", 0, "")
    assert row["summary"] == {"step": 4, "first": 0, "threads": row["threads"], "nan": "NaN"}
    assert [e["values"]["loss"] for e in jobs.events(run, "metric")] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert jobs.states(run)[0] == "queued" and jobs.states(run)[-1] == "succeeded"
    assert jobs.events(run, "progress")[-1]["done"] == 4
    made = artifacts.listed(run_id=run)
    assert [a["name"] for a in made] == ["weights"]
    assert artifacts.get(made[0]["id"])["parents"] == [{"ref": "starter", "role": "base"}]
    Supervisor(warm=False).tick()
    assert len(artifacts.listed(run_id=run)) == 1
    assert not (jobs.dir(run) / "reserve").exists()


@pytest.mark.parametrize("mode, reason, hint, field, code", [
    ("fail", "The data is bad.", "Use better data.", "dataset", 1),
    ("bug", "RuntimeError: something odd", "log", None, 1),
    ("leave", "ended with exit code 7", "log", None, 7)])
def test_a_failure_says_why(jobs, mode, reason, hint, field, code):
    run = jobs.submit(mode)
    row = jobs.over(run)
    assert (row["state"], row["field"], row["exit_code"]) == ("failed", field, code)
    assert reason in row["reason"] and hint in row["hint"]
    log = (jobs.dir(run) / "worker.log").read_text()
    assert "the worker speaks" in log and ("Traceback" in log) == (mode != "leave")


def test_a_worker_killed_by_the_kernel_names_the_signal_and_can_be_resumed(jobs):
    run = jobs.submit("suicide")
    row = jobs.over(run)
    assert (row["state"], row["signal"], row["exit_code"]) == ("failed", 9, None)
    assert row["reason"] == "The worker was killed by signal 9 (SIGKILL)."
    assert "memory" in row["hint"] and "Resume" in row["hint"]
    store.resume(run)
    assert jobs.over(run)["attempt"] == 2


def test_stop_saves_a_checkpoint_and_resume_goes_on_from_it(jobs):
    run = jobs.submit(steps=60, pause=0.05)
    jobs.until(lambda: len(jobs.events(run, "metric")) >= 3, "three steps", tick=True)
    stop(run)
    row = jobs.over(run, tick=False)  # the guardian closes it, nobody else
    assert (row["state"], row["reason"]) == ("stopped", "Stopped as asked.")
    said = [e for e in jobs.events(run, "state") if e["state"] == "stopping"]
    assert [e["reason"] for e in said] == ["Saving a checkpoint."]
    done = row["summary"]["step"]
    assert (jobs.dir(run) / f"checkpoints/checkpoint-{done}/COMPLETE").exists()
    broken = jobs.dir(run) / "checkpoints/checkpoint-59"
    broken.mkdir()  # half written: without its COMPLETE
    store.resume(run)
    row = jobs.over(run)
    assert (row["state"], row["attempt"]) == ("succeeded", 2)
    assert row["summary"]["first"] == done
    assert [e["step"] for e in jobs.events(run, "resume")] == [done]
    steps = [e["step"] for e in jobs.events(run, "metric")]
    assert steps == list(range(1, 61))


def test_a_stop_that_is_not_heeded_escalates_and_takes_the_children(jobs, monkeypatch):
    monkeypatch.setenv("ATELIER_STOP_GRACE", "0.6")
    run = jobs.submit("stubborn")
    child = int(jobs.until(lambda: jobs.events(run, "log"), "child", tick=True)[0]["text"].split()[1])
    assert psutil.pid_exists(child)
    assert stop(run)["state"] == "stopping"
    row = jobs.over(run)
    assert row["state"] == "stopped" and row["signal"] == 9
    assert "Killed after 1 s" in row["reason"] and "Resume" in row["hint"]
    said = [e.get("reason", "") for e in jobs.events(run, "state") if e["state"] == "stopping"]
    assert said[0] == "Saving a checkpoint." and said[1].startswith("Killed after")
    jobs.until(lambda: not _lives(child), "the worker's child is gone")


def test_a_stop_while_the_worker_is_still_importing_is_a_stop(jobs):
    run = jobs.submit("wait")
    jobs.until(lambda: jobs.json(run, "guardian.json"), "guardian", tick=True)
    stop(run)
    row = jobs.over(run)
    assert row["state"] == "stopped" and row["reason"].startswith("Stopped")


def test_stop_now_does_not_wait(jobs, monkeypatch):
    monkeypatch.setenv("ATELIER_STOP_GRACE", "60")
    run = jobs.submit("stubborn")
    jobs.speaking(run)
    stop(run, now=True)
    assert jobs.over(run, timeout=10)["state"] == "stopped"


def test_what_the_worker_leaves_running_is_ended(jobs):
    run = jobs.submit("child")
    row = jobs.over(run)
    assert row["state"] == "succeeded"
    jobs.until(lambda: not _lives(row["summary"]["child"]), "orphan is gone")


def test_a_queued_run_is_stopped_at_once_and_stopping_again_is_harmless(jobs):
    run = jobs.submit()
    assert stop(run)["reason"] == "Stopped before it started."
    assert stop(run)["state"] == "stopped"
    Supervisor(warm=False).tick()
    assert store.get(run)["state"] == "stopped"
    store.resume(run)
    assert jobs.over(run)["state"] == "succeeded"


def test_a_flood_of_events_is_whole_and_in_order(jobs):
    run = jobs.submit("flood", steps=100_000)
    assert jobs.over(run, timeout=60)["state"] == "succeeded"
    assert [e["step"] for e in jobs.events(run, "metric")] == list(range(100_000))


def test_a_worker_that_prints_without_end_does_not_fill_the_disk(jobs):
    run = jobs.submit("shout")
    row = jobs.over(run, timeout=60)
    assert row["state"] == "succeeded" and row["summary"]["size"] < 20e6, "cut while the worker went on"
    text = (jobs.dir(run) / "worker.log").read_text()
    assert text.startswith("the worker speaks\n") and text.endswith("\nthe last word\n")
    assert "bytes were cut out here" in text and f"{259_999:099d}\n" in text


def test_the_heartbeat_goes_on(jobs, monkeypatch):
    run = jobs.submit("wait")
    jobs.speaking(run)
    beat = jobs.dir(run) / "heartbeat"
    first = beat.stat().st_mtime
    jobs.until(lambda: beat.stat().st_mtime > first, "another beat", timeout=10)
    stop(run)
    jobs.over(run)


@pytest.mark.parametrize("mode", ["full", "dead_full"])
def test_a_full_disk_fails_clearly_and_keeps_the_checkpoint_before(jobs, mode):
    run = jobs.submit(mode)
    row = jobs.over(run)
    assert row["state"] == "failed" and "disk is full" in row["reason"] and "Resume" in row["hint"]
    folder = jobs.dir(run) / "checkpoints"
    assert (folder / "checkpoint-1/COMPLETE").exists() and not (folder / "checkpoint-2/COMPLETE").exists()
    assert (jobs.json(run, "result.json") is None) == (mode == "dead_full")


def test_a_workspace_that_cannot_take_the_guardians_files_does_not_stop_the_worker(jobs):
    run = jobs.submit(steps=3)
    for name in ("heartbeat", "guardian.json"):
        (jobs.dir(run) / name).mkdir()  # neither can be written now
        (jobs.dir(run) / name / "x").touch()
    assert jobs.over(run)["state"] == "succeeded"


def test_an_unreadable_recipe_fails_with_its_reason(jobs):
    run = jobs.submit()
    (jobs.dir(run) / "recipe.yaml").write_text("kind: sft\nmethod: fake\nsteps: -1\n")
    row = jobs.over(run)
    assert row["state"] == "failed" and "at least 0" in row["reason"] and row["field"] == "steps"


def test_threads_depend_on_who_else_computes(jobs, monkeypatch):
    monkeypatch.setattr("studio.jobs.supervisor.cores", lambda: 8)
    monkeypatch.setattr("studio.jobs.supervisor._engines", lambda: False)
    run = store.get(jobs.submit())
    assert threads_for(run, supervised=False) == 8
    assert threads_for(run, supervised=True) == 7
    monkeypatch.setattr("studio.jobs.supervisor.cores", lambda: 2)
    assert threads_for(run, supervised=True) == 1
    monkeypatch.setattr("studio.jobs.supervisor._engines", lambda: True)
    assert threads_for(run, supervised=False) == 1
    monkeypatch.setattr("studio.jobs.supervisor._engines", lambda: False)
    jobs.submit()
    store.claim(1)
    other = store.queue()[0]
    assert threads_for(other, supervised=False) == 1
    monkeypatch.setenv("ATELIER_THREADS", "3")
    assert threads_for(other, supervised=False) == 3


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_of_a_run_keeps_the_descriptors_of_this_process(jobs, tmp_path):
    with open(tmp_path / "mine", "w") as mine:
        os.set_inheritable(mine.fileno(), False)
        run = jobs.submit("wait")
        pids = jobs.speaking(run)
        for pid in (pids["pid"], pids["worker_pid"]):
            assert str(tmp_path / "mine") not in [f.path for f in psutil.Process(pid).open_files()]
    stop(run)
    jobs.over(run)
