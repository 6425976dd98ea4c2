"""Rows of a file as dicts, streamed at constant memory: JSON, JSONL, CSV, TSV, Parquet, text, Markdown, PDF, DOCX,
HTML; packed or not, one or many in a ZIP archive or a folder.

The content decides over the file name: a ``.json`` with an object a line is JSONL, a ``.jsonl`` with an array is JSON.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from studio.datasets import packed, sniff
from studio.datasets.dialects import is_tree
from studio.datasets.json_array import JsonReader
from studio.datasets.packed import File, Member
from studio.datasets.rows import EXAMPLES, Reader, Row, as_row, loads
from studio.datasets.sniff import MAX_ROW, refuse
from studio.errors import StudioError

COUNTED = 256 << 20  # bytes of a JSONL whose lines are counted for a first look; of larger ones they are estimated
LONG_LINE = 200  # characters; texts broken by hand have lines of 60 to 120
_OF_A_ROW = {"messages", "conversation", "conversations", "mapping", "prompt", "chosen", "rejected", "tools"}
_MEMBER = re.compile(r'[\s,]*"([^"]{0,60})"\s*:\s*(\[\s*\{)?')


def open_rows(path: str | File) -> Reader:
    """The reader for a file. Little is read; faults further on are raised while iterating.

    Raises:
        StudioError: with ``field="dataset"``: missing, empty, a folder, binary, a web page, in a foreign encoding...
    """
    path = Path(path) if isinstance(path, str) else path
    sniff.check_file(path)
    start = sniff.head(path)
    suffix = sniff.suffix_of(path)
    if not start:
        raise refuse(f"{path.name} is empty.", "Choose a file with rows in it.")
    plain = not packed.packing_of(path)
    if start.startswith(b"PAR1"):
        if not plain:
            raise refuse(f"{path.name} is a packed Parquet file.", "Unpack it first (gunzip).")
        return ParquetReader(path)
    if plain and (found := _document(path, start, suffix)):
        return found
    encoding = sniff.encoding_of(start, path)
    if suffix == ".parquet":
        raise refuse(f"{path.name} is not a Parquet file, whatever its name says.", "Fetch or export it again.")
    text = sniff.Text(path, encoding)
    begin = sniff.Text(path, encoding).beginning()
    if not begin.strip():
        if len(start) < sniff.HEAD:
            raise refuse(f"{path.name} holds nothing but blank space.", "Choose a file with rows in it.")
    sniff.refuse_html(begin, path)
    if suffix in (".csv", ".tsv", ".tab"):
        return CsvReader(path, text, begin, suffix)
    if suffix in sniff.TEXT_SUFFIXES:
        return TextReader(path, text, begin)
    if suffix in (".json", ".jsonl", ".ndjson") or begin.lstrip()[:1] in ("{", "["):
        return _json_reader(path, text, begin)
    what = f"of type '{suffix}'" if suffix else "without an extension"
    raise refuse(f"{path.name}: files {what} are not read.",
                 "Use JSON, JSONL, CSV, TSV, Parquet, .txt, .md, PDF, DOCX or HTML.")


def _document(path: File, start: bytes, suffix: str) -> Reader | None:
    """The reader of a PDF, a Word file, a web page or a ZIP archive; ``None`` for anything else."""
    from studio.datasets import documents

    if start.startswith(b"%PDF") or (suffix == ".pdf" and b"%PDF" in start[:1024]):
        return documents.PdfReader(path)
    if start.startswith(b"PK\x03\x04"):
        if documents.is_docx(path):
            return documents.DocxReader(path)
        if isinstance(path, Member):
            raise refuse(f"{path.name} is an archive inside of one, or an Office document.", "Unpack it first.")
        return ManyReader(path, *packed.zip_members(path), "zip")
    return documents.HtmlReader(path) if suffix in sniff.HTML_SUFFIXES else None


def open_folder(folder: Path) -> ManyReader:
    """All files of a folder, one after the other.

    Raises:
        StudioError: nothing in it can be read.
    """
    return ManyReader(folder, *packed.folder_files(folder), "folder")


class ManyReader(Reader):
    """The files of a ZIP archive or a folder, one after the other.

    Attributes:
        files: What is read, in the order of the names; ``left_out``: names of what is of no known type.
    """

    def __init__(self, path: Path, files: list[Any], left_out: list[str], kind: str):
        super().__init__(path)
        self.kind, self.files, self.left_out = kind, files, left_out
        self.size = sum(packed.size_of(file) for file in files)
        self._done = self._mended = 0
        self._encoding = ""

    @property
    def consumed(self) -> int:
        return self._done

    @property
    def encoding(self) -> str:
        return self._encoding

    @property
    def mended(self) -> int:
        return self._mended

    def _read(self) -> Iterator[Row]:
        self._done = self._mended = 0
        first: StudioError | None = None
        for file in self.files:
            begun = self._done
            try:
                reader = open_rows(file)
                for row in reader:
                    self._done = begun + min(reader.consumed, packed.size_of(file))
                    yield row
            except StudioError as err:  # one bad file does not spoil the others
                first = first or err
                self._bad("unreadable", f"{file.name}: {err.message}")
            else:
                self._mended += reader.mended
                self._encoding = reader.encoding or self._encoding
                for code, count in reader.bad.items():
                    self.bad[code] += count
                    places = [f"{file.name}, {place}" for place in reader.examples[code]]
                    self.examples[code] = (self.examples.get(code, []) + places)[:EXAMPLES]
            self._done = begun + packed.size_of(file)
        if first and not self.rows:
            raise first


def _json_reader(path: File, text: sniff.Text, begin: str) -> Reader:
    stripped = begin.lstrip()
    if stripped.startswith("["):
        # A JSONL of lists (one conversation a line) begins with '[' too: then the first line is complete.
        return JsonlReader(path, text) if _whole_lines(stripped) else JsonReader(path, text)
    if stripped.startswith("{") and not _whole_lines(stripped):
        if _is_row(stripped):
            return JsonReader(path, text, single=True)
        spread = "\n" in stripped.rstrip()  # one object over several lines
        wraps = sniff.suffix_of(path) not in (".jsonl", ".ndjson") and _wraps_rows(stripped)
        return JsonReader(path, text) if spread or wraps else JsonlReader(path, text)
    return JsonlReader(path, text)


def _whole_lines(begin: str) -> bool:
    """The first line is a JSON value and another one begins after it."""
    first, newline, rest = begin.partition("\n")
    if not newline or rest.lstrip()[:1] not in ("{", "["):
        return False
    try:
        loads(first)
    except ValueError:
        return False
    return True


def _is_row(begin: str) -> bool:
    """The whole file is one object that is a row itself: one conversation, perhaps over several lines."""
    try:
        whole = loads(begin)
    except ValueError:
        return False
    if not isinstance(whole, dict):
        return False
    chats = [whole[name] for name in ("messages", "conversation", "conversations") if name in whole]
    return is_tree(whole.get("mapping")) or any(isinstance(chat, list) and chat
                                                and all(isinstance(m, dict) for m in chat)
                                                for chat in chats)


def _wraps_rows(begin: str) -> bool:
    """A single object with a list of rows in it (``{"data": [{...``), or of lists only; not the one row of a JSONL."""
    try:
        whole = loads(begin)
        if isinstance(whole, dict) and whole:
            if all(isinstance(v, list) and not (v and isinstance(v[0], dict)) for v in whole.values()):
                return True
    except ValueError:
        pass  # it goes on behind the window
    decoder, at = json.JSONDecoder(), 1
    while member := _MEMBER.match(begin, at):
        if member[2]:
            return member[1] not in _OF_A_ROW
        try:
            _, at = decoder.raw_decode(begin, member.end())
        except (ValueError, RecursionError):
            return False
    return False


class JsonlReader(Reader):
    """One JSON value a line. A bad line is counted, not fatal, unless nothing else is there."""

    kind = "jsonl"

    def _read(self) -> Iterator[Row]:
        assert self.text is not None
        failures = 0
        for number, line in enumerate(self.text.lines(), 1):
            if not line.strip():
                continue
            try:
                row = as_row(loads(line))
            except ValueError as err:
                failures += 1
                row = _why_not_json(err, line)
                if failures >= 20 and not self.rows:
                    raise refuse(f"{self.path.name} is not JSONL: none of its first 20 lines is a JSON object.",
                                 "Each line must be one JSON object; for plain text, name the file .txt.") from err
            if isinstance(row, str):
                self._bad(row, f"line {number}")
            else:
                yield row

    def count(self) -> int | None:
        if self.encoding not in ("utf-8", "utf-8-sig") or self.size > COUNTED or packed.packing_of(self.path):
            return None
        lines, last = 0, b"\n"
        with self.path.open("rb", buffering=0) as file:
            while block := file.read(1 << 20):
                lines, last = lines + block.count(b"\n"), block[-1:]
        return lines + (last != b"\n")


def _why_not_json(err: ValueError, line: str) -> str:
    if not isinstance(err, json.JSONDecodeError):
        return "too_deep" if "deep" in str(err) else "broken_line"
    cut = err.pos >= len(line.rstrip()) or err.msg.startswith("Unterminated")
    return "cut_line" if cut and not line.endswith("\n") else "broken_line"


class CsvReader(Reader):
    """A table with a header line. Of comma, semicolon, tab and bar, the one most often in the header divides it."""

    def __init__(self, path: File, text: sniff.Text, begin: str, suffix: str):
        super().__init__(path, text)
        header = next((line for line in begin.splitlines() if line.strip()), "")
        bare = re.sub(r'"[^"]*"', "", header)
        self.delimiter = "\t" if suffix in (".tsv", ".tab") and "\t" in bare else max(",;\t|", key=bare.count)
        self.kind = "tsv" if self.delimiter == "\t" else "csv"

    def _read(self) -> Iterator[Row]:
        assert self.text is not None
        csv.field_size_limit(MAX_ROW)
        lines = (line.replace("\x00", "") if "\x00" in line else line for line in self.text.lines())
        table = csv.reader(lines, delimiter=self.delimiter)
        try:
            header = next((cells for cells in table if any(c.strip() for c in cells)), [])
            names = _unique([name.strip() for name in header])
            for cells in table:
                if not any(cells):
                    continue
                if len(cells) > len(names):
                    self._bad("extra_cells", f"line {table.line_num}")
                    continue
                if len(cells) < len(names):
                    self._bad("missing_cells", f"line {table.line_num}")
                    continue
                yield dict(zip(names, cells, strict=True))
        except csv.Error as err:
            if "field limit" in str(err):
                raise refuse(f"A cell that ends near line {table.line_num} of {self.path.name} is longer than "
                             f"{MAX_ROW >> 20} MB; "
                             "probably a quote is never closed.", "Look for a single \" before that line.") from err
            raise refuse(f"{self.path.name} is not valid CSV near line {table.line_num}: {err}.",
                         "Export it again.") from err


def _unique(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    out = []
    for i, name in enumerate(names):
        name = name or f"column {i + 1}"
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out


class TextReader(Reader):
    """Plain text or Markdown: one row a paragraph block, blank lines between them.

    A Markdown heading stays with what follows it, and a fenced code block stays whole. Where no line is blank and the
    lines are as long as paragraphs, each line is a row.
    """

    kind = "text"
    _HEADING = re.compile(r"#{1,6} ")

    def __init__(self, path: File, text: sniff.Text, begin: str = ""):
        super().__init__(path, text)
        lines = begin.strip("\r\n").splitlines()
        self.by_line = len(lines) > 1 and all(line.strip() for line in lines) and len(begin) / len(lines) > LONG_LINE

    def _read(self) -> Iterator[Row]:
        assert self.text is not None
        markdown = sniff.suffix_of(self.path) in (".md", ".markdown")
        block: list[str] = []
        length, fenced = 0, False
        for line in chain(self.text.lines(), [""]):
            end = line == ""
            line = line.rstrip("\r\n").replace("\x00", "")
            if markdown and line.lstrip().startswith("```"):
                fenced = not fenced
            if line.strip():
                block.append(line)
                length += len(line)
                if length < MAX_ROW and not end and not self.by_line:
                    continue
            elif fenced and not end and length < MAX_ROW:
                block.append(line)
                continue
            if not block or (markdown and not end and all(self._HEADING.match(b) or not b for b in block)):
                if block:
                    block.append("")
                continue
            yield {"text": "\n".join(block).strip("\n")}
            block, length, fenced = [], 0, False


def unpacked(member: Member) -> Any:
    """A temporary copy of a file inside an archive that can be read from any place."""
    copy = tempfile.SpooledTemporaryFile(max_size=64 << 20)
    with packed.Unpacked(member) as file:
        shutil.copyfileobj(file, copy, 1 << 20)
    copy.seek(0)
    return copy


class ParquetReader(Reader):
    """A Parquet file, batch by batch."""

    kind = "parquet"

    def __init__(self, path: File):
        super().__init__(path)
        self._done = 0
        self._total: int = self._open().metadata.num_rows

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if isinstance(self.path, Member):  # it is read from the back: a copy in memory or on disk is needed
                return pq.ParquetFile(unpacked(self.path))
            return pq.ParquetFile(self.path, memory_map=True)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as err:
            raise refuse(f"{self.path.name} is a broken or cut-off Parquet file.",
                         "Fetch or export it again.") from err

    @property
    def consumed(self) -> int:
        return self._done

    def count(self) -> int | None:
        return self._total

    def _read(self) -> Iterator[Row]:
        import pyarrow as pa

        file = self._open()
        try:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
                self._done = int(self.size * min(1.0, (self.rows + 1) / max(1, self._total)))
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as err:
            raise refuse(f"{self.path.name} is broken after row {self.rows:,}.", "Fetch or export it again.") from err
        finally:
            file.close()
