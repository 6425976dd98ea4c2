"""The courier: stands in for the worker of a run that computes elsewhere. Light, and may die and be started again.

It sends the parcel, submits the job once, brings events, log and complete checkpoints home as they come, passes a stop
on, and at the end brings what the run made, checks it, and writes ``result.json`` last, as the worker there wrote it,
with the places of this machine in it. What it must remember is in ``remote.json`` of the run's folder, so that the next
courier goes back to the same job.

    python -m studio.jobs.backends.courier       (by the guardian; ATELIER_BACKEND holds the run's place as JSON)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from studio import hardware, registry, settings
from studio.errors import StudioError
from studio.jobs import backends, events
from studio.jobs.backends import Unreachable
from studio.jobs.backends.desk import NOW, STOP, digest, relocate
from studio.jobs.backends.parcel import HERE, OWN, STARTER, Parcel
from studio.jobs.context import COMPLETE, checkpoints
from studio.jobs.explain import died, explain
from studio.jobs.files import read_json, write_json
from studio.jobs.model import FINAL, State

PATIENCE = 300.0  # seconds without any sign of a job after which it is given up for lost; ATELIER_REMOTE_PATIENCE
_LOOK = 0.5  # seconds between two looks
_ASK = 5.0  # seconds between two questions to the place itself
_TELL = 20.0  # seconds of silence after which the person is told
_NO_DOOR = 60.0  # seconds after which a job that runs but was never spoken to is given up
_READY = 120.0  # seconds a cluster that was just started may need until it takes jobs
_LAST_LOOKS = 6  # looks for the last words of a job that is over


class Lost(Exception):
    """Nothing was heard of the job for too long, or it ended without a result."""


class Courier:
    """One attempt of one run at another place."""

    def __init__(self, folder: Path, backend: dict[str, Any], resume: bool):
        self.folder, self.backend, self.resume = folder, backend, resume
        self.run_id = folder.name
        self.record = read_json(folder / "remote.json") or {}
        self.place = backends.place(backend["name"])(
            {k: v for k, v in backend.items() if k != "name"}, self.record)
        self.parcel: Parcel | None = None
        self._wire: Any = None
        self._asked = False
        self._told = ""  # stop or now, once it was passed on
        self._looks = 0
        self._seen: set[bytes] = set()
        self._silent = time.monotonic()
        self._warned = False
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, number: int, frame: object) -> None:
        self._asked = True

    # -- the run, from beginning to end

    def run(self) -> dict[str, Any]:
        """The run's result."""
        try:
            self._begin()
            status = self._accompany()
            return self._end(status)
        except Lost as err:
            home = checkpoints(self.folder / "checkpoints")
            hint = f"Resume goes on from step {home[-1].name.partition('-')[2]}, the last checkpoint that came home." \
                if home else "No checkpoint had come home; Resume begins again."
            if not self.record.get("over"):
                hint = f"If the job still runs, Resume goes back to it. Otherwise: {hint}"
            return _result(State.LOST, str(err), hint)

    def _begin(self) -> None:
        if self.record.get("backend") != self.backend:
            self.record.clear()  # it was sent to another place since
        job = self.record.get("job")
        if job and not self.record.get("over") and self._still(job):
            self._log(f"Back at the job {job}.")
            self._remember_lines()
            return
        if job or not self.record.get("asked"):  # else the courier before this one died while it asked
            self.record.clear()
            self._save(token=secrets.token_urlsafe(24), cursors={}, backend=self.backend,
                       place=backends.label(self.backend), asked=f"atelier-{self.run_id}-{secrets.token_hex(3)}")
        self.parcel = self._parcel()
        self._log(f"Runs on: {self.record['place']}. {hardware.size(self.parcel.size)} of model and data are sent.")
        self._save(job=self._submit())
        self._log(f"The job is called {self.record['job']} there.")

    def _submit(self) -> str:
        """Ask for the job, again and again where nobody answers: its name makes that one job.

        Raises:
            Unreachable: nobody answers for as long as a job may be silent, or as a cluster may need to start.
        """
        deadline = time.monotonic() + max(patience(), _READY)
        while True:
            try:
                return self.place.submit(self.record["asked"], self.parcel)
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
            if self._word():
                raise Stopped("Stopped before it began to work.")
            time.sleep(2)

    def _still(self, job: str) -> bool:
        """Whether the job of the record can be gone back to: it runs, or what it made is still there."""
        try:
            state, _ = self.place.state(job)
            return state in ("waiting", "running") or (state == "over" and self.place.wire(job) is not None)
        except Unreachable as err:
            raise Lost(f"{self.record.get('place')} does not answer, so the job {job} cannot be gone back to: "
                       f"{err}.") from err
        except StudioError:
            return False

    def _parcel(self) -> Parcel:
        from studio.recipe import load

        return Parcel(load(self.folder / "recipe.yaml"), self.run_id, self.resume)

    def _accompany(self) -> dict[str, Any]:
        """Stay until the other side has nothing more to say; its last status."""
        job, asked, state, said = self.record["job"], 0.0, "waiting", ""
        while True:
            status = None
            try:
                if time.monotonic() - asked >= _ASK or state == "waiting":
                    asked = time.monotonic()
                    state, said = self.place.state(job)
                self._mind_the_stop(job, state)
                if state == "waiting":
                    self._heard()  # it stands in the place's own queue, which may take long
                elif self._wire is None and (state == "running" or self.place.lasting):
                    self._wire = self.place.wire(job)
                if self._wire is not None and (status := self._wire.status()) is not None:
                    self._send(status)
                    self._bring_news(status)
                    self._heard()
                    if status["phase"] == "over":
                        return status
            except Unreachable as err:
                if state != "over":
                    self._mind_the_silence(job, str(err))
            if state in ("over", "unknown"):
                self._looks += 1  # its last words may still be on the way
                if self._looks > _LAST_LOOKS:
                    self._ended_alone(job, said)
            time.sleep(_LOOK)

    def _ended_alone(self, job: str, said: str) -> None:
        """The place says that the job is over, and the other side never did.

        Raises:
            StudioError: it never began.
            Lost: it was killed.
        """
        self._save(over=True)
        for line in self.place.output(job).strip().splitlines()[-30:]:
            print(line, flush=True)
        if not self.place.brings_its_parcel:
            with contextlib.suppress(Unreachable, StudioError, OSError):
                self.place.clear(job)
        said = f" It says: {said.strip().splitlines()[0][:300]}" if said.strip() else ""
        if self._told:
            raise Stopped("Stopped on the other machine.")
        if not self.record.get("began"):
            raise StudioError(f"The job on {self.record['place']} could not begin.{said}", "See the log of the run.",
                              backends.FIELD)
        raise Lost(f"The job on {self.record['place']} ended without a word: it was killed, or its machine or the "
                   f"cluster is gone.{said}")

    # -- stop

    def _mind_the_stop(self, job: str, state: str) -> None:
        word = self._word()
        if word in ("", self._told):
            return
        if self._wire is not None and word == STOP:
            self._wire.say(STOP)
            self._told = word
        elif word == NOW or state == "waiting":
            self.place.cancel(job)
            self._told = word
            self._save(over=True)
            if self.place.brings_its_parcel:
                with contextlib.suppress(Unreachable, StudioError):
                    self.place.clear(job)
            raise Stopped("Stopped at once: the job was cancelled." if word == NOW
                          else "Stopped before it began to work.")

    def _word(self) -> str:
        with contextlib.suppress(OSError):
            return NOW if (self.folder / "stop").read_bytes()[:3] == b"now" else STOP
        return STOP if self._asked else ""

    # -- news

    def _send(self, status: dict[str, Any]) -> None:
        """The parcel, unless the job found it in its place already."""
        if self.record.get("sent") or status["phase"] != "waiting" or self.place.brings_its_parcel:
            return
        parcel = self.parcel or self._parcel()
        for name, path in parcel.files.items():
            self._wire.put(name, path)
            self._heard()
        self._wire.write("parcel.json", parcel.manifest())
        self._save(sent=True)
        self._log("Model and data are there.")

    def _bring_news(self, status: dict[str, Any]) -> None:
        if not status.get("run"):
            return
        if not self.record.get("began"):
            self._save(began=True)
        cursors = self.record["cursors"]
        for name in ("events.jsonl", "worker.log"):
            while data := self._wire.grown(f"{status['run']}/{name}", cursors.get(name, 0)):
                whole = data if name == "worker.log" else data[:data.rfind(b"\n") + 1]
                if not whole:
                    break
                self._take(name, whole, status)
                cursors[name] = cursors.get(name, 0) + len(whole)
                self._save()
        self._bring_checkpoints(status)

    def _take(self, name: str, data: bytes, status: dict[str, Any]) -> None:
        """Append what grew there to the file here; events, in whole lines, with the places of this machine."""
        if name == "events.jsonl":
            lines = [self._localised_line(line, status) for line in data.splitlines(keepends=True)]
            data = b"".join(line for line in lines if line not in self._seen)
        with open(self.folder / name, "ab") as file:
            file.write(data)

    def _localised_line(self, line: bytes, status: dict[str, Any]) -> bytes:
        if b'"artifact"' not in line:
            return line
        with contextlib.suppress(ValueError):
            return json.dumps(self._localised(json.loads(line), status), ensure_ascii=False).encode() + b"\n"
        return line

    def _remember_lines(self) -> None:
        """The newest lines here: a courier that died between taking and remembering would else take some twice."""
        with contextlib.suppress(OSError), open(self.folder / "events.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 20)))
            self._seen = set(file.read().splitlines(keepends=True))

    def _bring_checkpoints(self, status: dict[str, Any]) -> None:
        there = status.get("checkpoints") or {}
        folder = self.folder / "checkpoints"
        for name, files in there.items():
            if isinstance(files, dict) and not (folder / name / COMPLETE).is_file():
                with contextlib.suppress(FileNotFoundError):  # rotated away meanwhile
                    self._bring(f"{status['run']}/checkpoints/{name}", files, folder / name, status)
        newest = max(there, key=_step, default=None)
        if newest and (folder / newest / COMPLETE).is_file():
            for old in checkpoints(folder):  # what the trainer there let go of is let go of here
                if old.name not in there:
                    shutil.rmtree(old, ignore_errors=True)

    def _bring(self, source: str, files: dict[str, list[Any]], target: Path, status: dict[str, Any]) -> None:
        """A folder from there, whole or not at all.

        Raises:
            FileNotFoundError: it was removed meanwhile.
            OSError: a file stays damaged, or the disk is full.
        """
        part = target.with_name(f"{target.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        for name, facts in files.items():
            self._bring_file(f"{source}/{name}", facts, part / name)
        relocate(part, self._pairs(status))
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)

    def _bring_file(self, source: str, facts: list[Any], target: Path) -> None:
        if not target.resolve().is_relative_to(self.folder.resolve()):
            raise OSError(f"{source} would lie outside the run")
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            if target.is_file() and digest(target) == facts:
                return
            target.unlink(missing_ok=True)
            self._wire.fetch(source, target)
            self._heard()
        if digest(target) != facts:
            raise OSError(f"{source} arrives damaged again and again")

    # -- the end

    def _end(self, status: dict[str, Any]) -> dict[str, Any]:
        """Bring what the run made, and say what it said last."""
        if refused := status.get("refused"):
            self._finish()
            return _result(State.STOPPED if status.get("stopped") else State.FAILED, *refused)
        while True:
            try:
                self._bring_news(status)
                self._bring_rest(status, status.get("files") or {})
                break
            except Unreachable as err:
                self._mind_the_silence(self.record["job"], str(err))
                time.sleep(_LOOK)
        result = read_json(self.folder / "there.json")
        (self.folder / "there.json").unlink(missing_ok=True)
        self._finish()
        if result is None or result.get("state") not in FINAL:
            ended = status.get("exit") or {}
            said = died(ended.get("code"), ended.get("signal"), _last_line(self.folder / "worker.log"))
            if self._told:
                return _result(State.STOPPED, "Killed on the other machine: it did not stop by itself.", said.hint)
            return _result(State.FAILED, said.reason.replace("worker", "worker on the other machine", 1), said.hint)
        return self._localised(result, status)

    def _bring_rest(self, status: dict[str, Any], files: dict[str, Any]) -> None:
        output = {name[7:]: facts for name, facts in files.items() if name.startswith("output/")}
        if output:
            self._bring(f"{status['run']}/output", output, self.folder / "output", status)
        for name, facts in files.items():
            if name == "result.json":
                self._bring_file(f"{status['run']}/{name}", facts, self.folder / "there.json")
            elif not name.startswith("output/") and name.partition("/")[0] not in OWN and not name.startswith("."):
                self._bring_file(f"{status['run']}/{name}", facts, self.folder / name)

    def _finish(self) -> None:
        """Everything is home."""
        self._save(over=True)
        with contextlib.suppress(Unreachable, StudioError, OSError):
            self._wire.say("done")
        with contextlib.suppress(Unreachable, StudioError, OSError):
            self.place.clear(self.record["job"])

    def _pairs(self, status: dict[str, Any]) -> list[tuple[str, str]]:
        starter = f"{status['root']}/{settings.STARTER.relative_to(settings.ROOT).as_posix()}"
        marks = {STARTER: str(settings.STARTER), HERE: str(settings.home())}
        return [(starter, marks[STARTER]), (status["home"], marks[HERE])]

    def _localised(self, value: Any, status: dict[str, Any]) -> Any:
        """``value`` with the places and names of this machine."""
        if isinstance(value, dict):
            return {key: self._localised(item, status) for key, item in value.items()}
        if isinstance(value, list):
            return [self._localised(item, status) for item in value]
        if not isinstance(value, str):
            return value
        self.parcel = self.parcel or self._parcel()
        if value in self.parcel.names:
            return self.parcel.names[value]
        for there, here in self._pairs(status):
            if value == there or value.startswith(f"{there}/"):
                return here + value[len(there):]
        return value

    # -- what is remembered and told

    def _save(self, **facts: Any) -> None:
        self.record |= facts
        write_json(self.folder / "remote.json", self.record)
        os.chmod(self.folder / "remote.json", 0o600)

    def _heard(self) -> None:
        self._silent, self._warned = time.monotonic(), False

    def _mind_the_silence(self, job: str, why: str) -> None:
        """Go on, tell the person, or give up; by the time since the last sign."""
        silent = time.monotonic() - self._silent
        if self._word() == NOW:
            with contextlib.suppress(Unreachable, StudioError):
                self.place.cancel(job)
            raise Stopped("Given up as asked while the other machine did not answer; the job may still run there.")
        if silent > _TELL and not self._warned:
            self._warned = True
            events.append(self.folder / "events.jsonl", "warning", code="remote_silent",
                          hint="It is asked again and again.", message=f"{self.record.get('place')} does not answer ({why}).")
        if silent > _NO_DOOR and not self.record.get("began") and self._wire is None:
            with contextlib.suppress(Unreachable, StudioError):
                self.place.cancel(job)
                self._save(over=True)
            raise StudioError(f"The job on {self.record['place']} runs but cannot be spoken to: {why}.",
                              "Open or forward that port, or choose a folder that both machines see.", backends.FIELD)
        if silent > patience():
            raise Lost(f"Nothing was heard of the job on {self.record.get('place')} for {silent / 60:.0f} minutes "
                       f"({why}).")

    def _log(self, text: str) -> None:
        events.append(self.folder / "events.jsonl", "log", text=text)


class Stopped(Exception):
    """The run is stopped and there is nothing more to bring."""


def cancel(folder: Path, backend: dict[str, Any]) -> bool:
    """End the job of a run that is given up for good, in a process of its own, so that a page stays light.

    Returns:
        False if that failed.
    """
    record = read_json(folder / "remote.json") or {}
    if not record.get("job") or record.get("over"):
        return True
    env = os.environ | {"ATELIER_RUN_DIR": str(folder), "ATELIER_BACKEND": json.dumps(backend),
                        "PYTHONPATH": os.pathsep.join([str(settings.ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        return subprocess.run([sys.executable, "-m", "studio.jobs.backends.courier", "cancel"], env=env, timeout=40,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def patience() -> float:
    """Seconds a job may be silent; ``ATELIER_REMOTE_PATIENCE`` overrides the default."""
    try:
        return float(os.environ.get("ATELIER_REMOTE_PATIENCE", PATIENCE))
    except ValueError:
        return PATIENCE


def _step(name: str) -> int:
    return int(name.rpartition("-")[2])


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_bytes()[-4096:].decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _result(state: State, reason: str = "", hint: str = "", field: str | None = None) -> dict[str, Any]:
    return {"state": state, "reason": reason, "hint": hint, "field": field, "ended": time.time(), "summary": {},
            "artifacts": []}


def main() -> int:
    """Be the courier of the run in ``ATELIER_RUN_DIR``; 0 unless it failed."""
    folder = Path(os.environ["ATELIER_RUN_DIR"])
    if sys.argv[1:] == ["cancel"]:
        courier = Courier(folder, json.loads(os.environ["ATELIER_BACKEND"]), resume=False)
        courier.place.cancel(courier.record["job"])
        return 0
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they would fill the log
    try:
        registry.load_plugins()
        resume = os.environ.get("ATELIER_RESUME") == "1"
        result = Courier(folder, json.loads(os.environ["ATELIER_BACKEND"]), resume).run()
    except Stopped as err:
        result = _result(State.STOPPED, str(err), "Resume goes on from the last checkpoint that came home.")
    except Unreachable as err:
        result = _result(State.FAILED, f"The place does not answer: {err}.", "See that it runs, then press Resume.",
                         backends.FIELD)
    except Exception as err:
        if not isinstance(err, StudioError):
            traceback.print_exc()
        result = _result(State.FAILED, *explain(err))
    write_json(folder / "result.json", result)
    return 0 if result["state"] in (State.SUCCEEDED, State.STOPPED) else 1


if __name__ == "__main__":
    sys.exit(main())
