"""Who is unloaded when a run needs memory, with made-up figures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from studio import hardware
from studio.chat import manager, records
from studio.jobs import room
from studio.method import Estimate

GB = 10**9


class Machine:
    """Eight gigabytes free, and engines: base -> (state, answers under way, seconds idle, bytes held)."""

    def __init__(self, monkeypatch, home, engines: dict[str, tuple[str, int | None, float, int]]):
        self.free, self.engines, self.ended = 8 * GB, dict(engines), []
        for pid, (base, (state, *_)) in enumerate(engines.items(), 1):
            record = {"base": base, "label": base.title(), "state": state, "pid": pid, "port": pid}
            records.write(records.path_of(base), record)
        bases = dict(enumerate(engines, 1))
        monkeypatch.setattr(records, "alive", lambda record: record["base"] in self.engines)
        monkeypatch.setattr(hardware, "free_memory", lambda: self.free)
        monkeypatch.setattr(manager, "_rss", lambda pid: engines[bases[pid]][3])
        monkeypatch.setattr(manager, "_health", self.health)
        monkeypatch.setattr(manager, "_end", self.end)

    def health(self, record) -> dict:
        _, active, idle, _ = self.engines[record["base"]]
        return {} if active is None else {"active": active, "idle_seconds": idle}

    def end(self, record) -> bool:
        self.free += self.engines.pop(record["base"])[3]
        self.ended.append(record["base"])
        return True

    def run(self, needs: int | None, device: str = "cpu") -> list[str]:
        """Start a run that needs so much; its log."""
        told: list[str] = []
        method = SimpleNamespace(estimate=lambda recipe: Estimate(memory=needs, device=device))
        room.make(method, None, SimpleNamespace(log=told.append))
        return told


@pytest.fixture
def machine(home, monkeypatch) -> Machine:
    return Machine(monkeypatch, home, {"short": ("ready", 0, 5.0, 2 * GB), "long": ("ready", 0, 60.0, GB),
                                       "talking": ("ready", 1, 0.0, 9 * GB), "mute": ("ready", None, 0.0, 9 * GB),
                                       "loading": ("loading", 0, 0.0, 9 * GB)})


def test_what_fits_unloads_nobody(machine):
    assert machine.run(8 * GB) == [] and machine.ended == []


@pytest.mark.parametrize("needs", [None, 0])
def test_an_unknown_need_unloads_nobody(machine, needs):
    assert machine.run(needs) == [] and machine.ended == []


def test_the_longest_idle_goes_first_and_no_more_than_needed(machine):
    assert machine.run(int(8.5 * GB)) == ["Unloaded from the chat to make room: Long. This run needs about 8.5 GB of "
                                          "memory, 8 GB were free. Chatting loads what was unloaded again."]
    assert machine.ended == ["long"]


def test_one_that_answers_loads_or_does_not_say_stays_however_much_is_needed(machine):
    told = machine.run(100 * GB)
    assert machine.ended == ["long", "short"] and "Long, Short" in told[0]
    assert records.path_of("talking").exists() and not records.path_of("long").exists()
    assert machine.run(100 * GB) == []


def test_on_a_graphics_card_its_memory_counts(machine, monkeypatch):
    cards = [{"total": 80 * GB, "used": 10 * GB}, {"total": 24 * GB, "used": 20 * GB}]
    monkeypatch.setattr(hardware, "gpus", lambda fresh=False: cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.run(60 * GB, "gpu") == [] and machine.ended == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert machine.run(60 * GB, "gpu") and machine.ended == ["long", "short"]


def test_a_driver_that_says_nothing_unloads_nobody(machine, monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda fresh=False: [])
    assert machine.run(60 * GB, "gpu") == [] and machine.ended == []


def test_a_failing_estimate_does_not_stop_the_run(machine, capsys):
    def estimate(recipe):
        raise RuntimeError("odd data")

    room.make(SimpleNamespace(estimate=estimate), None, SimpleNamespace(log=pytest.fail))
    assert "odd data" in capsys.readouterr().err and machine.ended == []


def test_without_engines_nothing_is_estimated(home):
    room.make(SimpleNamespace(estimate=lambda recipe: pytest.fail("estimated")), None, None)
