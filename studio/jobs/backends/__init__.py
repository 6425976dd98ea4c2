"""Where a run computes: this machine, a Ray cluster, or Hugging Face Jobs. One class a place, one page of contract.

A run keeps its guardian here whatever the place. For another place the guardian starts, instead of the worker, a light
**courier** (:mod:`.courier`) that sends what the recipe needs, brings events, log, checkpoints and results home, and
passes a stop on. So queue, live view, library and everything else know nothing of this. Nothing heavy is imported here.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from studio.errors import StudioError

LOCAL: dict[str, Any] = {"name": "local"}
FIELD = "backend"
KINDS = ("sft", "pretrain", "align")  # what is worth another machine: it trains, and leaves all it makes in its folder
_PLACES = {"ray": "studio.jobs.backends.ray_jobs:RayJobs", "hf_jobs": "studio.jobs.backends.hf_jobs:HubJobs"}


class Refused(StudioError):
    """The place answers, and says no; trying again will not help."""


class Unreachable(Exception):
    """The place does not answer just now; it may do so again."""


class Place(ABC):
    """Another place for a run. The class methods are asked by the page, an instance is what one courier works with.

    Args:
        options: What the person chose, as :meth:`check` returned it.
        record: The courier's memory in the run's folder; a place may keep facts of its own in it (no secret but a
            token made for this one job).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    brings_its_parcel: ClassVar[bool] = False  # submit() sends everything; nothing goes over the wire

    def __init__(self, options: dict[str, Any], record: dict[str, Any]):
        self.options, self.record = options, record

    @property
    def lasting(self) -> bool:
        """Whether the job's files can be reached when the job is over."""
        return False

    @classmethod
    @abstractmethod
    def offer(cls, token: str | None) -> dict[str, Any]:
        """What the form shows: ``{"unavailable": reason or "", "install": extra or "", "fields": [...]}``; a field is
        ``{name, title, help, type, default, choices, placeholder}``. Quick; asks a network only with short patience."""

    @classmethod
    @abstractmethod
    def check(cls, options: dict[str, Any], token: str | None) -> dict[str, Any]:
        """The options, whole and of the right type.

        Raises:
            StudioError: with ``field="backend"``, for what can be known to fail.
        """

    @classmethod
    def notes(cls, options: dict[str, Any], token: str | None) -> dict[str, Any]:
        """What to tell before the start: ``{"notes": [sentences], "cost": dollars at most or None}``."""
        return {"notes": [], "cost": None}

    @classmethod
    @abstractmethod
    def label(cls, options: dict[str, Any]) -> str:
        """Where a run computes, in a few words."""

    @abstractmethod
    def submit(self, job: str, parcel: Any) -> str:
        """Start the job and return its id there. The same ``job`` name twice is one job.

        Raises:
            StudioError: the place refuses.
            Unreachable: it does not answer.
        """

    @abstractmethod
    def state(self, job: str) -> tuple[str, str]:
        """(``waiting`` | ``running`` | ``over`` | ``unknown``, what the place says about it).

        Raises:
            Unreachable: it does not answer.
        """

    @abstractmethod
    def wire(self, job: str) -> Any:
        """The way to the job's files (see :mod:`.wires`), or ``None`` while there is none yet.

        Raises:
            Unreachable: the job runs but cannot be spoken to.
            StudioError: and never will.
        """

    @abstractmethod
    def cancel(self, job: str) -> None:
        """End the job at once; one that is over already is no error."""

    def clear(self, job: str) -> None:
        """Everything is home: remove what is not worth keeping there."""

    def output(self, job: str) -> str:
        """What the job printed beside the worker's log; for a job that ended before it could speak."""
        return ""


def place(name: str) -> type[Place]:
    """The class of a place.

    Raises:
        StudioError: there is none of that name.
    """
    if name not in _PLACES:
        raise StudioError(f"There is no place called '{name}'.", f"Known: local, {', '.join(_PLACES)}.", FIELD)
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def remote(backend: dict[str, Any] | None) -> bool:
    """True for a run that computes elsewhere."""
    return bool(backend) and backend.get("name", "local") != "local"


def check(backend: dict[str, Any] | None, recipe: Any, token: str | None = None) -> dict[str, Any]:
    """The place for a recipe, ready to be stored with the run.

    Args:
        token: The Hub token of the person, if there is one; it is used, never stored.

    Raises:
        StudioError: with ``field="backend"``.
    """
    if not remote(backend):
        return dict(LOCAL)
    if not isinstance(backend.get("name"), str):
        raise StudioError("That is no place for a run.", "Choose one from the list.", FIELD)
    chosen = place(backend["name"])
    if recipe.kind not in KINDS:
        raise StudioError("Only training is sent to another place.", "Choose this machine.", FIELD)
    from studio.jobs.backends import parcel

    options = chosen.check({k: v for k, v in backend.items() if k != "name"}, token)
    parcel.Parcel(recipe).check()
    return {"name": chosen.name, **options}


def offer(name: str, token: str | None = None) -> dict[str, Any]:
    """A place as the form shows it: ``{name, title, summary, unavailable, install, fields}``."""
    one = place(name)
    return {"name": one.name, "title": one.title, "summary": one.summary, **one.offer(token)}


def notes(backend: dict[str, Any], recipe: Any, token: str | None = None) -> dict[str, Any]:
    """What to tell before the start: ``{"notes": [...], "cost": dollars or None, "size": bytes that are sent}``.

    Raises:
        StudioError: as :func:`check`, but for a price that is not agreed to yet.
    """
    if not remote(backend):
        return {"notes": [], "cost": None, "size": 0}
    from studio.jobs.backends import parcel

    chosen = place(str(backend.get("name")))
    found = chosen.notes({k: v for k, v in backend.items() if k != "name"}, token)
    return found | {"size": parcel.Parcel(recipe).check()}


def abandon(run: dict[str, Any]) -> None:
    """End the job elsewhere of a run that is about to be removed.

    A place that does not answer is left alone: a job there ends by itself, when it is done or at its time limit.
    """
    if remote(run["backend"]):
        from studio import settings
        from studio.jobs.backends import courier

        courier.cancel(settings.run_dir(run["id"]), run["backend"])


def label(backend: dict[str, Any] | None) -> str:
    """Where a run computes, in a few words; empty for this machine."""
    if not remote(backend):
        return ""
    try:
        return place(backend["name"]).label(backend)
    except StudioError:
        return str(backend.get("name"))
