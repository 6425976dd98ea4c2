"""AdaLoRA in a run: its whole state in every checkpoint, and an ordinary LoRA as the adapter that others read.

PEFT stores such an adapter with the ranks cut that its last allocation left out. Between two allocations they would have come
back, and a running model, whose ranks are whole, cannot load them: ``load_adapter`` reads the weights but not the pattern by
which they were cut. So a checkpoint holds everything in :data:`STATE`, and beside it, as every other adapter, what the adapter
does: a LoRA with A scaled by the singular values, without the ranks whose value is 0. Any program that knows LoRA can use it.

Imports torch, so only ``run`` methods import this module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from studio.trainers import script_parts

STATE = "adalora.safetensors"
RANKS = "ranks.json"
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what the allocator decides by: a tensor a weight
_NAME = "default"


def moving(trainer: type) -> type:
    """A trainer of TRL for a fresh AdaLoRA. Only weights with the final ranks can be the best."""
    class Moving(script_parts.adalora(trainer)):
        def verdict(self, metrics: dict[str, float]) -> float | None:
            config = self.model.peft_config[_NAME]
            settled = self.state.global_step >= config.total_step - config.tfinal
            return super().verdict(metrics) if settled else None

    return Moving


def learned(model: Any) -> bool:
    """The model carries an AdaLoRA that is being trained."""
    return getattr(getattr(model, "base_model", None), "rankallocator", None) is not None


def keep(model: Any, folder: Path) -> None:
    """Writes all that going on needs into a checkpoint."""
    allocator, config = model.base_model.rankallocator, model.peft_config[_NAME]
    state = {f"weight/{name}": value for name, value in _weights(model).items()}
    for kind in _IMPORTANCE:
        state |= {f"{kind}/{name}": value for name, value in getattr(allocator, kind).items()}
    state |= {f"pattern/{name}": torch.tensor(left) for name, left in (config.rank_pattern or {}).items()}
    save_file({name: value.detach().contiguous().clone() for name, value in state.items()}, folder / STATE)


def load(model: Any, folder: Path) -> None:
    """Puts back what :func:`keep` wrote."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in ("weight", "pattern", *_IMPORTANCE)}
    for key, value in load_file(folder / STATE).items():
        kind, _, name = key.partition("/")
        found[kind][name] = value
    with torch.no_grad():
        for name, weight in _weights(model).items():
            weight.copy_(found["weight"][name])
    allocator, weights = model.base_model.rankallocator, dict(model.base_model.model.named_parameters())
    for kind in _IMPORTANCE:
        setattr(allocator, kind, {name: value.to(weights[name].device) for name, value in found[kind].items()})
    model.peft_config[_NAME].rank_pattern = {name: left.tolist() for name, left in found["pattern"].items()} or None


def save_as_lora(model: Any) -> None:
    """From here on ``model.save_pretrained`` is :func:`save`."""
    model.save_pretrained = lambda folder, **_: save(model, Path(folder))


def save(model: Any, folder: Path) -> dict[str, int]:
    """Writes the adapter as an ordinary LoRA into ``folder``; returns layer -> rank.

    All layers get the rank of the largest, filled up with zeros, because few programs read a rank for each.
    """
    from peft import LoraConfig

    made, left = {}, {}
    for name, layer in model.base_model.model.named_modules():
        if _NAME not in getattr(layer, "lora_E", {}):
            continue
        used = layer.lora_E[_NAME].detach()[:, 0] != 0
        scale = layer.scaling[_NAME] / (layer.ranknum[_NAME].detach() + 1e-5)
        made[name] = ((layer.lora_A[_NAME] * layer.lora_E[_NAME] * scale).detach()[used], layer.lora_B[_NAME].detach()[:, used])
        left[name] = int(used.sum())
    rank = max(1, *left.values())
    state = {}
    for name, (a, b) in made.items():
        more = rank - left[name]
        state[f"base_model.model.{name}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, more)).contiguous()
        state[f"base_model.model.{name}.lora_B.weight"] = torch.nn.functional.pad(b, (0, more)).contiguous()
    config = model.peft_config[_NAME]
    base = config.base_model_name_or_path or model.base_model.model.config.name_or_path
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(r=rank, lora_alpha=rank, target_modules=config.target_modules, task_type=config.task_type, inference_mode=True,
               base_model_name_or_path=base).save_pretrained(str(folder))
    (folder / RANKS).write_text(json.dumps(left, indent=1), "utf-8")
    return left


def _weights(model: Any) -> dict[str, Any]:
    return {name: weight for name, weight in model.base_model.model.named_parameters()
            if name.endswith(tuple(f"lora_{part}.{_NAME}" for part in "AEB"))}
