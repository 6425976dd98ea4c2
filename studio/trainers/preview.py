"""What the model will see: any sample of a recipe's data, token by token, by the very code that training uses."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from studio.errors import StudioError
from studio.library import refs
from studio.recipe import parse
from studio.trainers import data

MEASURED = 1000  # rows whose lengths are counted; more would make a person wait
SHOWN = 4096  # tokens sent to the page


def preview(values: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """One sample and the lengths of all.

    Args:
        values: A recipe as plain values.
        index: Which training sample, from 0; beyond the last gives the last.

    Returns:
        ``tokens`` [{id, text, trained}], ``flags`` [{code, message, hint}], ``rendered`` (the whole text),
        ``length`` (tokens before the cut), ``kept``, ``trained`` (tokens learned from), ``index``, ``rows`` (training
        samples), ``held`` (validation samples), ``truncated`` (of the ``measured`` rows), ``lengths`` {p50, p90, p99,
        max} in tokens.

    Raises:
        StudioError: as the run itself would, before it starts.
    """
    recipe = parse(values)
    if recipe.kind == "align":
        from studio.aligners import preview as aligned

        return aligned.preview(recipe, index)
    found = _prepared(json.dumps(recipe.to_dict(), sort_keys=True))
    rows, encoder = found["rows"], found["encoder"]
    index = max(0, min(int(index), len(rows) - 1))
    sample = encoder(rows[index])
    flags = [{"code": c, "message": m, "hint": h} for c, m, h in encoder.warnings]
    if sample is None:
        flags.append({"code": "empty", "message": "This sample has no text; it is left out.",
                      "hint": "Check the columns."})
        sample = data.Sample([], [], 0, True)
    elif all(label == data.IGNORE for label in sample.labels[1:]):
        why = "its answer lies behind the cut" if sample.truncated else "it has no answer"
        flags.append({"code": "nothing-trained", "message": f"Nothing is learned from this sample: {why}. It is left "
                      "out.", "hint": "Raise 'Longest sample'." if sample.truncated else "Check the columns."})
    elif sample.truncated:
        flags.append({"code": "truncated", "message": f"Cut at {recipe.max_length} of {sample.length} tokens.",
                      "hint": "Raise 'Longest sample' to keep its end."})
    elif not sample.ends:
        flags.append({"code": "no-end-token", "message": "No end token is learned: the model may not learn to stop.",
                      "hint": "Choose another chat template."})
    tokens = [{"id": i, "text": text, "trained": n > 0 and label != data.IGNORE} for n,
              (i, label, text) in enumerate(zip(sample.input_ids, sample.labels,
                                                pieces(encoder.tokenizer, sample.input_ids), strict=True))]
    return {"tokens": tokens[:SHOWN], "flags": flags, "rendered": "".join(t["text"] for t in tokens),
            "length": sample.length, "kept": len(tokens), "trained": sum(t["trained"] for t in tokens), "index": index,
            "rows": len(rows), "held": found["held"], "measured": found["measured"], "truncated": found["truncated"],
            "lengths": found["lengths"]}


@lru_cache(maxsize=4)
def _prepared(text: str) -> dict[str, Any]:
    from studio.trainers import blocks, load, tokenizer

    load.quiet()
    recipe = parse(json.loads(text))
    rows, held, _ = data.read(recipe)
    source = getattr(recipe, "model", "") or getattr(recipe, "tokenizer", "")
    if source:
        words = load.tokenizer(refs.resolve_model(source), recipe.trust_remote_code)
    else:  # a tokenizer that the run itself will train
        words = tokenizer.train(rows, recipe.vocab_size, recipe.context())
    blocked = recipe.kind == "pretrain" and recipe.packing
    encoder = data.Encoder(words, blocks.uncut(recipe) if blocked else recipe, data.is_chat(rows))
    lengths, truncated = [], 0
    for row in rows[:MEASURED]:
        sample = encoder(row)
        if sample is not None:
            lengths.append(sample.length)
            truncated += sample.truncated
    if not lengths:
        raise StudioError("Every row of the dataset is empty.", "Check the columns.", "dataset")
    lengths.sort()

    def at(share: float) -> int:
        return lengths[min(len(lengths) - 1, int(share * len(lengths)))]

    return {"rows": rows, "held": len(held), "encoder": encoder, "truncated": truncated,
            "measured": min(len(rows), MEASURED), "lengths": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
                                                              "max": lengths[-1]}}


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token, so that they join to the whole; a character of several tokens stands at its last."""
    def decode(part: list[int]) -> str:
        return tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    out: list[str] = []
    start, before = 0, ""
    for end in range(1, len(ids) + 1):
        now = decode(ids[start:end])
        if now.endswith("\ufffd") and end < len(ids) and end - start < 12:
            out.append("")
            continue
        out.append(now[len(before):])
        start, before = end - 1, decode(ids[end - 1:end])
        if "\ufffd" in before:  # the last byte of a character: begin afresh behind it
            start, before = end, ""
    return out
