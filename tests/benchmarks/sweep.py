"""What a sweep adds to its runs: the same runs submitted directly and as trials, in one workspace with a warm process.

The runs are those of a fake method that takes a moment, so what is measured is the queue, the processes and the sweep, not
training. A gap is the time from the last word of one run to the first word of the next.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time

RUNS = 8
_BASE = {"kind": "sft", "method": "fake", "steps": 3, "pause": 0.1}


def _until(ids) -> None:
    from studio.jobs import store

    deadline = time.time() + 300
    while not all(store.is_final(store.get(one)["state"]) for one in ids):
        if time.time() > deadline:
            raise SystemExit("the runs did not end")
        time.sleep(0.02)


def _gaps(ids: list[str]) -> list[float]:
    """Seconds between the last metric of each run and the first of the next."""
    from studio import settings
    from studio.jobs import events

    spans = []
    for one in ids:
        found, _ = events.read(settings.run_dir(one) / "events.jsonl", 0)
        times = [event["t"] for event in found if event["e"] == "metric"]
        spans.append((times[0], times[-1]))
    spans.sort()
    return [after[0] - before[1] for before, after in zip(spans, spans[1:], strict=False)]


def _measure() -> dict[str, tuple[float, list[float]]]:
    """name -> (seconds from the submission to the end of the last run, gaps)."""
    from studio import recipe
    from studio.jobs import children, store, zygote
    from studio.jobs import supervisor as jobs

    supervisor, began = jobs.Supervisor(warm=True), time.time()
    supervisor.start()
    found = {}
    try:
        while not zygote.ready():
            if time.time() - began > 120:
                raise SystemExit("the warm process did not get ready; see zygote.log")
            time.sleep(0.1)
        levels = [n / 10 for n in range(RUNS)]
        started = time.time()
        direct = [store.submit(recipe.parse(_BASE | {"level": level}))["id"] for level in levels]
        jobs.wake()
        _until(direct)
        found["direct"] = time.time() - started, _gaps(direct)
        for parallel in (1, 2):
            started = time.time()
            parent = store.submit(recipe.parse({
                "kind": "sweep", "method": "grid", "recipe": _BASE, "metric": "loss", "parallel": parallel, "trials": RUNS,
                "space": [{"field": "level", "values": levels}]}))["id"]
            jobs.wake()
            _until([parent])
            if store.get(parent)["state"] != "succeeded":
                raise SystemExit(store.get(parent)["reason"])
            found[f"sweep, {parallel} in the queue"] = time.time() - started, _gaps([r["id"] for r in children.of(parent)])
    finally:
        supervisor.stop()
    return found


def rows():
    """Yield (what, measured, aim)."""
    from studio import registry

    home = tempfile.mkdtemp(prefix="atelier-bench-")
    changed = {"STUDIO_HOME": home, "ATELIER_PLUGINS": "tests.jobs.fake:register", "ATELIER_SLOTS": "1",
               "PYTHONPATH": os.getcwd()}
    old = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    registry.load_plugins()
    try:
        found = _measure()
        plain = found["direct"][0]
        for name, (seconds, gaps) in found.items():
            yield f"{RUNS} runs, {name}", f"{seconds:.1f} s", ""
            yield f"between two runs, {name}", f"{min(gaps):.2f} ({statistics.median(gaps):.2f}) s", ""
            if name != "direct":
                yield f"added per trial, {name}", f"{(seconds - plain) / RUNS:.2f} s", "1.5 s"
    finally:
        for kind in ("sft", "setup"):
            registry.family(kind).remove("fake")
        shutil.rmtree(home, ignore_errors=True)
        for name, value in old.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  |  ")
    sys.exit(0)
