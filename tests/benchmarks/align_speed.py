"""Speed of the methods of alignment: the studio against the plain TRL script that it writes itself, in one run.

Every round runs one after the other in a fresh process on one thread: a LoRA on the starter in float32, batches of 4 samples
of about 180 tokens a side. Samples a second of processor time over the same span of steps, so that other jobs on the machine
count little; the table shows medians. ``tokens`` is the work of a step as a multiple of plain fine-tuning on the same tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("dpo", "kto", "orpo", "cpo", "simpo", "reward")
BATCH, STEPS, FIRST, ROUNDS = 4, 16, 4, 3


def _rows(folder: Path) -> None:
    from studio import settings

    text = (settings.DATASETS / "moon-stories.txt").read_text("utf-8").replace("\n", " ")
    with (folder / "pairs.jsonl").open("w") as pairs, (folder / "chats.jsonl").open("w") as chats:
        for i in range(BATCH * STEPS):
            asked, better, worse = (text[(i * 37 + n * 911) % 9000:][:length] for n, length in ((0, 200), (1, 400), (2, 400)))
            pairs.write(json.dumps({"prompt": asked, "chosen": better, "rejected": worse}) + "\n")
            chats.write(json.dumps({"prompt": asked, "completion": better}) + "\n")


def _values(name: str, folder: Path) -> dict:
    kind = {"kind": "sft", "method": "lora"} if name == "sft" else {"kind": "align", "method": name}
    data = "chats" if name == "sft" else "pairs"
    return kind | {"model": "starter", "dataset": str(folder / f"{data}.jsonl"), "eval_share": 0.0, "max_steps": STEPS,
                   "per_device_train_batch_size": BATCH, "max_length": 256, "logging_steps": STEPS, "bf16": "off"}


def studio(name: str, folder: Path) -> tuple[float, float]:
    """(samples, tokens) a second of processor time of the studio's own job."""
    from studio.jobs import events
    from studio.jobs.context import Context
    from studio.recipe import parse
    from studio.registry import method

    marks: dict[int, float] = {}

    class Clocked(Context):
        def progress(self, done, total, eta=None):
            marks[done] = time.process_time()
            super().progress(done, total, eta)

    recipe = parse(_values(name, folder))
    with tempfile.TemporaryDirectory() as out:
        ctx = Clocked(Path(out) / "bench", threads=1)
        summary = method(recipe.kind, recipe.method).run(recipe, ctx)
        ctx.close()
        assert events.read(Path(out) / "bench" / "events.jsonl", 0)[0]
    seconds = marks[STEPS] - marks[FIRST]
    return (STEPS - FIRST) * BATCH / seconds, summary["tokens"] / STEPS * (STEPS - FIRST) / seconds


def trl(name: str, folder: Path) -> tuple[float, float]:
    """(samples a second of processor time, 0) of the script."""
    import torch
    from transformers import TrainerCallback, trainer

    from studio.recipe import parse
    from studio.registry import method

    torch.set_num_threads(1)
    marks: dict[int, float] = {}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            marks[state.global_step] = time.process_time()

    trainer.DEFAULT_CALLBACKS.append(Clock)
    recipe = parse(_values(name, folder))
    text = method(recipe.kind, recipe.method).script(recipe)
    with tempfile.TemporaryDirectory() as out:
        os.chdir(out)
        exec(compile(text, "script.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - the studio's own script
        os.chdir("/")
    return (STEPS - FIRST) * BATCH / (marks[STEPS] - marks[FIRST]), 0.0


def rows(names: tuple[str, ...] = METHODS, rounds: int = ROUNDS) -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table."""
    speeds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _rows(Path(folder))
        for _ in range(rounds):
            for name, side in [("sft", "studio"), *((name, side) for name in names for side in ("trl", "studio"))]:
                done = subprocess.run([sys.executable, "-m", "tests.benchmarks.align_speed", side, name, folder], check=True,
                                      capture_output=True, text=True,
                                      env=os.environ | {"OMP_NUM_THREADS": "1", "STUDIO_HOME": folder})
                found = json.loads(done.stdout.strip().splitlines()[-1])
                speeds.setdefault((name, side), []).append(tuple(found))

    def middle(name: str, side: str, which: int) -> float:
        return statistics.median(found[which] for found in speeds[name, side])

    made = []
    for name in names:
        ours = middle(name, "studio", 0)
        made.append((f"{name}, studio / plain TRL script (samples/s)", f"{ours / middle(name, 'trl', 0):.2f}", "0.95"))
        work = middle("sft", "studio", 1) / middle(name, "studio", 1)
        made.append((f"{name}, work on a token / plain fine-tuning", f"{work:.2f}", ""))
    return made


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps({"studio": studio, "trl": trl}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))))
    else:
        names = tuple(sys.argv[1:]) or METHODS
        print("\n".join(" | ".join(row) for row in rows(names)))
