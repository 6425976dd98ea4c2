"""The table of a version: filters, search, sort and pages agree with what plain Python finds, edits included."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.datasets import table as tables
from studio.datasets.edits import Edits
from studio.datasets.query import query_of
from studio.datasets.table import Table
from studio.datasets.version import Version, Writer
from studio.errors import StudioError

WORDS = ["role", "content", "user", "apple", "Äpfel", "n", "nothing", "t\\here", 'say "hi"', "line\nbreak", "a\tb", "ünï", "true",
         "0", "{", "}", ":", ",", "null", "ŉ", "\u2028", "中文", "messages", "%", "_", "'; DROP TABLE rows; --"]
_text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


def _row(kind: int, a: str, b: str) -> dict[str, Any]:
    chat = [{"role": "user", "content": a}, {"role": "assistant", "content": b}]
    return [{"messages": chat}, {"text": a + b}, {"prompt": a, "completion": b},
            {"prompt": chat[:1], "chosen": chat[1:], "rejected": [{"role": "assistant", "content": "worse"}]},
            {"prompt": a, "completion": b, "label": True, "contexts": ["ctx"], "comment": "why", "tags": {"site": "A"}},
            {"messages": [*chat, {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "find", "arguments": {"q": "berry"}}}]}]}][kind]


_rows = st.lists(st.builds(_row, st.integers(0, 5), _text, _text), min_size=1, max_size=12)


def texts_of(row: dict[str, Any]) -> str:
    """All that a search looks through, by a plain walk."""
    found: list[str] = []

    def turns(value: Any) -> None:
        for turn in value if isinstance(value, list) else [{"content": value}]:
            found.append(turn["content"])
            for call in turn.get("tool_calls", []):
                found.extend([call["function"]["name"], json.dumps(call["function"]["arguments"], separators=(",", ":"))])

    for key in ("messages", "text", "prompt", "completion", "chosen", "rejected", "comment"):
        if key in row:
            turns(row[key])
    return "\n".join([*found, *row.get("contexts", [])])


def written(folder: Path, rows: list[dict[str, Any]], **more: Any) -> Version:
    with Writer(folder) as out:
        for i, row in enumerate(rows):
            out.add(row, f"file{i % 3}", score=None if i % 4 == 0 else i / 10, tags=more.get("tags", {}).get(i))
        return out.close({"method": "x"})


def found(table: Table, query: dict[str, Any] | None = None, **more: Any) -> list[int]:
    return [row["pos"] for row in table.page(query_of(query, **more), 0, 200)["rows"]]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows, search=st.sampled_from([*WORDS, "NOTHING", "äPFEL", "break", "here", '"', "\\", "rol", "find", "berry", "ctx"]))
def test_a_search_finds_what_the_texts_hold_and_nothing_else(tmp_path: Path, rows: list, search: str) -> None:
    """Keys, roles and halves of escapes are never found; quotes, backslashes and line breaks are."""
    table = Table(written(tmp_path / str(len(list(tmp_path.iterdir()))), rows))
    wanted = [i for i, row in enumerate(rows) if search.lower() in texts_of(row).lower()]
    assert found(table, {"search": search}) == wanted


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows, pattern=st.sampled_from(["^apple", "hi\"?$", r"\bn\b", "a.b", "(role|user)", "[äÄ]p", "line$", "^break"]))
def test_a_regular_expression_sees_the_texts(tmp_path: Path, rows: list, pattern: str) -> None:
    table = Table(written(tmp_path / str(len(list(tmp_path.iterdir()))), rows))
    plain = re.compile(pattern, re.IGNORECASE | re.MULTILINE | re.ASCII)  # RE2 knows the borders of Latin words only
    wanted = [i for i, row in enumerate(rows) if plain.search(texts_of(row))]
    assert found(table, {"search": pattern, "regex": True}) == wanted


@pytest.fixture
def table(tmp_path: Path) -> Table:
    rows = [{"prompt": f"Question {i} about the weather in town", "completion": "word " * (i + 1), "label": bool(i % 2)}
            for i in range(50)]
    tags = {i: {"site": f"s{i % 3}", "level": str(i % 2)} for i in range(30)}
    return Table(written(tmp_path / "d", rows, tags=tags), Edits(tmp_path / "d.jsonl"))


def test_filters(table: Table) -> None:
    items = list(table.version.items())
    every = range(50)
    assert found(table, {"chars": [60, 100]}) == [i for i in every if 60 <= items[i].chars <= 100]
    assert found(table, {"chars": [None, 60]}) == [i for i in every if items[i].chars <= 60]
    assert found(table, {"source": ["file1", "file2"]}) == [i for i in every if i % 3]
    assert found(table, {"label": ["good"]}) == [i for i in every if i % 2]
    assert found(table, {"tags": {"site": ["s0"], "level": ["1"]}}) == [i for i in range(30) if i % 3 == 0 and i % 2]
    assert found(table, {"tags": {"site": ["none"]}}) == list(range(30, 50))
    assert found(table, {"tags": {"site": ["none", "s1"]}}) == [i for i in every if i >= 30 or i % 3 == 1]
    assert found(table, {"tags": {"site": ["none", "s1", "s2"]}}) == [i for i in every if i >= 30 or i % 3]
    assert found(table, {"score": [1, 2]}) == [i for i in range(10, 21) if i % 4]
    assert found(table, {"lang": ["de"]}) == [] and found(table, {"lang": ["en"]}) == [
        i for i in every if items[i].lang == "en"]
    assert found(table, {"search": "Question 7 ", "chars": [0, 1000]}) == [7]


def test_sorting_puts_rows_without_a_value_last(table: Table) -> None:
    scored = [i for i in range(50) if i % 4]
    unscored = [i for i in range(50) if i % 4 == 0]
    assert found(table, sort="score") == scored + unscored
    assert found(table, sort="score", desc=True) == scored[::-1] + unscored
    assert found(table, sort="tag:site", desc=True)[:10] == [i for i in range(30) if i % 3 == 2]
    assert found(table, desc=True) == list(range(49, -1, -1))


def test_pages_walk_through_all(table: Table) -> None:
    for query, sort in (({}, None), ({"label": ["good"]}, None), ({}, "chars")):
        walked, offset = [], 0
        while rows := table.page(query_of(query, sort), offset, 7)["rows"]:
            walked += [row["pos"] for row in rows]
            offset += 7
        assert walked == found(table, query, sort=sort)
    page = table.page(query_of({"label": ["good"]}), 20, 200)
    assert (page["total"], page["matching"], len(page["rows"])) == (50, 25, 5)
    assert table.page(query_of({}), 10_000, 5)["rows"] == []


def test_edits_show_and_are_searched_as_they_are_now(table: Table) -> None:
    new = {"prompt": "zebra", "completion": "stripes", "label": True}
    table.edits.append("train", [{"op": "set", "pos": 5, "row": new}, {"op": "delete", "pos": 6},
                                 {"op": "keep", "pos": 7}, {"op": "note", "pos": 8, "text": "hm"},
                                 {"op": "tag", "pos": 9, "key": "site", "value": None},
                                 {"op": "tag", "pos": 40, "key": "site", "value": "new"}])
    assert found(table, {"search": "zebra"}) == [5] and found(table, {"search": "Question 5 "}) == []
    assert found(table, sort="chars")[0] == 5
    assert found(table, {"tags": {"site": ["new"]}}) == [40] and 9 in found(table, {"tags": {"site": ["none"]}})
    assert {word: found(table, {"state": [word]}) for word in ("edited", "deleted", "keep", "noted", "drop")} == {
        "edited": [5, 9, 40], "deleted": [6], "keep": [7], "noted": [8], "drop": []}
    assert found(table, {"state": ["unreviewed"]}) == [i for i in range(50) if i != 7]
    assert found(table, {"state": ["deleted", "keep"], "label": ["good"]}) == [7]
    row = table.page(query_of({}), 5, 1)["rows"][0]
    assert row["row"] == new and row["chars"] == 12 and row["state"]["edited"]
    table.edits.undo()
    assert found(table, {"search": "zebra"}) == [] and found(table, {"state": ["edited"]}) == []


def test_facets_count_what_a_choice_would_leave(table: Table) -> None:
    table.edits.append("train", [{"op": "keep", "pos": 1}])
    facets = table.facets(query_of({"label": ["good"], "tags": {"site": ["s1"]}}))
    good = [i for i in range(30) if i % 2 and i % 3 == 1]
    assert facets["label"] == {"good": len(good), "bad": len([i for i in range(30) if not i % 2 and i % 3 == 1])}
    assert facets["tags"]["site"] == {f"s{k}": len([i for i in range(30) if i % 2 and i % 3 == k]) for k in (0, 1, 2)}
    assert facets["tags"]["level"] == {"1": len(good)} and facets["source"] == {"file1": len(good)}
    assert facets["state"]["keep"] == 1 and facets["state"]["unreviewed"] == len(good) - 1
    assert facets["chars"]["count"] == len(good) and facets["split"] == {"train": 50, "dropped": 0}


def test_dropped_rows_have_reasons(tmp_path: Path) -> None:
    with Writer(tmp_path / "d") as out:
        for item in (kept := [{"text": f"t{i}"} for i in range(5)]):
            out.add(item)
        out.reject("empty_text", "line 3", "f", {"text": "gone"})
        out.reject("broken_line", "line 4", "f", "{oops")
        table = Table(out.close({"method": "x"}))
    page = table.page(query_of({"split": "dropped", "reason": ["broken_line"]}))
    assert (page["total"], page["matching"]) == (2, 1) and len(kept) == 5
    row = page["rows"][0]
    assert (row["row"], row["reason"], row["detail"]) == ({"text": "{oops"}, "broken_line", "line 4")
    assert table.facets(query_of({"split": "dropped"}))["reason"] == {"empty_text": 1, "broken_line": 1}
    assert table.facts()["dropped"] == 2


@pytest.mark.parametrize(("query", "sort", "field"), [
    ({"search": "(", "regex": True}, None, "search"), ({"search": "(?=a)", "regex": True}, None, "search"),
    ({"search": "a\\", "regex": True}, None, "search"), ({"search": "*", "regex": True}, None, "search"),
    ({"search": r"(a)\1", "regex": True}, None, "search"), ({"search": "x" * 2000}, None, "search"),
    ({"search": "a{2000}", "regex": True}, None, "search"), ({"search": "[z-a]", "regex": True}, None, "search"),
    ({"search": 5}, None, "search"), ({"search": "\x00"}, None, "search"), ({"chars": [1]}, None, "chars"),
    ({"chars": ["1", 2]}, None, "chars"), ({"score": [float("nan"), 2]}, None, "score"), ({"lang": [1]}, None, "lang"),
    ({"state": ["happy"]}, None, "state"), ({"tags": ["a"]}, None, "tags"), ({"rows; --": ["x"]}, None, "query"),
    ({"split": "nonsense"}, None, "split"), ({"split": "../x"}, None, "split"), ({}, "chars; DROP TABLE x", "sort"),
    ({}, "row", "sort"), ({}, "reason", "reason"), ([1], None, "query")])
def test_what_cannot_be_asked_is_refused_at_its_field(table: Table, query: Any, sort: Any, field: str) -> None:
    with pytest.raises(StudioError) as refused:
        table.page(query_of(query, sort))
    assert refused.value.field == field


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(search=st.text(max_size=20), regex=st.booleans(), key=st.text(min_size=1, max_size=8), value=st.text(max_size=8))
def test_nothing_typed_is_code(table: Table, search: str, regex: bool, key: str, value: str) -> None:
    """Any text is either looked for or refused in words; nothing else happens."""
    for query, sort in (({"search": search, "regex": regex}, None), ({"tags": {key: [value]}}, f"tag:{key}"),
                        ({"source": [value]}, None)):
        try:
            table.page(query_of(query, sort), 0, 3)
        except StudioError as err:
            assert err.field in ("search", "sort", "tags")


def test_odd_folder_names_are_read_literally(tmp_path: Path) -> None:
    for name in ("a[1]", "b*", "c?d", "it's", 'q"uote', "sp ace"):
        table = Table(written(tmp_path / name, [{"text": name}, {"text": "other"}]))
        assert table.page(query_of({"search": "other"}))["rows"][0]["pos"] == 1


def test_giant_rows_are_shown_cut(tmp_path: Path) -> None:
    big = {"messages": [{"role": "user", "content": "q" * (10 << 20)}, {"role": "assistant", "content": "short"}]}
    table = Table(written(tmp_path / "d", [big] * 3))
    rows = table.page(query_of({}))["rows"]
    assert sum(len(json.dumps(row)) for row in rows) < 100_000 and all(row["cut"] > 10 << 20 for row in rows)
    assert rows[0]["row"]["messages"][1]["content"] == "short"
    assert table.rows("train", [1], whole=True)[0]["row"] == big


def test_the_same_question_at_once_is_worked_out_once(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, search = [], Table._search
    monkeypatch.setattr(Table, "_search", lambda self, *a: (asked.append(1), search(self, *a))[1])
    answers: list[list[int]] = []
    threads = [threading.Thread(target=lambda: answers.append(found(table, {"search": "word word word"}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 8 and all(answer == list(range(2, 50)) for answer in answers) and len(asked) == 1


def test_row_numbers_are_forgotten_when_they_are_many(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CACHED", 1000)
    tables._positions.clear()
    for i in range(30):
        found(table, {"chars": [0, 10_000 + i]})
    assert sum(array.nbytes for array in tables._positions.values()) <= 1000


def test_a_version_made_anew_in_the_same_place_is_not_mistaken(tmp_path: Path) -> None:
    first = Table(written(tmp_path / "d", [{"text": "apple"}, {"text": "pear"}]))
    assert found(first, {"search": "pear"}) == [1]
    second = Table(written(tmp_path / "d", [{"text": "pear"}, {"text": "apple"}]))
    assert found(second, {"search": "pear"}) == [0]


def test_damaged_files_are_told(tmp_path: Path) -> None:
    version = written(tmp_path / "d", [{"text": f"t{i}"} for i in range(100)])
    version.file().write_bytes(version.file().read_bytes()[:200])
    with pytest.raises(StudioError, match="cannot be read"):
        Table(version).page(query_of({"search": "t5"}))


_change = st.tuples(st.integers(0, 7), st.sampled_from(["set", "keep", "drop", "delete", "undo"]), st.sampled_from(["apple pie", "pear"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(_change, max_size=8), desc=st.booleans(), sort=st.sampled_from([None, "chars"]),
       state=st.sampled_from([[], ["edited"], ["keep", "drop"], ["unreviewed"], ["deleted", "unreviewed"]]),
       search=st.sampled_from(["", "apple"]))
def test_whatever_was_changed_a_question_is_answered_as_it_stands(tmp_path: Path, changes: list, desc: bool, sort: str | None,
                                                                  state: list, search: str) -> None:
    """Asked before and after every change, so that what is remembered of earlier answers is put right."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    rows = [{"text": f"{'apple' if i % 2 else 'plum'} {'x' * (7 * i % 5)}{i}"} for i in range(8)]
    table = Table(written(folder, rows), Edits(folder / "log.jsonl"))
    query = {"search": search, "state": state}
    for change in [None, *changes]:
        if change is not None:
            pos, word, text = change
            if word != "undo":
                table.edits.append("train", [{"op": word, "pos": pos, **({"row": {"text": text}} if word == "set" else {})}])
            elif table.edits.count:
                table.edits.undo()
        marks = table.marks("train")
        now = [marks[i].row if i in marks and marks[i].row else row for i, row in enumerate(rows)]
        checks = {"edited": lambda m: m.row is not None, "keep": lambda m: m.review == "keep",
                  "drop": lambda m: m.review == "drop", "deleted": lambda m: m.deleted}
        wanted = [i for i in range(8) if search in now[i]["text"] and (not state or any(
            (i not in marks or not marks[i].review) if word == "unreviewed" else i in marks and checks[word](marks[i])
            for word in state))]
        if sort:
            wanted.sort(key=lambda i: (-len(now[i]["text"]) if desc else len(now[i]["text"]), i))
        elif desc:
            wanted.reverse()
        assert found(table, query, sort=sort, desc=desc) == wanted
        counted = table.facets(query_of({"search": search}))["state"]
        assert counted["keep"] == sum(search in now[i]["text"] and m.review == "keep" for i, m in marks.items())
