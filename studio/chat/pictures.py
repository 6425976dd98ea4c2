"""Pictures in a conversation: OpenAI's content parts, with the picture itself in a ``data:`` address. No torch here.

Nothing is fetched: an address of the web in a request would let whoever asks reach what only this machine can see.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from typing import Any

from studio.errors import StudioError

MOST_BYTES, MOST_PIXELS, MOST_PICTURES = 20 << 20, 40_000_000, 16
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_DATA = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII)


def picture(address: Any) -> Any:
    """The picture (PIL, RGB) behind a ``data:`` address.

    Raises:
        StudioError: another address, no picture, or one that is too large.
    """
    from PIL import Image

    head = _DATA.match(address) if isinstance(address, str) else None
    if not head:
        raise StudioError("A picture has to be sent itself, as a data: address.",
                          "Send {\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,…\"}}.", "messages")
    if len(address) > MOST_BYTES * 4 // 3:
        raise StudioError(f"A picture may have at most {MOST_BYTES >> 20} MB.", "Send a smaller one.", "messages")
    try:
        data = base64.b64decode(address[head.end():], validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Image.open(io.BytesIO(data), formats=FORMATS)
            if found.width * found.height > MOST_PIXELS:
                raise StudioError(f"The picture has {found.width} x {found.height} pixels; at most {MOST_PIXELS // 10**6} million are read.",
                                  "Send a smaller one.", "messages")
            return found.convert("RGB")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise StudioError("That is no picture, or a damaged one.", f"Send one as {', '.join(FORMATS)}.", "messages") from err


def opened(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation as processors take it: every content a list of parts, pictures opened.

    Raises:
        StudioError: a part that is neither text nor a picture, a picture that cannot be read, or too many.
    """
    made, count = [], 0
    for message in messages:
        parts = message["content"] if isinstance(message["content"], list) else [{"type": "text", "text": message["content"] or ""}]
        new = []
        for part in parts:
            if part.get("type") == "text":
                new.append({"type": "text", "text": str(part.get("text") or "")})
            elif part.get("type") == "image_url":
                told = part.get("image_url")
                new.append({"type": "image", "image": picture(told.get("url") if isinstance(told, dict) else told)})
                count += 1
            else:
                raise StudioError(f"This model reads text and pictures, not '{part.get('type')}'.", "Leave it out.", "messages")
        made.append(message | {"content": new})
    if count > MOST_PICTURES:
        raise StudioError(f"At most {MOST_PICTURES} pictures are read at once; these are {count}.", "Send fewer.", "messages")
    return made
