"""What a chart needs of a run, incrementally: each event is parsed once per process, however many tabs watch.

The first snapshot of a long run is downsampled to the extremes of equal buckets, so that no spike is lost; later ones
hold what is new. NaN and infinity are the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, because JSON has no
such numbers.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import Any

from studio.jobs import events

MAX_POINTS = 2000  # of one series in one reply
LOG_TAIL = 8 * 1024  # bytes of worker.log in a first reply
_LOG_STEP = 64 * 1024  # a reader that is further behind than this skips to the tail
_KEPT_RUNS = 32
_KEPT_SAMPLES = 200
_KEPT_WARNINGS = 100
_KEPT_ROLLOUTS = 60

_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")  # what a progress bar has painted over
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class _Series:
    """One curve: steps, values, and for each point the byte behind its event."""

    def __init__(self) -> None:
        self.steps, self.values, self.ends = array("q"), array("d"), array("q")

    def add(self, step: int, value: float, end: int) -> None:
        self.steps.append(step)
        self.values.append(value)
        self.ends.append(end)

    def drop_after(self, step: int) -> None:
        keep = [i for i, s in enumerate(self.steps) if s <= step]
        if len(keep) < len(self.steps):
            self.steps, self.values, self.ends = (array(a.typecode, (a[i] for i in keep))
                                                  for a in (self.steps, self.values, self.ends))

    def since(self, cursor: int, max_points: int) -> list[list[Any]]:
        first = bisect_right(self.ends, cursor)
        chosen = downsample(self.values, first, max_points)
        return [[self.steps[i], _number(self.values[i])] for i in chosen]


def downsample(values: Any, first: int, max_points: int) -> list[int]:
    """Indices from ``first`` on, at most about ``max_points``: the first, the last, and of each of equal buckets the
    lowest, the highest and the first that is not a finite number."""
    count = len(values) - first
    if count <= max_points:
        return list(range(first, len(values)))
    buckets = max(1, max_points // 2)
    chosen = {first, len(values) - 1}
    for b in range(buckets):
        low, high = first + count * b // buckets, first + count * (b + 1) // buckets
        part = values[low:high]
        if not all(map(math.isfinite, part)):
            chosen.add(low + next(i for i, v in enumerate(part) if not math.isfinite(v)))
            part = array("d", (v if math.isfinite(v) else math.nan for v in part))
            finite = [v for v in part if v == v]
            if not finite:
                continue
        else:
            finite = part
        chosen.add(low + part.index(min(finite)))
        chosen.add(low + part.index(max(finite)))
    return sorted(chosen)


def _number(value: float) -> float | str:
    if not math.isfinite(value):
        return events.encode_number(value)
    return float(f"{value:.6g}")  # as fine as a chart can show, and short


class _Run:
    """All that was read of one ``events.jsonl``."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self.cursor = 0
        self.inode = 0
        self.reset_at = 0  # cursors before this byte have points that a resume took back
        self.series: dict[str, _Series] = {}
        self.progress: dict[str, Any] | None = None
        self.samples: list[tuple[int, dict[str, Any]]] = []
        self.rollouts: list[tuple[int, dict[str, Any]]] = []
        self.warnings: list[tuple[int, dict[str, Any]]] = []
        self.notes: list[tuple[int, str]] = []

    def update(self) -> None:
        """Read what is new."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return
        if stat.st_ino != self.inode or stat.st_size < self.cursor:
            self._clear()
            self.inode = stat.st_ino
        while self.cursor < stat.st_size:
            found, cursor = events.scan(self.path, self.cursor)
            for end, event in found:
                self._take(end, event)
            if cursor == self.cursor:
                return  # only a line that is still being written
            self.cursor = cursor

    def _take(self, end: int, event: dict[str, Any]) -> None:
        try:
            match event["e"]:
                case "metric":
                    step = int(event["step"])
                    for name, value in event["values"].items():
                        if isinstance(value, int | float):
                            self.series.setdefault(str(name), _Series()).add(step, float(value), end)
                case "progress":
                    self.progress = {key: event.get(key) for key in ("done", "total", "eta")}
                case "sample":
                    kept = {key: event[key] for key in ("step", "prompt", "text", "model") if key in event}
                    self.samples = [*self.samples, (end, kept)][-_KEPT_SAMPLES:]
                case "rollout":
                    kept = {key: event[key] for key in ("step", "prompt", "completion", "rewards", "advantage", "notes")
                            if key in event}
                    self.rollouts = [*self.rollouts, (end, kept)][-_KEPT_ROLLOUTS:]
                case "warning":
                    kept = {key: event.get(key, "") for key in ("code", "message", "hint")}
                    if len(self.warnings) < _KEPT_WARNINGS and all(kept != old for _, old in self.warnings):
                        self.warnings.append((end, kept))
                case "log":
                    self.notes = [*self.notes, (end, str(event.get("text", "")))][-_KEPT_SAMPLES:]
                case "resume":
                    self._take_back(int(event["step"]), end)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            return  # a line of somebody else's making

    def _take_back(self, step: int, end: int) -> None:
        self.reset_at = end
        for one in self.series.values():
            one.drop_after(step)
        self.series = {name: one for name, one in self.series.items() if one.steps}
        self.samples = [(at, sample) for at, sample in self.samples if sample.get("step", 0) <= step]
        self.rollouts = [(at, rollout) for at, rollout in self.rollouts if rollout.get("step", 0) <= step]
        self.progress = None

    def snapshot(self, cursor: int, max_points: int) -> dict[str, Any]:
        reset = cursor <= 0 or cursor < self.reset_at or cursor > self.cursor
        since = 0 if reset else cursor
        series = {}
        for name, one in self.series.items():
            if points := one.since(since, max_points):
                series[name] = points
        return {"reset": reset, "series": series, "progress": self.progress,
                "samples": [s for end, s in self.samples if end > since],
                "rollouts": [r for end, r in self.rollouts if end > since],
                "warnings": [w for end, w in self.warnings if end > since],
                "notes": [text for end, text in self.notes if end > since]}


_runs: OrderedDict[str, _Run] = OrderedDict()
_runs_lock = threading.Lock()


def _run(path: Path) -> _Run:
    with _runs_lock:
        run = _runs.setdefault(str(path), _Run(path))
        _runs.move_to_end(str(path))
        while len(_runs) > _KEPT_RUNS:
            _runs.popitem(last=False)
        return run


def snapshot(run_dir: str | Path, cursor: str | int = 0, max_points: int = MAX_POINTS) -> dict[str, Any]:
    """What is new in a run since ``cursor``.

    Args:
        cursor: ``0`` at first, then the ``cursor`` of the last reply (events and log position, ``"e:l"``).
        max_points: Of one series in this reply.

    Returns:
        ``{cursor, reset, series: {name: [[step, value], ...]}, progress: {done, total, eta} | None, samples,
        rollouts, warnings, notes, log}``. With ``reset`` the caller drops what it has: the reply holds all (a first
        call, a resumed run, a cursor of another file).
    """
    folder = Path(run_dir)
    at, log_at = _cursors(cursor)
    run = _run(folder / "events.jsonl")
    with run.lock:
        run.update()
        reply = run.snapshot(at, max_points)
        at = run.cursor
    reply["log"], log_at = log_since(folder / "worker.log", log_at)
    return reply | {"cursor": f"{at}:{log_at}"}


def _cursors(cursor: str | int) -> tuple[int, int]:
    first, _, second = str(cursor).partition(":")
    try:
        return max(0, int(first or 0)), int(second) if second else -1
    except ValueError:
        return 0, -1


def log_since(path: Path, cursor: int) -> tuple[str, int]:
    """Whole lines of a log from byte ``cursor`` on and the next cursor; a negative cursor means the last few kB.

    Progress bars are reduced to their last picture, colours are taken out. A last line that has no end yet is waited
    for, two seconds at most.
    """
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            tail = max(0, stat.st_size - LOG_TAIL)
            skipped = cursor < 0 or cursor > stat.st_size or stat.st_size - cursor > _LOG_STEP
            start = tail if skipped else cursor
            file.seek(start)
            data = file.read(stat.st_size - start)
    except OSError:
        return "", max(cursor, -1)
    if skipped and start:
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    whole = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    if whole < len(data) and time.time() - stat.st_mtime > 2:
        whole = len(data)
    text = _ESCAPES.sub("", data[:whole].decode("utf-8", "replace"))
    return _OVERWRITTEN.sub("", text), start + whole
