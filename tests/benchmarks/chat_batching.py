"""Answers at once: tokens/s of one engine with continuous batching, over the same engine taking turns, in one run.

1, 4 and 8 askers at the same time, 200 sampled tokens each, the starter, one thread; rounds alternate, the median counts. Last:
transformers' own continuous batching on the same prompts (``generate_batch``, its memory set to what they need: with its own choice
it takes 20 s a call on this kind of machine), as it has no seed per answer.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOKENS, ROUNDS, ASKERS = 200, 3, (1, 4, 8)
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
HOT = {"temperature": 5.0, "top_p": 1.0, "max_tokens": TOKENS}

_THEIRS = f"""
import sys, time, torch
torch.set_num_threads(1)
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="paged|sdpa").eval()
ids = tokenizer.apply_chat_template({MESSAGES!r}, add_generation_prompt=True, return_dict=True)["input_ids"]
config = GenerationConfig(do_sample=True, temperature=5.0, top_k=0, max_new_tokens={TOKENS}, eos_token_id=2, pad_token_id=0)
memory = ContinuousBatchingConfig(num_blocks=64, block_size=32, max_batch_tokens=256)
for line in sys.stdin:
    n = int(line)
    began = time.perf_counter()
    out = model.generate_batch([list(ids) for _ in range(n)], generation_config=config, continuous_batching_config=memory,
                               progress_bar=False)
    print(sum(len(one.generated_tokens) for one in out.values()) / (time.perf_counter() - began), flush=True)
"""


def rows():
    """Yields (what, measured, aim)."""
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as home:
        os.environ |= {"STUDIO_HOME": home, "OMP_NUM_THREADS": "1"}
        from studio import settings
        from studio.chat import client, manager

        other = shutil.copytree(settings.STARTER, Path(home) / "turns")
        theirs = subprocess.Popen([sys.executable, "-c", _THEIRS, str(settings.STARTER)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        def ask(endpoint, seed: int, made: list) -> None:
            *_, last = client.stream(endpoint, MESSAGES, HOT | {"seed": seed}, client.Stop())
            made.append(last.tokens)

        def speed(endpoint, askers: int) -> float:
            made: list[int] = []
            threads = [threading.Thread(target=ask, args=(endpoint, seed, made)) for seed in range(askers)]
            began = time.perf_counter()
            [t.start() for t in threads]
            [t.join() for t in threads]
            return sum(made) / (time.perf_counter() - began)

        def library(askers: int) -> float | None:
            try:
                theirs.stdin.write(f"{askers}\n")
                theirs.stdin.flush()
                return float(theirs.stdout.readline())
            except (OSError, ValueError):
                return None

        try:
            batched = manager.engine_for("starter")
            os.environ["ATELIER_BATCHING"] = "0"
            turns = manager.engine_for(str(other))
            speed(batched, 2), speed(turns, 2), library(1)
            for askers in ASKERS:
                found = [(speed(batched, askers), speed(turns, askers), library(askers)) for _ in range(ROUNDS)]
                ratio = statistics.median(one / two for one, two, _ in found)
                value = f"{statistics.median(one for one, _, _ in found):.0f}/s = {ratio:.2f}"
                yield f"tokens/s of {askers} askers, batched over turn-taking", value, "-"
                if all(three for _, _, three in found):
                    ratio = statistics.median(one / three for one, _, three in found)
                    yield f"tokens/s of {askers} askers, batched over transformers' batching", f"{ratio:.2f}", "-"
        finally:
            os.environ.pop("ATELIER_BATCHING", None)
            theirs.stdin.close()
            theirs.wait()
            manager.shutdown_all()


if __name__ == "__main__":
    for row in rows():
        print("{:<66} {:>16} {:>6}".format(*row))
