"""The exported script gives the studio's losses, step for step, without the studio."""

from __future__ import annotations

import sys

import pytest

from studio import settings
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import run, series


def execute(values: dict, tmp_path, monkeypatch) -> list[dict]:
    """Runs the script's own text and returns the trainer's log."""
    recipe = parse(values)
    text = method(recipe.kind, recipe.method).script(recipe)
    assert "import studio" not in text and "from studio" not in text
    monkeypatch.chdir(tmp_path)
    space: dict = {"__name__": "__main__"}
    exec(compile(text, "script.py", "exec"), space)
    return space["trainer"].state.log_history


CASES = {
    "polite": {"method": "lora"},
    "harder-sums": {"method": "full", "learning_rate": 1e-3, "warmup_steps": 4},
    "lumi-names": {"method": "lora", "r": 4, "target_modules": "q_proj,v_proj", "assistant_only_loss": False},
    "story-endings": {"method": "full", "gradient_accumulation_steps": 2, "eval_share": 0.2},
    "moon-stories": {"method": "lora", "packing": True, "weight_decay": 0.1},
    "tool-calls": {"method": "lora", "eval_share": 0.0, "max_length": 800},
    "messy-alpaca": {"method": "full", "extra": {"adam_beta2": 0.9}},
}


@pytest.mark.parametrize("dataset", CASES)
def test_same_losses(dataset, tiny, tmp_path, monkeypatch):
    if not (settings.DATASETS / "datasets.yaml").exists():
        pytest.skip("the shipped datasets are not there")
    values = {"kind": "sft", "model": str(tiny), "dataset": f"shipped:{dataset}", "max_length": 96, "max_steps": 12,
              "logging_steps": 1, "per_device_train_batch_size": 4, "bf16": "off",
              "learning_rate": 2e-3} | CASES[dataset]
    run(values, tmp_path / "studio")
    history = execute(values, tmp_path, monkeypatch)
    for name in ("loss", "eval_loss"):
        theirs = {h["step"]: h[name] for h in history if name in h}
        ours = {step: v for step, v in series(tmp_path / "studio", name).items() if step > 0}
        assert theirs.keys() == ours.keys() and (len(ours) >= 6 or values.get("eval_share") == 0.0), name
        for step in ours:
            # Float32 steps by 4.8e-7 at these losses. A validation is a mean of such, which may be a third step away.
            assert ours[step] == pytest.approx(theirs[step], abs=1e-6 if name == "loss" else 2e-6), (name, step)


def test_a_base_without_template(tiny, chats, tmp_path, monkeypatch):
    """ChatML is added in the script too."""
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny, bare)
    (bare / "chat_template.jinja").unlink()
    values = {"kind": "sft", "method": "lora", "model": str(bare), "dataset": str(chats), "max_length": 96,
              "max_steps": 6, "logging_steps": 1, "bf16": "off", "eval_dataset": "shipped:polite-heldout"}
    run(values, tmp_path / "studio")
    history = execute(values, tmp_path, monkeypatch)
    ours = series(tmp_path / "studio", "loss")
    assert [ours[h["step"]] for h in history if "loss" in h] == pytest.approx([h["loss"] for h in history
                                                                               if "loss" in h], abs=1e-6)


def test_making_a_script_loads_no_torch(tiny, chats, tmp_path):
    import os
    import subprocess

    code = ("import sys; from studio.recipe import parse; from studio.registry import method; "
            f"r = parse({{'kind': 'sft', 'method': 'lora', 'model': {str(tiny)!r}, 'dataset': {str(chats)!r}}}); "
            "m = method('sft', 'lora'); m.check(r); assert 'SFTTrainer' in m.script(r); "
            "assert m.estimate(r).steps > 0; "
            "heavy = ('torch', 'transformers', 'trl', 'peft', 'datasets', 'gradio'); "
            "print(sorted(x for x in heavy if x in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
                          | {"STUDIO_HOME": str(tmp_path)})
    assert done.stdout.strip() == "[]", done.stderr
