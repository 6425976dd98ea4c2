"""Merge time and peak memory beside mergekit's own command line, in one run: ``python -m tests.benchmarks merge``.

Two random Llamas of about 20 million weights in bfloat16 are merged, with a third as base. Each side is a process of its own on one
thread, one after the other in every round; the table shows medians. Seconds are those of processor time from the recipe to the
finished folder, imports left out (a job of the studio has them from its warm process); memory is the peak of the whole process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = int(os.environ.get("ATELIER_ROUNDS", "3"))
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "slerp": ({}, {"t": 0.5}), "linear": ({"weight": 0.5}, {}), "ties": ({"weight": 0.5, "density": 0.5}, {})}


def models(folder: Path) -> list[Path]:
    """A base and two tunes of it."""
    import torch
    import transformers

    from studio import settings

    words = transformers.AutoTokenizer.from_pretrained(settings.STARTER)
    made = []
    for number in range(3):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=len(words), hidden_size=512, intermediate_size=1408, num_hidden_layers=6, num_attention_heads=8,
            num_key_value_heads=8, tie_word_embeddings=True, dtype=torch.bfloat16)).to(torch.bfloat16)
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters() if number else ():
                weight.add_(torch.randn_like(weight) * 0.01)
        model.save_pretrained(folder / str(number))
        words.save_pretrained(folder / str(number))
        made.append(folder / str(number))
    return made


def config(method: str, found: list[Path]) -> dict[str, Any]:
    each, shared = METHODS[method]
    made: dict[str, Any] = {"merge_method": method, "dtype": "bfloat16", "models": [
        {"model": str(one)} | ({"parameters": each} if each else {}) for one in found[1:]]}
    if shared:
        made["parameters"] = shared
    if method != "linear":
        made["base_model"] = str(found[1] if method == "slerp" else found[0])
    return made


def studio(path: Path, out: Path) -> float:
    """Seconds of processor time of a job's own work."""
    import time

    import mergekit.merge  # noqa: F401 - what both sides pay
    import torch
    import transformers  # noqa: F401

    from studio.mergers import finishing, plan, running  # noqa: F401
    from studio.recipe import parse
    from studio.registry import method
    from studio.trainers import load
    from tests.train.conftest import run

    torch.set_num_threads(1)
    load.quiet()
    values = {"kind": "merge", "method": "mergekit", "config": json.loads(path.read_text())}
    method("merge", "mergekit").check(parse(values))
    began = time.process_time()
    run(values, out)
    return time.process_time() - began


def theirs(path: Path, out: Path) -> float:
    """The same of ``mergekit-yaml``."""
    import time

    import mergekit.merge  # noqa: F401
    import torch
    from mergekit.scripts.run_yaml import main

    torch.set_num_threads(1)
    began = time.process_time()
    main.main(args=[str(path), str(out), "--no-write-model-card"], standalone_mode=False)
    return time.process_time() - began


def rows() -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table."""
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = models(folder)
        for method in METHODS:
            path = folder / f"{method}.yml"
            path.write_text(json.dumps(config(method, found)))  # JSON is YAML too
            seen: dict[str, list[tuple[float, float]]] = {"studio": [], "theirs": []}
            for number in range(ROUNDS):
                for side in seen:
                    out = folder / f"{method}-{side}-{number}"
                    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.merge", side, str(path), str(out)], check=True,
                                          capture_output=True, text=True, env=os.environ | {
                                              "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "STUDIO_HOME": scratch})
                    seen[side].append(tuple(json.loads(done.stdout.strip().splitlines()[-1])))
            (mine, memory), (other, peak) = (tuple(statistics.median(column) for column in zip(*values, strict=True))
                                             for values in seen.values())
            print(f"{method}: {mine:.2f} s, {other:.2f} s, {memory / 1e6:.0f} MB, {peak / 1e6:.0f} MB", file=sys.stderr, flush=True)
            made += [(f"merge by {method}, 3 models of 20M: studio, mergekit-yaml", f"{mine:.2f} s, {other:.2f} s", ""),
                     (f"merge by {method}: time / mergekit-yaml", f"{mine / other:.2f}", "1.1"),
                     (f"merge by {method}: peak memory / mergekit-yaml", f"{memory / peak:.2f}", "1.0")]
    return made


if __name__ == "__main__":
    import resource

    taken = {"studio": studio, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
