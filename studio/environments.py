"""Environments of their own: a folder of the workspace with one other version of a library, made at first need.

TRL 1.16 has neither PPO nor PRM any more; TRL 1.12, which has both, works with all else that is installed.

A worker whose method names one makes it, if it is not there, and then becomes a fresh process with that folder in
front of its path. The process id stays, so guardian, stop and logs are the same as for any other run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from studio import settings
from studio.errors import StudioError
from studio.jobs import files
from studio.jobs.context import COMPLETE

INSIDE = "ATELIER_ENVIRONMENT"  # the name of the environment that this process runs in
_NETWORK = re.compile(r"NewConnectionError|Connection refused|Name or service not known|name resolution|ConnectTimeout|"
                      r"Read timed out|ProxyError|Network is unreachable|ConnectionResetError|No matching distribution")
_POLL = 0.2  # seconds between looks at the stop while pip works


class Environment(NamedTuple):
    """One other version.

    Attributes:
        requirement: What pip installs, without what it depends on: that is installed already.
        megabytes: Disk it takes.
    """

    requirement: str
    megabytes: int


KNOWN = {"trl-1.12": Environment("trl==1.12.0", 9)}


def folder(name: str) -> Path:
    return settings.home() / "envs" / name


def ready(name: str) -> bool:
    """It is there, and whole."""
    return (folder(name) / COMPLETE).is_file()


def note(name: str) -> str:
    """What a person should know before the start, or nothing where it is made already."""
    made = KNOWN[name]
    if ready(name):
        return ""
    return f"The first run fetches {made.requirement.replace('==', ' ')} ({made.megabytes} MB) into the workspace."


def enter(name: str, ctx: Any) -> None:
    """Go on inside an environment: returns there. Makes it first; returns outside of it only if a stop was asked for.

    Raises:
        StudioError: it cannot be made: no network, a full disk.
    """
    if os.environ.get(INSIDE) == name:
        return
    if make(name, ctx):
        ctx.close()
        _become(name)


def make(name: str, ctx: Any) -> bool:
    """Makes the environment unless it is there; False if a stop was asked for meanwhile.

    Raises:
        StudioError: see :func:`enter`.
    """
    target = folder(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.with_name(f"{name}.lock"), ctx):
        if ctx.stop_requested:
            return False
        if ready(name):
            return True
        part = target.with_name(f"{name}.part")
        for torn in (target, part):
            shutil.rmtree(torn, ignore_errors=True)
        ctx.log(f"Fetching {KNOWN[name].requirement.replace('==', ' ')} ({KNOWN[name].megabytes} MB), once for all "
                f"runs.")
        try:
            lines, code = _pip(KNOWN[name].requirement, part, ctx)
            if ctx.stop_requested:
                return False
            if code:
                raise _reason(KNOWN[name], lines)
            (part / COMPLETE).touch()
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return True


def _become(name: str) -> NoReturn:
    """This process, started afresh with the environment in front of its path."""
    path = [str(folder(name)), str(settings.ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "studio.jobs.worker"],
              os.environ | {"PYTHONPATH": os.pathsep.join(path), INSIDE: name})


@contextlib.contextmanager
def _alone(path: Path, ctx: Any) -> Iterator[None]:
    """Two runs that need it make it once; the second waits, and stops waiting when it is asked to stop."""
    with path.open("a+") as lock:
        told = False
        while not files.lock(lock.fileno()) and not ctx.stop_requested:
            if not told:
                ctx.log("Waiting for another run that fetches the same.")
            told = True
            time.sleep(_POLL)
        yield


def _pip(requirement: str, target: Path, ctx: Any) -> tuple[list[str], int]:
    """Run pip; (its lines, its exit code). Ends it when a stop is asked for."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar",
               "off",
               "--no-deps", "--target", str(target), requirement]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONUNBUFFERED": "1",
                                                                                      "PIP_USER": "0"}
    target.mkdir(parents=True)
    with (target / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        while process.poll() is None:
            if ctx.stop_requested:
                process.terminate()
                process.wait(10)
            time.sleep(_POLL)
        log.seek(0)
        return log.read().splitlines(), process.returncode


def _reason(made: Environment, lines: list[str]) -> StudioError:
    """Why pip failed, for a person."""
    text = "\n".join(lines)
    what = made.requirement.replace("==", " ")
    if "No space left on device" in text:
        return StudioError(f"The disk ran full while fetching {what}.", f"Free {made.megabytes * 3} MB and start "
                           f"again.")
    if _NETWORK.search(text):
        return StudioError(f"{what} could not be fetched: the package index cannot be reached.",
                           "This method needs it once. Check the network connection and start again.")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return StudioError(f"pip could not install {what}: {(errors or ['it gave no reason'])[-1].rstrip('.')}.",
                       "Start it again; if it stays so, the log of the run says more.")
