"""Reading what models write, and comparing texts: sections, lists, refusals, overlap, ROUGE-L, duplicates."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['’][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ITEM = re.compile(r"^\s*(?:[-*•‣]|\(?\d{1,3}[.):\]]|[a-z][.)])\s+(.*)$", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»", "`": "`"}
_REFUSAL = re.compile(
    r"^\W*(?:(?:i['’]?m|i am|we are|we['’]re)\s+(?:very |so |really |deeply )?(?:sorry|afraid|unable)\b"
    r"|sorry,?\s+(?:but\s+)?(?:i|we)\b|i\s+(?:apologi[sz]e|regret)\b"
    r"|(?:i|we)\s+(?:can['’]?t|cannot|can not|won['’]?t|will not|am not able to|['’]m not able to|must decline|do not "
    r"feel)\s(?!\w*\s*(?:wait|help but|stress|believe|say enough))"
    r"|as an?\s+(?:ai|artificial|large language|language)\b)", re.IGNORECASE)
# words that say nothing about what a sentence is about
STOP = frozenset((
    "a about after all also am an and any are as at be because been before being but by can could did do does doing "
    "down during each for from further had has have having he her here hers him his how i if in into is it its just "
    "me more most my no nor not now of off on once only or other our out over own same she should so some such than "
    "that the their them then there these they this those through to too under until up very was we were what when "
    "where which while who whom why will with would you your yes according text says said sure certainly course "
    "please thanks thank glad happy help hope let anything else something know welcome").split())


def words(text: str) -> list[str]:
    """Words in small letters; in scripts without spaces every character is one."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def plain(text: str) -> str:
    """A text that equals another if only case, punctuation and spaces differ."""
    return " ".join(words(text)) or text.strip()


def refuses(text: str) -> bool:
    """The answer begins as those do that decline the task."""
    return bool(_REFUSAL.match(text[:200]))


def only_filler(text: str) -> bool:
    """Nothing but punctuation and words without content."""
    return not any(word not in STOP for word in words(text))


def repeats(text: str) -> bool:
    """The text runs in circles: one stretch of words makes up most of its end."""
    found = words(text)
    for size in (1, 2, 3, 4, 6, 8, 12):
        tail = found[-size * 6:]
        if len(tail) == size * 6 and len(set(zip(*[iter(tail)] * size, strict=True))) == 1:
            return True
    return False


def sections(text: str, *names: str) -> dict[str, str] | None:
    """Parts of a text that stand under ``NAME:`` (or as XML tags, headings or a JSON object); ``None`` if one is
    missing."""
    if (data := json_in(text)) is not None and isinstance(data, dict):
        low = {str(key).lower(): value for key, value in data.items()}
        if all(isinstance(low.get(name.lower()), (str, int, float)) and str(low[name.lower()]).strip()
               for name in names):
            return {name: str(low[name.lower()]).strip() for name in names}
    tagged = {name: re.search(rf"<{name}>\s*(.*?)\s*</{name}>", text, re.IGNORECASE | re.DOTALL) for name in names}
    if all(tagged.values()):
        return {name: match[1] for name, match in tagged.items() if match}
    one = "|".join(map(re.escape, names))
    head = re.compile(rf"^[\s#*_>\-]*(?:\d+[.)]\s*)?({one})\b[\s*_]*(?::[*_]*|\n|(?<=[*_])$)",
                      re.IGNORECASE | re.MULTILINE)
    found: dict[str, str] = {}
    places = list(head.finditer(text))
    for number, match in enumerate(places):
        end = places[number + 1].start() if number + 1 < len(places) else len(text)
        name = next(name for name in names if name.lower() == match[1].lower())
        found.setdefault(name, text[match.end():end].strip())
    return found if all(found.get(name) for name in names) else None


def json_in(text: str) -> Any:
    """The first JSON object or list in a text, perhaps in a code block; ``None`` if there is none."""
    if block := re.search(r"```(?:json)?\s*(.*?)```", text, re.DOTALL):
        text = block[1]
    for match in list(re.finditer(r"[\[{]", text))[:20]:
        try:
            return json.JSONDecoder().raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            continue
    return None


def listed(text: str, most: int = 200, longest: int = 2000) -> list[str]:
    """The items of a list that a model wrote: numbered, with dashes, as JSON, or one a line."""
    data = json_in(text) if text.lstrip()[:1] in "[`" else None
    if isinstance(data, list):
        lines = [item if isinstance(item, str) else next((v for v in item.values() if isinstance(v, str)), "")
                 if isinstance(item, dict) else str(item) for item in data]
    else:
        lines = text.splitlines()
        marked = [match[1] for line in lines if (match := _ITEM.match(line))]
        if len(marked) >= 2 or (marked and len(lines) <= 2):
            lines = marked
        else:
            lines = [line for line in lines if not line.rstrip().endswith(":")]
    items = (unquoted(line.strip().strip("*").strip()) for line in lines)
    return list(dict.fromkeys(item for item in items if item and len(item) <= longest and not only_marks(item)))[:most]


def only_marks(text: str) -> bool:
    return not any(map(str.isalnum, text))


def unquoted(text: str) -> str:
    """A text without the quotation marks around it and without a label such as ``Question:`` before it."""
    text = re.sub(r"^[\s*#_]*(?:question|instruction|prompt|user|message|task|new (?:task|instruction))\s*:[\s*_]*",
                  "", text.strip(), flags=re.IGNORECASE)
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def verdict(text: str) -> bool | None:
    """Yes or no, wherever the answer says it plainly; ``None`` if it does not."""
    found = re.findall(r"\b(yes|no)\b", text.lower())
    if not found:
        return None
    start = re.match(r"\W*(yes|no)\b", text.lower())
    return (start[1] if start else found[-1]) == "yes"


def rating(text: str, low: int = 1, high: int = 5) -> int | None:
    """A score from ``low`` to ``high``: behind ``Score:``, else the last number alone; ``None`` if there is none."""
    named = re.findall(r"(?:score|rating)\b[^\d\n]{0,20}(\d+)\b(?!\s*[-–]\s*\d)", text, re.IGNORECASE)
    numbers = named or re.findall(r"(?<![\d.])(\d+)(?:\s*/\s*\d+)?(?![\d.]*\d)", text)
    value = int(numbers[-1]) if numbers else None
    return value if value is not None and low <= value <= high else None


def support(answer: str, text: str, question: str = "") -> tuple[float, list[str]]:
    """(share of an answer's words that the text holds, numbers and names in it that the text does not hold).

    The share is that of all content words or of those that the question does not say itself, whichever is smaller.
    Words agree if they share their beginning (``live`` and ``lives``). A cheap check: it finds what comes from
    elsewhere (also from the question alone), not words of the text that are put together wrongly.
    """
    held = set(words(text))
    stems = {_stem(word) for word in held}
    content = [_stem(word) for word in words(answer) if word not in STOP]
    asked = set(map(_stem, words(question)))
    told = [word for word in content if word not in asked]  # what the question does not say itself
    share = min((sum(word in stems for word in some) / len(some) for some in (content, told) if some), default=1.0)
    numbers = {number.replace(",", "") for number in _NUMBER.findall(text)}
    strange = [number for number in _NUMBER.findall(answer) if number.replace(",", "") not in numbers]
    # the first word of a sentence is a name if it stands as one in the question
    named = {re.sub("['’]s$", "", word) for word in _names(question)}
    said = [*_names(answer), *(word for word in _WORD.findall(answer) if word in named)]
    strange += [word for word in said if word.lower() not in held and _stem(word.lower()) not in stems]
    return share, list(dict.fromkeys(strange))


def _names(text: str) -> list[str]:
    """Words in capitals that do not begin a sentence."""
    return [word for sentence in re.split(r"(?<=[.!?:])\s+|\n+", text) for word in _WORD.findall(sentence)[1:]
            if word[:1].isupper() and word != "I" and not word.startswith(("I'", "I’"))]


def _stem(word: str) -> str:
    for end in ("'s", "ing", "ies", "ied", "es", "ed", "ly", "s", "e", "y"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            return word[:-len(end)]
    return word


class Rouge:
    """Keeps texts and tells the highest ROUGE-L (F measure on words) of a new one against them.

    The longest common subsequence is worked out on bits of whole numbers: a pool of ten thousand short texts is
    compared within about 0.1 s.
    """

    def __init__(self, texts: Iterable[str] = ()):
        self._kept: list[tuple[list[str], Counter[str]]] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        found = words(text)
        self._kept.append((found, Counter(found)))

    def highest(self, text: str, enough: float = 1.0) -> float:
        """The highest score, or the first that reaches ``enough``."""
        mine = words(text)
        place: dict[str, int] = {}
        for number, word in enumerate(mine):
            place[word] = place.get(word, 0) | 1 << number
        counts, best = Counter(mine), 0.0
        for other, theirs in self._kept:
            total = len(mine) + len(other)
            if not total or 2 * min(len(mine), len(other)) / total <= best:
                continue
            if 2 * sum(min(n, theirs[word]) for word, n in counts.items() if word in theirs) / total <= best:
                continue
            best = max(best, 2 * _common(place, len(mine), other) / total)
            if best >= enough:
                break
        return best


def rouge_l(a: str, b: str) -> float:
    """ROUGE-L F measure of two texts, 0 to 1."""
    return Rouge([b]).highest(a)


def _common(place: dict[str, int], size: int, other: list[str]) -> int:
    """Length of the longest common subsequence, after Hyyrö's bit-parallel recurrence."""
    mask = (1 << size) - 1
    row = mask
    for word in other:
        if both := row & place.get(word, 0):
            row = ((row + both) | (row - both)) & mask
    return size - row.bit_count()


class Seen:
    """Texts that were taken already: exactly the same, or nearly (MinHash over words and pairs of words).

    Args:
        near: Share of words and pairs in common from which a text counts as a duplicate; 0 looks for equal ones only.
    """

    PERMUTATIONS = 128
    FEWEST = 5  # words; shorter texts are compared exactly

    def __init__(self, near: float):
        self.near = near
        self._exact: set[bytes] = set()
        self._hashes: list[Any] = []
        self._index: Any = None

    def find(self, text: str, near: bool = True) -> str:
        """How the text repeats one before it (``exact``, ``near``), or an empty string; then it is taken in."""
        import hashlib

        found = words(text)
        key = hashlib.blake2b((" ".join(found) or text).encode("utf-8", "replace"), digest_size=12).digest()
        if key in self._exact:
            return "exact"
        made = None
        if near and self.near and len(found) >= self.FEWEST:
            import rensa

            if self._index is None:
                bands = 16 if self.near >= 0.8 else 32
                self._index = rensa.RMinHashLSH(min(self.near, 0.99), self.PERMUTATIONS, bands)
            made = rensa.RMinHash(self.PERMUTATIONS, 1)
            made.update(list({*found, *map(" ".join, zip(found, found[1:], strict=False))}))
            if any(made.jaccard(self._hashes[i]) >= self.near for i in self._index.query(made)):
                return "near"
        self._exact.add(key)
        if made is not None:
            self._index.insert(len(self._hashes), made)
            self._hashes.append(made)
        return ""
