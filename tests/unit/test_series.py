"""Curves for charts: parsed once, extremes kept, deltas small."""

from __future__ import annotations

import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import series
from studio.jobs import events
from studio.jobs.context import Context


@pytest.fixture
def run(tmp_path):
    return Context(tmp_path / "rabcd")


def test_first_everything_then_only_what_is_new(run):
    for step in range(1, 6):
        run.metric(step, loss=1 / step)
    first = series.snapshot(run.run_dir, 0)
    assert first["reset"] and [s for s, _ in first["series"]["loss"]] == [1, 2, 3, 4, 5]
    assert series.snapshot(run.run_dir, first["cursor"])["series"] == {}
    run.metric(6, loss=0.5, eval_loss=0.6)
    run.warning("w", "careful", "do this")
    run.sample(6, "hi", "hello")
    run.log("note")
    run.progress(6, 10, eta=4.0)
    delta = series.snapshot(run.run_dir, first["cursor"])
    assert not delta["reset"]
    assert delta["series"] == {"loss": [[6, 0.5]], "eval_loss": [[6, 0.6]]}
    assert delta["samples"] == [{"step": 6, "prompt": "hi", "text": "hello"}]
    assert delta["warnings"] == [{"code": "w", "message": "careful", "hint": "do this"}]
    assert delta["notes"] == ["note"] and delta["progress"] == {"done": 6, "total": 10, "eta": 4.0}


def test_a_cursor_of_another_process_continues_without_doubles(run):
    for step in range(10):
        run.metric(step, loss=step)
    cursor = series.snapshot(run.run_dir, 0)["cursor"]
    run.metric(10, loss=10)
    series._runs.clear()  # as after a restart of the studio
    assert series.snapshot(run.run_dir, cursor)["series"] == {"loss": [[10, 10.0]]}


def test_a_long_run_keeps_its_extremes_ends_and_holes(run):
    run.metric(0, loss=3.0)
    for step in range(1, 50_000):
        run.metric(step, loss={777: 1000.0, 30_001: -1000.0, 40_000: math.nan, 40_001: math.inf}.get(step, step % 7))
    reply = series.snapshot(run.run_dir, 0, max_points=500)
    points = dict(map(tuple, reply["series"]["loss"]))
    assert 400 < len(points) < 510
    assert points[777] == 1000 and points[30_001] == -1000 and points[40_000] == "NaN"
    assert points[0] == 3.0 and 49_999 in points
    assert list(points) == sorted(points)
    json.dumps(reply, allow_nan=False)


def test_a_poll_of_a_long_live_run_is_small(run):
    for step in range(20_000):
        run.metric(step, loss=1 / (step + 1))
    cursor = series.snapshot(run.run_dir, 0)["cursor"]
    for step in range(20_000, 20_005):
        run.metric(step, loss=0.123456789, grad_norm=1.234567, learning_rate=2e-5, tokens_per_second=12345.678)
        run.progress(step, 30_000, eta=12.3)
    assert len(json.dumps(series.snapshot(run.run_dir, cursor))) < 2000


def test_each_event_is_parsed_once_however_many_watch(run, monkeypatch):
    parsed = []
    real = events._event
    monkeypatch.setattr(events, "_event", lambda line: parsed.append(1) or real(line))
    for step in range(100):
        run.metric(step, loss=step)
    cursors = [series.snapshot(run.run_dir, 0)["cursor"] for _ in range(20)]
    assert len(parsed) == 100
    run.metric(100, loss=1)
    assert all(series.snapshot(run.run_dir, c)["series"] == {"loss": [[100, 1.0]]} for c in cursors)
    assert len(parsed) == 101


def test_a_resume_takes_back_what_was_never_saved(run):
    for step in range(1, 11):
        run.metric(step, loss=step)
    run.metric(9, eval_loss=9)
    run.sample(10, "p", "gone")
    cursor = series.snapshot(run.run_dir, 0)["cursor"]
    run.emit("resume", step=5)
    run.metric(6, loss=60)
    reply = series.snapshot(run.run_dir, cursor)
    assert reply["reset"] and reply["series"] == {"loss": [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5], [6, 60]]}
    assert reply["samples"] == []
    run.metric(7, loss=70)
    again = series.snapshot(run.run_dir, reply["cursor"])
    assert not again["reset"] and again["series"] == {"loss": [[7, 70]]}


def test_torn_and_foreign_lines_do_no_harm(run):
    path = run.run_dir / "events.jsonl"
    run.metric(1, loss=1)
    with open(path, "ab") as file:
        for line in ('{"e":"metric"}', '{"e":"metric","step":"x","values":{}}', '{"e":"metric","step":1,"values":7}',
                     '{"e":"metric","step":1e99,"values":{"loss":1}}', '{"e":"resume"}', '{"e":"unheard of"}', "junk"):
            file.write(line.encode() + b"\n")
        file.write(b'{"e":"metric","step":2,"val')
    first = series.snapshot(run.run_dir, 0)
    assert first["series"] == {"loss": [[1, 1.0]]}
    with open(path, "ab") as file:
        file.write(b'ues":{"loss":2}}\n')
    assert series.snapshot(run.run_dir, first["cursor"])["series"] == {"loss": [[2, 2.0]]}


@pytest.mark.parametrize("cursor", ["", "x", "-5:-5", "9999999:9999999", "1:2:3", None, "0:0"])
def test_odd_cursors_start_anew(run, cursor):
    run.metric(1, loss=1)
    reply = series.snapshot(run.run_dir, cursor)
    assert reply["series"] == {"loss": [[1, 1.0]]} and reply["reset"]


def test_a_removed_and_a_replaced_run(run, tmp_path):
    nothing = series.snapshot(tmp_path / "rnone", 0)
    assert nothing["series"] == {} and nothing["log"] == ""
    run.metric(1, loss=1)
    run.metric(2, loss=1)
    cursor = series.snapshot(run.run_dir, 0)["cursor"]
    os.unlink(run.run_dir / "events.jsonl")
    Context(run.run_dir).metric(1, loss=9)
    reply = series.snapshot(run.run_dir, cursor)
    assert reply["reset"] and reply["series"] == {"loss": [[1, 9.0]]}


def test_the_log_comes_as_tail_then_as_deltas(run):
    log = run.run_dir / "worker.log"
    log.write_text("".join(f"line {i}\n" for i in range(5000)))
    first = series.snapshot(run.run_dir, 0)
    assert first["log"].startswith("line ") and first["log"].endswith("line 4999\n")
    assert len(first["log"]) <= series.LOG_TAIL
    with open(log, "a") as file:
        file.write("new é line\n10%|x\r20%|xx\r\x1b[31m30%|xxx\x1b[0m\nhalf a li")
    delta = series.snapshot(run.run_dir, first["cursor"])
    assert delta["log"] == "new é line\n30%|xxx\n"
    with open(log, "a") as file:
        file.write("ne\n")
    assert series.snapshot(run.run_dir, delta["cursor"])["log"] == "half a line\n"


def test_a_line_without_end_is_shown_once_the_log_rests(run):
    log = run.run_dir / "worker.log"
    log.write_text("Killed")
    assert series.log_since(log, 0) == ("", 0)
    os.utime(log, (1, 1))
    assert series.log_since(log, 0) == ("Killed", 6)


def test_a_reader_far_behind_skips_to_the_tail(run):
    log = run.run_dir / "worker.log"
    log.write_text("start\n")
    _, cursor = series.log_since(log, -1)
    with open(log, "a") as file:
        file.write("x" * 99 + "\n" + ("y" * 99 + "\n") * 5000)
    text, after = series.log_since(log, cursor)
    assert len(text) <= series.LOG_TAIL and after == log.stat().st_size


@given(st.lists(st.floats(), min_size=1, max_size=400), st.integers(2, 50))
def test_downsampling_keeps_ends_and_extremes(values, limit):
    from array import array

    chosen = series.downsample(array("d", values), 0, limit)
    assert chosen[0] == 0 and chosen[-1] == len(values) - 1 and chosen == sorted(set(chosen))
    finite = [v for v in values if math.isfinite(v)]
    if finite:
        kept = [values[i] for i in chosen]
        assert min(finite) in kept and max(finite) in kept
    assert any(math.isnan(values[i]) for i in chosen) or not any(map(math.isnan, values)) or len(values) > limit
