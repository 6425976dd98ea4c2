"""Loads one model by the program that will run it, in a process of its own, and has it answer and read.

:func:`ask` starts the process and waits; ``python -m studio.quantizers.runtimes FOLDER`` is that process. A model that
brings its runtime down ends the process only, and what it held in memory is told by the system.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError

HOUR = 3600.0
WAIT = 0.1
ROWS = 64  # positions whose probabilities are in memory at a time
TIE = 0.05  # two logits this near may change places with the number of tokens that are computed together


class Broken(StudioError):
    """The model loads and computes nonsense."""


class Failed(Exception):
    """The runtime could not load the model, or ended in the middle; the message says why."""


def ask(job: dict[str, Any], folder: Path, ctx: Any, limit: float = HOUR) -> dict[str, Any]:
    """Run a job in a fresh process.

    Args:
        job: ``path`` (folder or file), ``runtime`` (``transformers`` | ``llama.cpp``), ``threads``, ``trust``;
            ``conversations`` (to be answered greedily), ``new_tokens``; ``templates`` (conversations to be rendered),
            ``words`` (texts to be cut into tokens), ``ends`` (token ids); ``texts`` (lists of ids to be read), and either
            ``keep`` (file for their logits) or ``source`` (file of the source's logits) with ``rows`` (where each begins).
        folder: For the job's files.

    Returns:
        ``load_seconds``, ``memory`` (bytes at the peak, without reading texts), ``memory_before``, ``answers``, ``templates``,
        ``tokens``, ``ends``, ``read`` (``unread``: why it could not be measured; ``broken``: what is wrong with the model).

    Raises:
        Failed: with the reason, for a person.
        Stopped: a stop was asked for.
    """
    from studio.quantizers.base import Stopped

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(json.dumps(job), "utf-8")
    (folder / "answer.json").unlink(missing_ok=True)
    paths = filter(None, [str(settings.ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"STUDIO_HOME": str(settings.home()), "OMP_NUM_THREADS": str(job["threads"]),
                                "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    with open(folder / "log.txt", "wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "studio.quantizers.runtimes", str(folder)], stdout=log, stderr=log,
                                 stdin=subprocess.DEVNULL, cwd=settings.home(), env=environment)
        began = time.monotonic()
        try:
            while child.poll() is None:
                if ctx.stop_requested:
                    raise Stopped
                if time.monotonic() - began > limit:
                    raise Failed(f"It did not come to an end within {limit / 60:.0f} minutes.")
                time.sleep(WAIT)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    try:
        answer = json.loads((folder / "answer.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise Failed(_ended(child.returncode, folder / "log.txt")) from None
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer


def _ended(code: int, log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in lines if "GGML_ASSERT" in line or "rror" in line] or lines
    last = f" It said last: {told[-1][:300]}" if told else ""
    if code < 0:
        name = signal.Signals(-code).name
        return f"The runtime crashed ({name}{', often for want of memory' if name == 'SIGKILL' else ''}).{last}"
    return f"The runtime ended without an answer (code {code}).{last}"


# ---- the process


def main(argv: list[str] | None = None) -> int:
    """Do the job that lies in the folder; always leaves ``answer.json`` unless the process dies."""
    folder = Path((argv or sys.argv[1:])[0])
    job = json.loads((folder / "job.json").read_text("utf-8"))
    try:
        answer = _work(job)
    except StudioError as err:
        answer = {"failed": err.message}
    except Exception as err:
        import traceback

        traceback.print_exc()
        answer = {"failed": f"{type(err).__name__}: {str(err).strip().splitlines()[0] if str(err).strip() else ''}"[:400]}
    part = folder / "answer.part"
    part.write_text(json.dumps(answer), "utf-8")
    part.rename(folder / "answer.json")
    sys.stderr.flush()
    os._exit(0)  # threads of a runtime may not want to end


def _work(job: dict[str, Any]) -> dict[str, Any]:
    runtime = (_Llama if job["runtime"] == "llama.cpp" else _Transformers)(job)
    began = time.perf_counter()
    runtime.load()
    answer: dict[str, Any] = {"load_seconds": round(time.perf_counter() - began, 3), "memory_before": runtime.before}
    answer["answers"] = [runtime.answer(messages) for messages in job["conversations"]]
    answer["templates"] = [runtime.rendered(messages) for messages in job["templates"]]
    answer["tokens"] = [runtime.tokens(text) for text in job["words"]]
    answer["memory"] = peak()
    try:
        answer["read"] = _read(job, runtime.reader())
    except Broken as err:
        answer["broken"] = err.message
    except StudioError as err:
        answer["unread"] = err.message
    answer["ends"] = [runtime.ends(token) for token in job["ends"]]
    return answer


def peak() -> int:
    """Most bytes of memory this process has held so far. (``ru_maxrss`` would tell the parent's, too.)"""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import psutil

    return psutil.Process().memory_info().rss


class _Runtime:
    """What both share: :class:`studio.chat.host.Host` and its likes answer."""

    def __init__(self, job: dict[str, Any]):
        self.job, self.host = job, None
        self.before = 0

    def answer(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """The greedy answer: text, how it ended, tokens, seconds after the first."""
        import threading

        from studio.chat.host import Sampling

        said: list[str] = []
        ids, _ = self.host.encode(messages)
        made = self.host.generate(ids, Sampling(temperature=0, max_tokens=self.job["new_tokens"], repetition_penalty=1.0),
                                  said.append, threading.Event())
        return {"text": "".join(said), "finish": made.finish, "prompt_tokens": made.prompt_tokens,
                "tokens": made.completion_tokens, "speed": made.tokens_per_second}


class _Transformers(_Runtime):
    def load(self) -> None:
        import torch
        import transformers

        from studio.chat.host import Host

        transformers.logging.disable_progress_bar()
        torch.set_num_threads(self.job["threads"])
        self.before = peak()
        self.host = Host(self.job["path"], exact=self.job["exact"], trust=self.job["trust"])

    def rendered(self, messages: list[dict[str, str]]) -> list[int] | None:
        from studio.quantizers.proof import rendered

        return rendered(self.host.tokenizer, messages)

    def tokens(self, text: str) -> list[int]:
        return self.host.tokenizer(text, add_special_tokens=False)["input_ids"]

    def ends(self, token: int) -> bool:
        return token in self.host._ends(self.host.tokenizer)

    def reader(self) -> Any:
        torch = self.host.torch

        def read(ids: list[int]) -> Any:
            with torch.inference_mode():
                found = self.host.model(torch.tensor([ids], device=self.host.device)).logits[0]
            return found.float().cpu().numpy()

        return read


class _Llama(_Runtime):
    def load(self) -> None:
        import httpx  # noqa: F401  what every use of it needs, before memory is looked at
        import xllamacpp  # noqa: F401

        from studio.chat.gguf_host import GGUFHost

        self.before = peak()
        self.host, self._logits = GGUFHost(Path(self.job["path"]), self.job["threads"]), None

    def rendered(self, messages: list[dict[str, str]]) -> list[int] | None:
        if not self.host.templated:
            return None
        llama = self.host.llama
        try:
            return llama.tokens(llama.prompt(messages, messages[-1]["role"] != "assistant"))
        except StudioError:
            return []  # it refuses what the source's template may take

    def tokens(self, text: str) -> list[int]:
        return self.host.llama.tokens(text, start=False)

    def ends(self, token: int) -> bool:
        return self._logits.ends(token) if self._logits else token == self.host.llama.facts["eos"]

    def reader(self) -> Any:
        """Logits of another loaded copy, once the server's choice of the next token agrees with them.

        Raises:
            StudioError: they do not, so nothing is measured.
        """
        from studio.chat.llama import sampling
        from studio.quantizers.llama_logits import Logits

        llama = self.host.llama
        longest = max(map(len, self.job["texts"]), default=1)
        loaded = Logits(llama.file, max(64, longest), self.job["threads"])
        for ids in self.job["texts"][:4]:
            begin = ids[:max(1, min(len(ids) - 1, llama.context - 2))]
            pieces = llama.complete(begin, sampling(0.0) | {"n_predict": 1})
            chosen = [token for piece in pieces for token in piece.get("tokens") or ()]
            row = _numbers(loaded.of(begin))[-1]
            if not (row.max() - row[chosen[0]] <= TIE if chosen else loaded.ends(int(row.argmax()))):
                raise StudioError("The logits read from llama.cpp do not fit the tokens that it chooses.")
        self._logits = loaded
        llama.close()
        return loaded.of


def _read(job: dict[str, Any], logits_of: Any) -> dict[str, Any]:
    """Losses of the texts; kept logits, or how far these are from the source's."""
    import numpy as np

    losses: list[float] = []
    counts: list[int] = []
    kept = None
    kl_sum = kl_max = 0.0
    same = seen = 0
    source = np.load(job["source"], mmap_mode="r") if job.get("source") else None
    for place, ids in enumerate(job["texts"]):
        found = _numbers(logits_of(ids))[:-1]  # the last one foretells nothing that is known
        if job.get("keep"):
            if kept is None:
                rows = sum(len(one) - 1 for one in job["texts"])
                kept = np.lib.format.open_memmap(job["keep"], "w+", np.float32, (rows, found.shape[1]))
            kept[seen:seen + len(found)] = found
        loss, size = 0.0, len(found)
        for begin in range(0, size, ROWS):
            chances = log_softmax(found[begin:begin + ROWS])
            loss -= float(chances[np.arange(len(chances)), ids[1 + begin:1 + begin + len(chances)]].sum())
            if source is not None:
                first = job["rows"][place] + begin
                true = log_softmax(source[first:first + len(chances)])
                if max(ids) >= min(true.shape[1], chances.shape[1]):
                    raise Broken("It lacks tokens of the model's vocabulary.")
                apart = divergence(true, chances)
                kl_sum, kl_max = kl_sum + float(apart.sum()), max(kl_max, float(apart.max()))
                same += int((true.argmax(1) == chances.argmax(1)).sum())
        losses.append(loss / size)
        counts.append(size)
        seen += len(found)
    if kept is not None:
        kept.flush()
    answer: dict[str, Any] = {"losses": losses, "counts": counts}
    if source is not None and seen:
        answer |= {"kl": max(0.0, kl_sum / seen), "kl_max": kl_max, "top1": same / seen}
    return answer


def _numbers(logits: Any) -> Any:
    import numpy as np

    if not np.isfinite(logits).all():
        raise Broken("Its probabilities are not numbers.")
    return logits


def divergence(source: Any, other: Any) -> Any:
    """Kullback-Leibler divergence in nats of ``other`` from ``source``, of each row of their log probabilities.

    A file may leave out the rows beyond the vocabulary, or have more of them: words that one of both lacks count as
    all but impossible there.
    """
    import numpy as np

    words = max(source.shape[1], other.shape[1])
    source, other = (np.pad(one, ((0, 0), (0, words - one.shape[1])), constant_values=-50.0) if one.shape[1] < words else one
                     for one in (source, other))
    return (np.exp(source) * (source - other)).sum(1)


def log_softmax(logits: Any) -> Any:
    """Natural logarithms of the probabilities, in float64; rows are positions."""
    import numpy as np

    wide = np.asarray(logits, np.float64)
    wide = wide - wide.max(1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(1, keepdims=True))


if __name__ == "__main__":
    sys.exit(main())
