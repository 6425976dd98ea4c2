"""Packed data: gzip, bzip2, xz and Zstandard streams, ZIP archives and folders, read in place and never trusted.

A small file may unfold to any size. What comes out is counted against what went in: beyond :data:`RATIO` times as much
(and more than :data:`FREE` bytes) it is refused, while it is read and, where the archive says so itself, before.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from studio.errors import StudioError

RATIO = 200  # bytes out of one byte in; text packs 3 to 30 times, logs of one and the same line up to 100
FREE = 100 << 20  # bytes that may come out whatever the ratio
MOST = 20_000  # files of one archive or folder
_MARKS = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}
SUFFIXES = {".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd"}
_FAULTS = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError, RuntimeError)


def refuse(message: str, hint: str) -> StudioError:
    return StudioError(message, hint, "dataset")


class Member:
    """A file inside a ZIP archive, with as much of ``Path`` as the readers use."""

    def __init__(self, archive: Path, info: zipfile.ZipInfo):
        self.archive, self.info = archive, info
        inner = PurePosixPath(info.filename.replace("\\", "/"))
        self.name, self.suffix, self.suffixes, self.stem = inner.name, inner.suffix, inner.suffixes, inner.stem
        self.size = info.file_size

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        try:
            with zipfile.ZipFile(self.archive) as whole:
                return whole.open(self.info)
        except _FAULTS as err:  # RuntimeError: a password is needed, or a packing that Python does not know
            raise broken(self, "ZIP") from err


File = Path | Member


def size_of(path: File) -> int:
    """Bytes on disk, or inside the archive."""
    return path.size if isinstance(path, Member) else path.stat().st_size


def packing(start: bytes) -> str:
    """``gzip`` | ``bzip2`` | ``xz`` | ``Zstandard`` by the first bytes, or an empty string."""
    if start.startswith(b"BZh") and start[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "")


def packing_of(path: File) -> str:
    with path.open("rb") as file:
        return packing(_start(path, file))


def _start(path: File, file: IO[bytes]) -> bytes:
    try:
        return file.read(10)
    except _FAULTS as err:  # a small file inside an archive is checked as a whole at its first byte
        raise broken(path, "ZIP") from err


class Unpacked(io.RawIOBase):
    """The content of a packed stream, or of a plain one as it is.

    Attributes:
        consumed: Bytes read of the file as it lies on disk.
    """

    def __init__(self, path: File):
        self.path, self.raw = path, path.open("rb")
        self.kind = packing(_start(path, self.raw))
        self.raw.seek(0)
        self.out = 0
        self._inner: Any = self.raw
        if self.kind == "gzip":
            self._inner = gzip.GzipFile(fileobj=self.raw)
        elif self.kind == "bzip2":
            self._inner = bz2.BZ2File(self.raw)
        elif self.kind == "xz":
            self._inner = lzma.LZMAFile(self.raw)
        elif self.kind == "Zstandard":
            import pyarrow as pa  # tells a cut stream from an ended one, which the library of that name does not

            self._inner = pa.CompressedInputStream(pa.PythonFile(self.raw, "r"), "zstd")

    @property
    def consumed(self) -> int:
        return 0 if self.raw.closed else self.raw.tell()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes.

        Raises:
            StudioError: broken, cut off, or unfolding without measure.
        """
        try:
            data = self._inner.read(size)
        except _FAULTS as err:
            if not self.kind and isinstance(err, OSError) and isinstance(self.path, Path):
                raise refuse(f"{self.path.name} can no longer be read: {err.strerror or err}.",
                             "Check the disk.") from err
            raise broken(self.path, self.kind or "ZIP") from err
        self.out += len(data)
        packed = self.kind or isinstance(self.path, Member)
        if packed and self.out > FREE and self.out > RATIO * max(1, self._went_in()):
            raise bomb(self.path)
        return data

    def _went_in(self) -> int:
        if isinstance(self.path, Member):  # what of the archive belongs to it
            return self.path.info.compress_size
        return self.consumed

    def close(self) -> None:
        if not self.closed:
            if self._inner is not self.raw:
                self._inner.close()
            self.raw.close()
        super().close()


def broken(path: File, kind: str) -> StudioError:
    return refuse(f"{path.name} is a broken or cut-off {kind} archive.", "Fetch or pack it again.")


def bomb(path: File) -> StudioError:
    return refuse(f"{path.name} unfolds to more than {RATIO} times its size, as only a zip bomb does.",
                  "If it is real data, unpack it first and choose the unpacked file.")


def zip_members(path: Path) -> tuple[list[Member], list[str]]:
    """(files with data, names of what is left out) of a ZIP archive.

    Raises:
        StudioError: broken, encrypted, hostile, or an Office document that is no text.
    """
    from studio.datasets import sniff

    try:
        with zipfile.ZipFile(path) as whole:
            infos = [info for info in whole.infolist() if not info.is_dir()]
    except (*_FAULTS, ValueError) as err:
        raise refuse(f"{path.name} is a broken or cut-off ZIP archive or Office document.",
                     "Fetch or pack it again.") from err
    names = {info.filename for info in infos}
    for inside, what, hint in (("xl/workbook.xml", "an Excel sheet", "Save the sheet as CSV."),
                               ("ppt/presentation.xml", "a PowerPoint document", "Save it as PDF."),
                               ("mimetype", "an OpenDocument or EPUB file", "Save it as DOCX, PDF or HTML.")):
        if inside in names:
            raise refuse(f"{path.name} is {what}, an Office document of which no rows are read.", hint)
    check_sizes(path, infos)
    if any(info.flag_bits & 1 for info in infos):
        raise refuse(f"{path.name} is a ZIP archive with a password.", "Unpack it first.")
    made, left = [], []
    for info in sorted(infos, key=lambda info: info.filename):
        member = Member(path, info)
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        readable = sniff.suffix_of(member) in sniff.SUFFIXES and info.file_size
        made.append(member) if readable else left.append(info.filename)
    if not made:
        raise refuse(f"The ZIP archive {path.name} holds no file that can be read"
                     + (f" (it has {', '.join(left[:5])})." if left else "."),
                     f"Pack files of these types: {', '.join(sorted(sniff.SUFFIXES))}.")
    return made, left


def check_sizes(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that says itself that it unfolds without measure, or that has far too many files.

    Raises:
        StudioError: a bomb.
    """
    if len(infos) > MOST:
        raise refuse(f"The ZIP archive {path.name} holds {len(infos):,} files; at most {MOST:,} are read.",
                     "Put the rows into fewer files, e.g. one JSONL.")
    total = sum(info.file_size for info in infos)
    if total > FREE and total > RATIO * max(1, path.stat().st_size):
        raise bomb(path)


def folder_files(folder: Path) -> tuple[list[Path], list[str]]:
    """(files with data, names of what is left out) of a folder and those in it; hidden ones are passed over.

    Raises:
        StudioError: nothing in it can be read, or there are too many files.
    """
    from studio.datasets import sniff

    made: list[Path] = []
    left: list[str] = []
    for place, inner, names in os.walk(folder):  # links to folders are not followed
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith(".") or not path.is_file():
                continue
            if sniff.suffix_of(path) in sniff.SUFFIXES | {".zip"} and path.stat().st_size:
                made.append(path)
            else:
                left.append(str(path.relative_to(folder)))
        if len(made) + len(left) > MOST:
            raise refuse(f"{folder.name} holds more than {MOST:,} files.", "Choose a smaller folder, or one file.")
    if not made:
        raise refuse(f"{folder.name} is a folder without a file that can be read.",
                     f"Choose a folder with files of these types: {', '.join(sorted(sniff.SUFFIXES))}.")
    return made, left
