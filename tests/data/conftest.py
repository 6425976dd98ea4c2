"""Dataset steps run in this process, in a workspace of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio import registry
from studio.datasets.version import Version
from studio.jobs import store
from studio.jobs.context import Context
from studio.library import artifacts
from studio.recipe import parse


@pytest.fixture
def run_step(home: Path) -> Callable[..., Version]:
    """``run_step("dedup", ref, field=value, ...)`` runs a step as a worker would and returns what it made.

    The version's ``ref`` attribute is its reference in the library; ``run_id`` its run.
    """

    def run(method: str, dataset: str = "", **values: Any) -> Version:
        made, rows, summary = work(method, dataset, **values)
        version = Version(rows[-1]["path"])
        version.ref, version.run_id, version.summary = rows[-1]["ref"], made["id"], summary
        return version

    return run


def work(method: str, dataset: str, **values: Any) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """(the run, what it put into the library, its summary) of a method of the dataset builder, run in this process."""
    recipe = parse({"kind": "data", "method": method, "dataset": dataset, **values})
    cls = registry.method("data", method)
    cls.check(recipe)
    made = store.submit(recipe)
    ctx = Context(store_dir(made["id"]))
    try:
        summary = cls.run(recipe, ctx)
    finally:
        ctx.close()
    return made, artifacts.register_run(made, {"artifacts": ctx.artifacts}), summary


def store_dir(run_id: str) -> Path:
    from studio import settings

    return settings.run_dir(run_id)


@pytest.fixture
def jsonl(home: Path) -> Callable[..., str]:
    """``jsonl("name.jsonl", rows)`` writes a file into the workspace and returns its reference."""

    def write(name: str, rows: list[Any]) -> str:
        text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
        (home / name).write_text(text, "utf-8")
        return name

    return write


