"""Our engines beside other servers of the same model: tokens/s that the same client sees, as ratios in one run.

A starter without an end of its turn, in 32 bits, one thread, 200 sampled tokens an answer, 1 and 4 askers at once; rounds alternate, the median counts.
``transformers serve`` is the library's own server (it needs the ``openai`` package, which may lie anywhere on ``PYTHONPATH``); llama.cpp's own is the one of xllamacpp, asked without our engine before it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOKENS, ROUNDS, ASKERS = 200, 3, (1, 4)
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
HOT = {"temperature": 2.0, "top_p": 1.0, "max_tokens": TOKENS}  # the highest that all of them take

_LLAMA = """
import sys, time
from pathlib import Path
from studio.chat.llama import Llama
llama = Llama(Path(sys.argv[1]), 1)
print(llama._server.listening_address, llama._key, flush=True)
sys.stdin.read()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def babbler(folder: Path) -> Path:
    """The starter with another token as the end of a turn: it talks on. llama.cpp knows the usual one by its name, too."""
    from studio import settings

    made = shutil.copytree(settings.STARTER, folder / "babbler")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (made / name).exists():
            (made / name).write_text((made / name).read_text().replace("<|im_end|>", "<|no_end|>"))
    for name, key, value in (("tokenizer_config.json", "eos_token", "<|pad|>"), ("config.json", "eos_token_id", 0),
                             ("generation_config.json", "eos_token_id", 0)):
        (made / name).write_text(json.dumps(json.loads((made / name).read_text()) | {key: value}))
    return made


def speed(endpoint, askers: int, seed: int) -> float:
    """Tokens/s of so many answers at once, counted by the server's own usage."""
    from studio.chat import client

    made: list[int] = []

    def ask(n: int) -> None:
        *_, last = client.stream(endpoint, MESSAGES, HOT | {"seed": seed * 100 + n}, client.Stop())
        made.append(last.tokens)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(askers)]
    began = time.perf_counter()
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sum(made) > 0.5 * TOKENS * askers, f"the answers ended before their time: {made}"
    return sum(made) / (time.perf_counter() - began)


def theirs(model: Path, log):
    """(process, endpoint) of ``transformers serve``, or its process alone where it did not come up."""
    from studio.chat import client
    from studio.errors import StudioError

    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--port", str(port), "--device", "cpu",
               "--dtype", "float32", "--default-seed", "0"]
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    endpoint = client.Endpoint(f"http://127.0.0.1:{port}/v1", str(model), remote=True)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            *_, last = client.stream(endpoint, MESSAGES, HOT | {"max_tokens": 8}, client.Stop())
            return process, endpoint if last.tokens else None
        except (StudioError, client.EngineGone):
            time.sleep(0.5)
    return process, None


def rows():
    """Yields (what, measured, aim)."""
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as home, open(Path(home) / "serve.log", "wb") as log:
        os.environ |= {"STUDIO_HOME": home, "OMP_NUM_THREADS": "1", "ATELIER_THREADS": "1"}
        from studio.chat import client, manager
        from studio.gguf import convert

        model = babbler(Path(home))
        file = Path(home) / "starter-f32" / "starter-f32.gguf"
        file.parent.mkdir()
        convert.convert(model, file, "f32")
        process, library = theirs(model, log)
        bare = subprocess.Popen([sys.executable, "-c", _LLAMA, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                text=True)
        try:
            ours, ggufs = manager.engine_for(str(model)), manager.engine_for(str(file.parent))
            address, key = bare.stdout.readline().split()
            llama = client.Endpoint(f"{address}/v1", "starter", key, remote=True)
            pairs = [("transformers engine over transformers serve", ours, library), ("GGUF engine over llama.cpp's own server", ggufs, llama)]
            for what, mine, other in pairs:
                if other is None:
                    yield f"tokens/s, {what}", "did not start", "-"
                    continue
                speed(mine, 1, 0), speed(other, 1, 0)
                for askers in ASKERS:
                    found = [(speed(mine, askers, seed), speed(other, askers, seed)) for seed in range(1, ROUNDS + 1)]
                    ratio = statistics.median(one / two for one, two in found)
                    value = f"{statistics.median(one for one, _ in found):.0f}/s = {ratio:.2f}"
                    yield f"tokens/s of {askers} askers, {what}", value, "-"
        finally:
            for one in (process, bare):
                one.terminate()
                one.wait(10)
            manager.shutdown_all()


if __name__ == "__main__":
    for row in rows():
        print("{:<70} {:>16} {:>6}".format(*row))
