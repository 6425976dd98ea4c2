"""What the tests of alignment share: small pairs, runs whose trainer can be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.train.conftest import QUESTIONS, events, run

TIMES = ("runtime", "per_second")


def pairs(path: Path, count: int = 12, **more) -> Path:
    """Pairs of the right answer and a rude one, as JSONL."""
    with path.open("w") as out:
        for i in range(count):
            question, answer = QUESTIONS[i % len(QUESTIONS)]
            out.write(json.dumps({"prompt": f"{question} ({i})", "chosen": answer, "rejected": "Go away."}
                                 | {key: value(i) for key, value in more.items()}) + "\n")
    return path


def values(model, data, method: str, **more) -> dict:
    return {"kind": "align", "method": method, "model": str(model), "dataset": str(data), "max_length": 96,
            "num_train_epochs": 1, "per_device_train_batch_size": 2, "logging_steps": 2, "eval_steps": 2, "eval_share": 0.17,
            "learning_rate": 5e-3, "bf16": "off", "save_total_limit": 10, "r": 4} | more


def watched(monkeypatch) -> dict:
    """Keeps the trainer of the next run, its weights before the first step, and the names of those that then changed."""
    from studio.trainers import kept

    seen: dict = {}

    def go(trainer, *args, real=kept.go, **more):
        seen["trainer"] = trainer
        seen["before"] = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        seen["trained"] = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
        try:
            return real(trainer, *args, **more)
        finally:
            seen["changed"] = {name for name, p in trainer.model.named_parameters()
                               if not torch.equal(p, seen["before"][name])}

    monkeypatch.setattr(kept, "go", go)
    return seen


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(p for name in ("adapter_model", "model") if (p := folder / f"{name}.safetensors").exists()))


def logged(folder: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value of all that was logged, without the times."""
    return {(e["step"], name): value for e in events(folder, "metric") for name, value in e["values"].items()
            if not name.endswith(TIMES)}


def same_runs(one: Path, two: Path) -> None:
    a, b = logged(one), logged(two)
    assert a.keys() == b.keys() and len(a) > 20
    assert {key: (a[key], b[key]) for key in a if abs(a[key] - b[key]) > 1e-6} == {}
    a, b = weights(one / "output"), weights(two / "output")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopped_and_resumed(chosen: dict, folder: Path, stop_at: int) -> None:
    """A run that was stopped in a logging window and resumed is the uninterrupted one."""
    whole, _ = run(chosen, folder / "whole")
    part, _ = run(chosen, folder / "part", stop_at=stop_at)
    assert part["steps"] == stop_at < whole["steps"]
    again, _ = run(chosen, folder / "part", resume=True)
    assert again["tokens"] == whole["tokens"] > 0
    same_runs(folder / "whole", folder / "part")
