"""The curves of a run, as a page wants them: all of it once, thinned; then only what is new.

A watcher keeps one number, the byte cursor of ``events.jsonl``. Its first poll gets every series thinned to the lowest and
highest point of each bucket, so that no spike is lost; later ones get the points written since, so they cost what is new.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import OrderedDict
from pathlib import Path
from typing import Any

from studio.jobs import events

BUCKETS = 500  # a first load has at most twice as many points a series
CHUNK = 1 << 20  # bytes of events; a watcher further behind than this starts afresh
_KEEP_RUNS, _KEEP_SAMPLES, _KEEP_LOG = 6, 200, 16_000


class Curve:
    """All points of one series, 16 bytes each."""

    def __init__(self) -> None:
        self.steps, self.values = array("d"), array("d")
        self._thin: list[tuple[float, float]] | None = None

    def add(self, step: float, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)
        self._thin = None

    def drop_after(self, step: float) -> None:
        """Forget the points beyond ``step``: the run went back there and makes them anew."""
        keep = [n for n, at in enumerate(self.steps) if at <= step]
        self.steps = array("d", (self.steps[n] for n in keep))
        self.values = array("d", (self.values[n] for n in keep))
        self._thin = None

    def thin(self, buckets: int = BUCKETS) -> list[tuple[float, float]]:
        """At most ``2 * buckets`` points: first and last, and the extremes of every bucket. NaN and infinity stay."""
        if self._thin is None:
            self._thin = thin(self.steps, self.values, buckets)
        return self._thin


def thin(steps: array, values: array, buckets: int = BUCKETS) -> list[tuple[float, float]]:
    """Min/max downsampling; see :meth:`Curve.thin`."""
    count = len(steps)
    if count <= 2 * buckets:
        return list(zip(steps, values, strict=True))
    kept: set[int] = {0, count - 1}
    inner = buckets - 1
    for bucket in range(inner):
        low, high = 1 + bucket * (count - 2) // inner, 1 + (bucket + 1) * (count - 2) // inner
        span = range(low, high)
        plain = [n for n in span if math.isfinite(values[n])]
        if plain:
            kept.update((min(plain, key=values.__getitem__), max(plain, key=values.__getitem__)))
        if len(plain) < len(span):
            kept.add(next(n for n in span if not math.isfinite(values[n])))
    return [(steps[n], values[n]) for n in sorted(kept)]


class _Story:
    """All that the events of one run say, read on as the file grows."""

    def __init__(self, path: Path):
        self.path, self.cursor = path, 0
        self.lock = threading.Lock()
        self.curves: dict[str, Curve] = {}
        self.samples: list[dict[str, Any]] = []
        self.warnings: list[dict[str, Any]] = []
        self.progress: dict[str, Any] | None = None
        self.log = ""

    def read_on(self) -> None:
        while True:
            found, cursor = events.read(self.path, self.cursor, CHUNK)
            if cursor < self.cursor:  # another file took its place
                self.__init__(self.path)
                continue
            if cursor == self.cursor:
                return
            self.cursor = cursor
            for event in found:
                self.take(event)

    def take(self, event: dict[str, Any]) -> None:
        kind = event["e"]
        if kind == "metric":
            for name, value in (event.get("values") or {}).items():
                if isinstance(value, int | float):
                    self.curves.setdefault(name, Curve()).add(float(event.get("step") or 0), value)
        elif kind == "resume":
            step = float(event.get("step") or 0)
            for curve in self.curves.values():
                curve.drop_after(step)
            self.samples = [sample for sample in self.samples if sample["step"] <= step]
        elif kind == "sample":
            self.samples = [*self.samples, _sample(event)][-_KEEP_SAMPLES:]
        elif kind == "warning":
            if (warning := _warning(event)) not in self.warnings:
                self.warnings = [*self.warnings, warning][-_KEEP_SAMPLES:]
        elif kind == "progress":
            self.progress = _progress(event)
        elif kind == "log":
            self.log = (self.log + str(event.get("text", "")) + "\n")[-_KEEP_LOG:]


_stories: OrderedDict[Path, _Story] = OrderedDict()
_lock = threading.Lock()


def poll(path: Path, cursor: int = 0) -> dict[str, Any]:
    """What ``events.jsonl`` says from ``cursor`` on.

    Returns:
        ``cursor`` for the next call; ``reset``: throw away what you had, this is the whole; ``series`` {name: [[step,
        value], ...]}, NaN and infinity as ``"NaN"``, ``"Infinity"``, ``"-Infinity"``; ``progress`` {done, total, eta},
        ``None`` if nothing new; ``samples``; ``warnings``; ``log``.
    """
    if cursor > 0:
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        if cursor <= size <= cursor + CHUNK:
            found, end = events.read(path, cursor, CHUNK)
            if not any(event["e"] == "resume" for event in found):
                return _new(found, end)
    story = _story(path)
    with story.lock:
        story.read_on()
        return {"cursor": story.cursor, "reset": True, "progress": story.progress, "log": story.log,
                "series": {name: _points(curve.thin()) for name, curve in story.curves.items()},
                "samples": list(story.samples), "warnings": list(story.warnings)}


def forget(path: Path) -> None:
    """Drop what is kept of a run that was removed."""
    with _lock:
        _stories.pop(path, None)


def _story(path: Path) -> _Story:
    with _lock:
        story = _stories.pop(path, None) or _Story(path)
        _stories[path] = story
        while len(_stories) > _KEEP_RUNS:
            _stories.popitem(last=False)
        return story


def _new(found: list[dict[str, Any]], cursor: int) -> dict[str, Any]:
    story = _Story(Path())
    for event in found:
        story.take(event)
    series = {name: _points(zip(curve.steps, curve.values, strict=True)) for name, curve in story.curves.items()}
    return {"cursor": cursor, "reset": False, "series": series, "progress": story.progress, "samples": story.samples,
            "warnings": story.warnings, "log": story.log}


def _points(pairs: Any) -> list[list[Any]]:
    return [[int(step) if step == int(step) else step, events.encode_number(float(f"{value:.7g}"))] for step, value in pairs]


def _sample(event: dict[str, Any]) -> dict[str, Any]:
    return {"step": event.get("step") or 0, "prompt": event.get("prompt", ""), "text": event.get("text", ""),
            "model": event.get("model")}


def _warning(event: dict[str, Any]) -> dict[str, Any]:
    return {key: str(event.get(key) or "") for key in ("code", "message", "hint")}


def _progress(event: dict[str, Any]) -> dict[str, Any]:
    return {key: event.get(key) for key in ("done", "total", "eta")}
