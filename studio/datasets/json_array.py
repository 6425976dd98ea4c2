"""A JSON array of rows, decoded row by row in a moving window, so that its size does not matter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from studio.datasets import sniff
from studio.datasets.packed import File
from studio.datasets.rows import Reader, Row, as_row, names_of
from studio.datasets.sniff import MAX_ROW, refuse

_BLANK = re.compile(r"[ \t\r\n]*")
_LIST = re.compile(r"(?!\[)|\[\s*(\S)")


class JsonReader(Reader):
    """An array of rows, or an object with such an array in one of its members (``{"data": [...]}``)."""

    kind = "json"

    def __init__(self, path: File, text: sniff.Text, single: bool = False):
        super().__init__(path, text)
        self.single = single  # the object is a row itself

    def _read(self) -> Iterator[Row]:
        assert self.text is not None
        source = _Buffer(self.text, self.path)
        opener = source.peek()
        if self.single:
            row = as_row(source.value(0))
            if isinstance(row, str):
                self._bad(row, "row 1")
            else:
                yield row
            return
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
        raise refuse(f"{self.path.name} is one object without a list of rows; it has {names_of(names)}.",
                     "Save it as an array of rows, or one row a line (pandas: orient='records').")


class _Buffer:
    """A window on the text, moved along value by value: a file of any size needs the memory of its largest row."""

    def __init__(self, text: sniff.Text, path: File):
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
        while not (match := _LIST.match(self.text, self.at)) and self._more():
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
                raise refuse(f"{self.path.name} is nested too deep at row {done + 1}.",
                             "Rows are at most a few levels deep.") from err
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
        return refuse(f"Row {done + 1} of {self.path.name} is longer than {MAX_ROW >> 20} MB, or a quote in it is "
                      "never closed.",
                      "Check the row, and split long texts into several rows.")

    def cut(self, done: int) -> Exception:
        text = self.text.rstrip()
        line, column = self.line + text.count("\n"), len(text) - (text.rfind("\n") + 1)
        return refuse(f"{self.path.name} is cut off: it ends in the middle of row {done + 1}, at line {line}, "
                      f"character {column + 1}; "
                      f"the {done:,} rows before are whole.", "Fetch or export the file again.")

    def fault(self, what: str, done: int, at: int | None = None) -> Exception:
        at = self.at if at is None else at
        line = self.line + self.text.count("\n", 0, at)
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        return refuse(f"{self.path.name} is not valid JSON at line {line}, character {column}: {what}; the {done:,} "
                      "rows before "
                      "are whole.", "Mend that place, or export the file again.")
