"""After the training: the best weights, the result's folder, its model card, its place in the library."""

from __future__ import annotations

import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from studio.library import bases, refs
from studio.library.modelinfo import count
from studio.trainers import rope, starts


def finish(trainer: Any, tokenizer: Any, recipe: Any, ctx: Any, base: refs.ModelRef | None, made: Any, held: Any,
           steps: int, began: float, save_dtype: str | None = None, result: Any = None,
           head: str = "causal") -> dict[str, Any]:
    """Writes ``ctx.output`` and registers it; returns the run's summary.

    Args:
        result: Makes what is stored of the trained model.
        head: What the model ends in; ``reward``: one number.

    A run stopped before its end also gives a result: the best, or the newest, of what was trained so far.
    """
    best = trainer.load_best()
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if recipe.strategy in ("fsdp", "zero3") else None
    tokens = trainer.count_tokens()
    if not trainer.is_world_process_zero():  # from here on nothing is asked of the other processes
        return {}
    history = trainer.state.log_history
    losses = [(h["step"], h["loss"]) for h in history if "loss" in h]
    evals = [(h["step"], h["eval_loss"]) for h in history if "eval_loss" in h]
    kept = best if best is not None else trainer.state.global_step
    summary: dict[str, Any] = {"steps": trainer.state.global_step, "of_steps": steps, "kept_step": kept,
                               "train_loss": losses[-1][1] if losses else None,
                               "eval_loss": dict(evals).get(kept, evals[-1][1] if evals else None),
                               "eval_loss_before": dict(evals).get(0), "samples": len(made.samples),
                               "validation_samples": len(held.samples), "tokens": tokens,
                               "seconds": round(trainer.memory["seconds"], 2),
                               "wall_seconds": round(time.time() - began, 2), "device": device(trainer)}
    if summary["seconds"]:
        summary["tokens_per_second"] = round(summary["tokens"] / summary["seconds"], 1)
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model = result(model) if result else model
    adapter = hasattr(model, "peft_config")
    parameters = sum(p.numel() for p in model.parameters())
    if trainer.args.world_size > 1:
        summary["processes"] = trainer.args.world_size
    summary |= {"parameters": parameters, "trained_parameters": trained}
    save(model, tokenizer, ctx.output, save_dtype or (None if adapter else native_dtype(base)), weights)
    name = recipe.name or default_name(recipe, base)
    (ctx.output / "README.md").write_text(card(name, recipe, summary, losses, evals, adapter, base, head), "utf-8")
    parents = ([(recipe.model, "base")] if base is not None else []) + [(recipe.dataset, "data")]
    if recipe.eval_dataset:
        parents.append((recipe.eval_dataset, "validation"))
    meta = {"method": f"{recipe.kind}/{recipe.method}", "step": kept, "parameters": parameters,
            **{k: summary[k] for k in ("eval_loss", "train_loss") if summary[k] is not None}}
    if adapter:
        meta |= bases.meta(ctx.run_dir)
    ctx.artifact("adapter" if adapter else "model", ctx.output, name, meta, parents)
    return {k: v for k, v in summary.items() if v is not None}


def device(trainer: Any) -> str:
    """What it was trained on: the name of the GPU, or ``cpu``."""
    import torch

    kind = trainer.args.device.type
    return torch.cuda.get_device_name(trainer.args.device) if kind == "cuda" else kind


def native_dtype(base: refs.ModelRef | None) -> str | None:
    """The precision the base was stored in, so that a fine-tuned model is not twice its size."""
    word = {"BF16": "bfloat16", "F16": "float16"}.get((base.meta if base else {}).get("dtype") or "")
    return word


def save(model: Any, tokenizer: Any, folder: Path, dtype: str | None = None, weights: Any = None) -> None:
    """Model or adapter as safetensors, with its tokenizer; complete or not there.

    Args:
        weights: Its state, where the model itself holds only a shard of it.
    """
    import torch

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if dtype:
        model = model.to(getattr(torch, dtype))
    if hasattr(model, "config"):
        model.config.use_cache = True
    # an adapter that was aligned has a frozen copy of itself beside it, which is nobody's result
    more = {"selected_adapters": ["default"]} if hasattr(model, "peft_config") else {}
    if weights is not None:
        more["state_dict"] = {k: v.to(getattr(torch, dtype)) for k, v in weights.items()} if dtype else weights
    model.save_pretrained(str(part), **more, **starts.arguments(model))
    rope.keep(model, part)
    tokenizer.save_pretrained(str(part))
    (part / "README.md").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def default_name(recipe: Any, base: refs.ModelRef | None) -> str:
    """``Starter · Polite answers``: from what and on what."""
    try:
        data = refs.resolve_dataset(recipe.dataset).label
    except Exception:  # the data may have been moved while the run went on; a name is not worth a failed run
        data = recipe.dataset.rpartition("/")[2]
    text = " · ".join(p for p in (base.label if base else "", data.removesuffix(".jsonl").removesuffix(".json")) if p)
    return text[:80] or recipe.method


def card(name: str, recipe: Any, summary: dict[str, Any], losses: list, evals: list, adapter: bool,
         base: refs.ModelRef | None, head: str = "causal") -> str:
    """The model card, with the Hub's front matter."""
    task = "text-classification" if head == "reward" else "text-generation"
    front = ["---", "library_name: " + ("peft" if adapter else "transformers"), f"pipeline_tag: {task}"]
    if base is not None and base.hub_id:
        front += [f"base_model: {base.hub_id}"]
    if recipe.dataset.startswith("hub:"):
        front += ["datasets:", f"- {recipe.dataset[4:].partition('@')[0]}"]
    front += ["tags:", "- atelier", f"- {recipe.kind}", *(["- lora"] if adapter else []), "---"]

    def number(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value,
                                                                                          int) else "not measured"

    kind = "A LoRA adapter" if adapter else "A language model" if head == "causal" else "A reward model"
    source = f" for {base.label} (`{recipe.model}`)" if base is not None and adapter else \
        f", fine-tuned from {base.label} (`{recipe.model}`)" if base is not None else ", trained from scratch"
    rows = [("Steps", f"{summary['steps']} of {summary['of_steps']}; the weights are those of step "
             f"{summary['kept_step']}"), ("Parameters", f"{number(summary['parameters'])} "
                                          f"({count(summary['trained_parameters']) or '0'} trained)"),
            ("Samples", f"{number(summary['samples'])} to learn from, {number(summary['validation_samples'])} to "
             "validate on"), ("Tokens seen", number(summary["tokens"])),
            ("Training time", f"{summary['seconds']:.0f} s"), ("Training loss", f"{number(losses[0][1])} at first, "
                                                               f"{number(losses[-1][1])} at last" if losses
                                                               else "not measured"),
            ("Validation loss", f"{number(summary['eval_loss_before'])} before, {number(summary['eval_loss'])} after"
             if evals else "not measured")]
    lines = [*front, "", f"# {name}", "", f"{kind}{source}, on `{recipe.dataset}`.", "", "| | |", "|---|---|",
             *(f"| {k} | {v} |" for k, v in rows), "", "## Use", "", "```python", *_use(adapter, head), "```", ""]
    if evals:
        lines += ["## Validation loss", "", "| step | loss |", "|---|---|",
                  *(f"| {s} | {v:.4f} |" for s, v in _thin(evals)), ""]
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "trl", "peft"))
    lines += ["## Recipe", "", "```yaml", recipe.to_yaml().rstrip(), "```", "", f"Made {time.strftime('%Y-%m-%d')} "
              f"with Atelier on {platform.machine()}, Python {platform.python_version()}, {versions}.", ""]
    return "\n".join(lines)


def _use(adapter: bool, head: str) -> list[str]:
    auto = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    auto = auto if head == "causal" else "AutoModelForSequenceClassification"
    return [f"from {'peft' if adapter else 'transformers'} import {auto}", "from transformers import AutoTokenizer",
            "", 'folder = "."  # where this card lies', f"model = {auto}.from_pretrained(folder)",
            "tokenizer = AutoTokenizer.from_pretrained(folder)"]


def _thin(points: list, most: int = 12) -> list:
    step = max(1, -(-len(points) // most))
    return sorted({*points[::step], points[-1]})


