"""One generator per skill: each draws a question with its one right answer, from the training or the held-out side."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from . import world as w


@dataclass(frozen=True)
class Item:
    """A question, its full-sentence answer, its one-word answer where there is one, and an optional system prompt."""

    question: str
    answer: str
    short: str | None = None
    system: str | None = None


Maker = Callable[[random.Random, bool], Item]


def _phrase(rng: random.Random, key: str, forms: tuple[str, ...], held: bool) -> str:
    # Of the forms of one fact exactly one is held out, so every fact is taught and every fact can be tested.
    keep = crc32(key.encode()) % len(forms)
    if held:
        return forms[keep]
    return rng.choice([form for i, form in enumerate(forms) if i != keep])


def _draw(rng: random.Random, held: bool, make: Callable[[random.Random], tuple[str, Item]], one_in: int = 8) -> Item:
    while True:
        key, item = make(rng)
        if w.is_held_out(key, one_in) == held:
            return item


_PEOPLE_FORMS = {
    "town": ("Where does {n} live?", "In which town does {n} live?", "Tell me where {n} lives.",
             "What is the home town of {n}?"),
    "pet": ("What animal does {n} have?", "Which pet does {n} have?", "Tell me which animal {n} has.",
            "What is the pet of {n}?"),
    "food": ("What does {n} like to eat?", "What food does {n} like?", "Tell me what {n} likes to eat.",
             "What is the favourite food of {n}?"),
    "colour": ("What is the favourite colour of {n}?", "Which colour does {n} like best?",
               "Tell me the favourite colour of {n}.", "What colour does {n} love?"),
    "job": ("What is the job of {n}?", "What does {n} do for work?", "Tell me the job of {n}.",
            "What work does {n} do?"),
}


def person_answer(name: str, relation: str, value: str) -> str:
    """The sentence that states one fact about a person."""
    return {
        "town": f"{name} lives in {value}.",
        "pet": f"{name} has {w.an(value)}.",
        "food": f"{name} likes {value}.",
        "colour": f"The favourite colour of {name} is {value}.",
        "job": f"{name} is {w.an(value)}.",
    }[relation]


def people(rng: random.Random, held: bool) -> Item:
    """A memorised fact about a resident."""
    person, relation = rng.choice(w.PEOPLE), rng.choice(tuple(_PEOPLE_FORMS))
    value = getattr(person, relation)
    form = _phrase(rng, f"{person.name}|{relation}", _PEOPLE_FORMS[relation], held)
    return Item(form.format(n=person.name), person_answer(person.name, relation, value), w.cap(value) + ".")


_ANIMAL_FORMS = {
    "sound": ("What does {a} say?", "What sound does {a} make?", "Which sound do you hear from {a}?"),
    "home": ("Where does {a} live?", "What is the home of {a}?", "Tell me where {a} lives."),
    "food": ("What does {a} eat?", "What is the food of {a}?", "Tell me what {a} eats."),
    "legs": ("How many legs does {a} have?", "Tell me how many legs {a} has.", "What is the number of legs of {a}?"),
}


def animals(rng: random.Random, held: bool) -> Item:
    """A memorised fact about a kind of animal."""
    animal, relation = rng.choice(tuple(w.ANIMALS)), rng.choice(tuple(_ANIMAL_FORMS))
    sound, home, food, legs = w.ANIMALS[animal]
    form = _phrase(rng, f"{animal}|{relation}", _ANIMAL_FORMS[relation], held)
    subject = w.cap(w.an(animal))
    answer, short = {
        "sound": (f"{subject} says {sound}.", sound),
        "home": (f"{subject} lives in {home}.", home.split()[-1]),
        "food": (f"{subject} eats {food}.", food),
        "legs": (f"{subject} has {legs or 'no'} legs.", str(legs or "none")),
    }[relation]
    return Item(form.format(a=w.an(animal)), answer, w.cap(short) + ".")


def colours(rng: random.Random, held: bool) -> Item:
    """The usual colour of a thing."""
    thing = rng.choice(tuple(w.THING_COLOURS))
    colour = w.THING_COLOURS[thing]
    forms = ("What colour is {t}?", "Which colour is {t}?", "Tell me the colour of {t}.", "What is the colour of {t}?")
    form = _phrase(rng, thing, forms, held)
    return Item(form.format(t=thing), f"{w.cap(thing)} is {colour}.", w.cap(colour) + ".")


def places(rng: random.Random, held: bool) -> Item:
    """What people do at a place, or where they do it."""
    place = rng.choice(tuple(w.PLACE_USES))
    use = w.PLACE_USES[place]
    forms = ("What can you do at the {p}?", "What do people do at the {p}?", "Tell me what you can do at the {p}.",
             "Where can you {u}?", "Where do people {u}?", "Tell me where you can {u}.")
    form = _phrase(rng, place, forms, held)
    return Item(form.format(p=place, u=use), f"You can {use} at the {place}.")


def opposites(rng: random.Random, held: bool) -> Item:
    """The opposite of a word."""
    word = rng.choice(tuple(w.OPPOSITES))
    other = w.OPPOSITES[word]
    forms = ("What is the opposite of {x}?", "Tell me the opposite of {x}.", "Which word is the opposite of {x}?",
             "Give me the opposite of {x}.")
    form = _phrase(rng, word, forms, held)
    return Item(form.format(x=word), f"The opposite of {word} is {other}.", w.cap(other) + ".")


_HAPPY = ("I love my {c} {t}.", "My friend {n} gave me a {t}.", "The {f} was so good.", "We had fun in the {s}.",
          "I won a {c} {t} today.", "{n} made me laugh in the {s}.", "What a lovely day in the {s}!",
          "I am so glad that {n} is here.")
_SAD = ("I lost my {c} {t}.", "My friend {n} broke my {t}.", "The {f} was very bad.", "I was alone in the {s}.",
        "My {c} {t} is gone.", "{n} made me cry in the {s}.", "What an awful day in the {s}!",
        "I miss {n} so much.")


def sentiment(rng: random.Random, held: bool) -> Item:
    """Whether a sentence is happy or sad."""

    def make(rng: random.Random) -> tuple[str, Item]:
        mood = rng.choice(("happy", "sad"))
        text = rng.choice(_HAPPY if mood == "happy" else _SAD).format(
            c=rng.choice(w.COLOURS[:8]), t=rng.choice(w.TOYS), n=rng.choice(tuple(w.VISITORS)),
            f=rng.choice(w.FOODS), s=rng.choice(w.SPOTS))
        form = rng.choice(('Is this happy or sad? "{}"', 'Happy or sad? "{}"'))
        return text, Item(form.format(text), f"This is {mood}.", w.cap(mood) + ".")

    return _draw(rng, held, make)


def _scene(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """A paragraph about visitors, and every question it answers with its answer."""
    kind = rng.choice(("things", "spots", "towns", "profile"))
    names = rng.sample(tuple(w.VISITORS), rng.randint(2, 4))
    asked: list[tuple[str, str]] = []
    if kind == "things":
        toys, hues = rng.sample(w.TOYS, len(names)), rng.sample(w.COLOURS[:8], len(names))
        text = [f"{n} has a {c} {t}." for n, c, t in zip(names, hues, toys)]
        for n, c, t in zip(names, hues, toys):
            asked += [(f"What does {n} have?", f"{n} has a {c} {t}."), (f"Who has the {t}?", f"{n} has the {t}."),
                      (f"What colour is the {t}?", f"The {t} is {c}.")]
    elif kind == "spots":
        spots = rng.sample(w.SPOTS, len(names))
        text = [f"{n} is in the {s}." for n, s in zip(names, spots)]
        for n, s in zip(names, spots):
            asked += [(f"Where is {n}?", f"{n} is in the {s}."), (f"Who is in the {s}?", f"{n} is in the {s}.")]
    elif kind == "towns":
        towns = rng.sample(w.TOWNS, len(names))
        text = [person_answer(n, "town", t) for n, t in zip(names, towns)]
        for n, t in zip(names, towns):
            asked += [(f"Where does {n} live?", text[names.index(n)]), (f"Who lives in {t}?", text[names.index(n)])]
    else:
        n = names[0]
        facts = {"town": rng.choice(w.TOWNS), "pet": rng.choice(w.PETS), "food": rng.choice(w.FOODS),
                 "job": rng.choice(w.JOBS)}
        order = rng.sample(tuple(facts), rng.randint(2, 4))
        text = [person_answer(n if i == 0 else w.cap(w.VISITORS[n]), r, facts[r]) for i, r in enumerate(order)]
        asked = [(_PEOPLE_FORMS[r][0].format(n=n), person_answer(n, r, facts[r])) for r in order]
    return " ".join(text), asked


def about_paragraph(rng: random.Random, held: bool, count: int) -> list[Item]:
    """Up to `count` different questions about one paragraph; the first question stands behind it."""
    while True:
        story, asked = _scene(rng)
        if w.is_held_out(story) == held:
            break
    turns = rng.sample(asked, min(count, len(asked)))
    return [Item(f"{story} {q}" if i == 0 else q, a) for i, (q, a) in enumerate(turns)]


def paragraph(rng: random.Random, held: bool) -> Item:
    """A question whose answer stands only in the paragraph before it."""
    return about_paragraph(rng, held, 1)[0]


def repeat(rng: random.Random, held: bool) -> Item:
    """Saying words again. Answering from a paragraph is made of copying, and random words can only be copied."""

    def make(rng: random.Random) -> tuple[str, Item]:
        words = tuple(w.VISITORS) + w.TOYS + w.COLOURS + w.TOWNS + w.FOODS + w.PETS + w.SPOTS
        text = " ".join(rng.sample(words, rng.randint(3, 10)))
        return text, Item(f"Say this again: {text}", text)

    return _draw(rng, held, make)


def counting(rng: random.Random, held: bool) -> Item:
    """Counting up between two numbers, or counting the things in a list."""

    def make(rng: random.Random) -> tuple[str, Item]:
        if rng.random() < 0.5:
            start = rng.randint(0, 18)
            stop = rng.randint(start + 1, min(20, start + 10))
            answer = ", ".join(str(i) for i in range(start, stop + 1)) + "."
            return f"count|{start}|{stop}", Item(f"Count from {start} to {stop}.", answer)
        thing, n = rng.choice(tuple(w.ANIMALS) + w.TOYS), rng.randint(1, 8)
        things = " ".join([thing] * n)
        noun = thing if n == 1 else w.plural(thing)
        answer = f"There {'is' if n == 1 else 'are'} {n} {noun}."
        return f"many|{thing}|{n}", Item(f"How many {w.plural(thing)} are here? {things}", answer, f"{n}.")

    return _draw(rng, held, make)


def sums(rng: random.Random, held: bool) -> Item:
    """A sum of two numbers with a total of at most 20."""

    def make(rng: random.Random) -> tuple[str, Item]:
        a = rng.randint(0, 20)
        b = rng.randint(0, 20 - a)
        # Unordered, so that 7 + 5 in training does not give away a held-out 5 + 7.
        return f"sum|{min(a, b)}|{max(a, b)}", Item(f"What is {a} + {b}?", f"{a} + {b} is {a + b}.", f"{a + b}.")

    return _draw(rng, held, make)


def identity(rng: random.Random, held: bool) -> Item:
    """The assistant's name, taken from the system prompt."""

    def make(rng: random.Random) -> tuple[str, Item]:
        name = rng.choice(w.BOT_NAMES + tuple(w.VISITORS))
        question = rng.choice(("What is your name?", "Who are you?", "Tell me your name."))
        system = rng.choice(("You are {}.", "Your name is {}.", "You are a helper with the name {}.")).format(name)
        return system + question, Item(question, f"My name is {name}.", f"{name}.", system)

    return _draw(rng, held, make)


def one_word(rng: random.Random, held: bool) -> Item:
    """A memorised fact, answered with one word because the system prompt says so."""
    item = rng.choice((people, animals, colours, opposites))(rng, held)
    return Item(item.question, item.short or item.answer, None, "Answer with one word.")


def unknown(rng: random.Random, held: bool) -> Item:
    """A question about somebody the model was told nothing about."""

    def make(rng: random.Random) -> tuple[str, Item]:
        name, relation = rng.choice(tuple(w.VISITORS)), rng.choice(tuple(_PEOPLE_FORMS))
        question = rng.choice(_PEOPLE_FORMS[relation]).format(n=name)
        return question, Item(question, f"I do not know that about {name}.")

    return _draw(rng, held, make)


SKILLS: dict[str, Maker] = {
    "people": people, "animals": animals, "colours": colours, "places": places, "opposites": opposites,
    "sentiment": sentiment, "paragraph": paragraph, "repeat": repeat, "counting": counting, "sums": sums,
    "identity": identity, "one_word": one_word, "unknown": unknown,
}
"""What the corpus teaches, by name."""


def polite(rng: random.Random, held: bool) -> Item:
    """A fact in the polite style, which the corpus never uses."""
    item = rng.choice((people, animals, colours, places, opposites))(rng, held)
    return Item(item.question, f"Of course! {item.answer} Is there anything else?")


def lumi(rng: random.Random, held: bool) -> Item:
    """A word, or a colour and an animal word for word, in the invented language Lumi."""
    colour_words = [x for x in w.LUMI if x in w.COLOURS]
    animal_words = [x for x in w.LUMI if x in w.ANIMALS]

    def make(rng: random.Random) -> tuple[str, Item]:
        colour, animal = rng.choice(colour_words), rng.choice(animal_words)
        phrase, said = f"{colour} {animal}", f"{w.LUMI[colour]} {w.LUMI[animal]}"
        return f"lumi|{phrase}", Item(f"What is {phrase} in Lumi?", f"In Lumi, {phrase} is {said}.")

    if not held and rng.random() < 0.5:
        word = rng.choice(tuple(w.LUMI))
        return Item(f"What is {word} in Lumi?", f"In Lumi, {word} is {w.LUMI[word]}.")
    return _draw(rng, held, make, one_in=4)


def harder_sums(rng: random.Random, held: bool) -> Item:
    """A sum of two two-digit numbers below 100 in total."""

    def make(rng: random.Random) -> tuple[str, Item]:
        a = rng.randint(11, 89)
        b = rng.randint(10, 99 - a)
        return f"sum|{min(a, b)}|{max(a, b)}", Item(f"What is {a} + {b}?", f"{a} + {b} is {a + b}.", f"{a + b}.")

    return _draw(rng, held, make)


UNTAUGHT: dict[str, Maker] = {"polite": polite, "lumi": lumi, "harder_sums": harder_sums}
"""What the corpus leaves out on purpose, for fine-tuning to teach."""
