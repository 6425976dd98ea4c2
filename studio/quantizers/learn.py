"""Rounding, to look at: the simplest two ways to make whole numbers of weights, from 8 bits to 2, on any model.

Formulas (W a matrix, or each of its rows; k bits; round to the nearest, half to even):

* absmax (Dettmers et al. 2022, LLM.int8(), section 2, https://arxiv.org/abs/2208.07339): n = 2^(k-1) - 1,
  s = max|W| / n, q = round(W / s) in [-n, n], and what the model then computes with is s q.
* zero-point (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, equation 1: r = S(q - Z)): s = (max W - min W) / (2^k - 1),
  z = round(-2^(k-1) - min W / s), q = round(W / s) + z in [-2^(k-1), 2^(k-1) - 1], and what is computed with is s (q - z).

Error of a matrix: rmse = sqrt(mean (W - W')^2), relative = rmse / sqrt(mean W^2).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from studio.library import refs
from studio.method import Estimate
from studio.quantizers.base import QuantizeMethod, QuantizeRecipe, Stopped
from studio.recipe import field

SCHEMES = ("absmax", "zeropoint")
BINS = 150
FILE = "learn.json"
PROMPTS = 3
# Seconds of one setting on one core, with 64 texts: always, and a million weights; measured on models of 2.6, 8 and 31 million
PACE = (1.1, 0.096)


class LearnRecipe(QuantizeRecipe):
    """Fields of the lesson on rounding."""

    method: ClassVar[str] = "learn"

    prove: bool = field(False, "Prove each variant", "Nothing is stored here that could be loaded.", widget="hidden")
    dataset: str = field("shipped:calibration", "Texts", "Perplexity is measured on the half of them that the model reads "
                         "best, and it answers the first questions among these.", widget="dataset", max_length=1000)
    num_calibration_samples: int = field(64, "Number of texts", "More texts make the perplexity surer and the run longer.",
                                         group="training", ge=4, le=1024)
    bits: list[Literal[8, 7, 6, 5, 4, 3, 2]] = field(
        [8, 7, 6, 5, 4, 3, 2], "Bits", "Stops of the slider. Each one is a measurement of its own.", widget="lines",
        max_length=7)
    granularities: list[Literal["row", "tensor"]] = field(
        ["tensor", "row"], "A scale for", "One scale for a whole matrix, as in the simplest codes, or one for each of its "
        "rows, as in real ones.", widget="lines", choices={"tensor": "The whole matrix", "row": "Each row"}, max_length=2)
    max_new_tokens: int = field(24, "Length of answers", "How far each sample answer is written.", group="watch",
                                unit="tokens", ge=4, le=256)


def absmax(weight: Any, bits: int, row: bool) -> Any:
    """What is left of ``weight`` (rows, columns) after absmax rounding; see the module. All zeros stay zeros."""
    top = 2 ** (bits - 1) - 1
    largest = weight.abs().amax(dim=1, keepdim=True) if row else weight.abs().max()
    scale = (largest / top).clamp_min(1e-12)
    return (weight / scale).round().clamp(-top, top) * scale


def zeropoint(weight: Any, bits: int, row: bool) -> Any:
    """What is left of ``weight`` (rows, columns) after zero-point rounding; see the module. A constant stays as it is."""
    import torch

    low = weight.amin(dim=1, keepdim=True) if row else weight.min()
    high = weight.amax(dim=1, keepdim=True) if row else weight.max()
    scale = ((high - low) / (2 ** bits - 1)).clamp_min(1e-12)
    zero = (-(2 ** (bits - 1)) - low / scale).round()
    whole = ((weight / scale).round() + zero).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return torch.where(high > low, (whole - zero) * scale, weight)


ROUND: dict[str, Callable[[Any, int, bool], Any]] = {"absmax": absmax, "zeropoint": zeropoint}


class Learn(QuantizeMethod):
    """Absmax and zero-point rounding, measured."""

    title = "Learn it"
    summary = "See what rounding does: weights before and after, error by layer, perplexity and answers from 8 bits to 2."
    paper = "https://arxiv.org/abs/2208.07339"
    group = "learn"
    Recipe = LearnRecipe

    @classmethod
    def variants(cls, recipe: LearnRecipe) -> list[str]:
        """None: what is measured is not stored."""
        return []

    @classmethod
    def check(cls, recipe: LearnRecipe) -> None:
        from studio.errors import StudioError
        from studio.quantizers import plan

        plan.source_of(recipe.model)
        for name in ("bits", "granularities"):
            if not getattr(recipe, name):
                raise StudioError("Nothing is chosen here.", "Choose at least one.", name)
        plan.check_texts(recipe, True, cls.title)

    @classmethod
    def estimate(cls, recipe: LearnRecipe) -> Estimate:
        from studio.errors import StudioError
        from studio.quantizers import plan

        made = Estimate(disk=2_000_000)
        try:
            parameters = plan.source_of(recipe.model).meta.get("parameters")
        except StudioError:
            return made
        if parameters:
            each = (PACE[0] + parameters / 1e6 * PACE[1]) * max(0.5, recipe.num_calibration_samples / 64)
            made.memory = int(parameters * 8 + plan.LIBRARIES)
            made.seconds = plan.START + (len(recipe.bits) * len(SCHEMES) * len(recipe.granularities) + 2) * each
            made.notes.append("Time is an estimate for one core with nothing else running.")
        return made

    @classmethod
    def run(cls, recipe: LearnRecipe, ctx: Any) -> dict[str, Any]:
        from studio.quantizers import source

        began = time.time()
        try:
            with source.whole(recipe, ctx) as model:
                found = study(recipe, ctx, model)
        except Stopped:
            return {}
        path = ctx.output / FILE
        path.write_text(json.dumps(found, ensure_ascii=False), "utf-8")
        label = refs.resolve_model(recipe.model).label
        ctx.artifact("file", path, recipe.name or f"{label}: rounding"[:80], {"method": "quantize/learn", "format": "learn"},
                     [(recipe.model, "source")])
        return {"perplexity": found["original"]["perplexity"], "matrices": len(found["results"][0]["layers"]),
                "settings": len(found["results"]), "seconds": round(time.time() - began, 2)}


def study(recipe: LearnRecipe, ctx: Any, source: refs.ModelRef) -> dict[str, Any]:
    """Everything the page shows, computed beforehand so that a slider answers at once.

    Returns:
        ``bits``, ``schemes``, ``granularities``, ``texts`` {used, of, tokens}, ``original`` and ``results``: one for each
        (scheme, bits, granularity) with ``perplexity``, ``loss`` (nats a token), ``histogram`` {edges, counts} over all
        matrices, ``layer`` {name, edges, counts} of one matrix, ``layers`` [{name, rmse, relative}], ``rmse``, ``relative``
        over all, ``samples`` [{prompt, text, same}], ``size`` (bytes of the matrices with their scales).

    Raises:
        Stopped: a stop was asked for.
    """
    import torch

    from studio.trainers import load

    load.quiet()
    tokenizer = load.tokenizer(source, recipe.trust_remote_code)
    model = load.model(source, "float32", recipe.trust_remote_code).eval()
    model.config.use_cache = True
    matrices = {name: p for name, p in model.named_parameters() if p.dim() == 2}
    kept = {name: p.detach().clone() for name, p in matrices.items()}
    chosen, prompts, of = _texts(recipe, ctx, tokenizer, model)
    edges = _edges(kept.values())
    shown = _shown(kept)
    near = _edges([kept[shown]])
    total, done = len(recipe.bits) * len(SCHEMES) * len(recipe.granularities) + 1, 1
    loss = _loss(model, chosen, ctx)
    answers = [_answer(model, tokenizer, prompt, recipe.max_new_tokens) for prompt in prompts]
    ctx.progress(done, total)
    counts = sum(p.numel() for p in kept.values())
    original = {"perplexity": _perplexity(loss), "loss": loss, "histogram": _histogram(kept.values(), edges),
                "layer": {"name": shown} | _histogram([kept[shown]], near), "size": counts * 2,
                "samples": [{"prompt": p, "text": a} for p, a in zip(prompts, answers, strict=True)]}
    results = []
    for scheme in SCHEMES:
        for granularity in recipe.granularities:
            for bits in sorted(recipe.bits, reverse=True):
                made = _rounded(matrices, kept, scheme, bits, granularity == "row")
                loss = _loss(model, chosen, ctx)
                texts = [_answer(model, tokenizer, prompt, recipe.max_new_tokens) for prompt in prompts]
                results.append({"scheme": scheme, "bits": bits, "granularity": granularity,
                                "perplexity": _perplexity(loss), "loss": loss,
                                "histogram": _histogram(matrices.values(), edges),
                                "layer": {"name": shown} | _histogram([matrices[shown]], near), **made,
                                "samples": [{"prompt": p, "text": a, "same": a == before}
                                            for p, a, before in zip(prompts, texts, answers, strict=True)]})
                done += 1
                ctx.progress(done, total)
                ctx.log(f"{scheme}, {bits} bits, {'a scale a row' if granularity == 'row' else 'one scale a matrix'}: "
                        f"perplexity {results[-1]['perplexity']:.4g} ({original['perplexity']:.4g} before).")
    return {"version": 1, "model": source.label, "ref": recipe.model, "parameters": source.meta.get("parameters"),
            "bits": sorted(recipe.bits, reverse=True), "schemes": list(SCHEMES), "granularities": list(recipe.granularities),
            "texts": {"used": len(chosen), "of": of, "tokens": sum(len(ids) for ids in chosen)},
            "original": original, "results": results}


def _texts(recipe: LearnRecipe, ctx: Any, tokenizer: Any, model: Any) -> tuple[list[list[int]], list[list[dict]], int]:
    """(token ids of the texts measured, prompts answered, texts looked at)."""
    from itertools import islice

    from studio.datasets.convert import turns_of
    from studio.quantizers import calibration

    rows = list(islice(calibration.rows(recipe), recipe.num_calibration_samples))
    read = [(row, calibration.cut(recipe, tokenizer, calibration.written(row, tokenizer))) for row in rows]
    read = [(row, ids) for row, ids in read if len(ids) > 1]
    if not read:
        raise calibration.too_short()
    best = [read[place] for place in calibration.best_read([_loss(model, [ids], ctx) for _, ids in read])]
    prompts: list[str] = []
    for row, _ in best:
        asked = next((str(turn.get("content") or "") for turn in turns_of(row) if turn["role"] == "user"), "").strip()
        if asked and asked.split()[0] not in {prompt.split()[0] for prompt in prompts}:  # of different kinds
            prompts.append(asked)
    if not prompts:  # plain texts: their beginnings are gone on with
        prompts = [" ".join(calibration.written(row).split()[:8]) for row, _ in best]
    return [ids for _, ids in best], prompts[:PROMPTS], len(read)


def _loss(model: Any, texts: list[list[int]], ctx: Any) -> float:
    """Mean nats a predicted token.

    Raises:
        Stopped: a stop was asked for.
    """
    import torch

    nats, count = 0.0, 0
    for ids in texts:
        if ctx.stop_requested:
            raise Stopped
        with torch.inference_mode():
            given = torch.tensor([ids], device=model.device)
            logits = model(given).logits[0, :-1].float()
            nats += float(torch.nn.functional.cross_entropy(logits, given[0, 1:], reduction="sum"))
        count += len(ids) - 1
    return nats / max(1, count)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 60.0))  # far beyond any vocabulary, and still a number


def _answer(model: Any, tokenizer: Any, prompt: str, length: int) -> str:
    """The greedy answer to a question; where the model has no chat template, how it goes on."""
    import torch

    if getattr(tokenizer, "chat_template", None):
        given = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                              return_tensors="pt", return_dict=True)["input_ids"]
    else:
        given = tokenizer(prompt, return_tensors="pt")["input_ids"]
    given = given.to(model.device)
    with torch.inference_mode():
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=length, do_sample=False,
                              pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(made[0, given.shape[1]:], skip_special_tokens=True)


def _rounded(matrices: dict[str, Any], kept: dict[str, Any], scheme: str, bits: int, row: bool) -> dict[str, Any]:
    """Writes the rounded weights into the model; the errors by matrix and over all, and the bytes taken."""
    import torch

    layers, squares, power, count, scales = [], 0.0, 0.0, 0, 0
    with torch.no_grad():
        for name, weight in kept.items():
            matrices[name].copy_(ROUND[scheme](weight, bits, row))
            off = float((matrices[name] - weight).double().square().sum())
            own = float(weight.double().square().sum())
            layers.append({"name": name, "rmse": math.sqrt(off / weight.numel()), "relative": math.sqrt(off / own) if own
                           else 0.0})
            squares, power, count = squares + off, power + own, count + weight.numel()
            scales += (weight.shape[0] if row else 1) * (2 if scheme == "absmax" else 4)  # 16 bits each, and a zero point
    return {"layers": layers, "rmse": math.sqrt(squares / count), "relative": math.sqrt(squares / power),
            "size": math.ceil(count * bits / 8) + scales}


def _edges(weights: Any) -> Any:
    """Borders of the bins: from the least weight to the largest, the same on both sides of zero."""
    import torch

    reach = max(float(weight.abs().max()) for weight in weights) or 1.0
    return torch.linspace(-reach, reach, BINS + 1)


def _histogram(weights: Any, edges: Any) -> dict[str, list]:
    import torch

    low, high = float(edges[0]), float(edges[-1])
    counts = torch.zeros(BINS, dtype=torch.float64)
    for weight in weights:  # zero-point rounding may reach half a step beyond the largest weight
        counts += torch.histc(weight.detach().float().cpu().clamp(low, high), BINS, low, high).double()
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": [int(n) for n in counts]}


def _shown(kept: dict[str, Any]) -> str:
    """The matrix whose own weights are drawn: one in the middle of the model."""
    inner = [name for name in kept if "mlp" in name or "ffn" in name or "feed_forward" in name] or list(kept)
    return inner[len(inner) // 2]
