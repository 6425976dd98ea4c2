"""What a running method sees of the studio: where to write, how to report, and when to stop."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.jobs.events import Writer

COMPLETE = "COMPLETE"
ARTIFACT_KINDS = ("model", "adapter", "dataset", "file")
_PROGRESS_EVERY = 0.25  # seconds; a fast loop may report each step without filling the file
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def checkpoints(folder: str | Path) -> list[Path]:
    """Complete checkpoints (``checkpoint-N`` holding the file ``COMPLETE``) in ``folder``, oldest step first."""
    try:
        found = [p for p in Path(folder).iterdir() if _CHECKPOINT.fullmatch(p.name) and (p / COMPLETE).is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def mark_complete(checkpoint: str | Path) -> None:
    """Flush every file of a checkpoint to the disk, then write its ``COMPLETE`` mark.

    Raises:
        OSError: when the disk is full; the checkpoint then stays unmarked and is never resumed from.
    """
    folder = Path(checkpoint)
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    with open(folder / COMPLETE, "w") as file:
        file.write(f"{time.time():.0f}\n")
        file.flush()
        os.fsync(file.fileno())


class Context:
    """Given to ``Method.run``. All reports go to ``events.jsonl``; an unwritable one raises ``OSError``.

    Args:
        run_dir: Folder of the run, made if missing.
        threads: Compute threads the method may use.
        resume: Continue from the newest complete checkpoint, if there is one.
    """

    def __init__(self, run_dir: str | Path, threads: int = 1, resume: bool = False):
        self.run_dir = Path(run_dir)
        self.run_id = self.run_dir.name
        self.checkpoints = self.run_dir / "checkpoints"
        self.output = self.run_dir / "output"
        self.threads = threads
        for folder in (self.checkpoints, self.output):
            folder.mkdir(parents=True, exist_ok=True)
        done = checkpoints(self.checkpoints) if resume else []
        self.resume_from: Path | None = done[-1] if done else None
        self.artifacts: list[dict[str, Any]] = []
        self.trial: Callable[[Any], None] | None = None  # takes the trainer instead of the training itself
        self.stop_reason = ""  # why the run stopped itself
        self._writer = Writer(self.run_dir / "events.jsonl")
        self._stop = threading.Event()
        self._stop_file = self.run_dir / "stop"
        self._looked = 0.0
        self._progressed = 0.0
        if resume:
            step = int(self.resume_from.name.split("-")[1]) if self.resume_from else 0
            self.emit("resume", step=step)

    def emit(self, e: str, **data: Any) -> None:
        """Append one event; see :mod:`studio.jobs.events` for the types."""
        self._writer.emit(e, **data)

    def progress(self, done: float, total: float, eta: float | None = None) -> None:
        """Work done of the total (steps, rows, bytes) and the seconds left. Calls that follow fast are thinned."""
        now = time.monotonic()
        if done < total and now - self._progressed < _PROGRESS_EVERY:
            return
        self._progressed = now
        self.emit("progress", done=done, total=total, eta=eta)

    def metric(self, step: int, values: dict[str, Any] | None = None, **more: Any) -> None:
        """Numbers at ``step``; what is not a number is left out, NaN and infinity are kept."""
        numbers = {}
        for name, value in ((values or {}) | more).items():
            if isinstance(value, (str, bytes, bool)) or value is None:
                continue
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError, RuntimeError):
                continue
        if numbers:
            self.emit("metric", step=int(step), values=numbers)

    def sample(self, step: int, prompt: str, text: str, model: str | None = None) -> None:
        """An answer of the model as it is at ``step``."""
        self.emit("sample", step=int(step), prompt=prompt, text=text, **({"model": model} if model else {}))

    def rollout(self, step: int, prompt: str, completion: str, rewards: dict[str, float | None], advantage: float,
                notes: dict[str, str] | None = None) -> None:
        """One answer of reinforcement learning with what each reward function gave it, and why (``notes``)."""
        self.emit("rollout", step=int(step), prompt=prompt, completion=completion, rewards=rewards,
                  advantage=advantage, **({"notes": notes} if notes else {}))

    def log(self, text: str) -> None:
        """A line for the person, shown with the run."""
        self.emit("log", text=str(text))

    def warning(self, code: str, message: str, hint: str = "") -> None:
        """Something the person should know about a run that goes on. ``code`` is stable, for tests and docs."""
        self.emit("warning", code=code, message=message, hint=hint)

    def artifact(self, kind: str, path: str | Path, name: str, meta: dict[str, Any] | None = None,
                 parents: list[tuple[str, str]] | None = None) -> None:
        """Say that ``path`` is a result; the library registers it, with its lineage, when the run ends.

        Args:
            kind: ``model`` | ``adapter`` | ``dataset`` | ``file``.
            parents: (reference, role) pairs, e.g. ``("starter", "base")``, ``("shipped:polite", "data")``.

        Raises:
            ValueError: for another kind.
        """
        if kind not in ARTIFACT_KINDS:
            raise ValueError(f"artifact kind {kind!r} is none of {ARTIFACT_KINDS}")
        self.artifacts.append({"kind": kind, "path": str(path), "name": name, "meta": meta or {},
                               "parents": [{"ref": ref, "role": role} for ref, role in parents or []]})
        self.emit("artifact", kind=kind, path=str(path), name=name, **({"meta": meta} if meta else {}))

    @property
    def stop_requested(self) -> bool:
        """True once the person asked to stop. Save what is worth saving and return. Cheap enough for every step."""
        if self._stop.is_set():
            return True
        now = time.monotonic()
        if now - self._looked >= 0.2:
            self._looked = now
            if self._stop_file.exists():
                self._stop.set()
        return self._stop.is_set()

    def request_stop(self, reason: str = "") -> None:
        """Ask this run to stop (the worker's SIGTERM handler). ``reason``: why, where it was not the person."""
        if reason and not self._stop.is_set():
            self.stop_reason = reason
        self._stop.set()

    def close(self) -> None:
        self._writer.close()
