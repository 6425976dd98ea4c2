"""Every pipeline that is shipped runs on the shipped set it names, and makes what it says."""

from __future__ import annotations

import pytest

from studio import settings
from studio.recipe import read_values

# The others are single steps that ask a model; tests/data/test_model_presets.py is theirs.
PRESETS = [path for path in sorted((settings.PRESETS / "data").glob("*.yaml")) if read_values(path)["method"] == "pipeline"
           and not any("generator" in step for step in read_values(path)["steps"])]


@pytest.mark.parametrize("path", PRESETS, ids=[path.stem for path in PRESETS])
def test_preset_runs(run_step, path):
    values = read_values(path)
    assert values.pop("kind") == "data"
    made = run_step(values.pop("method"), values.pop("dataset"), **values)
    assert [one["step"]["method"] for one in made.meta["history"]][-len(values["steps"]):] == [s["method"] for s in values["steps"]]
    assert made.count() >= (2 if "preferences" in path.stem else 10)
    if "preferences" in path.stem:
        assert made.meta["format"] == "preference"
    elif "kto" in path.stem:
        assert made.meta["format"] == "rated" and made.count("validation")
    else:
        assert made.count("validation")
