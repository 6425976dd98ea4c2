"""A person's own held-out rows as one more task, on the model that is loaded already. For the worker only."""

from __future__ import annotations

import math
from typing import Any

from lm_eval.api.instance import Instance

from studio.evals import compare
from studio.evals.lm_local import Local

ROWS = 1000  # of a held-out set, where the recipe sets no limit
ANSWER = 64  # tokens of an answer, where the recipe sets none


def rows(recipe: Any, ctx: Any) -> list[compare.Item]:
    """The rows, drawn by the seed.

    Raises:
        StudioError: in ``dataset``.
    """
    limit = recipe.limit or ROWS
    if limit < 1:
        every = len(compare.drawn(recipe.dataset, recipe.columns, 10**9, recipe.random_seed))
        limit = max(1, math.ceil(every * limit))
    return compare.drawn(recipe.dataset, recipe.columns, int(limit), recipe.random_seed, ctx)


def score(lm: Any, items: list[compare.Item], functions: list, recipe: Any, warn: Any) -> compare.Scores | None:
    """What a model makes of the rows; ``None`` where it was stopped.

    Only a model that transformers loaded counts tokens as the small comparison does. llama.cpp measures the answer behind the
    question in the file's own template, without the token that ends it; a server is only asked for answers.
    """
    watch, most = lm.watch, recipe.max_gen_toks or ANSWER
    if isinstance(lm, Local):
        watch.begin(1000)

        def tell(share: float) -> None:
            watch.done = round(1000 * share)
            watch.tell(share)

        return compare.evaluate(lm.model, lm.tokenizer, items, functions, most, lm.max_length, recipe.batch_size, stop=watch.stop,
                                tell=tell, warn=warn)
    made = compare.Scores(losses=[0.0] * len(items), tokens=[0] * len(items))
    if lm.likelihoods:
        _losses(lm, items, made)
    asked = [i for i, item in enumerate(items) if item.asked]
    if functions and asked:
        chats = [items[i].asked for i in asked]
        given = [_instance("generate_until", (_text(lm, row["prompt"]), {"until": [], "max_gen_toks": most, "do_sample": False}))
                 for row in chats]
        compare.rated(made, len(items), asked, chats, [text.strip() for text in lm.generate_until(given)], functions)
    made.answers = made.answers or [None] * len(items)
    return made


def _losses(lm: Any, items: list[compare.Item], made: compare.Scores) -> None:
    asked = [i for i, item in enumerate(items) if item.asked and item.text]
    pairs = [(_text(lm, items[i].asked["prompt"]), items[i].text) for i in asked]
    plain = [i for i, item in enumerate(items) if not item.asked and item.text]
    values = [value for value, _ in lm.loglikelihood([_instance("loglikelihood", pair) for pair in pairs])] if pairs else []
    if plain:
        values += lm.loglikelihood_rolling([_instance("loglikelihood_rolling", (items[i].text,)) for i in plain])
    counts = [len(lm.tok_encode(before + text)) - len(lm.tok_encode(before)) for before, text in pairs]
    counts += [len(lm.tok_encode(items[i].text)) for i in plain]
    for i, value, count in zip([*asked, *plain], values, counts, strict=True):
        made.losses[i], made.tokens[i] = -float(value), count
        made.bytes += len(items[i].text.encode())


def _text(lm: Any, prompt: Any) -> str:
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": str(prompt)}]
    return lm.apply_chat_template(messages) if lm.templated else "\n\n".join(str(one["content"]) for one in messages) + "\n"


def _instance(kind: str, arguments: tuple) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=("heldout", 0, 1))
