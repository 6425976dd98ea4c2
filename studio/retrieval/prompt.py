"""The messages that put a question to a model, with sources or without, and how they look to a model of this studio."""

from __future__ import annotations

import secrets
from typing import Any

from studio.errors import StudioError
from studio.retrieval import guard

LAYOUTS = ("numbered", "bare")
RULE = ("Answer the question from the numbered sources. Put the number of each source you use in brackets behind the sentence, like [1]. "
        "If they do not answer it, say that.")
RESERVE = 64  # tokens kept free for the answer


def fence() -> str:
    """A name for the lines around the sources that no document can know."""
    return f"data-{secrets.token_hex(3)}"


def messages(question: str, sources: list[dict[str, Any]], layout: str = "numbered", mode: str = "delimit",
             mark: str = "") -> list[dict[str, str]]:
    """What is sent. ``bare`` puts the texts before the question and says nothing about them, for small models that were taught to
    read that; then nothing tells data from instructions.

    Args:
        sources: ``{number, title, text}``.
        mark: The name of :func:`fence`.
    """
    if not sources:
        return [{"role": "user", "content": question}]
    if layout == "bare":
        return [{"role": "user", "content": " ".join([*(guard.visible(one["text"]).strip() for one in sources), question])}]
    mark = mark or fence()
    texts = "\n\n".join(f"[{one['number']}] {guard.visible(one['title'])[:120]}\n{guard.marked(one['text'], mode)}" for one in sources)
    inside = texts if mode == "none" else f"<{mark}>\n{texts}\n</{mark}>"
    system = " ".join(filter(None, [RULE, guard.rule(mode, mark)]))
    return [{"role": "system", "content": system}, {"role": "user", "content": f"{inside}\n\nQuestion: {question}"}]


def seen(model: str, ways: dict[str, list[list[dict[str, str]]]]) -> dict[str, dict[str, Any]]:
    """How conversations look to a model, through its own chat template. Runs in a probe.

    Args:
        ways: name -> versions of one conversation, the longest first; the first that fits the context is taken.

    Returns:
        name -> ``{chosen, text, tokens, context}``; ``chosen`` is the version's place.

    Raises:
        StudioError: the model has no chat template, or even the last version does not fit.
    """
    from transformers import AutoConfig

    from studio.library import refs
    from studio.trainers import load

    found = refs.resolve_model(model)
    load.quiet()
    tokenizer = load.tokenizer(found)
    base = refs.resolve_model(load.base_of(found)) if found.is_adapter else found
    context = getattr(AutoConfig.from_pretrained(base.source, revision=base.revision), "max_position_embeddings", None)
    if not tokenizer.chat_template:
        raise StudioError(f"{found.label} has no chat template.", "Choose a model that chats.", "model")
    made: dict[str, dict[str, Any]] = {}
    for name, versions in ways.items():
        for place, turns in enumerate(versions):
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            if not context or count + RESERVE <= context:
                made[name] = {"chosen": place, "text": text, "tokens": count, "context": context}
                break
        else:
            raise StudioError(f"The question is {count:,} tokens long; {found.label} reads {context:,}.", "Shorten it.", "question")
    return made
