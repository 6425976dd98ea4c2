"""What every evaluation leaves behind, so that tables, differences, error analysis, leaderboard and report read one shape.

``output/results.json`` holds the figures, ``output/samples.jsonl`` one line for each answer of each model. A line of the same
``task`` and ``id`` is the same question, whichever model answered and in whichever run: that is what pairs them.

    results = Results(ctx, recipe)                    # takes up what a stopped run had finished
    for number, ref in enumerate(recipe.models):
        results.model(ref, label)
        if results.finished(number, "sums"):
            continue
        results.task("sums", "Sums", main="exact_match", metrics={"exact_match": SHARE})
        results.add(number, "sums", [Sample("17", "2 + 3 =", "5", "5", {"exact_match": 1.0})])
    return results.finish(parents=[("shipped:sums", "data")])   # the run's summary
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.chat.address import is_address
from studio.jobs.files import read_json, write_json

FILE, SAMPLES, VERSION = "results.json", "samples.jsonl", 1
PLAN, KEPT = "evaluation.json", "evaluated"  # of a run that still goes on: its models and tasks, and the pairs it has finished
COLUMN = "column:"  # reference of answers that stand in a column of data: no model of ours
SHARE = {"higher_is_better": True, "low": 0.0, "high": 1.0}  # of a metric that is a share of the questions
LOSS = {"higher_is_better": False}
NUMBER = {"higher_is_better": True}


@dataclass
class Sample:
    """One answer of one model.

    Attributes:
        id: Of the question within its task; the same for every model and every run on the same rows.
        prompt: What the model saw, as text (a chat as its messages joined with roles).
        answer: What it said; for a choice the text of the option it held likeliest.
        target: The right answer, or an empty string.
        scores: Metric -> number; a metric that has nothing to say of this answer is left out.
        tags: What answers may be grouped by: topic, category, way of asking, length of the question.
        more: Whatever else a view may show: options with their log-likelihoods, a judge's reasons, seconds, tokens.
    """

    id: str
    prompt: str
    answer: str
    target: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


class Results:
    """Gathers what an evaluation finds; a pair of model and task is kept as soon as it is whole, so a resumed run skips it.

    Args:
        ctx: The run's context.
        recipe: Its recipe; ``models`` are the references asked.
    """

    def __init__(self, ctx: Any, recipe: Any):
        self.ctx, self.recipe, self.began = ctx, recipe, time.time()
        self.kept = ctx.run_dir / KEPT
        self.kept.mkdir(exist_ok=True)
        self.models: list[dict[str, Any]] = []
        self.tasks: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Any] = {}  # anything else of the run that a view or the report shows

    def model(self, ref: str, label: str, **more: Any) -> int:
        """Name the next model; its number."""
        self.models.append({"ref": ref, "label": label} | more)
        self._plan()
        return len(self.models) - 1

    def task(self, name: str, title: str, main: str, metrics: dict[str, dict[str, Any]], **more: Any) -> None:
        """Name a task. ``main`` is the metric of the leaderboard; ``metrics`` says of each which way is better
        (:data:`SHARE`, :data:`LOSS`, :data:`NUMBER`)."""
        self.tasks[name] = {"title": title, "main": main, "metrics": metrics} | more
        self._plan()

    def finished(self, model: int, task: str) -> bool:
        """Whether this run has these answers already, from before it was stopped."""
        return read_json(self._place(model, task)) is not None

    def add(self, model: int, task: str, samples: Iterable[Sample], scores: dict[str, tuple[float, float | None]] | None = None,
            **facts: Any) -> None:
        """Keep the answers of one model to one task.

        Args:
            scores: Metric -> (value, standard error) where they are not the mean over the answers, as a corpus BLEU or
                what lm-evaluation-harness computed.
            facts: Of this pair, e.g. seconds or tokens.
        """
        lines = [asdict(sample) for sample in samples]
        made = {name: [value, error, sum(name in line["scores"] for line in lines)] for name, (value, error) in (scores or {}).items()}
        for name in {name for line in lines for name in line["scores"]} - made.keys():
            made[name] = list(mean([line["scores"][name] for line in lines if name in line["scores"]]))
        write_json(self._place(model, task), {"scores": {name: [told(part) for part in one] for name, one in sorted(made.items())},
                                              "facts": facts, "samples": told(lines)})
        label = self.models[model]["label"]
        main = made.get(self.tasks[task]["main"])
        self.ctx.metric(len(list(self.kept.glob("*.json"))), {f"{task}/{name}": one[0] for name, one in made.items()})
        if main:
            self.ctx.log(f"{label}: {self.tasks[task]['title']}, {self.tasks[task]['main']} {main[0]:.4g}"
                         + (f" ± {main[1]:.2g}" if main[1] is not None else ""))
        for line in lines[:2]:
            self.ctx.sample(len(list(self.kept.glob("*.json"))), line["prompt"][-2000:], line["answer"][:2000], label)

    def finish(self, parents: list[tuple[str, str]] | None = None, **facts: Any) -> dict[str, Any]:
        """Write the two files, register them as one artifact, and give the run's summary.

        Args:
            parents: What was read beside the models, as (reference, role).

        Returns:
            ``{"table": [{model, label, TASK/METRIC: value, TASK/METRIC_stderr: …}], "tasks", "seconds", **facts}``.
        """
        folder: Path = self.ctx.output
        scores, pairs, table = [], [], [dict(model=one["ref"], label=one["label"]) for one in self.models]
        with (folder / SAMPLES).open("w", encoding="utf-8") as out:
            for number in range(len(self.models)):
                for task in self.tasks:
                    if (found := read_json(self._place(number, task))) is None:
                        continue
                    for metric, (value, error, count) in found["scores"].items():
                        scores.append({"model": number, "task": task, "metric": metric, "value": value, "stderr": error, "n": count})
                        table[number] |= {f"{task}/{metric}": value, f"{task}/{metric}_stderr": error}
                    pairs.append({"model": number, "task": task} | found["facts"])
                    for line in found["samples"]:
                        out.write(json.dumps({"model": number, "task": task} | line, ensure_ascii=False) + "\n")
        facts = self.facts | facts | {"seconds": round(time.time() - self.began, 2)}
        values = self.recipe.to_dict()
        write_json(folder / FILE, {"version": VERSION, "method": f"{values['kind']}/{values['method']}", "made": time.time(), "models": self.models,
                                   "tasks": self.tasks, "scores": scores, "pairs": pairs, "facts": told(facts)})
        name = self.recipe.name or f"{', '.join(task['title'] for task in self.tasks.values())[:60]}: {len(self.models)} model{'s' * (len(self.models) > 1)}"
        self.ctx.artifact("file", folder, name, {"method": f"{values['kind']}/{values['method']}", "models": len(self.models)},
                          [*((one["ref"], "scored") for one in self.models if not is_address(one["ref"]) and not one["ref"].startswith(COLUMN)), *(parents or [])])
        return {"table": table, "tasks": self.tasks} | told(facts)

    def facts_of(self, model: int, task: str) -> dict[str, Any]:
        """The facts of a finished pair."""
        return (read_json(self._place(model, task)) or {"facts": {}})["facts"]

    def samples_of(self, model: int, task: str) -> list[dict[str, Any]]:
        """The answers of a finished pair."""
        return (read_json(self._place(model, task)) or {"samples": []})["samples"]

    def _place(self, model: int, task: str) -> Path:
        return place(self.kept, model, task)

    def _plan(self) -> None:
        """What is known before the end, for who looks at a run that goes on or was stopped."""
        values = self.recipe.to_dict()
        write_json(self.ctx.run_dir / PLAN, {"method": f"{values['kind']}/{values['method']}", "models": self.models, "tasks": self.tasks})


def mark(parts: Any) -> str:
    """A short mark of plain values, for the name of a task that only compares where they are the same."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=3).hexdigest()


def place(kept: Path, model: int, task: str) -> Path:
    """File of one finished pair of model and task."""
    return kept / f"{model}-{hashlib.blake2b(task.encode(), digest_size=12).hexdigest()}.json"


def mean(values: list[float]) -> tuple[float, float | None, int]:
    """(mean, standard error of it, how many)."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return (statistics.fmean(values) if values else math.nan), error, len(values)


def told(value: Any) -> Any:
    """The same value as plain JSON has room for: NaN and infinities become ``None``."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): told(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(one) for one in value]
    return value


def opened(folder: Path) -> dict[str, Any] | None:
    """The figures of a finished evaluation, or ``None`` where ``folder`` holds none."""
    found = read_json(Path(folder) / FILE)
    return found if found and found.get("version") == VERSION else None


def samples(folder: Path) -> Iterator[dict[str, Any]]:
    """The answers of a finished evaluation, line by line: ``{"model": number, "task", **Sample}``."""
    with (Path(folder) / SAMPLES).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
