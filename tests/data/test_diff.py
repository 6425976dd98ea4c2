"""What differs between two versions: agrees with counting by hand, whatever was changed, repeated or moved."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import api
from studio.datasets import diff
from studio.datasets.version import Item, Version, Writer, item_of
from studio.errors import StudioError

_ids = st.sampled_from("abcdef")
_side = st.lists(st.tuples(_ids, st.sampled_from(["one", "two", "three"]), st.sampled_from([0, 0, 0, 1])), min_size=1, max_size=14)


def written(folder: Path, rows: list[tuple[str, str, int]]) -> Version:
    """Rows of (id, content, split); there is always one row to train on."""
    with Writer(folder) as out:
        for number, split in enumerate(("train", "validation")):
            out.split = split
            for key, text, _ in [r for r in rows if r[2] == number] + ([("z", "z", 0)] if not number else []):
                out.keep(item_of({"text": text}, id=key))
        return out.close({"method": "x"})


def counted(a: list, b: list) -> dict[str, int]:
    left, right = (Counter((key, text) for key, text, _ in side) for side in (a, b))
    same = sum((left & right).values())
    rest = [Counter() for _ in range(2)]
    for one, (side, other) in zip(rest, ((left, right), (right, left)), strict=True):
        for (key, _), n in (side - other).items():
            one[key] += n
    changed = sum((rest[0] & rest[1]).values())
    return {"same": same + 1, "changed": changed, "added": sum(rest[1].values()) - changed,
            "removed": sum(rest[0].values()) - changed}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=_side, b=_side)
def test_counts_are_those_of_the_rows(tmp_path: Path, a: list, b: list) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    left, right = written(folder / "a", a), written(folder / "b", b)
    found = diff.diff(left, right, 0, 200)
    wanted = counted(a, b)
    assert {key: found[key] for key in wanted} == wanted
    kinds = Counter(row["kind"] for row in found["rows"])
    assert all(kinds[kind] == wanted[kind] for kind in ("changed", "added", "removed")) and found["matching"] == kinds.total()
    for row in found["rows"]:
        before, after = row["before"], row["after"]
        assert (before is None) == (row["kind"] == "added") and (after is None) == (row["kind"] == "removed")
        if row["kind"] == "changed":
            assert before["id"] == after["id"] and before["row"] != after["row"]
    places = [(side["split"], side["pos"]) for row in found["rows"] if (side := row["before"])]
    assert len(set(places)) == len(places), "no row stands twice"
    back = diff.diff(right, left, 0, 200)
    assert (back["added"], back["removed"], back["changed"]) == (found["removed"], found["added"], found["changed"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=_side)
def test_a_version_is_the_same_as_itself(tmp_path: Path, a: list) -> None:
    version = written(tmp_path / str(len(list(tmp_path.iterdir()))), a)
    found = diff.diff(version, version)
    assert found["same"] == len(a) + 1 and not found["rows"] and not found["moved"]


def test_rows_that_went_to_another_split(tmp_path: Path) -> None:
    a = written(tmp_path / "a", [(k, k, 0) for k in "abc"])
    b = written(tmp_path / "b", [("a", "a", 1), ("b", "b", 0), ("c", "c", 0)])
    found = diff.diff(a, b, kind="moved")
    assert (found["same"], found["moved"], found["matching"]) == (4, 1, 1)
    (row,) = found["rows"]
    assert (row["before"]["split"], row["after"]["split"], row["after"]["row"]) == ("train", "validation", {"text": "a"})
    assert diff.diff(a, b)["rows"] == []


def test_scores_and_tags_count_as_content(tmp_path: Path) -> None:
    versions = []
    for name, score in (("a", None), ("b", 0.5)):
        with Writer(tmp_path / name) as out:
            out.add({"text": "x"}, score=score)
            out.add({"text": "y"})
            versions.append(out.close({"method": "x"}))
    found = diff.diff(*versions)
    assert (found["same"], found["changed"]) == (1, 1) and found["rows"][0]["after"]["score"] == 0.5


def test_pages_and_kinds(tmp_path: Path) -> None:
    a = written(tmp_path / "a", [(str(i), "old", 0) for i in range(100)])
    b = written(tmp_path / "b", [(str(i), "new" if i < 60 else "old", 0) for i in range(80)])
    assert diff.diff(a, b)["matching"] == 80
    walked = [row["before"]["id"] for start in range(0, 80, 7) for row in diff.diff(a, b, start, 7)["rows"]]
    assert len(walked) == len(set(walked)) == 80
    assert [row["kind"] for row in diff.diff(a, b, 0, 200, "removed")["rows"]] == ["removed"] * 20
    with pytest.raises(StudioError, match="Known: changed"):
        diff.diff(a, b, kind="eaten")


def test_steps_say_what_only_one_side_went_through(run_step, jsonl) -> None:
    first = run_step("import", sources=[jsonl("a.jsonl", [{"text": f"t{i}"} for i in range(5)])])
    api.data_edit(first.ref, "train", [{"op": "delete", "pos": 0}])
    second = run_step("edits", first.ref)
    api.data_edit(first.ref, "train", [{"op": "set", "pos": 1, "row": {"text": "new"}}])
    third = run_step("edits", first.ref)
    found = api.data_diff(second.ref, third.ref)
    assert (found["same"], found["changed"], found["added"], found["removed"]) == (3, 1, 0, 0)
    assert [(s["where"], s["step"]["method"], s["title"]) for s in found["steps"]] == [
        ("both", "import", "Bring in"), ("a", "edits", "Apply edits"), ("b", "edits", "Apply edits")]
    whole: dict[str, Any] = api.data_diff(first.ref, second.ref)
    assert (whole["removed"], whole["rows"][0]["before"]["row"]) == (1, {"text": "t0"})


def big(folder: Path, rows: int, change: int) -> Version:
    """Many short rows; every ``change``-th has another content."""
    with Writer(folder) as out:
        for i in range(rows):
            text = f'{{"text":"row {i} of many{" changed" if change and i % change == 0 else ""}"}}'
            out.keep(Item(f"{i:016x}", text, "s", 10, 1))
        return out.close({"method": "x"})


def test_many_rows_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fraction of the memory that the rows would need, by spilling; and the second page is there at once."""
    a, b = big(tmp_path / "a", 200_000, 0), big(tmp_path / "b", 200_000, 10)
    monkeypatch.setattr(diff, "_MEMORY", "40MB")
    found = diff.diff(a, b)
    assert (found["same"], found["changed"], found["added"]) == (180_000, 20_000, 0)
    began = time.perf_counter()
    row = diff.diff(a, b, 19_990, 50)["rows"][-1]
    assert time.perf_counter() - began < 1 and row["before"]["pos"] == row["after"]["pos"] == 199_990
