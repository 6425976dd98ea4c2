"""Packed files, archives and folders: read in place, and refused where they are broken, locked or bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pytest
import zstandard

from studio.datasets import packed, readers
from studio.datasets.readers import open_folder, open_rows
from studio.errors import StudioError

ROWS = [{"prompt": f"Où {i}?", "completion": "Là."} for i in range(50)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}


def archive(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(StudioError) as caught:
        list(open_rows(path))
    assert caught.value.field == "dataset" and caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("kind", PACKERS)
def test_every_packing_is_read_by_its_content(tmp_path, kind):
    for name in (f"a.jsonl.{kind}", "a.jsonl"):
        path = tmp_path / name
        path.write_bytes(PACKERS[kind](LINES))
        reader = open_rows(path)
        assert list(reader) == ROWS == list(reader) and reader.consumed == reader.size


@pytest.mark.parametrize("kind", PACKERS)
def test_two_streams_one_behind_the_other(tmp_path, kind):
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(PACKERS[kind](LINES) * 2)
    assert list(open_rows(path)) == ROWS * 2


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_half_written_archives(tmp_path, kind, keep):
    import random

    text = "".join(json.dumps({"text": str(random.Random(i).random())}) + "\n" for i in range(40_000)).encode()
    data = PACKERS[kind](text)
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(data[:int(len(data) * keep)])
    assert "broken or cut-off" in refusal(path)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_stream_that_unfolds_without_end(tmp_path, kind, monkeypatch):
    """The rows are fine and short; only their number is a weapon. Reading ends long before the disk is full."""
    monkeypatch.setattr(packed, "FREE", 2 << 20)
    path = tmp_path / f"bomb.jsonl.{kind}"
    path.write_bytes(PACKERS[kind](b'{"text": "a"}\n' * 4_000_000))
    if packed.RATIO * path.stat().st_size > 56_000_000:
        pytest.skip(f"{kind} does not pack this tightly")
    reader, read = open_rows(path), 0
    with pytest.raises(StudioError, match="zip bomb"):
        for _ in reader:
            read += 1
    assert read < 2_000_000


def test_an_archive_of_several_files(tmp_path):
    path = archive(tmp_path / "all.zip", {"b/two.csv": b"prompt,completion\nQ,A\n", "a/one.jsonl": LINES,
                                          "readme.exe": b"x",
                                          "__MACOSX/._one.jsonl": b"x", ".hidden.jsonl": b"x",
                                          "c/three.jsonl.gz": gzip.compress(LINES)})
    reader = open_rows(path)
    assert reader.kind == "zip" and reader.left_out == ["readme.exe"]
    assert list(reader) == [*ROWS, {"prompt": "Q", "completion": "A"}, *ROWS]
    assert reader.consumed == reader.size


def test_parquet_inside_of_an_archive(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    assert list(open_rows(archive(tmp_path / "a.zip", {"x.parquet": sink.getvalue()}))) == ROWS


def test_faults_inside_of_an_archive_name_their_place(tmp_path):
    path = archive(tmp_path / "a.zip", {"one.jsonl": LINES + b"{broken\n", "two.jsonl": LINES[:-9]})
    reader = open_rows(path)
    assert len(list(reader)) == 99
    assert reader.bad == {"broken_line": 1, "cut_line": 1}
    assert reader.examples == {"broken_line": ["one.jsonl, line 51"], "cut_line": ["two.jsonl, line 50"]}


def test_a_damaged_member(tmp_path):
    path = archive(tmp_path / "a.zip", {"one.jsonl": LINES}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"prompt", 2000)
    data[at:at + 3] = b"xxx"
    path.write_bytes(data)
    assert "broken" in refusal(path)
    path.write_bytes(data[:-30])
    assert "broken or cut-off ZIP" in refusal(path)


def test_a_zip_bomb_is_refused_by_what_it_says_of_itself(tmp_path, monkeypatch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("a.jsonl", "w") as file:
        for _ in range(120):
            file.write(b" " * (1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "zip bomb" in refusal(path)
    monkeypatch.setattr(packed, "MOST", 3)
    many = archive(tmp_path / "many.zip", {f"{i}.txt": b"x" for i in range(5)})
    assert "5 files" in refusal(many)


def test_a_zip_bomb_that_lies_about_its_size(tmp_path, monkeypatch):
    """The directory says 10 bytes; what unfolds is more. Not a byte beyond what it says is taken."""
    path = archive(tmp_path / "a.zip", {"a.txt": b"word " * 100_000})
    data = path.read_bytes()
    path.write_bytes(data.replace((500_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(StudioError):
        list(open_rows(path))


def test_locked_nested_and_office_archives(tmp_path):
    inner = archive(tmp_path / "inner.zip", {"a.jsonl": LINES}).read_bytes()
    assert "no file that can be read (it has inner.zip)" in refusal(archive(tmp_path / "n.zip", {"inner.zip": inner}))
    assert "archive inside of one" in refusal(archive(tmp_path / "m.zip", {"inner.jsonl": inner}))
    assert "Excel" in refusal(archive(tmp_path / "x.xlsx", {"xl/workbook.xml": b"<x/>"}))
    path = archive(tmp_path / "locked.zip", {"a.jsonl": LINES})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the mark of a password in the directory
    path.write_bytes(data)
    assert "with a password" in refusal(path)


def test_names_that_point_outside_are_only_names(tmp_path):
    path = archive(tmp_path / "a.zip", {"../../evil.jsonl": LINES, "/etc/x.jsonl": LINES})
    before = set(tmp_path.parent.rglob("*"))
    assert len(list(open_rows(path))) == 50 and set(tmp_path.parent.rglob("*")) == before


def test_folders(tmp_path):
    (tmp_path / "d" / "in").mkdir(parents=True)
    (tmp_path / "d" / "a.jsonl").write_bytes(LINES)
    (tmp_path / "d" / "in" / "b.jsonl.xz").write_bytes(lzma.compress(LINES))
    (tmp_path / "d" / "model.bin").write_bytes(b"x")
    (tmp_path / "d" / ".git").mkdir()
    (tmp_path / "d" / ".git" / "c.jsonl").write_bytes(LINES)
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    reader = open_folder(tmp_path / "d")
    assert list(reader) == ROWS * 2 and reader.left_out == ["model.bin"]
    (tmp_path / "e").mkdir()
    with pytest.raises(StudioError, match="without a file that can be read"):
        open_folder(tmp_path / "e")


def test_a_member_needs_no_copy_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(readers.tempfile, "SpooledTemporaryFile", None)
    assert list(open_rows(archive(tmp_path / "a.zip", {"one.jsonl": LINES}))) == ROWS
