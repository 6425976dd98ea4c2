"""Files that are no data, broken, hostile or enormous: a refusal at their field with a reason, or whole rows."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from studio import api
from studio.datasets.formats import load_rows
from studio.datasets.inspect import inspect
from studio.datasets.readers import open_rows
from studio.datasets.sniff import MAX_ROW
from studio.errors import StudioError

ROOT = Path(__file__).parents[2]
ROW = {"prompt": "What colour is grass?", "completion": "Grass is green."}
LINE = json.dumps(ROW) + "\n"


def refused(path) -> StudioError:
    """The refusal of a file, the same from every door."""
    with pytest.raises(StudioError) as caught:
        list(open_rows(path))
    error = caught.value
    assert error.field == "dataset" and error.message and error.hint
    with pytest.raises(StudioError) as again:
        inspect(path)
    assert str(again.value) == str(error)
    with pytest.raises(StudioError) as again:
        list(load_rows(path))
    assert str(again.value) == str(error)
    return error


def zipped(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.exe", "x")
    return path.read_bytes()


BAD = {
    "empty.jsonl": (b"", "is empty"),
    "empty.json": (b"", "is empty"),
    "blank.jsonl": (b" \n\n\t \r\n", "nothing but blank space"),
    "only-mark.csv": (b"\xef\xbb\xbf", "nothing but blank space"),
    "empty-array.json": (b"[]", "has no rows"),
    "empty-array-indented.json": (b"[\n\n]\n", "has no rows"),
    "header-only.csv": (b"prompt,completion\n", "has no rows"),
    "empty-list-of-rows.json": (b'{"data": []}', "one object without a list of rows"),
    "random.bin": (bytes(range(256)) * 20, "binary"),
    "random.jsonl": (bytes(range(1, 256)) * 20, "binary"),
    "nul.jsonl": (LINE.encode() + b"\x00" * 100 + LINE.encode(), "NUL"),
    "zeros.txt": (b"\x00" * 5000, "NUL"),
    "picture.json": (b"\x89PNG\r\n\x1a\n" + b"x" * 100, "a picture"),
    "doc.txt": (b"%PDF-1.7\n" + b"x" * 100, "a PDF"),
    "pickle.json": (pickle.dumps([ROW], protocol=4), "pickle"),
    "model.jsonl": (b"GGUF\x03\x00\x00\x00", "a model"),
    "zst.jsonl": (b"\x28\xb5\x2f\xfd" + b"x" * 50, "Zstandard"),
    "text.parquet": (LINE.encode(), "not a Parquet"),
    "cut.parquet": (b"PAR1" + b"x" * 200, "Parquet"),
    "cut.jsonl.gz": (gzip.compress(LINE.encode() * 50)[:40], "gzip"),
    "not.jsonl.gz": (b"\x1f\x8b" + b"garbage" * 10, "gzip"),
    "page.json": (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "a web page"),
    "page.csv": (b"\n <html lang='en'><head></head></html>", "a web page"),
    "page.parquet": (b"<html></html>", "Parquet"),
    "page.txt": (b"<!-- saved -->\n<!doctype HTML><script>alert(1)</script>", "a web page"),
    "prose.jsonl": (b"Just some words.\n" * 30, "not JSONL"),
    "one-bad-line.jsonl": (b"just words", "has no rows"),
    "number.json": (b"5\n", "has no rows"),
    "words.json": (b"[1, 2, 3]", "has no rows"),
    "columns.json": (b'{"prompt": ["a", "b"], "completion": ["c", "d"]}', "one object without a list of rows"),
    "russian.csv": ("вопрос,ответ\n".encode("cp1251") + "Почему?,Потому что так надо.\n".encode("cp1251") * 20,
                    "encoding"),
    "japanese.jsonl": ((json.dumps({"text": "これは日本語の文章です。" * 5}, ensure_ascii=False) + "\n").encode("shift-jis") * 5,
                       "encoding"),
    "passwd": (b"root:x:0:0:root:/root:/bin/bash\n", "without an extension"),
    "photo.docx": (b"PK\x03\x04" + b"x" * 60, "Office document"),
    "data.yaml": (b"- prompt: a\n  completion: b\n", "'.yaml' are not read"),
    "bare-quote.csv": (b'prompt,completion\na,"' + b"b\n" * (MAX_ROW // 2 + 10), "never closed"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_reason(tmp_path, name):
    data, said = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    error = refused(path)
    assert said in error.message + error.hint
    assert name in error.message and str(tmp_path) not in error.message, "the name, not the whole path"


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.97])
@pytest.mark.parametrize("indent", [None, 2])
def test_truncated_array_says_where_and_how_many_rows_are_whole(tmp_path, keep, indent):
    text = json.dumps([{"n": i, **ROW} for i in range(40)], indent=indent)
    cut = text[:int(len(text) * keep)]
    path = tmp_path / "cut.json"
    path.write_text(cut)
    whole = cut.count('"Grass is green."') - cut.rstrip().endswith('green."')
    error = refused(path)
    assert "cut off" in error.message and f"the {whole:,} rows before are whole" in error.message
    assert f"line {cut.rstrip().count(chr(10)) + 1}," in error.message


def test_broken_array_says_line_and_character(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('[\n{"a": 1},\n{"a": 2}\n{"a": 3}\n]' + " " * 100)
    error = refused(path)
    assert "line 4, character 1" in error.message and "comma" in error.message and "the 2 rows before" in error.message
    path.write_text('[\n{"a": 1},\n{"a": two}\n' + '{"a": 3},\n' * 20 + "]")
    assert "line 3, character 7" in refused(path).message


def test_truncated_jsonl_keeps_its_whole_rows(tmp_path):
    path = tmp_path / "cut.jsonl"
    path.write_text((LINE * 10)[:-20])
    rows = load_rows(path)
    assert list(rows) == [ROW] * 9 and rows.total == 10
    assert rows.rejects["cut_line"] == {"count": 1, "message": "the file ends in the middle of the line",
                                        "examples": ["line 10"]}
    assert {f["code"] for f in inspect(path)["findings"]} == {"cut_line", "duplicate"}


def test_parquet_cut_in_the_middle(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "cut.parquet"
    pq.write_table(pa.Table.from_pylist([ROW] * 2000), path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "broken or cut-off" in refused(path).message


@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl"])
def test_json_bombs_are_no_crash(tmp_path, name):
    path = tmp_path / name
    path.write_text("[" * 100_000 + "]" * 100_000)
    refused(path)
    path.write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    refused(path)
    path.write_text('[{"text": "x", "more": ' + "[" * 500 + "]" * 500 + "}]" if name == "deep.json"
                    else '{"text": "x", "more": ' + "[" * 500 + "]" * 500 + "}\n")
    assert "levels deep" in refused(path).message
    deep = json.dumps("[" * 5000 + "]" * 5000)
    path.write_text(f'[{{"messages": {deep}}}, {{"messages": {deep}}}]')
    assert inspect(path)["format"] == "text", "no conversation is made of it"


def test_a_number_of_a_million_digits(tmp_path):
    path = tmp_path / "big.jsonl"
    path.write_text('{"text": "x", "n": ' + "9" * 1_000_000 + "}\n" + '{"text": "y"}\n')
    assert [r["text"] for r in open_rows(path)] == ["y"]
    path.with_suffix(".json").write_text('[{"n": ' + "9" * 1_000_000 + "}]")
    refused(path.with_suffix(".json"))


@pytest.mark.parametrize("name", ["huge.jsonl", "huge.txt", "huge.csv", "huge.json"])
def test_one_line_over_ten_megabytes(tmp_path, name):
    path = tmp_path / name
    with path.open("w") as out:
        out.write({"huge.csv": "text\n", "huge.json": '[{"text": "', "huge.jsonl": '{"text": "'}.get(name, ""))
        for _ in range(11):
            out.write("word " * (1 << 20 >> 2))
        out.write({"huge.json": '"}]', "huge.jsonl": '"}\n'}.get(name, "\n"))
    error = refused(path)
    assert "longer than 10 MB" in error.message


def test_large_rows_below_the_limit_are_read(tmp_path):
    rows = [{"text": "word " * 1_000_000}, {"text": "end"}]
    for name, text in (("a.json", json.dumps(rows)), ("a.jsonl", "".join(json.dumps(r) + "\n" for r in rows))):
        (tmp_path / name).write_text(text)
        assert [len(r["text"]) for r in open_rows(tmp_path / name)] == [5_000_000, 3]


def test_lone_surrogates_do_not_break_what_comes_after(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "bad \\ud800 half"}\n')
    (row,) = load_rows(path)
    assert row["text"].encode("utf-8")
    json.dumps(inspect(path), ensure_ascii=False).encode("utf-8")
    assert [f["code"] for f in inspect(path)["findings"]] == ["mojibake"]


def test_folders_pipes_devices_and_closed_files(tmp_path):
    (tmp_path / "train.jsonl").write_text(LINE)
    assert "folder" in refused(tmp_path).message and "train.jsonl" in refused(tmp_path).hint
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "pipe" in refused(tmp_path / "pipe.jsonl").message
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "s.jsonl"))
        refused(tmp_path / "s.jsonl")
    assert "device" in refused(Path("/dev/zero")).message
    refused(tmp_path / "missing.jsonl")
    refused(Path(str(tmp_path / "x\x00y.jsonl")))
    if os.getuid():  # root may read everything
        closed = tmp_path / "closed.jsonl"
        closed.write_text(LINE)
        closed.chmod(0)
        assert "cannot be read" in refused(closed).message


def test_a_link_in_a_circle(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    refused(tmp_path / "a.jsonl")


@pytest.mark.parametrize("ref", ["../../etc/passwd", "/etc/passwd", "~/x.jsonl", "runs/../../secret.jsonl",
                                 "shipped:../../../etc/passwd",
                                 "library:../../x", "hub:../../etc", "hub:a/b/../../c", "file:///etc/passwd", "x\ny",
                                 "a" * 5000, "", "."])
def test_paths_on_a_space_stay_in_the_workspace(home, monkeypatch, ref):
    """A visitor of a shared studio reaches nothing outside it, by whatever way of writing it."""
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    (home.parent / "secret.jsonl").write_text(LINE)
    (home / "link.jsonl").symlink_to(home.parent / "secret.jsonl")
    for one in (ref, "link.jsonl"):
        with pytest.raises(StudioError) as caught:
            load_rows(one)
        assert caught.value.field == "dataset"


@pytest.mark.parametrize(("name", "data", "field"), [
    ("empty.jsonl", b"", "dataset"), ("page.json", b"<html></html>", "dataset"),
                                                     ("bin.jsonl", b"\x00\x01" * 50, "dataset"),
    ("cut.json", json.dumps([ROW] * 30).encode()[:-30], "dataset"),
                                                     ("wrong.csv", b"temperature,city\n12,Rome\n", "dataset"),
    ("none-left.jsonl", b'{"prompt": "a", "completion": ""}\n' * 5, "dataset"),
    ("enc.csv", "вопрос,ответ\nПочему?,Потому что.\n".encode("cp1251"), "dataset"),
])
def test_refused_at_its_field_before_anything_starts(home, name, data, field):
    (home / name).write_bytes(data)
    values = {"kind": "sft", "method": "lora", "dataset": name}
    answer = api.validate(values)
    assert not answer["ok"] and set(answer["errors"]) == {field}
    with pytest.raises(StudioError) as caught:
        api.submit(values)
    assert caught.value.field == field
    assert api.runs() == [] or all(run["state"] == "none" for run in api.runs())
    assert api.validate({"kind": "sft", "method": "lora", "dataset": "shipped:polite",
                         "eval_dataset": name})["errors"].keys() == {"eval_dataset"}


def test_wrong_columns_are_refused_at_columns(home):
    (home / "x.csv").write_text("temperature,city\n12,Rome\n9,Oslo\n")
    values = {"kind": "sft", "method": "lora", "dataset": "x.csv"}
    assert set(api.validate(values | {"columns": {"prompt": "town",
                                                  "completion": "temperature"}})["errors"]) == {"columns"}
    assert api.validate(values | {"columns": {"prompt": "city", "completion": "temperature"}})["ok"]


MEASURE = """
import resource, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from studio.datasets.formats import load_rows
from studio.datasets.inspect import inspect
from studio.errors import StudioError
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
path = Path({path!r})
report = inspect(path)
first = sum(1 for _ in load_rows(path))
print(first, report["rows"], peak() - before)
"""


@pytest.mark.parametrize("name", ["large.json", "large.jsonl"])
def test_a_300_mb_file_is_streamed(tmp_path, name):
    """Read whole, this array would take over 1 GB; the rows come at constant memory."""
    path = tmp_path / name
    row = json.dumps({"instruction": "Say it.", "input": "", "output": "word " * 600})
    count, joined = 100_000, (",\n" + row if name.endswith("json") else row + "\n")
    with path.open("w") as out:
        out.write("[" + row if name.endswith("json") else row + "\n")
        for _ in range(99):
            out.write(joined * 1000)
        out.write(joined * 999 + ("]" if name.endswith("json") else ""))
    assert path.stat().st_size > 300e6
    done = subprocess.run([sys.executable, "-c", MEASURE.format(root=str(ROOT), path=str(path))], capture_output=True,
                          text=True, timeout=120)
    path.unlink()
    assert done.returncode == 0, done.stderr
    rows, counted, grown = map(int, done.stdout.split())
    assert rows == count and abs(counted - count) < 0.02 * count and grown < 200


@pytest.mark.parametrize("name", ["zeros.json", "zeros.csv", "zeros.txt", "zeros.parquet"])
def test_a_sparse_gigabyte_of_zeros_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as out:
        out.truncate(1 << 30)
    assert "NUL" in refused(path).message + refused(path).hint or name.endswith("parquet")


def test_a_sparse_gigabyte_behind_good_rows(tmp_path):
    path = tmp_path / "tail.jsonl"
    path.write_text(LINE * 20_000)
    with path.open("r+b") as out:
        out.truncate(1 << 30)
    with pytest.raises(StudioError, match="Line 20001 .* longer than 10 MB"):
        list(open_rows(path))


def test_a_gzip_of_zeros_does_not_unfold_in_memory(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as out:
        out.write(LINE.encode())
        for _ in range(200):
            out.write(b" " * (1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "longer than 10 MB" in refused(path).message


def test_zip_is_told_as_such(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(zipped(tmp_path / "a.zip"))
    assert "ZIP archive x.json holds no file that can be read (it has a.exe)" in refused(path).message
