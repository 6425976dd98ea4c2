"""A report looks at a version and makes no dataset: the doctor, the statistics.

    class Lengths(Report):
        title, summary = "Lengths", "How long the rows are."
        class Recipe(StepRecipe): kind, method = "data", "lengths"

        @classmethod
        def work(cls, recipe, source, ctx):
            return {"longest": max(item.chars for item in watched(source, ctx))}

It is kept as ``STUDIO_HOME/reports/<hash of the version>/<method>.json``; making it again replaces it.
"""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from studio import settings
from studio.datasets.step import Stopped, opened
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.method import Estimate, Method

if TYPE_CHECKING:
    from pathlib import Path

    from studio.jobs.context import Context

_HASH = re.compile(r"[0-9a-f]{8,64}")


class Report(Method):
    """One way to look at a dataset."""

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.library import refs

        refs.resolve_dataset(recipe.dataset)

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        return Estimate()

    @classmethod
    @abstractmethod
    def work(cls, recipe: Any, source: Version, ctx: Context) -> dict[str, Any]:
        """What was found, as plain values.

        Raises:
            studio.datasets.step.Stopped: when ``ctx.stop_requested``.
        """

    @classmethod
    def run(cls, recipe: Any, ctx: Context) -> dict[str, Any] | None:
        began = time.time()
        try:
            source, _ = opened(recipe.dataset, ctx)
            found = cls.work(recipe, source, ctx)
        except Stopped:
            return None
        path = path_of(source.hash, recipe.method)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"recipe": recipe.to_dict(), "made": time.time(), "seconds": round(time.time() - began, 2),
                          "version_hash": source.hash, **found})
        return {"report": recipe.method, "hash": source.hash, **cls.headline(found)}

    @classmethod
    def headline(cls, found: dict[str, Any]) -> dict[str, Any]:
        """Figures for the list of runs."""
        return {key: value for key, value in found.items() if isinstance(value, int | float | str)}


def names() -> list[str]:
    """Reports there are."""
    from studio import registry

    return [name for name, method in registry.family("data").items() if issubclass(method, Report)]


def path_of(version_hash: str, method: str) -> Path:
    """Where a report is kept.

    Raises:
        StudioError: no hash, or no such report.
    """
    if not _HASH.fullmatch(version_hash) or method not in names():
        raise StudioError(f"There is no report '{str(method)[:40]}'.", f"Known: {', '.join(names()) or 'none'}.",
                          "method")
    return settings.home() / "reports" / version_hash / f"{method}.json"


def read(version_hash: str, method: str) -> dict[str, Any] | None:
    """The newest report on rows with this hash, or ``None``.

    Raises:
        StudioError: there is no such report.
    """
    return read_json(path_of(version_hash, method))
