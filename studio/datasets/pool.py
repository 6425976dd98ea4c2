"""Threads that ask side by side, and a stop that waits for none of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.datasets.step import Stopped
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.jobs.context import Context


@dataclass
class _Done:
    key: str
    value: Any = None
    error: BaseException | None = field(default=None)


class Pool:
    """Threads that work items off. They are daemons: a request that hangs at a stop keeps nothing alive.

    Args:
        work: Called with an item in one of ``size`` threads; what it raises is raised by :meth:`take`.
    """

    def __init__(self, size: int, work: Callable[[Any], Any]):
        self._todo: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        self._work, self._size, self.under_way = work, size, 0
        for _ in range(size):
            threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                made = _Done(job[0], self._work(job[1]))
            except BaseException as err:
                made = _Done(job[0], error=err)
            self._done.put(made)

    def put(self, key: str, item: Any) -> None:
        self.under_way += 1
        self._todo.put((key, item))

    def take(self, ctx: Context) -> list[tuple[str, Any]]:
        """At least one result, waiting for it until a stop is asked for.

        Raises:
            Exception: what the work raised, other than ``Stopped``.
        """
        found: list[tuple[str, Any]] = []
        while self.under_way and not found:
            try:
                self._collect(found, 0.2)
            except queue.Empty:
                if ctx.stop_requested:
                    break
        return found

    def rest(self, seconds: float) -> list[tuple[str, Any]]:
        """Results that still come within ``seconds`` after a stop; nothing new is begun."""
        while True:
            try:
                if self._todo.get_nowait() is not None:
                    self.under_way -= 1
            except queue.Empty:
                break
        found: list[tuple[str, Any]] = []
        deadline = time.monotonic() + seconds
        while self.under_way and (left := deadline - time.monotonic()) > 0:
            try:
                self._collect(found, left)
            except (queue.Empty, StudioError):
                continue
        return found

    def _collect(self, found: list[tuple[str, Any]], seconds: float) -> None:
        made = self._done.get(timeout=seconds)
        self.under_way -= 1
        if made.error is None:
            found.append((made.key, made.value))
        elif not isinstance(made.error, Stopped):
            raise made.error

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: Any) -> None:
        while not self._todo.empty():
            try:
                self._todo.get_nowait()
            except queue.Empty:
                break
        for _ in range(self._size):
            self._todo.put(None)
