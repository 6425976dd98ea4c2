"""What every way of quantizing shares: the source, one folder a variant, the proof, the place in the library.

A method lists its :meth:`~QuantizeMethod.variants` and writes one with :meth:`~QuantizeMethod.make`; the rest is here.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.library import refs
from studio.method import Method
from studio.recipe import Recipe, field


class QuantizeRecipe(Recipe):
    """Fields of every quantization."""

    kind: ClassVar[str] = "quantize"

    model: str = field("starter", "Model", "The model to make smaller variants of. An adapter is folded into its base "
                       "first.", widget="model", max_length=1000)
    dataset: str = field("shipped:calibration", "Calibration texts", "Texts like those the model will meet. They tell "
                         "which weights matter, and variants are compared with the model on them.", widget="dataset",
                         max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by "
                                    "itself.", widget="hidden")
    num_calibration_samples: int = field(128, "Texts for calibration", "How many texts the weights are fitted to. More "
                                         "is slower and rarely better beyond a few hundred.", group="training", ge=1,
                                         le=4096)
    max_seq_length: int = field(512, "Length of a text", "Longer texts are cut.", group="training", unit="tokens", ge=16,
                                le=32768)
    prove: bool = field(True, "Prove each variant", "Loads every file with the program that will run it, and compares its "
                        "answers, probabilities, chat template and end token with the model's.", group="watch")
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")


class Stopped(Exception):
    """Raised inside :meth:`QuantizeMethod.make` when a stop was asked for: what is half made goes, the rest stays."""


class Stage:
    """The run's context while one variant is at work: its progress counts within that variant, and the page can tell which
    one is made or proven now. Everything else is the context's own.

    Events ``stage``: ``{variant, doing}`` with ``doing`` one of ``reference`` | ``make`` | ``prove`` | ``failed``, the last
    with ``message`` and ``hint``.
    """

    def __init__(self, ctx: Any, total: int):
        self._ctx, self._total = ctx, total
        self._low, self._high = 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def begin(self, number: int, variant: str, doing: str, low: float = 0.0, high: float = 1.0) -> None:
        """From here on progress counts from ``low`` to ``high`` (shares) of variant ``number``."""
        self._low, self._high = number + low, number + high
        self._ctx.emit("stage", variant=variant, doing=doing, done=self._low)
        self._ctx.progress(self._low, self._total)

    def progress(self, done: float, total: float, eta: float | None = None) -> None:
        share = min(1.0, done / total) if total else 0.0
        self._ctx.progress(round(self._low + (self._high - self._low) * share, 4), self._total)


class QuantizeMethod(Method):
    """One way to quantize. Subclasses give ``variants`` and ``make``.

    Attributes:
        calibrates: It fits the weights to texts, so without any it is refused (see :meth:`needs_texts`).
        whole: Every weight gets the fewer bits; else embeddings, the output layer and norms keep 16.
        copies: Bytes of memory held a weight of the source while a variant is made.
        scratch: Bytes of disk a weight of the source that are written and removed again.
    """

    calibrates: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    copies: ClassVar[float] = 8.0
    scratch: ClassVar[float] = 0.0

    @classmethod
    def variants(cls, recipe: Any) -> list[str]:
        """Names of what is made, each the name of its folder, e.g. ``["Q4_K_M", "Q8_0"]``."""
        raise StudioError(f"{cls.title} names no variants.")

    @classmethod
    def needs_texts(cls, recipe: Any) -> bool:
        """Whether these settings fit the weights to texts."""
        return cls.calibrates

    @classmethod
    def pace(cls, recipe: Any) -> tuple[float, float]:
        """(seconds a million weights and variant on one core, how often the texts are read), as measured by
        tests/benchmarks/quantize.py; zeros where nobody has measured."""
        return 0.0, 0.0

    @classmethod
    def bits(cls, recipe: Any, variant: str) -> float:
        """Bits a quantized weight takes with its scales, by the format's definition; for sizes before the start."""
        raise StudioError(f"{cls.title} does not know the size of {variant}.")

    @classmethod
    def make(cls, recipe: Any, ctx: Any, source: refs.ModelRef, variant: str, folder: Path) -> dict[str, Any]:
        """Write one variant of a whole local model into ``folder`` (made, empty); what is left there is complete.

        Returns:
            Facts for the library: ``format`` (``gguf`` | ``bitsandbytes`` | ``compressed-tensors`` | ...), ``quantization``
            (what a person calls it), ``bits`` (a weight, measured from the file).

        Raises:
            StudioError: it cannot be made; other variants are still tried.
            Stopped: a stop was asked for.
        """
        raise StudioError(f"{cls.title} makes nothing.")

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.quantizers import plan

        plan.check(cls, recipe)

    @classmethod
    def estimate(cls, recipe: Any) -> Any:
        from studio.quantizers import plan

        return plan.estimate(cls, recipe)

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        from studio.quantizers import proof, source

        began, made = time.time(), []
        names = cls.variants(recipe)
        stage, reference = Stage(ctx, len(names)), None
        try:
            with source.whole(recipe, stage) as model:  # local, an adapter folded in
                if recipe.prove:
                    stage.begin(0, "", "reference", 0.0, 0.1)
                    reference = proof.Reference(model, recipe, stage)
                for number, variant in enumerate(names):
                    if ctx.stop_requested:
                        break
                    try:
                        made.append(cls._one(recipe, stage, model, number, variant, reference))
                    except StudioError as err:
                        if len(names) == 1:
                            raise
                        stage.emit("stage", variant=variant, doing="failed", message=err.message, hint=err.hint)
                        ctx.warning("variant-failed", f"{variant}: {err.message}", err.hint)
        except Stopped:
            pass  # what was finished before stays
        finally:
            if reference:
                reference.close()
        if names and not made and not ctx.stop_requested:
            raise StudioError("None of the variants could be made.", "Each one's reason stands among the warnings.")
        ctx.progress(len(names), len(names))
        return {"variants": made, "seconds": round(time.time() - began, 2)}

    @classmethod
    def _one(cls, recipe: Any, stage: Stage, model: refs.ModelRef, number: int, variant: str,
             reference: Any) -> dict[str, Any]:
        from studio.library import artifacts
        from studio.quantizers import cards

        folder = stage.output / variant
        part = folder.with_name(folder.name + ".part")
        for old in (folder, part):
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        began = time.time()
        stage.begin(number, variant, "make", 0.1 if reference and not number else 0.0, 0.6 if reference else 1.0)
        try:
            facts = cls.make(recipe, stage, model, variant, part)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        facts |= {"method": f"{recipe.kind}/{recipe.method}", "parameters": model.meta.get("parameters"),
                  "seconds": round(time.time() - began, 2), "size": artifacts.size_of(folder)}
        if reference is not None:
            stage.begin(number, variant, "prove", 0.6, 1.0)
            facts["proof"] = reference.compare(folder, facts)
        name = f"{recipe.name or refs.resolve_model(recipe.model).label} {facts['quantization']}"[:80]
        (folder / "README.md").write_text(cards.card(name, recipe, model, facts), "utf-8")
        stage.artifact("model", folder, name, facts | {"variant": variant}, [(recipe.model, "source")])
        return {"variant": variant, "path": str(folder), **{key: facts.get(key) for key in
                ("quantization", "format", "bits", "size", "seconds", "proof")}}
