"""A source (an uploaded file, a dataset, pasted text) as one document: its text, the places in it, and what was hidden there."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from typing import Any

from studio.errors import StudioError

MOST_CHARS = 10_000_000  # of a collection: some five thousand pages
_DOCUMENTS = ("pdf", "docx", "html")


@dataclass
class Document:
    """One document of a collection.

    Attributes:
        id: Follows from name and text, so that the same document is there once.
        text: All of it.
        places: ``[offset, label]``, ascending: from this character on stands page, section or row ``label``.
        hidden: ``{kind, text}`` of what a person who looks at the file would not see; see :mod:`studio.retrieval.hidden`.
    """

    id: str
    name: str
    ref: str
    text: str
    places: list[list[Any]] = field(default_factory=list)
    hidden: list[dict[str, str]] = field(default_factory=list)

    def place(self, offset: int) -> str:
        """Where a character stands: ``page 3``, a heading, or nothing."""
        at = bisect_right([start for start, _ in self.places], offset)
        return str(self.places[at - 1][1]) if at else ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def made(name: str, ref: str, parts: list[tuple[str, str]], hidden: list[dict[str, str]] | None = None) -> Document:
    """A document of ``(text, label)`` parts, with an empty line between two."""
    text, places = "", []
    for part, label in parts:
        text += "\n\n" if text else ""
        if label and (not places or places[-1][1] != label):
            places.append([len(text), label])
        text += part
    key = hashlib.blake2b(f"{name}\0{text}".encode("utf-8", "replace"), digest_size=6).hexdigest()
    return Document(f"d{key}", name, ref, text, places, hidden or [])


def pasted(title: str, text: str) -> Document:
    """Text that was typed or pasted.

    Raises:
        StudioError: there is none, or too much.
    """
    if not text.strip():
        raise StudioError("There is no text.", "Paste some.", "text")
    if len(text) > MOST_CHARS:
        raise _too_much(len(text))
    return made(title.strip()[:120] or "Pasted text", "", [(text.strip(), "")])


def read(ref: str) -> Document:
    """The document behind a dataset reference: files of text by paragraph, PDF by page, Word and web pages by section,
    tables and chats by row.

    Raises:
        StudioError: unreadable, without text, or too large.
    """
    from itertools import chain, islice

    from studio.datasets.convert import Reject, normalise
    from studio.datasets.formats import SAMPLE, detected_of, open_source
    from studio.datasets.roles import unfolded
    from studio.datasets.texts import whole
    from studio.retrieval import hidden

    source, label = open_source(ref)
    kind = getattr(source, "kind", "")
    stream = iter(source)
    head = list(islice(stream, SAMPLE))
    detected = None if kind in (*_DOCUMENTS, "text") else detected_of(source, head, None, "auto")
    parts, size = [], 0
    for number, row in enumerate(chain(head, stream), 1):
        for one in unfolded(row, detected.unfold) if detected else [row]:
            found = normalise(one, detected, []) if detected else one
            if isinstance(found, Reject):
                continue
            text = str(found.get("text") or "") if not detected else whole(found)
            size += len(text)
            if size > MOST_CHARS:
                raise _too_much(size)
            if text.strip():
                parts.append((text.strip(), _label(kind, row, number)))
    if not parts:
        raise StudioError(f"{label} holds no text.", "Choose a document with text; pictures are not read.", "dataset")
    return made(label, ref, parts, hidden.of_file(getattr(source, "path", None), kind))


def _label(kind: str, row: dict[str, Any], number: int) -> str:
    if kind == "pdf":
        return f"page {row.get('page')}"
    if kind in ("docx", "html"):
        return str(row.get("section") or "")
    return "" if kind == "text" else f"row {number:,}"


def _too_much(size: int) -> StudioError:
    return StudioError(f"A collection holds at most {MOST_CHARS / 1e6:.0f} million characters; this is more than "
                       f"{size / 1e6:.1f} million.", "Split it into several collections.", "dataset")
