"""Texts joined end to end and cut in blocks of one length, for pretraining."""

from __future__ import annotations

import types
from itertools import chain
from typing import Any

from studio.trainers.data import IGNORE


def uncut(recipe: Any) -> Any:
    """What the encoder needs to know of a pretraining recipe: long texts are cut into blocks, so nothing is lost."""
    longest = 1 << 40 if recipe.packing else recipe.max_length
    return types.SimpleNamespace(max_length=longest, assistant_only_loss=getattr(recipe, "assistant_only_loss", False),
                                 chat_template=getattr(recipe, "chat_template", "auto"))


def table(samples: list, recipe: Any) -> Any:
    """Blocks of exactly ``max_length`` tokens; the rest at the end becomes a shorter last block.

    The order of the texts is shuffled with the recipe's seed first, so that a block mixes its sources. Without packing
    each text is one row, cut at ``max_length``.
    """
    import random

    import pyarrow as pa
    from datasets import Dataset

    if not recipe.packing:
        return Dataset.from_dict({"input_ids": [s.input_ids for s in samples], "labels": [s.labels for s in samples]})
    order = list(samples)
    random.Random(recipe.seed).shuffle(order)
    size = recipe.max_length
    made = {}
    for name in ("input_ids", "labels"):
        flat = list(chain.from_iterable(getattr(s, name) for s in order))
        made[name] = [flat[i:i + size] for i in range(0, len(flat), size)]
    for ids, labels in zip(made["input_ids"][-1:], made["labels"][-1:], strict=True):
        if len(ids) < 2 or all(x == IGNORE for x in labels[1:]):
            made = {k: v[:-1] for k, v in made.items()}
    schema = pa.list_(pa.int32())
    return Dataset(pa.table({k: pa.array(v, type=schema) for k, v in made.items()}))
