"""The lab: looking at how models cut text and choose words. What needs the heavy libraries runs in a probe."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope
from studio.errors import StudioError

MOST_TEXT = 20_000  # characters


def lab_decode(ref: str, prompt: str, way: dict[str, Any], prefix: list[int] | None = None, system: str = "",
               owner: str | None = None) -> dict[str, Any]:
    """One answer with what the model thought at each token; see :func:`studio.lab.decoding.explore`.

    Args:
        way: ``strategy`` and its settings; see :data:`studio.lab.decoding.NUMBERS`.
        prefix: Token ids that the answer begins with.

    Raises:
        StudioError: nothing asked, another person's model, one that cannot be looked into, or bad settings.
    """
    return _looked(ref, prompt, system, owner, "decode", {"way": way, "prefix": prefix or []})


def lab_speculative(ref: str, prompt: str, settings: dict[str, Any], assistant: str = "", system: str = "",
                    owner: str | None = None) -> dict[str, Any]:
    """One answer written plainly, by prompt lookup and with an assistant's proposals; see :func:`studio.lab.speculative.measure`.

    Args:
        settings: See :data:`studio.lab.speculative.NUMBERS`.
        assistant: Reference of a small model with the same tokenizer; empty: prompt lookup alone.

    Raises:
        StudioError: nothing asked, another person's model, one that cannot be looked into or does not fit, or bad settings.
    """
    from studio.library.refs import check_owner, resolve_model

    path = ""
    if assistant:
        check_owner(assistant, scope(owner), "assistant")
        helper = resolve_model(assistant)
        if helper.path is None or helper.is_adapter or helper.meta.get("format") == "gguf":
            raise StudioError("An assistant is a whole model of this machine.", "Choose one that is no adapter and no GGUF file.", "assistant")
        path = str(helper.path)
    return _looked(ref, prompt, system, owner, "speculative", {"settings": settings, "assistant": path})


def _looked(ref: str, prompt: str, system: str, owner: str | None, kind: str, more: dict[str, Any]) -> dict[str, Any]:
    import httpx

    from studio.api.chat import engine_for
    from studio.chat import address

    if not prompt.strip():
        raise StudioError("There is nothing to answer.", "Write a prompt.", "prompt")
    if len(prompt) + len(system) > MOST_TEXT:
        raise StudioError(f"At most {MOST_TEXT:,} characters can be asked here.", "Shorten the prompt.", "prompt")
    if address.is_address(ref):
        raise StudioError("A server elsewhere does not show what its model thinks.", "Choose a model of this studio.", "model")
    found = engine_for(ref, owner)
    messages = [{"role": "system", "content": system}] * bool(system.strip()) + [{"role": "user", "content": prompt}]
    try:
        answer = httpx.post(f"{found['base_url']}/lab/{kind}", timeout=600, trust_env=False,
                            headers={"Authorization": f"Bearer {found['key']}"},
                            json={"model": found["model"], "messages": messages, **more})
        body = answer.json()
    except (httpx.HTTPError, ValueError) as err:
        raise StudioError("The model's engine ended while it was at work.", "Try again; it starts by itself.", "model") from err
    if answer.status_code != 200:
        error = body.get("error", {})
        raise StudioError(error.get("message", "The engine refused."), error.get("hint", ""), error.get("param"))
    return body


def lab_ways() -> dict[str, Any]:
    """The ways of decoding: ``{strategies: [name], of: {strategy: [setting]}, numbers: {setting: [default, least, most]},
    speculative: {setting: [default, least, most]}}``."""
    from studio.lab import decoding, speculative

    both = (*decoding.ALL, "max_new_tokens", "seed")
    return {"strategies": list(decoding.STRATEGIES), "of": {name: [*own, *both] for name, own in decoding.OF.items()},
            "numbers": {name: list(bounds) for name, bounds in decoding.NUMBERS.items()},
            "speculative": {name: list(bounds) for name, bounds in speculative.NUMBERS.items()}}


def lab_tokens(text: str, models: list[str], template: bool = False, owner: str | None = None) -> list[dict[str, Any]]:
    """One text under the tokenizers of up to four models; see :func:`studio.lab.tokens.compare`.

    Raises:
        StudioError: nothing to cut, too much, no model, or another person's model.
    """
    from studio.jobs import probe
    from studio.library.refs import check_owner

    if not text:
        raise StudioError("There is no text.", "Write some.", "text")
    if len(text) > MOST_TEXT:
        raise StudioError(f"At most {MOST_TEXT:,} characters are shown; these are {len(text):,}.", "Take a part of it.", "text")
    for ref in models:
        check_owner(str(ref), scope(owner), "models")
    return probe.call("studio.lab.tokens:compare", {"text": text, "models": [str(ref) for ref in models], "template": template})
