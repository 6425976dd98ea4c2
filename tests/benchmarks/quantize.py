"""What each way to quantize takes: processor seconds and memory a million weights, and how texts add to them.

    .venv/bin/python -m tests.benchmarks quantize

Random models of two sizes, each variant made in a process of its own on one thread; the proof is not in it. Times are
processor seconds, because the clock on the wall of a shared machine measures the others too. The estimates of the page
(``pace`` and ``copies`` of each method) stand on these numbers; docs/quantize.md has them.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.estimate import in_a_fork

# name -> width, inner width, layers, vocabulary; every row divides by 128
MODELS = {"8M": (256, 768, 8, 4096), "31M": (512, 1536, 8, 8192)}
CASES = [("bitsandbytes", "int8"), ("bitsandbytes", "nf4"), ("int", "W4A16"), ("fp8", "FP8_DYNAMIC"), ("fp8", "FP8"),
         ("smoothquant", "W8A8"), ("gptq", "W4A16"), ("awq", "W4A16_ASYM")]
TEXTS = (32, 96)


def make_model(name: str, folder: Path) -> str:
    import torch
    import transformers

    from studio import settings

    width, inner, layers, vocabulary = MODELS[name]
    transformers.set_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True)).to(torch.bfloat16).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(settings.STARTER).save_pretrained(folder)
    return str(folder)


def one(method: str, scheme: str, model: str, texts: int, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of one variant, measured in a copy of this process."""

    def work() -> dict[str, Any]:
        from studio.jobs.context import Context
        from studio.library import refs
        from studio.quantizers import calibration
        from studio.quantizers.runtimes import peak
        from studio.recipe import parse
        from studio.registry import method as find
        from studio.trainers import load

        recipe = parse({"kind": "quantize", "method": method, "model": model, "num_calibration_samples": texts,
                        **({"types" if method == "bitsandbytes" else "schemes": [scheme]})})
        source, ctx = refs.resolve_model(model), Context(folder / f"{method}-{scheme}-{texts}")
        count = sum(map(len, calibration.tokens(recipe, load.tokenizer(source))))
        out, before, began = ctx.output / scheme, _resident(), time.process_time()
        out.mkdir()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            facts = find("quantize", method).make(recipe, ctx, source, scheme, out)
        return {"seconds": time.process_time() - began, "memory": peak() - before, "parameters": source.meta["parameters"],
                "tokens": count, "bits": facts["bits"]}

    return in_a_fork(work)


def _resident() -> int:
    import psutil

    return psutil.Process().memory_info().rss


def main(arguments: list[str]) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        os.environ["STUDIO_HOME"] = place
        import llmcompressor  # noqa: F401  imported once, before the copies are made
        import torch
        import transformers  # noqa: F401

        from studio.trainers import load

        load.quiet()
        torch.set_num_threads(1)
        models = {name: make_model(name, Path(place) / name) for name in MODELS}
        print(f"{'method':<24} {'model':>6} {'texts':>6} {'tokens':>7} {'seconds':>8} {'s/M':>7} {'bytes a weight':>15} {'bits':>6}")
        for method, scheme in CASES:
            from studio.recipe import parse
            from studio.registry import method as find

            recipe = parse({"kind": "quantize", "method": method, **({"schemes": [scheme]} if method == "fp8" else {})})
            needs = find("quantize", method).needs_texts(recipe)
            for name, texts in [("8M", TEXTS[0]), *([("8M", TEXTS[1])] if needs else []), ("31M", TEXTS[0])]:
                found = one(method, scheme, models[name], texts, Path(place) / name / "runs")
                millions = found["parameters"] / 1e6
                print(f"{method + ' ' + scheme:<24} {name:>6} {texts if needs else '-':>6} {found['tokens'] if needs else '-':>7} "
                      f"{found['seconds']:>8.2f} {found['seconds'] / millions:>7.3f} {found['memory'] / found['parameters']:>15.1f} "
                      f"{found['bits']:>6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
