"""What the mergers share that call mergekit's scripts: whole local models, progress and stop, one complete folder, a card.

No torch at import.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from studio.errors import StudioError
from studio.library import bases, refs
from studio.library.modelinfo import PROMPT_TYPES

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "bfloat16": 2, "float16": 2, "float32": 4}


class Stopped(Exception):
    """Raised inside the library where the person asked to stop."""


def source(ref: str, field_name: str, adapter: bool = True) -> refs.ModelRef:
    """A model whose weights can be merged.

    Args:
        adapter: An adapter will do; it is folded into its base first.

    Raises:
        StudioError: in that field: not there, packed into few bits, a reward model, an adapter that cannot be folded in.
    """
    try:
        model = refs.resolve_model(ref)
        refs.check_writes(model)
        refs.check_weights(model)
        if model.is_adapter and adapter:
            from studio.trainers import load

            if model.meta.get("peft_type") in PROMPT_TYPES:
                raise StudioError(f"{model.label} adds virtual words to the input, which have no place in the weights.",
                                  "Choose a whole model, or an adapter that changes weights.")
            refs.check_weights(refs.resolve_model(load.base_of(model)))
    except StudioError as err:
        raise StudioError(err.message, err.hint, field_name) from err
    if model.is_adapter and not adapter:
        raise StudioError(f"{model.label} is an adapter, and a whole model is needed.",
                          "Fold it into its base first (Adapter into base).", field_name)
    return model


def facts(model: refs.ModelRef) -> dict[str, Any]:
    """Facts of the whole model: of its base where it is an adapter."""
    if not (model.is_adapter and model.base):
        return model.meta
    try:
        return refs.resolve_model(model.base).meta
    except StudioError:
        return {}


def size(model: refs.ModelRef, dtype: str = "") -> int:
    """Bytes of a whole model in a precision, by default its own; 0 where that is not known."""
    known = facts(model)
    return int((known.get("parameters") or 0) * BYTES.get(dtype or known.get("dtype") or "", 4))


def same(models: list[refs.ModelRef], what: dict[str, str], field_name: str) -> None:
    """Refuse models that differ where they must not.

    Args:
        what: Key of :func:`studio.library.modelinfo.describe` -> what a person calls it.
    """
    first = models[0]
    for other in models[1:]:
        for key, word in what.items():
            one, two = facts(first).get(key), facts(other).get(key)
            if one is not None and two is not None and one != two:
                raise StudioError(f"{other.label} has another {word} than {first.label} ({two} instead of {one}).",
                                  "Choose models of one family and size, best tuned from the same base.", field_name)


@contextlib.contextmanager
def whole(models: Iterable[refs.ModelRef], ctx: Any, trust: bool = False) -> Iterator[list[str]]:
    """Folders of whole models, in their order: fetched from the Hub, adapters folded into their base for so long.

    Raises:
        Stopped: the person asked to stop meanwhile.
        StudioError: one cannot be fetched or loaded.
    """
    from studio.trainers import finish, load

    made, folded = [], ctx.run_dir / "folded"
    shutil.rmtree(folded, ignore_errors=True)
    try:
        for number, model in enumerate(models):
            local = load.fetch(model, ctx)
            if local is None or ctx.stop_requested:
                raise Stopped
            if local.is_adapter:
                if told := bases.replaced(local):
                    ctx.warning("base-replaced", *told)
                base = refs.resolve_model(load.base_of(local))
                net = load.model(local, "float32", trust, merge=True)
                finish.save(net, load.tokenizer(local, trust), folded / str(number), finish.native_dtype(base))
                made.append(str(folded / str(number)))
            else:
                made.append(str(local.path))
        yield made
    finally:
        shutil.rmtree(folded, ignore_errors=True)


@contextlib.contextmanager
def watched(ctx: Any, modules: Iterable[str], parts: dict[str, tuple[float, float]]) -> Iterator[None]:
    """The library's progress bars become the run's progress; a stop is raised inside its loops.

    Args:
        modules: Modules of the library that have a bar (``import tqdm``).
        parts: What a bar calls itself -> from which to which share of the run it goes.

    Raises:
        Stopped: in the library's loop, once the person asked to stop.
    """
    import tqdm

    class Bar(tqdm.tqdm):
        def __init__(self, *args: Any, **more: Any):
            super().__init__(*args, **(more | {"disable": True}))
            self.part = parts.get(more.get("desc") or "")
            self.of = self.total or (len(self.iterable) if hasattr(self.iterable, "__len__") else 0)
            self.done = 0

        def __iter__(self) -> Iterator[Any]:
            for one in self.iterable:
                if ctx.stop_requested:
                    raise Stopped
                yield one
                self.step(1)

        def step(self, count: float) -> None:
            self.done += count
            if self.part and self.of:
                low, high = self.part
                ctx.progress(round(low + (high - low) * min(1.0, self.done / self.of), 4), 1.0)
            if ctx.stop_requested:
                raise Stopped

        def update(self, n: float | None = 1) -> None:
            self.step(n or 0)

    fake = SimpleNamespace(tqdm=Bar, trange=lambda n, **more: Bar(range(n), **more))
    places = [importlib.import_module(name) for name in modules]
    before = [place.tqdm for place in places]
    for place in places:
        place.tqdm = fake
    try:
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            place.tqdm = old


@contextlib.contextmanager
def said(logger: str = "mergekit") -> Iterator[list[str]]:
    """What the library logs as warning or error; its scripts explain themselves in no other way."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    listener = Listener(logging.WARNING)
    places = [logging.getLogger(name) for name in ("", logger)]
    places[0].addHandler(listener)
    try:
        yield found
    finally:
        places[0].removeHandler(listener)


def script(main: Any, arguments: list[str]) -> list[str]:
    """Run a script of mergekit in this process; returns what it warned of.

    Raises:
        StudioError: it refused, with its own reason.
        Stopped: the person asked to stop.
    """
    argv = sys.argv
    with said() as found:
        try:
            sys.argv = [main.name, *arguments]  # it writes its command line on the card
            main.main(args=arguments, prog_name=main.name, standalone_mode=False)
        except SystemExit as err:
            if err.code:
                raise StudioError(f"mergekit refused: {' '.join(found[-3:]) or 'without a reason'}",
                                  "Change what it names and start again.") from err
        finally:
            sys.argv = argv
    return found


@contextlib.contextmanager
def folder(ctx: Any) -> Iterator[Path]:
    """An empty folder that becomes the run's output once the block ends well, and is removed if not."""
    part = ctx.output.with_name(ctx.output.name + ".partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(ctx.output, ignore_errors=True)
        part.rename(ctx.output)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def parameters(path: Path) -> int:
    """Of the model in a folder, counted from its files."""
    from studio.library import modelinfo

    return modelinfo.describe(path)["parameters"]


def card(recipe: Any, name: str, intro: str, parents: list[refs.ModelRef], library: str = "transformers",
         rows: Iterable[tuple[str, Any]] = (), text: str = "", tags: Iterable[str] = ()) -> str:
    """The model card of a merge: what it was made from and how, the licences of its parents, the recipe."""
    from studio.mergers import licences

    unique = list({model.ref: model for model in parents}.values())
    found = [(model.label, licences.of(model, ask=True)) for model in unique]
    shared = licences.common([one for _, one in found])
    front = ["---", f"library_name: {library}", "pipeline_tag: text-generation", *([f"license: {shared}"] if shared else [])]
    if hubs := [model.hub_id for model in unique if model.hub_id]:
        front += ["base_model:", *(f"- {one}" for one in hubs)]
    front += ["tags:", "- atelier", "- merge", *(f"- {tag}" for tag in tags), "---"]
    lines = [*front, "", f"# {name}", "", intro, "", "| Made from | Licence |", "|---|---|",
             *(f"| {label} | {one.name or 'not known'}{f' (of {one.of})' if one.name and one.of else ''} |"
               for label, one in found), "", *(f"- {one.message} {one.hint}".rstrip() for one in licences.told(found)), ""]
    if told := [(what, value) for what, value in rows if value is not None]:
        lines += ["| | |", "|---|---|", *(f"| {what} | {value:,} |" if isinstance(value, int) else f"| {what} | {value} |"
                                          for what, value in told), ""]
    lines += [text, ""] if text else []
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft", "mergekit"))
    lines += ["## Recipe", "", "```yaml", recipe.to_yaml().rstrip(), "```", "", f"Made {time.strftime('%Y-%m-%d')} with "
              f"Atelier on {platform.machine()}, Python {platform.python_version()}, {versions}.", ""]
    return "\n".join(lines)
