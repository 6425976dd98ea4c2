"""Benchmarks of one's own: what a dataset could become, how its first questions look, and keeping them."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in
from studio.errors import StudioError

SECONDS, SECONDS_WITH_MODELS = 60, 300
_SLOW = ("judge",)


def bench_list(owner: str | None = None) -> list[dict[str, Any]]:
    """Benchmarks, the newest first; see :func:`studio.evals.bench.listed`."""
    from studio.evals import bench

    return bench.listed(scope(owner))


def bench_form() -> dict[str, Any]:
    """The form of a benchmark: ``{fields, metrics: [{name, title, help, paper, output, target, names, options}]}``; fields and
    options as in :func:`studio.api.methods`."""
    from dataclasses import asdict

    from studio.evals import bench, metrics
    from studio.recipe import fields

    return {"fields": [asdict(spec) for spec in fields(bench.Benchmark)], "metrics": metrics.catalogue()}


def bench_suggest(dataset: str, owner: str | None = None) -> dict[str, Any]:
    """A first guess at the form for a dataset; see :func:`studio.evals.bench_guess.suggest`.

    Raises:
        StudioError: it cannot be read, or is another person's.
    """
    from studio.evals import bench_guess
    from studio.library.refs import check_owner

    check_owner(dataset, scope(owner), "dataset")
    return bench_guess.suggest(dataset)


def bench_preview(values: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """The first questions of a filled form as a model would see them; see :func:`studio.evals.bench.preview`.

    Raises:
        StudioError: in the field that is wrong.
    """
    from studio.evals import bench

    _own(values, owner)
    return bench.preview(values)


def bench_try(values: dict[str, Any], answer: str | None = None, index: int = 0, owner: str | None = None) -> dict[str, Any]:
    """Score a typed answer to one of the first questions, or their right answers and damaged ones; see :func:`studio.evals.bench.tried`.

    Raises:
        StudioError: in the field that is wrong; it took too long.
    """
    from studio.evals import bench
    from studio.jobs import probe

    signed_in(owner)
    _own(values, owner)
    bench.parse(values)
    return probe.call("studio.evals.bench:tried", {"values": values, "answer": answer, "index": index},
                      SECONDS_WITH_MODELS if values.get("metric") in _SLOW else SECONDS)


def bench_save(values: dict[str, Any], replace: str = "", owner: str | None = None) -> dict[str, Any]:
    """Keep a benchmark in the workspace; see :func:`studio.evals.bench.save`.

    Args:
        replace: Name of the benchmark that is being edited.

    Raises:
        StudioError: in the field that is wrong; the name is taken.
    """
    from studio.evals import bench

    signed_in(owner)
    _own(values, owner)
    return bench.save(values, scope(owner), replace)


def bench_load(name: str, owner: str | None = None) -> dict[str, Any]:
    """``{values, yaml}`` of a benchmark: the form it was made with, and its task file.

    Raises:
        StudioError: there is none of that name.
    """
    from studio.evals import bench

    return {"values": bench.load(name, scope(owner)), "yaml": bench.text_of(name, scope(owner))}


def bench_delete(name: str, owner: str | None = None) -> None:
    """Remove a benchmark; results of runs stay.

    Raises:
        StudioError: there is none of that name.
    """
    from studio.evals import bench

    bench.delete(name, scope(signed_in(owner)))


def _own(values: Any, owner: str | None) -> None:
    """Refuse data and models of other people.

    Raises:
        StudioError: in the field that names them.
    """
    from studio.chat.address import is_address
    from studio.evals import bench
    from studio.library.refs import check_owner

    found, metric = bench.parse(values)
    for name in ("dataset", "fewshot_dataset"):
        if ref := getattr(found, name):
            check_owner(ref, scope(owner), name)
    for ref in metric.models():
        if not is_address(ref):
            check_owner(ref, scope(owner), "options.judge")
    if scope(owner) is not None and (folder := getattr(metric.options, "model", "")) and found.metric == "embedding":
        raise StudioError(f"The folder {folder} is not yours to read here.", "Embedding models of a folder are for a private studio.",
                          "options.model")
