"""Rows of a file as dicts, streamed at constant memory: JSON, JSONL, CSV, TSV, Parquet, plain text and Markdown, gzip or not.

The content decides over the file name: a ``.json`` with one object a line is read as JSONL, a ``.jsonl`` with an array as JSON.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from studio.datasets import sniff
from studio.datasets.sniff import MAX_ROW, refuse

MAX_DEPTH = 64  # nesting of one row; training data needs about six levels
EXAMPLES = 5
Row = dict[str, Any]

# Code -> why a piece of a file is no row. Such pieces are counted and left out.
BAD = {
    "broken_line": "the line is not valid JSON", "cut_line": "the file ends in the middle of the line",
    "too_deep": f"it is nested more than {MAX_DEPTH} levels deep", "no_object": "it is not an object with fields",
    "extra_cells": "it has more cells than the header", "missing_cells": "it has fewer cells than the header",
}


class Reader:
    """One pass or several over a file's rows.

    Attributes:
        kind: ``json`` | ``jsonl`` | ``csv`` | ``tsv`` | ``parquet`` | ``text``.
        rows: Rows given so far in the newest pass.
        bad: Code (of :data:`BAD`) -> how many pieces of the file are no row, in the newest pass.
        examples: Code -> the first few places, e.g. ``line 7``.
        size: Bytes on disk; ``consumed``: bytes of them read so far.
        encoding: Of the text; ``mended`` bytes were read as Windows-1252 because they are no UTF-8.
    """

    kind = ""

    def __init__(self, path: Path, text: sniff.Text | None = None):
        self.path, self.text = path, text
        self.size = path.stat().st_size
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    @property
    def consumed(self) -> int:
        return self.text.consumed if self.text else 0

    @property
    def encoding(self) -> str:
        return self.text.encoding if self.text else ""

    @property
    def mended(self) -> int:
        return self.text.mended if self.text else 0

    def __iter__(self) -> Iterator[Row]:
        self.rows, self.bad, self.examples = 0, Counter(), {}
        if self.text:
            self.text.mended = self.text.consumed = 0
        for row in self._read():
            self.rows += 1
            yield row
        if not self.rows:
            why = next((f": {BAD[code]} ({places[0]})" for code, places in self.examples.items()), "")
            raise refuse(f"{self.path.name} has no rows{why}.", "Choose a file with rows in it.")

    def _read(self) -> Iterator[Row]:
        raise TypeError(f"{type(self).__name__} must say how it reads")

    def count(self) -> int | None:
        """Number of rows when it is known without reading them, else ``None``."""
        return None

    def _bad(self, code: str, place: str) -> None:
        self.bad[code] += 1
        places = self.examples.setdefault(code, [])
        if len(places) < EXAMPLES:
            places.append(place)


def open_rows(path: str | Path) -> Reader:
    """The reader for a file. Little is read; faults further on are raised while iterating.

    Raises:
        StudioError: with ``field="dataset"``: missing, empty, a folder, binary, a web page, in a foreign encoding...
    """
    path = Path(path)
    sniff.check_file(path)
    start = sniff.head(path)
    suffix = sniff.suffix_of(path)
    if not start:
        raise refuse(f"{path.name} is empty.", "Choose a file with rows in it.")
    if start.startswith(b"PAR1"):
        if sniff.is_gzip(path):
            raise refuse(f"{path.name} is a packed Parquet file.", "Unpack it first (gunzip).")
        return ParquetReader(path)
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
        return TextReader(path, text)
    if suffix in (".json", ".jsonl", ".ndjson") or begin.lstrip()[:1] in ("{", "["):
        return _json_reader(path, text, begin)
    if not suffix:
        return TextReader(path, text)
    raise refuse(f"{path.name}: files of type '{suffix}' are not read.", "Use JSON, JSONL, CSV, TSV, Parquet, .txt or .md.")


def _json_reader(path: Path, text: sniff.Text, begin: str) -> Reader:
    stripped = begin.lstrip()
    if stripped.startswith("["):
        # A JSONL of lists (one conversation a line) begins with '[' too: then the first line is complete.
        return JsonlReader(path, text) if _whole_lines(stripped) else JsonReader(path, text)
    if stripped.startswith("{") and not _whole_lines(stripped):
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


def _wraps_rows(begin: str) -> bool:
    """A single object with a list of rows in it (``{"data": [{...``) or of lists only, rather than the one row of a JSONL."""
    try:
        whole = loads(begin)
        if isinstance(whole, dict) and whole and all(isinstance(v, list) and not (v and isinstance(v[0], dict)) for v in whole.values()):
            return True
    except ValueError:
        pass  # it goes on behind the window
    decoder, at = json.JSONDecoder(), 1
    while member := re.compile(r'[\s,]*"([^"]{0,60})"\s*:\s*(\[\s*\{)?').match(begin, at):
        if member[2]:
            return member[1] not in {"messages", "conversation", "conversations", "prompt", "chosen", "rejected", "tools"}
        try:
            _, at = decoder.raw_decode(begin, member.end())
        except (ValueError, RecursionError):
            return False
    return False


def loads(text: str) -> Any:
    """JSON text -> value.

    Raises:
        ValueError: not JSON, nested too deep, or a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Nested deeper than ``limit``; walks without recursion, level by level."""
    level = [value]
    for _ in range(limit):
        level = [child for item in level if isinstance(item, (dict, list))
                 for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def as_row(value: Any) -> Row | str:
    """A JSON value as a row, or the code (of :data:`BAD`) of why it is none."""
    if isinstance(value, dict):
        row = value
    elif isinstance(value, str):
        row = {"text": value}
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        row = {"messages": value}
    else:
        row = {}
    if not row:
        return "no_object"
    return "too_deep" if too_deep(row) else row


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
        if self.encoding not in ("utf-8", "utf-8-sig") or sniff.is_gzip(self.path):
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


class JsonReader(Reader):
    """An array of rows, or an object with such an array in one of its members (``{"data": [...]}``)."""

    kind = "json"

    def _read(self) -> Iterator[Row]:
        assert self.text is not None
        source = _Buffer(self.text, self.path)
        opener = source.peek()
        if opener == "{":
            self._enter_member(source)
        elif opener == "[":
            source.take()
        index = 0
        if source.peek() == "]":
            return
        while True:
            value = source.value(index)
            index += 1
            row = as_row(value)
            if isinstance(row, str):
                self._bad(row, f"row {index}")
            else:
                yield row
            sign = source.peek(index)
            if sign not in (",", "]"):
                raise source.fault(f"after row {index} a comma or a closing bracket is missing", index)
            source.take()
            if sign == "]":
                return
            if source.peek(index) == "]":  # a comma too many at the end: harmless, and common in files written by hand
                return

    def _enter_member(self, source: _Buffer) -> None:
        """Moves to the first row of the first member that is a list of rows, skipping small members before it."""
        source.take()
        names: list[str] = []
        while source.peek() != "}":
            name = source.value(0)
            if not isinstance(name, str) or source.peek() != ":":
                raise source.fault("a member of the object has no name", 0)
            source.take()
            names.append(name)
            if source.opens_rows():
                source.take()
                return
            source.value(0)
            if source.peek() == ",":
                source.take()
        raise refuse(f"{self.path.name} is one object without a list of rows; it has {_names(names)}.",
                     "Save it as an array of rows, or one row a line (pandas: orient='records').")


class _Buffer:
    """A window on the text, moved along value by value, so that a file of any size needs the memory of its largest row."""

    def __init__(self, text: sniff.Text, path: Path):
        self._pieces, self.path = iter(text), path
        self._decoder = json.JSONDecoder()
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def _more(self, least: int = 1) -> bool:
        """Reads on until ``least`` characters came; drops what is behind."""
        self.line += self.text.count("\n", 0, self.at)
        parts, got = [self.text[self.at:]], 0
        self.at = 0
        while got < least and not self.ended:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
            else:
                parts.append(piece)
                got += len(piece)
        self.text = "".join(parts)
        return got > 0

    def peek(self, done: int = 0) -> str:
        """The next character that is not blank.

        Raises:
            StudioError: the file ends here.
        """
        while True:
            match = _BLANK.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                raise self.cut(done)

    def take(self) -> None:
        self.at += 1

    def opens_rows(self) -> bool:
        """A list of objects begins here."""
        self.peek()
        while not (match := re.compile(r"(?!\[)|\[\s*(\S)").match(self.text, self.at)) and self._more():
            pass
        return bool(match) and match[1] == "{"

    def value(self, done: int) -> Any:
        """The next JSON value; ``done`` rows came before it."""
        self.peek(done)
        while True:
            try:
                value, end = self._decoder.raw_decode(self.text, self.at)
                if end - self.at > MAX_ROW:
                    raise self.long(done)
                if end < len(self.text) or self.ended:  # a number at the very end of the window may go on
                    self.at = end
                    return value
                failed: Exception | None = None
            except RecursionError as err:
                raise refuse(f"{self.path.name} is nested too deep at row {done + 1}.", "Rows are at most a few levels deep.") from err
            except ValueError as err:
                failed = err
            pending = len(self.text) - self.at
            if isinstance(failed, json.JSONDecodeError) and not failed.msg.startswith("Unterminated") \
                    and failed.pos < len(self.text) - 64:
                raise self.fault(failed.msg[:1].lower() + failed.msg[1:], done, failed.pos)
            if failed and not isinstance(failed, json.JSONDecodeError):
                raise self.fault(str(failed).split(";")[0], done)
            if pending > MAX_ROW:
                raise self.long(done)
            if not self._more(pending):  # doubling the window keeps a large row from being tried again and again
                if failed is None:
                    continue
                raise self.cut(done)

    def long(self, done: int) -> Exception:
        return refuse(f"Row {done + 1} of {self.path.name} is longer than {MAX_ROW >> 20} MB, or a quote in it is never closed.",
                      "Check the row, and split long texts into several rows.")

    def cut(self, done: int) -> Exception:
        text = self.text.rstrip()
        line, column = self.line + text.count("\n"), len(text) - (text.rfind("\n") + 1)
        return refuse(f"{self.path.name} is cut off: it ends in the middle of row {done + 1}, at line {line}, character {column + 1}; "
                      f"the {done:,} rows before are whole.", "Fetch or export the file again.")

    def fault(self, what: str, done: int, at: int | None = None) -> Exception:
        at = self.at if at is None else at
        line = self.line + self.text.count("\n", 0, at)
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        return refuse(f"{self.path.name} is not valid JSON at line {line}, character {column}: {what}; the {done:,} rows before "
                      "are whole.", "Mend that place, or export the file again.")


_BLANK = re.compile(r"[ \t\r\n]*")


class CsvReader(Reader):
    """A table with a header line. The delimiter (comma, semicolon, tab, bar) is the one that divides the header most often."""

    def __init__(self, path: Path, text: sniff.Text, begin: str, suffix: str):
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
                raise refuse(f"A cell that ends near line {table.line_num} of {self.path.name} is longer than {MAX_ROW >> 20} MB; "
                             "probably a quote is never closed.", "Look for a single \" before that line.") from err
            raise refuse(f"{self.path.name} is not valid CSV near line {table.line_num}: {err}.", "Export it again.") from err


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

    A Markdown heading stays with what follows it, and a fenced code block stays whole.
    """

    kind = "text"
    _HEADING = re.compile(r"#{1,6} ")

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
                if length < MAX_ROW and not end:
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


class ParquetReader(Reader):
    """A Parquet file, batch by batch."""

    kind = "parquet"

    def __init__(self, path: Path):
        super().__init__(path)
        self._done = 0
        self._total: int = self._open().metadata.num_rows

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path, memory_map=True)
        except (pa.ArrowException, OSError) as err:
            raise refuse(f"{self.path.name} is a broken or cut-off Parquet file.", "Fetch or export it again.") from err

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
        except (pa.ArrowException, OSError) as err:
            raise refuse(f"{self.path.name} is broken after row {self.rows:,}.", "Fetch or export it again.") from err
        finally:
            file.close()


def _names(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    shown = ", ".join(f"'{str(n)[:40]}'" for n in names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
