"""One answer from start to end, whoever gives it: what the page, the CLI and the API show while it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from studio.chat import address, client, manager
from studio.chat.client import Answer, EngineGone, Stop
from studio.errors import StudioError
from studio.library import bases
from studio.library.refs import resolve_model

DEFAULTS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
                            "max_tokens": 256, "seed": None, "stop": []}
LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2), "top_p": (0.01, 1), "top_k": (0, 1000), "min_p": (0, 1), "repetition_penalty": (0.5, 2),
    "max_tokens": (1, 32768), "seed": (0, 2**31 - 1)}


def check_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Sampling settings with the defaults filled in; ``tools`` and ``tool_choice`` go through as they are.

    Raises:
        StudioError: naming the setting that is not a number or out of bounds.
    """
    made = dict(DEFAULTS)
    for name, value in values.items():
        if name not in DEFAULTS and name not in client.TOOLS:
            raise StudioError(f"There is no sampling setting '{name}'.", f"Known: {', '.join(DEFAULTS)}.", name)
        if name in client.TOOLS:
            made[name] = value
            continue
        if name == "stop":
            made[name] = [str(s) for s in (value or []) if str(s)]
            continue
        if value in (None, ""):
            continue
        low, high = LIMITS[name]
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not low <= number <= high:
            raise StudioError(f"{name} must be between {low:g} and {high:g}; it is {value}.", "", name)
        made[name] = int(number) if name in ("top_k", "max_tokens", "seed") else number
    return made


def stream(ref: str, messages: list[dict[str, Any]], settings: dict[str, Any] | None = None,
           stop: Stop | None = None) -> Iterator[dict[str, Any]]:
    """Asks ``ref`` and yields what happens, each a dict with ``state``:

    ``loading`` {seconds, crashed} while the engine starts · ``answering`` and at last ``done`` with the fields of
    :class:`studio.chat.client.Answer` (``finish`` is stop, length or stopped; ``note`` also says so where an adapter's
    base was replaced since it was trained).

    An engine that is gone before it has said a word is started again by itself, once.

    Raises:
        StudioError: with the reason why there is no answer, or why it broke off.
    """
    settings, stop = check_settings(settings or {}), stop or Stop()
    told = None if address.is_address(ref) else bases.replaced_by_ref(ref)
    last: dict[str, Any] = {}
    for attempt in (1, 2):
        answer: Answer | None = None
        try:
            endpoint = yield from _open(ref, stop)
            for answer in client.stream(endpoint, messages, settings, stop):
                last = asdict(answer)
                last["note"] = " ".join([*(told or ()), *filter(None, [last["note"]])])
                yield {"state": "answering", **last}
            yield {"state": "done", **last}
            return
        except EngineGone as err:
            if address.is_address(ref):
                raise StudioError(f"{address.label(ref)} closed the connection before the answer was whole.",
                                  "Check that server, then retry.", "model") from err
            why = manager.why_gone(ref)
            if attempt == 1 and not (answer and (answer.text or answer.reasoning)):
                continue
            raise StudioError(f"The model's engine stopped in the middle of the answer{f': {why}' if why else ''}.",
                              "Retry; it starts again by itself.", "model") from err


def _open(ref: str, stop: Stop) -> Iterator[dict[str, Any]]:
    steps = manager.opening(ref, stop.asked)
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield {"state": "loading", "seconds": step.seconds, "crashed": step.crashed}


def label_of(ref: str) -> str:
    """What a person calls the model behind a reference; the reference itself where it cannot be resolved now."""
    if address.is_address(ref):
        return address.label(ref)
    try:
        return resolve_model(ref).label
    except StudioError:
        return ref
