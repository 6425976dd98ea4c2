"""The contract of a method: one class, one file, one registry line.

    class MyMethod(Method):
        title, summary, paper = "My method", "What it is good for.", "https://arxiv.org/abs/…"
        class Recipe(Recipe): kind, method = "sft", "mine"; ...fields...
        def run(recipe, ctx): ...

Module level imports stay light: torch and the libraries on it are imported inside ``run`` (and ``check`` stays free of them).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from studio.recipe import Recipe

if TYPE_CHECKING:
    from studio.jobs.context import Context


@dataclass
class Estimate:
    """What a job will take, before it starts. ``None`` means not known, never a guess shown as a fact.

    Attributes:
        steps: Optimiser steps.
        seconds: Wall time on this machine.
        memory: Peak bytes of RAM (or of GPU memory where ``device`` is one).
        disk: Bytes written.
        notes: Sentences for the person, e.g. ``"120 of 200 samples are cut at 512 tokens."``
    """

    steps: int | None = None
    seconds: float | None = None
    memory: int | None = None
    disk: int | None = None
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Method(ABC):
    """One way to make something. Stateless: every method is a class method on plain values.

    Attributes:
        group: Under which heading a long list of methods shows it: what a person has, or wants changed. A short word
            with its text in the page's locale files (``methods.<kind>.<group>``).
    """

    title: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    group: ClassVar[str] = ""
    Recipe: ClassVar[type[Recipe]]
    needs_gpu: ClassVar[bool] = False
    environment: ClassVar[str] = ""  # of studio.environments, where another version of a library is needed

    @classmethod
    def check(cls, recipe: Any) -> None:
        """Refuse what can be known to fail before anything starts. Quick (well under a second) and without torch.

        Raises:
            StudioError: naming the field.
        """

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        """What the job will take, from formulas; quick, and without torch."""
        return Estimate()

    @classmethod
    def measured(cls, recipe: Any) -> Any:
        """The recipe that is run for a measurement before the start: by default the same without trackers and prompts."""
        off = {"report_to": "none", "sample_prompts": []}
        return recipe.model_copy(update={name: value for name, value in off.items() if name in type(recipe).model_fields})

    @classmethod
    def script(cls, recipe: Any) -> str:
        """A short plain Python script that does the same without the studio, or an empty string."""
        return ""

    @classmethod
    @abstractmethod
    def run(cls, recipe: Any, ctx: Context) -> dict[str, Any] | None:
        """Do the work in the worker process.

        Report through ``ctx``; poll ``ctx.stop_requested``; register what was made with ``ctx.artifact``. The returned
        dict (final metrics, plain values) becomes the run's ``summary``.
        """
