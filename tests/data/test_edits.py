"""What a person changes: the log survives torn lines, two tabs and undo; the step makes a version of it."""

from __future__ import annotations

import copy
import json
import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import api
from studio.datasets import amend, edits
from studio.datasets.edits import Edits, Mark
from studio.errors import StudioError

SPLITS = ("train", "validation")
_op = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["delete", "restore", "keep", "drop", "better", "worse", "clear"])}),
    st.fixed_dictionaries({"op": st.sampled_from(["set", "rewrite"]), "row": st.fixed_dictionaries({"text": st.text()})}),
    st.fixed_dictionaries({"op": st.just("note"), "text": st.text()}),
    st.fixed_dictionaries({"op": st.just("tag"), "key": st.sampled_from("ab"), "value": st.none() | st.text()}),
    st.fixed_dictionaries({"op": st.just("clear"), "key": st.sampled_from(["row", "review", "note", "tags"])}),
)
_action = st.tuples(st.sampled_from(SPLITS), st.lists(st.tuples(st.integers(0, 4), _op), min_size=1, max_size=4))
_moves = st.lists(st.one_of(_action, st.just("undo"), st.just("redo")), max_size=25)


def folded(actions: list) -> dict:
    """The state after some actions, worked out from nothing."""
    marks: dict = {}
    for split, ops in actions:
        for pos, op in ops:
            mark = edits.changed(marks.get((split, pos), Mark()), {**op, "pos": pos})
            marks[split, pos] = mark
    return {key: mark for key, mark in marks.items() if mark != Mark()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=_moves)
def test_undo_and_redo_are_exact_however_mixed(tmp_path: Path, moves: list) -> None:
    """After any mix of edits, undos and redos the state is that of the actions in effect, for a fresh reader too."""
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    log, done, undone = Edits(path), [], []
    for move in moves:
        if move == "undo":
            if not done:
                with pytest.raises(StudioError, match="nothing to undo"):
                    log.undo()
                continue
            undone.append(done.pop())
            log.undo()
        elif move == "redo":
            if not undone:
                with pytest.raises(StudioError, match="nothing to do again"):
                    log.redo()
                continue
            done.append(undone.pop())
            log.redo()
        else:
            split, ops = move
            log.append(split, [{**op, "pos": pos} for pos, op in ops])
            done.append(move)
            undone.clear()
        assert log.marks == folded(done)
        assert log.count == len(done)
    assert Edits(path).refresh().marks == log.marks
    summary = log.summary()
    assert summary["undo"] == len(done) and summary["redo"] == len(undone)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(_action, min_size=1, max_size=8), cut=st.integers(0, 10_000), data=st.data())
def test_a_torn_log_loses_at_most_its_last_line(tmp_path: Path, lines: list, cut: int, data: st.DataObject) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    log = Edits(path)
    for split, ops in lines:
        log.append(split, [{**op, "pos": pos} for pos, op in ops])
    whole = path.read_bytes()
    cut = cut % (len(whole) + 1)
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    assert Edits(path).refresh().marks == folded(lines[:complete])
    later = Edits(path)
    later.append("train", [{"op": "note", "pos": 9, "text": "after the crash"}])
    complete += whole[cut:cut + 1] == b"\n"  # only the line's end was cut off: the next writer ends it, and nothing is lost
    assert later.marks == {**folded(lines[:complete]), ("train", 9): Mark(note="after the crash")}
    assert Edits(path).refresh().marks == later.marks


@pytest.mark.parametrize("line", [b"{}", b"[]", b"null", b'{"ops": 3, "split": "train"}', b'{"ops": [4, {}, {"pos": "x"}], '
                                  b'"split": "train"}', b"\xff\xfe", b'{"ops": [{"op": "boom", "pos": 0}], "split": "train"}'])
def test_lines_that_are_none_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(line + b"\n" + b'{"split": "train", "ops": [{"op": "keep", "pos": 1}]}\n')
    assert Edits(path).refresh().marks == {("train", 1): Mark(review="keep")}


def _edit(path: str, who: int, times: int) -> None:
    log = Edits(Path(path))
    for i in range(times):
        log.append("train", [{"op": "note", "pos": who * 1000 + i, "text": "x" * 500}])


def test_processes_and_threads_edit_at_once(tmp_path: Path) -> None:
    """No line is lost or mixed up, and every reader sees the same in the end."""
    path = tmp_path / "x.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_edit, args=(str(path), n, 30)) for n in range(2)]
    shared = Edits(path)
    threads = [threading.Thread(target=lambda n=n: [shared.append("train", [{"op": "keep", "pos": n * 1000 + i}])
                                                    for i in range(30)]) for n in (5, 6)]
    for worker in [*processes, *threads]:
        worker.start()
    for worker in [*processes, *threads]:
        worker.join(60)
    assert len(path.read_bytes().splitlines()) == 120
    fresh = Edits(path).refresh()
    assert len(fresh.marks) == 120 and fresh.marks == shared.refresh().marks


@pytest.fixture
def made(run_step, jsonl):
    rows = [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(8)]
    return run_step("import", sources=[jsonl("a.jsonl", rows)])


def test_every_action_shows_in_the_next_version(run_step, made) -> None:
    ref = made.ref
    api.data_edit(ref, "train", [
        {"op": "delete", "pos": 0}, {"op": "drop", "pos": 1}, {"op": "rewrite", "pos": 2, "text": "better"},
        {"op": "set", "pos": 3, "row": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}},
        {"op": "note", "pos": 4, "text": "odd"}, {"op": "tag", "pos": 5, "key": "site", "value": "A"}, {"op": "keep", "pos": 6}])
    out = run_step("edits", ref)
    items = list(out.items())
    assert [item.row for item in items] == [
        {"prompt": "Q2", "completion": "better"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        *({"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(4, 8))]
    assert [dict(item.tags or []) for item in items] == [{"review": "rewrite"}, {}, {"note": "odd"}, {"site": "A"},
                                                         {"review": "keep"}, {}]
    assert [item.id for item in items] == [item.id for item in made.items()][2:], "rows keep their ids"
    entry = out.meta["history"][-1]
    assert (entry["rows_in"], entry["rows_out"], entry["changed"], entry["dropped"]) == (8, 6, 5, 2)
    assert {r["code"]: r["count"] for r in entry["reasons"]} == {"deleted": 1, "review_drop": 1, "rewritten": 1, "edited": 1,
                                                                 "tagged": 3}
    assert [item.row for item in made.items()] == [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(8)]
    only = run_step("edits", ref, reviewed_only=True)
    assert len(list(only.items())) == 5 and {r["code"] for r in only.meta["history"][-1]["reasons"]} >= {"not_reviewed"}


def test_review_of_pairs_and_marks(run_step, jsonl) -> None:
    pairs = run_step("import", sources=[jsonl("p.jsonl", [{"prompt": "q", "chosen": f"c{i}", "rejected": f"r{i}"}
                                                          for i in range(3)])])
    api.data_edit(pairs.ref, "train", [{"op": "worse", "pos": 0}, {"op": "better", "pos": 1}])
    rows = list(run_step("edits", pairs.ref).rows())
    assert (rows[0]["chosen"], rows[0]["rejected"]) == ("r0", "c0") and rows[1]["chosen"] == "c1"
    rated = run_step("import", sources=[jsonl("r.jsonl", [{"prompt": "q", "completion": f"c{i}", "label": True}
                                                          for i in range(3)])])
    api.data_edit(rated.ref, "train", [{"op": "worse", "pos": 0}, {"op": "better", "pos": 1}])
    out = run_step("edits", rated.ref)
    assert [row["label"] for row in out.rows()] == [False, True, True]
    assert [item.label for item in out.items()] == ["bad", "good", "good"]


def test_the_history_says_which_edits_and_makes_them_again(run_step, made, jsonl) -> None:
    """Later edits do not change what a step did; on rows brought in anew the edits find their rows by what these were."""
    api.data_edit(made.ref, "train", [{"op": "delete", "pos": 0}])
    api.data_edit(made.ref, "train", [{"op": "rewrite", "pos": 7, "text": "last"}])
    out = run_step("edits", made.ref)
    api.data_edit(made.ref, "train", [{"op": "delete", "pos": 3}])
    values = api.data_pipeline(out.ref)["values"]
    assert values["steps"][-1] == {"method": "edits", "log": made.ref, "until": 2}
    api.delete(out.ref.removeprefix("library:"))  # else it would be taken from the library
    again = run_step("pipeline", steps=values["steps"])
    assert again.hash == out.hash
    moved = [{"prompt": "new", "completion": "row"}, *({"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(1, 8))]
    other = run_step("import", sources=[jsonl("b.jsonl", moved)])
    carried = run_step("edits", other.ref, log=made.ref, until=2)
    assert [row["completion"] for row in carried.rows()] == ["row", "A1", "A2", "A3", "A4", "A5", "A6", "last"]
    assert carried.meta["history"][-1]["facts"]["not_found"] == 1, "the deleted row was not there to be deleted"


def test_one_of_identical_rows(run_step, jsonl) -> None:
    same = run_step("import", sources=[jsonl("s.jsonl", [{"prompt": "q", "completion": "a"}] * 4)])
    api.data_edit(same.ref, "train", [{"op": "delete", "pos": 2}])
    assert run_step("edits", same.ref).count() == 3
    other = run_step("import", sources=[jsonl("t.jsonl", [{"prompt": "q", "completion": "a"}] * 5)])
    assert run_step("edits", other.ref, log=same.ref).count() == 4


def test_all_splits_are_edited(run_step, home: Path) -> None:
    """A validation split whose rows are all deleted does not come back."""
    from studio.datasets.step import facts_of
    from studio.datasets.version import Writer
    from studio.library import artifacts

    with Writer(home / "datasets" / "d") as out:
        out.add({"text": "a"})
        out.split = "validation"
        out.add({"text": "b"})
        version = out.close({"method": "x"})
    ref = artifacts.add("dataset", "d", version.path, meta=facts_of(version))["ref"]
    api.data_edit(ref, "validation", [{"op": "delete", "pos": 0}])
    after = run_step("edits", ref)
    assert after.splits == ["train"] and list(after.rows()) == [{"text": "a"}]


@pytest.mark.parametrize(("op", "field"), [
    ({"op": "explode", "pos": 0}, "op"), ({"op": "keep", "pos": 99}, "pos"), ({"op": "keep", "pos": -1}, "pos"),
    ({"op": "keep", "pos": True}, "pos"), ({"op": "keep"}, "pos"), ({"op": "set", "pos": 0}, "row"),
    ({"op": "set", "pos": 0, "row": {"text": " "}}, "row"), ({"op": "set", "pos": 0, "row": {"foo": 1}}, "row"),
    ({"op": "set", "pos": 0, "row": {"prompt": "q"}}, "row"),
    ({"op": "set", "pos": 0, "row": {"messages": [{"role": "user", "content": "q"}]}}, "row"),
    ({"op": "set", "pos": 0, "row": {"messages": [{"role": "king", "content": "q"}]}}, "row"),
    ({"op": "set", "pos": 0, "row": {"prompt": "q", "chosen": "a", "rejected": "a"}}, "row"),
    ({"op": "set", "pos": 0, "row": {"prompt": "q", "completion": "a", "label": "yes"}}, "row"),
    ({"op": "rewrite", "pos": 0, "text": "  "}, "text"), ({"op": "note", "pos": 0, "text": "x" * 5000}, "text"),
    ({"op": "tag", "pos": 0, "key": "", "value": "x"}, "key"), ({"op": "clear", "pos": 0, "key": "x"}, "key")])
def test_bad_edits_are_refused_and_nothing_is_written(made, op: dict, field: str) -> None:
    with pytest.raises(StudioError) as refused:
        api.data_edit(made.ref, "train", [{"op": "keep", "pos": 1}, op])
    assert refused.value.field == field
    assert api.data_open(made.ref)["edits"]["count"] == 0


def test_nothing_edited_is_a_refusal(run_step, made) -> None:
    with pytest.raises(StudioError, match="Nothing was edited"):
        run_step("edits", made.ref)
    with pytest.raises(StudioError, match="library"):
        run_step("edits", "shipped:polite")


@pytest.mark.parametrize("row", [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "old"}, {"role": "user", "content": "r"}]},
    {"prompt": "q", "completion": "old"}, {"text": "old"}, {"prompt": "q", "chosen": "old", "rejected": "r"},
    {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "old"}]}])
def test_a_rewrite_replaces_the_last_answer_only(row: dict) -> None:
    before = copy.deepcopy(row)
    made = amend.rewritten(row, "new")
    assert row == before and json.dumps(made) == json.dumps(row).replace('"old"', '"new"')


def test_a_log_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    log = Edits(tmp_path / "x.jsonl")
    for pos in range(5):
        log.append("train", [{"op": "keep", "pos": pos}])
    log.path.write_text('{"split": "train", "ops": [{"op": "drop", "pos": 7}]}\n')
    assert log.refresh().marks == {("train", 7): Mark(review="drop")}
