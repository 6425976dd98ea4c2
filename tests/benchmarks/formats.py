"""Every format of one model: size, memory, tokens a second, and how far it is from the source.

    .venv/bin/python -m tests.benchmarks formats

The starter is written in each format and proven as the Quantize tab proves it: each is loaded by its own runtime in a
process of its own, one thread, one after the other. Tokens a second are those of all its greedy answers together; memory is
the peak of the process, of which the first number stands there before the model is loaded (torch, or llama.cpp alone).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

GGUF = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K", "TQ2_0")
OTHERS = (("bitsandbytes", "types", "int8"), ("bitsandbytes", "types", "nf4"), ("int", "schemes", "W8A16"),
          ("int", "schemes", "W4A16"), ("fp8", "schemes", "FP8_DYNAMIC"), ("gptq", "schemes", "W4A16"),
          ("awq", "schemes", "W4A16_ASYM"), ("smoothquant", "schemes", "W8A8"))
HEAD = ("format", "MB", "memory", "before", "tokens/s", "KL", "top 1", "perplexity", "greedy", "verdict")


def line(name: str, size: float, found: dict[str, Any]) -> str:
    greedy, seen = found["greedy"], found["perplexity"]
    return (f"| {name} | {size / 1e6:.2f} | {found['memory'] / 1e6:.0f} | {found['memory_before'] / 1e6:.0f} | "
            f"{found['tokens_per_second']:.0f} | {found['kl']:.2g} | {found['top1']:.1%} | {seen['variant']:.4f} | "
            f"{greedy['same']}/{greedy['of']} | {found['verdict']} |")


def main(argv: list[str] | None = None) -> int:
    """Print one Markdown table."""
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as home:
        os.environ |= {"STUDIO_HOME": home, "OMP_NUM_THREADS": "1"}
        from studio import settings
        from studio.gguf import convert, quantize
        from studio.jobs.context import Context
        from studio.quantizers import proof, source
        from studio.quantizers.base import Stage
        from studio.recipe import parse
        from studio.registry import method

        ctx = Context(Path(home) / "run", threads=1)
        recipe = parse({"kind": "quantize", "method": "bitsandbytes", "model": "starter"})
        print(f"| {' | '.join(HEAD)} |\n|---|{'---:|' * (len(HEAD) - 2)}---|")
        with source.whole(recipe, ctx) as model:
            reference = proof.Reference(model, recipe, ctx)
            ours = reference.found
            print(f"| the source, 32 bits in transformers | {model.meta['size'] / 1e6:.2f} | {ours['memory'] / 1e6:.0f} | "
                  f"{ours['memory_before'] / 1e6:.0f} | {proof._speed(ours['answers']):.0f} | 0 | 100 % | "
                  f"{reference.perplexity():.4f} | | |", flush=True)
            whole = Path(home) / "F32" / "model.gguf"
            for kind in GGUF:
                file = Path(home) / kind / "model.gguf"
                file.parent.mkdir()
                if kind in ("F32", "F16", "BF16"):
                    convert.convert(settings.STARTER, file, kind.lower())
                else:
                    quantize.quantize(whole, file, kind)
                found = reference.compare(file.parent, {"format": "gguf"})
                print(line(f"GGUF {kind}", found["size"], found), flush=True)
            for name, key, kind in OTHERS:
                folder = Path(home) / f"{name}-{kind}"
                folder.mkdir()
                found_method = method("quantize", name)
                mine = parse({"kind": "quantize", "method": name, "model": "starter", key: [kind]})
                facts = found_method.make(mine, Stage(ctx, 1), model, kind, folder)
                found = reference.compare(folder, facts)
                label = f"{name} {facts['quantization']}" if name == "bitsandbytes" else facts["quantization"]
                print(line(label, found["size"], found), flush=True)
            reference.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
