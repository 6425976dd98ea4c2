"""Evaluation time beside lm-evaluation-harness itself, in one run: ``python -m tests.benchmarks eval_speed``.

The starter is asked the studio's suite, by the studio's job and by the library's ``simple_evaluate`` with the same tasks, seeds,
batch and precision. Each side is a process of its own on one thread, one after the other in every round; the table shows medians of
processor time from the recipe to the scores, the model's loading included and imports left out (a job of the studio has them from
its warm process). Both sides must find the same scores, or nothing is shown.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = int(os.environ.get("ATELIER_ROUNDS", "3"))
CASES = {"choice": (["facts", "spelling"], 0), "choice, 5 examples": (["facts", "spelling"], 5),
         "text": (["sums", "rules", "polite", "reading"], 0), "perplexity": (["world"], 0)}
BATCH = 16


def studio(names: list[str], shots: int, out: Path) -> tuple[float, dict[str, float]]:
    """(seconds of processor time of a job's own work, scores)."""
    import torch

    from studio.evals import lm_models, lm_tasks  # noqa: F401 - what both sides pay
    from tests.train.conftest import _settle, run

    torch.set_num_threads(1)
    _settle()
    began = spent()
    summary, _ = run({"kind": "eval", "method": "harness", "models": ["starter"], "tasks": [f"suite:{name}" for name in names],
                      "num_fewshot": shots, "batch_size": BATCH}, out)
    [line] = summary["table"]
    return spent() - began, {key.removeprefix("suite:"): value for key, value in line.items() if isinstance(value, float)}


def theirs(names: list[str], shots: int, out: Path) -> tuple[float, dict[str, float]]:
    """The same of the library."""
    import lm_eval.models.huggingface  # noqa: F401
    import torch
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from studio import settings
    from studio.evals import tasks

    torch.set_num_threads(1)
    began = spent()
    found = simple_evaluate("hf", {"pretrained": str(settings.STARTER), "dtype": "float32"}, [f"suite_{name}" for name in names],
                            num_fewshot=shots, batch_size=BATCH, device="cpu", apply_chat_template=True, fewshot_as_multiturn=True,
                            task_manager=TaskManager(include_path=str(tasks.SUITE), include_defaults=False))
    seconds = spent() - began
    scores = {}
    for task, line in found["results"].items():
        for key, value in line.items():
            if "," in key and isinstance(value, float):
                metric = key.split(",")[0]
                scores[f"{task.removeprefix('suite_')}/{metric}"] = value
    return seconds, scores


def spent() -> float:
    """Processor time of this process and of those it started, seconds."""
    return sum(os.times()[:4])


def rows() -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table."""
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for case, (names, shots) in CASES.items():
            seen: dict[str, list[float]] = {"studio": [], "theirs": []}
            scores: dict[str, dict[str, float]] = {}
            for number in range(ROUNDS):
                for side in seen:
                    out = f"{scratch}/{case}-{side}-{number}"
                    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.eval_speed", side, ",".join(names), str(shots), out],
                                          check=True, capture_output=True, text=True, env=os.environ | {
                                              "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "STUDIO_HOME": scratch})
                    seconds, scores[side] = json.loads(done.stdout.strip().splitlines()[-1])
                    seen[side].append(seconds)
            apart = [key for key, value in scores["theirs"].items() if abs(scores["studio"][key] - value) > 1e-5 * max(1, abs(value))]
            if apart:
                raise SystemExit(f"other scores than lm-evaluation-harness: {apart}")
            mine, other = (statistics.median(found) for found in seen.values())
            made += [(f"evaluation, {case}: studio, lm_eval", f"{mine:.2f} s, {other:.2f} s", ""),
                     (f"evaluation, {case}: time / lm_eval", f"{mine / other:.2f}", "1.05")]
    return made


if __name__ == "__main__":
    taken = {"studio": studio, "theirs": theirs}[sys.argv[1]](sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[4]))
    print(json.dumps(taken))
