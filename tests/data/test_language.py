"""The language of a row: plain English by its little words, everything else by the model, and the two agree."""

from __future__ import annotations

import json

import pytest

from studio.datasets import language as module
from studio.datasets.language import language
from studio.settings import DATASETS

OTHERS = {
    "nl": "Is dit van de week in de winkel of was het morgen? Ik wil het graag in een doos met de rest van het boek.",
    "de": "Ich habe das Buch in der Hand und will es an die Frau geben, die da war, als wir um den See gingen.",
    "fr": "Je suis sur la place avec mon ami et on va manger des pommes sur un banc pendant que la pluie tombe.",
    "es": "No me gusta que la casa de mi hermano tenga una puerta tan grande, pero es lo que hay en este barrio.",
    "it": "La casa di mio fratello ha una porta molto grande, ma non si apre mai quando piove forte sul tetto.",
    "id": "Saya akan pergi ke pasar untuk membeli sayur dan buah karena ibu saya akan memasak makanan untuk kami.",
}


@pytest.mark.parametrize("code", OTHERS)
def test_other_languages_without_accents(code):
    assert language(OTHERS[code]) == code


@pytest.mark.parametrize("text", ["What should they have done when the bees were gone?", "Write the story of a dog and the cat with you.",
                                  "How would you write a function that reverses the order? def f(x): return x[::-1]"])
def test_english_without_the_model(text, monkeypatch):
    monkeypatch.setattr(module, "_detector", None)
    assert language(text) == "en" and module._detector is None


def test_the_short_way_agrees_with_the_model(monkeypatch):
    """On the shipped sets, which are English, both say the same wherever the short way says anything."""
    texts = []
    for path in sorted(DATASETS.glob("*.jsonl")):
        for line in path.read_text("utf-8", "replace").splitlines()[:60]:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            texts.append(" ".join(str(value) for value in row.values() if isinstance(value, str))
                         if isinstance(row, dict) else "")
    short = [language(text) for text in texts]
    monkeypatch.setattr(module, "_LITTLE", frozenset())
    long = [language(text) for text in texts]
    told = [(a, b) for a, b in zip(short, long, strict=True) if a != b and b]
    assert len(texts) > 200 and len(told) <= 0.02 * len(texts), told


def test_what_has_no_language():
    assert language("") == "" and language("12 + 30 = 42") == "" and language("\ud800") == ""
