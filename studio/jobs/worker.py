"""The worker: one process that reads a recipe, runs its method and writes ``result.json``.

Started by the guardian with the run's folder in ``ATELIER_RUN_DIR``; standard output and error go to ``worker.log``.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from studio import environments, registry
from studio.errors import StudioError
from studio.jobs import events, memory, room
from studio.jobs.context import Context
from studio.jobs.explain import disk_full, explain, out_of_memory
from studio.jobs.files import write_json
from studio.jobs.model import State

EXIT_DISK_FULL = 28  # says what a result that could not be written would have said
RESERVE = "reserve"  # a few kB held back by the guardian, so that a full disk still has room for the last word


def run(run_dir: str | Path, threads: int = 1, resume: bool = False) -> int:
    """Do the job in this process and return its exit code: 0 when the method ended well, 1 when it failed,
    ``memory.AGAIN`` when it is to be done again in less memory."""
    folder = Path(run_dir)
    _be_a_worker(threads)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    ctx: Context | None = None
    recipe: Any = None
    try:
        registry.load_plugins()
        from studio.recipe import load

        recipe = load(folder / "recipe.yaml")
        method = registry.method(recipe.kind, recipe.method)
        ctx = Context(folder, threads=threads, resume=resume)
        signal.signal(signal.SIGTERM, lambda number, frame: ctx.request_stop())
        if asked:
            ctx.request_stop()
        if method.environment:
            environments.enter(method.environment, ctx)
        if not ctx.stop_requested:
            room.make(method, recipe, ctx)
        summary = {} if ctx.stop_requested else method.run(recipe, ctx) or {}
        state = State.STOPPED if ctx.stop_requested else State.SUCCEEDED
        result = _result(ctx, state, _why_stopped(ctx) if state == State.STOPPED else "", summary=summary)
    except BaseException as err:
        _trace()
        if isinstance(err, SystemExit):
            err = StudioError(f"The method ended its process (exit code {err.code}).", "See the log of the run.")
        reason, hint, field = explain(err)
        result = _result(ctx, State.FAILED, reason, hint, field)
        if out_of_memory(err) and ctx is not None:
            if not ctx.stop_requested and memory.repair(ctx, recipe):
                return memory.AGAIN
            result["offer"] = memory.offer(recipe)
        if disk_full(err):
            (folder / RESERVE).unlink(missing_ok=True)
            _write(folder, result)
            return EXIT_DISK_FULL
    code = 1 if result["state"] == State.FAILED else 0
    return code if _write(folder, result) else EXIT_DISK_FULL


def _why_stopped(ctx: Context) -> str:
    """The reason where it was not a person who asked: the run itself, or who wrote one into the stop file."""
    try:
        said = (ctx.run_dir / "stop").read_text("utf-8").strip()
    except OSError:
        said = ""
    return ctx.stop_reason or (said if said != "now" else "") or "Stopped as asked."


def _trace() -> None:
    """The traceback, for the log; a full disk, on which the log lies too, must not hide the failure that is told."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def _be_a_worker(threads: int) -> None:
    """Signals, threads and output of this process, whatever it was forked from."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(file=2)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if threads == 1 else "true")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def _result(ctx: Context | None, state: State, reason: str = "", hint: str = "", field: str | None = None,
            summary: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"state": state, "reason": reason, "hint": hint, "field": field, "ended": time.time(),
            "summary": events.plain(summary or {}), "artifacts": events.plain(ctx.artifacts if ctx else [])}


def _write(folder: Path, result: dict[str, Any]) -> bool:
    """Store the result; on a full disk, once more with the reserve given back."""
    for attempt in (1, 2):
        try:
            write_json(folder / "result.json", result)
            return True
        except OSError:
            _trace()
            if attempt == 1:
                (folder / RESERVE).unlink(missing_ok=True)
    return False


def leave(code: int) -> None:
    """End the worker for certain: exit handlers run, but no thread that a library forgot is waited for."""
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        _trace()  # the result is written: what happens on the way out does not change it
    finally:
        os._exit(code)


def main() -> int:
    folder = os.environ["ATELIER_RUN_DIR"]
    code = run(folder, int(os.environ.get("ATELIER_WORKER_THREADS", "1")), os.environ.get("ATELIER_RESUME") == "1")
    if code == memory.AGAIN:  # the same process with a fresh program: nothing of what filled the memory is left
        os.environ["ATELIER_RESUME"] = "1"
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "studio.jobs.worker"])
    return code


if __name__ == "__main__":
    leave(main())
