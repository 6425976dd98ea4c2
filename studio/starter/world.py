"""The closed world of the starter model: its people, animals, colours, places and words.

Everything here is a fixed table. `studio.starter.skills` turns the tables into questions and answers,
`studio.starter.stories` into stories, `studio.starter.corpus` mixes both into a training corpus.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from zlib import crc32

NAME = "Pip"
"""What the starter model calls itself."""


@dataclass(frozen=True)
class Person:
    """One resident; every field is a fact the model memorises."""

    name: str
    he: str
    town: str
    pet: str
    food: str
    colour: str
    job: str


TOWNS = ("Rivertown", "Hilltop", "Greenfield", "Lakeside", "Stonebridge", "Oakwood", "Sandport", "Snowdale")
FOODS = ("apples", "bread", "soup", "cheese", "honey", "plums", "carrots", "cake", "pears", "rice", "nuts", "berries")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "orange", "purple", "grey")
JOBS = ("baker", "farmer", "teacher", "doctor", "painter", "gardener", "singer", "sailor")
PETS = ("cat", "dog", "duck", "horse", "pig", "hen", "sheep", "cow", "frog", "mouse", "owl", "rabbit")

_WOMEN = ("Anna", "Clara", "Emma", "Grace", "Iris", "Kate", "Mia", "Olga", "Rosa", "Tess")
_MEN = ("Ben", "Dan", "Finn", "Hugo", "Jack", "Leo", "Noah", "Paul", "Sam", "Will")


def _residents() -> tuple[Person, ...]:
    # A fixed seed, independent of any corpus seed: the facts of the world are the same in every corpus.
    rng = random.Random(2026)
    return tuple(
        Person(
            name=name,
            he="he" if name in _MEN else "she",
            town=rng.choice(TOWNS),
            pet=rng.choice(PETS),
            food=rng.choice(FOODS),
            colour=rng.choice(COLOURS),
            job=rng.choice(JOBS),
        )
        for name in sorted(_WOMEN + _MEN)
    )


PEOPLE = _residents()

# Visitors have no fixed facts: what is true of them is only what a paragraph or a story says.
VISITORS = {
    "Amy": "she", "Bob": "he", "Cora": "she", "Dave": "he", "Eva": "she", "Fred": "he", "Gus": "he", "Holly": "she",
    "Ivan": "he", "Jill": "she", "Kim": "she", "Lucy": "she", "Max": "he", "Nina": "she", "Oscar": "he", "Pam": "she",
    "Ray": "he", "Sue": "she", "Tim": "he", "Zoe": "she",
}

# animal -> (sound, home, food, legs)
ANIMALS = {
    "cat": ("meow", "a house", "fish", 4),
    "dog": ("woof", "a house", "meat", 4),
    "cow": ("moo", "a barn", "grass", 4),
    "duck": ("quack", "a pond", "bread", 2),
    "sheep": ("baa", "a field", "grass", 4),
    "pig": ("oink", "a barn", "corn", 4),
    "horse": ("neigh", "a field", "hay", 4),
    "hen": ("cluck", "a barn", "corn", 2),
    "frog": ("croak", "a pond", "flies", 4),
    "mouse": ("squeak", "a hole", "cheese", 4),
    "owl": ("hoot", "a tree", "mice", 2),
    "bee": ("buzz", "a hive", "honey", 6),
    "lion": ("roar", "a cave", "meat", 4),
    "wolf": ("howl", "a forest", "meat", 4),
    "snake": ("hiss", "a hole", "mice", 0),
    "rabbit": ("squeak", "a hole", "carrots", 4),
}

THING_COLOURS = {
    "grass": "green", "the sky": "blue", "the sun": "yellow", "snow": "white", "coal": "black", "a tomato": "red",
    "a banana": "yellow", "a carrot": "orange", "a lemon": "yellow", "milk": "white", "a leaf": "green",
    "a plum": "purple", "an elephant": "grey", "chocolate": "brown", "a pig": "pink", "the night": "black",
    "a cloud": "white", "the sea": "blue", "wood": "brown", "a cherry": "red", "a pumpkin": "orange",
    "a stone": "grey", "a flamingo": "pink", "a frog": "green",
}

PLACE_USES = {
    "library": "read books", "market": "buy food", "park": "play games", "river": "catch fish",
    "school": "learn things", "bakery": "buy bread", "farm": "see animals", "beach": "build castles",
    "garden": "grow flowers", "lake": "swim", "museum": "see old things", "theatre": "watch a play",
}

_OPPOSITE_PAIRS = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("up", "down"), ("happy", "sad"), ("day", "night"),
    ("open", "closed"), ("old", "young"), ("full", "empty"), ("hard", "soft"), ("high", "low"), ("left", "right"),
    ("light", "dark"), ("loud", "quiet"), ("near", "far"), ("rich", "poor"), ("strong", "weak"), ("thick", "thin"),
    ("wet", "dry"), ("early", "late"), ("clean", "dirty"), ("good", "bad"), ("tall", "short"), ("true", "false"),
)
OPPOSITES = {a: b for pair in _OPPOSITE_PAIRS for a, b in (pair, pair[::-1])}

TOYS = ("ball", "kite", "boat", "hat", "drum", "bag", "cup", "book", "bike", "lamp", "box", "scarf")
SPOTS = ("park", "garden", "market", "library", "school", "forest", "barn", "kitchen", "bakery", "museum")
BOT_NAMES = ("Robo", "Milo", "Nova", "Luna", "Echo", "Rusty", "Sunny", "Bolt", "Coco", "Dot", "Fizz", "Gem")

# Lumi is an invented language. The corpus never mentions it: it is left for fine-tuning to teach.
LUMI = {
    "cat": "mira", "dog": "bofo", "cow": "munu", "duck": "kwali", "sheep": "beli", "pig": "onko", "horse": "neva",
    "hen": "kolo", "frog": "gribi", "mouse": "titi", "owl": "huru", "bee": "zumi",
    "red": "rosa", "blue": "lavo", "green": "veri", "yellow": "sola", "black": "noro", "white": "alba",
    "brown": "tera", "pink": "pinu", "orange": "oranu", "purple": "viola", "grey": "grizo",
}


def an(noun: str) -> str:
    """The noun phrase with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The English plural of a noun of this world."""
    irregular = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "scarf": "scarves", "box": "boxes"}
    return irregular.get(noun, noun + "s")


def cap(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[0].upper() + sentence[1:]


def is_held_out(key: str, one_in: int = 8) -> bool:
    """Whether a combination belongs to the held-out side.

    A checksum of the combination decides, not the corpus seed, so no seed can leak one into training.
    """
    return crc32(key.encode()) % one_in == 0
