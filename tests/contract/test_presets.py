"""Every preset is a recipe that validates, says for whom it is, and starts where its data are shipped."""

from __future__ import annotations

import pytest

from studio import api, registry, settings
from studio.recipe import parse, read_values

PRESETS = sorted(settings.PRESETS.glob("*/*.yaml"))
NAMES = [f"{p.parent.name}/{p.stem}" for p in PRESETS]


def test_there_are_presets_for_both_families():
    assert {p.parent.name for p in PRESETS} <= set(registry.FAMILIES)
    assert sum(n.startswith("sft/") for n in NAMES) >= 4 and sum(n.startswith("pretrain/") for n in NAMES) >= 2
    assert "pretrain/starter" in NAMES
    assert {"data/clean-chat", "data/service-logs-to-preferences", "data/web-texts"} <= set(NAMES)


@pytest.mark.parametrize("path", PRESETS, ids=NAMES)
def test_preset(path, home):
    values = read_values(path)
    recipe = parse(values)
    assert recipe.kind == path.parent.name
    assert recipe.to_dict(only_changed=True).keys() >= {"kind", "method"}
    shown = next(p for p in api.presets(recipe.kind) if p["name"] == path.stem)
    assert shown["title"] and len(shown["for_whom"]) > 30 and shown["values"] == values
    for name in ("dataset", "eval_dataset", "model"):
        if str(values.get(name, "")).startswith(("shipped:", "starter")):
            break
    else:
        return
    if (settings.STARTER / "config.json").exists() and str(values.get("dataset", "")).startswith("shipped:"):
        registry.method(recipe.kind, recipe.method).check(recipe)
        if recipe.kind == "data":  # has no optimiser steps; tests/data runs each of these
            return
        estimate = registry.method(recipe.kind, recipe.method).estimate(recipe)
        if recipe.kind == "eval":  # how long answers take is not known before
            assert estimate.notes
            return
        if recipe.kind == "quantize":  # no steps either
            assert estimate.memory > 0 and estimate.disk > 0 and estimate.notes
            return
        assert estimate.steps > 0 and estimate.seconds > 0 and estimate.memory > 0 and estimate.disk > 0
