"""The lab: looking at how models cut text and choose words. What needs the heavy libraries runs in a probe."""

from __future__ import annotations

from typing import Any

from studio.errors import StudioError

MOST_TEXT = 20_000  # characters


def lab_tokens(text: str, models: list[str], template: bool = False, owner: str | None = None) -> list[dict[str, Any]]:
    """One text under the tokenizers of up to four models; see :func:`studio.lab.tokens.compare`.

    Raises:
        StudioError: nothing to cut, too much, no model, or another person's model.
    """
    from studio.api.who import scope
    from studio.jobs import probe
    from studio.library.refs import check_owner

    if not text:
        raise StudioError("There is no text.", "Write some.", "text")
    if len(text) > MOST_TEXT:
        raise StudioError(f"At most {MOST_TEXT:,} characters are shown; these are {len(text):,}.", "Take a part of it.", "text")
    for ref in models:
        check_owner(str(ref), scope(owner), "models")
    return probe.call("studio.lab.tokens:compare", {"text": text, "models": [str(ref) for ref in models], "template": template})
