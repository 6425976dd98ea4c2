"""From the press on Start to the worker's first word and to the first loss, with the warm process and without it.

The recipe is the default LoRA fine-tuning of the starter. Each is measured ``ROUNDS`` times in one temporary
workspace, the fastest and the median are shown: another process on the machine only ever adds time.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time

ROUNDS = 3
_RECIPE = {"kind": "sft", "method": "lora", "model": "starter", "dataset": "shipped:polite"}


def _once(supervisor) -> tuple[float, float]:
    """Seconds to the first line of the worker (its log or its events) and to the first loss."""
    from studio import recipe, settings
    from studio.jobs import events, store
    from studio.jobs import supervisor as jobs

    started = time.time()
    run = store.submit(recipe.parse(_RECIPE))
    jobs.wake()
    folder = settings.run_dir(run["id"])
    first_word = first_loss = 0.0
    cursor, deadline = 0, started + 120
    while not first_loss and time.time() < deadline:
        new, cursor = events.read(folder / "events.jsonl", cursor)
        for event in new:
            if event["e"] not in ("state",) and not first_word:
                first_word = event["t"] - started
            if event["e"] == "metric" and "loss" in event["values"] and not first_loss:
                first_loss = event["t"] - started
        if (now := store.get(run["id"]))["state"] in ("failed", "lost"):
            raise SystemExit(f"the run failed: {now['reason']}\n{(folder / 'worker.log').read_text()[-2000:]}")
        time.sleep(0.02)
    jobs.stop(run["id"], now=True)
    while store.get(run["id"])["state"] not in ("succeeded", "stopped", "failed") and time.time() < deadline:
        time.sleep(0.05)
    return first_word, first_loss


def _measure(warm: bool) -> tuple[list[float], list[float], float]:
    from studio.jobs import zygote
    from studio.jobs.supervisor import Supervisor

    supervisor, began = Supervisor(warm=warm), time.time()
    supervisor.start()
    try:
        while warm and not zygote.ready():
            if time.time() - began > 90:
                raise SystemExit("the warm process did not get ready; see zygote.log")
            time.sleep(0.1)
        preload = time.time() - began
        pairs = [_once(supervisor) for _ in range(ROUNDS)]
    finally:
        supervisor.stop()
    return [a for a, _ in pairs], [b for _, b in pairs], preload


def rows():
    """Yield (what, measured, aim)."""
    old, home = os.environ.get("STUDIO_HOME"), tempfile.mkdtemp(prefix="atelier-bench-")
    os.environ["STUDIO_HOME"] = home
    try:
        for warm, aim in ((True, "1.5 s"), (False, "10 s")):
            word, loss, preload = _measure(warm)
            name = "warm" if warm else "cold"
            if warm:
                yield "libraries imported in the background", f"{preload:.1f} s", ""
            yield f"start to the worker's first event, {name}", _show(word), ""
            yield f"start to the first loss, {name}", _show(loss), aim
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.environ.pop("STUDIO_HOME") if old is None else os.environ.update(STUDIO_HOME=old)


def _show(values: list[float]) -> str:
    return f"{min(values):.2f} ({statistics.median(values):.2f}) s"


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  |  ")
    sys.exit(0)
