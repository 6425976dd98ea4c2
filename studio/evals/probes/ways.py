"""Speed of one model under several ways of generating: with and without the cache of keys and values, by prompt lookup, with a
helper model. In this process with transformers' own ``generate``, because servers do not let their cache be turned off.

What speculation proposes and what is taken of it is counted by :mod:`studio.lab.speculative`, which explains both ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from studio.datasets.step import Stopped
from studio.evals.probes import timing

WAYS = {"cache": "With the cache", "no_cache": "Without the cache", "prompt_lookup": "Prompt lookup", "assistant": "Helper model"}
LOOKED_UP, PROPOSED = 10, 5  # tokens that prompt lookup and a helper propose at once


def measure(net: Any, tokenizer: Any, ways: list[str], context: int, tokens: int, repeats: int, warmup: int, helper: Any = None,
            stopping: Callable[[], bool] = lambda: False) -> dict[str, list[dict[str, float]]]:
    """Way -> of each repeat ``{"tokens", "seconds", "forwards", "per_second", "per_forward", "acceptance"?}``; the ways take turns.

    Every answer is greedy and exactly ``tokens`` long: the end token is taken away. ``forwards`` are passes of the model, so
    ``per_forward`` is what speculation gains where computing costs nothing.

    Raises:
        Stopped: as asked.
    """
    import torch

    ids = tokenizer(timing.filler(context, "ways"), add_special_tokens=False)["input_ids"][:context]
    inputs = torch.tensor([ids], device=net.device)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(warmup + repeats):
        for way in ways:
            one = _once(net, inputs, way, tokens, helper, stopping)
            if turn >= warmup:
                found[way].append(one)
    return found


def _once(net: Any, inputs: Any, way: str, tokens: int, helper: Any, stopping: Callable[[], bool]) -> dict[str, float]:
    import torch
    from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

    from studio.lab.speculative import _Count

    class Asked(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((ids.shape[0],), stopping(), dtype=torch.bool, device=ids.device)

    config = GenerationConfig(do_sample=False, max_new_tokens=tokens, eos_token_id=None, pad_token_id=0, use_cache=way != "no_cache",
                              **({"prompt_lookup_num_tokens": LOOKED_UP} if way == "prompt_lookup" else {}))
    before = [(one, one.generation_config.eos_token_id) for one in (net, helper) if one is not None]
    more = {"assistant_model": helper} if way == "assistant" else {}
    if helper is not None:  # where the library looks for these
        own = helper.generation_config
        own.num_assistant_tokens, own.num_assistant_tokens_schedule, own.assistant_confidence_threshold = PROPOSED, "constant", 0.0
    count = _Count()
    try:
        for one, _ in before:  # what is None in a given configuration is taken from the model's own
            one.generation_config.eos_token_id = None
        with torch.inference_mode(), count.watch(net):
            began = time.perf_counter()
            out = net.generate(input_ids=inputs, attention_mask=torch.ones_like(inputs), generation_config=config,
                               stopping_criteria=StoppingCriteriaList([Asked()]), **more)
            seconds = time.perf_counter() - began
    finally:
        for one, end in before:
            one.generation_config.eos_token_id = end
    if stopping():
        raise Stopped
    made = out.shape[1] - inputs.shape[1]
    told = {"tokens": made, "seconds": seconds, "forwards": count.forwards, "per_second": made / seconds,
            "per_forward": made / max(1, count.forwards)}
    return told | ({"acceptance": count.accepted / count.proposed} if count.proposed else {})
