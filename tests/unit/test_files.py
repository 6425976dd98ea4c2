"""Logs that grow too long lose their middle while others go on writing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studio.jobs.files import cut_middle


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %06d\n" % number for number in range(first, last))


def test_a_short_log_stays_as_it_is(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(lines(0, 10))
    assert not cut_middle(path, 120, 20, 30) and path.read_bytes() == lines(0, 10)


def test_head_and_tail_stay_in_whole_lines_and_the_cut_is_told(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(lines(0, 1000))
    assert cut_middle(path, 1200, 250, 500)
    note = b"\n[... 11268 bytes were cut out here, because the log grew too long ...]\n\n"
    first, told, last = path.read_bytes().partition(note)
    assert told and first == lines(0, 20) and last == lines(959, 1000)
    assert len(first) + len(last) + 11268 == 12000


def test_who_appends_goes_on_behind_the_cut(tmp_path: Path):
    path = tmp_path / "log"
    writer = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(writer, lines(0, 1000))
        assert cut_middle(path, 1200, 250, 500)
        os.write(writer, lines(1000, 1001))
    finally:
        os.close(writer)
    assert path.read_bytes().endswith(lines(998, 1001)) and path.stat().st_size < 1200


@pytest.mark.parametrize("text", [b"x" * 5000, b"x" * 4999 + b"\n", b"\n" + b"x" * 4999])
def test_one_endless_line_is_cut_too(tmp_path: Path, text: bytes):
    path = tmp_path / "log"
    path.write_bytes(text)
    assert cut_middle(path, 1200, 250, 500)
    assert path.stat().st_size < 900 and b"cut out here" in path.read_bytes()


def test_a_missing_log_is_the_callers_matter(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        cut_middle(tmp_path / "log", 1, 1, 1)
