"""Promises that every recipe of every family keeps."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import registry
from studio.errors import StudioError
from studio.recipe import FieldSpec, RecipeError, fields, parse, read_yaml

METHODS = [(family.name, name) for family in registry.FAMILIES.values() for name in family]
RECIPES = {key: registry.method(*key).Recipe for key in METHODS}
TRAINERS = [key for key in METHODS if key[0] in ("sft", "pretrain")]
_plain = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=30)


@pytest.mark.parametrize("key", METHODS, ids="/".join)
def test_every_field_is_explained_and_bounded(key):
    for spec in fields(RECIPES[key]):
        assert spec.title and len(spec.help) > 20 and spec.help[-1] in ".:", spec
        assert spec.group in ("basic", "method", "training", "watch", "adapter", "advanced"), spec.name
        if spec.type in ("int", "float"):
            assert {"ge", "gt"} & spec.bounds.keys() and {"le",
                                                          "lt"} & spec.bounds.keys(), f"{spec.name} has no bounds"
            low, high = spec.bounds.get("ge", spec.bounds.get("gt")), spec.bounds.get("le", spec.bounds.get("lt"))
            assert (spec.optional and spec.default is None) or low <= spec.default <= high, spec.name
        if spec.type == "str":
            assert "max_length" in spec.bounds, f"{spec.name} takes a text of any length"
        for other, allowed in spec.when.items():
            assert other in RECIPES[key].model_fields and allowed


@pytest.mark.parametrize("key", METHODS, ids="/".join)
def test_method_introduces_itself(key):
    method = registry.method(*key)
    assert method.title and method.summary.endswith(".") and (not method.paper or method.paper.startswith("https://"))
    assert (RECIPES[key].kind, RECIPES[key].method) == key


@pytest.mark.parametrize("key", TRAINERS, ids="/".join)
def test_curated_fields(key):
    """About 25 fields in plain language, in three groups, beside the name and the adapter's own."""
    names = [s.name for s in fields(RECIPES[key]) if s.group in ("basic", "training", "watch")
             and s.widget != "hidden"]
    assert 25 <= len(names) <= 45
    assert {s.group for s in fields(RECIPES[key])} >= {"basic", "training", "watch"}


@pytest.mark.parametrize("key", TRAINERS, ids="/".join)
def test_fields_exist_in_the_library(key):
    """A field named after a library's argument is that argument, so that a renamed one is found here."""
    for spec in fields(RECIPES[key]):
        if not spec.library:
            continue
        module, _, name = spec.library.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        if dataclasses.is_dataclass(cls):
            known = {f.name for f in dataclasses.fields(cls)}
        else:
            known = set(inspect.signature(cls.__init__).parameters)
        assert spec.name in known, f"{spec.library} has no {spec.name}"


def test_table_of_library_fields_is_up_to_date():
    from studio.trainers import extras

    written = json.loads(extras.TABLE.read_text("utf-8"))
    assert extras.read_library() == written, "run: python -m studio.trainers.extras"


def _value(spec: FieldSpec) -> st.SearchStrategy:
    b = spec.bounds
    if spec.choices and spec.type in ("choice", "str"):
        return st.sampled_from([value for value, _ in spec.choices])
    if spec.type == "int":
        return st.integers(b.get("ge", b.get("gt", 0) + 1), b.get("le", b.get("lt", 1) - 1))
    if spec.type == "float":
        low, high = b.get("ge", b.get("gt")), b.get("le", b.get("lt"))
        made = st.floats(low, high, exclude_min="gt" in b, exclude_max="lt" in b)
        return made.map(lambda x: float(int(x)) if spec.name == "warmup_steps" and x >= 1 else x)
    if spec.type == "bool":
        return st.booleans()
    if spec.type == "list":
        return st.lists(_plain.map(str.strip).filter(bool), max_size=3)
    if spec.type == "dict":
        return st.dictionaries(_plain.map(str.strip).filter(bool), _plain.map(str.strip).filter(bool), max_size=2) \
            if spec.name == "columns" else st.just({})
    return _plain.map(str.strip).filter(lambda t: spec.name != "name" or not (set(t) & set("/\\<>\"'")
                                                                              or t.startswith(".")))


@st.composite
def _recipes(draw):
    key = draw(st.sampled_from(METHODS))
    specs = [s for s in fields(RECIPES[key]) if draw(st.booleans())]
    values = {s.name: draw(_value(s)) for s in specs}
    try:
        return parse({"kind": key[0], "method": key[1], **values})
    except RecipeError:  # fields that do not go together, e.g. heads that do not divide the width
        return parse({"kind": key[0], "method": key[1], **{k: v for k, v in values.items()
                                                           if k in ("name", "seed", "dataset")}})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(_recipes())
def test_yaml_is_the_identity(recipe):
    for only_changed in (False, True):
        again = parse(read_yaml(recipe.to_yaml(only_changed)))
        assert type(again) is type(recipe) and again == recipe
    assert parse(recipe.to_dict()) == recipe


@pytest.mark.parametrize("key", METHODS, ids="/".join)
def test_bad_values_are_refused_in_their_field(key):
    for spec in fields(RECIPES[key]):
        if spec.type not in ("int", "float"):
            continue
        bad = [math.nan, math.inf, "many", spec.bounds.get("le", spec.bounds.get("lt")) * 2 + 1]
        for value in bad:
            with pytest.raises(RecipeError) as caught:
                parse({"kind": key[0], "method": key[1], spec.name: value})
            assert list(caught.value.fields) == [spec.name], (spec.name, value)
    with pytest.raises(RecipeError) as caught:
        parse({"kind": key[0], "method": key[1], "learning_rte": 1})
    assert "no such field" in caught.value.message


def test_a_newer_recipe_is_refused():
    with pytest.raises(StudioError, match="schema_version 99") as caught:
        parse({"schema_version": 99, "kind": "sft", "method": "lora"})
    assert "Update the studio" in caught.value.hint


@pytest.mark.parametrize("extra, word", [({"adam_beta2": 0.95}, None),
                                         ({"lr_scheduler_kwargs": {"num_cycles": 2}}, None),
                                         ({"adam_beta22": 0.9}, "did you mean 'adam_beta2'"),
                                         ({"learning_rate": 1.0}, "has its own field"),
                                         ({"output_dir": "/etc"}, "set by the studio"),
                                         ({"hub_token": "x"}, "set by the studio"),
                                         ({"adam_beta2": "high"}, "must be float"),
                                         ({"full_determinism": 3}, "must be bool"), ({"torch_compile": True}, None)])
def test_more_settings_are_checked(extra, word):
    values = {"kind": "sft", "method": "lora", "extra": extra}
    if word is None:
        assert parse(values).extra == extra
        return
    with pytest.raises(RecipeError) as caught:
        parse(values)
    assert word in caught.value.message


def test_importing_methods_imports_no_heavy_library():
    code = ("import sys; from studio import registry\nfor family in registry.FAMILIES.values():\n    "
            "list(family.items())\nprint(sorted(m for m in ('torch', 'transformers', 'trl', 'peft', 'datasets', "
            "'gradio', 'pandas') if m in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ.copy(),
                          check=True)
    assert done.stdout.strip() == "[]"
