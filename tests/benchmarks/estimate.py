"""How far the estimates are from the truth: the formula, two measured steps, and a real run, over a grid of models and settings.

    .venv/bin/python -m tests.benchmarks estimate

Every cell is measured twice in processes of their own: by ``studio.trainers.measure`` and by a real run of four steps. Ratios
are what was said by what was so: above 1 the estimate was too high. Times are processor seconds on one thread, because the clock
on the wall of a shared machine measures the others too.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

STEPS = 4  # of a real run
ROWS = 64
# name -> width, inner width, layers, vocabulary; the starter is what ships
MODELS = {"3M": (192, 512, 4, 4096), "10M": (320, 896, 6, 8192), "40M": (512, 1408, 9, 16384)}
# batch, length, method, checkpointing: not every combination, but every value beside every other
SHAPES = [(4, 64, "full", False), (16, 64, "lora", False), (4, 256, "lora", False), (8, 256, "full", False),
          (8, 256, "full", True), (8, 256, "lora", True)]


def make_model(name: str, folder: Path) -> str:
    """A random model with the starter's tokenizer; returns its reference."""
    if name == "starter":
        return "starter"
    import transformers

    from studio import settings

    width, inner, layers, vocabulary = MODELS[name]
    transformers.set_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True)).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(settings.STARTER).save_pretrained(folder)
    return str(folder)


def make_data(path: Path, length: int) -> None:
    """Texts a little longer than ``length`` tokens, so that every sample is as long as it may be."""
    draw = random.Random(0)
    words = "the cat sat on a mat and saw green grass under the blue sky while the dog ran home to eat".split()
    with path.open("w") as out:
        for _ in range(ROWS):
            out.write(json.dumps({"text": " ".join(draw.choices(words, k=length + 8))}) + "\n")


def in_a_fork(work: Any) -> dict[str, Any]:
    """What ``work()`` returns, computed in a copy of this process, as a run is started from the warm one."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as out:
                json.dump(work(), out)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as out:
        text = out.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def real(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Peak memory and processor seconds of a run to its end."""
    from studio.jobs.context import Context
    from studio.recipe import parse
    from studio.registry import method
    from studio.trainers import measure

    began, recipe = time.process_time(), parse(values)
    ctx = Context(folder, threads=1)
    method(recipe.kind, recipe.method).run(recipe, ctx)
    ctx.close()
    return {"memory": measure.peak(False), "seconds": time.process_time() - began}


def cells(models: list[str]) -> list[dict[str, Any]]:
    """Every cell of the grid: what was estimated, measured and so."""
    from studio.recipe import parse
    from studio.registry import method
    from studio.trainers import loop, measure  # noqa: F401 - imported before the forks, as the warm process does

    measure.clock = time.process_time
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            model = in_a_fork(lambda name=name: {"ref": make_model(name, Path(folder) / name)})["ref"]
            for batch, length, how, again in SHAPES:
                batch = max(1, batch // 4) if name == "40M" else batch  # a quarter, so that a step takes seconds
                data = Path(folder) / f"rows-{length}.jsonl"
                make_data(data, length)
                values = {"kind": "sft", "method": how, "model": model, "dataset": str(data), "max_length": length,
                          "per_device_train_batch_size": batch, "gradient_checkpointing": again, "max_steps": STEPS,
                          "eval_share": 0.0, "logging_steps": 1, "bf16": "off"}
                recipe = parse(values)
                said = method("sft", how).estimate(recipe)
                place = Path(folder) / f"run{len(made)}"
                tried = in_a_fork(lambda values=values: measure.measure(values))
                true = in_a_fork(lambda values=values, place=place: real(values, place))
                made.append({"model": name, "batch": batch, "length": length, "method": how, "again": again,
                             "formula": said.memory, "formula_seconds": said.seconds, "measured": tried["memory"],
                             "measured_seconds": tried["seconds"], "real": true["memory"],
                             "real_seconds": true["seconds"]})
                print(json.dumps(made[-1]), file=sys.stderr, flush=True)
    return made


def rows() -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = cells(["starter", *MODELS])
    made = []
    for cell in found:
        what = f"{cell['model']}, {cell['method']}, {cell['batch']} × {cell['length']}" + (", checkpointing" if cell["again"] else "")
        made.append((what, f"{cell['formula'] / 1e6:.0f} / {cell['measured'] / 1e6:.0f} / {cell['real'] / 1e6:.0f} MB", ""))
        made.append(("", f"{cell['formula_seconds']:.1f} / {cell['measured_seconds']:.1f} / {cell['real_seconds']:.1f} s", ""))
    for title, said, true in (("memory, formula by real run", "formula", "real"),
                              ("memory, two steps by real run", "measured", "real"),
                              ("time, formula by real run", "formula_seconds", "real_seconds"),
                              ("time, two steps by real run", "measured_seconds", "real_seconds")):
        ratios = [cell[said] / cell[true] for cell in found]
        worst = max(ratios, key=lambda ratio: abs(ratio - 1))
        made.append((f"{title}: median, worst", f"{statistics.median(ratios):.2f}, {worst:.2f}", ""))
    return made


if __name__ == "__main__":
    print(json.dumps(cells(sys.argv[1:] or ["starter", *MODELS]), indent=0))
