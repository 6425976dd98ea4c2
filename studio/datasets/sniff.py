"""What a file is, from its first bytes: compression, encoding, shape; and the refusals for what is no data at all."""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from studio.datasets import packed
from studio.datasets.packed import File, Member, Unpacked, refuse
from studio.errors import StudioError

HEAD = 256 * 1024  # bytes looked at before anything is read
CHUNK = 256 * 1024
MAX_ROW = 10 * 1024 * 1024  # characters of one line, one cell or one JSON row
TEXT_SUFFIXES = {".txt", ".md", ".markdown", ".text"}
HTML_SUFFIXES = {".html", ".htm", ".xhtml"}
SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".parquet", ".pdf",
            ".docx"} | TEXT_SUFFIXES | HTML_SUFFIXES

_KINDS = [(b"%PDF", "a packed PDF document", "Unpack it first."),
          (b"PK\x03\x04", "a packed ZIP archive or Office document", "Unpack it first."),
          (b"\xd0\xcf\x11\xe0", "an old Office document", "Save it as DOCX, as CSV or as plain text."),
          (b"\x1f\x8b", "packed twice", "Unpack it first."), (b"\x28\xb5\x2f\xfd", "packed twice", "Unpack it first."),
          (b"\xfd7zXZ", "packed twice", "Unpack it first."),
          (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it first."),
          (b"SQLite format 3", "a database", "Export the table as CSV."),
          (b"\x80\x04", "a Python pickle, which can run code when it is opened", "Save the rows as JSONL instead."),
          (b"\x89PNG", "a picture", "Choose a file with rows of text."),
          (b"\xff\xd8\xff", "a picture", "Choose a file with rows of text."),
          (b"\x7fELF", "a program", "Choose a file with rows of text."),
          (b"GGUF", "a model", "Choose a file with rows of text."),
          (b"version https://git-lfs", "only a pointer of Git LFS, not the file itself",
           "Fetch the file: git lfs pull."),
          (b"ARROW1", "an Arrow file", "Save it as Parquet or JSONL.")]
_HTML = re.compile(r"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|\?xml|svg)\b", re.I | re.S)


def check_file(path: File) -> int:
    """Size of a regular, readable, non-empty file in bytes.

    Raises:
        StudioError: missing, a folder, a device, not permitted, or empty.
    """
    if isinstance(path, Member):
        return path.size
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES | packed.SUFFIXES
                            | {".zip"})
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


def head(path: File) -> bytes:
    """The first bytes, unpacked.

    Raises:
        StudioError: a broken archive.
    """
    with Unpacked(path) as file:
        return file.read(HEAD)


def suffix_of(path: File) -> str:
    """Extension in lower case, the one under ``.gz`` and its like for packed files."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in packed.SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def encoding_of(data: bytes, path: File) -> str:
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

    def __init__(self, path: File, encoding: str):
        self.path, self.encoding = path, encoding
        self.mended = self.consumed = 0

    def __iter__(self) -> Iterator[str]:
        utf8 = Utf8() if self.encoding.startswith("utf-8") else None
        other = None if utf8 else codecs.getincrementaldecoder(self.encoding)("replace")
        first = True
        with Unpacked(self.path) as file:
            while True:
                data = file.read(CHUNK)
                text = utf8.feed(data, not data) if utf8 else other.decode(data, not data)
                if utf8:
                    self.mended = utf8.mended
                self.consumed = file.consumed
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


def long_line(path: File, number: int) -> StudioError:
    return refuse(f"Line {number} of {path.name} is longer than {MAX_ROW >> 20} MB.",
                  "Put each row on its own line, and split long texts into several rows.")


def refuse_html(start: str, path: File) -> None:
    """Refuse a web page that was saved under the name of a data file.

    Raises:
        StudioError: the text starts as HTML or XML does.
    """
    if _HTML.match(start[:4096]):
        raise refuse(f"{path.name} is a web page, not data: probably the page about the file was saved instead of the "
                     "file.",
                     "Use the download link of the file itself ('raw' or 'resolve'). "
                     "If you want the page's text, name it .html.")
