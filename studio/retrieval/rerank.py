"""A second, slower look at the best chunks of a search.

``diverse``: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): not five times the same.
``likelihood``: how likely a language model finds the question after the chunk (query likelihood; Ponte & Croft, SIGIR 1998;
with language models Sachan et al. 2022, arXiv 2204.07496). Any model of this studio can do it.
``cross``: a cross-encoder from a folder (Nogueira & Cho 2019, arXiv 1901.04085), a model that was trained for this.
The last two need torch and run in a probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studio.errors import StudioError

WAYS = ("none", "diverse", "likelihood", "cross")
POOL = 20  # chunks that are looked at again
BALANCE = 0.7  # share of relevance in "diverse"


def again(hits: list[dict[str, Any]], question: str, index: Any, way: str, model: str = "") -> list[dict[str, Any]]:
    """``hits`` in a new order; beyond the first :data:`POOL` the old one stays. Each that moved knows its place ``before``.

    Raises:
        StudioError: no model for a way that needs one, or it cannot be loaded.
    """
    head, rest = hits[:POOL], hits[POOL:]
    if way == "none" or len(head) < 2:
        return hits
    if way == "diverse":
        order = _diverse(np.array([hit["score"] for hit in head]), index.alike([hit["chunk"] for hit in head]))
    else:
        from studio.jobs import probe

        texts = [index.chunks[hit["chunk"]]["text"] for hit in head]
        if not model:
            raise StudioError("No model is chosen for the second look.", "Choose one, or take another way.", "rerank")
        scores = probe.call(f"studio.retrieval.rerank:{way}", {"model": model, "question": question, "texts": texts}, timeout=180)
        order = sorted(range(len(head)), key=lambda i: (-scores[i], i))
    return [head[i] | {"before": i + 1} for i in order] + rest


def _diverse(scores: np.ndarray, alike: np.ndarray) -> list[int]:
    """Indices in order of relevance less likeness to what was taken already."""
    worth = scores / (scores.max() or 1.0)
    order, left = [int(worth.argmax())], set(range(len(scores))) - {int(worth.argmax())}
    while left:
        best = max(sorted(left), key=lambda i: BALANCE * worth[i] - (1 - BALANCE) * max(alike[i, j] for j in order))
        order.append(best)
        left.remove(best)
    return order


def likelihood(model: str, question: str, texts: list[str]) -> list[float]:
    """Mean log-probability (nats a token) of the question after each text. Runs in a probe.

    Raises:
        StudioError: no such model, or one that transformers cannot load.
    """
    import torch

    from studio.library import refs
    from studio.trainers import load

    found = refs.resolve_model(model)
    refs.check_loads(found, "rerank")
    refs.check_writes(found, "rerank")
    load.quiet()
    tokenizer = load.tokenizer(found)
    net = load.model(found, torch.float32).eval()
    asked = tokenizer(" " + question.strip(), add_special_tokens=False)["input_ids"][:256]
    room = (getattr(net.config, "max_position_embeddings", None) or 4096) - len(asked)
    scores = []
    with torch.inference_mode():
        for text in texts:
            before = tokenizer(text, add_special_tokens=False)["input_ids"][:max(1, min(room, 1024))]
            ids = torch.tensor([before + asked])
            logits = net(ids).logits[0, len(before) - 1:-1].float().log_softmax(-1)
            scores.append(float(logits.gather(1, ids[0, len(before):, None]).mean()))
    return scores


def cross(model: str, question: str, texts: list[str]) -> list[float]:
    """The cross-encoder's score of each text. Runs in a probe.

    Raises:
        StudioError: the folder holds no cross-encoder.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from studio.library import refs
    from studio.trainers import load

    found = refs.resolve_model(model)
    load.quiet()
    hint = "Choose a folder such as a download of cross-encoder/ms-marco-MiniLM-L6-v2."
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.source, local_files_only=True)
        net = AutoModelForSequenceClassification.from_pretrained(found.source, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError) as err:
        raise StudioError(f"{found.label} is no cross-encoder: {str(err).splitlines()[0][:200]}", hint, "rerank") from err
    if net.config.num_labels != 1:
        raise StudioError(f"{found.label} sorts into {net.config.num_labels} classes; a cross-encoder gives one number.", hint, "rerank")
    with torch.inference_mode():
        made = tokenizer([question] * len(texts), texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
        return [float(value) for value in net(**made).logits[:, 0]]
