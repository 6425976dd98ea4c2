"""Models as lm-evaluation-harness asks them. Imports torch and that library: for the worker only."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import lm_eval.api.metrics
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.utils
from lm_eval.models.huggingface import HFLM

from studio.errors import StudioError
from studio.evals import compare
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


class Local(HFLM):
    """A model that transformers has loaded.

    Args:
        net, tokenizer: Of :func:`studio.evals.compare.ready`.
        recipe: Gives ``batch_size`` and ``max_length``.
    """

    def __init__(self, net: Any, tokenizer: Any, recipe: Any, watch: Watch):
        self.watch = watch
        super().__init__(net, tokenizer=tokenizer, backend="causal", batch_size=recipe.batch_size, max_length=recipe.max_length)
        # Every step of an answer passes here, so a stop need not wait for the answer's end.
        self._hook = self.model.get_input_embeddings().register_forward_pre_hook(lambda *_: watch.check())

    @property
    def templated(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def close(self) -> None:
        self._hook.remove()
        self._model = None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.watch.begin(len(requests))
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        self.watch.begin(len(requests))
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
                              ) -> list[tuple[float, bool]]:
        for _, context, rest in requests:
            if len(rest) > self.max_length:
                raise too_short(len(rest), self.max_length)
            self.watch.cut += len(context) + len(rest) > self.max_length + 1
        return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.watch.begin(len(requests))
        for request in requests:
            most = int(request.args[1].get("max_gen_toks", request.args[1].get("max_new_tokens", self.max_gen_toks)))
            if most >= self.max_length:
                raise StudioError(f"Answers of {most} tokens do not fit into this model's {self.max_length}.",
                                  "Set a smaller longest answer.", "max_gen_toks")
            self.watch.cut += len(self.tok_encode(request.args[0])) > self.max_length - most
        return super().generate_until(requests, disable_tqdm)


def too_short(tokens: int, limit: int) -> StudioError:
    """An answer to be judged that is longer than all the model reads."""
    return StudioError(f"An answer of {tokens} tokens does not fit into this model's {limit}.",
                       "Leave this task out, or choose a model that reads more.", "max_length")


def opened(ref: str, recipe: Any, ctx: Any, watch: Watch) -> Any:
    """The model of a reference, ready to be asked; ``None`` if the run was stopped meanwhile.

    Raises:
        StudioError: it cannot be loaded or reached.
    """
    from studio.trainers import load

    local = load.fetch(refs.resolve_model(ref), ctx)
    if local is None or ctx.stop_requested:
        return None
    tokenizer, net = compare.ready(local, recipe.trust_remote_code)
    return Local(net, tokenizer, recipe, watch)


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

    safe = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    safe.filters["regex_replace"] = lm_eval.utils.regex_replace
    changed = [(lm_eval.models.huggingface, "tqdm", Bar), (lm_eval.api.model, "tqdm", Bar), (lm_eval.api.task, "tqdm", Bar),
               (lm_eval.api.metrics, "bootstrap_stderr", bootstrap), (lm_eval.utils, "env", safe)]
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
