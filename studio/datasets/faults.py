"""Faults inside a text: found, and mended. The doctor finds with them what filter and repair put right."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np

from studio.datasets.cells import ends_whole, is_mojibake
from studio.datasets.convert import Reject, normalise
from studio.datasets.language import language
from studio.datasets.roles import Detected
from studio.datasets.texts import Row, answer, calls_tool, texts_of

# Markers of chat templates: ChatML, Llama 2/3/4, Gemma, Phi, Mistral, DeepSeek, Command R, and headings of plain prompts.
SPECIAL = re.compile(
    r"<\|/?[A-Za-z][\w ]{1,38}\|>|</?s>|<(?:unk|pad|bos|eos)>|\[/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS)\]|<</?SYS>>|"
    r"<(?:start|end)_of_turn>|<｜[^｜<>]{1,40}｜>|"
    r"(?:^|\n)#{2,3} ?(?:Response|Instruction|Input|Assistant|Human|User):[ \t]*")
# Sentences that try to turn a model against its instructions (OWASP LLM01), and letters that nobody can see.
INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,30}\b(?:previous|prior|above|earlier|all|any|your|system)\b"
    r"[^.\n]{0,30}\b(?:instruction|prompt|rule|direction|guideline|message|training)s?\b"
    r"|\b(?:reveal|print|repeat|show|output|leak|tell me)\b[^.\n]{0,30}\b(?:(?:system|developer) ?(?:prompt|message|"
    r"instruction)|(?:initial|hidden|secret) (?:prompt|instruction))s?\b"
    r"|\byou are (?:now )?(?:DAN|in developer mode|jailbroken|an? unrestricted|an? unfiltered)\b|\bDo Anything Now\b"
    r"|\b(?:pretend|act as if|imagine)\b[^.\n]{0,30}\b(?:no|without(?: any)?) (?:rules|restrictions|limits|filters|guidelines)\b"
    r"|\bignorier\w*\b[^.\n]{0,40}\b(?:anweisung|vorgabe)\w*|\bignor\w+\b[^.\n]{0,40}\b(?:instrucciones|instructions) "
    r"(?:anteriores|précédentes)\b|(?:^|\n)\s*(?:system|assistant) ?: ?you\b|[\U000E0020-\U000E007F]", re.IGNORECASE)
_INJECTING = ("ignor", "disregard", "forget", "override", "bypass", "reveal", "print", "repeat", "show", "output", "leak",
              "tell me", "you are", "do anything", "pretend", "act as if", "imagine", "system", "assistant")
_ROLE_LINE = re.compile(r"<\|im_start\|>[ \t]*(?:system|user|assistant|tool)?[ \t]*\n?|<\|start_header_id\|>\w{0,20}"
                        r"<\|end_header_id\|>\s*|<start_of_turn>(?:user|model)?[ \t]*\n?")
_SENTENCE = re.compile(r"""(?:[.!?…]["'”’»)\]*`]*(?=\s|$)|[。！？]["'”’»」』）]*)""")
_CHAT = Detected("messages", {"messages": "messages"}, [], columns=["messages"])
_CHAR_RUN = re.compile(r"([^\s\-=_.*#~+|─━═])\1{29,}")
LEAST, TIMES, WORDS = 40, 3, 12  # a repeated stretch: letters in all, times in a row, words in all
PERIOD = 200  # words of one repeated piece, at most
# A text does not end with one of these.
_OPEN = set("the a an of to and or in on at by for with from as that which who is are was were be been has have had will would can "
            "could should not my your his her its our their this these those because if but so than into der die das ein eine und oder "
            "mit von zu ist sind le la les un une et ou de des du el los las una y o con que es".split())
_POINT = re.compile(r"\s*(?:\d{1,3}[.)]|[-*•–])\s")  # of a list
SIDE = 40  # characters from which a side of a row is long enough to tell its language
CODE = 0.12  # share of symbols from which a text is code or sums, which are of no language


def has_special(row: Row) -> str | None:
    """A text of the row with a leaked marker."""
    return next((text for _, text in texts_of(row) if SPECIAL.search(text)), None)


def strip_special(text: str) -> str:
    """A text without the markers of chat templates."""
    if not SPECIAL.search(text):
        return text
    made = SPECIAL.sub(lambda m: "\n" if m[0].startswith("\n") else "", _ROLE_LINE.sub("", text))
    return re.sub(r"\n{3,}", "\n\n", made).strip()


def is_broken(text: str) -> bool:
    """Looks like text whose bytes were once read in the wrong encoding."""
    return is_mojibake(text)


def broken_at(text: str) -> int:
    """Where the first broken character stands."""
    return next((i for i in range(len(text)) if is_mojibake(text[i:i + 3])), 0)


def mend_encoding(text: str) -> str:
    """Broken characters put right where that can be done (ftfy); replacement characters, which say nothing, are removed."""
    if not is_broken(text):
        return text
    import ftfy

    config = ftfy.TextFixerConfig(unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False,
                                  fix_character_width=False, normalization=None, explain=False)
    made = ftfy.fix_text(text, config)
    if is_broken(made):  # beyond mending: the bytes are lost
        made = re.sub("\ufffd+", "", made)
    return made


def spaced(text: str) -> str:
    """No blanks at the ends of lines, no more than one empty line, no invisible characters."""
    made = re.sub("[\u200b\u2060\ufeff\u00ad\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text.replace("\r\n", "\n").replace("\r", "\n"))
    made = re.sub(r"[ \t\u00a0]+\n", "\n", made)
    return re.sub(r"\n{3,}", "\n\n", made).strip()


def repeated(text: str) -> tuple[int, int] | None:
    """(start, end) of what can be cut where a piece follows itself at least twice more, as a model does that got stuck:
    everything between the first and the last of the pieces. ``None`` if there is none.
    """
    if run := _CHAR_RUN.search(text):
        return run.start() + 3, run.end()
    if len(text) < LEAST:
        return None
    words = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    if len(words) >= WORDS:
        names: dict[str, int] = {}
        ids = np.array([names.setdefault(w.lower(), len(names)) for w, _, _ in words], np.int32)
        if len(words) - len(names) >= WORDS * (TIMES - 1) // TIMES and (hit := _stretch(ids, WORDS)):
            start, period, length = hit
            piece = "".join(w for w, _, _ in words[start:start + period])
            if len(piece) * (length // period) >= LEAST and sum(map(str.isalpha, piece)) * 2 >= len(piece):
                return words[start + period - 1][2], words[start + length - 1][2]
    if len(words) < len(text) / 20:  # scripts without spaces
        ids = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        if (hit := _stretch(ids, LEAST)) and any(map(str.isalpha, text[hit[0]:hit[0] + hit[1]])):
            return hit[0] + hit[1], hit[0] + hit[2]
    return None


def _stretch(ids: np.ndarray, least: int) -> tuple[int, int, int] | None:
    """(start, period, length) of the first stretch of at least ``least`` ids in which a piece follows itself."""
    for period in range(1, min(PERIOD, len(ids) // TIMES) + 1):
        equal = ids[period:] == ids[:-period]
        wanted = max(least, period * TIMES) - period
        edges = np.flatnonzero(np.diff(np.concatenate(([0], equal.view(np.int8), [0]))))
        lengths = edges[1::2] - edges[::2]
        long = np.flatnonzero(lengths >= wanted)
        if len(long):
            start, length = int(edges[::2][long[0]]), int(lengths[long[0]]) + period
            return start, period, length - length % period
    return None


def cut_repeated(text: str) -> str:
    """A text in which every stuck piece stands once."""
    for _ in range(50):
        hit = repeated(text)
        if hit is None:
            break
        text = text[:hit[0]] + text[hit[1]:]
    return text.strip()


def quickly_repeats(text: str) -> bool:
    """Cheap first look: might :func:`repeated` find something?"""
    if len(text) < LEAST:
        return False
    words = text.lower().split()
    if len(words) - len(set(words)) >= WORDS * (TIMES - 1) // TIMES:
        return True
    return len(words) < len(text) / 20 or bool(_CHAR_RUN.search(text))


def unfinished(row: Row) -> bool:
    """The last answer ends in the middle of a sentence."""
    if "text" in row or "label" in row or calls_tool(row):
        return False
    return not ends_well(answer(row))


def ends_well(text: str) -> bool:
    """Ends like a finished text. Short last lines do too: a signature, a point of a list, a last line of code, a yes."""
    text = text.rstrip()
    if ends_whole(text):
        return True
    before, _, last = text.rpartition("\n")
    words = last.split()
    if not words or unicodedata.category(text[-1]) in ("So", "Sk", "Mn", "Cf", "Sc"):  # an emoji
        return bool(words)
    if words[-1].lower() in _OPEN:
        return False
    if before and _POINT.match(last):
        return True
    return len(words) <= (5 if before else 3) and (last.isascii() or len(last) <= 12) or words[-1].startswith(("http", "www.", "#"))


def whole_sentences(text: str) -> str:
    """A text up to the end of its last whole sentence; empty if it has none."""
    if ends_well(text):
        return text
    ends = [m.end() for m in _SENTENCE.finditer(text)]
    made = text[:ends[-1]].rstrip() if ends else ""
    fences = made.count("```")
    return made if fences % 2 == 0 else made[:made.rfind("```")].rstrip()


def with_answer(row: Row, text: str) -> Row:
    """The row with another text in its last answer."""
    made = dict(row)
    key = "messages" if "messages" in row else "completion" if "completion" in row else "chosen"
    if isinstance(row[key], str):
        made[key] = text
        return made
    turns = list(row[key])
    last = max(i for i, m in enumerate(turns) if m["role"] == "assistant")
    turns[last] = {**turns[last], "content": text}
    made[key] = turns
    return made


def ordered(row: Row) -> Row | str | None:
    """The row with its roles in an order that every chat template takes; the reason (a key of
    :data:`studio.datasets.convert.REJECTS`) where there is none; ``None`` where the order is right already.
    """
    sides = [side for side in ("completion", "chosen", "rejected") if side in row]
    if "messages" in row:
        made = _conversation(row["messages"])
        return made if isinstance(made, str) else None if made is None else {**row, "messages": made}
    if "text" in row or not isinstance(row["prompt"], list) or not all(isinstance(row[side], list) for side in sides):
        return None
    mended = {side: _conversation(row["prompt"] + row[side]) for side in sides}
    if bad := next((made for made in mended.values() if isinstance(made, str)), None):
        return bad
    if not any(mended.values()):
        return None
    whole = {side: made or row["prompt"] + row[side] for side, made in mended.items()}
    first, *others = whole.values()
    if any(other[:-1] != first[:-1] for other in others):
        return "no_pair"
    return {**row, "prompt": first[:-1], **{side: made[-1:] for side, made in whole.items()}}


def _conversation(turns: list[Row]) -> list[Row] | str | None:
    """Turns put in order, the reason why they cannot be, or ``None`` for nothing to do."""
    roles = [m.get("role") for m in turns]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if talk and talk[::2].count("user") == talk[1::2].count("assistant") == len(talk) / 2 \
            and all(isinstance(m.get("content"), str) and m["content"].strip() for m in turns):
        return None  # as nearly all are
    made = normalise({"messages": turns}, _CHAT)
    if isinstance(made, Reject):
        return made.reason
    same = [(m["role"], m["content"]) for m in made["messages"]] == [(m.get("role"), m.get("content") or "") for m in turns]
    return None if same else made["messages"]


def is_injection(row: Row) -> str | None:
    """A message of the user, or something given to the model to read, that tries to turn it against its instructions."""
    for role, text in texts_of(row):
        if role in ("user", "tool") and injects(text):
            return text
    return next((text for text in row.get("contexts") or [] if injects(text)), None)


def injects(text: str) -> bool:
    """Tries to turn a model against its instructions."""
    low = text.lower()
    return (not text.isascii() or any(word in low for word in _INJECTING)) and bool(INJECTION.search(text))


def empty_part(row: Row) -> bool:
    """A message without text that calls no tool either."""
    if "messages" in row or any(isinstance(row.get(side), list) for side in ("prompt", "completion", "chosen", "rejected")):
        turns: list[Any] = []
        for key in ("messages", "prompt", "completion", "chosen", "rejected"):
            value = row.get(key)
            turns += value if isinstance(value, list) else [{"content": value}] if key in row else []
        return not turns or any(not (m.get("content") or "").strip() and not m.get("tool_calls") for m in turns)
    return any(not text.strip() for _, text in texts_of(row))


def languages_differ(row: Row) -> tuple[str, str] | None:
    """(language of the question, of the answer) where both are long enough to tell and differ."""
    if "text" in row:
        return None
    sides = ["", ""]
    for role, text in texts_of(row):
        if role in ("user", "assistant"):
            sides[role == "assistant"] += " " + text
    if min(map(len, sides)) < SIDE or max(map(symbol_share, sides)) > CODE:
        return None
    found = language(sides[0]), language(sides[1])
    return found if all(found) and found[0] != found[1] else None


def symbol_share(text: str) -> float:
    """Share of characters that are no letter, digit or space (Gopher's rule against markup: arXiv 2112.11446)."""
    if not text:
        return 0.0
    return 1 - len(re.sub(r"[^\w\s]|_", "", text)) / len(text)


def repetition_share(text: str, n: int = 4) -> float:
    """Share of the words that stand in a run of ``n`` words that was there before (Gopher: arXiv 2112.11446)."""
    words = text.lower().split()
    if len(words) < 2 * n:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    covered = bytearray(len(words))
    for i in range(len(words) - n + 1):
        gram = tuple(words[i:i + n])
        if gram in seen:
            covered[i:i + n] = b"\x01" * n
        seen.add(gram)
    return sum(covered) / len(words)
