"""Real runs of a fake method that was added from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio import recipe, registry, settings
from studio.jobs import events, store
from studio.jobs.supervisor import Supervisor

ROOT = settings.ROOT


class Jobs:
    """What the job tests do over and over."""

    def __init__(self, home: Path):
        self.home = home
        self.started: list[subprocess.Popen] = []

    def submit(self, mode: str = "emit", kind: str = "sft", **values: Any) -> str:
        return store.submit(recipe.parse({"kind": kind, "method": "fake", "mode": mode, **values}))["id"]

    def until(self, true: Callable[[], Any], what: str, timeout: float = 30, tick: bool = False) -> Any:
        """Wait for something to be true, with or without moving the queue on."""
        supervisor, deadline = Supervisor(warm=False), time.monotonic() + timeout
        while not (value := true()):
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}\n{self.report()}"
            if tick:
                supervisor.tick()
            time.sleep(0.1)
        return value

    def wait(self, run_id: str, *states: str, timeout: float = 30, tick: bool = True) -> dict[str, Any]:
        self.until(lambda: store.get(run_id)["state"] in states, f"{run_id} in {states}", timeout, tick)
        return store.get(run_id)

    def over(self, run_id: str, timeout: float = 30, tick: bool = True) -> dict[str, Any]:
        return self.wait(run_id, "succeeded", "failed", "stopped", "lost", timeout=timeout, tick=tick)

    def speaking(self, run_id: str, tick: bool = True) -> dict[str, Any]:
        """Wait until the method itself has begun; returns guardian.json."""
        log = self.dir(run_id) / "worker.log"
        self.until(lambda: log.exists() and "the worker speaks" in log.read_text(), "worker speaks", tick=tick)
        return self.until(lambda: self.json(run_id, "guardian.json"), "guardian.json", tick=tick)

    def dir(self, run_id: str) -> Path:
        return settings.run_dir(run_id)

    def json(self, run_id: str, name: str) -> dict[str, Any] | None:
        from studio.jobs.files import read_json
        return read_json(self.dir(run_id) / name)

    def events(self, run_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        found, cursor = [], 0
        while True:
            new, after = events.read(self.dir(run_id) / "events.jsonl", cursor)
            if after == cursor:
                return [e for e in found if kind in (None, e["e"])]
            found, cursor = found + new, after

    def states(self, run_id: str) -> list[str]:
        return [e["state"] for e in self.events(run_id, "state")]

    def studio(self, warm: bool = False, **more: Any) -> subprocess.Popen:
        """A process that supervises, as an open studio does."""
        code = ("import sys, time; from studio.jobs.supervisor import Supervisor; "
                f"Supervisor(warm={warm}).start(); print('up', flush=True); time.sleep(600)")
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                                   **({"start_new_session": True} | more))
        self.started.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    def report(self) -> str:
        lines = [f"{run['id']} {run['state']} {run['reason']}" for run in store.find()]
        for path in [self.home / "guardian.log", self.home / "zygote.log", *self.home.glob("runs/*/worker.log")]:
            if path.exists():
                lines += [f"--- {path}", path.read_text()[-1500:]]
        return "\n".join(lines)


@pytest.fixture
def jobs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setenv("ATELIER_PLUGINS", "tests.jobs.fake:register")
    monkeypatch.setenv("ATELIER_SLOTS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    registry.load_plugins()
    made = Jobs(home)
    yield made
    for process in made.started:
        process.kill()
        process.wait()
        process.stdout.close()
    for kind in ("sft", "setup"):
        registry.family(kind).remove("fake")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace whose engines live as long as this module's tests."""
    from studio.chat import manager

    before = {name: os.environ.get(name) for name in ("STUDIO_HOME", "OMP_NUM_THREADS", "ATELIER_IDLE_MINUTES")}
    os.environ |= {"STUDIO_HOME": str(tmp_path_factory.mktemp("home")), "OMP_NUM_THREADS": "1"}
    os.environ.pop("ATELIER_IDLE_MINUTES", None)
    yield settings.home()
    manager.shutdown_all()
    assert manager.engines() == []
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
