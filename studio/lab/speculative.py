"""Writing several tokens a step: what a small model proposes, or what stands in the text already, is checked by the large one at once.

Speculative decoding: Leviathan et al. 2022 (https://arxiv.org/abs/2211.17192). Prompt lookup: the last words are looked up in the
text so far, and what followed there is proposed (https://github.com/apoorvumang/prompt-lookup-decoding). Both are
transformers' own ``generate``; here is only what counts how many proposals were taken, and how much time that saved.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

from studio.errors import StudioError

# setting -> (default, least, most)
NUMBERS: dict[str, tuple[float, float, float]] = {
    "num_assistant_tokens": (5, 1, 32), "prompt_lookup_num_tokens": (10, 1, 64), "max_matching_ngram_size": (2, 1, 10),
    "temperature": (0.0, 0.0, 5.0), "max_new_tokens": (96, 4, 512), "seed": (0, 0, 2**31 - 1), "rounds": (3, 1, 9)}
_REAL = ("temperature",)


def settings(values: dict[str, Any]) -> dict[str, float]:
    """Every number with its default filled in.

    Raises:
        StudioError: naming one that is unknown, no number, or out of bounds.
    """
    if unknown := set(values) - set(NUMBERS):
        raise StudioError(f"There is no setting '{min(unknown)}'.", f"Known: {', '.join(NUMBERS)}.", min(unknown))
    made = {}
    for name, (default, low, high) in NUMBERS.items():
        value = values.get(name)
        try:
            number = default if value in (None, "") else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            raise StudioError(f"{name} must be between {low:g} and {high:g}; it is {value}.", "", name)
        made[name] = float(number) if name in _REAL else int(number)
    return made


def measure(model: Any, tokenizer: Any, ids: list[int], chosen: dict[str, float], ends: set[int],
            assistant: Any | None = None) -> list[dict[str, Any]]:
    """One answer written plainly, by prompt lookup, and with ``assistant``'s help; the ways take turns, ``rounds`` times.

    Args:
        ids: The prompt.
        ends: Tokens that end an answer.
        assistant: A small model that cuts text as ``model`` does.

    Returns:
        Per way ``{way, text, tokens, seconds, tokens_per_second, forwards, proposed, accepted, acceptance, speedup, same}``: seconds
        are the median, ``forwards`` are passes of the large model, ``acceptance`` is the share of proposed tokens that were
        taken, ``speedup`` compares tokens/s with the plain way, ``same`` says whether the words are the plain way's (``None``
        where chance chooses).
    """
    import torch
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    sample = chosen["temperature"] > 0
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    room = int(chosen["max_new_tokens"])
    if context:
        room = max(1, min(room, context - len(ids) - 1))
    base = {"do_sample": sample, "max_new_tokens": room, "pad_token_id": pad, "eos_token_id": sorted(ends) or None,
            "top_k": 0, "use_cache": True, "num_beams": 1}
    if sample:
        base["temperature"] = float(chosen["temperature"])
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"plain": ({}, {}), "lookup": (
        {"prompt_lookup_num_tokens": int(chosen["prompt_lookup_num_tokens"]),
         "max_matching_ngram_size": int(chosen["max_matching_ngram_size"])}, {})}
    if assistant is not None:
        own = assistant.generation_config  # where the library looks for these
        own.num_assistant_tokens, own.num_assistant_tokens_schedule = int(chosen["num_assistant_tokens"]), "constant"
        own.assistant_confidence_threshold = 0.0
        ways["assistant"] = ({}, {"assistant_model": assistant})
    start = torch.tensor([ids], device=model.device)

    def write(way: str, length: int) -> tuple[list[int], float, _Count]:
        more, helper = ways[way]
        count = _Count()
        torch.manual_seed(int(chosen["seed"]))
        config = GenerationConfig(**base | more | {"max_new_tokens": length})
        with count.watch(model):
            began = time.perf_counter()
            out = model.generate(input_ids=start, attention_mask=torch.ones_like(start), generation_config=config, **helper)
            return out[0, len(ids):].tolist(), time.perf_counter() - began, count

    found: dict[str, list[tuple[list[int], float, _Count]]] = {way: [] for way in ways}
    with torch.inference_mode():
        for way in ways:
            write(way, min(4, room))  # the first call of each pays for what is kept after
        for _ in range(int(chosen["rounds"])):
            for way in ways:
                found[way].append(write(way, room))
    plain = found["plain"][0][0]
    made, basis = [], None
    for way, tries in found.items():
        answer, _, count = tries[0]
        seconds = statistics.median(took for _, took, _ in tries)
        speed = len(answer) / seconds
        basis = basis or speed
        made.append({
            "way": way, "text": tokenizer.decode(answer, skip_special_tokens=True), "tokens": len(answer), "seconds": seconds,
            "tokens_per_second": speed, "forwards": count.forwards, "proposed": count.proposed, "accepted": count.accepted,
            "acceptance": count.accepted / count.proposed if count.proposed else None, "speedup": speed / basis,
            "same": None if sample else answer == plain})
    return made


class _Count:
    """Counts passes of the model, and proposals made and taken, while it is watched."""

    def __init__(self) -> None:
        self.forwards = self.proposed = self.accepted = 0
        self._model: Any = None

    def watch(self, model: Any) -> _Count:
        self._model = model
        return self

    def __enter__(self) -> _Count:
        model, real = self._model, self._model._get_candidate_generator
        self._hook = model.register_forward_pre_hook(self._forward)

        def counted(*args: Any, **more: Any) -> Any:
            generator = real(*args, **more)
            propose, taken = generator.get_candidates, generator.update_candidate_strategy
            last = 0

            def get_candidates(input_ids: Any, *args: Any, **more: Any) -> Any:
                nonlocal last
                made = propose(input_ids, *args, **more)
                last = made[0].shape[1] - input_ids.shape[1]
                self.proposed += last
                return made

            def update_candidate_strategy(input_ids: Any, scores: Any, num_matches: Any, *args: Any, **more: Any) -> Any:
                self.accepted += min(int(num_matches), last)
                return taken(input_ids, scores, num_matches, *args, **more)

            generator.get_candidates, generator.update_candidate_strategy = get_candidates, update_candidate_strategy
            return generator

        model._get_candidate_generator = counted
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        del self._model._get_candidate_generator

    def _forward(self, *_: Any) -> None:
        self.forwards += 1
