"""The event file: whole lines, odd numbers, torn lines, cursors."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import settings
from studio.jobs import events
from studio.jobs.context import Context, checkpoints, mark_complete


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = events.Writer(path)
    writer.emit("metric", step=3, values={"loss": math.nan, "a": math.inf, "b": -math.inf, "c": 0.1})
    writer.emit("sample", step=3, prompt="<b>&\u2028\n", text="lone \ud800 surrogate")
    found, cursor = events.read(path)
    values = found[0]["values"]
    assert math.isnan(values["loss"]) and values["a"] == math.inf and values["b"] == -math.inf and values["c"] == 0.1
    assert found[1]["prompt"] == "<b>&\u2028\n" and "surrogate" in found[1]["text"]
    assert cursor == path.stat().st_size and events.read(path, cursor) == ([], cursor)
    for line in path.read_text().split("\n")[:-1]:
        assert "NaN" not in line or '"NaN"' in line
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)))
def test_any_value_becomes_one_line_of_json(value):
    text = json.dumps(events.plain({"x": value}), allow_nan=False)
    assert "\n" not in text


def test_numbers_of_other_libraries_are_numbers(tmp_path):
    numpy = pytest.importorskip("numpy")
    assert events.plain(numpy.float32(0.5)) == 0.5 and events.plain(numpy.int64(7)) == 7
    assert events.plain(numpy.float64("nan")) == "NaN"


def test_a_torn_last_line_is_waited_for(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"t":1,"e":"log","text":"a"}\n{"t":2,"e":"log","te')
    found, cursor = events.read(path)
    assert [e["text"] for e in found] == ["a"] and cursor == 29
    with open(path, "ab") as file:
        file.write(b'xt":"b"}\n')
    found, cursor = events.read(path, cursor)
    assert [e["text"] for e in found] == ["b"] and cursor == path.stat().st_size


def test_the_next_writer_closes_a_torn_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"t":1,"e":"log","text":"a"}\n{"t":2,"e":"lo')
    events.Writer(path).emit("log", text="after")
    assert [e["text"] for e in events.read(path)[0]] == ["a", "after"]


@pytest.mark.parametrize("junk", [b"\n", b"\xff\xfe\x00\n", b"[1,2]\n", b'{"e":5}\n', b'"x"\n', b"[" * 9000 + b"\n",
                                  b'{"t":1,"e":"log"\n', b"\r\r\n"])
def test_unreadable_lines_are_skipped(tmp_path, junk):
    path = tmp_path / "events.jsonl"
    events.append(path, "log", text="a")
    with open(path, "ab") as file:
        file.write(junk)
    events.append(path, "log", text="b")
    found, cursor = events.read(path)
    assert [e["text"] for e in found] == ["a", "b"] and cursor == path.stat().st_size


def test_small_gulps_read_the_same_and_a_long_line_is_no_obstacle(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = events.Writer(path)
    for i in range(50):
        writer.emit("log", text=f"{i} " + "x" * (5000 if i == 20 else 5))
    found, cursor = [], 0
    while True:
        new, after = events.read(path, cursor, limit_bytes=100)
        if after == cursor:
            break
        found, cursor = found + new, after
    assert [int(e["text"].split()[0]) for e in found] == list(range(50))


def test_a_text_without_end_is_cut(tmp_path):
    path = tmp_path / "events.jsonl"
    events.append(path, "log", text="x" * 10_000_000)
    assert path.stat().st_size < 30_000


def test_missing_and_replaced_files(tmp_path):
    path = tmp_path / "events.jsonl"
    assert events.read(path, 0) == ([], 0)
    events.append(path, "log", text="a")
    assert len(events.read(path, 10_000)[0]) == 1  # shorter than the cursor: read anew
    assert len(events.read(path, -5)[0]) == 1


_MANY = """
import sys
from studio.jobs.events import Writer
writer = Writer(sys.argv[1])
for i in range(2000):
    writer.emit("log", who=sys.argv[2], n=i, text="x" * (i % 700))
"""


def test_lines_of_several_writers_do_not_mix(tmp_path):
    path = tmp_path / "events.jsonl"
    crowd = [subprocess.Popen([sys.executable, "-c", _MANY, str(path), str(n)], cwd=settings.ROOT) for n in range(4)]
    assert [p.wait(timeout=60) for p in crowd] == [0] * 4
    found, cursor = [], 0
    while cursor < path.stat().st_size:
        new, cursor = events.read(path, cursor)
        found += new
    for who in "0123":
        assert [e["n"] for e in found if e["who"] == who] == list(range(2000))


def test_a_full_disk_is_an_error_for_who_must_know_and_false_for_who_must_go_on():
    with pytest.raises(OSError, match="No space left"):
        events.Writer("/dev/full").emit("log", text="a")
    assert events.append("/dev/full", "log", text="a") is False
    assert events.append("/nowhere/at/all", "log", text="a") is False


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next(tmp_path):
    code = ("import resource, signal, sys; from studio.jobs.events import Writer; w = Writer(sys.argv[1])\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
            "w.emit('log', text='first')\n"
            "try: w.emit('log', text='y' * 200)\n"
            "except OSError as err: print(err.strerror)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))\n"
            "w.emit('log', text='last')\n")
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=settings.ROOT, capture_output=True, text=True)
    assert done.stdout == "No space left on device\n", done.stderr
    assert [e["text"] for e in events.read(path)[0]] == ["first", "last"]


def test_context_reports_and_thins_progress(tmp_path):
    ctx = Context(tmp_path / "rabcd")
    for i in range(1000):
        ctx.progress(i, 1000, eta=1.0)
    ctx.progress(1000, 1000)
    ctx.metric(1, {"loss": 1, "name": "x", "flag": True, "none": None}, lr=0.1)
    ctx.metric(2, {"only": "words"})
    found = events.read(tmp_path / "rabcd/events.jsonl")[0]
    progress = [e for e in found if e["e"] == "progress"]
    assert len(progress) < 20 and progress[-1]["done"] == 1000
    assert [e["values"] for e in found if e["e"] == "metric"] == [{"loss": 1.0, "lr": 0.1}]
    with pytest.raises(ValueError, match="kind"):
        ctx.artifact("poem", tmp_path, "x")


def test_only_complete_checkpoints_count_and_the_newest_is_resumed(tmp_path):
    folder = tmp_path / "rabcd/checkpoints"
    for step in (5, 10, 100, 200):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}/w").write_text("x")
        if step != 200:
            mark_complete(folder / f"checkpoint-{step}")
    (folder / "checkpoint-x").mkdir()
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-5", "checkpoint-10", "checkpoint-100"]
    assert Context(tmp_path / "rabcd").resume_from is None
    assert Context(tmp_path / "rabcd", resume=True).resume_from == folder / "checkpoint-100"
    assert [e["step"] for e in events.read(tmp_path / "rabcd/events.jsonl")[0]] == [100]
    assert checkpoints(tmp_path / "none") == []
    fresh = Context(tmp_path / "rnone", resume=True)
    assert fresh.resume_from is None and events.read(tmp_path / "rnone/events.jsonl")[0][0]["step"] == 0


def test_a_stop_is_seen_by_file_and_by_call(tmp_path):
    ctx = Context(tmp_path / "rabcd")
    assert not ctx.stop_requested
    ctx.request_stop()
    assert ctx.stop_requested
    (tmp_path / "rabce").mkdir()
    (tmp_path / "rabce/stop").touch()
    assert Context(tmp_path / "rabce").stop_requested
