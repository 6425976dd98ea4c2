"""What the model will see of a recipe of alignment: its sides side by side, token by token, cut as its trainer cuts them."""

from __future__ import annotations

import difflib
import json
from functools import lru_cache
from typing import Any

from studio.aligners import cut, data
from studio.library import refs
from studio.recipe import parse
from studio.registry import method
from studio.trainers.data import set_template
from studio.trainers.preview import MEASURED, SHOWN, pieces

TITLES = {"pairs": ("Better answer", "Worse answer"), "prompts": ("What is asked",), "chats": ("Answer to imitate",),
          "steps": ("Steps that are judged",)}


def preview(recipe: Any, index: int = 0) -> dict[str, Any]:
    """One sample, and what the cut costs of the first ``MEASURED`` ones.

    Returns:
        ``sides`` [{title, good, tokens [{id, text, trained, differs}], length, kept, trained}] and, for the page, what
        :func:`studio.trainers.preview.preview` returns, of the first side. ``trained`` marks tokens of an answer,
        ``differs`` those that the other answer does not have; ``good`` is whether a side is learned to be said (``None``: it is
        only asked, or imitated).

    Raises:
        StudioError: as the run itself would, before it starts.
    """
    found = _prepared(json.dumps(recipe.to_dict(), sort_keys=True))
    rows, tokenizer, shape = found["rows"], found["tokenizer"], found["shape"]
    index = max(0, min(int(index), len(rows) - 1))
    row, limit = rows[index], getattr(recipe, "max_length", None) or 1 << 30
    whole = _sample(row, shape, tokenizer)
    left = whole.cut(limit)
    titles = TITLES.get(shape) or (("Good answer",) if row["label"] else ("Bad answer",))
    marks = _differing(left.answers)
    good = [True, False] if shape == "pairs" else [row.get("label")]
    sides = []
    for title, liked, answer, full, differs in zip(titles, good, left.answers, whole.answers, marks, strict=True):
        ids = left.prompt + answer
        texts = pieces(tokenizer, ids)
        tokens = [{"id": i, "text": text, "trained": n >= len(left.prompt), "differs": n >= len(left.prompt)
                   and differs[n - len(left.prompt)]} for n, (i, text) in enumerate(zip(ids, texts, strict=True))]
        sides.append({"title": title, "good": liked, "tokens": tokens[:SHOWN], "length": len(whole.prompt) + len(full),
                      "kept": len(ids), "trained": len(answer)})
    first = sides[0]
    return {"sides": sides, "tokens": first["tokens"], "flags": found["flags"] + _flags(whole, left, limit, found["method"]),
            "rendered": "".join(t["text"] for t in first["tokens"]), "length": first["length"], "kept": first["kept"],
            "trained": first["trained"], "index": index, "rows": len(rows), "held": found["held"],
            "measured": found["measured"], "truncated": found["truncated"], "lengths": found["lengths"]}


@lru_cache(maxsize=4)
def _prepared(text: str) -> dict[str, Any]:
    from studio.trainers import load

    load.quiet()
    recipe = parse(json.loads(text))
    chosen = method(recipe.kind, recipe.method)
    tokenizer = load.tokenizer(refs.resolve_model(recipe.model), recipe.trust_remote_code)
    set_template(tokenizer, recipe.chat_template)
    if chosen.shape == "steps":
        from studio.aligners.prm import rows_of

        read = data.Found(rows_of(recipe.dataset), [])
        rows = read.train
    else:
        read = data.read(recipe, chosen.shape)
        rows = list(data.as_chat(read.train, tokenizer.chat_template))
    flags = [_flag(*warning) for warning in read.warnings] + [_flag("converted", note, "") for note in read.notes]
    first, limit, truncated = rows[:MEASURED], getattr(recipe, "max_length", None), 0
    lengths = sorted(_sample(row, chosen.shape, tokenizer).length for row in first)
    if chosen.shape in cut.SIDES and limit:
        _, loss = cut.fit(first, chosen.shape, tokenizer, limit, chosen.whole, chosen.spare)
        truncated = loss.cut + loss.left_out
        flags += [_flag(*warning) for warning in loss.warnings(cut.NOUN[chosen.shape], limit)]

    def at(share: float) -> int:
        return lengths[min(len(lengths) - 1, int(share * len(lengths)))]

    return {"rows": rows, "held": len(read.held), "tokenizer": tokenizer, "shape": chosen.shape, "method": chosen,
            "flags": flags, "measured": len(first), "truncated": truncated,
            "lengths": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": lengths[-1]}}


def _sample(row: dict[str, Any], shape: str, tokenizer: Any) -> cut.Sample:
    if shape == "prompts":
        return cut.Sample([], [cut.ids(tokenizer, row["prompt"])])
    if shape == "steps":
        steps = "".join(f"{step}\n" for step in row["completions"])
        return cut.Sample(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"],
                          [tokenizer(steps, add_special_tokens=False)["input_ids"]])
    if shape == "chats":
        turns = row["messages"]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        row = {"prompt": turns[:last], "completion": turns[last:last + 1]}
        return cut.sample(row, "unpaired", tokenizer)
    return cut.sample(row, shape, tokenizer)


def _differing(answers: list[list[int]]) -> list[list[bool]]:
    """For each token of each answer, whether the other one lacks it there; of a single answer none."""
    if len(answers) < 2:
        return [[False] * len(answer) for answer in answers]
    marks = [[True] * len(answer) for answer in answers]
    for block in difflib.SequenceMatcher(None, *answers, autojunk=False).get_matching_blocks():
        marks[0][block.a:block.a + block.size] = [False] * block.size
        marks[1][block.b:block.b + block.size] = [False] * block.size
    return marks


def _flags(whole: cut.Sample, left: cut.Sample, limit: int, chosen: Any) -> list[dict[str, str]]:
    """What is wrong with this very sample."""
    if chosen.shape not in cut.SIDES:
        return []
    if (whole.length > limit) if chosen.whole else (len(whole.prompt) + chosen.spare >= limit):
        return [_flag("nothing-trained", f"Nothing is learned from this sample of {whole.length} tokens: it is left out.",
                      "Raise 'Longest sample'.")]
    if len(left.answers) == 2 and left.answers[0] == left.answers[1]:
        return [_flag("same-answer", "Both answers of this pair are the same: nothing is learned from it.",
                      "Raise 'Longest sample', or remove the pair.")]
    if whole.length > limit:
        return [_flag("truncated", f"Cut at {limit} of {whole.length} tokens.",
                      "Raise 'Longest sample' to keep its end.")]
    return []


def _flag(code: str, message: str, hint: str) -> dict[str, str]:
    return {"code": code, "message": message, "hint": hint}

