"""A reward that a person wrote, as Python."""

from __future__ import annotations

import ast
import math
from typing import Any

from studio import sandbox, settings
from studio.datasets.verify import Undecided, Verdict
from studio.errors import StudioError
from studio.recipe import field
from studio.rewards.base import Options, Reward, Row, question_of

NAME = "reward"
TRIES = 8  # answers in a row that end the sandbox before the function is given up
EXAMPLE = '''def reward(prompt, completion, **row):
    """A number, or None where there is nothing to say. A pair is a number and why."""
    words = completion.split()
    return min(1.0, len(words) / 20), f"{len(words)} words"
'''


class OwnPythonOptions(Options):
    code: str = field("", "Code", "A function reward(prompt, completion, **row) that gives a number, None, or a "
                      "number with its reason. 'row' holds the columns of the dataset.", widget="text",
                      max_length=50_000,
                      placeholder=EXAMPLE)
    run_own_code: bool = field(False, "Run this code on this machine", "The code runs with your rights, shut into a "
                               "sandbox without network, files or other programs. Tick this only for code that you "
                               "wrote or read: no sandbox is perfect.")
    seconds: float = field(2.0, "Time", "Of one answer. Beyond it the answer has no score.", unit="s", gt=0, le=60,
                           group="advanced")
    memory: int = field(512, "Memory", "Of the whole function, with what it imports.", unit="MB", ge=64, le=16_384,
                        group="advanced")
    packages: bool = field(False, "Installed packages", "The code may import what is installed beside the studio, e.g. "
                           "numpy, not only Python's own library.", group="advanced")


class OwnPython(Reward):
    title = "My own function"
    help = "A Python function of your own, in a sandboxed process. On a private machine only."
    Options = OwnPythonOptions
    _function: sandbox.Function | None = None

    def check(self) -> None:
        if settings.shared():
            raise StudioError("Code of one's own is run on a private machine only; others can reach this studio.",
                              "Use another reward, or start the studio for yourself: without --host, not on a Space.",
                              "code")
        if not self.options.code.strip():
            raise StudioError("There is no code.", f"Write a function {NAME}(prompt, completion, **row).", "code")
        try:
            body = ast.parse(self.options.code).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
            line = f" in line {err.lineno}" if isinstance(err, SyntaxError) and err.lineno else ""
            raise StudioError(f"The code is no Python{line}: {getattr(err, 'msg', err)}.", "Correct it.",
                              "code") from err
        if not any(isinstance(part, ast.FunctionDef) and part.name == NAME for part in body):
            raise StudioError(f"The code has no function '{NAME}'.",
                              f"Write def {NAME}(prompt, completion, **row): at the left margin.", "code")
        if not self.options.run_own_code:
            raise StudioError("This would run code on this machine, with your rights and inside a sandbox that cannot "
                              "be perfect.", "If you wrote or read the code, tick 'Run this code on this machine'.",
                              "run_own_code")
        if lack := sandbox.missing():
            raise StudioError(f"The code cannot be run here: {lack}.", "Use another reward.", "code")

    def open(self, ctx: Any, recipe: Any) -> None:
        o = self.options
        self._function, self._ended = sandbox.Function(o.code, NAME, o.seconds, o.memory << 20, o.packages), 0

    def score(self, answer: str, row: Row) -> Verdict:
        chat = {"messages": row["prompt"]} if isinstance(row.get("prompt"), list) else {}
        made = self._function(row | chat | {"prompt": question_of(row.get("prompt")), "completion": answer})
        if made.code != "passed":
            self._count(made)
            raise Undecided(f"your function: {made.reason}")
        self._ended = 0
        value, why = (made.value[0], made.value[1] if len(made.value) > 1 else "") if made.value else (None, "")
        if value is None:
            raise Undecided(str(why or "your function has nothing to say of it")[:300])
        if isinstance(value, str) or not math.isfinite(value):
            raise Undecided(f"your function gave {value!r:.80}, which is no number")
        return Verdict(value > 0, float(value), str(why or "")[:300])

    def _count(self, made: sandbox.Called) -> None:
        """A function that ends its sandbox every time would cost hours and teach nothing.

        Raises:
            StudioError: it did so :data:`TRIES` times in a row.
        """
        self._ended = 0 if made.code == "error" else self._ended + 1
        if self._ended >= TRIES:
            raise StudioError(f"Your function failed for {TRIES} answers in a row: {made.reason}.",
                              "Correct it, or give it more time and memory; then resume.", "rewards")

    def close(self) -> None:
        if self._function is not None:
            self._function.close()
