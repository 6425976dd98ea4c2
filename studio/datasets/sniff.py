"""What a file is, from its first bytes: compression, encoding, shape; and the refusals for what is no data at all."""

from __future__ import annotations

import codecs
import gzip
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from studio.errors import StudioError

HEAD = 256 * 1024  # bytes looked at before anything is read
CHUNK = 256 * 1024
MAX_ROW = 10 * 1024 * 1024  # characters of one line, one cell or one JSON row
TEXT_SUFFIXES = {".txt", ".md", ".markdown", ".text"}
SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".parquet"} | TEXT_SUFFIXES

_KINDS = [(b"%PDF", "a PDF document", "Save its text as a .txt file."),
          (b"PK\x03\x04", "a ZIP archive or an Office document", "Unpack it, or save the sheet as CSV."),
          (b"\xd0\xcf\x11\xe0", "an old Office document", "Save it as CSV or as plain text."),
          (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it first (unzstd), or compress it with gzip."),
          (b"BZh", "compressed with bzip2", "Unpack it first, or compress it with gzip."),
          (b"\xfd7zXZ", "compressed with xz", "Unpack it first, or compress it with gzip."),
          (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it first."),
          (b"SQLite format 3", "a database", "Export the table as CSV."),
          (b"\x80\x04", "a Python pickle, which can run code when it is opened", "Save the rows as JSONL instead."),
          (b"\x89PNG", "a picture", "Choose a file with rows of text."),
          (b"\xff\xd8\xff", "a picture", "Choose a file with rows of text."),
          (b"\x7fELF", "a program", "Choose a file with rows of text."),
          (b"GGUF", "a model", "Choose a file with rows of text."),
          (b"ARROW1", "an Arrow file", "Save it as Parquet or JSONL.")]
_HTML = re.compile(r"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|\?xml|svg)\b", re.I | re.S)


def refuse(message: str, hint: str) -> StudioError:
    return StudioError(message, hint, "dataset")


def check_file(path: Path) -> int:
    """Size of a regular, readable, non-empty file in bytes.

    Raises:
        StudioError: missing, a folder, a device, not permitted, or empty.
    """
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES | {".gz"})
            hint = f"Choose a file in it, e.g. {inside[0]}." if inside else "Choose a data file."
            raise refuse(f"{path.name} is a folder, not a file.", hint)
        if not stat.S_ISREG(info.st_mode):
            raise refuse(f"{path.name} is a device or a pipe, not a file.", "Choose a data file.")
        if info.st_size == 0:
            raise refuse(f"{path.name} is empty.", "Choose a file with rows in it.")
        with path.open("rb"):
            return info.st_size
    except OSError as err:
        raise refuse(f"{path.name} cannot be read: {err.strerror or err}.",
                     "Check the path and its permissions.") from err
    except ValueError as err:  # a NUL in the name
        raise refuse("That is not the name of a file.", "Check the path.") from err


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def head(path: Path) -> bytes:
    """The first bytes, unpacked if they are gzip.

    Raises:
        StudioError: a broken archive.
    """
    with opened(path) as file:
        try:
            return file.read(HEAD)
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise broken_gzip(path) from err


def opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if is_gzip(path) else path.open("rb")


def broken_gzip(path: Path) -> StudioError:
    return refuse(f"{path.name} is a broken or cut-off gzip archive.", "Fetch or pack it again.")


def suffix_of(path: Path) -> str:
    """Extension in lower case, the one under ``.gz`` for packed files."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".gzip"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def encoding_of(data: bytes, path: Path) -> str:
    """``utf-8``, ``utf-8-sig``, ``utf-16`` or ``utf-32`` of the first bytes; Windows-1252 is mended later.

    Raises:
        StudioError: binary data, or text in another encoding.
    """
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"),
                       (codecs.BOM_UTF32_BE, "utf-32"),
                       (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return name
    for magic, what, hint in _KINDS:
        if data.startswith(magic):
            raise refuse(f"{path.name} is {what}.", hint)
    if b"\x00" in data:
        sample = data[:4096]
        odd, even = sample[1::2].count(0), sample[0::2].count(0)
        if odd > len(sample) * 0.3 and even < len(sample) * 0.05:
            return "utf-16-le"
        if even > len(sample) * 0.3 and odd < len(sample) * 0.05:
            return "utf-16-be"
        raise refuse(f"{path.name} is a binary file, not text: it has NUL bytes.",
                     "Choose JSON, JSONL, CSV, Parquet or text.")
    strange = sum(b < 32 and b not in b"\t\n\r\f\x1b" for b in data[:8192])
    if strange > len(data[:8192]) * 0.05:
        raise refuse(f"{path.name} is a binary file, not text.", "Choose JSON, JSONL, CSV, Parquet or text.")
    decoder = Utf8()
    decoder.feed(data, final=False)
    if decoder.mended > len(data) * 0.15:
        raise refuse(f"{path.name} is text in an encoding that is neither UTF-8 nor Western European.",
                     "Save it as UTF-8 (in an editor: 'Save with encoding').")
    return "utf-8"


class Utf8:
    """Incremental UTF-8 decoder that reads bytes which are no UTF-8 as Windows-1252 and counts them in ``mended``."""

    def __init__(self) -> None:
        self.mended = 0
        self._rest = b""

    def feed(self, data: bytes, final: bool) -> str:
        data, self._rest = self._rest + data if self._rest else data, b""
        parts, at = [], 0
        while True:
            try:
                text, used = codecs.utf_8_decode(memoryview(data)[at:], "strict", final)
            except UnicodeDecodeError as err:
                parts.append(data[at:at + err.start].decode("utf-8"))
                bad = data[at + err.start:at + err.end]
                parts.append(bad.decode("cp1252", "replace"))
                self.mended += len(bad)
                at += err.end
                continue
            parts.append(text)
            self._rest = data[at + used:]
            return "".join(parts) if len(parts) > 1 else parts[0]


class Text:
    """The characters of a file in pieces, at constant memory.

    Attributes:
        encoding: What the bytes are.
        mended: Bytes that were no UTF-8 and were read as Windows-1252.
        consumed: Bytes read so far, of the file as it lies on disk.
    """

    def __init__(self, path: Path, encoding: str):
        self.path, self.encoding = path, encoding
        self.mended = self.consumed = 0

    def __iter__(self) -> Iterator[str]:
        utf8 = Utf8() if self.encoding.startswith("utf-8") else None
        other = None if utf8 else codecs.getincrementaldecoder(self.encoding)("replace")
        first = True
        with self.path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            while True:
                try:
                    data = file.read(CHUNK)
                except (EOFError, zlib.error, gzip.BadGzipFile) as err:
                    raise broken_gzip(self.path) from err
                text = utf8.feed(data, not data) if utf8 else other.decode(data, not data)
                if utf8:
                    self.mended = utf8.mended
                self.consumed = raw.tell()
                if first and text:
                    text, first = text.removeprefix("\ufeff"), False
                if text:
                    yield text
                if not data:
                    return

    def beginning(self) -> str:
        """About the first :data:`HEAD` characters."""
        parts, length = [], 0
        for piece in self:
            parts.append(piece)
            length += len(piece)
            if length >= HEAD:
                break
        return "".join(parts)[:HEAD]

    def lines(self) -> Iterator[str]:
        """Lines with their ending; ``\\n`` alone divides them.

        Raises:
            StudioError: one line is longer than :data:`MAX_ROW`.
        """
        rest, number = "", 0
        for text in self:
            pieces = (rest + text).split("\n") if rest else text.split("\n")
            rest = pieces.pop()
            for piece in pieces:
                number += 1
                if len(piece) > MAX_ROW:
                    raise long_line(self.path, number)
                yield piece + "\n"
            if len(rest) > MAX_ROW:
                raise long_line(self.path, number + 1)
        if rest:
            yield rest


def long_line(path: Path, number: int) -> StudioError:
    return refuse(f"Line {number} of {path.name} is longer than {MAX_ROW >> 20} MB.",
                  "Put each row on its own line, and split long texts into several rows.")


def refuse_html(start: str, path: Path) -> None:
    """Refuse a web page that was saved under the name of a data file.

    Raises:
        StudioError: the text starts as HTML or XML does.
    """
    if _HTML.match(start[:4096]):
        raise refuse(f"{path.name} is a web page, not data: probably the page about the file was saved instead of the "
                     "file.",
                     "Use the download link of the file itself ('raw' or 'resolve').")
