"""The supervisor: starts queued runs on the slots there are, and keeps the queue true to what the disk says.

Any number of them may work on one workspace (studios, command lines, guardians that just ended): a run is claimed in
one transaction and closed once. None of them holds anything that a run needs, so they may die at any time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from studio import notify, settings
from studio.errors import StudioError
from studio.hardware import cores
from studio.jobs import backends, events, memory, process, store, zygote
from studio.jobs.explain import died
from studio.jobs.files import lock, read_json, write_json
from studio.jobs.model import ACTIVE, FINAL, LIGHT_KINDS, ORCHESTRATORS, State
from studio.jobs.worker import EXIT_DISK_FULL

POLL = 0.5  # seconds between ticks
_OF_ONE_RUN = ("ATELIER_BACKEND", "ATELIER_HF_TOKEN")  # a guardian that moves the queue on has them, its successor must not
START_LIMIT = 45.0  # seconds in which a claimed run must have a guardian, where nobody is seen to bring it one
LOADING_LIMIT = 300.0  # the same while the process that will be its guardian lives: on a busy machine it loads long
LAUNCH = "launch.json"  # in the run's folder: who brings it to life, first the claimer, then the guardian to be

_log = logging.getLogger(__name__)
_here: list[Supervisor] = []  # supervisors at work in this process


def gpus() -> list[str]:
    """Names (indices or UUIDs) of the GPUs this process may use, without loading any GPU library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in (part.strip() for part in visible.split(",")) if name and name != "-1"]
    try:
        return [str(n) for n in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    except OSError:
        return []


def slots() -> int:
    """Runs that may compute at once: ``ATELIER_SLOTS``, else one a GPU, else one."""
    if (wanted := _env_int("ATELIER_SLOTS")) is not None:
        return wanted
    return max(1, len(gpus()))


def threads_for(run: dict[str, Any], supervised: bool = True) -> int:
    """Compute threads for a run: one beside anything else that computes, else the cores, less one for an open studio.

    Two threads beside another busy process are several times slower than one, hence the caution.

    Args:
        supervised: A studio is open on this machine (its page needs processor time too).
    """
    if (wanted := _env_int("ATELIER_THREADS")) is not None:
        return max(1, wanted)
    others = any(other["id"] != run["id"] and other["kind"] not in ORCHESTRATORS
                 and not backends.remote(other["backend"]) for other in store.active())
    if run["kind"] in LIGHT_KINDS + ORCHESTRATORS or others or _engines():
        return 1
    return max(1, cores() - 1) if supervised else cores()


def _env_int(name: str) -> int | None:
    try:
        return max(0, int(os.environ[name]))
    except (KeyError, ValueError):
        return None


def _engines() -> bool:
    """True if a chat engine runs on this machine."""
    for found in psutil.process_iter(["cmdline"]):
        if "studio.chat.engine" in (found.info["cmdline"] or ()):
            return True
    return False


def stop(run_id: str, now: bool = False, reason: str = "") -> dict[str, Any]:
    """Ask a run to stop: one in the queue is taken out, an active one saves a checkpoint first. Returns the run.

    Args:
        now: Do not wait for the grace period.
        reason: Why, where it was not a person who asked; told with the run when it has stopped.

    Raises:
        StudioError: if there is no such run. Stopping one that is over changes nothing.
    """
    folder = settings.run_dir(run_id)
    if store.stop_queued(run_id):
        events.append(folder / "events.jsonl", "state", state=State.STOPPED, reason="Stopped before it started.")
        return store.get(run_id)
    if store.get(run_id)["state"] in FINAL:
        return store.get(run_id)
    try:
        (folder / "stop").write_text("now" if now else reason)
    except OSError as err:
        _log.warning("stop file of %s: %s", run_id, err)  # the signal below says it too
    with contextlib.suppress(ValueError):  # it ended meanwhile
        if store.move(run_id, State.STOPPING, reason="Saving a checkpoint."):
            events.append(folder / "events.jsonl", "state", state=State.STOPPING, reason="Saving a checkpoint.")
    guardian = read_json(folder / "guardian.json") or {}
    if process.alive(guardian.get("pid"), guardian.get("started")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(guardian["pid"], signal.SIGTERM)
    return store.get(run_id)


def wake() -> bool:
    """Have the supervisor of this process look at the queue at once; False if none is at work here."""
    for supervisor in _here:
        supervisor.wake()
    return bool(_here)


class Supervisor:
    """Moves the queue on, in a thread (``start``) or once (``tick``).

    Args:
        warm: Keep a pre-imported process from which runs start in well under a second (a studio does, a CLI does not).
    """

    def __init__(self, warm: bool = True):
        self.warm = warm
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._zygote = zygote.Keeper()
        self._children: list[subprocess.Popen] = []

    def start(self) -> None:
        """Begin to supervise in a background thread; returns at once."""
        if self._thread is None:
            self._ending.clear()
            _here.append(self)
            self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and the warm process. Runs go on."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
            self._thread = None
            _here.remove(self)
        self._zygote.end()

    def wake(self) -> None:
        self._wake.set()

    def _loop(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()  # before looking: what is submitted from here on wakes us again
            try:
                if self.warm:
                    self._zygote.keep()
                self.tick()
            except Exception:
                _log.exception("supervisor")
            self._wake.wait(POLL)

    def tick(self) -> int:
        """Close what has ended, adopt what lives, start what may start. Returns the number of runs started."""
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]  # leave no zombies
            for run in store.active():
                try:
                    reconcile(run)
                except Exception:
                    _log.exception("run %s", run["id"])  # one odd run must not hold up the others
            begun = 0
            while run := store.claim(slots()):
                self._spawn(run)
                begun += 1
            return begun

    def _spawn(self, run: dict[str, Any]) -> None:
        folder = settings.run_dir(run["id"])
        threads = threads_for(run, supervised=self.warm or zygote.running())
        store.note(run["id"], threads=threads)
        events.append(folder / "events.jsonl", "state", state=State.STARTING)
        env = _environment(run, folder, threads)
        try:
            (folder / "worker.log").touch()
            _launched(folder, os.getpid())
            pid = None if backends.remote(run["backend"]) else zygote.start_guardian(env)  # a courier needs no library
            if pid is None:
                self._children.append(subprocess.Popen(
                    [sys.executable, "-m", "studio.jobs.guardian"], env=env, cwd=folder, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                pid = self._children[-1].pid
            _launched(folder, pid)
        except OSError as err:
            close(run, State.FAILED, reason=f"The run could not be started: {err.strerror}.",
                  hint="Free disk space or memory, then press Resume.")


def _launched(folder: Path, pid: int) -> None:
    """Notes who brings a run to life; without the note (a full disk, a process that is over) it is waited for less long."""
    with contextlib.suppress(OSError, psutil.Error):
        write_json(folder / LAUNCH, {"pid": pid, "started": process.started(pid)})


def _on_the_way(run: dict[str, Any], folder: Path) -> bool:
    """A claimed run whose guardian has not spoken yet may still get one."""
    waited, bringer = time.time() - (run["started"] or 0), read_json(folder / LAUNCH) or {}
    return waited < START_LIMIT or waited < LOADING_LIMIT and process.alive(bringer.get("pid"), bringer.get("started"))


def _environment(run: dict[str, Any], folder: Path, threads: int) -> dict[str, str]:
    """What guardian and worker are told."""
    paths = [str(settings.ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    mine = {name: value for name, value in os.environ.items() if name not in _OF_ONE_RUN}
    env = mine | {"STUDIO_HOME": str(settings.home()), "ATELIER_RUN_DIR": str(folder),
                        "ATELIER_WORKER_THREADS": str(threads), "ATELIER_RESUME": str(int(run["resume"])),
                        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONUNBUFFERED": "1",
                        "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if backends.remote(run["backend"]):
        from studio.jobs.backends import tokens

        env |= {"ATELIER_BACKEND": json.dumps(run["backend"])} | tokens.environment(run)
    names = gpus()
    if len(names) > 1 and run["slot"] is not None:
        own = range(run["slot"], run["slot"] + store.width(run, len(names)))
        env["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(names[n % len(names)] for n in own))
    return env


def reconcile(run: dict[str, Any]) -> None:
    """Make the row of an active run say what its folder and its processes say."""
    folder = settings.run_dir(run["id"])
    if (ended := read_json(folder / "exit.json")) is not None:
        _close_by_exit(run, folder, ended)
        return
    guardian = read_json(folder / "guardian.json") or {}
    # The lock is asked too: start times shift when a clock is set, and a full disk may have kept the file from us.
    if process.alive(guardian.get("pid"), guardian.get("started")) or _locked(folder):
        if run["state"] == State.STARTING and guardian:
            with contextlib.suppress(ValueError):
                if store.move(run["id"], State.RUNNING, pid=guardian["pid"], pid_started=guardian["started"]):
                    events.append(folder / "events.jsonl", "state", state=State.RUNNING)
        return
    if not guardian and _on_the_way(run, folder):
        return
    if (ended := read_json(folder / "exit.json")) is not None:  # it ended between the two looks
        _close_by_exit(run, folder, ended)
        return
    _close_without_guardian(run, folder, guardian)


def _locked(folder: Path) -> bool:
    try:
        with open(folder / "guardian.lock") as file:
            return not lock(file.fileno(), shared=True)
    except OSError:
        return False


def _close_by_exit(run: dict[str, Any], folder: Path, ended: dict[str, Any]) -> None:
    code, number = ended.get("code"), ended.get("signal")
    facts = {"exit_code": code, "signal": number, "ended": ended.get("ended")}
    if (result := _result(folder)) is not None:
        _close_by_result(run, result, facts)
    elif why := ended.get("killed"):
        close(run, State.STOPPED, reason=why, hint="Resume goes on from the last complete checkpoint.", **facts)
    elif code == EXIT_DISK_FULL:
        close(run, State.FAILED, reason="The disk is full: a file could not be written.",
              hint="Free some space, then press Resume. Checkpoints made before are whole.", **facts)
    else:
        starved = bool(ended.get("memory"))
        said = died(code, number, _last_line(folder / "worker.log"), starved)
        if change := _smaller(folder) if number == signal.SIGKILL else {}:
            facts["summary"] = {"offer": change}
        close(run, State.FAILED, reason=said.reason, hint=said.hint, **facts)
        if starved and change and (run["recipe"] or {}).get("on_out_of_memory") == "repair":
            store.resume(run["id"], change=change)


def _smaller(folder: Path) -> dict[str, Any]:
    """What to offer to a run that the kernel may have ended for want of memory."""
    from studio.recipe import load

    try:
        return memory.offer(load(folder / "recipe.yaml"))
    except (StudioError, OSError):
        return {}


def _close_without_guardian(run: dict[str, Any], folder: Path, guardian: dict[str, Any]) -> None:
    """Nobody knows how the worker ended; one that still lives is ended first, since nobody would watch it."""
    pid, began = guardian.get("worker_pid"), guardian.get("worker_started")
    if process.alive(pid, began):
        process.kill_group(pid)
        deadline = time.monotonic() + 5
        while process.alive(pid, began) and time.monotonic() < deadline:
            time.sleep(0.02)
    if (result := _result(folder)) is not None:
        _close_by_result(run, result, {"ended": result.get("ended")})
    elif guardian:
        close(run, State.LOST, reason="The run ended without a word: its guardian is gone (killed, or the machine "
              "was restarted).", hint="Resume goes on from the last complete checkpoint.")
    else:
        close(run, State.LOST, reason="The run was taken from the queue but never began (the studio was ended at that "
              "moment, or memory is short).", hint="Press Resume to queue it again.")


def _result(folder: Path) -> dict[str, Any] | None:
    result = read_json(folder / "result.json")
    return result if result and result.get("state") in FINAL else None


def _close_by_result(run: dict[str, Any], result: dict[str, Any], facts: dict[str, Any]) -> None:
    from studio.library.artifacts import register_run

    reason, hint = result.get("reason") or "", result.get("hint") or ""
    try:
        register_run(run, result)  # before the row is closed: if we die in between, the next tick does it again
    except (StudioError, KeyError, TypeError, ValueError) as err:
        _log.exception("results of %s", run["id"])
        reason, hint = f"The results could not be put into the library: {err}", "They are in the folder of the run."
    offer = {"offer": result["offer"]} if result.get("offer") else {}
    close(run, result["state"], reason=reason, hint=hint, field=result.get("field"),
          summary=(result.get("summary") or {}) | offer, **facts)


def close(run: dict[str, Any], state: str, **values: Any) -> None:
    """Give a run its final state and say so in its events; the first of several closers does both.

    No child goes on without its parent: nobody would judge it or use what it makes. A resumed parent takes them up again.
    """
    if run["kind"] in ORCHESTRATORS:  # before the row is closed: if we die in between, the next tick does it again
        for child in store.find(parent=run["id"], states=[State.QUEUED, *ACTIVE], limit=10_000):
            stop(child["id"], reason="Stopped together with the run that started it.")
    if changed := memory.present(settings.run_dir(run["id"])):
        values["recipe"] = changed
    if store.close(run["id"], state, attempt=run["attempt"], **values):
        told = {key: values[key] for key in ("reason", "hint") if values.get(key)}
        events.append(settings.run_dir(run["id"]) / "events.jsonl", "state", state=state, **told)
        try:
            if run["parent"] is None:  # of a sweep's trials nobody wants to hear one by one
                notify.later(run)
        except Exception:
            _log.exception("telling of %s", run["id"])


def _last_line(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def wait(run_id: str, timeout: float) -> dict[str, Any]:
    """Block until a run is over, moving the queue on meanwhile (for a command line without a studio).

    Raises:
        TimeoutError: when ``timeout`` seconds have passed.
    """
    supervisor, deadline = Supervisor(warm=False), time.monotonic() + timeout
    while (run := store.get(run_id))["state"] in ACTIVE or run["state"] == State.QUEUED:
        if time.monotonic() > deadline:
            raise TimeoutError(f"run {run_id} is still {run['state']} after {timeout:.0f} s")
        supervisor.tick()
        time.sleep(0.1)
    return run
