"""Chat speed as a ratio: tokens/s that a client of the engine sees, over a plain ``generate`` of the same model.

The two take turns in one run, 400 sampled tokens of the starter each, one thread, the same seed; the table shows the
median. Also: how long a question to a stopped engine takes to its first word, and what two answers get together.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOKENS, ROUNDS = 400, 7
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
HOT = {"temperature": 5.0, "top_p": 1.0, "max_tokens": TOKENS}  # so hot that it never ends by itself

_PLAIN = f"""
import sys, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
inputs = tokenizer.apply_chat_template({MESSAGES!r}, add_generation_prompt=True, return_dict=True, return_tensors="pt")
for line in sys.stdin:
    torch.manual_seed(int(line))
    began = time.perf_counter()
    out = model.generate(**inputs, do_sample=True, temperature=5.0, top_p=1.0, top_k=0, max_new_tokens={TOKENS})
    made = out.shape[1] - inputs["input_ids"].shape[1]
    tokenizer.decode(out[0, -made:])
    print(made / (time.perf_counter() - began), flush=True)
"""


def rows():
    """Yields (what, measured, aim)."""
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as home:
        os.environ |= {"STUDIO_HOME": home, "OMP_NUM_THREADS": "1"}
        from studio import settings
        from studio.chat import client, manager, session

        plain = subprocess.Popen([sys.executable, "-c", _PLAIN, str(settings.STARTER)], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        def generate(seed: int) -> float:
            plain.stdin.write(f"{seed}\n")
            plain.stdin.flush()
            return float(plain.stdout.readline())

        def ask(seed: int) -> tuple[float, float]:
            began = time.perf_counter()
            *_, last = client.stream(endpoint, MESSAGES, HOT | {"seed": seed}, client.Stop())
            return last.tokens / (time.perf_counter() - began), last.ttft

        try:
            generate(0)
            began = time.perf_counter()
            for event in session.stream("starter", MESSAGES, HOT | {"temperature": 1.0}):
                if event.get("text"):
                    break
            cold = time.perf_counter() - began
            endpoint = manager.engine_for("starter")
            ask(0)
            pairs = [(ask(seed), generate(seed)) for seed in range(1, ROUNDS + 1)]
            speeds = [speed for (speed, _), _ in pairs]
            ratio = statistics.median(speed / bare for (speed, _), bare in pairs)
            both: list[float] = []
            threads = [threading.Thread(target=lambda s=s: both.append(ask(s)[0])) for s in (11, 12)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            first = statistics.median(ttft for (_, ttft), _ in pairs) * 1000
            speed = f"{statistics.median(speeds):.0f}/s = {ratio:.2f}"
            yield "chat tokens/s, one answer, over plain generate", speed, "0.90"
            yield "chat time to first token, warm engine", f"{first:.0f} ms", "-"
            yield "chat tokens/s, two answers at once, together", f"{sum(both):.0f}/s", "-"
            yield "chat first word from an engine that is not running", f"{cold:.1f} s", "-"
        finally:
            plain.stdin.close()
            plain.wait()
            manager.shutdown_all()


if __name__ == "__main__":
    for row in rows():
        print("{:<58} {:>16} {:>10}".format(*row))
