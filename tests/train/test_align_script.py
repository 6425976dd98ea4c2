"""``Copy as Python`` of a method of alignment is a plain TRL script that gives the studio's losses."""

from __future__ import annotations

import pytest

from tests.train import align
from tests.train.conftest import run, series
from tests.train.test_script import execute

CASES = {"dpo": {"loss_type": "sigmoid + 0.5 sft"}, "kto": {"undesirable_weight": 1.5, "weight_decay": 0.1}, "reward": {},
         "orpo": {"gradient_accumulation_steps": 2}, "simpo": {"train": "full", "warmup_steps": 2, "learning_rate": 1e-3}}


def _same(tmp_path, history, name):
    theirs = {h["step"]: h[name] for h in history if name in h}
    ours = {step: v for step, v in series(tmp_path / "studio", name).items() if step > 0}
    assert ours.keys() == theirs.keys() and len(ours) >= 2
    assert max(abs(ours[step] - theirs[step]) for step in ours) <= 1e-6, name


@pytest.mark.parametrize("name", CASES)
def test_same_losses(name, tiny, tmp_path, monkeypatch):
    data = align.pairs(tmp_path / "pairs.jsonl")
    values = align.values(tiny, data, name, logging_steps=1, max_steps=4, eval_steps=2) | CASES[name]
    run(values, tmp_path / "studio")
    history = execute(values, tmp_path, monkeypatch)
    _same(tmp_path, history, "loss")
    _same(tmp_path, history, "eval_loss")


def test_same_losses_from_an_adapter(tiny, chats, tmp_path, monkeypatch):
    """All weights of a model with its adapter folded in, compared with that model."""
    _, ctx = run({"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_steps": 3, "r": 4,
                  "max_length": 64, "learning_rate": 5e-3, "bf16": "off"}, tmp_path / "sft")
    data = align.pairs(tmp_path / "pairs.jsonl")
    values = align.values(ctx.output, data, "dpo", train="full", logging_steps=1, max_steps=3, learning_rate=1e-3)
    run(values, tmp_path / "studio")
    _same(tmp_path, execute(values, tmp_path, monkeypatch), "loss")


def test_defaults_that_the_script_leaves_out_are_the_librarys():
    from trl import DPOConfig, KTOConfig, RewardConfig
    from trl.experimental.cpo import CPOConfig

    from studio.aligners import script

    known = {}
    for config in (CPOConfig, RewardConfig, KTOConfig, DPOConfig):
        known |= {name: item.default for name, item in config.__dataclass_fields__.items() if name in script.DEFAULTS}
    assert known == script.DEFAULTS
