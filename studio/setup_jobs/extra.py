"""Install an optional part into the environment the studio runs in, without moving anything that is pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import extras
from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import Recipe, field
from studio.settings import ROOT, on_space

if TYPE_CHECKING:
    from studio.jobs.context import Context

PINS = ROOT / "requirements.txt"
GRACE = 10.0  # seconds pip gets to end after it was told to
_NETWORK = re.compile(r"NewConnectionError|Connection refused|Name or service not known|name resolution|"
                      r"ConnectTimeout|Read timed out|ProxyError|Network is unreachable|ConnectionResetError")


class InstallExtraRecipe(Recipe):
    kind, method = "setup", "extra"

    extra: str = field("", "Part", "The optional part to install.",
                       choices={name: part.title for name, part in extras.EXTRAS.items()}, max_length=60)


class InstallExtra(Method):
    title = "Install an optional part"
    summary = "Adds an experiment tracker or another optional package; the studio's own packages stay as they are."
    Recipe = InstallExtraRecipe

    @classmethod
    def check(cls, recipe: InstallExtraRecipe) -> None:
        part = extras.extra(recipe.extra)
        if on_space():
            raise StudioError("On a Space packages come from requirements.txt, for all its visitors.",
                              f"The owner can add {' '.join(part.requirements)} there.", "extra")
        folder = Path(sysconfig.get_path("purelib"))
        if not os.access(folder, os.W_OK):
            raise StudioError(f"The installation in {folder} cannot be written.",
                              "Install the studio in a folder you own.", "extra")

    @classmethod
    def estimate(cls, recipe: InstallExtraRecipe) -> Estimate:
        part = extras.extra(recipe.extra)
        notes = [f"{part.title} is installed already."] if extras.installed(recipe.extra) else []
        return Estimate(disk=part.megabytes * 1_000_000, notes=notes)

    @classmethod
    def run(cls, recipe: InstallExtraRecipe, ctx: Context) -> dict[str, Any]:
        part = extras.extra(recipe.extra)
        with _alone(ctx):
            if ctx.stop_requested:
                return {}
            _remove_torn(ctx)
            before = {place: set(os.listdir(place)) for place in _places()}
            lines, code = _pip(list(part.requirements), ctx)
            if code:
                _remove_torn(ctx)
                _remove_strays(before)
                if ctx.stop_requested:
                    ctx.log("Stopped; nothing of it is left half-installed.")
                    return {}
                raise _reason(part, lines)
        if not extras.installed(recipe.extra):
            raise StudioError(f"pip ended well but {part.title} cannot be found.", "See the log of this run.", "extra")
        done = [line.partition("Successfully installed ")[2] for line in lines if "Successfully installed" in line]
        ctx.log(f"{part.title} is ready.")
        return {"extra": recipe.extra, "installed": done[-1].split() if done else []}


@contextmanager
def _alone(ctx: Context) -> Iterator[None]:
    """Not beside launch.py's set-up or another installation: all of them take the lock beside the environment."""
    try:
        import fcntl

        lock = open(ROOT / ".venv.lock", "a+", encoding="utf-8")
    except (ImportError, OSError):  # Windows, or an environment that launch.py did not make
        yield
        return
    with lock:
        told = False
        while not ctx.stop_requested:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    ctx.log("Waiting for another installation to end.")
                told = True
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        yield


def _pip(requirements: list[str], ctx: Context) -> tuple[list[str], int]:
    """Run pip; (its lines, its exit code). Ends it when a stop is asked for."""
    temp = ctx.run_dir / "pip"
    temp.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar",
               "off", "-c", str(PINS), *requirements]
    env = os.environ | {"TMPDIR": str(temp), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "PIP_USER": "0"}
    started = time.time()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               text=True, encoding="utf-8", errors="replace", env=env)
    lines: list[str] = []
    to_install: list[str] = []

    def drain() -> None:
        for line in process.stdout:
            lines.append(line.rstrip())
            ctx.log(line.rstrip())
            if "Installing collected packages:" in line:
                to_install.extend(line.partition(":")[2].split(","))

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(0.2)
            if to_install:
                ctx.progress(min(_finished(started), len(to_install)), len(to_install))
            if ctx.stop_requested:
                break
    finally:
        _end(process)
        reader.join(2)
        shutil.rmtree(temp, ignore_errors=True)
    if to_install and not process.returncode:
        ctx.progress(len(to_install), len(to_install))
    return lines, process.returncode


def _end(process: subprocess.Popen) -> None:
    """Wait for pip when it is through, tell it to end when it is not."""
    try:
        process.wait(0.5)
        return
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _places() -> list[Path]:
    """Where packages are installed; one folder on most systems."""
    return sorted({Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")})


def _folders() -> list[Path]:
    """Every ``*.dist-info`` of the environment."""
    return [path for place in _places() for path in place.glob("*.dist-info")]


def _finished(since: float) -> int:
    """Packages completed since a time: pip writes INSTALLER after a package's own files."""
    done = 0
    for path in _folders():
        try:
            done += (path / "INSTALLER").stat().st_mtime >= since - 1
        except OSError:
            continue
    return done


def _remove_torn(ctx: Context) -> None:
    """Forget packages that a killed pip left half-way, or the next pip would take them for installed."""
    for path in _folders():
        if not (path / "INSTALLER").exists():
            ctx.log(f"Removing what is left of {path.name.partition('-')[0]}, which was not installed to the end.")
            shutil.rmtree(path)


def _remove_strays(before: dict[Path, set[str]]) -> None:
    """Delete what was added since and belongs to no complete package.

    A folder that is left by a package can be imported all the same, and looks installed to whoever tries.
    """
    for place, names in before.items():
        new = set(os.listdir(place)) - names
        owned = {file.parts[0] for name in new if name.endswith(".dist-info")
                 for file in metadata.PathDistribution(place / name).files or []}
        for name in new - owned:
            path = place / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _reason(part: extras.Extra, lines: list[str]) -> StudioError:
    """Why pip failed, for a person."""
    text = "\n".join(lines)
    if "No space left on device" in text:
        return StudioError(f"The disk ran full while installing {part.title}.",
                           f"Free about {part.megabytes * 2} MB and start it again.", "extra")
    if _NETWORK.search(text):
        return StudioError(f"{part.title} could not be fetched: the package index cannot be reached.",
                           "Check the network connection and start it again.", "extra")
    if "conflict" in text:
        return StudioError(f"No version of {part.title} fits the packages this studio is pinned to.",
                           "Nothing was changed. The log says which package is in the way.", "extra")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return StudioError(f"pip could not install {part.title}: {(errors or ['it gave no reason'])[-1].rstrip('.')}.",
                       "The whole answer is in the log of this run.", "extra")
