"""The run that LoRA, full fine-tuning and continued pretraining share. Imports the training stack inside functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from studio.errors import StudioError
from studio.library import refs
from studio.library.modelinfo import PROMPT_TYPES
from studio.trainers import kernels, unsloth
from studio.trainers.common import FineFields


def check(recipe: Any) -> None:
    """What can be known before the start, without torch.

    Raises:
        StudioError: unknown model or data, a sample longer than the model's context.
    """
    from studio.trainers import data, optimizers, rope, spread

    model = refs.resolve_model(recipe.model)
    refs.check_writes(model)
    refs.check_weights(model, frozen=recipe.kind == "sft" and recipe.method != "full")
    data.check(recipe)
    spread.check(recipe)
    optimizers.check(recipe, recipe.kind == "sft" and recipe.method != "full")
    if isinstance(recipe, FineFields):
        kernels.check(recipe)
    unsloth.check(recipe, model.is_adapter)
    if model.meta.get("peft_type") in PROMPT_TYPES:
        raise StudioError(f"{model.label} is made of learned tokens, which cannot be trained further.",
                          "Start from the model it belongs to.", "model")
    context = model.meta.get("context")
    if model.is_adapter and model.base:
        context = refs.resolve_model(model.base).meta.get("context")
    context = rope.longest(context, rope.of_recipe(recipe, model))
    if context and recipe.max_length > context:
        raise StudioError(f"{model.label} reads at most {context} tokens; the longest sample is set to "
                          f"{recipe.max_length}.", f"Set 'Longest sample' to {context} or less, or ask for a longer context.",
                          "max_length")


def run(recipe: Any, ctx: Any, adapter: Callable[[Any, int], Any] | None = None, encode_as: Any = None,
        table: Any = None, quantization: dict[str, Any] | None = None,
        prepare: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Trains, keeps the best, writes the result and its card; returns the summary.

    Args:
        adapter: ``(recipe, steps) -> PeftConfig`` of the adapter to train; without one the weights themselves are trained.
        encode_as: What the encoder reads instead of the recipe.
        quantization: Arguments of ``BitsAndBytesConfig`` for a base that is held in fewer bits.
        prepare: Called with the loaded model, e.g. to freeze a part of it.
        table: ``(samples, recipe) -> Dataset``; by default one sample a row, packed if the recipe says so.
    """
    from studio.trainers import blocks, data, finish, load, loop, plan, rope, settings, spread

    if spread.wanted(recipe):
        return spread.run(recipe, ctx)
    began = time.time()
    load.quiet()
    gpu = settings.has_gpu()
    ref = load.fetch(refs.resolve_model(recipe.model), ctx)
    if ref is None:
        return {}
    tokenizer = load.tokenizer(ref, recipe.trust_remote_code)
    train_rows, held_rows, found = data.read(recipe)
    data.tell(found, ctx.warning, ctx.log)
    chat = data.is_chat(train_rows)
    if isinstance(recipe, FineFields) and recipe.packing and recipe.packing_strategy != "bfd":
        encode_as = blocks.uncut(recipe)  # the packing cuts, and loses nothing
    encoder = data.Encoder(tokenizer, encode_as or recipe, chat)
    made, held = encoder.prepare(train_rows), encoder.prepare(held_rows)
    for warning in encoder.warnings:
        ctx.warning(*warning)
    data.report(made, recipe, ctx.warning)
    if held_rows and not held.samples:
        ctx.warning("no-validation", "No validation sample is usable, so there is no validation loss.",
                    "Check the validation data.")
    table = table or loop.dataset
    rows, held_table = table(made.samples, recipe), table(held.samples, recipe) if held.samples else None
    steps = plan.total_steps(recipe, len(rows))
    ctx.log(f"{len(made.samples)} samples, {made.tokens} tokens to learn from; {len(held.samples)} to validate on; "
            f"{steps} steps.")
    dtype = plan.load_dtype(recipe, gpu, adapter is not None)
    fast = unsloth.wanted(recipe)
    model = unsloth.model(ref, dtype, recipe, quantization or {}) if fast else load.model(
        ref, dtype, recipe.trust_remote_code, gpu, merge=adapter is None, quantization=quantization,
        rope=rope.of_recipe(recipe, ref))
    if prepare:
        prepare(model)
    config = None
    if adapter and ref.is_adapter:
        ctx.warning("adapter-continued", f"{ref.label} is an adapter: it is trained further, with its own rank and "
                    "layers.")
    elif adapter:
        config = adapter(recipe, steps)
    try:
        if fast:
            model, config = unsloth.adapter(model, config, recipe), None
        trainer = loop.train(model, tokenizer, recipe, ctx, rows, held_table, steps, config, chat)
    except ValueError as err:
        if adapter and "target modules" in str(err).lower():
            raise StudioError(f"This model has no layers named {recipe.target_modules}.", "Use all-linear.",
                              "target_modules") from err
        raise
    return finish.finish(trainer, tokenizer, recipe, ctx, ref, made, held, steps, began)

