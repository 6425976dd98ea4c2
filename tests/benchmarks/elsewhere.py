"""From the press on Start to the first loss: cold on this machine, and as a job of a local Ray cluster, in turns.

Both import the training libraries; the difference is what the courier, Ray and the way of the files add.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from typing import Any

from tests.ray_cluster import Cluster

ROUNDS = 3
_RECIPE = {"kind": "sft", "method": "lora", "model": "starter", "dataset": "shipped:polite", "max_steps": 2, "logging_steps": 1}


def _once(backend: dict[str, Any]) -> tuple[float, float]:
    """Seconds to the first loss and to the run's end."""
    from studio import recipe, settings
    from studio.jobs import events, store
    from studio.jobs.supervisor import Supervisor

    supervisor, began, first = Supervisor(warm=False), time.time(), 0.0
    run = store.submit(recipe.parse(_RECIPE), backend=backend)["id"]
    while (row := store.get(run))["state"] not in ("succeeded", "failed", "stopped", "lost"):
        supervisor.tick()
        time.sleep(0.05)
        found, _ = events.read(settings.run_dir(run) / "events.jsonl")
        if not first and any(event["e"] == "metric" and "loss" in event["values"] for event in found):
            first = time.time() - began
    if row["state"] != "succeeded":
        raise SystemExit(f"the run {row['state']}: {row['reason']}")
    return first, time.time() - began


def rows() -> list[tuple[str, str, str]]:
    """One line a measure, as ``__main__`` prints them."""
    from studio import recipe
    from studio.jobs import backends

    before, home, cluster = os.environ.get("STUDIO_HOME"), tempfile.mkdtemp(prefix="bench-"), Cluster()
    os.environ["STUDIO_HOME"] = home
    began = time.time()
    try:
        cluster.start()
        up = time.time() - began
        ray = backends.check({"name": "ray", "address": cluster.address}, recipe.parse(_RECIPE))
        pairs = [(_once(dict(backends.LOCAL)), _once(ray)) for _ in range(ROUNDS)]
    finally:
        cluster.stop()
        shutil.rmtree(home, ignore_errors=True)
        os.environ.pop("STUDIO_HOME") if before is None else os.environ.update(STUDIO_HOME=before)
    here, there = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    ends = [statistics.median(pair[side][1] for pair in pairs) for side in (0, 1)]
    return [("a Ray cluster of one node is up", f"{up:.1f} s", ""),
            ("first loss, cold, this machine", f"{here:.1f} s", ""), ("first loss, Ray on this machine", f"{there:.1f} s", ""),
            ("  Ray over this machine", f"{there / here:.2f} ×", ""),
            ("the run's end, Ray over this machine", f"{ends[1] / ends[0]:.2f} ×", "")]
