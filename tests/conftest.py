"""A workspace for every test, and no process left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes that were started for this workspace (guardians, workers, warm processes, studios), not this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("STUDIO_HOME") == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end_processes(home: Path) -> None:
    """Kill whatever still runs for a workspace."""
    for _ in range(3):  # a guardian may have started another one meanwhile
        left = processes_of(home)
        for process in left:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=5)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh workspace in ``STUDIO_HOME``; its processes are ended with the test."""
    folder = (tmp_path / "home").resolve()
    folder.mkdir()
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    for name in ("ATELIER_SLOTS", "ATELIER_THREADS", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    end_processes(folder)
