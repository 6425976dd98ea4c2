"""CONTRIBUTING.md's "Add a method", carried out on a copy of the project: one file, one line, and it is everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    """A copy of the project with the walkthrough's two steps done."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("studio", "components", "assets", "presets", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    file, line = re.findall(r"```python\n(.*?)```", text, re.S)[:2]
    (copy / "studio/trainers/sft_ln.py").write_text(file)
    registry = copy / "studio/registry.py"
    before = registry.read_text()
    anchor = '    sft.add("lora", "studio.trainers.sft_lora:Lora")\n'
    assert anchor in before
    registry.write_text(before.replace(anchor, anchor + line))
    return copy


def _python(project: Path, *args: str) -> str:
    done = subprocess.run([sys.executable, *args], cwd=project, capture_output=True, text=True, timeout=240,
                          env=os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_a_method_is_one_file_and_one_line(project: Path, tmp_path: Path) -> None:
    known = json.loads(_python(project, "-m", "studio.cli", "methods", "--json"))
    assert "ln" in {entry["name"] for entry in known["sft"]}

    schema = json.loads(_python(project, "-m", "studio.cli", "schema", "sft/ln"))
    assert schema["properties"]["learning_rate"]["default"] == 5e-3

    page = _python(project, "-c", "from components.app import build; print(build().get_config_file())")
    assert "LN tuning" in page

    _python(project, "-m", "studio.docs")
    assert "LN tuning" in (project / "docs/reference.md").read_text("utf-8")

    recipe = tmp_path / "ln.yaml"
    recipe.write_text("kind: sft\nmethod: ln\nname: norms\nmodel: starter\ndataset: shipped:polite\nmax_steps: 4\n"
                      "logging_steps: 1\n")
    _python(project, "-m", "studio.cli", "run", str(recipe))
    models = json.loads(_python(project, "-m", "studio.cli", "models", "--json"))
    made = next(m for m in models["models"] if m["label"] == "norms")
    assert made["kind"] == "adapter" and "sft/ln" in made["detail"]
