"""Benchmarks of one's own: rows become questions, a form becomes a task file, nothing typed becomes code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio import api
from studio.errors import StudioError
from studio.evals import bench, bench_guess, bench_task, tasks
from studio.evals.templates import Missing, TooLong, columns, compiled
from studio.recipe import read_yaml

Put = Callable[..., str]


@pytest.fixture
def put(home: Path) -> Put:
    """``put(rows, name)`` -> the reference of a file of the workspace."""
    (home / "uploads").mkdir(exist_ok=True)

    def made(rows: Any, name: str = "rows.jsonl") -> str:
        text = rows if isinstance(rows, str) else json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
        (home / "uploads" / name).write_text(text, "utf-8")
        return f"uploads/{name}"

    return made


def sums(count: int = 20) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} + 1?", "answer": f"It is #### {i + 1}", "topic": "odd" if i % 2 else "even"} for i in range(count)]


def refused(values: Any, *more: Any) -> StudioError:
    with pytest.raises(StudioError) as err:
        bench.save(values, *more)
    return err.value


# ---- templates


@pytest.mark.parametrize(("source", "made"), [
    ("{{q}}", " Hi "), ("{{q.strip()}}!", "Hi!"), ("{{q | trim}}", "Hi"), ("{% for a in l %}{{loop.index}}. {{a}}\n{% endfor %}", "1. a\n2. b\n"),
    ("{{d.x}}{{d['y']}}", "12"), ("{% if d.x > 0 %}yes{% else %}no{% endif %}", "yes"), ("{{l | join(', ')}}", "a, b"), ("{{q.split('i')[0]}}", " H"),
    ("{{nothing | default('-')}}", "-"), ("no column", "no column"), ("{{l[-1] ~ '!'}}", "b!"), ("a\n", "a\n")])
def test_templates_work_as_jinja(source: str, made: str) -> None:
    assert compiled(source, "prompt")({"q": " Hi ", "l": ["a", "b"], "d": {"x": 1, "y": 2}}) == made


@pytest.mark.parametrize("source", [
    "{{q.__class__}}", "{{q|attr('__class__')}}", "{{''.__class__.__mro__[1].__subclasses__()}}", "{{l.__init__.__globals__}}", "{{q.format(1)}}",
    "{% for a in q %}{% for b in q %}{% endfor %}{% endfor %}", "{{'%9999999d' % 1}}", "{{q * 99999999}}", "{{range(10)}}", "{% set a = 1 %}", "{% include 'x' %}",
    "{% import 'os' as o %}", "{% macro m() %}{% endmacro %}", "{{", "{% for %}", "{{q | nothing}}", "{{ cycler.__init__ }}", "{{q()}}", "{{" + "(" * 9000 + "q" + ")" * 9000 + "}}"])
def test_what_a_template_may_not(source: str) -> None:
    with pytest.raises(StudioError) as err:
        compiled(source, "prompt")({"q": "x" * 1000, "l": []})
    assert err.value.field == "prompt"


@pytest.mark.parametrize("source", ["{{q['__class__']}}", "{{q.replace('', '" + "b" * 5000 + "')}}", "{{q" + " | replace('x', 'xx')" * 40 + "}}", "{{l[q]}}", "{{d.x / 0}}",
                                    "{{l | join('" + "y" * 15000 + "')}}"])
def test_a_template_that_cannot_be_filled_in_says_so(source: str) -> None:
    with pytest.raises((StudioError, Missing, TooLong)):
        compiled(source, "target")({"q": "x" * 1000, "l": ["a"] * 1000, "d": {"x": 1}})


def test_a_missing_column_is_no_error_of_the_template() -> None:
    with pytest.raises(Missing):
        compiled("{{nothing}}", "prompt")({"q": 1})
    assert columns("{{a}} {% for b in c %}{{b}}{% endfor %}") == {"a", "c"}


# ---- rows


def test_a_benchmark_is_made_kept_listed_changed_and_removed(home: Path, put: Put) -> None:
    data = put(sums())
    made = bench.save({"title": "Sums of Übung", "dataset": data, "metric": "number", "tags": ["topic"], "num_fewshot": 3, "limit": 12})
    assert made == {"name": "sums-of-übung", "title": "Sums of Übung", "task": "bench:sums-of-übung", "items": 12, "fewshot": 3, "left_out": [],
                    "notes": [], "plain": False}
    folder = home / "benchmarks" / "sums-of-übung"
    assert sorted(path.name for path in folder.iterdir()) == ["builder.json", "fewshot.jsonl", "scoring.py", "sums-of-übung.yaml", "test.jsonl"]
    rows = [json.loads(line) for line in (folder / "test.jsonl").open()]
    shots = [json.loads(line) for line in (folder / "fewshot.jsonl").open()]
    assert len({row["id"] for row in rows + shots}) == 15, "no example is asked as well"
    assert all(row["tags"]["topic"] in ("odd", "even") for row in rows)
    (line,) = bench.listed()
    assert (line["title"], line["items"], line["metric_title"], line["edit"]) == ("Sums of Übung", 12, "The same number", True)
    again = bench.load("sums-of-übung")
    assert bench.save(again | {"limit": 5}, None, "sums-of-übung")["items"] == 5
    assert [row["id"] for row in map(json.loads, (folder / "test.jsonl").open())] == [row["id"] for row in rows[:5]], "ids and the drawing stay"
    assert "already" in refused(again).message, "another benchmark is never overwritten"
    renamed = bench.save(again | {"title": "Sums"}, None, "sums-of-übung")
    assert renamed["name"] == "sums" and [one["name"] for one in bench.listed()] == ["sums"]
    bench.delete("sums")
    assert bench.listed() == [] and not (home / "benchmarks" / "sums").exists()
    with pytest.raises(StudioError):
        bench.load("sums")
    assert not list((home / "exports").glob(".bench*")), "nothing half written stays"


def test_the_task_file_reads_back_as_it_was_written(put: Put) -> None:
    nasty = "Say {{7*7}} {% raw %} !function os.system\n# no comment: 'quotes' \"both\" \\n \t \u2028 £ ключ"
    data = put([{"question": nasty + str(i), "answer": f"{nasty}{i}"} for i in range(6)])
    bench.save({"title": "!function os.system: {{x}}", "about": nasty[:200], "dataset": data, "metric": "exact", "description": nasty, "until": [nasty, "\n"],
                "num_fewshot": 1})
    (name,) = (one["name"] for one in bench.listed())
    text = bench.text_of(name)
    path = tasks.benchmarks() / name / f"{name}.yaml"
    made = tasks.read(path)
    parsed, metric = bench.parse(bench.load(name))
    wanted = bench_task.values(parsed, metric, 1, None)
    assert made.pop("process_results") == "!function scoring.process_results" and wanted.pop("process_results") == "scoring.process_results"
    assert made.pop("custom_dataset") == "!function scoring.load" and wanted.pop("custom_dataset") == "scoring.load"
    assert made == wanted and made["generation_kwargs"]["until"] == [nasty, "\n"] and made["metadata"]["title"] == "!function os.system: {{x}}"
    assert text.count("!function") - text.count("!function os.system") == 2, "only ours"
    assert made["doc_to_text"] == "prompt" and made["doc_to_target"] == "target" and made["description"] == "description", "columns alone: no text is a template"
    rows = [json.loads(line) for line in (path.parent / "test.jsonl").open(encoding="utf-8")]
    assert all(row["description"] == nasty.strip() + "\n\n" and row["prompt"].startswith(nasty) for row in rows)
    assert nasty not in (path.parent / "scoring.py").read_text()
    assert read_yaml(text.replace("!function 'scoring.load'", "a").replace("!function 'scoring.process_results'", "b"))["task"] == f"bench_{name}"


@pytest.mark.parametrize("title", ["../../x", "/etc/passwd", "..", "a/b\\c", "con\x00", "x" * 80, "<b>bold</b>", "$(rm -rf)", ".hidden", "-rf", "Привет мир"])
def test_hostile_names_stay_in_their_folder(home: Path, put: Put, title: str) -> None:
    data = put(sums(4))
    try:
        made = bench.save({"title": title, "dataset": data})
    except StudioError as err:
        assert err.field == "title"
        assert not (home / "benchmarks").exists()
        return
    folder = home / "benchmarks" / made["name"]
    assert folder.is_dir() and folder.resolve().parent == home / "benchmarks" and not made["name"].startswith((".", "-"))
    assert tasks.find(made["task"])[0].path == folder / f"{made['name']}.yaml"


@pytest.mark.parametrize("name", ["../x", "..", "", "a/b", ".x", "x" * 61, None, 7, "a\x00", "x y"])
def test_hostile_names_are_no_names(home: Path, name: Any) -> None:
    (home / "x").mkdir()
    (home / "x" / "builder.json").write_text('{"values": {}}')
    for ask in (bench.load, bench.delete, bench.text_of):
        with pytest.raises(StudioError):
            ask(name)
    assert (home / "x" / "builder.json").exists()


def test_people_see_their_own(home: Path, put: Put) -> None:
    data = put(sums(4))
    bench.save({"title": "Mine", "dataset": data}, "ann")
    bench.save({"title": "Yours", "dataset": data}, "bob")
    assert [one["name"] for one in bench.listed("ann")] == ["mine"] and len(bench.listed()) == 2
    assert [line["name"] for line in tasks.catalogue("ann") if line["source"] == "own"] == ["bench:mine"]
    for ask in (bench.load, bench.delete):
        with pytest.raises(StudioError):
            ask("yours", "ann")
    assert "already" in refused({"title": "Yours", "dataset": data}, "ann").message
    with pytest.raises(StudioError):
        bench.save({"title": "Yours", "dataset": data}, "ann", "yours")
    assert bench.load("yours", "bob")["dataset"] == data


def test_other_peoples_things_are_refused(home: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    data = put(sums(4))
    monkeypatch.setenv("SPACE_ID", "a/b")
    with pytest.raises(StudioError):
        api.bench_preview({"title": "A", "dataset": data}, "ann")
    with pytest.raises(StudioError):
        api.bench_save({"title": "A", "dataset": "shipped:polite"})
    with pytest.raises(StudioError) as err:
        api.bench_preview({"title": "A", "dataset": "shipped:polite", "metric": "embedding", "options": {"model": "models"}}, "ann")
    assert err.value.field == "options.model"
    assert api.bench_preview({"title": "A", "dataset": "shipped:polite", "metric": "rouge"}, "ann")["items"]


def test_a_task_put_there_by_hand_is_listed(home: Path) -> None:
    folder = home / "benchmarks" / "handmade"
    folder.mkdir(parents=True)
    (folder / "handmade.yaml").write_text("task: handmade\n")
    (line,) = bench.listed()
    assert (line["task"], line["edit"]) == ("bench:handmade", False)
    (folder / "builder.json").write_text("{torn")
    assert bench.listed()[0]["edit"] is False


# ---- multiple choice


@pytest.mark.parametrize(("row", "choices", "right"), [
    ({"options": ["red", "green", "blue"], "answer": 1}, "options", 1), ({"options": ["red", "green", "blue"], "answer": "1"}, "options", 1),
    ({"options": ["red", "green", "blue"], "answer": "B"}, "options", 1), ({"options": ["red", "green", "blue"], "answer": "(b)"}, "{{options}}", 1),
    ({"options": ["red", "green", "blue"], "answer": " Green "}, "options", 1), ({"options": {"text": ["red", "green"], "label": ["1", "2"]}, "answer": "2"}, "options", 1),
    ({"A": "red", "B": "green", "C": None, "answer": "B"}, "A, B, C", 1), ({"options": '["red", "green"]', "answer": "green"}, "options", 1),
    ({"options": ["3", "2", "1"], "answer": "2"}, "options", 1), ({"answer": "no"}, "yes\nno", 1), ({"options": {"a": "red", "b": "green"}, "answer": "b"}, "options", 1),
    ({"options": [{"text": "red"}, {"text": "green"}], "answer": "green"}, "options", 1)])
def test_options_are_understood_as_they_are_given(put: Put, row: dict, choices: str, right: int) -> None:
    data = put([row | {"question": "Which?", "n": i} for i in range(3)])
    found = bench.preview({"title": "C", "dataset": data, "metric": "multiple_choice", "prompt": "{{question}} {{n}}", "choices": choices})
    assert [one["gold"] for one in found["items"]] == [right] * 3 and len(found["items"][0]["choices"]) >= 2


def test_options_listed_in_the_question_are_answered_by_letter(put: Put) -> None:
    data = put([{"input": f"Which of {i}?\nOptions:\n(A) red\n(B) green\n(C) blue", "target": f"({'ABC'[i % 3]})"} for i in range(6)])
    found = bench.preview({"title": "C", "dataset": data, "metric": "multiple_choice", "prompt": "{{input}}", "target": "{{target}}"})
    assert found["items"][1]["choices"] == ["(A)", "(B)", "(C)"] and [one["gold"] for one in found["items"]] == [0, 1, 2, 0, 1]


def test_numbers_that_begin_at_one(put: Put) -> None:
    rows = [{"question": f"{i}?", "options": ["a", "b", "c"], "answer": i % 3 + 1} for i in range(9)]
    found = bench.preview({"title": "C", "dataset": put(rows), "metric": "multiple_choice", "choices": "options"})
    assert [one["gold"] for one in found["items"]] == [0, 1, 2, 0, 1] and "the first is 1" in found["notes"][0]


def test_rows_that_are_no_question_are_counted_by_reason(put: Put) -> None:
    rows = [{"question": "1?", "options": ["a", "b"], "answer": "a"}, {"question": "1?", "options": ["a", "b"], "answer": "a"}, {"question": " ", "options": ["a", "b"], "answer": "a"},
            {"question": "2?", "options": ["a"], "answer": "a"}, {"question": "3?", "options": ["a", "b"], "answer": "z"}, {"question": "4?", "options": ["a", "b"]},
            {"options": ["a", "b"], "answer": "a"}, {"question": "5?", "options": "none", "answer": "a"}, {"question": "6?", "options": ["a", "a"], "answer": "a"}]
    made = bench.save({"title": "C", "dataset": put(rows), "metric": "multiple_choice", "choices": "options"})
    assert made["items"] == 1
    assert {one["code"]: one["count"] for one in made["left_out"]} == {"same": 1, "no_question": 1, "few_options": 2, "no_option": 2, "no_target": 1, "no_column": 1}
    assert all(one["message"] for one in made["left_out"])


# ---- bad data and bad forms


def test_what_is_refused_and_where(put: Put) -> None:
    data = put(sums(4))
    good = {"title": "T", "dataset": data}
    for change, field in (({"title": ""}, "title"), ({"title": "!!!"}, "title"), ({"dataset": ""}, "dataset"), ({"dataset": "uploads/gone.jsonl"}, "dataset"),
                          ({"metric": "nonsense"}, "metric"), ({"limit": 0}, "limit"), ({"num_fewshot": 33}, "num_fewshot"), ({"num_fewshot": 4}, "dataset"),
                          ({"prompt": "{{nothing}}"}, "prompt"), ({"target": "{{nothing}}"}, "target"), ({"target": ""}, "target"), ({"prompt": "  "}, "prompt"),
                          ({"metric": "multiple_choice", "choices": "topic"}, "choices"), ({"prompt": "{{"}, "prompt"), ({"surprise": 1}, "surprise"),
                          ({"metric": "regex"}, "options.pattern"), ({"metric": "number", "options": {"tolerance": 9}}, "options.tolerance"),
                          ({"metric": "judge"}, "options.judge"), ({"metric": "embedding"}, "options.model"), ({"fewshot_dataset": "uploads/gone.jsonl", "num_fewshot": 1}, "dataset")):
        err = refused(good | change)
        assert err.field == field, (change, err.field, err.message)
        assert err.message
    for nothing in (None, [], "x", 7):
        assert refused(nothing).message
    assert bench.listed() == []


@pytest.mark.parametrize(("text", "name"), [("", "a.jsonl"), ("{}\n{}\n", "a.jsonl"), ("\x00\x01\x02", "a.jsonl"), ("[]", "a.json"), ("[[[[", "a.json"), ("a,b\n", "a.csv")])
def test_data_without_questions(put: Put, text: str, name: str) -> None:
    assert refused({"title": "T", "dataset": put(text, name)}).field in ("dataset", "prompt")


def test_odd_rows_do_no_harm(put: Put) -> None:
    rows = [{"question": {"deep": [1, {"x": None}]}, "answer": 3.5}, {"question": "q\ud800", "answer": "a\u2028b"}, {"question": "x" * 500_000, "answer": "a"},
            {"question": True, "answer": False}, {"question": 7, "answer": ["a", "", None, "b"]}]
    made = bench.save({"title": "Odd", "dataset": put(rows)})
    kept = [json.loads(line) for line in (tasks.benchmarks() / "odd" / "test.jsonl").open(encoding="utf-8")]
    assert made["items"] == len(kept) == 4
    assert next(row for row in kept if row["prompt"] == "7")["references"] == ["a", "b"]
    assert next(row for row in kept if row["prompt"].startswith("q"))["target"] == "a\u2028b"


def test_chats_and_texts_are_asked_alike(home: Path, put: Put) -> None:
    chat = put([{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": f"A{i}"}]} for i in range(4)], "chat.jsonl")
    one = bench.preview({"title": "T", "dataset": chat, "prompt": "{{system}} {{question}}"})["items"][0]
    assert (one["prompt"], one["target"]) == ("Be kind. Q0", "A0")
    texts = put([{"text": f"Once upon a time there were {i} bears."} for i in range(4)], "text.jsonl")
    assert bench_guess.suggest(texts)["values"]["metric"] == "perplexity"
    made = bench.save({"title": "L", "dataset": texts, "metric": "perplexity", "prompt": "{{text}}", "num_fewshot": 2})
    assert made["items"] == 2 and not (home / "benchmarks" / "l" / "fewshot.jsonl").exists()
    shipped = bench_guess.suggest("shipped:polite-heldout")
    assert {"question", "answer"} <= set(shipped["columns"])
    assert bench.preview({"title": "T", "dataset": "shipped:polite-heldout"} | shipped["values"])["items"]


def test_examples_may_come_from_elsewhere(put: Put) -> None:
    train = put([{"question": f"train {i}", "answer": f"a{i}"} for i in range(9)], "train.jsonl")
    found = bench.preview({"title": "T", "dataset": put(sums(5)), "num_fewshot": 2, "fewshot_dataset": train, "description": "Be brief."})
    assert found["items"][0]["shown"] == "Be brief.\n\ntrain 0 a0\n\ntrain 1 a1\n\nWhat is 0 + 1?"
    assert len(found["items"]) == 5


@pytest.mark.parametrize(("rows", "metric", "more"), [
    ([{"question": f"{i}?", "answer": f"Because #### {i}"} for i in range(9)], "number", {}),
    ([{"input": f"{i} is even.", "target": "True" if i % 2 else "False"} for i in range(20)], "multiple_choice", {"choices": "False\nTrue"}),
    ([{"question": f"{i}?", "choices": ["a", "b"], "answer": 0} for i in range(9)], "multiple_choice", {"choices": "choices"}),
    ([{"question": f"{i}?", "A": "x", "B": "y", "C": "z", "D": "w", "answer": "A"} for i in range(9)], "multiple_choice", {"choices": "A, B, C, D"}),
    ([{"text": f"Write {i}", "code": "def f(): pass", "test_list": ["assert 1", "assert 2"], "task_id": i} for i in range(9)], "unit_tests",
     {"prompt": "{{text}}\nYour code should pass these tests:\n{{test_list | join('\\n')}}\n", "options": {"column": "test_list"}}),
    ([{"prompt": f"def f{i}():", "test": "def check(f): pass", "entry_point": f"f{i}", "canonical_solution": "pass"} for i in range(9)], "unit_tests",
     {"options": {"column": "test", "complete": True}}),
    ([{"question_id": i, "category": "writing" if i % 2 else "maths", "turns": [f"Do {i}", "again"]} for i in range(9)], "judge", {"prompt": "{{turns[0]}}", "tags": ["category"]}),
    ([{"instruction": f"Tell {i}", "output": f"a long answer of many words about the number {i}"} for i in range(30)], "rouge", {}),
    ([{"question": f"Capital of {i}?", "answer": f"City {i}"} for i in range(30)], "exact", {"options": {"loose": True}})])
def test_a_first_guess(put: Put, rows: list, metric: str, more: dict) -> None:
    found = bench_guess.suggest(put(rows))
    values = found["values"]
    assert values["metric"] == metric and {key: values[key] for key in more} == more and found["why"]
    assert bench.preview({"title": "T", "dataset": "uploads/rows.jsonl"} | values | ({"options": {"judge": "starter"}} if metric == "judge" else {}))["items"]


def test_a_trial_tells_right_from_wrong(put: Put) -> None:
    data = put(sums(4))
    made = bench.tried({"title": "T", "dataset": data, "metric": "number"})
    assert [(row["kind"], row["scores"]["exact_match"]) for row in made["rows"]] == [("right", 1.0), ("wrong", 0.0)] * 4 and not made["notes"]
    typed = bench.tried({"title": "T", "dataset": data, "metric": "number"}, "I say 3", 2)
    assert typed["rows"] == [{"index": 2, "kind": "typed", "answer": "I say 3", "scores": {"exact_match": 1.0}, "reason": ""}]
    blind = bench.tried({"title": "T", "dataset": data, "metric": "regex", "options": {"pattern": "It is"}})
    assert "does not tell right from wrong" in blind["notes"][0]
    with pytest.raises(StudioError) as err:
        bench.tried({"title": "T", "dataset": data, "metric": "perplexity"})
    assert err.value.field == "metric"


def test_preview_reads_little_and_writes_nothing(home: Path, put: Put) -> None:
    found = bench.preview({"title": "T", "dataset": put(sums(150)), "metric": "exact"})
    assert found["read"] == 5 and len(found["items"]) == bench.SHOWN and "task: bench_t\n" in found["yaml"]
    assert not (home / "benchmarks").exists()


def test_lists_of_more_lines_than_one(put: Put) -> None:
    """BIG-Bench Hard's files: one object with a canary and a list of examples."""
    data = put({"canary": "do not train on this", "examples": [{"input": f"not {i}", "target": "True" if i % 2 else "False"} for i in range(20)]}, "bbh.json")
    found = bench_guess.suggest(data)
    assert found["values"]["metric"] == "multiple_choice" and "input" in found["columns"]
    assert bench.save({"title": "B", "dataset": data} | found["values"])["items"] == 20


def test_nothing_heavy_is_imported_to_build_one() -> None:
    code = "import sys\nfrom studio.evals import bench, bench_guess, bench_task, metrics\nmetrics.catalogue()\nprint([m for m in ('torch', 'lm_eval', 'datasets', 'sacrebleu', 'nltk', 'gradio') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
