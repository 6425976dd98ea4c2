"""The run that all methods of alignment share. Imports the training stack inside functions."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

from studio.aligners import data
from studio.aligners.base import imported
from studio.errors import StudioError
from studio.library import bases, refs


def run(method: Any, recipe: Any, ctx: Any) -> dict[str, Any]:
    """Trains, keeps the best, writes the result and its card; returns the summary.

    Args:
        method: An :class:`studio.aligners.base.AlignMethod`.
    """
    from studio.trainers import finish, kept, load, spread
    from studio.trainers.data import set_template, tell

    if spread.wanted(recipe):
        return spread.run(recipe, ctx)
    began = time.time()
    load.quiet()
    os.environ.setdefault("TQDM_DISABLE", "1")  # TRL's own bar over the reference's passes
    ref = load.fetch(refs.resolve_model(recipe.model), ctx)
    if ref is None:
        return {}
    tokenizer = load.tokenizer(ref, recipe.trust_remote_code)
    found = data.read(recipe, method.shape)
    tell(found.source, ctx.warning, ctx.log)
    for warning in set_template(tokenizer, recipe.chat_template):
        ctx.warning(*warning)
    for note in found.notes:
        ctx.log(note)
    for warning in found.warnings:
        ctx.warning(*warning)
    train, held = (list(data.as_chat(rows, tokenizer.chat_template)) for rows in (found.train, found.held))
    train, held = method.fitting(recipe, ctx, tokenizer, train), _held(method, recipe, ctx, tokenizer, held)
    steps = method.steps(recipe, len(train))
    ctx.log(f"{len(train)} samples to learn from; {len(held)} to validate on; {steps} steps.")
    kept.clean(ctx.checkpoints)
    kept.same_data(found.digest(), len(train), ctx)
    trainer = build(method, recipe, ctx, ref, tokenizer, train, held, steps)
    prompts = recipe.sample_prompts if method.head == "causal" else []
    try:
        kept.go(trainer, recipe, ctx, prompts, tokenizer.chat_template is not None)
    finally:
        method.end(trainer)
    if ctx.stop_requested and not trainer.state.global_step:
        return {}  # stopped while it wrote its first answers: nothing was learned
    counted = SimpleNamespace(samples=train), SimpleNamespace(samples=held)
    made = finish.finish(trainer, tokenizer, recipe, ctx, ref, *counted, steps, began,
                         result=lambda model: method.result(recipe, model, ref), head=method.head)
    return made | method.outcome(recipe, trainer)


def _held(method: Any, recipe: Any, ctx: Any, tokenizer: Any, rows: list) -> list:
    """Validation rows that fit; what is left out of them is not worth a warning of its own, unless it is all."""
    try:
        return method.fitting(recipe, SimpleNamespace(warning=lambda *_: None, log=lambda *_: None), tokenizer, rows)
    except StudioError as err:
        ctx.warning("no-validation", "No validation sample is usable, so there is no validation loss.", err.hint)
        return []


def build(method: Any, recipe: Any, ctx: Any, ref: refs.ModelRef, tokenizer: Any, train: list, held: list,
          steps: int) -> Any:
    """The trainer, ready to train.

    Raises:
        StudioError: settings or data that the library refuses.
    """
    import torch
    import transformers
    from datasets import Dataset

    from studio.trainers import kept, load, plan, settings

    torch.set_num_threads(max(1, ctx.threads))
    gpu, lora = settings.has_gpu(), method.lora(recipe)
    config = None
    if lora and ref.is_adapter and method.head == "causal":
        ctx.warning("adapter-continued", f"{ref.label} is an adapter: it is trained further, with its own rank and "
                    "layers.")
    elif lora:
        from peft import LoraConfig

        config = LoraConfig(**lora)
    if lora:
        bases.keep(ctx.run_dir, recipe.model, ctx.resume_from is not None)
        if told := bases.replaced_by_ref(recipe.model):
            ctx.warning("base-replaced", *told)
    dtype = plan.load_dtype(recipe, gpu, lora is not None)
    transformers.set_seed(recipe.seed)  # the head of a reward model is drawn when it is loaded
    model = load.model(ref, dtype, recipe.trust_remote_code, gpu, merge=lora is None,
                       quantization=method.quantization(recipe), head=method.head)
    values = settings.shared(recipe, ctx, steps, bool(held)) | method.settings(recipe)
    args = settings.make(imported(recipe.config), values, recipe)
    trainer = method.wrap(kept.kept(imported(method.trainer)))
    try:
        return trainer(model=model, args=args, train_dataset=Dataset.from_list(train),
                       eval_dataset=Dataset.from_list(held) if held else None, processing_class=tokenizer,
                       peft_config=config, ctx=ctx, keep=recipe.save_total_limit,
                       best=recipe.load_best_model_at_end and bool(held), patience=recipe.early_stopping_patience,
                       **method.parts(recipe, ctx, tokenizer))
    except ValueError as err:
        if "lm_head" in str(err):
            raise StudioError("The last layer cannot have an adapter: this method reads its weights directly.",
                              "Leave lm_head out.", "target_modules") from err
        if "target modules" in str(err).lower():
            raise StudioError(f"This model has no layers named {recipe.target_modules}.", "Use all-linear.",
                              "target_modules") from err
        raise
