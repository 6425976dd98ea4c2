"""Repair: put right inside the rows what can be put right, and leave out what cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studio.datasets import faults, passes
from studio.datasets.convert import REJECTS
from studio.datasets.passes import Change, Drop
from studio.datasets.step import Step, StepRecipe
from studio.datasets.texts import Row, changed
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class RepairRecipe(StepRecipe):
    method = "repair"

    encoding: bool = field(True, "Broken characters", "Puts right text that was read in the wrong encoding, such as Ã© for é; what "
                           "is lost for good is removed.")
    special_tokens: bool = field(True, "Leaked markers", "Removes markers of chat templates, such as <|im_end|> and [INST], from the "
                                 "texts; the template adds its own.")
    whitespace: bool = field(True, "Blanks", "Removes blanks around texts and at the ends of lines, runs of empty lines and invisible "
                             "characters.")
    role_order: bool = field(True, "Order of roles", "Joins a role that speaks twice, removes an opening of the assistant and "
                             "messages at the end that nobody answered; what cannot be mended is left out.")
    repeated: bool = field(False, "Repeated text", "Where a piece follows itself three times or more, as of a model that got stuck, "
                           "one of it stays.")
    unfinished: bool = field(False, "Unfinished answers", "Cuts last answers back to their last whole sentence; those without one are "
                             "left out. Off for answers that are no sentences.")


class Repair(Step):
    title, summary = "Repair", "Mends broken characters, leaked markers, blanks, role order, repeated text and unfinished answers."
    Recipe = RepairRecipe
    texts = {
        "encoding": "had broken characters", "special_tokens": "held markers of a chat template", "whitespace": "had stray blanks",
        "role_order": "had their roles in the wrong order", "repeated": "repeated a piece of text", "unfinished": "ended in the "
        "middle of a sentence", "cut_short": "have an answer without one whole sentence", "nothing_left": "hold nothing else",
    } | {code: f"could not be mended: {text}" for code, text in REJECTS.items()}

    @classmethod
    def work(cls, recipe: RepairRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any] | None:
        mends = [(code, mend) for code, on, mend in (
            ("encoding", recipe.encoding, faults.mend_encoding), ("special_tokens", recipe.special_tokens, faults.strip_special),
            ("repeated", recipe.repeated, _unstuck), ("whitespace", recipe.whitespace, faults.spaced)) if on]
        if not (mends or recipe.role_order or recipe.unfinished):
            raise StudioError("There is nothing to mend: every part of the repair is off.", "Switch one on.", "encoding")
        passes.rewrite(source, out, ctx, lambda row: _mended(row, mends, recipe))
        return None


def _unstuck(text: str) -> str:
    return faults.cut_repeated(text) if faults.quickly_repeats(text) else text


def _mended(row: Row, mends: list, recipe: RepairRecipe) -> Change | Drop | None:
    made, why = row, ""
    for code, mend in mends:
        if (new := changed(made, lambda role, text, mend=mend: mend(text))) is not None:
            made, why = new, why or code
    if recipe.role_order:
        again = faults.ordered(made)
        if isinstance(again, str):
            # A message that the mending emptied is another case than one that came in wrong.
            return Drop("nothing_left" if why and not faults.empty_part(row) and faults.empty_part(made) else again)
        if again is not None:
            made, why = again, why or "role_order"
    if recipe.unfinished and faults.unfinished(made):
        cut = faults.whole_sentences(faults.answer(made))
        if not cut:
            return Drop("cut_short", faults.answer(made)[-200:])
        made, why = faults.with_answer(made, cut), why or "unfinished"
    if why and faults.empty_part(made) and not faults.empty_part(row):
        return Drop("nothing_left", why)
    return Change(made, why) if why else None
