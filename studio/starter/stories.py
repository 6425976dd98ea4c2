"""Short coherent stories of five to eight sentences about visitors, and profiles of the residents."""

from __future__ import annotations

import random

from . import skills
from . import world as w

# Each plot is a list of sentences; {n} and {m} are two visitors, {he}/{him}/{his} follow the first one.
_PLOTS = {
    "lost": (
        "One day {n} went to the {s} with a {c} {t}.",
        "{He} put the {t} under a tree and played with {m}.",
        "Then the {t} was gone, and {n} was sad.",
        "{m} looked behind a big stone.",
        'The {c} {t} was there. "Here it is," said {m}.',
        "{n} was happy again, and they went home.",
    ),
    "hungry": (
        "{n} saw a small {a} near the {s}.",
        "The {a} was hungry and had no food.",
        "{n} ran home and asked {m} for help.",
        '"Give the {a} some {af}," said {m}.',
        "{n} gave the {a} some {af}, and the {a} ate it all.",
        'The {a} said "{sound}" and was not hungry any more.',
    ),
    "rain": (
        "It was a dark day, and {n} was in the {s}.",
        "Soon it began to rain.",
        "{n} was wet and cold.",
        "{m} came with a {c} hat and a warm coat.",
        '"Come with me," said {m}.',
        "They ran home and had some hot soup.",
        "After that the sun came out, and {n} was warm again.",
    ),
    "bake": (
        "{n} wanted to make a cake with {f}.",
        "{He} went to the market with {his} friend {m}.",
        "They bought {f}, milk and flour.",
        "At home they made a big cake.",
        "A {a} came in and looked at the cake.",
        '"This is for all of us," said {n}.',
        "They ate the cake, and it was very good.",
    ),
    "friend": (
        "{n} was in the {s} and had no friends there.",
        "{He} sat alone with {his} {c} {t}.",
        "Then {m} came and sat near {him}.",
        '"That is a nice {t}," said {m}. "Can we play?"',
        "They played with the {t} all day.",
        "Now {n} and {m} are good friends.",
    ),
    "stuck": (
        "A small {a} was up in a tall tree near the {s}.",
        "It was afraid and could not come down.",
        "{n} heard the {a} and called {m}.",
        "{m} brought a long rope.",
        "{n} went up slowly and took the {a} in {his} arms.",
        "They came down, and the {a} was safe.",
        '"You are very strong," said {m}.',
    ),
    "race": (
        "{n} and {m} ran a race to the {s}.",
        "{n} was fast, but {he} fell over a {t}.",
        "{m} stopped and helped {him} to stand up.",
        '"You lost the race for me," said {n}.',
        '"A friend is better than a race," said {m}.',
        "So they went to the {s} hand in hand.",
    ),
    "gift": (
        "It was the birthday of {m}, and {n} had no gift.",
        "{He} found an old {t} at home.",
        "{n} made it clean and painted it {c}.",
        "Then {he} put it in a box and took it to {m}.",
        "{m} opened the box and laughed.",
        '"A {c} {t} is the best gift," said {m}.',
    ),
}
_CLIMBERS = ("cat", "owl", "hen", "mouse", "frog", "rabbit")
_FILLINGS = ("apples", "plums", "carrots", "cheese", "honey", "pears", "nuts", "berries")
_OPENINGS = ("", "", "This is a short story. ", "Here is a story about {n}. ")


def _about(plot: str, animal: str, toy: str) -> str | None:
    text = " ".join(_PLOTS[plot])
    return animal if "{a}" in text else toy if "{t}" in text else None


def story(rng: random.Random, held: bool, hero: str | None = None) -> tuple[str, str, str | None]:
    """A story, the name of its hero and the animal or thing it is about, from the training or held-out side."""
    while True:
        plot = rng.choice(tuple(_PLOTS))
        n = hero or rng.choice(tuple(w.VISITORS))
        m = rng.choice([x for x in w.VISITORS if x != n])
        he = w.VISITORS[n]
        animal, toy = rng.choice(_CLIMBERS if plot == "stuck" else tuple(w.ANIMALS)), rng.choice(w.TOYS)
        names = {
            "n": n, "m": m, "he": he, "He": w.cap(he), "him": "him" if he == "he" else "her",
            "his": "his" if he == "he" else "her", "s": rng.choice(w.SPOTS), "c": rng.choice(w.COLOURS[:8]),
            "t": toy, "a": animal, "af": w.ANIMALS[animal][2], "sound": w.cap(w.ANIMALS[animal][0]),
            "f": rng.choice(_FILLINGS),
        }
        body = " ".join(_PLOTS[plot]).format(**names)
        if w.is_held_out(body, 16) == held:
            return body, n, _about(plot, animal, toy)


def plain(rng: random.Random, held: bool) -> str:
    """A plain text: mostly a story, sometimes (in training only) the profile of a resident."""
    if not held and rng.random() < 0.2:
        person = rng.choice(w.PEOPLE)
        relations = rng.sample(("town", "pet", "food", "job"), rng.randint(2, 4))
        return " ".join(
            skills.person_answer(person.name if i == 0 else w.cap(person.he), r, getattr(person, r))
            for i, r in enumerate(relations)
        )
    body, hero, _ = story(rng, held)
    return rng.choice(_OPENINGS).format(n=hero) + body


def told(rng: random.Random, held: bool) -> skills.Item:
    """A request for a story, and the story."""
    body, hero, about = story(rng, held)
    wish = rng.choice(("Tell me a story.", f"Tell me a story about {hero}."))
    if about and rng.random() < 0.4:
        wish = f"Tell me a story about {hero} and {w.an(about)}."
    return skills.Item(wish, body)
