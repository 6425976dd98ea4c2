"""One merge by mergekit's own ``run_merge``, in this process: progress by weight, stop, and an output that is whole or not
there. Imports mergekit, so only workers and probes use it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from studio.errors import StudioError
from studio.mergers import config

Tell = Callable[[int, int, str], None]


class Stopped(Exception):
    """The merge was given up because its caller asked for that."""


def configuration(values: dict[str, Any], places: dict[str, tuple[Path, Path | None]]) -> Any:
    """mergekit's ``MergeConfiguration`` of a configuration with references.

    Args:
        places: model as the configuration writes it (``base+adapter`` as one) -> its folder and that of its adapter.

    Its models keep the order of the file. mergekit keeps them in a set, so without a base model it takes the tokenizer
    and ``config.json`` of one by chance, and the words of a union get other numbers each time.

    Raises:
        StudioError: mergekit refuses it.
    """
    from mergekit.config import MergeConfiguration
    from pydantic import ValidationError

    order = [_model(pair, places) for pair in config.merged_models(values)]

    class Ordered(MergeConfiguration):
        def referenced_models(self) -> list[Any]:
            found = super().referenced_models()
            return sorted(found, key=lambda one: (order.index(one.model_dump_json()) if one.model_dump_json() in order
                                                  else len(order), str(one)))

    try:
        made = Ordered.model_validate(_placed(values, places))
    except (ValidationError, RuntimeError, ValueError) as err:
        said = err.errors()[0]["msg"] if isinstance(err, ValidationError) else str(err)
        raise StudioError(f"mergekit refuses this configuration: {said}.", "Correct it and try again.", "config") from err
    from mergekit.common import ModelReference

    order[:] = [ModelReference.model_validate(one).model_dump_json() for one in order]
    return made


def _model(pair: Any, places: dict[str, tuple[Path, Path | None]]) -> dict[str, Any]:
    folder, adapter = places[config.pair_of(pair)]
    made: dict[str, Any] = {"model": {"path": str(folder)}}
    if adapter is not None:
        made["lora"] = {"path": str(adapter)}
    if isinstance(pair, dict) and pair.get("override_architecture"):
        made["override_architecture"] = pair["override_architecture"]
    return made


def _placed(values: Any, places: dict[str, tuple[Path, Path | None]], key: str = "") -> Any:
    """The configuration with folders, written in mergekit's long form, which leaves signs in their names alone."""
    if key in ("model", "base_model", "tokenizer_source", "source") and values not in ("union", "base", None):
        if not (isinstance(values, dict) and "kind" in values):
            return _model(values, places)
    if isinstance(values, dict):
        return {name: _placed(one, places, name) for name, one in values.items()}
    if isinstance(values, list):
        return [_placed(one, places) for one in values]
    return values


@contextmanager
def watched(tell: Tell | None, stopped: Callable[[], bool]) -> Iterator[None]:
    """mergekit's progress bars inside the block report to ``tell(done, total, name of the weight)`` instead, and a true
    ``stopped()`` ends the work with :class:`Stopped`."""
    import mergekit.graph
    import mergekit.merge
    import mergekit.tokenizer.build

    class Bar:
        def __init__(self, items: Iterable[Any] = (), **_: Any):
            self.items = list(items)

        def __iter__(self) -> Iterator[Any]:
            tasks = [one[1].task() for one in self.items if isinstance(one, tuple) and hasattr(one[1], "task")]
            saving = [getattr(task, "tensor_name", None) for task in tasks]
            total, done = sum(name is not None for name in saving), 0
            for i, item in enumerate(self.items):
                if stopped():
                    raise Stopped
                yield item
                if saving and saving[i] is not None:
                    done += 1
                    if tell is not None:
                        tell(done, total, saving[i])

    modules = (mergekit.graph, mergekit.merge, mergekit.tokenizer.build)
    real = [module.tqdm for module in modules]
    try:
        for module in modules:
            module.tqdm = SimpleNamespace(tqdm=Bar)
        yield
    finally:
        for module, bar in zip(modules, real, strict=True):
            module.tqdm = bar


@contextmanager
def in_order() -> Iterator[None]:
    """Inside the block a union of tokenizers numbers new words as their models do. mergekit takes them in the order of a
    hash table, another one each time, so the same merge would never give the same file twice."""
    import mergekit.tokenizer.build as building

    class Sorted:
        def __init__(self, tokenizer: Any):
            self.vocab_size, self.added_tokens_decoder = tokenizer.vocab_size, tokenizer.added_tokens_decoder
            self.words = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))

        def get_vocab(self) -> dict[str, int]:
            return self.words

    real = building.build_union_tokenizer

    def union(base: Any, tokenizers: dict[Any, Any], **more: Any) -> Any:
        return real(base, {model: Sorted(one) for model, one in tokenizers.items()}, **more)

    building.build_union_tokenizer = union
    try:
        yield
    finally:
        building.build_union_tokenizer = real


def merge(values: dict[str, Any], places: dict[str, tuple[Path, Path | None]], folder: Path, options: dict[str, Any],
          tell: Tell | None = None, stopped: Callable[[], bool] = lambda: False) -> None:
    """Merge into ``folder``, which must not be there yet or be empty; it appears when everything is written.

    Args:
        values: A checked configuration; its references are the keys of ``places``.
        options: Arguments of mergekit's ``MergeOptions``.

    Raises:
        StudioError: mergekit refuses it.
        Stopped: ``stopped`` asked for it. Nothing is left then, nor after any other failure.
    """
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from pydantic import ValidationError

    part, folded = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".adapters")
    clean(folder)
    try:
        made = configuration(values, places)
        with watched(tell, stopped), in_order():
            run_merge(made, str(part), MergeOptions(**options, lora_merge_cache=str(folded), write_model_card=False,
                                                    quiet=True))
        if folder.is_dir():
            folder.rmdir()
        part.rename(folder)
    except (ValidationError, RuntimeError, ValueError) as err:
        if isinstance(err, StudioError) or _by_machine(err):
            raise
        said = " ".join(str(err).split())[:400]
        raise StudioError(f"mergekit could not merge these models: {said}", "See the log of the run for where it happened.",
                          "config") from err
    finally:
        loaders = LoaderCache()
        loaders.flush_all()
        loaders.loaders.clear()  # they belong to the process, and would hold deleted files
        clean(folder)


def _by_machine(err: BaseException) -> bool:
    """The machine failed, not the merge: what the job layer explains itself."""
    from studio.jobs.explain import disk_full, out_of_memory

    return disk_full(err) or out_of_memory(err)


def clean(folder: Path) -> None:
    """Remove what an unfinished merge into ``folder`` left beside it."""
    for suffix in (".partial", ".adapters"):
        shutil.rmtree(folder.with_name(folder.name + suffix), ignore_errors=True)


class Clock:
    """Progress of a merge for a run: weights done, and the seconds left by the values still to be merged."""

    def __init__(self, ctx: Any, sizes: dict[str, int]):
        self.ctx, self.sizes = ctx, sizes
        self.total, self.done, self.began = sum(sizes.values()), 0, 0.0

    def __call__(self, done: int, total: int, name: str) -> None:
        if not self.began:  # planning and loading before the first weight say nothing of the others
            self.began = time.monotonic()
            self.total -= self.sizes.get(name, 0)
            self.ctx.progress(done, total, None)
            return
        self.done += self.sizes.get(name, 0)
        spent = time.monotonic() - self.began
        left = spent * (self.total - self.done) / self.done if self.done else None
        self.ctx.progress(done, total, left)
