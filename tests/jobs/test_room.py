"""A run that needs memory unloads a real chat engine that nobody talks to, and only then."""

from __future__ import annotations

import pytest

from studio.chat import manager


@pytest.mark.timeout(240)
def test_an_idle_engine_gives_way_to_a_run_that_does_not_fit(jobs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        manager.engine_for("starter")
        (engine,) = manager.engines()
        small = jobs.submit(memory=1)
        assert jobs.over(small)["state"] == "succeeded", jobs.report()
        assert [one["pid"] for one in manager.engines()] == [engine["pid"]] and not jobs.events(small, "log")

        large = jobs.submit(memory=10**15)
        assert jobs.over(large)["state"] == "succeeded", jobs.report()
        assert manager.engines() == []
        (told,) = [event["text"] for event in jobs.events(large, "log")]
        assert "to make room: Starter." in told and "1e+03 TB" in told
    finally:
        manager.shutdown_all()
