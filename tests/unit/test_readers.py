"""Every file type gives its rows, streamed, whatever encoding and layout people have."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.datasets import readers, sniff
from studio.datasets.readers import open_rows
from studio.errors import StudioError

ROWS = [{"prompt": "Où est le café ?", "completion": "Là-bas, à l'hôtel."},
        {"prompt": "Why?", "completion": 'He said "so".\nTwice.'},
        {"prompt": "漢字?", "completion": "😀"}]
WEST = ROWS[:2]


def table(rows, delimiter=","):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows):
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


LAYOUTS = {
    "array.json": (json.dumps(ROWS, ensure_ascii=False), "json"),
    "indented.json": (json.dumps(ROWS, indent=4), "json"),
    "wrapped.json": (json.dumps({"version": "1.0", "info": {"a": [1, 2]}, "data": ROWS, "end": True},
                                ensure_ascii=False), "json"),
    "wrapped-indented.json": (json.dumps({"version": "1.0", "data": ROWS}, indent=1), "json"),
    "comma-at-end.json": (json.dumps(ROWS)[:-1] + ",\n]", "json"),
    "lines.jsonl": (lines(ROWS), "jsonl"),
    "lines.ndjson": (lines(ROWS).replace("\n", "\r\n"), "jsonl"),
    "no-last-newline.jsonl": (lines(ROWS)[:-1], "jsonl"),
    "blank-lines.jsonl": ("\n\n" + lines(ROWS).replace("\n", "\n\n"), "jsonl"),
    "really-lines.json": (lines(ROWS), "jsonl"),
    "really-array.jsonl": (json.dumps(ROWS), "json"),
    "no-suffix": (lines(ROWS), "jsonl"),
    "comma.csv": (table(ROWS), "csv"),
    "semicolon.csv": (table(ROWS, ";"), "csv"),
    "tab.tsv": (table(ROWS, "\t"), "tsv"),
    "really-tab.csv": (table(ROWS, "\t"), "tsv"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name, packed):
    text, kind = LAYOUTS[name]
    data = text.encode("utf-8")
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(data) if packed else data)
    reader = open_rows(path)
    assert list(reader) == ROWS and reader.kind == kind and reader.rows == len(ROWS) and not reader.bad
    assert list(reader) == ROWS, "a reader can be read again"
    assert reader.consumed == reader.size


@pytest.mark.parametrize("name", ["array.json", "lines.jsonl", "comma.csv"])
@pytest.mark.parametrize(("encoding", "seen"),
                         [("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
                                                ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32")])
def test_encodings(tmp_path, name, encoding, seen):
    path = tmp_path / name
    text = LAYOUTS[name][0]
    if "le" in encoding or "be" in encoding:  # without a mark it can only be told from mostly Western text
        text = {"array.json": json.dumps(WEST, ensure_ascii=False), "lines.jsonl": lines(WEST),
                "comma.csv": table(WEST)}[name]
    path.write_bytes(text.encode(encoding))
    reader = open_rows(path)
    assert list(reader) == (WEST if text != LAYOUTS[name][0] else ROWS)
    assert reader.encoding == seen and reader.mended == 0


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_western_encodings_are_read_and_counted(tmp_path, encoding):
    path = tmp_path / "old.jsonl"
    path.write_bytes(lines(WEST).encode(encoding))
    reader = open_rows(path)
    assert list(reader) == WEST and reader.mended == 5


def test_a_file_of_mixed_encodings_is_read_right_line_by_line(tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(lines(ROWS).encode() * 2 + lines(WEST).encode("cp1252"))
    reader = open_rows(path)
    assert list(reader) == ROWS * 2 + WEST and reader.mended == 5


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "é"}], "n": i}
            for i in range(700)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    reader = open_rows(tmp_path / "x.parquet")
    assert reader.count() == 700 and list(reader) == rows and reader.consumed == reader.size


def test_plain_text_is_one_row_a_paragraph(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("\n\nOne.\nStill one.\n\n\n  \nTwo.\r\n\r\nThree.", newline="")
    assert [r["text"] for r in open_rows(path)] == ["One.\nStill one.", "Two.", "Three."]


def test_markdown_keeps_headings_with_their_text_and_code_whole(tmp_path):
    path = tmp_path / "x.md"
    path.write_text("# Title\n\n## Part\n\nText.\n\n```py\na = 1\n\nb = 2\n```\n\nEnd.\n\n# Last\n")
    assert [r["text"] for r in open_rows(path)] == ["# Title\n\n## Part\n\nText.", "```py\na = 1\n\nb = 2\n```",
                                                    "End.", "# Last"]


def test_rows_that_are_no_objects(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('"a text"\n[{"role": "user", "content": "q"}]\n5\n{}\n{"a": 1}\n')
    reader = open_rows(path)
    assert list(reader) == [{"text": "a text"}, {"messages": [{"role": "user", "content": "q"}]}, {"a": 1}]
    assert reader.bad == {"no_object": 2} and reader.examples == {"no_object": ["line 3", "line 4"]}


def test_ragged_and_odd_csv(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\nprompt,,prompt\na,b,c\nd,e\n\nf,g,h,i\n"x, ""y""","line\nbreak",z\n')
    reader = open_rows(path)
    assert list(reader) == [{"prompt": "a", "column 2": "b", "prompt (2)": "c"},
                            {"prompt": 'x, "y"', "column 2": "line\nbreak", "prompt (2)": "z"}]
    assert reader.bad == {"missing_cells": 1, "extra_cells": 1}


def test_separators_inside_texts_do_not_cut_lines(tmp_path):
    rows = [{"text": "a\u2028b\x85c\x0cd"}] * 3
    path = tmp_path / "x.jsonl"
    path.write_text(lines(rows))
    assert list(open_rows(path)) == rows


def test_number_at_the_edge_of_the_window(tmp_path, monkeypatch):
    """A window that ends inside a number, an escape or a character must not end the value there."""
    rows = [{"n": 1234567890, "t": "é\\n\u00e9\"" * 3, "x": [1.5e-10, True, None]} for _ in range(40)]
    path = tmp_path / "x.json"
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(sniff, "CHUNK", size)
        path.write_text(json.dumps(rows, ensure_ascii=size % 2 == 0), encoding="utf-8")
        assert list(open_rows(path)) == rows
        path.write_text(lines(rows), encoding="utf-8")
        assert list(open_rows(path)) == rows


plain = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
                     | st.text(st.characters(codec="utf-8"), max_size=30),
                     lambda inner: st.lists(inner, max_size=3)
                     | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)
objects = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), plain, min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(objects, min_size=2, max_size=6), ascii=st.booleans(), indent=st.sampled_from([None, 1]),
       size=st.integers(1, 40))
def test_any_json_rows_come_back(tmp_path_factory, rows, ascii, indent, size):
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sniff, "CHUNK", size)
        (folder / "x.json").write_text(json.dumps(rows, ensure_ascii=ascii, indent=indent), encoding="utf-8")
        assert list(open_rows(folder / "x.json")) == rows
        (folder / "x.jsonl").write_text("".join(json.dumps(r, ensure_ascii=ascii) + "\n" for r in rows),
                                        encoding="utf-8")
        assert list(open_rows(folder / "x.jsonl")) == rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"),
                                    min_size=1, max_size=20)] * 2),
                min_size=1, max_size=5))
def test_any_csv_rows_come_back(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    rows = [{"prompt": a, "completion": b} for a, b in cells]
    path.write_text(table(rows), encoding="utf-8", newline="")
    assert list(open_rows(path)) == rows


@settings(max_examples=150, deadline=None)
@given(data=st.binary(min_size=1, max_size=400),
       name=st.sampled_from(["x.json", "x.jsonl", "x.csv", "x.txt", "x.parquet", "x.json.gz"]))
def test_any_bytes_give_rows_or_a_refusal(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    try:
        assert all(isinstance(row, dict) for row in open_rows(path))
    except StudioError as err:
        assert err.field == "dataset" and err.message and err.hint


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(1, 2000), name=st.sampled_from(sorted(LAYOUTS)))
def test_any_cut_gives_whole_rows_or_a_refusal(tmp_path_factory, cut, name):
    """Cut anywhere, a file gives a beginning of its rows, or a refusal; never a row that was not in it."""
    data = LAYOUTS[name][0].encode()
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(data[:cut % len(data)] or b"x")
    got = []
    try:
        for row in open_rows(path):
            got.append(row)
    except StudioError as err:
        assert err.field == "dataset"
    if path.suffix in (".json", ".jsonl", ".ndjson"):
        assert got == ROWS[:len(got)]


def test_count_without_reading(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(lines(ROWS))
    assert open_rows(path).count() == 3
    path.write_text(lines(ROWS)[:-1])
    assert open_rows(path).count() == 3
    assert isinstance(open_rows(path), readers.JsonlReader)
