"""A desk: the folder at the other place in which one job lies, and what is said over it.

    desk/parcel.json             what was sent, with size and SHA-256 of each file; written last
         home/…                  a workspace with what the recipe needs, and the run's own folder in it
         status.json             what the other side says (see :mod:`.other_side`)
         stop                    ``stop`` or ``now``, once that is asked for
         done                    everything is home, the desk may be cleared

Both sides use this class: the other side on its own disk, the courier over HTTP or on a disk that both see. Growing
files are read from an offset; any other is taken whole. Paths that arrive over the network stay inside the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import StudioError
from studio.jobs.files import read_json, write_json

PIECE = 4 << 20  # bytes that travel at once
STOP, NOW = "stop", "now"


class Desk:
    """The files of one job in ``folder``; also the wire of a courier that sees the same disk."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        """A file of the desk.

        Raises:
            StudioError: if the name leads out of it.
        """
        found = (self.folder / name).resolve()
        if "\x00" in name or not found.is_relative_to(self.folder.resolve()):
            raise StudioError("That is no file of this job.")
        return found

    def status(self) -> dict[str, Any] | None:
        """What the other side says, with the present sizes of the growing files; ``None`` before its first word."""
        found = read_json(self.folder / "status.json")
        if found and (run := found.get("run")):
            found["sizes"] = {name: _size(self.folder / run / name) for name in ("events.jsonl", "worker.log")}
        return found

    def say(self, word: str) -> None:
        """Ask for a stop (``stop``, ``now``) or say that everything is home (``done``)."""
        if word in (STOP, NOW):
            (self.folder / "stop").write_text(word)
        elif word == "done":
            (self.folder / "done").touch()

    def said(self) -> str:
        """``stop``, ``now`` or nothing."""
        try:
            return (self.folder / "stop").read_text().strip() or STOP
        except OSError:
            return ""

    def grown(self, name: str, offset: int) -> bytes:
        """At most :data:`PIECE` bytes of a file from ``offset`` on; none if there are none yet."""
        try:
            with open(self.path(name), "rb") as file:
                file.seek(offset)
                return file.read(PIECE)
        except OSError:
            return b""

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file to ``target``.

        Raises:
            FileNotFoundError: it is gone.
        """
        shutil.copyfile(self.path(name), target)

    def put(self, name: str, source: Path) -> None:
        """Copy a file onto the desk."""
        with open(source, "rb") as file:
            self.take(name, file)

    def take(self, name: str, source: BinaryIO, size: int | None = None) -> None:
        """Write a file from a stream, of ``size`` bytes if given; whole or not at all."""
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with open(part, "wb") as file:
            if size is None:
                shutil.copyfileobj(source, file, PIECE)
            else:
                while size > 0 and (piece := source.read(min(PIECE, size))):
                    file.write(piece)
                    size -= len(piece)
                if size:
                    raise OSError(f"{name} arrived cut short")
        os.replace(part, target)

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a small JSON file."""
        write_json(self.folder / name, value)

    def close(self) -> None:
        """Nothing is held."""


def digest(path: Path) -> list[Any]:
    """``[size, SHA-256]`` of a file."""
    with open(path, "rb") as file:
        return [os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()]


def listing(folder: Path, without: Iterable[str] = ()) -> dict[str, list[Any]]:
    """``relative path -> [size, SHA-256]`` of every file of a folder, links left out."""
    left_out = set(without)
    return {name: digest(path) for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()
            and (name := path.relative_to(folder).as_posix()).partition("/")[0] not in left_out}


def relocate(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Make the small texts of a folder that name places name those of this machine: a model card, an adapter's base.

    Args:
        pairs: (path there, path here), the longest first.
    """
    for path in folder.rglob("*"):
        if path.name not in ("adapter_config.json", "README.md") or path.is_symlink():
            continue
        old = text = path.read_text("utf-8")
        for there, here in pairs:
            text = text.replace(there, here)
        if text != old:
            path.write_text(text, "utf-8")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
