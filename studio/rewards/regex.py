"""A form that the answer keeps, as a regular expression."""

from __future__ import annotations

from typing import Literal

from studio.datasets import verify
from studio.datasets.verify import Undecided, Verdict
from studio.errors import StudioError
from studio.recipe import field
from studio.rewards.base import Checked, Reference, Row

# The first is the format reward of DeepSeek-R1. Nothing may stand before, between or behind, and no tag comes twice.
_TEXT = r"(?:(?!</?(?:think|answer)>).)+"
FORMS = {
    "think_answer": rf"\A\s*<think>(?s:{_TEXT})</think>\s*<answer>(?s:{_TEXT})</answer>\s*\Z",
    "think": rf"\A\s*<think>(?s:{_TEXT})</think>\s*\S",
    "boxed": r"\\boxed\{[^{}]+\}",
    "final": r"^####\s*\S.*\s*\Z",
    "sentence": r"\A\s*\S[^\n]*[.!?]\s*\Z",
}


class PatternOptions(Reference):
    form: Literal["", "think_answer", "think", "boxed", "final", "sentence"] = field(
        "", "Form", "A ready pattern, or one of your own.",
        choices={"": "A pattern of my own", "think_answer": "<think>…</think><answer>…</answer>",
                 "think": "<think>…</think>, then an answer", "boxed": "\\boxed{…} somewhere",
                 "final": "#### and the answer on the last line", "sentence": "One line that ends as a sentence"})
    pattern: str = field("", "Pattern", "A regular expression that is found in a good answer; \\A and \\Z stand for "
                         "its beginning and end. Left empty, it is the row's own, in the column under 'Advanced'.",
                         max_length=2000, when={"form": [""]})
    ignore_case: bool = field(False, "Ignore case", "Capital letters do not matter to the pattern.", group="advanced")


class Pattern(Checked):
    title = "A form"
    help = "1 if a pattern is found in the answer, e.g. <think>…</think><answer>…</answer>; else 0."
    paper = "https://arxiv.org/abs/2501.12948"
    needs = False
    Options = PatternOptions

    def check(self) -> None:
        if not (self.options.form or self.options.pattern or self.options.column):
            raise StudioError("There is no pattern.", "Choose a form or write a pattern.", "pattern")
        if not self.options.form and self.options.pattern:
            verify.compiled(self.options.pattern)

    def score(self, answer: str, row: Row) -> Verdict:
        o = self.options
        pattern = FORMS[o.form] if o.form else o.pattern
        if not pattern and not verify.expected(row, o.column):
            raise Undecided("the row has no pattern")
        return verify.check("regex")(answer, row, pattern=pattern, column=o.column, ignore_case=o.ignore_case,
                                     thinking=True)
