"""Public evaluation files as own benchmarks: ``python -m tests.benchmarks.public_evals FOLDER``.

FOLDER holds files as they lie in their repositories: ``gsm8k-test.jsonl`` (openai/grade-school-math), ``bbh/*.json``
(suzgunmirac/BIG-Bench-Hard), ``mbpp.jsonl`` and ``sanitized-mbpp.json`` (google-research/google-research),
``mt-bench-question.jsonl`` (lm-sys/FastChat). Each is read, guessed at, saved and asked of the starter as a person would do it
in "My benchmarks"; first the file's own right answers are scored, of which a fair metric says that they are right.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMITS = {"gsm8k": 40, "mbpp": 20, "sanitized": 20, "mt": 8}
BBH = 40
GOLD = int(os.environ.get("GOLD", "300"))  # right answers of a file that are scored themselves


def built(path: Path) -> dict[str, Any]:
    """Save a file as a benchmark by the first guess; what was understood, and how its right answers score."""
    from studio.datasets import inspect
    from studio.evals import bench, bench_guess, bench_items

    ref = f"uploads/{path.name}"
    seen = inspect.inspect(ref)
    found = bench_guess.suggest(ref)
    values = {"title": path.stem, "dataset": ref, "limit": LIMITS.get(path.stem.split("-")[0].split("_")[0], BBH)} | found["values"]
    if values["metric"] == "judge":
        values |= {"options": {"judge": "starter"}, "max_gen_toks": 64}
    parsed, metric = bench.parse(values | {"limit": 20_000, "shuffle": False})
    whole = bench_items.gather(parsed, metric, 20_000)
    saved = bench.save(values)
    right = None
    if metric.output == "text" and values["metric"] != "judge":
        metric.open()
        scored = [metric.score(item["references"][0].replace("\r\n", "\n"), {"references": item["references"], "row": json.loads(item["row"]), "prompt": item["prompt"]}).values
                  for item in whole.items[:GOLD] if item["references"]]
        main = next(iter(metric.names))
        right = f"{sum(one.get(main, 0) for one in scored) / len(scored):.1%} of {len(scored)}"
        metric.close()
    return {"file": path.name, "rows": seen["rows"], "format": seen["title"] or "a table of its own", "metric": values["metric"], "why": " ".join(found["why"]),
            "questions": len(whole.items), "left_out": {one["code"]: one["count"] for one in whole.told()}, "right": right, "task": saved["task"],
            "asked": saved["items"]}


def main(names: list[str]) -> int:
    home = Path(os.environ.setdefault("STUDIO_HOME", tempfile.mkdtemp(prefix="public-evals-")))
    from tests.conftest import end_processes
    from tests.train.conftest import run

    folder = Path(names[0])
    files = [*sorted(folder.glob("*.json*")), *sorted((folder / "bbh").glob("*.json"))]
    (home / "uploads").mkdir(exist_ok=True)
    for path in files:
        shutil.copy(path, home / "uploads" / path.name)
    made = []
    for path in files:
        began = time.perf_counter()
        made.append(built(path) | {"seconds": time.perf_counter() - began})
        print(made[-1], file=sys.stderr, flush=True)
    try:
        summary, ctx = run({"kind": "eval", "method": "harness", "models": ["starter"], "tasks": [one["task"] for one in made], "batch_size": 8,
                            "max_gen_toks": 160, "bootstrap_iters": 100}, Path(tempfile.mkdtemp()))
    finally:
        end_processes(home)
    line = summary["table"][0]
    answers = [json.loads(text) for text in (ctx.output / "samples.jsonl").open()]
    print("| File | Rows | Read as | Scored by | Questions (left out) | Its own right answers | Starter | Questions asked |\n|---|---:|---|---|---:|---:|---:|---:|")
    for one in made:
        main_metric = summary["tasks"][one["task"]]["main"]
        value, error = line.get(f"{one['task']}/{main_metric}"), line.get(f"{one['task']}/{main_metric}_stderr")
        mine = [sample for sample in answers if sample["task"] == one["task"]]
        without = sum(main_metric not in sample["scores"] for sample in mine)
        score = "none" if value is None else f"{value:.3g}" + (f" ± {error:.2g}" if error is not None else "")
        print(f"| `{one['file']}` | {one['rows']:,} | {one['format']} | {one['metric']}: {main_metric} | {one['questions']:,}"
              f"{' (' + ', '.join(f'{k} {v}' for k, v in one['left_out'].items()) + ')' if one['left_out'] else ''} | {one['right'] or '–'} | {score} | "
              f"{len(mine)}{f', {without} undecided' if without else ''} |")
    print(f"\n{summary['seconds']:.0f} s for {len(answers)} questions.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
