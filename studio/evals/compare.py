"""The same small evaluation on several models: perplexity of the reference answers, and rewards of greedy answers.

The loss is summed over the tokens of the reference answers (of plain texts: over all tokens), divided by their number;
perplexity is its exponential. Models with other tokenizers count other tokens, so bits a byte of the text are told as well.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field as attribute
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.evals.results import LOSS, NUMBER, SHARE, Results, Sample
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST = 16  # models of one comparison
TASK = "heldout"  # what results call it
SHARES = ("exact", "normalised", "contains", "number", "regex", "json_schema")  # rewards that say right or wrong
METRICS = {"perplexity": LOSS, "loss": LOSS, "bits_per_byte": LOSS}
Row = dict[str, Any]


class CompareRecipe(Recipe):
    """Which models, on what."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "compare"

    models: list[str] = field([], "Models", "The models to compare, for example the parents of a merge and its result. All "
                              "get the same rows.", widget="models", max_length=MOST)
    dataset: str = field("shipped:polite-heldout", "Dataset", "Questions with good answers that none of the models "
                         "learned from; or plain texts, of which only the perplexity is measured.", widget="dataset",
                         max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by "
                                    "itself.", widget="hidden")
    samples: int = field(50, "Rows", "How many rows, drawn once by the seed. More give smaller errors: four times as "
                         "many halve them.", unit="rows", ge=2, le=10_000)
    rewards: list[dict[str, Any]] = field(
        [{"name": "exact"}, {"name": "contains"}], "Rewards", "Functions that score each answer, from 0 to 1 as a rule. "
        "With none, only the perplexity is measured, which is faster.", widget="rewards", max_length=20)
    max_new_tokens: int = field(64, "Longest answer", "Answers are cut at so many tokens.", unit="tokens", ge=1, le=4096)
    max_length: int = field(1024, "Longest sample", "Reference answers are measured up to so many tokens, the question "
                            "included.", group="advanced", unit="tokens", ge=8, le=131_072)
    per_device_eval_batch_size: int = field(16, "Rows at once", "More is faster and needs more memory.",
                                            group="advanced", ge=1, le=256)
    seed: int = field(42, "Seed", "Which rows are drawn.", group="advanced", ge=0, le=2**32 - 1)
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")


@dataclass
class Item:
    """A row of the data as it is scored.

    Attributes:
        row: As something to imitate; its answer is what the perplexity is taken of.
        asked: ``{prompt, answer, and every tag}`` for the rewards; ``None`` for plain text.
        text: The reference answer, or the whole plain text.
    """

    row: Row
    asked: Row | None
    text: str


@dataclass
class Scores:
    """What one model scored.

    Attributes:
        losses: Summed loss of each row, in nats.
        tokens: Tokens it is summed over, a row.
        texts: Text whose tokens these are; ``bytes`` of it.
        answers: Greedy answers to the rows that ask something; ``None`` for others.
        rewards: Name -> a value a row; ``None`` where a reward has nothing to say.
        written, seconds: Tokens of the answers, and the time they took.
    """

    losses: list[float] = attribute(default_factory=list)
    tokens: list[int] = attribute(default_factory=list)
    bytes: int = 0
    answers: list[str | None] = attribute(default_factory=list)
    rewards: dict[str, list[float | None]] = attribute(default_factory=dict)
    written: int = 0
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """Nats a token; NaN where nothing was measured."""
        return math.fsum(self.losses) / sum(self.tokens) if sum(self.tokens) else math.nan

    def mean(self, name: str) -> tuple[float | None, float | None]:
        """(mean, standard error of it) of a reward over the rows it has a value for."""
        found = [value for value in self.rewards[name] if value is not None]
        if not found:
            return None, None
        return statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None

    def figures(self) -> dict[str, tuple[float, float | None]]:
        """Metric -> (value, standard error); that of the loss is the one of a ratio of sums over rows."""
        counted = [(lost, count) for lost, count in zip(self.losses, self.tokens, strict=True) if count]
        loss, tokens, n = self.loss, sum(self.tokens), len(counted)
        error = math.sqrt(n / (n - 1) * math.fsum((lost - loss * count) ** 2 for lost, count in counted)) / tokens if n > 1 else None
        perplexity, bits = math.exp(min(loss, 700.0)), tokens / math.log(2) / max(1, self.bytes)
        made = {"loss": (loss, error), "perplexity": (perplexity, None if error is None else error * perplexity),
                "bits_per_byte": (loss * bits, None if error is None else error * bits)} if tokens else {}
        return made | {name: (mean, error) for name in self.rewards for mean, error in [self.mean(name)] if mean is not None}

    def line(self) -> dict[str, Any]:
        """The model's line of the table."""
        loss = self.loss
        made: dict[str, Any] = {"perplexity": _rounded(math.exp(min(loss, 700.0))), "loss": _rounded(loss),
                                "bits_per_byte": _rounded(math.fsum(self.losses) / math.log(2) / max(1, self.bytes))}
        for name in self.rewards:
            mean, error = self.mean(name)
            made |= {name: _rounded(mean), f"{name}_stderr": _rounded(error)}
        return made | {"tokens_per_second": round(self.written / self.seconds, 1) if self.seconds else None}


class Compare(Method):
    """Several models, one set of rows."""

    title = "Small comparison"
    summary = "Asks several models the same questions: perplexity of the right answers, and rewards of their own."
    Recipe = CompareRecipe

    @classmethod
    def check(cls, recipe: CompareRecipe) -> None:
        from studio import rewards
        from studio.datasets import formats

        if not recipe.models:
            raise StudioError("No model is chosen.", "Choose one or more; comparing needs two.", "models")
        for number, ref in enumerate(recipe.models):
            if ref in recipe.models[:number]:
                raise StudioError(f"{refs.resolve_model(ref).label} is listed twice.", "Remove one of the two.", "models")
            opened(ref)
        formats.check(recipe.dataset, recipe.columns)
        if recipe.rewards:
            rewards.check(recipe.rewards)

    @classmethod
    def estimate(cls, recipe: CompareRecipe) -> Estimate:
        needs = [_memory(opened(ref)) for ref in recipe.models]
        notes = ["Memory is an estimate. One model at a time is loaded."]
        if any(not found for found in needs):
            return Estimate(notes=["How large some of the models are is not known before they are fetched."])
        return Estimate(memory=max(needs) if needs else None, notes=notes)

    @classmethod
    def run(cls, recipe: CompareRecipe, ctx: Any) -> dict[str, Any]:
        from studio import rewards
        from studio.trainers import load

        load.quiet()
        began = time.time()
        items = drawn(recipe.dataset, recipe.columns, recipe.samples, recipe.seed, ctx)
        wanted = recipe.rewards if any(item.asked for item in items) else []
        asking = SimpleNamespace(model=recipe.models[0], trust_remote_code=recipe.trust_remote_code)
        functions = rewards.build(wanted, ctx, asking) if wanted else []
        try:
            return cls._all(recipe, ctx, items, functions) | {"seconds": round(time.time() - began, 2)}
        finally:
            rewards.close(functions)

    @classmethod
    def _all(cls, recipe: CompareRecipe, ctx: Any, items: list[Item], functions: list) -> dict[str, Any]:
        from studio.aligners import data

        models = [opened(ref) for ref in recipe.models]
        results, table = Results(ctx, recipe), []
        results.task(TASK, data.refs_label(recipe.dataset), "perplexity", metrics(functions))
        for ref, model in zip(recipe.models, models, strict=True):
            results.model(ref, model.label)
        for number, model in enumerate(models):
            if not results.finished(number, TASK):
                scores = cls._one(recipe, ctx, number, model, items, functions)
                if scores is None:
                    break
                results.add(number, TASK, told(items, scores), scores.figures(), line=scores.line())
                ctx.metric(number + 1, {name: value for name, value in scores.line().items() if not name.endswith("_stderr")})
            table.append({"model": recipe.models[number], "label": model.label} | results.facts_of(number, TASK)["line"])
            ctx.progress(number + 1, len(models))
        if not table:
            return {"table": []}
        _other_words(models, ctx)
        cls._write(recipe, ctx, models[:len(table)], results)
        made = results.finish([(recipe.dataset, "data")])
        return made | {"table": table, "samples": len(items), "dataset": recipe.dataset}

    @classmethod
    def _one(cls, recipe: CompareRecipe, ctx: Any, number: int, model: refs.ModelRef, items: list[Item],
             functions: list) -> Scores | None:
        from studio.trainers import load

        local = load.fetch(model, ctx)
        if local is None or ctx.stop_requested:
            return None
        tokenizer, net = ready(local, recipe.trust_remote_code)
        return evaluate(net, tokenizer, items, functions, recipe.max_new_tokens, recipe.max_length,
                        recipe.per_device_eval_batch_size, stop=lambda: ctx.stop_requested,
                        tell=lambda share: ctx.progress(number + share, len(recipe.models)),
                        warn=lambda code, text, hint: ctx.warning(code, f"{model.label}: {text}", hint))

    @staticmethod
    def _write(recipe: CompareRecipe, ctx: Any, models: list[refs.ModelRef], results: Results) -> None:
        """The answers as plain rows as well."""
        with (ctx.output / "answers.jsonl").open("w", encoding="utf-8") as out:
            for number, model in enumerate(models):
                for place, one in enumerate(results.samples_of(number, TASK)):
                    scores = one["scores"]
                    loss = scores.pop("loss", None)
                    line = {"model": recipe.models[number], "label": model.label, "row": place, "prompt": one["prompt"] or None,
                            "expected": one["target"], "answer": one["answer"] if one["more"]["asked"] else None,
                            "rewards": {name: value for name, value in scores.items() if name not in METRICS}, "loss": loss}
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")


def opened(ref: str, field_name: str = "models") -> refs.ModelRef:
    """A model that transformers can score.

    Raises:
        StudioError: in that field: not there, a reward model, or a file of llama.cpp.
    """
    try:
        model = refs.resolve_model(ref)
        refs.check_writes(model, field_name)
    except StudioError as err:
        raise StudioError(err.message, err.hint, field_name) from err
    if model.meta.get("format") == "gguf":
        raise StudioError(f"{model.label} is a GGUF file, which this comparison cannot score yet.",
                          "Choose the model that it was made from; how close the file is to it stands in its proof.",
                          field_name)
    return model


def ready(model: refs.ModelRef, trust: bool = False) -> tuple[Any, Any]:
    """(tokenizer, model) of a model whose files are here, in 32 bits without a GPU, adapters folded in where they can be."""
    import torch

    from studio.library.modelinfo import PROMPT_TYPES
    from studio.trainers import load
    from studio.trainers.settings import has_gpu

    gpu = has_gpu()
    tokenizer = load.tokenizer(model, trust)
    net = load.model(model, torch.bfloat16 if gpu else torch.float32, trust, gpu,
                     merge=model.is_adapter and model.meta.get("peft_type") not in PROMPT_TYPES)
    return tokenizer, net.eval()


def drawn(ref: str, columns: dict[str, str], samples: int, seed: int, ctx: Any = None) -> list[Item]:
    """Rows of a dataset as they are scored, ``samples`` of them drawn by the seed, in the order of the data.

    Raises:
        StudioError: unreadable data, or no answers and texts in it (``dataset``).
    """
    from studio.aligners import data

    each, found = data.listed(ref, columns, "prompts")
    items = scored(list(each))
    if ctx is not None:
        ctx.log(f"{found.detected.title}. {' '.join(found.detected.evidence)}")
    if not items:
        raise StudioError(f"{data.refs_label(ref)} has neither answers nor texts to measure.",
                          "Choose chats, questions with answers, or plain texts.", "dataset")
    chosen = sorted(random.Random(seed).sample(range(len(items)), min(samples, len(items))))
    return [items[i] for i in chosen]


def scored(rows: list[Row]) -> list[Item]:
    """Canonical rows as they are scored; those marked bad are left out."""
    from studio.aligners import data
    from studio.datasets import answers
    from studio.datasets.convert import Reject, for_sft

    made = [(row, kept) for row in rows if not isinstance(kept := for_sft(row), Reject)]
    asking = [row for row, _ in made if answers.asked(row)]
    prompts = iter(data.converted(asking, "prompts", "The data")[0] if asking else [])
    keys = ("messages", "prompt", "completion", "text", "tools")
    return [Item({key: kept[key] for key in keys if key in kept}, next(prompts) if answers.asked(row) else None,
                 kept["text"] if "text" in kept else answers.answer(row)) for row, kept in made]


def evaluate(model: Any, tokenizer: Any, items: list[Item], functions: list = (), max_new_tokens: int = 64,
             max_length: int = 1024, batch_size: int = 16, *, stop: Callable[[], bool] = lambda: False,
             tell: Callable[[float], None] = lambda share: None,
             warn: Callable[[str, str, str], None] = lambda code, text, hint: None) -> Scores | None:
    """Scores a model that is in memory on :func:`scored` rows; ``None`` if it was stopped.

    Args:
        functions: Of :func:`studio.rewards.build`; without any nothing is written, only the perplexity measured.
        tell: Is given the share that is done.
    """
    import torch

    made = Scores()
    writing = bool(functions) and any(item.asked for item in items)
    half = 0.5 if writing else 1.0
    with torch.no_grad():
        tokenizer, encoder = _encoder(tokenizer, items, max_length, warn)
        if not _losses(model, encoder, items, batch_size, made, stop, lambda share: tell(half * share)):
            return None
        if writing and not _answers(model, tokenizer, items, functions, max_new_tokens, batch_size, made, stop,
                                    lambda share: tell(half + half * share)):
            return None
    made.answers = made.answers or [None] * len(items)
    return made


def _encoder(tokenizer: Any, items: list[Item], max_length: int, warn: Callable[..., None]) -> tuple[Any, Any]:
    """(tokenizer, what makes tokens and labels of a row); a model without a template gets ChatML where the data are chats."""
    from studio.trainers.data import Encoder

    chats = any("messages" in item.row or isinstance(item.row.get("prompt"), list) for item in items)
    how = SimpleNamespace(max_length=max_length, assistant_only_loss=True, chat_template="auto")
    encoder = Encoder(tokenizer, how, chats)
    for warning in encoder.warnings:
        warn(*warning)
    return tokenizer, encoder


def _losses(model: Any, encoder: Any, items: list[Item], batch_size: int, made: Scores, stop: Callable[[], bool],
            tell: Callable[[float], None]) -> bool:
    import torch
    from torch.nn import functional

    samples = [encoder(item.row) for item in items]
    for item, sample in zip(items, samples, strict=True):
        cut = 1.0 if sample is None or not sample.truncated else len(sample.input_ids) / sample.length
        made.bytes += round(len(item.text.encode()) * cut) if sample is not None else 0
    order = sorted(range(len(items)), key=lambda i: -len(samples[i].input_ids) if samples[i] else 0)
    made.losses, made.tokens = [0.0] * len(items), [0] * len(items)
    for at in range(0, len(order), batch_size):
        if stop():
            return False
        batch = [i for i in order[at:at + batch_size] if samples[i] and samples[i].trained]
        if not batch:
            continue
        longest = max(len(samples[i].input_ids) for i in batch)
        ids, labels, mask = (torch.full((len(batch), longest), filler) for filler in (0, -100, 0))
        for place, i in enumerate(batch):
            size = len(samples[i].input_ids)
            ids[place, :size] = torch.tensor(samples[i].input_ids)
            labels[place, :size] = torch.tensor(samples[i].labels)
            mask[place, :size] = 1
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
        wanted = labels[:, 1:].to(logits.device)
        logits = logits[:, -longest:][:, :-1]  # learned virtual words of an adapter stand in front
        lost = functional.cross_entropy(logits.float().transpose(1, 2), wanted, ignore_index=-100, reduction="none")
        for place, i in enumerate(batch):
            made.losses[i] = float(lost[place].double().sum())
            made.tokens[i] = int((wanted[place] != -100).sum())
        tell((at + len(batch)) / len(order))
    return True


def _answers(model: Any, tokenizer: Any, items: list[Item], functions: list, most: int, batch_size: int, made: Scores,
             stop: Callable[[], bool], tell: Callable[[float], None]) -> bool:
    from studio.aligners import data

    places = [i for i, item in enumerate(items) if item.asked]
    rows = list(data.as_chat([items[i].asked for i in places], tokenizer.chat_template))
    texts: list[str] = []
    for at in range(0, len(rows), batch_size):
        began = time.perf_counter()
        found = written(model, tokenizer, [row["prompt"] for row in rows[at:at + batch_size]], most, stop)
        if found is None:
            return False
        texts += found[0]
        made.written, made.seconds = made.written + found[1], made.seconds + time.perf_counter() - began
        tell((at + len(found[0])) / len(rows))
    rated(made, len(items), places, rows, texts, functions)
    return True


def rated(made: Scores, count: int, places: list[int], rows: list[Row], texts: list[str], functions: list) -> None:
    """Puts answers and what the rewards say of them into ``made``; ``places`` are those of ``rows`` among ``count`` items."""
    made.answers = [None] * count
    for i, text in zip(places, texts, strict=True):
        made.answers[i] = text
    for function in functions:
        made.rewards[function.__name__] = [None] * count
    chat = isinstance(rows[0]["prompt"], list)
    said = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
    columns = {key: [row.get(key) for row in rows] for key in rows[0] if key != "prompt"}
    for function in functions:
        for i, value in zip(places, function([row["prompt"] for row in rows], said, **columns), strict=True):
            made.rewards[function.__name__][i] = value


def written(model: Any, tokenizer: Any, prompts: list[Any], most: int,
            stop: Callable[[], bool] = lambda: False) -> tuple[list[str], int] | None:
    """(greedy answers, tokens written) to texts or messages in one batch; ``None`` if it was stopped meanwhile."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Asked(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((ids.shape[0],), stop(), dtype=torch.bool, device=ids.device)

    plain = isinstance(prompts[0], str)
    texts = prompts if plain else [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in
                                   prompts]
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 20
    encoded = [tokenizer(text, add_special_tokens=plain)["input_ids"][-max(1, limit - most):] for text in texts]
    longest = max(map(len, encoded))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    ids = torch.tensor([[pad] * (longest - len(one)) + one for one in encoded], device=model.device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in encoded], device=model.device)
    ends = model.generation_config.eos_token_id
    ends = sorted({*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None})
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max(1, min(most, limit - longest)),
                             do_sample=False, temperature=None, top_p=None, top_k=None, use_cache=True, pad_token_id=pad,
                             eos_token_id=ends or None, stopping_criteria=StoppingCriteriaList([Asked()]))
    if stop():
        return None
    made, count = [], 0
    for row in out[:, longest:].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        count += min(end + 1, len(row))
        made.append(tokenizer.decode(row[:end], skip_special_tokens=True).strip())
    return made, count


def told(items: list[Item], scores: Scores) -> list[Sample]:
    """The answers as results keep them: question, expected answer, answer, loss a token, rewards."""
    from studio.rewards.base import question_of

    made, seen = [], {}
    for i, item in enumerate(items):
        question = question_of(item.asked["prompt"]) if item.asked else ""
        name = hashlib.blake2b(f"{question}\0{item.text}".encode(), digest_size=8).hexdigest()
        seen[name] = seen.get(name, 0) + 1
        loss = scores.losses[i] / scores.tokens[i] if scores.tokens[i] else None
        values = {"loss": loss, "perplexity": None if loss is None else math.exp(min(loss, 700.0))} | {
            name: values[i] for name, values in scores.rewards.items()}
        tags = {key: str(value) for key, value in (item.asked or {}).items() if key not in ("prompt", "answer") and isinstance(
            value, (str, int, float)) and len(str(value)) <= 60}
        made.append(Sample(name if seen[name] == 1 else f"{name}~{seen[name]}", question, scores.answers[i] or "", item.text,
                           {key: _rounded(value) for key, value in values.items() if _rounded(value) is not None}, tags,
                           {"asked": scores.answers[i] is not None, "tokens": scores.tokens[i]}))
    return made


def metrics(functions: list) -> dict[str, dict[str, Any]]:
    """How the metrics of the held-out rows are read; ``functions`` of :func:`studio.rewards.build`."""
    return METRICS | {one.__name__: SHARE if re.sub(r"_\d+$", "", one.__name__) in SHARES else NUMBER for one in functions}


def _other_words(models: list[refs.ModelRef], ctx: Any) -> None:
    """Say where perplexities do not compare."""
    sizes = {_whole(model).meta.get("vocab_size") for model in models} - {None}
    if len(sizes) > 1:
        ctx.warning("other-tokenizers", "The models have different tokenizers, so their perplexities count different "
                    "tokens.", "Compare bits a byte and the rewards instead.")


def _whole(model: refs.ModelRef) -> refs.ModelRef:
    try:
        return refs.resolve_model(model.base) if model.is_adapter and model.base else model
    except StudioError:
        return model


def _memory(model: refs.ModelRef) -> int:
    """Peak bytes in 32 bits; 0 where the size is not known."""
    parameters = _whole(model).meta.get("parameters") or 0
    return int(parameters * 4 * 1.2 + 700_000_000) if parameters else 0


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
