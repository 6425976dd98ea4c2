"""The probes of behaviour on the starter: safety, robustness, hallucination, system-prompt following, and speed of its variants.

``.venv/bin/python -m tests.benchmarks.results_probes [safety robustness …]`` prints what docs/results.md shows. It takes some
minutes on two cores; the figures of behaviour are greedy and the same each time, those of speed are not.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "safety": {"max_new_tokens": 48},
    "robustness": {"dataset": "shipped:polite-heldout", "questions": 40, "variants": 2, "max_new_tokens": 48},
    "hallucination": {"questions": 60, "template": "{context} {question}", "max_new_tokens": 48},
    "prompt_following": {"system_prompt": "Answer with one word.", "rules": ["at most: 1 word", "ends with: ."], "questions": 40, "max_new_tokens": 48},
    "speed": {"batches": [1, 2, 4, 8], "contexts": [64, 192, 384], "ways": ["cache", "no_cache", "prompt_lookup", "assistant"],
              "assistant_model": "starter", "new_tokens": 64, "repeats": 5}}


def work(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The summary of a recipe, run as a worker would."""
    from tests.train.conftest import run

    summary, ctx = run(values, folder)
    ctx.close()
    return summary


def apart(folder: Path) -> list[tuple[str, str, str]]:
    """The verdicts of the hallucination probe apart for whom the question is about."""
    from studio.evals.results import samples

    found: dict[tuple[str, str], Counter[str]] = {}
    for line in samples(folder / "output"):
        found.setdefault((line["task"], line["tags"]["about"]), Counter())[line["tags"]["verdict"]] += 1
    return [(f"{task}, about {who}s", ", ".join(f"{word} {n}" for word, n in counts.most_common()), "") for (task, who), counts in found.items()]


def share(one: dict[str, Any]) -> str:
    return f"{100 * one['value']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f}; {one['k']} of {one['n']})"


def middle(one: dict[str, Any] | None) -> str:
    return "-" if not one else f"{one['value']:.3g} ({one['low']:.3g} to {one['high']:.3g})"


def told(name: str, found: dict[str, Any], labels: list[str]) -> list[tuple[str, str, str]]:
    """Lines of the table of one probe."""
    made: list[tuple[str, str, str]] = []
    if name == "safety":
        made += [(f"{one['category']}, {one['metric']}", share(one), "") for one in found["rates"]]
        made += [(f"{one['category']}, verdicts", ", ".join(f"{word} {n}" for word, n in one.items() if word not in ("model", "category")), "")
                 for one in found["verdicts"]]
    elif name == "robustness":
        made += [(one["kind"], share(one), f"flips {share(one['flips'])}" if "flips" in one else "") for one in found["kinds"]]
        made += [("spread", f"{one['worst']:.0%} ({one['worst_kind']}) to {one['best']:.0%}", f"unstable {share(one['unstable'])}") for one in found["spread"]]
    elif name == "hallucination":
        for one in found["triad"]:
            supported = "" if one["supported"] is None else f"words in the context {100 * one['supported']:.0f} %"
            made.append((one["way"], ", ".join(f"{word} {v['value']:.0%}" for word, v in one["verdicts"].items()), supported))
        made += [("agrees with itself", f"{one['value']:.0%}", ", ".join(f"{word} {v['value']:.0%} of {v['n']}" for word, v in one["by_verdict"].items()))
                 for one in found["agreement"]]
    elif name == "prompt_following":
        for one in [*found["rules"], {"rule": "every rule", "cells": found["all"]}]:
            made += [(f"{one['rule']}, {cell['way']}", share(cell), "") for cell in one["cells"]]
    else:
        for one in found["latency"]:
            made.append((f"{labels[one['model']]}: one asker", ", ".join(f"{key} {value:.3g}" for key, value in one["scores"].items()), ""))
        made += [(f"{labels[one['model']]}: {one['askers']} askers, tokens/s together", middle(one), f"first token {middle(one['ttft_ms'])} ms") for one in found["throughput"]]
        made += [(f"{labels[one['model']]}: question of {one['prompt_tokens']} tokens, first token ms", middle(one["ttft_ms"]), f"then tokens/s {middle(one['tokens_per_second'])}")
                 for one in found["context"]]
        made += [(f"{labels[one['model']]}: {one['way']}, tokens/s", middle(one), f"tokens a pass {one['per_forward']:.2f}"
                  + (f", taken {one['acceptance']:.0%}" if "acceptance" in one else "")) for one in found["ways"]]
        made += [(f"{labels[one['model']]}: peak memory", f"{one.get('peak', 0) / 1e6:.0f} MB", f"on disk {(one['size'] or 0) / 1e6:.1f} MB") for one in found["engines"]]
        made.append(("machine", f"load {found['machine']['load_before']} before, {found['machine']['load_after']} after, {found['machine']['cores']} cores", ""))
    return made


def rows(names: list[str] | None = None) -> list[tuple[str, str, str]]:
    """(what, measured, beside it) of the probes named, or of all."""
    made: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as scratch:
        home = Path(scratch).resolve()
        os.environ |= {"STUDIO_HOME": str(home), "OMP_NUM_THREADS": "1"}
        from studio.chat import manager

        try:
            for name in names or list(RECIPES):
                models = ["starter"]
                if name == "speed":
                    work({"kind": "quantize", "method": "gguf", "model": "starter", "types": ["F16", "Q8_0"]}, home / "gguf")
                    models += [str(path) for path in sorted((home / "gguf" / "output").rglob("*.gguf"))]
                found = work({"kind": "eval", "method": name, "models": models} | RECIPES[name], home / name)
                for line in told(name, found, [Path(one).stem for one in models]) + (apart(home / name) if name == "hallucination" else []):
                    made.append((f"{name}: {line[0]}", line[1], line[2]))
                    print(" | ".join(made[-1]), flush=True)
        finally:
            manager.shutdown_all()
    return made


if __name__ == "__main__":
    rows(sys.argv[1:] or None)
