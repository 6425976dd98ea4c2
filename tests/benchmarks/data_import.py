"""Import of 52,002 Alpaca-like rows against the ``datasets`` library alone, and the first screen of a 5 GB file.

Each is a process of its own that has its libraries loaded before the clock starts, so that rows are measured, not imports.
The library reads the same file, maps every row to messages and writes Parquet; it keeps no reasons, sources, languages,
hashes or rows left out. The studio's import is also measured without the language of each row, its most costly column.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = 52_002  # as many as Stanford Alpaca has
HUGE = 5 << 30  # bytes
ROOT = Path(__file__).parents[2]
_MARKS = str.maketrans(dict.fromkeys('{}[]":,', " "))

HEAD = """
import os, resource, sys, time
sys.path.insert(0, {root!r})
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
class Clock:
    def __init__(self): self.wall, self.cpu = time.perf_counter(), time.process_time()
    def __str__(self): return f"{{time.perf_counter() - self.wall}} {{time.process_time() - self.cpu}}"
"""
STUDIO = HEAD + """
from studio import settings
from studio.datasets import language, version
from studio.datasets.step import execute
from studio.datasets.steps.bring_in import BringIn, BringInRecipe
from studio.jobs.context import Context
import pyarrow.parquet
if {plain!r}:
    version.language = lambda text: ""
else:
    language.language("A sentence, so that the model of languages is loaded.")
ctx, before, began = Context(settings.run_dir("rbench")), peak(), Clock()
made = execute(BringIn, BringInRecipe(sources=[{path!r}]), None, settings.home() / "out", ctx)
print(made.count(), began, before, peak())
"""
LIBRARY = HEAD + """
import datasets
datasets.disable_progress_bars()
def to_messages(row):
    asked = row["instruction"] + ("\\n\\n" + row["input"] if row["input"] else "")
    return {{"messages": [{{"role": "user", "content": asked}}, {{"role": "assistant", "content": row["output"]}}]}}
before, began = peak(), Clock()
rows = datasets.load_dataset("json", data_files={path!r}, split="train", cache_dir={cache!r})
rows = rows.map(to_messages, remove_columns=rows.column_names)
rows.to_parquet({cache!r} + "/out.parquet")
print(len(rows), began, before, peak())
"""
SCREEN = HEAD + """
from studio.datasets.inspect import inspect
before, began = peak(), Clock()
report = inspect({path!r})
print(report["rows"], began, before, peak())
"""


def alpaca(path: Path, count: int = ROWS) -> None:
    """Rows of the lengths that Alpaca has, cut out of the English texts that come with the studio."""
    draw = random.Random(0)
    words = [word for file in sorted((ROOT / "assets" / "datasets").glob("*.jsonl")) for line in
             file.read_text("utf-8", "replace").splitlines() for word in line.translate(_MARKS).split()]

    def say(mean: int) -> str:
        first, length = draw.randrange(len(words)), max(1, int(draw.expovariate(1 / mean)))
        return " ".join(words[first:first + length])

    rows = [{"instruction": say(10) + ".", "input": say(10) if draw.random() < 0.4 else "", "output": say(44) + "."}
            for _ in range(count)]
    path.write_text(json.dumps(rows, indent=2), "utf-8")


def measured(code: str, home: str, **values: object) -> tuple[int, float, float, float, float]:
    """(rows, seconds, seconds of processor time, MB before, MB at the peak) of a process of its own."""
    env = os.environ | {"STUDIO_HOME": home, "OMP_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code.format(root=str(ROOT), **values)], capture_output=True,
                          text=True,
                          timeout=300, env=env, check=True)
    rows, *numbers = done.stdout.split()[-5:]
    seconds, cpu, before, peak = map(float, numbers)
    return int(rows), seconds, cpu, before, peak


def rows():
    """Yield (what, measured, aim)."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "alpaca.json"
        alpaca(path)
        yield f"{ROWS:,} Alpaca-like rows", f"{path.stat().st_size / 1e6:.0f} MB", ""
        for what, code, values in (("studio: import with evidence, tags, language", STUDIO, {"plain": False}),
                                   ("studio: the same without the language", STUDIO, {"plain": True}),
                                   ("datasets: load_dataset + map + to_parquet", LIBRARY, {"cache": home + "/cache"})):
            count, seconds, cpu, before, peak = measured(code, home, path=str(path), **values)
            assert count > 0.99 * ROWS, count
            yield what, f"{count / seconds:,.0f} rows/s", ""
            yield "  a second of processor time (others use the machine too)", f"{count / cpu:,.0f} rows", ""
            yield "  memory above the loaded libraries, and in all", f"{peak - before:.0f} / {peak:.0f} MB", ""
        huge = Path(home) / "huge.jsonl"
        line = json.dumps({"prompt": "Why is the sky blue?", "completion": "Because of the air. " * 40}) + "\n"
        with huge.open("w") as out:  # far more real rows than are looked at; the rest is a hole, which is never reached
            for _ in range(300):
                out.write(line * 1000)
        with huge.open("r+b") as out:
            out.truncate(HUGE)
        count, seconds, _, before, peak = measured(SCREEN, home, path=str(huge))
        huge.unlink()
        yield "first screen of a 5 GB JSONL", f"{seconds:.2f} s", "< 2 s"
        yield "  rows estimated / in truth", f"{count / (HUGE / len(line)):.3f}", "0.9 to 1.1"
        yield "  memory above the loaded libraries", f"{peak - before:.0f} MB", "< 100 MB"
