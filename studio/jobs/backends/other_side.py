"""The other side: the program that a job at another place runs.

It gets the parcel, makes a workspace of it, starts the ordinary worker there, passes a stop on, and says in
``status.json`` how things are. When the worker is gone it waits, holding no memory worth speaking of, until the courier
has taken everything home, and leaves nothing behind.

    python -m studio.jobs.backends.other_side        with ATELIER_REMOTE (JSON) in the environment; never by hand

``ATELIER_REMOTE``: ``via`` (``http``, ``folder``, ``hub``), ``token``, ``port``, ``folder``, ``repo``, ``python``,
``packages`` (name -> first two numbers of the version), ``keep`` (seconds to wait for a courier who does not come).

``status.json``: ``phase`` (``waiting``, ``working``, ``over``), ``run`` (the run's folder on the desk), ``root`` and
``home`` (places of this machine), ``checkpoints`` (name -> files), ``files`` (of the run's folder, once it is over),
``exit`` (code and signal of the worker), ``refused`` (reason and hint) if it never began.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from studio import settings
from studio.errors import StudioError
from studio.jobs.backends import parcel
from studio.jobs.backends.desk import NOW, Desk, digest, listing, relocate
from studio.jobs.context import checkpoints
from studio.jobs.files import read_json

GRACE = 600.0  # seconds a worker has to save a checkpoint
PARCEL_LIMIT = 3600.0  # seconds in which the parcel must be here
STALE = 3600.0  # seconds after which a desk without a process is taken for forgotten
_LOOK = 0.3


class Remote:
    """One job at the other place."""

    def __init__(self, given: dict[str, Any]):
        self.given = given
        self._own = not given.get("folder")
        _sweep()
        self.desk = Desk(Path(given.get("folder") or tempfile.mkdtemp(prefix="atelier-job-")).resolve())
        self.desk.folder.mkdir(parents=True, exist_ok=True)
        self.home = self.desk.folder / "home"
        self.status: dict[str, Any] = {"phase": "waiting", "root": str(settings.ROOT), "home": str(self.home),
                                       "pid": os.getpid(), "checkpoints": {}}
        self._asked = False
        self.post = _post(given, self.desk)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, number: int, frame: object) -> None:
        self._asked = True

    def run(self) -> int:
        """Do the job; 0 when the worker came to an end of whatever kind."""
        self._tell()
        try:
            _compare(self.given)
            manifest = self._parcel()
            if manifest is None:
                self._tell(phase="over", refused=["It was stopped before it began.", ""], stopped=True)
            else:
                self._work(manifest)
        except StudioError as err:
            self._tell(phase="over", refused=[err.message, err.hint])
        except OSError as err:
            self._tell(phase="over", refused=[f"The other machine cannot store the run: {err}.", "Free space there."])
        self.post.finish(self.status)
        self._wait_for_the_courier()
        self.post.close()
        if self._own or self._asked:  # cancelled: nobody comes for it
            shutil.rmtree(self.desk.folder, ignore_errors=True)
        return 0

    def _tell(self, **facts: Any) -> None:
        self.status |= facts
        with contextlib.suppress(OSError):  # a full disk: the courier sees that nothing more comes
            self.desk.write("status.json", self.status)
        self.post.tell(self.status)

    def _stop(self) -> str:
        """``stop`` or ``now`` once that is asked for."""
        return self.desk.said() or self.post.stop() or ("stop" if self._asked else "")

    def _parcel(self) -> dict[str, Any] | None:
        """The manifest, once everything is here and whole; ``None`` if a stop came first."""
        deadline = time.monotonic() + PARCEL_LIMIT
        while not (self.desk.folder / "parcel.json").exists():
            if self._stop():
                return None
            if time.monotonic() > deadline:
                raise StudioError("Model and data did not arrive within an hour.", "Check the connection.")
            time.sleep(_LOOK)
        manifest = json.loads((self.desk.folder / "parcel.json").read_text("utf-8"))
        for name, facts in manifest["files"].items():
            path = self.desk.path(name)
            if not path.is_file() or digest(path) != facts:
                raise StudioError(f"{name} arrived damaged.", "Press Resume to send it again.")
        return manifest

    def _work(self, manifest: dict[str, Any]) -> None:
        os.environ["STUDIO_HOME"] = str(self.home)
        run = settings.run_dir(manifest["run"])
        run.mkdir(parents=True, exist_ok=True)
        _know(manifest["rows"])
        marks = {parcel.STARTER: str(settings.STARTER), parcel.HERE: self.status["home"]}
        relocate(self.home, [(there, marks[mark]) for there, mark in manifest["places"]])
        (run / "recipe.yaml").write_text(manifest["recipe"], "utf-8")
        worker = _start(run, manifest["resume"], self.given.get("threads"))
        self._tell(phase="working", run=run.relative_to(self.desk.folder).as_posix(), worker=worker.pid)
        status = self._watch(worker, run)
        left = listing(run, without=("events.jsonl", "worker.log", "recipe.yaml", "stop", "checkpoints"))
        self._checkpoints(run)
        self._tell(phase="over", files=left, exit={"code": status if status >= 0 else None,
                                                   "signal": -status if status < 0 else None})

    def _watch(self, worker: subprocess.Popen, run: Path) -> int:
        stopped: float | None = None
        while (status := worker.poll()) is None:
            time.sleep(_LOOK)
            self.post.news(run)
            self._checkpoints(run)
            word = self._stop()
            if word and stopped is None:
                stopped = time.monotonic()
                (run / "stop").touch()
                worker.terminate()
            if word == NOW or (stopped is not None and time.monotonic() - stopped > GRACE):
                worker.kill()
        self.post.news(run)
        return status

    def _checkpoints(self, run: Path) -> None:
        """Say which checkpoints are complete; each is read once."""
        known = self.status["checkpoints"]
        found = {}
        for folder in checkpoints(run / "checkpoints"):
            with contextlib.suppress(OSError):  # rotated away while it is read
                found[folder.name] = known.get(folder.name) or listing(folder)
        if found != known:
            self._tell(checkpoints=found)
            self.post.checkpoints(run, found)

    def _wait_for_the_courier(self) -> None:
        if not self.post.waits:
            return
        while not (self.desk.folder / "done").exists() and not self._asked \
                and time.time() - self.post.heard < float(self.given.get("keep") or 0):
            time.sleep(_LOOK)


def _sweep() -> None:
    """Remove the desks of jobs that were killed on this machine, so that their checkpoints do not fill its disk."""
    for folder in Path(tempfile.gettempdir()).glob("atelier-job-*"):
        status = read_json(folder / "status.json") or {}
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE and not psutil.pid_exists(status.get("pid") or 0):
                shutil.rmtree(folder, ignore_errors=True)


def _compare(given: dict[str, Any]) -> None:
    """Refuse to work with other libraries than the run was made for.

    Raises:
        StudioError: naming them.
    """
    from importlib.metadata import PackageNotFoundError, version

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    odd = [] if here == given.get("python", here) else [f"Python {here} instead of {given['python']}"]
    for name, wanted in (given.get("packages") or {}).items():
        try:
            found = ".".join(version(name).partition("+")[0].split(".")[:2])
        except PackageNotFoundError:
            odd.append(f"no {name}")
            continue
        if found != wanted:
            odd.append(f"{name} {found} instead of {wanted}")
    if odd:
        raise StudioError(f"The other machine has {', '.join(odd)}.",
                          "Install the studio's requirements.txt there, or let the job install them.")


def _know(rows: list[dict[str, Any]]) -> None:
    """Enter the artifacts that came along into this workspace's library, under their own ids."""
    from sqlalchemy import insert

    from studio.library.database import writing
    from studio.library.tables import artifacts, parents

    with writing() as db:
        for row in rows:
            db.execute(insert(artifacts).prefix_with("OR REPLACE").values(
                **{key: row[key] for key in ("id", "kind", "name", "path", "created", "size", "meta")}))
            for parent in row["parents"]:
                db.execute(insert(parents).prefix_with("OR REPLACE").values(child_id=row["id"], **parent))


def _start(run: Path, resume: bool, threads: int | None) -> subprocess.Popen:
    """The ordinary worker; it ends with this process, however that ends."""
    from studio.hardware import cores

    number = str(threads or cores())
    hidden = {"ATELIER_REMOTE", "ATELIER_BACKEND"}
    env = {key: value for key, value in os.environ.items() if key not in hidden} | {
        "ATELIER_RUN_DIR": str(run), "ATELIER_WORKER_THREADS": number, "ATELIER_RESUME": str(int(resume)),
        "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(settings.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with open(run / "worker.log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "studio.jobs.worker"], stdin=subprocess.DEVNULL, stdout=log,
                                stderr=subprocess.STDOUT, cwd=run, env=env, preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _post(given: dict[str, Any], desk: Desk) -> Any:
    from studio.jobs.backends import posts

    return {"http": posts.Served, "folder": posts.Shared, "hub": posts.Hub}[given["via"]](given, desk)


def main() -> int:
    return Remote(json.loads(os.environ["ATELIER_REMOTE"])).run()


if __name__ == "__main__":
    sys.exit(main())
