"""What fine-tuning does to the starter, measured: ``python -m tests.benchmarks.results_sft [name …]``.

Each run learns the polite style from 200 chats and is asked the 40 held-out ones: other questions and wordings, greedy
answers, right only if every character is. LoRA, QLoRA in 8 and in 4 bits have the same rank, rate, data and order; what
they learn is asked on the base as it is, and for QLoRA also on the base in the bits that it was trained on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

RUNS: dict[str, dict[str, Any]] = {
    "LoRA": {"method": "lora"}, "QLoRA, 8 bits": {"method": "qlora", "quant_type": "int8"},
    "QLoRA, 4 bits (NF4)": {"method": "qlora", "quant_type": "nf4"},
    "LoRA from PiSSA": {"method": "lora", "init_lora_weights": "pissa", "lora_alpha": 16, "learning_rate": 1e-3},
    "Last two layers": {"method": "full", "freeze": "all_but_last", "learning_rate": 1e-3},
    "All weights, Muon": {"method": "full", "optim": "muon", "learning_rate": 1e-3}}
COMMON = {"kind": "sft", "model": "starter", "dataset": "shipped:polite", "eval_dataset": "shipped:polite-heldout", "r": 16,
          "num_train_epochs": 3, "learning_rate": 3e-3, "per_device_train_batch_size": 4, "max_length": 128, "bf16": "off"}


def right(model: Any, tokenizer: Any) -> tuple[int, int]:
    """(answers that are right to the character, answers in the style) of the held-out questions."""
    from studio.datasets import formats
    from studio.trainers.callbacks import answer

    rows = [row["messages"] for row in formats.load_rows("shipped:polite-heldout", {})]
    said = answer(model.eval(), tokenizer, [turns[0]["content"] for turns in rows], new_tokens=48)
    return (sum(a == turns[1]["content"] for a, turns in zip(said, rows, strict=True)),
            sum(a.startswith("Of course!") and a.endswith("Is there anything else?") for a in said))


def measure(name: str) -> list[str]:
    """A row of the table, two for a quantized base."""
    from studio.library import refs
    from studio.trainers import load
    from tests.train.conftest import run

    values = {k: v for k, v in (COMMON | RUNS[name]).items() if k != "r" or RUNS[name]["method"] != "full"}
    folder = Path(tempfile.mkdtemp())
    summary, ctx = run(values, folder)
    ref = refs.resolve_model(str(ctx.output))
    tokenizer = load.tokenizer(ref)
    bits = {"int8": {"load_in_8bit": True}, "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                                    "bnb_4bit_use_double_quant": True}}.get(values.get("quant_type"))
    made = []
    for label, quantization in [(name, None)] + ([(f"{name}, base in these bits", bits)] if bits else []):
        exact, style = right(load.model(ref, "float32", quantization=quantization), tokenizer)
        made.append(f"| {label} | {summary['eval_loss_before']:.3f} | {summary['eval_loss']:.3f} | {exact} of 40 | "
                    f"{style} of 40 | {summary['trained_parameters']:,} |")
    return made


def main(names: list[str]) -> int:
    import torch

    from studio.library import refs
    from studio.trainers import load

    torch.set_num_threads(1)
    load.quiet()
    print("| | held-out loss before | after | right | in the style | weights trained |\n|---|---|---|---|---|---|")
    ref = refs.resolve_model("starter")
    exact, style = right(load.model(ref, "float32"), load.tokenizer(ref))
    print(f"| The starter | | | {exact} of 40 | {style} of 40 | |", flush=True)
    for name in names or RUNS:
        print(*measure(name), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
