"""Registries: lazy, honest about names, open to plugins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from studio import registry, settings
from studio.errors import StudioError
from studio.registry import FAMILIES, Registry


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    made: Registry = Registry("x", "X", "an x")
    made.add("late", "no_such_module_anywhere:Thing")
    assert "late" in made and [*made] == ["late"]
    with pytest.raises(ModuleNotFoundError):
        made.get("late")


def test_the_same_object_each_time() -> None:
    made: Registry = Registry("x", "X", "an x")
    made.add("path", "pathlib:Path")
    assert made.get("path") is Path is made.get("path")
    assert list(made.items()) == [("path", Path)]


def test_a_name_has_one_target() -> None:
    made: Registry = Registry("x", "X", "an x")
    made.add("a", "pathlib:Path")
    made.add("a", "pathlib:Path")
    with pytest.raises(ValueError, match="already"):
        made.add("a", "os:sep")
    made.remove("a")
    made.add("a", "os:sep")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(StudioError) as caught:
        registry.method("sft", "lorra")
    assert "'lora'" in caught.value.hint and caught.value.field == "method"
    with pytest.raises(StudioError) as caught:
        registry.family("pretrian")
    assert "'pretrain'" in caught.value.hint and caught.value.field == "kind"
    with pytest.raises(StudioError, match="method 'zzz'"):
        registry.method("sft", "zzz")


def test_names_agree_with_the_classes() -> None:
    for family in FAMILIES.values():
        for name, method in family.items():
            assert (method.Recipe.kind, method.Recipe.method) == (family.name, name)
            assert method.title and method.summary.endswith("."), name
            assert method.paper == "" or method.paper.startswith("https://"), name


def test_a_broken_plugin_is_told_in_one_line() -> None:
    code = "from studio.errors import StudioError\ntry:\n    import studio.registry\nexcept StudioError as err:\n    print(err)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=settings.ROOT,
                          env={"ATELIER_PLUGINS": "no_such_plugin:add", "PATH": ""})
    assert "no_such_plugin:add cannot be loaded" in done.stdout and "ATELIER_PLUGINS" in done.stdout
