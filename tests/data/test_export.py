"""Every format goes out as JSONL, Parquet and CSV and comes back the same; what a format cannot hold is counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from studio.datasets.export import export_rows
from studio.datasets.formats import load_rows
from studio.errors import StudioError
from studio.library import artifacts
from tests.data.conftest import store_dir, work

USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
SYSTEM = {"role": "system", "content": "Be brief."}
THINK = BOT | {"reasoning_content": "Hm.\n"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": [{"c": None}]}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
CHATS = [{"messages": [SYSTEM, USER, BOT]}, {"messages": [USER, THINK, {"role": "user", "content": "And?"}, BOT]}]
TOOLS = [{"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "x1"}]},
                       {"role": "tool", "content": "7", "name": "f", "tool_call_id": "x1"}, BOT], "tools": [TOOL]}]
SETS = {
    "messages": CHATS + TOOLS, "prompt_completion": [{"prompt": "Why?", "completion": "Because."}] * 2,
    "text": [{"text": "Once.\n\nUpon \"a\" time, ünïcode 😀"}, {"text": "x"}],
    "preference": [{"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "margin": 2.5},
                   {"prompt": "Why?", "chosen": "So.", "rejected": "No."}],
    "rated": [{"prompt": "Why?", "completion": "Because.", "label": True, "contexts": ["It rains."],
               "comment": "Right.",
               "tags": {"site": "park", "level": "2"}}, {"prompt": "Why?", "completion": "No.", "label": False}],
    "pairs of chats": [{"prompt": [USER], "chosen": [BOT], "rejected": [BOT | {"content": "No."}]}],
}


@pytest.fixture
def export(home: Path):
    """``export(ref, **fields)`` runs the export as a worker would: (paths of its files, its summary, its warnings)."""

    def run(ref: str, **values):
        made, rows, summary = work("export", ref, **values)
        assert all(row["kind"] == "file" and row["parents"] == [{"ref": ref, "role": "dataset"}] for row in rows)
        events = [json.loads(line) for line in (store_dir(made["id"]) / "events.jsonl").read_text().splitlines()]
        return [Path(row["path"]) for row in rows], summary, [e for e in events if e["e"] == "warning"]

    return run


@pytest.mark.parametrize("file", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("name", SETS)
def test_as_they_are_and_back(run_step, jsonl, export, name, file):
    rows = SETS[name]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)])
    assert list(made.rows()) == rows
    (path,), summary, warnings = export(made.ref, file=file)
    assert summary == {"rows": len(rows), "left_out": 0, "files": 1} and not warnings
    back = list(load_rows(path, purpose="as_is"))
    if file == "parquet" and name == "messages":
        assert [without_ids(row) for row in back] == [without_ids(row) for row in rows]
    else:
        assert back == rows


def without_ids(row):
    """Parquet has one type for all messages: what one row lacks is null there, and left out again when read."""
    return json.loads(json.dumps(row))


@pytest.mark.parametrize("file", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(("format", "name"), [("messages", "messages"), ("sharegpt", "messages"), ("alpaca",
                                                                                                   "messages"),
                                              ("prompt_completion", "prompt_completion"),
                                              ("messages", "prompt_completion"),
                                              ("preference", "preference"), ("reward", "preference"),
                                              ("rated", "rated"),
                                              ("reward", "pairs of chats"), ("text", "text")])
def test_other_formats_hold_the_same(run_step, jsonl, export, format, name, file):
    rows = SETS[name]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)])
    (path,), summary, warnings = export(made.ref, format=format, file=file)
    fits = rows if format != "alpaca" else rows[:2]
    assert summary["rows"] == len(fits) and summary["left_out"] == len(rows) - len(fits) == len(warnings)
    back = list(load_rows(path, purpose="as_is"))
    if format in ("reward",):
        assert [r["chosen"] for r in back] == [turns(r["chosen"]) for r in fits]
        assert [r["prompt"] for r in back] == [turns(r["prompt"], "user") for r in fits]
        assert [r.get("margin") for r in back] == [r.get("margin") for r in fits]
    elif (format, name) == ("messages", "prompt_completion"):
        assert back == [{"messages": [USER, BOT]}] * 2
    elif format == "alpaca":
        assert back[0] == fits[0]
        assert [m["content"] for m in back[1]["messages"]] == \
            ["Why?", "<think>\nHm.\n\n</think>\n\nBecause.", "And?",
             "Because."], "a trace in the history stays in the text"
    else:
        assert back == fits


def turns(value, role="assistant"):
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def test_parquet_is_typed(run_step, jsonl, export):
    import pyarrow.parquet as pq

    made = run_step("import", sources=[jsonl("a.jsonl", SETS["rated"])])
    (path,), _, _ = export(made.ref, format="rated", file="parquet")
    schema = pq.read_schema(path)
    assert str(schema.field("label").type) == "bool" and str(schema.field("contexts").type).startswith("list<")
    assert {f.name for f in schema.field("tags").type} == {"site", "level"}
    made = run_step("import", sources=[jsonl("b.jsonl", [{"prompt": "Why?", "completion": "Because."},
                                                         {"prompt": [SYSTEM, USER], "completion": [BOT]}])])
    (path,), _, _ = export(made.ref, file="parquet")
    assert pq.read_table(path).to_pylist() == [{"prompt": [USER], "completion": [BOT]},
                                               {"prompt": [SYSTEM, USER], "completion": [BOT]}]
    datasets = pytest.importorskip("datasets")
    assert datasets.Dataset.from_parquet(str(path), cache_dir=str(path.parent / "c")).num_rows == 2


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")', " =1",
                                  "'=1", "'"])
def test_cells_cannot_run_in_a_spreadsheet(run_step, jsonl, export, text):
    rows = [{"prompt": text, "completion": f"a\n{text}"}, {"prompt": "plain -1", "completion": "1-1=0"}]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)])
    (path,), _, _ = export(made.ref, file="csv")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "a spreadsheet reads UTF-8 by its mark"
    with path.open(newline="", encoding="utf-8-sig") as file:
        cells = list(csv.reader(file))
    assert cells == [["prompt", "completion"], ["'" + text, f"a\n{text}"], ["plain -1", "1-1=0"]]
    (path,), _, _ = export(made.ref, file="csv", safe_cells=False)
    with path.open(newline="", encoding="utf-8-sig") as file:
        assert list(csv.reader(file))[1] == [text, f"a\n{text}"]


def test_what_does_not_fit_is_left_out_and_told(run_step, jsonl, export):
    made = run_step("import", sources=[jsonl("a.jsonl", SETS["rated"])])
    (path,), summary, (warning,) = export(made.ref, format="messages")
    assert summary == {"rows": 1, "left_out": 1, "files": 1} and "marked bad" in warning["message"]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"messages": [USER, BOT]}]
    with pytest.raises(StudioError, match="No row fits the format: 2 × A row without a better") as caught:
        export(made.ref, format="preference")
    assert caught.value.field == "format"


def test_every_split_makes_a_file(run_step, jsonl, export, home):
    from studio.datasets.version import Writer

    with Writer(home / "datasets" / "d") as out:
        for i in range(4):
            out.add({"text": f"t{i}"}, "src", tags={"site": "park"})
        out.split = "validation"
        out.add({"text": "v"})
        made = out.close({"method": "x"})
    ref = artifacts.add("dataset", "My set/1", made.path, meta={"version": True})["ref"]
    paths, summary, _ = export(ref)
    assert [p.name for p in paths] == ["My set_1.train.jsonl", "My set_1.validation.jsonl"] and summary["rows"] == 5
    paths, _, _ = export(ref, split="validation", file="parquet")
    assert [p.name for p in paths] == ["My set_1.validation.parquet"]
    (path,), _, _ = export(ref, split="train", with_tags=True)
    assert json.loads(path.read_text().splitlines()[0]) == {"text": "t0", "source": "src", "tags": {"site": "park"}}
    paths, summary, _ = export(f"{ref}#validation")
    assert summary["rows"] == 1
    with pytest.raises(StudioError, match="no split 'test'"):
        export(ref, split="test")


def test_a_shipped_set_is_exported_without_an_import(export):
    before = len(artifacts.listed(("dataset",)))
    (path,), summary, _ = export("shipped:preferences", format="reward", file="parquet")
    assert summary["rows"] == 150 and len(artifacts.listed(("dataset",))) == before
    (path,), summary, _ = export("shipped:tool-calls", file="parquet")
    assert list(load_rows(path)) == list(load_rows("shipped:tool-calls"))


def test_ten_megabyte_cells(run_step, jsonl, export):
    text = "word " * (2 * 1000 * 1000)
    made = run_step("import", sources=[jsonl("a.jsonl", [{"text": text}, {"text": "x"}])])
    for file in ("jsonl", "parquet", "csv"):
        (path,), _, warnings = export(made.ref, file=file)
        assert [len(row["text"]) for row in load_rows(path)] == [len(text), 1]
        assert [w["code"] for w in warnings] == (["long-cells"] if file == "csv" else [])


def test_formats_that_are_none():
    with pytest.raises(StudioError, match="cannot be written as 'xml'"):
        list(export_rows([CHATS[0]], "xml"))
