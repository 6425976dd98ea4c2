"""Finished evaluations, read back: whose they are, what they asked and what was answered. No torch here."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.evals import results

_KEPT, _MOST_BYTES = 6, 48 << 20  # evaluations whose answers stay in memory, and the largest that does
_read: OrderedDict[tuple, list[dict[str, Any]]] = OrderedDict()


@dataclass
class Evaluation:
    """One finished run with results.

    Attributes:
        run: Its row.
        folder: Where its files are.
        figures: ``results.json``: ``models``, ``tasks``, ``scores``, ``facts``, ``method``.
    """

    run: dict[str, Any]
    folder: Path
    figures: dict[str, Any]

    @property
    def id(self) -> str:
        return self.run["id"]

    @property
    def models(self) -> list[dict[str, Any]]:
        return self.figures["models"]

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        return self.figures["tasks"]

    def number(self, model: int | str) -> int:
        """Place of a model, given by its place or its reference.

        Raises:
            StudioError: it was not asked here.
        """
        if isinstance(model, str) and not model.isdigit():
            model = next((n for n, one in enumerate(self.models) if one["ref"] == model), -1)
        if not 0 <= int(model) < len(self.models):
            raise StudioError("This evaluation did not ask that model.", "Choose one of its models.", "model")
        return int(model)

    def label(self, model: int) -> str:
        return self.models[model]["label"]

    def score(self, model: int, task: str, metric: str) -> dict[str, Any] | None:
        """``{model, task, metric, value, stderr, n}``, or ``None``."""
        return next((one for one in self.figures["scores"]
                     if one["model"] == model and one["task"] == task and one["metric"] == metric), None)

    def answers(self, model: int | None = None, task: str | None = None) -> list[dict[str, Any]]:
        """Lines of ``samples.jsonl``, of one model and one task where they are given. Not to be changed."""
        return [line for line in lines(self.folder) if model in (None, line["model"]) and task in (None, line["task"])]


def lines(folder: Path) -> list[dict[str, Any]]:
    """Lines of ``samples.jsonl`` of a finished evaluation, kept in memory for the next look. Not to be changed."""
    path = folder / results.SAMPLES
    try:
        stat = os.stat(path)
    except OSError:
        return []
    key = (str(path), stat.st_mtime_ns, stat.st_size)
    if key not in _read:
        found = list(results.samples(folder))
        if stat.st_size > _MOST_BYTES:
            return found
        _read[key] = found
        while len(_read) > _KEPT:
            _read.popitem(last=False)
    _read.move_to_end(key)
    return _read[key]


def opened(run_id: str, owner: str | None = None) -> Evaluation:
    """The results of a run.

    Args:
        owner: The person on a Space, already scoped; another person's run is as if it were not there.

    Raises:
        StudioError: there is no such run (``field="runs"``), or it has no results.
    """
    from studio.jobs import store

    row = store.get(run_id)
    if owner not in (None, row["owner"]):
        raise StudioError(f"There is no run {run_id}.", "It may have been removed; see the list of runs.", "runs")
    folder = settings.run_dir(run_id) / "output"
    figures = results.opened(folder)
    if figures is None:
        raise StudioError(f"'{row['name'] or run_id}' has no results: it is {row['state']}, or no evaluation.",
                          "Choose a finished evaluation.", "runs")
    return Evaluation(row, folder, figures)


def every(owner: str | None = None, limit: int = 2000) -> list[Evaluation]:
    """All finished evaluations of the workspace, the newest first; ``owner`` already scoped."""
    from studio.jobs import store

    found = []
    for row in store.find(kind="eval", owner=owner, limit=limit):
        figures = results.opened(settings.run_dir(row["id"]) / "output")
        if figures:
            found.append(Evaluation(row, settings.run_dir(row["id"]) / "output", figures))
    return found
