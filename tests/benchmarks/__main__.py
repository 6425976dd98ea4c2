"""``python -m tests.benchmarks [name …]``: every benchmark once, as one table. Ratios within one run are what counts.

``results`` in place of names: what the models learn (docs/results.md), which takes hours.
"""

from __future__ import annotations

import importlib
import sys
import time

NAMES = ("page", "job_start", "training", "poll", "chat_speed", "chat_batching", "chat_servers", "data_import", "data_table", "data_clean", "sweep", "estimate",
         "elsewhere", "align_speed", "formats", "merge", "retrieval", "arena", "eval_speed")
RESULTS = ("results_sft", "results_align", "results_rl", "results_merge", "results_budget")


def main(names: list[str]) -> int:
    print(f"{'what':<58} {'measured':>16} {'aim':>10}")
    for name in RESULTS if names == ["results"] else names or NAMES:
        started, module = time.perf_counter(), importlib.import_module(f"tests.benchmarks.{name}")
        if not hasattr(module, "rows"):  # it prints a table of its own
            module.main([])
            continue
        for what, measured, aim in module.rows():
            print(f"{what:<58} {measured:>16} {aim:>10}", flush=True)
        print(f"{'  (' + name + ' took ' + format(time.perf_counter() - started, '.0f') + ' s)':<58}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
