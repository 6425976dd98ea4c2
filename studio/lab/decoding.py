"""How a model chooses its words: one prompt under many ways of decoding, with what it thought at every token.

Runs inside a chat engine, on the model that is loaded there. What transformers' ``generate`` can do it does; contrastive search,
which left it in its fifth version, is here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from studio.errors import StudioError

ALTERNATIVES = 8  # other tokens that are told at each place
MOST_TOKENS, MOST_BEAMS = 256, 8
STRATEGIES = ("greedy", "sample", "beam", "contrastive")
# setting -> (default, least, most) of the numbers that a person turns
NUMBERS: dict[str, tuple[float, float, float]] = {
    "temperature": (1.0, 0.05, 5.0), "top_k": (0, 0, 1000), "top_p": (1.0, 0.01, 1.0), "min_p": (0.0, 0.0, 1.0),
    "typical_p": (1.0, 0.01, 1.0), "repetition_penalty": (1.0, 0.5, 2.0), "no_repeat_ngram_size": (0, 0, 20),
    "num_beams": (4, 2, MOST_BEAMS), "length_penalty": (1.0, -2.0, 2.0), "penalty_alpha": (0.6, 0.0, 1.0),
    "max_new_tokens": (48, 1, MOST_TOKENS), "seed": (0, 0, 2**31 - 1)}
_WHOLE = ("top_k", "no_repeat_ngram_size", "num_beams", "max_new_tokens", "seed")
OF = {"greedy": (), "sample": ("temperature", "top_k", "top_p", "min_p", "typical_p"), "beam": ("num_beams", "length_penalty"),
       "contrastive": ("penalty_alpha", "top_k")}
ALL = ("repetition_penalty", "no_repeat_ngram_size")


class Way(NamedTuple):
    """One way of decoding: a strategy, and every number with its default filled in."""

    strategy: str
    numbers: dict[str, float]


def way(values: dict[str, Any]) -> Way:
    """A checked way from plain values; settings that its strategy does not know are left at their default.

    Raises:
        StudioError: an unknown strategy, or a number that is none or out of bounds, naming it.
    """
    strategy = str(values.get("strategy") or "greedy")
    if strategy not in STRATEGIES:
        raise StudioError(f"There is no way of decoding called '{strategy}'.", f"Known: {', '.join(STRATEGIES)}.", "strategy")
    numbers = {}
    for name, (default, low, high) in NUMBERS.items():
        value = values.get(name)
        applies = name in (*OF[strategy], *ALL, "max_new_tokens", "seed")
        try:
            number = default if value in (None, "") or not applies else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            raise StudioError(f"{name} must be between {low:g} and {high:g}; it is {value}.", "", name)
        numbers[name] = int(number) if name in _WHOLE else number
    if strategy == "contrastive" and not numbers["top_k"]:
        numbers["top_k"] = 4
    return Way(strategy, numbers)


def explore(model: Any, tokenizer: Any, ids: list[int], chosen: Way, ends: set[int], prefix: list[int] | None = None,
            stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """One answer with the thoughts behind it.

    Args:
        ids: The prompt.
        prefix: Tokens that the answer begins with, e.g. up to where a person took another branch.
        ends: Tokens that end an answer.
        stopped: Asked at each token.

    Returns:
        ``tokens``: per token ``{id, text, p, rank, entropy, alternatives: [{id, text, p}], given}``. ``p`` and ``entropy``
        (bits) are of the model's own distribution before any setting touches it, ``rank`` is 1 for the likeliest; ``given``
        marks the prefix. ``kept``: how many tokens the settings left to choose from, where they cut. ``text``, ``finish``
        (``stop`` | ``length`` | ``stopped``), ``seconds``, ``tokens_per_second``, ``logprob`` (nats, of the whole answer), and
        for beams ``tree``: ``{nodes: [{id, parent, token, text, p, score, best}]}``.
    """
    import torch

    prefix = list(prefix or [])
    began = time.perf_counter()
    numbers, start = chosen.numbers, torch.tensor([ids + prefix], device=model.device)
    room = max(1, int(numbers["max_new_tokens"]) - len(prefix))
    torch.manual_seed(int(numbers["seed"]))
    watched = _Watched(len(ids) + len(prefix), stopped)
    with torch.inference_mode():
        if chosen.strategy == "contrastive":
            made = _contrastive(model, start, room, int(numbers["top_k"]), numbers["penalty_alpha"], ends, stopped)
        else:
            made = _generated(model, tokenizer, start, room, chosen, ends, watched)
        answer = made[len(ids):]
        seconds = time.perf_counter() - began
        thoughts = _thoughts(model, tokenizer, ids, answer)
    for n, one in enumerate(thoughts):
        one["given"] = n < len(prefix)
        if 0 <= n - len(prefix) < len(watched.kept):
            one["kept"] = watched.kept[n - len(prefix)]
    ended = bool(answer) and answer[-1] in ends
    found = {"tokens": thoughts, "text": tokenizer.decode(answer, skip_special_tokens=True), "seconds": seconds,
             "tokens_per_second": (len(answer) - len(prefix)) / seconds if seconds else None,
             "logprob": sum(math.log(max(one["p"], 1e-45)) for one in thoughts),
             "finish": "stop" if ended else "stopped" if stopped() else "length"}
    if chosen.strategy == "beam":
        found["tree"] = _tree(watched.steps, tokenizer, answer[len(prefix):])
    return found


class _Watched:
    """A logits processor that changes nothing: sees every beam as it grows. ``kept`` is filled from the scores at the end."""

    def __init__(self, length: int, stopped: Callable[[], bool]):
        self.length, self.stopped = length, stopped
        self.kept: list[int] = []
        self.steps: list[list[list[int]]] = []  # step -> beams -> tokens behind the prompt

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.steps.append([row[self.length:].tolist() for row in input_ids])
        return scores


def _generated(model: Any, tokenizer: Any, start: Any, room: int, chosen: Way, ends: set[int], watched: _Watched) -> list[int]:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    numbers = chosen.numbers
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    config = GenerationConfig(do_sample=chosen.strategy == "sample", max_new_tokens=room, pad_token_id=pad,
                              eos_token_id=sorted(ends) or None, num_beams=int(numbers["num_beams"]) if chosen.strategy == "beam" else 1,
                              repetition_penalty=numbers["repetition_penalty"],
                              no_repeat_ngram_size=int(numbers["no_repeat_ngram_size"]), top_k=0)
    if chosen.strategy == "sample":
        for name in OF["sample"]:
            setattr(config, name, int(numbers[name]) if name == "top_k" else numbers[name] or None)
    if chosen.strategy == "beam":
        config.length_penalty, config.early_stopping = numbers["length_penalty"], True

    def halt(input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((input_ids.shape[0],), watched.stopped(), device=input_ids.device)

    out = model.generate(input_ids=start, attention_mask=torch.ones_like(start), generation_config=config,
                         logits_processor=LogitsProcessorList([watched]), stopping_criteria=[halt],
                         return_dict_in_generate=True, output_scores=chosen.strategy == "sample")
    left = [int((scores[0] > -1e30).sum()) for scores in out.scores or ()]
    watched.kept = left if any(n < out.scores[0].shape[-1] for n in left) else []  # nothing was cut off
    made = out.sequences[0].tolist()
    while len(made) > start.shape[1] + 1 and made[-1] == pad and made[-2] in ends:  # beams are filled up to one length
        made.pop()
    return made


def _contrastive(model: Any, start: Any, room: int, k: int, alpha: float, ends: set[int], stopped: Callable[[], bool]) -> list[int]:
    """Contrastive search: the likely token that least resembles what stands there already. Su et al. 2022
    (https://arxiv.org/abs/2202.06417): ``(1 - alpha) * p - alpha * max cosine`` over the last layer's states.

    Each step reads all candidates after the whole text, without a cache: short answers are what it is for here.
    """
    import torch

    made = start[0].tolist()
    for _ in range(room):
        out = model(input_ids=torch.tensor([made], device=start.device), output_hidden_states=True)
        p, likely = out.logits[0, -1].float().softmax(-1).topk(k)
        before = torch.nn.functional.normalize(out.hidden_states[-1][0].float(), dim=-1)
        rows = torch.tensor([[*made, token] for token in likely.tolist()], device=start.device)
        after = model(input_ids=rows, output_hidden_states=True).hidden_states[-1][:, -1].float()
        alike = (torch.nn.functional.normalize(after, dim=-1) @ before.T).max(-1).values
        made.append(int(likely[int(((1 - alpha) * p - alpha * alike).argmax())]))
        if made[-1] in ends or stopped():
            break
    return made


def _thoughts(model: Any, tokenizer: Any, ids: list[int], answer: list[int]) -> list[dict[str, Any]]:
    """What the model made of each token of an answer, from one pass over all of it."""
    import torch

    from studio.trainers.preview import pieces

    if not answer:
        return []
    logits = model(input_ids=torch.tensor([ids + answer], device=model.device)).logits[0, len(ids) - 1:-1].float()
    logp = logits.log_softmax(-1)
    chosen = logp[torch.arange(len(answer)), torch.tensor(answer, device=logp.device)]
    ranks = (logp > chosen[:, None]).sum(-1) + 1
    entropy = -(logp.exp() * logp.clamp_min(-1e30)).sum(-1) / math.log(2)
    top = logp.topk(min(ALTERNATIVES, logp.shape[-1]))
    texts = pieces(tokenizer, answer)
    made = []
    for n, token in enumerate(answer):
        others = [{"id": i, "text": tokenizer.decode([i]), "p": math.exp(value)}
                  for value, i in zip(top.values[n].tolist(), top.indices[n].tolist(), strict=True)]
        made.append({"id": token, "text": texts[n], "p": math.exp(float(chosen[n])), "rank": int(ranks[n]),
                     "entropy": float(entropy[n]), "alternatives": others})
    return made


def _tree(steps: list[list[list[int]]], tokenizer: Any, best: list[int]) -> dict[str, Any]:
    """All beams that were ever held, as one tree; branches that were given up end where they were."""
    nodes: dict[tuple[int, ...], dict[str, Any]] = {(): {"id": 0, "parent": None, "token": None, "text": "", "best": True}}
    for beams in [*steps, [best]]:
        for beam in beams:
            for length in range(1, len(beam) + 1):
                path = tuple(beam[:length])
                if path not in nodes:
                    nodes[path] = {"id": len(nodes), "parent": nodes[path[:-1]]["id"], "token": path[-1],
                                   "text": tokenizer.decode([path[-1]]), "best": list(path) == best[:length]}
    return {"nodes": list(nodes.values())}
