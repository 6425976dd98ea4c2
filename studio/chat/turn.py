"""Taking turns on one model, token by token."""

from __future__ import annotations

import threading
from collections import deque


class Turn:
    """A first-come, first-served lock. An ordinary lock is usually won again by the thread that just let it go."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    @property
    def wanted(self) -> bool:
        """True while another thread waits."""
        return bool(self._waiting)

    def acquire(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def __enter__(self) -> "Turn":
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
