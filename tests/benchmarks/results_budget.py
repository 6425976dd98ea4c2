"""What more answers are worth to the starter: ``python -m tests.benchmarks results_budget``.

Asked are the 96 shipped sums up to 20, a third of which the starter's corpus leaves out. The reward model for best-of-n learns
from the starter's own right and wrong answers to other sums, drawn and checked by the same method; none of them is asked.
"""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.results_rl import run

BUDGETS = [1, 2, 4, 8, 16, 32]
PAIRS = 6  # of a question, at most


def taught() -> list[str]:
    """Sums up to 20 that the starter learned from and that are not among the shipped ones."""
    from studio import settings
    from studio.starter import skills

    asked = {json.loads(line)["prompt"] for line in (settings.DATASETS / "sums.jsonl").open()}
    rng = random.Random(1)
    return sorted({skills.sums(rng, False).question for _ in range(4000)} - asked)


def total(question: str) -> int:
    return sum(map(int, re.findall(r"\d+", question)))


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def budget(folder: Path, dataset: str, count: int, **more: Any) -> tuple[dict[str, Any], Path]:
    return run({"kind": "eval", "method": "budget", "models": ["starter"], "dataset": dataset, "samples": count, "top_p": 1.0,
                "max_new_tokens": 24} | more, folder)


def reward_model(home: Path) -> Path:
    """Trained on pairs of the starter's own answers."""
    from studio.evals import results

    questions, began = taught(), time.perf_counter()
    data = written(home / "taught.jsonl", [{"prompt": q, "completion": str(total(q))} for q in questions])
    _, folder = budget(home / "runs" / "drawn", data, len(questions), n=[16], temperature=1.5, greedy=False)
    rng, pairs = random.Random(2), []
    for line in results.samples(folder):
        said = {one["text"]: one["right"] for one in line["more"]["answers"]}
        both = [(good, bad) for good in said if said[good] for bad in said if not said[bad]]
        pairs += [{"prompt": line["prompt"], "chosen": good, "rejected": bad} for good, bad in rng.sample(both, min(PAIRS, len(both)))]
    print(f"{len(pairs)} pairs of the starter's answers to {len(questions)} sums, {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    summary, folder = run({"kind": "align", "method": "reward", "model": "starter", "dataset": written(home / "pairs.jsonl", pairs),
                           "max_length": 64, "num_train_epochs": 4, "per_device_train_batch_size": 16, "learning_rate": 5e-4,
                           "logging_steps": 20}, home / "runs" / "reward")
    print(f"reward model: {time.perf_counter() - began:.0f} s, {summary}", flush=True)
    return folder


def main(names: list[str] | None = None) -> None:
    home = Path(tempfile.mkdtemp())
    os.environ["STUDIO_HOME"] = str(home)
    scorer = reward_model(home)
    for temperature in (0.8, 1.2):
        began = time.perf_counter()
        summary, _ = budget(home / "runs" / f"budget{temperature}".replace(".", ""), "shipped:sums", 96, n=BUDGETS, temperature=temperature,
                            ways=["pass_at_k", "self_consistency", "best_of_n"],
                            reward_model=str(scorer))
        print(f"temperature {temperature}: {summary['questions']} sums, {summary['used'][0]}, {time.perf_counter() - began:.0f} s", flush=True)
        for one in summary["curve"]:
            print(f"  {one['method']:>16} {one['n']:>3}: {one['value']:.1%} ± {one['stderr']:.1%}, {one['tokens']:.0f} tokens", flush=True)


if __name__ == "__main__":
    main()
