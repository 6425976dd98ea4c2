"""Speed: how long until the first word, how fast after it, how much together, at what memory?

Any engine or format or address is measured through the same door as the chat uses; variants of one model stand side by side as
several models. Every setting is warmed up, measured several times, and told as the median with its quarters.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from studio.chat import address, client
from studio.datasets import llm
from studio.datasets.step import Stopped
from studio.errors import StudioError
from studio.evals.probes import timing, ways as generating
from studio.evals.probes.asking import MOST, check_models, label_of, pair
from studio.evals.results import NUMBER, Results, Sample
from studio.jobs.files import read_json, write_json
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

if TYPE_CHECKING:
    from studio.jobs.context import Context

LESS = {"higher_is_better": False}
TASKS = {"latency": "One asker", "throughput": "Several askers", "context": "Longer questions", "ways": "Ways of generating"}
LOCAL_MOST = 16  # answers that an engine of this computer writes at once
ONE_EACH = 1.5  # tokens a piece of the stream, up to which a piece stands for a token
HOT = 5.0  # so hot that an answer goes on to its length


class SpeedRecipe(Recipe):
    """What is measured, and how often."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "speed"

    models: list[str] = field([], "Models", "What is measured: models of yours, their quantized variants, GGUF files, or addresses of "
                              "OpenAI-compatible servers. One after the other.", widget="models", max_length=MOST)
    batches: list[int] = field([1, 2, 4, 8], "Askers at once", "How many ask together, one number a line. An engine of this computer "
                               "answers 16 at most.", widget="lines", max_length=12)
    contexts: list[int] = field([64, 256, 1024], "Lengths of the question", "In tokens, one number a line; those that a model cannot "
                                "read are left out.", unit="tokens", widget="lines", max_length=12)
    ways: list[Literal[*generating.WAYS]] = field(  # type: ignore[valid-type]
        ["cache", "no_cache"], "Ways of generating", "Measured with transformers itself, so not for GGUF files and addresses. "
        "Without any, this part is left out.", choices=generating.WAYS)
    assistant_model: str = field("", "Helper model", "A small model with the same tokenizer that proposes tokens.", widget="model",
                                 max_length=1000, when={"ways": ["assistant"]})
    new_tokens: int = field(64, "Length of an answer", "Longer answers measure more surely and take longer.", unit="tokens", ge=8,
                            le=8192)
    repeats: int = field(5, "Times", "How often each setting is measured; the median is told.", ge=1, le=100)
    warmup: int = field(1, "Warm-up", "Times before, which do not count: the first ones are slow.", group="advanced", ge=0, le=20)
    temperature: float = field(HOT, "Temperature", "So hot that an answer does not end before its length; what it says does not "
                               "matter. Addresses get 2 at most.", group="advanced", ge=0, le=5)
    seed: int = field(0, "Seed", "Makes the questions, so the same seed asks the same.", group="advanced", ge=0, le=2**31 - 1)
    timeout: float = field(300, "Longest wait", "Answers asked for together that are not done by then are given up.", group="advanced", unit="s",
                           ge=1, le=3600)


class Speed(Method):
    """Time to the first token, between tokens, tokens a second, memory."""

    title = "Speed"
    summary = "Measures time to the first token, tokens a second by askers and by length, cache, speculation and memory."
    Recipe = SpeedRecipe

    @classmethod
    def check(cls, recipe: SpeedRecipe) -> None:
        check_models(recipe)
        for name, most in (("batches", 256), ("contexts", 1_000_000)):
            if not getattr(recipe, name):
                raise StudioError("There is nothing to measure.", "Write at least one number.", name)
            if bad := [one for one in getattr(recipe, name) if not 1 <= one <= most]:
                raise StudioError(f"{bad[0]} is not between 1 and {most:,}.", "Write whole numbers, one a line.", name)
        if "assistant" in recipe.ways:
            if not recipe.assistant_model:
                raise StudioError("No helper model is chosen.", "Choose a small model with the same tokenizer.", "assistant_model")
            try:
                refs.check_loads(refs.resolve_model(recipe.assistant_model), "assistant_model")
            except StudioError as err:
                raise StudioError(err.message, err.hint, "assistant_model") from err

    @classmethod
    def estimate(cls, recipe: SpeedRecipe) -> Estimate:
        times = recipe.repeats + recipe.warmup
        asked = times * (1 + sum(recipe.batches) + len(recipe.contexts))
        return Estimate(notes=[f"About {asked:,} answers of {recipe.new_tokens} tokens for each model.",
                               "Other work on the machine makes the figures worse: measure when it is quiet."])

    @classmethod
    def tasks(cls, recipe: SpeedRecipe) -> dict[str, tuple[str, dict[str, Any]]]:
        """Task -> (main metric, metrics)."""
        batches, lengths = sorted(set(recipe.batches)), sorted(set(recipe.contexts))
        made: dict[str, tuple[str, dict[str, Any]]] = {
            "latency": ("ttft_ms", {"ttft_ms": LESS, "inter_token_p50_ms": LESS, "inter_token_p95_ms": LESS, "tokens_per_second": NUMBER}),
            "throughput": (f"askers_{batches[-1]}", {f"askers_{n}": NUMBER for n in batches} | {"peak_memory_mb": LESS}),
            "context": (f"ttft_ms_{lengths[0]}", {f"ttft_ms_{n}": LESS for n in lengths} | {f"tokens_per_second_{n}": NUMBER for n in lengths})}
        if recipe.ways:
            made["ways"] = (recipe.ways[0], {name: NUMBER for name in recipe.ways})
        return made

    @classmethod
    def run(cls, recipe: SpeedRecipe, ctx: Context) -> dict[str, Any]:
        results = Results(ctx, recipe)
        wanted = cls.tasks(recipe)
        for name, (main, metrics) in wanted.items():
            results.task(name, TASKS[name], main, metrics)
        began = timing.load()
        try:
            for number, ref in enumerate(recipe.models):
                results.model(ref, label_of(ref), size=_size(ref))
                if not all(results.finished(number, name) for name in ("latency", "throughput", "context")):
                    Served(recipe, ctx, results, number).measure()
                if "ways" in wanted and not results.finished(number, "ways"):
                    _generate(recipe, ctx, results, number)
                ctx.progress(number + 1, len(recipe.models))
        except Stopped:
            ctx.log("Stopped; what was measured is kept.")
        while results.models and not any(results.finished(len(results.models) - 1, name) for name in wanted):
            results.models.pop()
        if not results.models:
            return {"table": [], "tasks": results.tasks}
        return results.finish(**_facts(recipe, ctx, results, began))


class Served:
    """One model behind its server. Every setting is kept when it is measured, so a resumed run goes on with the next."""

    def __init__(self, recipe: SpeedRecipe, ctx: Context, results: Results, number: int):
        self.recipe, self.ctx, self.results, self.number = recipe, ctx, results, number
        self.ref = recipe.models[number]
        self.remote = address.is_address(self.ref)
        self.known: dict[str, float] = {}
        self.peak = 0
        settings = len(set(recipe.batches)) + len(set(recipe.contexts)) + 1
        self.done, self.total = 0, settings + bool(recipe.ways)

    def measure(self) -> None:
        """Every setting, then the three tasks.

        Raises:
            Stopped: as asked.
            StudioError: the server is gone or refuses.
        """
        recipe = self.recipe
        values = {"temperature": recipe.temperature, "top_p": 1.0, "max_new_tokens": recipe.new_tokens, "seed": recipe.seed, "concurrency": 1,
                  "timeout": recipe.timeout, "price_in": 0.0, "price_out": 0.0}
        warm, began = bool(timing.engine_of(self.ref)), time.perf_counter()
        with llm.open(SimpleNamespace(**values), self.ctx, self.ref, "", "models") as opened:
            self.endpoint = opened.endpoint
            about = {"load_seconds": None if warm or self.remote else time.perf_counter() - began} | _about(self.endpoint)
            with timing.Peak(timing.engine_of(self.ref).get("pid")) as peak:
                self._latency()
                latency = self._kept("latency")
                for count in sorted(set(recipe.batches)):
                    self._batch(count)
                for length in sorted(set(recipe.contexts)):
                    self._context(length)
            self.peak = max(peak.bytes, (self._kept("about") or {}).get("peak", 0))
        self._keep("about", about | {"peak": self.peak})
        self._add(latency or [])

    # ---- settings

    def _latency(self) -> None:
        self._setting("latency", 1, min(self.recipe.contexts), f"{self.number}/latency", single=True)

    def _batch(self, count: int) -> None:
        if not self.remote and count > LOCAL_MOST:
            self.ctx.warning("too_many_askers", f"{self.ref}: an engine of this computer answers {LOCAL_MOST} at once, so {count} are left out.")
            return
        self._setting(f"batch-{count}", count, min(self.recipe.contexts), f"batch/{count}")

    def _context(self, length: int) -> None:
        self._setting(f"context-{length}", 1, length, f"context/{length}")

    def _setting(self, name: str, askers: int, length: int, key: str, single: bool = False) -> None:
        """Measure one setting, unless it is kept; one that the model cannot read is left out and told."""
        self.done += 1
        if self._kept(name) is not None:
            return
        found = []
        try:
            for turn in range(self.recipe.warmup + self.recipe.repeats):
                if self.ctx.stop_requested:
                    raise Stopped
                times = self._answers(askers, length, f"{self.recipe.seed}/{key}/{turn}", single)
                if turn >= self.recipe.warmup:
                    found.append([one.to_dict() for one in times])
                self._tell(turn + 1)
        except StudioError as err:
            if not timing.too_long(err) or name == "latency":
                raise StudioError(err.message, err.hint, "timeout" if err.field == "timeout" else "models") from err
            self.ctx.warning("too_long", f"{label_of(self.ref)}: {length} tokens cannot be read ({err.message})", "This length is left out.")
            found = []
        self._keep(name, found)

    def _answers(self, askers: int, length: int, key: str, single: bool) -> list[timing.Timed]:
        with_stop = {"stop": [timing.NEVER]} if single and not self.remote else {}
        try:
            count = timing.sentences_for(self.endpoint, length, client.Stop(), self.known)
            hot = min(self.recipe.temperature, 2.0) if self.remote else self.recipe.temperature
            asked = [(timing.messages(count, f"{key}/{n}"), {"temperature": hot, "top_p": 1.0, "max_tokens": self.recipe.new_tokens,
                                                             "seed": llm.derived(self.recipe.seed, f"{key}/{n}")} | with_stop) for n in range(askers)]
            return timing.together(self.endpoint, asked, lambda: self.ctx.stop_requested, self.recipe.timeout)
        except client.EngineGone as err:
            raise StudioError(f"{self.endpoint.base_url} went away while it was measured: {err}", "Start it again, then resume this run.",
                              "models") from err

    # ---- the tasks

    def _add(self, latency: list[list[dict[str, Any]]]) -> None:
        results, number = self.results, self.number
        if not results.finished(number, "latency"):
            answers = [timing.Timed(**one) for turn in latency for one in turn]
            gaps = [gap for one in answers for gap in one.gaps]
            spread = {"ttft_ms": [one.ttft * 1e3 for one in answers], "tokens_per_second": [one.per_second for one in answers if one.per_second]}
            scores = {name: (found["value"], None) for name, values in spread.items() if (found := timing.middle(values))}
            each = sum(one.tokens for one in answers) / max(1, len(gaps) + len(answers))
            told = timing.middle([one.told for one in answers if one.told])
            # a tiny model is done before its first token is read: then all come at once, and the time between them says nothing
            burst = bool(told and gaps) and sum(gaps) / len(gaps) < 0.5 / told["value"]
            if gaps and each <= ONE_EACH and not burst:  # of larger pieces it is the time between those, not between tokens
                scores |= {name: (timing.percentile(gaps, share) * 1e3, None)
                           for name, share in (("inter_token_p50_ms", 0.5), ("inter_token_p95_ms", 0.95))}
            results.add(number, "latency", [self._sample("latency", *one) for one in self._each("latency")], scores,
                        spread={name: timing.middle(values) for name, values in spread.items()},
                        tokens_per_piece=each, burst=burst, counted=all(one.counted for one in answers),
                        streams=bool(gaps), gaps=_histogram(gaps))
            if not gaps:
                self.ctx.warning("no_stream", f"{label_of(self.ref)} sends its answer in one piece, so the time between tokens is not known.",
                                 "Its time to the first token is that of the whole answer.")
        if not results.finished(number, "throughput"):
            found = {count: self._speeds(f"batch-{count}") for count in sorted(set(self.recipe.batches))}
            scores = {f"askers_{count}": (timing.middle(values)["value"], None) for count, values in found.items() if values}
            scores |= {"peak_memory_mb": (self.peak / 1e6, None)} if self.peak else {}
            samples = [self._sample("throughput", *one) for count in found for one in self._each(f"batch-{count}")]
            results.add(number, "throughput", samples, scores, curve=[{"askers": count} | timing.middle(values) | self._waits(count)
                                                                      for count, values in found.items() if values])
        if not results.finished(number, "context"):
            curve, scores = [], {}
            for length in sorted(set(self.recipe.contexts)):
                answers = [timing.Timed(**one) for turn in self._kept(f"context-{length}") or [] for one in turn]
                if not answers:
                    continue
                first, speed = timing.middle([one.ttft * 1e3 for one in answers]), timing.middle([one.per_second for one in answers if one.per_second])
                scores[f"ttft_ms_{length}"] = (first["value"], None)
                if speed:
                    scores[f"tokens_per_second_{length}"] = (speed["value"], None)
                told = [one.prompt_tokens for one in answers if one.prompt_tokens]
                curve.append({"context": length, "prompt_tokens": round(sum(told) / len(told)) if told else None, "ttft_ms": first,
                              "tokens_per_second": speed})
            samples = [self._sample("context", *one) for length in sorted(set(self.recipe.contexts)) for one in self._each(f"context-{length}")]
            results.add(number, "context", samples, scores, curve=curve)

    def _speeds(self, name: str) -> list[float]:
        """Tokens a second of all askers together, of each repeat: all tokens over the time from the first asking to the last end."""
        found = []
        for turn in self._kept(name) or []:
            span = max(one["ended"] for one in turn) - min(one["begun"] for one in turn)
            found.append(sum(one["tokens"] for one in turn) / span)
        return found

    def _waits(self, count: int) -> dict[str, Any]:
        waits = [one["ttft"] * 1e3 for turn in self._kept(f"batch-{count}") or [] for one in turn]
        return {"ttft_ms": timing.middle(waits)}

    def _each(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        return [(f"{name}/{turn}/{asker}", one) for turn, each in enumerate(self._kept(name) or []) for asker, one in enumerate(each)]

    @staticmethod
    def _sample(task: str, key: str, one: dict[str, Any]) -> Sample:
        timed = timing.Timed(**one)
        more = {name: one[name] for name in ("ttft", "seconds", "tokens", "prompt_tokens")}
        setting = key.partition("/")[0]
        said = f"{timed.tokens} tokens in {timed.seconds:.3f} s, the first after {timed.ttft * 1e3:.0f} ms"
        return Sample(key, setting.replace("-", " "), said, "", {}, {"setting": setting}, more | {"tokens_per_second": timed.per_second})

    # ---- what is kept

    def _kept(self, name: str) -> Any:
        return (read_json(self.results.kept.parent / "measured" / f"{self.number}-{name}.json") or {}).get("kept")

    def _keep(self, name: str, value: Any) -> None:
        folder = self.results.kept.parent / "measured"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"{self.number}-{name}.json", {"kept": value})

    def _tell(self, turn: int) -> None:
        part = (self.done - 1 + turn / (self.recipe.warmup + self.recipe.repeats)) / self.total
        self.ctx.progress(self.number + part, len(self.recipe.models))


def _generate(recipe: SpeedRecipe, ctx: Context, results: Results, number: int) -> None:
    """The ways of generating, in this process; a model that transformers does not load has none."""
    ref = recipe.models[number]
    model = None if address.is_address(ref) else refs.resolve_model(ref)
    if model is None or model.meta.get("format") == "gguf":
        ctx.warning("no_ways", f"{label_of(ref)}: its cache cannot be turned off from here, so ways of generating are left out.")
        results.add(number, "ways", [], {}, left_out=True)
        return
    import torch

    from studio.evals.compare import ready
    from studio.trainers import load

    torch.set_num_threads(max(1, ctx.threads))
    if (local := load.fetch(model, ctx)) is None or ctx.stop_requested:
        raise Stopped
    tokenizer, net = ready(local)
    helper, wanted = None, list(recipe.ways)
    if "assistant" in wanted:
        other, helper = ready(load.fetch(refs.resolve_model(recipe.assistant_model), ctx))
        if other.get_vocab() != tokenizer.get_vocab():
            ctx.warning("other_tokenizer", f"The helper model has another tokenizer than {label_of(ref)}, so it is left out for it.")
            wanted.remove("assistant")
    limit = getattr(net.config.get_text_config(), "max_position_embeddings", None) or 1 << 20
    fitting = [length for length in sorted(set(recipe.contexts)) if length + recipe.new_tokens + generating.LOOKED_UP <= limit] or [8]
    context = fitting[len(fitting) // 2]
    found = generating.measure(net, tokenizer, wanted, context, recipe.new_tokens, recipe.repeats, recipe.warmup, helper, lambda: ctx.stop_requested)
    middles = {way: timing.middle([one["per_second"] for one in each]) for way, each in found.items()}
    samples = [Sample(f"{way}/{n}", generating.WAYS[way], f"{one['tokens']} tokens in {one['seconds']:.3f} s", "", {}, {"setting": way}, one)
               for way, each in found.items() for n, one in enumerate(each)]
    results.add(number, "ways", samples, {way: (one["value"], None) for way, one in middles.items()}, context=context,
                curve=[{"way": way} | one | _proposals(found[way]) for way, one in middles.items()])


def _proposals(each: list[dict[str, float]]) -> dict[str, float]:
    """Tokens a pass of the model, and the share of proposed ones that were taken, where any were proposed."""
    told = {name: timing.middle([one[name] for one in each if name in one]) for name in ("per_forward", "acceptance")}
    return {name: one["value"] for name, one in told.items() if one}


def _facts(recipe: SpeedRecipe, ctx: Context, results: Results, began: float) -> dict[str, Any]:
    """``latency``, ``throughput``, ``context``, ``ways`` of each model with medians and quarters; ``engines`` with device, memory and
    load time; ``machine`` with what else it was doing."""
    told: dict[str, Any] = {name: [] for name in TASKS}
    engines = []
    for number in range(len(results.models)):
        about = (read_json(results.kept.parent / "measured" / f"{number}-about.json") or {}).get("kept") or {}
        engines.append({"model": number, "size": results.models[number].get("size")} | about)
        for task in TASKS:
            if (kept := pair(results, number, task)) is None:
                continue
            if task == "latency":
                told[task].append({"model": number, "scores": {name: one[0] for name, one in kept["scores"].items()}} | kept["facts"])
            else:
                told[task] += [{"model": number} | one for one in kept["facts"].get("curve", [])]
    cores, load = os.cpu_count() or 1, timing.load()
    if began > cores / 2:
        ctx.warning("busy", f"{began:.1f} processes wanted to compute when this began, on {cores} cores: the figures are worse than the models.",
                    "Measure again when the machine is quiet, or compare only what was measured side by side.")
    return told | {"engines": engines, "machine": {"cores": cores, "load_before": round(began, 2), "load_after": round(load, 2),
                                                   "busy": began > cores / 2}, "new_tokens": recipe.new_tokens, "repeats": recipe.repeats}


def _about(endpoint: client.Endpoint) -> dict[str, Any]:
    found = timing.health(endpoint)
    return {name: found[name] for name in ("device", "dtype", "threads", "context") if name in found}


def _size(ref: str) -> int | None:
    """Bytes of a model's files, where they are here."""
    if address.is_address(ref):
        return None
    with suppress(StudioError, OSError):
        from studio.library import artifacts

        path = refs.resolve_model(ref).path
        return artifacts.size_of(path) if path else None
    return None


def _histogram(gaps: list[float], bins: int = 24) -> list[list[float]]:
    """[upper edge in ms, count] of the gaps between pieces, evenly up to the 99th part."""
    if not gaps:
        return []
    top = max((timing.percentile(gaps, 0.99) or 0) * 1e3, 1e-6)
    counts = [0] * bins
    for gap in gaps:
        counts[min(bins - 1, int(gap * 1e3 / top * bins))] += 1
    return [[(n + 1) * top / bins, count] for n, count in enumerate(counts)]
