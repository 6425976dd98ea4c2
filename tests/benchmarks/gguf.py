"""Converting to GGUF beside llama.cpp's own converter, and what rounding to a few types takes. One random model, one run.

    .venv/bin/python -m tests.benchmarks gguf

Each conversion is a process of its own, started fresh: its imports count, because a person waits for them. The models are the
same files; the written tensors are equal (tests/gguf). Times are on the wall; memory is the process's largest resident set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH, INNER, LAYERS, VOCABULARY = 768, 2048, 8, 32_768  # 82 million weights, 164 MB in bfloat16
TYPES = ("Q8_0", "Q4_K_M", "IQ4_XS")


def rows() -> Iterator[tuple[str, str, str]]:
    from tests.gguf import upstream

    with tempfile.TemporaryDirectory() as place:
        folder, ours, theirs = Path(place) / "model", Path(place) / "ours.gguf", Path(place) / "theirs.gguf"
        weights = make_model(folder)
        code = ("import sys; from pathlib import Path; from studio.gguf.convert import convert; "
                "convert(Path(sys.argv[1]), Path(sys.argv[2]), 'bf16')")
        seconds, memory = timed([sys.executable, "-c", code, str(folder), str(ours)])
        yield f"converted to GGUF ({weights / 1e6:.0f}M, bf16)", f"{seconds:.1f} s", ""
        yield "  memory", f"{memory / 1e6:.0f} MB", ""
        try:
            converter = upstream.fetch()
        except OSError as err:
            yield "  llama.cpp's converter", "not fetched", str(err)[:40]
        else:
            job = {"folder": str(folder), "out": str(theirs), "outtype": "bf16", "pre": "qwen2"}
            command = [sys.executable, upstream.__file__, str(converter / upstream.WHERE), json.dumps([job])]
            other, held = timed(command)
            same = upstream.contents(ours)["tensors"] == upstream.contents(theirs)["tensors"]
            yield "  llama.cpp's converter", f"{other:.1f} s", ""
            yield "  its memory", f"{held / 1e6:.0f} MB", ""
            yield "  time, ours by theirs", f"{seconds / other:.2f}", "< 0.5"
            yield "  memory, ours by theirs", f"{memory / held:.2f}", "< 0.5"
            yield "  tensors", "equal" if same else "DIFFERENT", "equal"
        for kind in TYPES:
            code = ("import sys; from pathlib import Path; from studio.gguf.quantize import quantize; "
                    "quantize(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])")
            seconds, memory = timed([sys.executable, "-c", code, str(ours), str(Path(place) / "q.gguf"), kind])
            yield f"rounded to {kind}, one thread", f"{seconds:.1f} s", ""
            yield "  a million weights", f"{seconds / weights * 1e6:.3f} s", ""
            yield "  memory", f"{memory / 1e6:.0f} MB", ""


def make_model(folder: Path) -> int:
    """A random Llama with a tokenizer trained here; returns how many weights it has. No torch, so it is quick."""
    import numpy as np
    from safetensors.numpy import save_file

    from tests.gguf import models

    folder.mkdir()
    models.tokenizer("qwen2", folder)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,)}
    for at in range(LAYERS):
        for name, shape in {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH, WIDTH),
                            "self_attn.v_proj": (WIDTH, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH),
                            "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH), "mlp.down_proj": (WIDTH, INNER),
                            "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}.items():
            shapes[f"model.layers.{at}.{name}.weight"] = shape
    random = np.random.RandomState(0)
    save_file({name: (random.standard_normal(shape) * 0.05).astype(np.float16) for name, shape in shapes.items()},
              folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"}))
    return sum(int(np.prod(shape)) for shape in shapes.values())


# a process counts the memory it had before exec, that of its parent: so a small one stands between
BETWEEN = ("import json, os, subprocess, sys, time; began = time.perf_counter(); "
           "p = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL); _, status, use = os.wait4(p.pid, 0); "
           "print(json.dumps([time.perf_counter() - began, use.ru_maxrss * 1024, status]))")


def timed(command: list[str]) -> tuple[float, int]:
    """Seconds on the wall, and the most bytes that the process held."""
    done = subprocess.run([sys.executable, "-S", "-c", BETWEEN, *command], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds, memory, status = json.loads(done.stdout) if done.stdout else (0, 0, 1)
    if status:
        raise RuntimeError(done.stderr[-1000:])
    return seconds, memory
