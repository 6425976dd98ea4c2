"""Training speed as ratios in one run: the studio, a plain TRL script and a bare PyTorch loop on one model and one data set.

Every round runs the three one after the other, each in a fresh process on one thread, full fine-tuning of the starter in float32,
batches of 8 samples of exactly 256 tokens. Each reports tokens/s over the same span of steps; the table shows medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH, LENGTH, STEPS, FIRST = 8, 256, 40, 10  # the span FIRST..STEPS is timed, so that warm-up is left out
ROUNDS = 3


def _rows(path: Path) -> None:
    from studio import settings

    text = (settings.DATASETS / "moon-stories.txt").read_text("utf-8").replace("\n", " ")
    size = 4 * LENGTH  # characters; the starter's tokens are shorter than four characters on average
    with path.open("w") as out:
        for i in range(BATCH * STEPS):
            start = (i * 37) % max(1, len(text) - size * 2)
            out.write(json.dumps({"text": text[start:start + size * 2]}) + "\n")


def bare(data: Path) -> float:
    """Tokens/s of a loop of a few lines: forward, backward, clip, step."""
    import time

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from studio import settings

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(settings.STARTER, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(settings.STARTER)
    texts = [json.loads(line)["text"] for line in data.open()]
    ids = tokenizer(texts, truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
    assert ids.shape[1] == LENGTH, ids.shape
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    started = 0.0
    for step in range(STEPS):
        if step == FIRST:
            started = time.perf_counter()
        batch = ids[step * BATCH:(step + 1) * BATCH]
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (STEPS - FIRST) * BATCH * LENGTH / (time.perf_counter() - started)


def trl(data: Path) -> float:
    """Tokens/s of the script a person would write with TRL."""
    import time

    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from studio import settings

    torch.set_num_threads(1)
    marks: dict[int, float] = {}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            marks[state.global_step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(output_dir=out, use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=LENGTH,
                           per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=1e-4, logging_steps=10,
                           save_strategy="no", report_to="none", disable_tqdm=True)
        model = AutoModelForCausalLM.from_pretrained(settings.STARTER, dtype=torch.float32)
        SFTTrainer(model, config, train_dataset=load_dataset("json", data_files=str(data), split="train", cache_dir=out),
                   callbacks=[Clock()]).train()
    return (STEPS - FIRST) * BATCH * LENGTH / (marks[STEPS] - marks[FIRST])


def studio(data: Path) -> float:
    """Tokens/s of the studio's own job, from the times of its events."""
    import torch

    from studio.jobs import events
    from studio.jobs.context import Context
    from studio.recipe import parse
    from studio.registry import method

    torch.set_num_threads(1)
    recipe = parse({"kind": "sft", "method": "full", "model": "starter", "dataset": str(data), "eval_share": 0.0,
                    "max_steps": STEPS, "learning_rate": 1e-4, "per_device_train_batch_size": BATCH,
                    "gradient_accumulation_steps": 1, "max_length": LENGTH, "logging_steps": 10, "sample_prompts": [],
                    "bf16": "off", "gradient_checkpointing": False})
    with tempfile.TemporaryDirectory() as out:
        ctx = Context(Path(out) / "bench", threads=1)
        method("sft", "full").run(recipe, ctx)
        ctx.close()
        found, _ = events.read(Path(out) / "bench" / "events.jsonl", 0)
    times = {e["step"]: e["t"] for e in found if e["e"] == "metric" and "loss" in e["values"]}
    return (STEPS - FIRST) * BATCH * LENGTH / (times[STEPS] - times[FIRST])


def rows() -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table."""
    speeds: dict[str, list[float]] = {"bare": [], "trl": [], "studio": []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        _rows(data)
        for _ in range(ROUNDS):
            for name in speeds:
                done = subprocess.run([sys.executable, "-m", "tests.benchmarks.training", name, str(data)], check=True,
                                      capture_output=True, text=True,
                                      env=os.environ | {"OMP_NUM_THREADS": "1", "STUDIO_HOME": folder})
                speeds[name].append(float(done.stdout.strip().splitlines()[-1]))
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    return [("training tokens/s, bare PyTorch loop", f"{middle['bare']:.0f}", ""),
            ("training, plain TRL script / bare loop", f"{middle['trl'] / middle['bare']:.2f}", ""),
            ("training, studio / bare loop", f"{middle['studio'] / middle['bare']:.2f}", "0.95"),
            ("training, studio / plain TRL script", f"{middle['studio'] / middle['trl']:.2f}", "")]


if __name__ == "__main__":
    print({"bare": bare, "trl": trl, "studio": studio}[sys.argv[1]](Path(sys.argv[2])))
