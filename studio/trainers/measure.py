"""What a run really takes: two optimiser steps on its longest samples, in a process of its own. Imports torch.

The method is run as it would be (the same loading, the same trainer, batch size and accumulation); when its training would
begin, the trainer is handed over here instead. Everything is written into a temporary folder that goes with the process.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from studio import registry
from studio.errors import StudioError
from studio.hardware import free_memory
from studio.jobs.context import Context
from studio.jobs.explain import out_of_memory
from studio.recipe import parse

_IDS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids", "completion_ids", "chosen_input_ids",
        "rejected_input_ids", "prompt_input_ids")
STEPS = 2
FINISH = 0.8  # seconds for the last checkpoint and the result, fitted to tests/benchmarks/estimate.py
STEADY = 20  # most steps on typical samples
clock = time.perf_counter  # a benchmark counts processor time instead


class _Done(BaseException):
    """Ends the method once its trainer has been measured. No error, so no ``except Exception`` may keep it."""


def measure(values: dict[str, Any], threads: int = 1) -> dict[str, Any]:
    """Run two optimiser steps on the longest samples, then two on typical ones for the time of a whole run.

    Args:
        values: A recipe as plain values.
        threads: Compute threads, as the run will get.

    Returns:
        ``steps`` (of the whole run), ``seconds`` (of the whole run), ``step_seconds`` (longest samples),
        ``tokens_per_second``, ``memory`` (bytes at the peak, ``None`` where it ran out), ``free`` (bytes a run may take),
        ``longest`` (tokens), ``rows``, ``device``, ``out_of_memory``.

    Raises:
        StudioError: as the run itself would, before it starts; or a method that trains nothing.
    """
    _first_to_go()
    recipe = parse(values)
    method = registry.method(recipe.kind, recipe.method)
    recipe = method.measured(recipe)
    gpu = torch.cuda.is_available() and not os.environ.get("STUDIO_CPU")
    found: dict[str, Any] = {"device": "gpu" if gpu else "cpu", "memory": None, "out_of_memory": False}
    found["free"] = torch.cuda.mem_get_info()[0] if gpu else free_memory() + resident()
    began = clock()

    def trial(trainer: Any) -> None:
        ready = clock() - began
        found.update(_two_steps(trainer, ready), memory=peak(gpu))
        raise _Done

    with tempfile.TemporaryDirectory(prefix="atelier-measure-") as folder:
        ctx = Context(Path(folder) / "run", threads=threads)
        ctx.trial = trial
        try:
            method.run(recipe, ctx)
        except _Done:
            return found
        except Exception as err:
            if not out_of_memory(err):
                raise
            return found | {"out_of_memory": True}
        finally:
            ctx.close()
    raise StudioError(f"'{method.title}' has no training steps that could be measured.", "The estimate is all there is.")


def _two_steps(trainer: Any, ready: float) -> dict[str, Any]:
    table, args = trainer.train_dataset, trainer.args
    lengths = lengths_of(table)
    order = sorted(range(len(table)), key=lambda row: lengths[row])
    batch = args.train_batch_size * args.gradient_accumulation_steps
    batches = len(trainer.get_train_dataloader())
    steps = args.max_steps
    if steps <= 0:
        steps = max(1, -int(-args.num_train_epochs * -(-batches // args.gradient_accumulation_steps) // 1))
    args.max_steps, args.eval_strategy, args.save_strategy, args.logging_strategy = STEPS, "no", "no", "no"
    slow = _timed(trainer, [order[-1 - n % len(order)] for n in range(STEPS * batch)])
    args.max_steps = max(STEPS, min(STEADY, int(2 / max(slow, 0.01))))  # quick steps vary: about two seconds of them
    spread = [order[int((n + 0.5) * len(order) / wanted) % len(order)]
              for wanted in [args.max_steps * batch] for n in range(wanted)]
    typical = _timed(trainer, spread)
    held = len(trainer.eval_dataset) if getattr(trainer, "eval_dataset", None) is not None else 0
    rounds = 1 + steps // args.eval_steps if held and args.eval_steps else 0
    # A validation goes forward only: about a third of a step's work on as many samples.
    checking = rounds * held / batch * typical / 3
    tokens = sum(lengths[row] for row in spread) / args.max_steps
    return {"steps": steps, "seconds": ready + steps * typical + checking + FINISH, "step_seconds": slow, "rows": len(table),
            "typical_seconds": typical, "tokens_per_second": tokens / typical, "longest": lengths[order[-1]]}


def _timed(trainer: Any, rows: list[int]) -> float:
    """Seconds a step on these rows; the first one only warms up."""
    whole, clock = trainer.train_dataset, _Clock()
    trainer.train_dataset = whole.select(rows)
    trainer.add_callback(clock)
    try:
        trainer.train()
    finally:
        trainer.train_dataset = whole
        trainer.remove_callback(clock)
    return (clock.marks[-1] - clock.marks[1]) / (len(clock.marks) - 2)


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._mark()

    def _mark(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(clock())


def lengths_of(table: Any) -> list[int]:
    """Tokens of each row of a trainer's table: of its token columns together, or a guess from its texts."""
    names = [name for name in table.column_names if name in _IDS]
    if names:
        import pyarrow.compute as pc

        columns = table.select_columns(names).with_format("arrow")[:]
        lengths = [pc.fill_null(pc.list_value_length(columns[name]), 0).to_pylist() for name in names]
        return [sum(row) for row in zip(*lengths, strict=True)]
    return [len(str(row)) // 4 for row in table]


def peak(gpu: bool) -> int:
    """Bytes this process held at most: on the card, or of the machine's memory since its program was started."""
    if gpu:
        return int(torch.cuda.max_memory_allocated())
    if (kilobytes := _status("VmHWM")) is not None:  # unlike ru_maxrss not inherited from whoever started us
        return kilobytes * 1024
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """Bytes this process holds now; in a fork of the warm process those it shares count too."""
    import psutil

    return psutil.Process().memory_info().rss


def _status(name: str) -> int | None:
    try:
        with open("/proc/self/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(name + ":")), None)
    except OSError:
        return None


def _first_to_go() -> None:
    """Where memory runs out, the kernel shall end this process before anything a person would miss."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
