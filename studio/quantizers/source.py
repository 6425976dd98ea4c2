"""The model that is quantized: whole, on this disk, in its own precision."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from studio.library import modelinfo, refs
from studio.quantizers.base import Stopped


@contextmanager
def whole(recipe: Any, ctx: Any) -> Iterator[refs.ModelRef]:
    """The recipe's model as a folder: downloaded where it is on the Hub, an adapter folded into its base.

    What was folded lies in the run's folder and goes at the end.

    Raises:
        StudioError: a reward model, one that is quantized already, an adapter that cannot be folded, no room or no Hub.
        Stopped: a stop was asked for.
    """
    from studio.trainers import load

    asked = refs.resolve_model(recipe.model)
    refs.check_writes(asked)
    refs.check_weights(asked)
    model = load.fetch(asked, ctx)
    if model is None or ctx.stop_requested:
        raise Stopped
    if not model.is_adapter:
        refs.check_weights(replace(model, meta=modelinfo.describe(model.path)))  # the Hub's facts may have said less
        yield model
        return
    folder = ctx.run_dir / "folded"
    try:
        _fold(recipe, ctx, model, folder)
        yield replace(refs.resolve_model(str(folder)), ref=asked.ref, label=asked.label)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fold(recipe: Any, ctx: Any, adapter: refs.ModelRef, folder: Any) -> None:
    from studio import hardware
    from studio.library import bases
    from studio.mergers.adapter import BYTES, MergeAdapter
    from studio.trainers import finish, load

    _, base = MergeAdapter._pair(recipe)
    if told := bases.replaced(adapter):
        ctx.warning("base-replaced", *told)
    if base.meta.get("parameters"):
        need = int(base.meta["parameters"] * BYTES.get(base.meta.get("dtype"), 4))
        hardware.need_disk(need, f"Folding {adapter.label} into {base.label}", "model", ctx.run_dir)
    ctx.log(f"Folding {adapter.label} into {base.label}.")
    load.quiet()
    tokenizer = load.tokenizer(adapter, recipe.trust_remote_code)
    model = load.model(adapter, "float32", recipe.trust_remote_code, merge=True)
    if ctx.stop_requested:
        raise Stopped
    finish.save(model, tokenizer, folder, finish.native_dtype(base))
    del model
    gc.collect()
