"""The warm process: quick, optional, and never in the way."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from studio.errors import StudioError
from studio.jobs import probe, process, store, zygote
from studio.jobs.supervisor import Supervisor, stop


@pytest.fixture
def warm(jobs, monkeypatch):
    """A supervisor of this process with its warm process ready; nothing heavy is imported."""
    monkeypatch.setenv("ATELIER_PRELOAD", "json")
    supervisor = Supervisor(warm=True)
    supervisor.start()
    jobs.until(zygote.ready, "the warm process")
    yield supervisor
    supervisor.stop()


def _parent_is_the_zygote(pid: int) -> bool:
    return "studio.jobs.zygote" in psutil.Process(pid).cmdline()


def test_a_warm_run_is_forked_and_like_any_other(jobs, warm):
    run = jobs.submit("wait")
    warm.wake()
    pids = jobs.speaking(run, tick=False)
    assert _parent_is_the_zygote(pids["pid"]) and _parent_is_the_zygote(pids["worker_pid"])
    guardian, worker = psutil.Process(pids["pid"]), psutil.Process(pids["worker_pid"])
    assert os.getsid(guardian.pid) == guardian.pid and os.getpgid(worker.pid) == worker.pid
    paths = [os.readlink(f"/proc/{guardian.pid}/fd/{fd}") for fd in (0, 1, 2)]
    assert paths == ["/dev/null"] * 3
    lock = str(jobs.dir(run) / "guardian.lock")
    held = [os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")]
    assert lock not in held and not any("zygote.lock" in path for path in held)
    assert "zygote.log" not in os.readlink(f"/proc/{worker.pid}/fd/1")
    stop(run)
    row = jobs.over(run, tick=False)
    assert (row["state"], row["exit_code"]) == ("stopped", 0)
    jobs.until(lambda: not any(c.status() == psutil.STATUS_ZOMBIE for c in
                               psutil.Process(zygote.running()["pid"]).children()), "no zombies")


def test_failures_and_signals_of_a_warm_run_are_told_as_of_a_cold_one(jobs, warm):
    fail, killed = jobs.submit("bug"), jobs.submit("suicide")
    row = jobs.over(fail, tick=False)
    assert row["reason"] == "RuntimeError: something odd" and row["exit_code"] == 1
    assert "Traceback" in (jobs.dir(fail) / "worker.log").read_text()
    assert jobs.over(killed, tick=False)["signal"] == 9


def test_the_warm_process_goes_with_its_studio_and_the_run_stays(jobs, monkeypatch):
    monkeypatch.setenv("ATELIER_PRELOAD", "json")
    studio = jobs.studio(warm=True)
    jobs.until(zygote.ready, "the warm process")
    found = zygote.running()
    run = jobs.submit("wait")
    pids = jobs.speaking(run, tick=False)
    assert _parent_is_the_zygote(pids["pid"])
    studio.kill()
    studio.wait()
    jobs.until(lambda: not process.alive(found["pid"], found["started"]), "the warm process ends")
    jobs.until(lambda: not os.path.exists(found["socket"]), "its socket is removed")
    assert process.alive(pids["worker_pid"], pids["worker_started"])
    stop(run)
    assert jobs.over(run, tick=False)["state"] == "stopped"


def test_killed_it_is_replaced_and_meanwhile_runs_start_cold(jobs, warm):
    old = zygote.running()
    os.kill(old["pid"], signal.SIGKILL)
    run = jobs.submit(steps=2)
    warm.wake()
    assert jobs.over(run, tick=False)["state"] == "succeeded"
    jobs.until(lambda: zygote.ready() and zygote.running()["pid"] != old["pid"], "another one")
    assert not os.path.exists(old["socket"])


def test_a_hung_one_only_costs_patience(jobs, warm, monkeypatch):
    pid = zygote.running()["pid"]
    os.kill(pid, signal.SIGSTOP)
    real = zygote.request
    monkeypatch.setattr(zygote, "request", lambda message, env, timeout: real(message, env, 0.3))
    run = jobs.submit(steps=2)
    warm.wake()
    try:
        assert jobs.over(run, tick=False)["state"] == "succeeded"
    finally:
        os.kill(pid, signal.SIGCONT)
    jobs.until(lambda: zygote.request({"op": "none"}, dict(os.environ), 5) == {}, "it answers again")
    assert (jobs.dir(run) / "worker.log").read_text().count("the worker speaks") == 1
    assert jobs.states(run).count("succeeded") == 1


def test_two_studios_share_one(jobs, warm):
    found = zygote.running()
    jobs.studio(warm=True)
    run = jobs.submit(steps=1)
    assert jobs.over(run, tick=False)["state"] == "succeeded"
    assert zygote.running() == found
    ours = [p for p in psutil.process_iter(["cmdline"]) if "studio.jobs.zygote" in (p.info["cmdline"] or ())
            and p.environ().get("STUDIO_HOME") == str(jobs.home)]
    assert [p.pid for p in ours] == [found["pid"]]


def test_other_import_time_settings_mean_a_cold_start(jobs, warm, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE_TEST", "1")
    run = jobs.submit("wait")
    warm.wake()
    assert not _parent_is_the_zygote(jobs.speaking(run, tick=False)["pid"])
    stop(run)
    jobs.over(run)


def test_a_forked_worker_computes_with_its_own_threads(jobs, monkeypatch):
    monkeypatch.setenv("ATELIER_PRELOAD", "torch")
    monkeypatch.setenv("ATELIER_THREADS", "2")
    supervisor = Supervisor(warm=True)
    supervisor.start()
    try:
        jobs.until(zygote.ready, "the warm process", timeout=60)
        run = jobs.submit("torch")
        supervisor.wake()
        row = jobs.over(run, tick=False, timeout=60)
    finally:
        supervisor.stop()
    assert row["state"] == "succeeded", row["reason"]
    assert row["summary"] == {"imported": True, "threads": 2, "sum": 512.0 ** 3, "grad": 512.0}


def test_it_is_not_started_where_memory_is_short(jobs, monkeypatch):
    monkeypatch.setattr(zygote, "NEEDED_MEMORY", 1 << 60)
    keeper = zygote.Keeper()
    keeper.keep()
    assert keeper._child is None and zygote.running() is None


def test_probes_answer_warm(jobs, warm):
    _probes(warm_pid=zygote.running()["pid"])


def test_probes_answer_cold(jobs):
    _probes(warm_pid=None)


def _probes(warm_pid: int | None) -> None:
    got = probe.call("tests.jobs.fake:double", {"value": 21})
    assert got["value"] == 42 and got["pid"] not in (os.getpid(), warm_pid)
    with pytest.raises(StudioError) as refused:
        probe.call("tests.jobs.fake:refuse")
    assert refused.value.to_dict() == {"message": "No.", "hint": "Ask nicely.", "field": "model"}
    with pytest.raises(StudioError, match="TypeError"):
        probe.call("tests.jobs.fake:double", {"value": 1, "other": 2})
    with pytest.raises(StudioError, match="without an answer"):
        probe.call("tests.jobs.fake:crash")
    with pytest.raises(StudioError, match="longer than 1 s"):
        probe.call("tests.jobs.fake:sleep", {"seconds": 30}, timeout=1)


def test_a_probe_with_a_large_request_and_answer(jobs, warm):
    text = "é" * 300_000
    assert probe.call("tests.jobs.fake:echo", {"text": text}) == text


def test_resume_of_a_warm_run_is_warm_again(jobs, warm):
    run = jobs.submit(steps=60, pause=0.05)
    warm.wake()
    jobs.until(lambda: len(jobs.events(run, "metric")) >= 3, "three steps")
    stop(run)
    jobs.over(run, tick=False)
    store.resume(run)
    warm.wake()
    row = jobs.over(run, tick=False)
    assert row["state"] == "succeeded" and row["summary"]["first"] > 0
