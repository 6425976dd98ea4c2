"""An answer in the right language."""

from __future__ import annotations

import re

from studio.datasets import language
from studio.datasets.verify import Undecided, Verdict
from studio.errors import StudioError
from studio.recipe import field
from studio.rewards.base import Options, Reward, Row, question_of

PIECE, MOST_PIECES = 80, 50  # characters of a piece; pieces that are looked at
UNSURE = 0.5
_ENDS = re.compile(r"(?<=[.!?。！？])\s+|\n+")


class LanguageOptions(Options):
    language: str = field("en", "Language", "The language of a good answer, as a code of two letters. Left empty, it "
                          "is that of the question.", max_length=8, placeholder="that of the question", choices={
        "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian",
        "pt": "Portuguese", "nl": "Dutch", "pl": "Polish", "ru": "Russian", "uk": "Ukrainian", "tr": "Turkish",
        "ar": "Arabic", "hi": "Hindi", "zh": "Chinese", "ja": "Japanese", "ko": "Korean"})


class Language(Reward):
    title = "Language"
    help = "The share of the answer that is in the wanted language: 1 for all, 0 for none, 0.5 where nobody could tell."
    paper = "https://arxiv.org/abs/2501.12948"
    Options = LanguageOptions

    def check(self) -> None:
        if self.options.language and not re.fullmatch(r"[a-z]{2,3}", self.options.language):
            raise StudioError(f"'{self.options.language}' is no code of a language.", "Write en, de or zh, say.",
                              "language")

    def score(self, answer: str, row: Row) -> Verdict:
        wanted = self.options.language or language.language(question_of(row.get("prompt")))
        if not wanted:
            raise Undecided("the language of the question cannot be told")
        if not answer.strip():
            return Verdict(False, 0.0, "the answer is empty")
        sizes: dict[str, int] = {}
        for piece in pieces(answer)[:MOST_PIECES]:
            found = language.language(piece)
            sizes[found] = sizes.get(found, 0) + len(piece)
        sizes.pop("", None)  # sums, names and code are in no language
        if not sizes:
            return Verdict(False, UNSURE, "too short to tell its language")
        share = sizes.get(wanted, 0) / sum(sizes.values())
        others = ", ".join(sorted(sizes.keys() - {wanted}))
        return Verdict(share == 1, share, f"{share:.0%} {wanted}" + (f", the rest {others}" if others else ""))


def pieces(text: str) -> list[str]:
    """Sentences and lines, short ones together with the next: enough of each to tell its language."""
    found, open_ = [], ""
    for part in _ENDS.split(text):
        open_ = f"{open_} {part}".strip()
        if len(open_) >= PIECE:
            found.append(open_)
            open_ = ""
    if open_ and found and len(open_) < PIECE // 2:
        found[-1] += f" {open_}"
    elif open_:
        found.append(open_)
    return found
