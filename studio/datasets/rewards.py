"""Scores by a reward model: a transformer with one number as its answer (``AutoModelForSequenceClassification``)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.datasets import answers
from studio.datasets.step import report
from studio.datasets.version import Item, Version
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.jobs.context import Context

WINDOW = 64  # batches that are sorted by length together, so that little is padded


def check(ref: str) -> None:
    """Refuse what is no reward model. No torch.

    Raises:
        StudioError: with ``field="reward_model"``.
    """
    from studio.library import refs

    if not ref:
        raise StudioError("No reward model is chosen.", "Choose one, or let a judge score.", "reward_model")
    try:
        found = refs.resolve_model(ref)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "reward_model") from err
    if found.is_adapter:
        hint = "Choose the result of its run." if found.meta.get("reward") else "Merge it into its base model first."
        raise StudioError(f"{found.label} is an adapter.", hint, "reward_model")
    if found.path is None:
        return  # what the Hub holds is only known when it is fetched
    try:
        config = json.loads((Path(found.path) / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise StudioError(f"{found.label} has no readable config.json.", "Choose another model.",
                                                                         "reward_model") from err
    kinds = config.get("architectures") or []
    labels = config.get("num_labels") or len(config.get("id2label") or {}) or 2
    if not any("SequenceClassification" in kind or "RewardModel" in kind for kind in kinds):
        raise StudioError(f"{found.label} writes text; it is no reward model.",
                          "Choose a model with one number as its answer, or let it be the judge.", "reward_model")
    if labels != 1:
        raise StudioError(f"{found.label} sorts into {labels} classes; a reward model has one number as its answer.",
                          "Choose another.", "reward_model")


def score(recipe: Any, source: Version, ctx: Context, take: Callable[[Item, float], None]) -> dict[str, Any]:
    """Score every row, in order; ``take`` is given each with its number. Of a pair it is the chosen's less the
    rejected's.

    Raises:
        StudioError: the model cannot be loaded (``reward_model``).
        Stopped: as asked.
    """
    model, tokenizer, device = load(recipe.reward_model)
    places = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    limit = min(recipe.max_length, tokenizer.model_max_length, places)
    cut, began, done = 0, time.monotonic(), 0
    for items in windows(source.items(), recipe.batch_size * WINDOW):
        texts: list[Any] = []
        for item in items:
            row = item.row
            sides = ("chosen", "rejected") if "rejected" in row else ("",)
            texts += [text_of(row, side, tokenizer) for side in sides]
        numbers, longer = rewards_of(model, tokenizer, device, texts, recipe.batch_size, limit,
                                     lambda n, start=done, size=len(texts), rows=len(items): report(
                                         ctx, start + n / size * rows, source.count(), began))
        cut += longer
        place = iter(numbers)
        for item in items:
            value = next(place)
            take(item, value - next(place) if "rejected" in item.row else value)
        done += len(items)
    ctx.progress(done, done, 0.0)
    speed = done / max(1e-6, time.monotonic() - began)
    return {"reward_model": recipe.reward_model, "cut": cut, "rows_per_second": round(speed, 1)}


def windows(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while part := list(islice(items, size)):
        yield part


def load(ref: str) -> tuple[Any, Any, str]:
    """(model in evaluation, tokenizer that cuts on the left, device).

    Raises:
        StudioError: it cannot be loaded or has not exactly one number as its answer.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from studio.library import refs

    found = refs.resolve_model(ref)
    where, revision = (str(found.path), None) if found.path else (found.hub_id, found.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            where, revision=revision, trust_remote_code=False,
            dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as err:
        raise StudioError(f"{found.label} cannot be loaded: {str(err).splitlines()[0][:200]}", "Choose another reward "
                                                                                               "model.",
                          "reward_model") from err
    if model.config.num_labels != 1:
        raise StudioError(f"{found.label} sorts into {model.config.num_labels} classes; a reward model has one number as "
                          "its answer.", "Choose another.", "reward_model")
    tokenizer.truncation_side = "left"  # the answer stands at the end
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or "[PAD]"
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.eval().to(device), tokenizer, device


def text_of(row: dict[str, Any], side: str, tokenizer: Any) -> Any:
    """What the model reads of a row: its chat template's text, or (question, answer) where it has none."""
    if "text" in row:
        return (tokenizer.bos_token or "" if tokenizer.chat_template else "") + row["text"], None
    said = answers.answer(row, side)
    turns = answers.asked(row) or []
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": said}], tokenize=False), None
    return "\n\n".join(str(turn.get("content") or "") for turn in turns), said


def rewards_of(model: Any, tokenizer: Any, device: str, texts: list[Any], batch_size: int, limit: int,
               tell: Callable[[int], None]) -> tuple[list[float], int]:
    """(the model's number for every text, how many were cut)."""
    import torch

    made, cut, done = [0.0] * len(texts), 0, 0
    for paired in (False, True):
        order = sorted((i for i, (_, second) in enumerate(texts) if (second is not None) == paired),
                       key=lambda i: len(texts[i][0]) + len(texts[i][1] or ""))
        for start in range(0, len(order), batch_size):
            part = order[start:start + batch_size]
            second = [texts[i][1] for i in part] if paired else None
            inputs = tokenizer([texts[i][0] for i in part], second, padding=True, truncation=True, max_length=limit,
                               return_tensors="pt",
                               add_special_tokens=not tokenizer.chat_template)  # a template writes them itself
            cut += int((inputs["attention_mask"].sum(1) >= limit).sum())
            accepted = {key: value.to(device) for key, value in inputs.items() if key != "token_type_ids" or paired}
            with torch.inference_mode():
                logits = model(**accepted).logits.float().squeeze(-1)
            for i, value in zip(part, logits.tolist(), strict=True):
                made[i] = value
            done += len(part)
            tell(done)
    return made, cut
