"""A step of the dataset builder: reads one version of a dataset and writes another.

    class ShortRows(Step):
        title, summary = "Drop short rows", "Leaves out rows that say next to nothing."
        texts = {"short": "are too short"}
        class Recipe(StepRecipe): kind, method = "data", "short"; least: int = field(...)

        @classmethod
        def work(cls, recipe, source, out, ctx):
            for item in watched(source, ctx):
                out.keep(item) if item.chars >= recipe.least else out.drop(item, "short")

The input is never changed. A reference that is no version yet (a file, a shipped set, a Hub id) is brought in first.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studio.datasets.version import Item, Version, Writer
from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class Stopped(Exception):
    """The person asked to stop; what was begun is not kept, unless the step can go on from it."""


class StepRecipe(Recipe):
    """What every step reads."""

    kind = "data"

    dataset: str = field("", "Dataset", "The dataset this step reads: one made here, a shipped one, a file, or "
                         "hub:owner/name. It is not changed.", widget="dataset", max_length=1000)


class Step(Method):
    """One way to make a dataset out of another (or out of nothing, where ``starts`` is true).

    Attributes:
        texts: reason -> how a row that was dropped or changed for it is spoken of: "120 ``are too short``".
        group: Section of the menu: ``bring_in`` | ``clean`` | ``shape`` | ``make`` | ``keep``.
        starts: Needs no dataset.
        others: Fields that name further datasets or models, field -> role in the lineage.
        repeatable: Gives the same rows each time, so that what it once made can be used again.
    """

    texts: ClassVar[dict[str, str]] = {}
    group: ClassVar[str] = "clean"
    starts: ClassVar[bool] = False
    others: ClassVar[dict[str, str]] = {}
    repeatable: ClassVar[bool] = True

    @classmethod
    def check(cls, recipe: Any) -> None:
        if not cls.starts or recipe.dataset:
            from studio.library import refs

            refs.resolve_dataset(recipe.dataset)

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        """The disk a new version takes: about what the old one does."""
        from studio.library import artifacts, refs

        try:
            path = refs.resolve_dataset(recipe.dataset).path
        except StudioError:
            return Estimate()
        return Estimate(disk=artifacts.size_of(path) if path else None)

    @classmethod
    @abstractmethod
    def work(cls, recipe: Any, source: Version | None, out: Writer, ctx: Context) -> dict[str, Any] | None:
        """Read ``source.items()``, give every row to ``out.keep``, ``out.change`` or ``out.drop``, add new ones.

        Only the split ``train`` is looked at unless the step says otherwise: the others are copied afterwards when the
        step wrote nothing to them. The returned plain values stand with the step in the history.

        Raises:
            Stopped: when ``ctx.stop_requested``.
        """

    @classmethod
    def run(cls, recipe: Any, ctx: Context) -> dict[str, Any] | None:
        try:
            source, parents = opened(recipe.dataset, ctx) if recipe.dataset else (None, [])
            made = execute(cls, recipe, source, ctx.output, ctx)
        except Stopped:
            return None
        register(made, recipe.name or name_of(recipe), ctx, parents + others_of(cls, recipe))
        return summary(made)


def execute(step: type[Step], recipe: Any, source: Version | None, folder: Path, ctx: Context) -> Version:
    """Run one step into ``folder``.

    Raises:
        Stopped: as asked; the folder then holds no dataset.
    """
    with Writer(folder, step.texts) as out:
        more = step.work(recipe, source, out, ctx) or {}
        if source is not None:
            out.copy(source, [name for name in source.splits
                          if name != "train" and not out.rows[name] and name not in out.seen])
        return out.close(entry_of(recipe), source, inputs=inputs_of(step, recipe), **({"facts": more} if more else {}))


def entry_of(recipe: Any) -> dict[str, Any]:
    """The recipe of a step as the history keeps it: what it does, not what it reads."""
    values = recipe.to_dict(only_changed=True)
    for key in ("schema_version", "kind", "dataset", "name"):
        values.pop(key, None)
    return values


def inputs_of(step: type[Step], recipe: Any) -> dict[str, str]:
    """Reference -> state of the further things a step reads; another state means another result."""
    return {ref: state_of(ref) for ref, _ in others_of(step, recipe)}


def state_of(ref: str) -> str:
    """Hash of a version; size and time of a file; the reference itself for anything else."""
    from studio.library import refs

    try:
        path = refs.resolve_dataset(ref).path
        if path is None:
            return ref
        return Version(path).hash if path.is_dir() else f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    except (StudioError, OSError):
        return ref


def opened(ref: str, ctx: Context) -> tuple[Version, list[tuple[str, str]]]:
    """The version behind a reference, and the parents to record; anything else than a version is brought in first."""
    from studio.library import artifacts, refs

    found = refs.resolve_dataset(ref)
    if found.path is not None and found.path.is_dir():
        return Version(found.path), [(ref, "dataset")]
    from studio.datasets.steps.bring_in import BringIn, BringInRecipe

    folder = ctx.run_dir / "brought_in"
    try:
        made = Version(folder)  # by this run, before it was stopped or killed
    except StudioError:
        made = execute(BringIn, BringInRecipe(sources=[ref]), None, folder, ctx)
    kept = next((row["ref"] for row in artifacts.listed(("dataset",), run_id=ctx.run_id) if row["path"] == str(folder)), None)
    return made, [(kept or keep(made, found.label, ctx, [(ref, "dataset")]), "dataset")]


def keep(version: Version, name: str, ctx: Context, parents: list[tuple[str, str]]) -> str:
    """Put a version that a run makes on its way into the library at once. Returns its reference."""
    from studio.jobs import store
    from studio.library import artifacts

    row = artifacts.add("dataset", name, version.path, run_id=ctx.run_id, owner=store.get(ctx.run_id)["owner"],
                        meta=facts_of(version) | {"stage": "step"}, made_from=parents)
    return row["ref"]


def register(version: Version, name: str, ctx: Context, parents: list[tuple[str, str]]) -> None:
    """Put the result of a run into the library when it ends."""
    ctx.artifact("dataset", version.path, name, facts_of(version), parents)


def facts_of(version: Version) -> dict[str, Any]:
    """What the library remembers of a version, without its history."""
    return {"format": version.meta["format"], "rows": version.meta["rows"], "hash": version.hash, "version": True}


def summary(version: Version) -> dict[str, Any]:
    """Figures of the newest step, for the list of runs."""
    entry = version.meta["history"][-1]
    return {key: entry[key] for key in ("rows_in", "rows_out", "changed", "dropped")} | {"hash": version.hash}


def others_of(step: type[Step], recipe: Any) -> list[tuple[str, str]]:
    """(reference, role) of the further datasets and models that a step uses."""
    found = []
    for name, role in step.others.items():
        value = getattr(recipe, name)
        found += [(ref, role) for ref in (value if isinstance(value, list) else [value]) if ref]
    return found


def name_of(recipe: Any) -> str:
    """A name for a result that was given none: that of what it was made from."""
    from studio.library import refs

    first = recipe.dataset or next(iter(getattr(recipe, "sources", [])), "")
    try:
        label = refs.resolve_dataset(first).label if first else recipe.method
    except StudioError:
        label = Path(first).name
    stem = label.rsplit(".", 1)[0] if "." in label and " " not in label else label
    return stem[:70] or "dataset"


def watched(source: Version, ctx: Context, split: str = "train") -> Iterator[Item]:
    """Rows of a split, with progress, ETA and a look at the stop every so often.

    Raises:
        Stopped: as asked.
    """
    yield from counted(source.items(split), source.count(split), ctx)


def counted(things: Any, total: int, ctx: Context, every: int = 256,
            done: Callable[[], int] | None = None) -> Iterator[Any]:
    """``things`` with progress out of ``total``, ETA and the stop. ``done`` counts the work done where that is no row."""
    began, number = time.monotonic(), 0
    for number, thing in enumerate(things, 1):
        if number % every == 0:
            report(ctx, done() if done else number, total, began)
        yield thing
    ctx.progress(total, total, 0.0)


def report(ctx: Context, done: float, total: float, began: float) -> None:
    """One report of progress with the seconds left.

    Raises:
        Stopped: as asked.
    """
    if ctx.stop_requested:
        raise Stopped
    spent = time.monotonic() - began
    ctx.progress(done, max(total, done), spent / done * (total - done) if done else None)
