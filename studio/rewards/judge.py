"""A judge's mark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from studio.datasets import llm, verify
from studio.datasets.checking import CALM
from studio.datasets.verify import Undecided, Verdict
from studio.errors import StudioError
from studio.recipe import field
from studio.rewards.base import Reference, Reward, Row


class JudgeOptions(Reference):
    judge: str = field("", "Judge", "The model that marks: one of yours, hub:owner/name, or the address of an "
                       "OpenAI-compatible server, http://host:port/v1.", widget="model", max_length=1000)
    judge_model: str = field("", "Model at the address", "Which of that server's models judges. Left empty, the first "
                             "it serves.", max_length=300, group="advanced")
    rubric: str = field("", "Rubric", "What makes a good answer, in your words. Left empty: correct, complete, to the "
                        "point, clear.", widget="text", max_length=20_000)
    column: str = field("", "Reference answer in", "The column or tag that the judge is shown as the reference. Left "
                        "empty, it sees none.", group="advanced", max_length=200)
    concurrency: int = field(4, "At once", "Requests under way together. Servers answer many; a model of this "
                             "computer gains little.", group="advanced", ge=1, le=64)
    timeout: float = field(120, "Longest wait", "A request without an answer by then is tried again.", group="advanced",
                           unit="s", ge=1, le=3600)


class Judge(Reward):
    title = "A judge"
    help = "The mark that another model gives by a rubric, from 0 (worst) to 1 (best). Slow, and can be flattered."
    paper = "https://arxiv.org/abs/2306.05685"
    Options = JudgeOptions
    client: Any = None

    def check(self) -> None:
        if not self.options.judge:
            raise StudioError("No judge is chosen.", "Choose a model, or an address with a model behind it.", "judge")
        llm.check(None, self.options.judge, "judge")

    def open(self, ctx: Any, recipe: Any) -> None:
        o = self.options
        settings = SimpleNamespace(**CALM, seed=0, concurrency=o.concurrency, timeout=o.timeout, price_in=0.0,
                                   price_out=0.0)
        self.client = llm.open(settings, Aside(ctx), o.judge, o.judge_model, "judge")

    def scores(self, answers: list[str], rows: list[Row]) -> list[Verdict | Undecided]:
        with ThreadPoolExecutor(self.client.concurrency) as pool:
            return list(pool.map(self._one, answers, rows))

    def score(self, answer: str, row: Row) -> Verdict:
        try:
            return verify.check("judge")(answer, row, self._ask, self.options.rubric, self.options.column,
                                         threshold=0.5)
        except llm.Failed as err:
            raise Undecided(f"the judge gave no answer: {err}") from err

    def _ask(self, messages: list[dict[str, str]]) -> str:
        return self.client.ask(messages)[0].text

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


class Aside:
    """The run, as the judge's client sees it: what the judge used is no metric of the training, and a stop waits for
    the batch that is being scored, because a batch without its scores could not be resumed exactly."""

    stop_requested = False

    def __init__(self, ctx: Any):
        self.ctx = ctx

    def log(self, text: str) -> None:
        if self.ctx is not None:
            self.ctx.log(text)

    def metric(self, *_: Any, **__: Any) -> None:
        """Not told."""
