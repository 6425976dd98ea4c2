"""Recipes: reading hostile and honest files, plain messages, round trips."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio import recipe
from studio.errors import StudioError
from studio.recipe import Recipe, RecipeError, field, fields, parse, read_values, read_yaml
from studio.registry import FAMILIES


class Sample(Recipe):
    """One field of every shape."""

    kind, method = "sample", "one"

    count: int = field(3, "Count", "How many.", ge=1, le=10, unit="pieces")
    rate: float = field(1e-4, "Rate", "How fast.", gt=0, lt=1, widget="log")
    on: bool = field(False, "On", "Whether.")
    mode: Literal["a", "b"] = field("a", "Mode", "Which.", choices={"a": "First", "b": "Second"})
    text: str = field("", "Text", "What.", max_length=20)
    maybe: int | None = field(None, "Maybe", "If at all.", ge=0)
    words: list[str] = field([], "Words", "Which ones.")
    table: dict[str, float] = field({}, "Table", "Pairs.")
    late: int = field(1, "Late", "Later.", when={"on": [True]}, group="advanced")


def test_specs_say_what_a_form_needs() -> None:
    specs = {spec.name: spec for spec in fields(Sample)}
    assert [*specs] == ["name", "count", "rate", "on", "mode", "text", "maybe", "words", "table", "late"]
    assert {n: s.type for n, s in specs.items()} == {
        "name": "str", "count": "int", "rate": "float", "on": "bool", "mode": "choice", "text": "str", "maybe": "int",
        "words": "list", "table": "dict", "late": "int"}
    assert specs["count"].bounds == {"ge": 1, "le": 10} and specs["count"].unit == "pieces"
    assert specs["mode"].choices == [("a", "First"), ("b", "Second")]
    assert specs["maybe"].optional and specs["maybe"].default is None and not specs["count"].optional
    assert specs["late"].when == {"on": [True]} and specs["late"].group == "advanced"


def test_defaults_are_not_shared() -> None:
    one, two = Sample(), Sample()
    one.words.append("x")
    assert two.words == [] and fields(Sample)[7].default == []


@pytest.mark.parametrize(("values", "name", "word"), [
    ({"count": 0}, "count", "at least 1"), ({"count": 11}, "count", "at most 10"), ({"count": "x"}, "count", "whole number"),
    ({"count": 1.5}, "count", "whole number"), ({"rate": 0}, "rate", "more than 0"), ({"rate": 1}, "rate", "less than 1"),
    ({"rate": math.nan}, "rate", "ordinary number"), ({"rate": "nan"}, "rate", "ordinary number"),
    ({"rate": math.inf}, "rate", ""), ({"rate": "fast"}, "rate", "a number"), ({"mode": "c"}, "mode", "one of"),
    ({"text": "x" * 21}, "text", "20"), ({"cuont": 3}, "cuont", "'count'"), ({"name": "../x"}, "name", "path"),
    ({"name": "<script>"}, "name", "letters"), ({"words": "x"}, "words", "list"), ({"maybe": -1}, "maybe", "at least 0")])
def test_messages_name_the_field_and_what_is_wrong(monkeypatch: pytest.MonkeyPatch, values: dict, name: str, word: str) -> None:
    monkeypatch.setattr("studio.registry.method", lambda kind, method: type("M", (), {"Recipe": Sample}))
    with pytest.raises(RecipeError) as caught:
        parse({"kind": "sample", "method": "one"} | values)
    assert [*caught.value.fields] == [name] and caught.value.field == name
    assert word in caught.value.fields[name] and caught.value.fields[name].endswith((".", "?"))


def test_every_bad_field_is_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse({"kind": "sft", "method": "lora", "r": 0, "learning_rate": "x", "nonsense": 1})
    assert set(caught.value.fields) == {"r", "learning_rate", "nonsense"} and "2 more" in caught.value.message


@pytest.mark.parametrize(("values", "name"), [
    ([], None), ("text", None), ({}, "kind"), ({"kind": "sft"}, "method"), ({"kind": "sftt", "method": "lora"}, "kind"),
    ({"kind": "sft", "method": "lorra"}, "method"), ({"kind": "sft", "method": "lora", "schema_version": 2}, "schema_version"),
    ({"kind": "sft", "method": "lora", "schema_version": "1"}, "schema_version"),
    ({"kind": "sft", "method": "lora", "schema_version": True}, "schema_version"), ({"kind": ["sft"], "method": {"a": 1}}, "kind")])
def test_refused_whole(values: Any, name: str | None) -> None:
    with pytest.raises(StudioError) as caught:
        parse(values)
    assert caught.value.field == name and caught.value.hint


def test_a_newer_recipe_says_so() -> None:
    with pytest.raises(StudioError, match="reads up to 1"):
        parse({"schema_version": 99, "kind": "sft", "method": "lora", "invented_later": 1})


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "+1e-4", "0.0001", "1.e-4"])
def test_small_numbers_as_people_write_them(text: str) -> None:
    assert read_yaml(f"x: {text}") == {"x": pytest.approx(1e-4)}


@pytest.mark.parametrize("text", [
    "!!python/object/apply:os.system ['true']", "a: &x [1]\nb: *x", "x: !foo bar", "a: [", "\x00", "a: b: c", "\t- x", "%YAML 9",
    "a: " + "[" * 60 + "]" * 60, "x: " + "y" * 300_000, "[" * 5000])
def test_hostile_yaml_is_refused(text: str) -> None:
    with pytest.raises(StudioError):
        read_yaml(text)


def test_a_bomb_of_aliases_costs_nothing() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
    with pytest.raises(StudioError, match="alias"):
        read_yaml(text)


@pytest.mark.parametrize(("data", "word"), [
    (b"", "no recipe"), (b"\xff\xfe\x00x", "not a text file"), (b"- a\n- b\n", "no recipe"), (b"just text", "no recipe"),
    (b"\x89PNG\r\n\x1a\n\x00", "not a text file"), (b"k: v\n" * 100_000, "larger than")])
def test_files_that_are_no_recipe(tmp_path: Path, data: bytes, word: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(data)
    with pytest.raises(StudioError, match=word):
        read_values(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(StudioError, match="cannot be read"):
            read_values(path)


def test_json_is_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"kind": "sft", "method": "lora", "dataset": "shipped:polite", "learning_rate": 1e-3}')
    assert recipe.load(path).learning_rate == 1e-3


_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(str.strip)
_values = st.fixed_dictionaries({}, optional={
    "count": st.integers(1, 10), "rate": st.floats(0, 1, exclude_min=True, exclude_max=True), "on": st.booleans(),
    "mode": st.sampled_from("ab"), "text": _text, "maybe": st.none() | st.integers(0, 10**12), "words": st.lists(_text, max_size=4),
    "table": st.dictionaries(_text, st.floats(allow_nan=False, allow_infinity=False), max_size=4), "late": st.integers(),
    "name": st.text("abc ABC019._-äß中", max_size=40).map(str.strip).filter(lambda t: not t.startswith("."))})


@settings(max_examples=200, deadline=None)
@given(_values)
def test_yaml_and_back_is_the_same(values: dict[str, Any]) -> None:
    made = Sample.model_validate(values)
    for only_changed in (False, True):
        read = read_yaml(made.to_yaml(only_changed))
        assert read.pop("kind") == "sample" and read.pop("method") == "one" and read.pop("schema_version") == 1
        assert Sample.model_validate(read) == made


@pytest.mark.parametrize(("kind", "name"), [(f.name, name) for f in FAMILIES.values() for name in f])
def test_defaults_of_every_method_come_back_from_yaml(kind: str, name: str) -> None:
    try:
        made = parse({"kind": kind, "method": name})
    except RecipeError as err:
        pytest.fail(f"defaults are refused: {err.fields}")
    assert parse(read_yaml(made.to_yaml())) == made
    assert parse(read_yaml(made.to_yaml(only_changed=True))) == made
