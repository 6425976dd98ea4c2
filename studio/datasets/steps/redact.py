"""Redact: personal data and secrets out of the rows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from studio.datasets import passes, personal
from studio.datasets.passes import Change, Drop
from studio.datasets.step import Step, StepRecipe
from studio.datasets.texts import Row, changed
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class RedactRecipe(StepRecipe):
    method = "redact"

    email: bool = field(True, "E-mail addresses", "Finds e-mail addresses; those of example.com and the like are nobody's and stay.")
    phone: bool = field(True, "Phone numbers", "Finds phone numbers that exist in the number plan of their country.")
    card: bool = field(True, "Card numbers", "Finds credit card numbers whose check digit is right.")
    iban: bool = field(True, "Bank accounts", "Finds IBANs whose check digits are right.")
    id: bool = field(True, "Identity numbers", "Finds identity and tax numbers of persons in 14 countries, by check digit where they "
                     "have one.")
    ip: bool = field(True, "Internet addresses", "Finds public IPv4 and IPv6 addresses; private ones and version numbers stay.")
    secret: bool = field(True, "Keys and passwords", "Finds API keys, tokens, private keys, and passwords written behind their name.")
    region: str = field("US", "Phone numbers of", "Country (two letters) whose numbers are also known without +; empty = only numbers "
                        "with +.", max_length=2, placeholder="US")
    found: Literal["replace", "drop"] = field("replace", "What is found", "Put a word such as [EMAIL] in its place, or leave the row "
                                              "out.", choices={"replace": "Replace by a word", "drop": "Drop the row"})

    @field_validator("region")
    @classmethod
    def _known(cls, value: str) -> str:
        import phonenumbers

        value = value.upper()
        if value and value not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"{value!r} is no country; write two letters, e.g. DE")
        return value


class Redact(Step):
    title, summary = "Redact", "Replaces e-mail addresses, phone, card and identity numbers, IPs and keys, or drops their rows."
    Recipe = RedactRecipe
    texts = {kind: f"held {said}" for kind, (_, said) in personal.KINDS.items()}

    @classmethod
    def work(cls, recipe: RedactRecipe, source: Version, out: Writer, ctx: Context) -> dict[str, Any]:
        kinds = tuple(kind for kind in personal.KINDS if getattr(recipe, kind))
        if not kinds:
            raise StudioError("No kind of personal data is chosen.", "Switch on at least one.", "email")
        counts: Counter[str] = Counter()

        def decide(row: Row) -> Change | Drop | None:
            here: Counter[str] = Counter()
            made = changed(row, lambda role, text: personal.redacted(text, kinds, recipe.region, here))
            if made is None:
                return None
            counts.update(here)
            first = next(iter(here))
            if recipe.found == "drop":
                return Drop(first, ", ".join(f"{n} {personal.KINDS[kind][1]}" for kind, n in here.items()))
            return Change(made, first)

        passes.rewrite(source, out, ctx, decide)
        return {"found": dict(counts)}
