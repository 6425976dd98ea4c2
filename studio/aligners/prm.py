"""PRM: a process reward model tells after each step of a solution whether it is still right. Uesato et al. 2022.

From TRL 1.12 in an environment of its own (:mod:`studio.environments`): TRL 1.16 has none.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, ClassVar

from studio.aligners.base import AlignMethod
from studio.aligners.common import PreferenceRecipe, epochs, rate
from studio.errors import StudioError
from studio.recipe import field

PRM = "trl.experimental.prm.PRMConfig"  # of TRL 1.12


class PrmRecipe(PreferenceRecipe):
    """Fields of a process reward model's run, in the names of TRL 1.12."""

    method: ClassVar[str] = "prm"

    learning_rate: float = rate(1e-3, "1e-5 to 5e-5 (LoRA: 1e-4)")
    num_train_epochs: float = epochs(3.0)
    step_separator: str = field(
        "\\n", "Between steps", "What stands after each step; the model judges there. \\n is a new line.",
        group="method",
        min_length=1, max_length=20)
    train_on_last_step_only: bool = field(
        False, "Only the last step", "On: only the last step's mark is learned, as for a reward model of whole "
        "answers. Off: every step's.", group="method")


def rows_of(ref: str) -> list[dict[str, Any]]:
    """Rows of ``prompt``, ``completions`` (the steps) and ``labels`` (whether each is right).

    Raises:
        StudioError: there are none (``dataset``).
    """
    from studio.datasets import formats

    source, label = formats.open_source(ref)
    made = [row for row in map(_row, source) if row]
    if not made:
        raise StudioError(f"{label} has no solutions with marked steps.", "Each row needs 'prompt', 'completions' (a "
                          "list of steps) and 'labels' (true or false for each step).", "dataset")
    return made


def _row(row: dict[str, Any]) -> dict[str, Any] | None:
    prompt, steps, labels = row.get("prompt"), row.get("completions"), row.get("labels")
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], dict):
        prompt = prompt[-1].get("content")
    if not (isinstance(prompt, str) and isinstance(steps, list) and isinstance(labels,
                                                                               list) and 0 < len(steps) == len(labels)):
        return None
    if not all(isinstance(step, str) for step in steps) or not all(label in (0, 1) for label in labels):
        return None
    return {"prompt": prompt, "completions": steps, "labels": [bool(label) for label in labels]}


class Prm(AlignMethod):
    """A process reward model."""

    title = "Process reward model"
    summary = "Learns to tell after each step of a solution whether it is right, from solutions with marked steps."
    paper = "https://arxiv.org/abs/2211.14275"
    group = "scorer"
    Recipe = PrmRecipe
    environment = "trl-1.12"
    trainer = "trl.experimental.prm.PRMTrainer"
    shape = "steps"
    head = "steps"
    arguments = ("max_length", "train_on_last_step_only")

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        return super().settings(recipe) | {"step_separator": recipe.step_separator.encode().decode("unicode_escape")}

    @classmethod
    def lora(cls, recipe: Any) -> dict[str, Any] | None:
        made = super().lora(recipe)
        # the head is trained whole; "all linear layers" would wrap it as well
        return made and made | {"task_type": "TOKEN_CLS", "exclude_modules": ["score", "classifier"]}

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.datasets import formats
        from studio.library import refs

        model = refs.resolve_model(recipe.model)
        if model.is_adapter:
            raise StudioError(f"{model.label} is an adapter; a process reward model starts from a whole model.",
                              "Merge it first, or choose its base.", "model")
        if refs.resolve_dataset(recipe.dataset).path is not None:
            source, label = formats.open_source(recipe.dataset)
            first = list(islice(source, 200))
            if first and not any(map(_row, first)):
                raise StudioError(f"{label} has no solutions with marked steps.", "Each row needs 'prompt', "
                                  "'completions' (a list of steps) and 'labels' (true or false for each step).",
                                  "dataset")
        if recipe.extra:
            raise StudioError("A process reward model has no further settings here.", "Leave the table empty.", "extra")
        if recipe.num_processes > 1 or recipe.strategy != "ddp":
            raise StudioError("It is trained in one process here.", "Set 'Processes' to 1.", "num_processes")
        if recipe.report_to != "none":
            from studio import extras

            extras.require(recipe.report_to, "report_to")

    @classmethod
    def script(cls, recipe: Any) -> str:
        raise StudioError("A process reward model is trained with another release of TRL than this script would be "
                          "for.",
                          "Train a reward model on pairs, which TRL still has.", "method")

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        from studio.aligners import prm_run

        return prm_run.run(cls, recipe, ctx)
