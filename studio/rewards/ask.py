"""A reward model asked directly: what it gives to answers that a person typed. Worker side."""

from __future__ import annotations

from typing import Any

LONGEST = 2048  # tokens; of longer texts it reads the end


def scored(model: str, prompt: str, answers: list[str]) -> dict[str, Any]:
    """``{"scores": [number, …]}``, one for each answer to the prompt; higher is better.

    Raises:
        StudioError: there is no such model, or it is none that scores.
    """
    from studio.datasets import rewards

    loaded, tokenizer, device = rewards.load(model)
    places = getattr(loaded.config, "max_position_embeddings", None) or LONGEST
    texts = [rewards.text_of({"prompt": prompt, "completion": answer}, "", tokenizer) for answer in answers]
    found, _ = rewards.rewards_of(loaded, tokenizer, device, texts, len(texts), min(LONGEST, places), lambda done: None)
    return {"scores": [float(score) for score in found]}
