"""Who may die without harm to a run: the studio, the terminal, the guardian, the machine's memory of all of them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time

import psutil

from studio import settings
from studio.jobs import process, store
from studio.jobs.supervisor import Supervisor, stop


def test_the_studio_is_killed_and_the_next_one_adopts_the_run(jobs):
    studio = jobs.studio()
    run = jobs.submit(steps=400, pause=0.02)
    pids = jobs.speaking(run, tick=False)
    studio.kill()
    studio.wait()
    before = len(jobs.events(run, "metric"))
    jobs.until(lambda: len(jobs.events(run, "metric")) > before + 5, "the run goes on")
    jobs.studio()
    time.sleep(0.8)  # more than a tick of the new one
    row = store.get(run)
    assert (row["state"], row["attempt"], row["pid"]) == ("running", 1, pids["pid"])
    assert jobs.json(run, "guardian.json") == pids
    stop(run)
    assert jobs.over(run, tick=False)["state"] == "stopped"
    assert jobs.states(run).count("starting") == 1


def test_a_run_that_ended_while_no_studio_was_open_is_closed_by_its_guardian(jobs):
    studio = jobs.studio()
    run = jobs.submit(steps=30, pause=0.02)
    jobs.speaking(run, tick=False)
    studio.kill()
    studio.wait()
    assert jobs.over(run, tick=False)["state"] == "succeeded"


def test_two_studios_start_each_run_once_and_in_order(jobs):
    jobs.studio()
    jobs.studio()
    runs = [jobs.submit(steps=2) for _ in range(5)]
    for run in runs:
        assert jobs.over(run, tick=False)["state"] == "succeeded"
    assert all(jobs.states(run).count("starting") == 1 for run in runs)
    assert all(len(jobs.events(run, "metric")) == 2 for run in runs)
    starts = [store.get(run)["started"] for run in runs]
    assert starts == sorted(starts)


def test_the_queue_goes_on_with_no_studio_at_all(jobs):
    runs = [jobs.submit(steps=2) for _ in range(3)]
    code = "from studio.jobs.supervisor import Supervisor; print(Supervisor(warm=False).tick())"
    once = subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT, capture_output=True, text=True)
    assert once.stdout == "1\n", once.stderr
    rows = [jobs.over(run, tick=False) for run in runs]
    assert [row["state"] for row in rows] == ["succeeded"] * 3
    for before, after in zip(rows, rows[1:], strict=False):
        assert after["started"] >= before["ended"] - 0.5  # one slot: they did not overlap


def test_light_work_runs_beside_a_training(jobs):
    heavy, light = jobs.submit("wait"), jobs.submit("wait", kind="setup")
    jobs.wait(heavy, "running")
    jobs.wait(light, "running")
    for run in (heavy, light):
        stop(run)
        jobs.over(run)


def test_the_terminal_is_closed(jobs):
    master, slave = pty.openpty()
    code = ("import fcntl, signal, termios, time; signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # nohup's children ignore it
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "from studio.jobs.supervisor import Supervisor; Supervisor(warm=False).start(); time.sleep(600)")
    studio = subprocess.Popen([sys.executable, "-c", code], cwd=settings.ROOT, stdin=slave, stdout=slave, stderr=slave,
                              start_new_session=True)
    os.close(slave)
    try:
        run = jobs.submit(steps=400, pause=0.02)
        pids = jobs.speaking(run, tick=False)
        assert psutil.Process(pids["pid"]).terminal() is None
        os.close(master)
        assert studio.wait(timeout=10) == -signal.SIGHUP
        for pid in (pids["pid"], pids["worker_pid"]):
            os.kill(pid, signal.SIGHUP)  # as a shell does to what it knows of
        before = len(jobs.events(run, "metric"))
        jobs.until(lambda: len(jobs.events(run, "metric")) > before + 5, "the run goes on")
    finally:
        studio.kill()
        studio.wait()
    stop(run)
    assert jobs.over(run, tick=False)["state"] == "stopped"


def test_a_killed_guardian_takes_its_worker_with_it_before_the_run_is_lost(jobs):
    run = jobs.submit(steps=1000, pause=0.02, save_every=5)
    pids = jobs.speaking(run)
    jobs.until(lambda: len(jobs.events(run, "metric")) > 8, "a checkpoint")
    os.kill(pids["pid"], signal.SIGKILL)
    jobs.until(lambda: not process.alive(pids["pid"], pids["started"]), "guardian is gone")
    assert process.alive(pids["worker_pid"], pids["worker_started"])
    Supervisor(warm=False).tick()
    row = store.get(run)
    assert row["state"] == "lost" and "guardian is gone" in row["reason"] and "Resume" in row["hint"]
    assert not process.alive(pids["worker_pid"], pids["worker_started"])
    store.resume(run)
    Supervisor(warm=False).tick()
    resumed = jobs.until(lambda: jobs.events(run, "resume"), "resume")
    assert resumed[0]["step"] >= 5
    stop(run, now=True)
    jobs.over(run)


def test_guardian_and_worker_killed_together(jobs):
    run = jobs.submit("wait")
    pids = jobs.speaking(run)
    for pid in (pids["pid"], pids["worker_pid"]):
        os.kill(pid, signal.SIGKILL)
    assert jobs.over(run)["state"] == "lost"


def test_a_worker_that_finished_without_its_guardian_keeps_its_result(jobs):
    run = jobs.submit(steps=20, pause=0.02)
    pids = jobs.speaking(run)
    os.kill(pids["pid"], signal.SIGKILL)
    jobs.until(lambda: jobs.json(run, "result.json"), "result")
    assert jobs.over(run)["state"] == "succeeded"


def test_a_reused_pid_is_not_believed(jobs):
    run = jobs.submit()
    store.claim(1)
    me = {"pid": os.getpid(), "started": process.started() - 1000}
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        me |= {"worker_pid": stranger.pid, "worker_started": process.started(stranger.pid) - 1000}
        (jobs.dir(run) / "guardian.json").write_text(json.dumps(me))
        Supervisor(warm=False).tick()
        assert store.get(run)["state"] == "lost"
        assert stranger.poll() is None  # it has the worker's number, but it is not the worker
    finally:
        stranger.kill()
        stranger.wait()


def test_a_clock_that_was_set_does_not_lose_a_living_run(jobs):
    run = jobs.submit("wait")
    pids = jobs.speaking(run)
    shifted = pids | {"started": pids["started"] + 3600, "worker_started": pids["worker_started"] + 3600}
    (jobs.dir(run) / "guardian.json").write_text(json.dumps(shifted))
    Supervisor(warm=False).tick()
    assert store.get(run)["state"] == "running"
    stop(run)  # its guardian cannot be signalled now, it finds the stop file
    assert jobs.over(run)["state"] == "stopped"


def test_a_claimed_run_that_never_began_is_lost_after_a_while(jobs, monkeypatch):
    run = jobs.submit()
    store.claim(1)  # and the claimer dies here
    Supervisor(warm=False).tick()
    assert store.get(run)["state"] == "starting"
    with monkeypatch.context() as patch:
        patch.setattr("studio.jobs.supervisor.START_LIMIT", 0.0)
        Supervisor(warm=False).tick()
    row = store.get(run)
    assert row["state"] == "lost" and "never began" in row["reason"]
    store.resume(run)
    assert jobs.over(run)["state"] == "succeeded"


def test_a_guardian_that_is_still_loading_is_waited_for(jobs, monkeypatch):
    """On a busy machine it may take a minute before it says anything; dead, or after five minutes, it is given up."""
    run = jobs.submit()
    real, spawned = subprocess.Popen, []

    def slow(command, **more):
        assert command[-1] == "studio.jobs.guardian"
        spawned.append(real([sys.executable, "-c", "import time; time.sleep(300)"], **more))
        return spawned[-1]

    with monkeypatch.context() as patch:
        patch.setattr("studio.jobs.supervisor.subprocess.Popen", slow)
        patch.setattr("studio.jobs.supervisor.START_LIMIT", 0.0)
        supervisor = Supervisor(warm=False)
        try:
            assert supervisor.tick() == 1
            assert jobs.json(run, "launch.json")["pid"] == spawned[0].pid
            Supervisor(warm=False).tick()
            assert store.get(run)["state"] == "starting"
            patch.setattr("studio.jobs.supervisor.LOADING_LIMIT", 0.0)
            other = jobs.submit()
            Supervisor(warm=False).tick()
            assert store.get(run)["state"] == "lost", "after its time, though the process lives"
        finally:
            for child in spawned:
                child.kill()
                child.wait()
        patch.setattr("studio.jobs.supervisor.LOADING_LIMIT", 300.0)
        Supervisor(warm=False).tick()
        assert store.get(other)["state"] == "lost", "its process is dead"
    store.resume(run)
    assert not (jobs.dir(run) / "launch.json").exists()
    assert jobs.over(run)["state"] == "succeeded"


def test_a_second_guardian_leaves(jobs):
    run = jobs.submit("wait")
    pids = jobs.speaking(run)
    env = os.environ | {"ATELIER_RUN_DIR": str(jobs.dir(run)), "PYTHONPATH": str(settings.ROOT)}
    second = subprocess.run([sys.executable, "-m", "studio.jobs.guardian"], env=env, timeout=30)
    assert second.returncode == 3
    assert jobs.json(run, "guardian.json") == pids
    assert (jobs.dir(run) / "worker.log").read_text().count("the worker speaks") == 1
    stop(run)
    jobs.over(run)


def test_a_guardian_that_comes_too_late_for_its_run_leaves_nothing_behind(jobs):
    run = jobs.submit("wait")
    store.claim(1)
    store.close(run, "lost")
    env = os.environ | {"ATELIER_RUN_DIR": str(jobs.dir(run)), "PYTHONPATH": str(settings.ROOT)}
    late = subprocess.run([sys.executable, "-m", "studio.jobs.guardian"], env=env, timeout=30)
    assert late.returncode == 0 and jobs.json(run, "exit.json")["signal"] == signal.SIGKILL
    assert store.get(run)["state"] == "lost"


def test_sigterm_to_the_guardian_is_a_stop(jobs):
    run = jobs.submit(steps=400, pause=0.02)
    os.kill(jobs.speaking(run)["pid"], signal.SIGTERM)
    row = jobs.over(run)
    assert row["state"] == "stopped" and (jobs.dir(run) / "stop").exists()
    assert "stopping" in jobs.states(run)


def test_no_zombie_is_left_in_the_studio(jobs):
    studio = jobs.studio()
    run = jobs.submit(steps=1)
    assert jobs.over(run, tick=False)["state"] == "succeeded"

    def reaped() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return all(c.status() != psutil.STATUS_ZOMBIE for c in psutil.Process(studio.pid).children())
        return True

    jobs.until(reaped, "zombies reaped")


def test_the_order_changed_while_a_run_goes_on_is_kept(jobs):
    first = jobs.submit("wait")
    jobs.wait(first, "running")
    a, b = jobs.submit(steps=1), jobs.submit(steps=1)
    store.reorder(b, before_id=a)
    stop(first)
    jobs.over(a, tick=False)
    assert store.get(b)["state"] == "succeeded"
    assert store.get(b)["started"] < store.get(a)["started"]
