"""Personal data and secrets in a text: found by pattern, believed only where the check digits or the number plan agree.

Names and street addresses are not found: that takes a model, and this must not change what is no personal data.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

# Kind -> (placeholder, what a person calls it).
KINDS = {
    "email": ("[EMAIL]", "e-mail addresses"), "phone": ("[PHONE]", "phone numbers"), "card": ("[CARD]", "card numbers"),
    "iban": ("[IBAN]", "bank accounts (IBAN)"), "id": ("[ID]", "identity and tax numbers"),
    "ip": ("[IP]", "internet addresses (IP)"), "secret": ("[SECRET]", "keys and passwords"),
}
_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])")
# Domains that RFC 2606 keeps for examples belong to nobody.
_NOBODY = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|[\w-]+\.(?:test|example|invalid|localhost))$", re.I)
# In groups as on the card, or without a gap; sums and what comes out of them are left alone.
_CARD = re.compile(r"(?<![\d.,=+*/^-])(?<![=+*/^] )(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3\d{3}([ -]?)\d{6}\2\d{5})(?![\d]|[.,]\d| ?[=+*/^])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION = re.compile(r"(?:\bv|version|release|build|firmware|driver)\s*[:=]?\s*$", re.I)
_SECRETS = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:[^-]|-(?!----)){0,8000}-----END (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    r"|(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36,}|(?<![A-Za-z0-9])github_pat_\w{22,}|(?<![A-Za-z0-9])glpat-[\w-]{20,}"
    r"|(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}|(?<![A-Za-z0-9])sk-(?:proj-|ant-|or-v1-)?[\w-]{20,}"
    r"|(?<![A-Za-z0-9])(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|(?<![A-Za-z0-9])AIza[\w-]{35}(?![\w-])"
    r"|(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}|(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}"
    r"|(?<![A-Za-z0-9])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")  # JSON Web Tokens
_NAMED = re.compile(r"(?i)\b(?:api[_ -]?key|secret(?:[_ -]?key)?|access[_ -]?token|auth[_ -]?token|password|passwd|pwd)"
                    r"[\"']?\s*(?:[:=]|\bis\b)\s*[\"']?(?P<value>[^\s\"'<>\[\]{}(),;]{8,200})(?!\()")
# Numbers of persons whose check digits python-stdnum knows: pattern -> module.
_IDS = [(re.compile(rf"(?<![\w.-])(?:{pattern})(?![\w-])"), module) for pattern, module in (
    (r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}", "us.ssn"),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"), (r"\d{17}[\dXx]", "cn.ric"),
    (r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    (r"\d{8}-?[A-HJ-NP-TV-Z]", "es.dni"), (r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    (r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    (r"\d{4} \d{4} \d{4}", "in_.aadhaar"), (r"[A-Z]{5}\d{4}[A-Z]", "in_.pan"),
    (r"\d{6}[-+A]\d{3}[0-9A-Y]", "fi.hetu"), (r"\d{6}[-+]\d{4}", "se.personnummer"),
    (r"\d{3}-\d{3}-\d{3} \d{2}", "ru.snils"), (r"\d{2} \d{3} \d{3} \d{3}", "de.idnr"), (r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"))]
_SUM = re.compile(r"[\d=+*/<^] ?0|0 ?[=+*/^>]")  # signs of arithmetic before or behind a number
_DIGITS = re.compile(r"\d(?:[ ().\-/]{0,3}\d){6}")  # seven digits near each other: a number of any kind
_SIGNS = ("@", ":", "-----BEGIN", "sk-", "hf_", "gh", "AKIA", "ASIA", "AIza", "xox", "eyJ", "_live_", "_test_", "glpat",
          "npm_", " is ", "=")


class Found(NamedTuple):
    """One piece of personal data: ``text[start:end]``."""

    kind: str
    start: int
    end: int


def find(text: str, kinds: tuple[str, ...] = tuple(KINDS), region: str = "US") -> list[Found]:
    """Every piece of personal data in a text, from left to right, none inside another.

    Args:
        kinds: Keys of :data:`KINDS`.
        region: Country (two letters) whose national way of writing phone numbers is known besides ``+1 …``; numbers
            without a country code count only where they are written in groups. Empty: only numbers with ``+``.
    """
    digits = bool(_DIGITS.search(text))
    if not digits and not any(sign in text for sign in _SIGNS):
        return []
    made: list[Found] = []
    taken = bytearray(len(text))
    for kind in ("secret", "email", "iban", "card", "id", "ip", "phone"):  # the surer first: what it takes is taken
        if kind not in kinds or (kind in ("card", "id", "phone") and not digits):
            continue
        for start, end in _FINDERS[kind](text) if kind != "phone" else _phones(text, region):
            if not any(taken[start:end]):
                taken[start:end] = b"\x01" * (end - start)
                made.append(Found(kind, start, end))
    return sorted(made, key=lambda found: found.start)


def redacted(text: str, kinds: tuple[str, ...] = tuple(KINDS), region: str = "US",
             counts: Counter[str] | None = None) -> str:
    """A text with placeholders in place of personal data; ``counts`` gets how many of each kind."""
    parts, last = [], 0
    for found in find(text, kinds, region):
        parts += [text[last:found.start], KINDS[found.kind][0]]
        last = found.end
        if counts is not None:
            counts[found.kind] += 1
    return "".join(parts) + text[last:] if parts else text


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        yield from (m.span() for m in _EMAIL.finditer(text) if not _NOBODY.search(m[0]))


def _cards(text: str) -> Iterator[tuple[int, int]]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        number = re.sub(r"\D", "", match[0])
        # First digits and lengths of the card networks (ISO/IEC 7812), and no number of one digit only.
        known = (number[0] in "45" or number[:2] in ("34", "35", "36", "37", "38", "60", "62", "65")
                 or number[:3] in ("644", "645", "646", "647", "648", "649") or "2221" <= number[:4] <= "2720")
        if known and len(set(number)) > 1 and luhn.is_valid(number):
            yield match.span()


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        start, piece = match.start(), match[0]
        while piece:  # what follows in capitals may have been taken for a part of it
            if iban.is_valid(piece, check_country=False):
                yield start, start + len(piece)
                break
            piece = piece.rpartition(" ")[0]


def _ids(text: str) -> Iterator[tuple[int, int]]:
    from importlib import import_module

    for pattern, name in _IDS:
        for match in pattern.finditer(text):
            if import_module(f"stdnum.{name}").is_valid(match[0]):
                yield match.span()


def _ips(text: str) -> Iterator[tuple[int, int]]:
    found = list(_IPV4.finditer(text)) + (list(_IPV6.finditer(text)) if "::" in text or text.count(":") > 4 else [])
    for match in found:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        # 1.2.3.4 is a section or a version more often than an address, b::c is code.
        unlike = max(address.packed) < 30 if address.version == 4 else len(re.findall(r"[0-9A-Fa-f]", match[0])) < 8
        if address.is_global and not unlike and not _VERSION.search(text[max(0, match.start() - 20):match.start()]):
            yield match.span()


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    yield from (m.span() for m in _SECRETS.finditer(text))
    for match in _NAMED.finditer(text):
        if _random(match["value"]):
            yield match.span("value")


def _random(value: str) -> bool:
    """Looks like a key or a password rather than like a word: letters and digits, and few of them alike."""
    if not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value)) or re.match(r"(?:https?|file|www)\b", value):
        return False
    counts = Counter(value)
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values()) >= 2.7


def _phones(text: str, region: str) -> Iterator[tuple[int, int]]:
    import phonenumbers

    plus = "+" in text
    if not plus and not region:
        return
    for match in phonenumbers.PhoneNumberMatcher(text, region or None, phonenumbers.Leniency.VALID, 20):
        written = match.raw_string
        if _SUM.search(text[max(0, match.start - 2):match.start] + "0" + text[match.end:match.end + 2]):
            continue
        if written.startswith("+") or _grouped(written):
            yield match.start, match.end


def _grouped(written: str) -> bool:
    """Written as a telephone number is, not as a row of numbers or a sum."""
    groups = re.findall(r"\d+", written)
    return 2 <= len(groups) <= 6 and all(len(group) > 1 for group in groups[1:]) and not re.search(r"\s[-/.]\s|\d/\d", written)


_FINDERS = {"email": _emails, "card": _cards, "iban": _ibans, "id": _ids, "ip": _ips, "secret": _secrets}
