"""The guardian: one light process a run, in a session of its own, that outlives the studio.

It starts the worker, beats ``heartbeat``, passes a stop on and escalates when it is not heeded, writes the worker's
true exit to ``exit.json``, and then moves the queue on once, so that the next run starts with no studio open.
Nothing here may fail because the disk is full: what cannot be written is left out, the worker goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from studio import settings
from studio.jobs import events, files, memory, process
from studio.jobs.files import write_json
from studio.jobs.model import ACTIVE, IllegalTransition
from studio.jobs.worker import RESERVE

HEARTBEAT = 2.0  # seconds between beats
GRACE = 60.0  # seconds between a stop and SIGKILL
COURIER_GRACE = 1200.0  # the same for a courier, whose worker elsewhere has ten minutes and then brings its checkpoint
CANCEL = 20.0  # seconds a courier has to cancel its job, when it must stop at once
AFTER_RESULT = 30.0  # seconds a worker may take to end once its result is written
_LOOK = 0.5  # seconds between looks at the stop file
_RESERVED = 32 * 1024
LOG_LIMIT = 20_000_000  # bytes of worker.log; then its middle is cut out
_LOG_HEAD, _LOG_TAIL = 2_000_000, 8_000_000

Start = Callable[[list[int]], int]

_log = logging.getLogger(__name__)


def grace() -> float:
    """Seconds a worker has to save a checkpoint; ``ATELIER_STOP_GRACE`` overrides the default 60."""
    if "ATELIER_BACKEND" in os.environ:
        return COURIER_GRACE
    try:
        return max(0.0, float(os.environ.get("ATELIER_STOP_GRACE", GRACE)))
    except ValueError:
        return GRACE


class Guardian:
    """Watches one worker.

    Args:
        folder: Folder of the run.
        start: Starts the worker as leader of its own process group and returns its pid. It is given the
            descriptors of the guardian that a forked worker must close.
        lock: Descriptor of the lock that makes this the run's only guardian.
    """

    def __init__(self, folder: Path, start: Start, lock: int):
        self.folder, self.run_id = folder, folder.name
        self._start = start
        self._worker = 0
        self._stop_at: float | None = None  # when the stop was passed on
        self._killed = ""  # why, once it was
        self._kills = memory.kills()
        self._result_at: float | None = None
        self._now_at: float | None = None
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._own = [lock, self._wake, wake]
        self._asked = False
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _on_term(self, number: int, frame: object) -> None:
        self._asked = True

    def watch(self) -> None:
        """Start the worker and stay until it is gone and its exit is recorded."""
        self._reserve()
        self._worker = self._start(self._own)
        self._introduce()
        code = self._wait()
        process.kill_group(self._worker)  # data loaders and the like that the worker left behind
        self._mind_the_log()
        self._record(code)

    def _introduce(self) -> None:
        mine = process.started()
        try:
            began = process.started(self._worker)
        except psutil.NoSuchProcess:
            began = None  # over already
        with contextlib.suppress(OSError):
            write_json(self.folder / "guardian.json", {"pid": os.getpid(), "started": mine,
                                                       "worker_pid": self._worker, "worker_started": began})
        self._beat()
        self._state("running", pid=os.getpid(), pid_started=mine)

    def _wait(self) -> int:
        """The worker's wait status, after all that happens meanwhile."""
        beat = time.monotonic()
        while True:
            pid, status = os.waitpid(self._worker, os.WNOHANG)
            if pid:
                return status
            select.select([self._wake], [], [], _LOOK)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 512)
            now = time.monotonic()
            if now - beat >= HEARTBEAT:
                beat = now
                self._beat()
            self._mind_the_stop(now)
            self._mind_the_end(now)
            self._mind_the_log()

    def _mind_the_stop(self, now: float) -> None:
        stop = self.folder / "stop"
        if self._stop_at is None:
            if not (self._asked or stop.exists()):
                return
            self._stop_at = now
            with contextlib.suppress(OSError):
                stop.touch()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGTERM)
            self._state("stopping", reason="Saving a checkpoint.")
        elif not self._killed and (now - self._stop_at >= grace() or self._at_once(now, stop)):
            self._killed = f"Killed after {now - self._stop_at:.0f} s, because it did not stop by itself."
            process.kill_group(self._worker)
            events.append(self.folder / "events.jsonl", "state", state="stopping", reason=self._killed)
            self._note(reason=self._killed)

    def _at_once(self, now: float, stop: Path) -> bool:
        """Whether the worker must go now; a courier (see :mod:`studio.jobs.backends`) ends its job elsewhere first."""
        if not _says_now(stop):
            return False
        self._now_at = self._now_at or now
        return "ATELIER_BACKEND" not in os.environ or now - self._now_at >= CANCEL

    def _mind_the_end(self, now: float) -> None:
        """A worker that has written its result and then hangs (a library's thread, say) is ended."""
        if self._result_at is None:
            if (self.folder / "result.json").exists():
                self._result_at = now
        elif now - self._result_at > AFTER_RESULT:
            process.kill_group(self._worker)

    def _mind_the_log(self) -> None:
        """A library that prints without end must not fill the disk."""
        with contextlib.suppress(OSError):
            files.cut_middle(self.folder / "worker.log", LOG_LIMIT, _LOG_HEAD, _LOG_TAIL)

    def _state(self, state: str, reason: str = "", **values: object) -> None:
        """Tell the queue and, unless another process did, the event file."""
        from studio.jobs import store  # with its database library: imported while the worker starts already

        try:
            told = store.move(self.run_id, state, reason=reason, **values)
        except IllegalTransition:
            told = False  # somebody else was quicker: it is stopping, or closed
            if store.get(self.run_id)["state"] not in ACTIVE:
                process.kill_group(self._worker)  # given up for lost before we came: nobody waits for this work
        except Exception:  # whatever is wrong with the database, the worker goes on
            _log.exception("cannot record %s", state)
            told = True
        if told:
            events.append(self.folder / "events.jsonl", "state", state=state, reason=reason)

    def _note(self, **values: object) -> None:
        from studio.jobs import store

        with contextlib.suppress(Exception):  # only a text for the person; the exit is recorded later
            store.note(self.run_id, **values)

    def _beat(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / "heartbeat").touch()

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):
            (self.folder / RESERVE).write_bytes(os.urandom(_RESERVED))

    def _record(self, status: int) -> None:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        record = {"code": code, "signal": number, "ended": time.time()}
        if self._stop_at is not None and number == signal.SIGTERM:
            self._killed = "Stopped before it began to work."  # it was still importing, so the signal ended it
        if self._killed:
            record["killed"] = self._killed
        elif number == signal.SIGKILL and self._kills is not None and (memory.kills() or 0) > self._kills:
            record["memory"] = True  # the kernel ended a process for want of memory meanwhile
        for _ in range(2):
            try:
                write_json(self.folder / "exit.json", record)
                break
            except OSError:
                (self.folder / RESERVE).unlink(missing_ok=True)
        (self.folder / RESERVE).unlink(missing_ok=True)


def _says_now(stop: Path) -> bool:
    try:
        return stop.read_bytes()[:3] == b"now"
    except OSError:
        return False


def guard(run_id: str, start: Start) -> int:
    """Be the guardian of a run in this process, which leads its own session already. Returns the exit code.

    Only one guardian lives per run: a second one finds the lock taken and leaves.
    """
    folder = settings.run_dir(run_id)
    with open(folder / "guardian.lock", "w") as lock:
        if not _locked(lock.fileno()):
            return 3
        try:
            Guardian(folder, start, lock.fileno()).watch()
        except Exception:
            _log.exception("guardian of %s", run_id)
    advance()
    return 0


def _locked(lock: int) -> bool:
    """Take the lock, with a little patience for the guardian of the attempt before, which is just leaving."""
    deadline = time.monotonic() + 3
    while not files.lock(lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def advance() -> None:
    """Close the run and start the next one, as a studio would."""
    from studio.jobs.supervisor import Supervisor

    try:
        Supervisor(warm=False).tick()
    except Exception:
        _log.exception("the queue did not advance")


def log_to_file() -> None:
    """A guardian's own troubles go to ``guardian.log`` of the workspace; its standard streams are closed."""
    logging.basicConfig(filename=settings.home() / "guardian.log", level=logging.WARNING,
                        format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")


def _spawn_worker(own: list[int]) -> int:
    """Start a fresh worker process; its output goes straight into ``worker.log``, through no pipe.

    For a run that computes elsewhere, a courier stands in for it. The guardian's descriptors ``own`` close on exec by
    themselves.
    """
    program = "studio.jobs.backends.courier" if "ATELIER_BACKEND" in os.environ else "studio.jobs.worker"
    with open(os.path.join(os.environ["ATELIER_RUN_DIR"], "worker.log"), "ab") as log:
        worker = subprocess.Popen([sys.executable, "-m", program], stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT, process_group=0, cwd=os.environ["ATELIER_RUN_DIR"])
    worker.returncode = 0  # waited for by pid; Popen must not try
    return worker.pid


def main() -> int:
    log_to_file()
    return guard(Path(os.environ["ATELIER_RUN_DIR"]).name, _spawn_worker)


if __name__ == "__main__":
    sys.exit(main())
