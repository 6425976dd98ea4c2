"""Mix: several datasets become one, in the proportions that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator

from studio.datasets import formats, passes
from studio.datasets.step import Step, StepRecipe, counted
from studio.datasets.version import Item, Version, Writer, item_of
from studio.errors import StudioError
from studio.library import refs
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

MAIN = "dataset"  # name of the dataset the step reads, in the table of weights


class MixRecipe(StepRecipe):
    method = "mix"

    others: list[str] = field([], "Mix in", "Further datasets, one a line: made here, files, shipped:KEY, hub:owner/name.",
                              widget="lines", max_length=100)
    weights: dict[str, float] = field({}, "Weights", "How often the rows of each count, e.g. shipped:polite: 2. The dataset above is "
                                      "called 'dataset'; what is not named counts once.", widget="table")
    how: Literal["times", "shares"] = field(
        "times", "Weights are", "Times: 2 takes every row twice, 0.5 every other. Shares: 3 and 1 make three quarters and one.",
        choices={"times": "Times", "shares": "Shares of the result"})
    rows: int = field(0, "Rows", "Size of the result where weights are shares; 0 = as large as can be without repeating a row.",
                      unit="rows", ge=0, le=1_000_000_000, when={"how": ["shares"]})
    seed: int = field(0, "Seed", "Another seed takes other rows where not all are taken.", ge=0, le=2**31 - 1)

    @field_validator("weights")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        if bad := next((name for name, weight in value.items() if not 0 <= weight <= 1000), None):
            raise ValueError(f"the weight of {bad} must be between 0 and 1000")
        return value


class Mix(Step):
    title, summary = "Mix", "Puts several datasets together in chosen proportions, repeating or thinning out rows."
    Recipe = MixRecipe
    group = "shape"
    others = {"others": "source"}
    texts = {"not_taken": "are beyond their part of the mix"}

    @classmethod
    def check(cls, recipe: MixRecipe) -> None:
        super().check(recipe)
        for ref in recipe.others:
            try:
                refs.resolve_dataset(ref)
            except StudioError as err:
                raise StudioError(err.message, err.hint, "others") from err
        if unknown := set(recipe.weights) - {MAIN, *recipe.others}:
            raise StudioError(f"There is a weight for {sorted(unknown)[0]}, which is not mixed in.",
                              f"Name {MAIN} or one of the others.", "weights")

    @classmethod
    def work(cls, recipe: MixRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        readers: list[tuple[str, Callable[[], Iterator[Item]], int]] = [(MAIN, source.items, source.count())]
        for ref in recipe.others:
            readers.append((ref, *_reader(ref)))
        sizes = [size for _, _, size in readers]
        weights = [float(recipe.weights.get(name, 1)) for name, _, _ in readers]
        wanted = [round(n * w) for n, w in zip(sizes, weights, strict=True)] if recipe.how == "times" else \
            _shares(sizes, weights, recipe.rows)
        if not sum(wanted):
            raise StudioError("Every weight is 0: nothing is left.", "Give one of them a weight.", "weights")
        plans = [_plan(size, n, np.random.default_rng([recipe.seed, i])) for i, (size, n) in enumerate(zip(sizes, wanted, strict=True))]
        streams = [_taken(read, *plan) for (_, read, _), plan in zip(readers, plans, strict=True)]
        for place, item, again in counted(_interleaved(streams, wanted), sum(wanted), ctx):
            if place == 0 and not again:
                out.keep(item)
            else:
                out.put(item)
        rounds, some = plans[0]
        if not rounds:
            for _, first, batch in passes.batches(source, passes.Work(ctx, sizes[0]), ["train"]):
                left = np.flatnonzero(~some[first:first + batch.num_rows])
                for item in passes.items_of(batch.take(left)) if len(left) else ():
                    out.drop(item, "not_taken")
        return {"sets": [{"dataset": name, "rows": size, "taken": n}
                         for (name, _, size), n in zip(readers, wanted, strict=True)]}


def _reader(ref: str) -> tuple[Callable[[], Iterator[Item]], int]:
    """(function that reads the rows anew, how many there are)."""
    found, split = refs.resolve_dataset(ref), ref.partition("#")[2] or "train"
    if found.path is not None and found.path.is_dir() and (found.path / "dataset.json").is_file():
        version = Version(found.path)
        return lambda: version.items(split), version.count(split)
    rows = formats.load_rows(ref, purpose="as_is")
    size = sum(1 for _ in rows)
    return lambda: (item_of(row, found.label) for row in rows), size


def _shares(sizes: list[int], weights: list[float], rows: int) -> list[int]:
    """Rows of each set for the wanted shares; without a size, as many as the scarcest set allows."""
    total = sum(weights)
    if not total:
        return [0] * len(sizes)
    size = rows or min(n * total / w for n, w in zip(sizes, weights, strict=True) if w)
    return [round(size * w / total) for w in weights]


def _plan(size: int, wanted: int, chance: np.random.Generator) -> tuple[int, np.ndarray]:
    """(how often all rows are taken, which are taken once more) to make ``wanted`` rows out of ``size``."""
    rounds, rest = divmod(wanted, size) if size else (0, 0)
    some = np.zeros(size, bool)
    if rest:
        some[chance.choice(size, rest, replace=False)] = True
    return rounds, some


def _taken(read: Callable[[], Iterator[Item]], rounds: int, some: np.ndarray) -> Iterator[tuple[Item, bool]]:
    """The planned rows, in their order, and with each whether it is a copy of one that was given before."""
    for turn in range(rounds):
        for item in read():
            yield item, turn > 0
    if some.any():
        for item, take in zip(read(), some.tolist(), strict=False):
            if take:
                yield item, rounds > 0


def _interleaved(streams: list[Iterator[tuple[Item, bool]]], wanted: list[int]) -> Iterator[tuple[int, Item, bool]]:
    """Rows of all streams, each spread evenly over the whole, so that any stretch of it has the wanted proportions."""
    given = [0] * len(streams)
    for _ in range(sum(wanted)):
        # The one that lags behind its share the most.
        place = min((i for i, n in enumerate(wanted) if given[i] < n), key=lambda i: ((given[i] + 1) / wanted[i], i))
        made = next(streams[place], None)
        given[place] += 1
        if made is not None:
            yield place, *made
