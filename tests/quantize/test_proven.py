"""From a recipe file to proven variants in the library's terms, by the worker itself in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.recipe import parse
from studio.settings import ROOT
from tests.train.conftest import QUESTIONS


@pytest.mark.parametrize(("method", "scheme", "verdicts"), [("bitsandbytes", "int8", ("same", "close")),
                                                             ("gptq", "W8A16", ("same", "close"))])
def test_a_worker_makes_and_proves_it(method, scheme, verdicts, taught, chats, home):
    run = home / "runs" / "quantize1"
    run.mkdir(parents=True)
    listed = {"types": [scheme]} if method == "bitsandbytes" else {"schemes": [scheme], "group_size": 32}
    recipe = parse({"kind": "quantize", "method": method, "model": str(taught), "dataset": str(chats),
                    "num_calibration_samples": 12, "max_seq_length": 64, **listed})
    (run / "recipe.yaml").write_text(recipe.to_yaml())
    done = subprocess.run([sys.executable, "-m", "studio.jobs.worker"], cwd=ROOT, capture_output=True, text=True, timeout=240,
                          env=os.environ | {"ATELIER_RUN_DIR": str(run), "STUDIO_HOME": str(home)})
    result = json.loads((run / "result.json").read_text())
    assert result["state"] == "succeeded", (result["reason"], done.stderr[-2000:])
    [variant] = result["summary"]["variants"]
    proof = variant["proof"]
    assert proof["runtime"] == "transformers" and proof["verdict"] in verdicts, proof["reasons"]
    assert proof["perplexity"]["variant"] < 1.1 * proof["perplexity"]["source"]
    assert proof["template"]["same"] and proof["tokens"]["same"] and proof["end"]["variant"]
    assert proof["size"] == variant["size"]
    asked = [row["prompt"] for row in proof["greedy"]["rows"]]
    assert any(prompt.startswith(q) for prompt in asked for q, _ in QUESTIONS), "the dataset's own questions are answered"
    [artifact] = result["artifacts"]
    assert artifact["meta"]["proof"]["verdict"] == proof["verdict"] and artifact["parents"][0]["role"] == "source"
    card = (Path(variant["path"]) / "README.md").read_text()
    assert "## Compared with its source" in card and "KL divergence" in card
    assert not list((run / "output").glob("*.part")) and {p.name for p in (run / "output").iterdir()} == {scheme}
