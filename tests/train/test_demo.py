"""``launch.py demo`` as a person runs it: the tuned model is better, and the curve is there to look at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_improves_the_starter_and_draws_its_curve(home: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "launch.py", "demo", "--out", str(tmp_path / "out")], cwd=ROOT,
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    before, after = map(float, re.search(r"Held-out loss: base (\d+\.\d+), tuned (\d+\.\d+)", done.stdout).groups())
    assert after < before / 2
    assert len(re.findall(r"^    base   \S", done.stdout, re.M)) == 5
    assert len(re.findall(r"^    tuned  Of course!", done.stdout, re.M)) >= 4  # the style it was taught
    assert (tmp_path / "out" / "loss.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "loss.html").read_text("utf-8")
    assert "Plotly.newPlot" in page and "held-out" in page
