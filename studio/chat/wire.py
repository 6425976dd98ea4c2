"""What comes from a chat server, whatever it claims to be: a stream, one piece of JSON, a web page, or signs of life for ever."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx

from studio.errors import StudioError

SILENT_SECONDS = 180  # a server elsewhere may send signs of life for so long without a word
MOST_BYTES = 8 << 20  # of one line, or of an answer in one piece
_STREAM = re.compile(rb"\s*(data|event|id|retry)?:")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<(style|script).*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class Gone(Exception):
    """The server closed the connection in the middle, or was not there."""


def lines(url: str, response: httpx.Response, patient: bool) -> Iterator[str]:
    """The lines of a reply. An answer in one piece, although a stream was asked for, is one line that begins with ``{``.

    The content type is not believed: servers send streams as plain text and pages as streams.

    Args:
        patient: Signs of life are enough, however long no word comes.

    Raises:
        StudioError: a page or anything else that is no chat reply, a line without end, or no word for too long.
    """
    held, heard, kind = b"", time.monotonic(), ""
    for piece in response.iter_bytes():
        held += piece
        if len(held) > MOST_BYTES:
            raise StudioError(f"{url} sends a reply that does not end.", "Check that server.", "model")
        if not kind and len(held.lstrip()) >= 8:
            kind = _kind(held)
            if kind == "other":
                raise alien(url, held)
        if kind == "stream":
            *whole, held = held.replace(b"\r\n", b"\n").split(b"\n")
            for line in whole:
                if line.startswith(b"data:"):
                    heard = time.monotonic()
                yield line.decode("utf-8", "replace").strip()
        if not patient and time.monotonic() - heard > SILENT_SECONDS:
            raise silent(url, True)
    if held.strip():
        if not kind and _kind(held) == "other":
            raise alien(url, held)
        yield held.decode("utf-8", "replace").strip()


def _kind(head: bytes) -> str:
    return "stream" if _STREAM.match(head) else "whole" if head.lstrip()[:1] == b"{" else "other"


def parsed(url: str, text: str) -> dict[str, Any]:
    """One message of a reply.

    Raises:
        Gone: it is torn.
        StudioError: it is no object.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise Gone(f"what came is no JSON: {text[:80]}") from err
    if not isinstance(data, dict):
        raise alien(url, text.encode())
    return data


def alien(url: str, body: bytes) -> StudioError:
    """The error of a reply that is none of the chat API."""
    text = body[:4000].decode("utf-8", "replace")
    if re.match(r"\s*<(!doctype|html|head|body|\?xml)", text, re.IGNORECASE):
        title = _TITLE.search(text)
        named = f" ('{' '.join(title[1].split())[:80]}')" if title else ""
        return StudioError(f"{url} answered with a web page{named}, not with a chat reply.",
                           "Check the address: the API is often under /v1; a login page or a proxy may stand before it.", "model")
    said = " ".join(_TAGS.sub(" ", text).split())[:80]
    return StudioError(f"{url} answered something that is no chat reply{f': {said}' if said else '.'}",
                       "It should speak the OpenAI API, e.g. http://127.0.0.1:8000/v1", "model")


def silent(url: str, begun: bool) -> StudioError:
    """The error of a server that keeps the connection and says nothing."""
    if begun:
        return StudioError(f"{url} fell silent in the middle of the answer.", "What came is kept. Try again, or check that server.",
                           "model")
    return StudioError(f"{url} does not answer.", "Try again, or check the server.", "model")
