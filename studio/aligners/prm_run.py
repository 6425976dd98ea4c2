"""The run of a process reward model, inside the environment with TRL 1.12; only that worker imports this module."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForTokenClassification

from studio.aligners.base import imported
from studio.aligners.prm import PRM, rows_of
from studio.datasets import formats
from studio.library import refs
from studio.trainers import finish, kept, load, plan, settings


def run(method: Any, recipe: Any, ctx: Any) -> dict[str, Any]:
    """Trains, keeps the best, writes the whole model and its card; returns the summary."""
    began = time.time()
    load.quiet()
    disable_progress_bars()
    ref = load.fetch(refs.resolve_model(recipe.model), ctx)
    if ref is None:
        return {}
    tokenizer = load.tokenizer(ref, recipe.trust_remote_code)
    rows = rows_of(recipe.dataset)
    if recipe.eval_dataset:
        train, held = rows, rows_of(recipe.eval_dataset)
    else:
        train, held = formats.split(rows, recipe.eval_share, recipe.seed)
    steps = method.steps(recipe, len(train))
    ctx.log(f"{len(train)} solutions to learn from; {len(held)} to validate on; {steps} steps.")
    kept.clean(ctx.checkpoints)
    kept.same_data(hashlib.blake2b(json.dumps(train).encode()).hexdigest(), len(train), ctx)
    torch.set_num_threads(max(1, ctx.threads))
    transformers.set_seed(recipe.seed)  # the head is drawn when the model is loaded
    gpu, lora = settings.has_gpu(), method.lora(recipe)
    model = load._loaded(AutoModelForTokenClassification, ref, recipe.trust_remote_code,
                         dtype=plan.load_dtype(recipe, gpu, lora is not None), num_labels=2,
                         **({"device_map": "auto"} if gpu else {}))
    model.config.use_cache = False
    adapter = None
    if lora:
        from peft import LoraConfig

        adapter = LoraConfig(**lora)
    values = settings.shared(recipe, ctx, steps, bool(held)) | method.settings(recipe)
    known = {item.name for item in dataclasses.fields(imported(PRM))}
    args = settings.make(imported(PRM), {name: value for name, value in values.items() if name in known}, recipe)
    trainer = kept.kept(imported(method.trainer))(
        model=model, args=args, train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held) if held else None, processing_class=tokenizer, peft_config=adapter,
        ctx=ctx,
        keep=recipe.save_total_limit, best=recipe.load_best_model_at_end and bool(held),
        patience=recipe.early_stopping_patience)
    kept.go(trainer, recipe, ctx, [])
    counted = SimpleNamespace(samples=train), SimpleNamespace(samples=held)
    made = finish.finish(trainer, tokenizer, recipe, ctx, ref, *counted, steps, began, head="reward",
                         result=lambda found: found.merge_and_unload() if hasattr(found, "peft_config") else found)
    right = [h["eval_accuracy"] for h in trainer.state.log_history if "eval_accuracy" in h]
    return made | ({"eval_accuracy_before": right[0], "eval_accuracy": right[-1]} if right else {})
