"""Models as lm-evaluation-harness asks them. Imports torch and that library: for the worker only."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import evaluate
import lm_eval.api.metrics
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.utils

from studio.chat import address
from studio.evals import compare
from studio.evals.lm_local import Local
from studio.library import refs


class Stopped(Exception):
    """The run was asked to stop in the middle of a task."""


class Watch:
    """What happens inside a task: how far it is, whether to stop, what did not fit.

    Args:
        stop: Whether the run was asked to stop.
        tell: Is given the share of the task's requests that are done.
    """

    def __init__(self, stop: Callable[[], bool], tell: Callable[[float], None]):
        self.stop, self.tell = stop, tell
        self.total = self.done = self.cut = 0

    def begin(self, total: int) -> None:
        self.total, self.done = total, 0

    def step(self, n: int = 1) -> None:
        """Some requests are done.

        Raises:
            Stopped: as asked.
        """
        self.check()
        self.done += n
        self.tell(min(1.0, self.done / self.total) if self.total else 0.0)

    def check(self) -> None:
        if self.stop():
            raise Stopped


def opened(ref: str, recipe: Any, ctx: Any, watch: Watch) -> Any:
    """The model of a reference, ready to be asked; ``None`` if the run was stopped meanwhile.

    Raises:
        StudioError: it cannot be loaded or reached.
    """
    from studio.evals.lm_served import Address, Gguf
    from studio.trainers import load

    if address.is_address(ref):
        return Address(ref, recipe, ctx, watch)
    local = load.fetch(refs.resolve_model(ref), ctx)
    if local is None or ctx.stop_requested:
        return None
    if local.meta.get("format") == "gguf":
        return Gguf(local.path, recipe, watch, ctx.threads)
    tokenizer, net = compare.ready(local, recipe.trust_remote_code)
    return Local(net, tokenizer, recipe, watch)


class CodeEval:
    """What tasks of written programs load under the name ``code_eval``: the same numbers, in the studio's sandbox.

    pass@k as in Chen et al. 2021, https://arxiv.org/abs/2107.03374.
    """

    def __init__(self, watch: Watch):
        self.watch = watch

    def compute(self, references: list[str], predictions: list[list[str]], k: Any = (1, 10, 100), **_: Any) -> tuple[Any, Any]:
        from studio import sandbox

        counts, every = [], {}
        for number, (tests, programs) in enumerate(zip(references, predictions, strict=True)):
            ends = []
            for program in programs:
                self.watch.check()
                ends.append(sandbox.run(program, tests))
            every[number] = [(place, {"passed": one.ok, "result": one.reason or "passed"}) for place, one in enumerate(ends)]
            counts.append((len(ends), sum(one.ok for one in ends)))
        found = {}
        for most in [k] if isinstance(k, int) else k:
            if all(n >= most for n, _ in counts):
                found[f"pass@{most}"] = sum(1.0 if n - right < most else 1.0 - math.prod(
                    1.0 - most / m for m in range(n - right + 1, n + 1)) for n, right in counts) / len(counts)
        return found, every


@contextlib.contextmanager
def quiet(watch: Watch) -> Iterator[None]:
    """lm-evaluation-harness without its bars and advice, with ours in their place.

    Templates of tasks are rendered in Jinja's sandbox: what stands in a task's YAML may come from a form.
    """
    from jinja2 import BaseLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Bar:
        def __init__(self, iterable: Any = None, *_: Any, **more: Any):
            self.over = iterable

        def __iter__(self) -> Iterator[Any]:
            for item in self.over:
                watch.check()
                yield item

        def update(self, n: int = 1) -> None:
            watch.step(n)

        def close(self) -> None:
            pass

    def bootstrap(function: Callable[[Any], float], values: list[Any], iters: int) -> float:
        # The library's own numbers, drawn with the same seeds; its pool of processes is no good in a job and cannot be stopped.
        import random

        found, chunk = [], min(1000, iters)
        for number in range(iters // chunk):
            drawn = random.Random(number)
            for _ in range(chunk):
                watch.check()
                found.append(function(drawn.choices(values, k=len(values))))
        return lm_eval.api.metrics.sample_stddev(found)

    def load(name: str, *others: Any, **more: Any) -> Any:
        return CodeEval(watch) if name == "code_eval" else before[-1](name, *others, **more)

    safe = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    safe.filters["regex_replace"] = lm_eval.utils.regex_replace
    changed = [(lm_eval.models.huggingface, "tqdm", Bar), (lm_eval.api.model, "tqdm", Bar), (lm_eval.api.task, "tqdm", Bar),
               (lm_eval.api.metrics, "bootstrap_stderr", bootstrap), (lm_eval.utils, "env", safe),
               (evaluate, "load", load)]
    before = [getattr(module, name) for module, name, _ in changed]
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for module, name, ours in changed:
            setattr(module, name, ours)
        yield
    finally:
        for (module, name, _), theirs in zip(changed, before, strict=True):
            setattr(module, name, theirs)
        logger.setLevel(level)
