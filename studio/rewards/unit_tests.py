"""Tests of the code pass."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from studio.datasets import verify
from studio.datasets.verify import Undecided, Verdict
from studio.recipe import field
from studio.rewards.base import Checked, Reference, Row


class UnitTestsOptions(Reference):
    column: str = field("tests", "Tests in", "The column or tag that holds the tests: Python asserts, test functions, "
                        "or inputs with their outputs.", min_length=1, max_length=200)
    seconds: float = field(5.0, "Time", "Processor time that an answer's code and its tests get.", unit="s",
    gt=0, le=120,
                           group="advanced")
    memory: int = field(512, "Memory", "Memory that they get.", unit="MB", ge=64, le=16_384, group="advanced")
    packages: bool = field(False, "Installed packages", "The code may import what is installed beside the studio, e.g. "
                           "numpy, not only Python's own library.", group="advanced")
    at_once: int = field(2, "At once", "How many answers are tested side by side.", group="advanced", ge=1, le=64)


class UnitTests(Checked):
    title = "Tests pass"
    help = "The share of the row's unit tests that the answer's Python code passes, each run in the sandbox."
    paper = "https://arxiv.org/abs/2207.01780"
    Options = UnitTestsOptions

    def check(self) -> None:
        from studio import sandbox

        sandbox.require()

    def score(self, answer: str, row: Row) -> Verdict:
        o = self.options
        return verify.check("unit_tests")(answer, row, column=o.column, seconds=o.seconds, memory=o.memory << 20,
                                          packages=o.packages)

    def scores(self, answers: list[str], rows: list[Row]) -> list[Verdict | Undecided]:
        with ThreadPoolExecutor(self.options.at_once) as pool:
            return list(pool.map(self._one, answers, rows))
