"""Fine-tuning from a dataset made here: its own validation rows, the plan, and the script without the studio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio import api
from studio.datasets.step import facts_of
from studio.datasets.version import Writer
from studio.library import artifacts
from studio.recipe import parse
from studio.registry import method
from studio.trainers import data
from tests.train.conftest import QUESTIONS, events, run, series
from tests.train.test_script import execute


@pytest.fixture
def version(home: Path) -> dict[str, Any]:
    """A version with 48 rows to train on, 9 to validate on, and some that were left out."""
    with Writer(home / "datasets" / "d") as out:
        for i in range(48):
            q, a = QUESTIONS[i % len(QUESTIONS)]
            out.add({"messages": [{"role": "user", "content": f"{q} ({i})"}, {"role": "assistant", "content": a}]})
        out.reject("broken_line", "line 3", "f", "{oops")
        out.split = "validation"
        for i in range(9):
            q, a = QUESTIONS[i % len(QUESTIONS)]
            out.add({"messages": [{"role": "user", "content": f"{q} [{i}]"}, {"role": "assistant", "content": a}]})
        made = out.close({"method": "x"})
    return artifacts.add("dataset", "chats", made.path, meta=facts_of(made))


def recipe_of(version: dict[str, Any], tiny: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": version["ref"], "max_length": 96,
            "num_train_epochs": 2, "logging_steps": 1, "per_device_train_batch_size": 4, "bf16": "off",
            "learning_rate": 5e-3, **more}


def test_fine_tune_from_a_version(tiny: Path, version: dict[str, Any], tmp_path: Path) -> None:
    """All 48 rows are trained on, the 9 of its validation split are validated on, and the loss falls on them."""
    values = recipe_of(version, tiny)
    plan = api.validate(values)
    assert plan["ok"] and plan["estimate"]["steps"] == 24, "48 rows, 4 at once, twice; nothing held back"
    train, held, _ = data.read(parse(values))
    assert len(train) == 48 and len(held) == 9 and all("[" in row["messages"][0]["content"] for row in held)
    summary, context = run(values, tmp_path / "run")
    losses = series(tmp_path / "run", "eval_loss")
    assert max(losses) == 24 and losses[24] < losses[min(losses)]
    (made,) = context.artifacts
    assert version["ref"] in [parent["ref"] for parent in made["parents"]] and summary["steps"] == 24
    assert not [e for e in events(tmp_path / "run", "warning") if "valid" in e["code"]]


def test_the_script_trains_on_the_same_rows(tiny: Path, version: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    values = recipe_of(version, tiny, max_steps=8)
    run(values, tmp_path / "studio")
    history = execute(values, tmp_path, monkeypatch)
    for name in ("loss", "eval_loss"):
        ours = {step: v for step, v in series(tmp_path / "studio", name).items() if step > 0}
        assert ours == pytest.approx({h["step"]: h[name] for h in history if name in h}, abs=1e-4)


def test_another_split_can_be_named(tiny: Path, version: dict[str, Any]) -> None:
    train, held, _ = data.read(parse(recipe_of(version, tiny, dataset=f"{version['ref']}#validation", eval_share=0.0)))
    assert (len(train), len(held)) == (9, 0)
    train, held, _ = data.read(parse(recipe_of(version, tiny, eval_dataset=f"{version['ref']}#validation")))
    assert (len(train), len(held)) == (48, 9)
    assert api.validate(recipe_of(version, tiny, dataset=f"{version['ref']}#test"))["errors"]["dataset"]


def test_pairs_and_marks_are_fine_tuned_on_as_imitation(tiny: Path, home: Path) -> None:
    with Writer(home / "datasets" / "p") as out:
        for i in range(6):
            out.add({"prompt": f"q{i}", "chosen": "better", "rejected": "worse"})
            out.add({"prompt": f"q{i}", "completion": "x", "label": bool(i % 2)})
        made = out.close({"method": "x"})
    ref = artifacts.add("dataset", "mixed", made.path, meta=facts_of(made))["ref"]
    recipe = parse(recipe_of({"ref": ref}, tiny, eval_share=0.0))
    method("sft", "lora").check(recipe)
    rows, _, _ = data.read(recipe)
    assert sorted(row["completion"] for row in rows) == ["better"] * 6 + ["x"] * 3
