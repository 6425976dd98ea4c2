"""Makes a worker's merge slow enough to be stopped or killed in its middle, or lets its disk be full: loaded as a plugin."""

from __future__ import annotations

import os
import resource
import time


def register(families: dict) -> None:
    """Called in every process that loads plugins; changes workers only."""
    if "ATELIER_RUN_DIR" not in os.environ:
        return
    from studio.mergers.running import Clock

    pause, real = float(os.environ.get("SLOW_MERGE", "0")), Clock.__call__

    def slow(self: Clock, done: int, total: int, name: str) -> None:
        real(self, done, total, name)
        time.sleep(pause)

    if pause:
        Clock.__call__ = slow
    if limit := os.environ.get("SMALL_FILES"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
