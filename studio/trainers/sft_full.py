"""Full fine-tuning: every weight of the model is trained, or those of its last layers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.recipe import field
from studio.trainers.adapters import epochs
from studio.trainers.common import SFT, SFTRecipe
from studio.trainers.script_parts import frozen


class FullRecipe(SFTRecipe):
    """Fields of a full fine-tuning run."""

    method: ClassVar[str] = "full"

    learning_rate: float = field(1e-3, "Learning rate", "How large each step is. Too high: the loss jumps and old "
                                 "skills are lost. Too low: it hardly falls. 1e-3 suits the starter; 1e-5 to 2e-5 "
                                 "is usual for models of a billion and more.", group="training", widget="log",
                                 library=SFT, gt=0, le=1.0)
    num_train_epochs: float = epochs()
    freeze: Literal["none", "embeddings", "half", "all_but_last"] = field(
        "none", "Freeze", "Layers that stay as they are, from the first on, with the embeddings: less memory, faster, and more "
        "of what the model knew stays. The more is frozen, the less can be learned.", group="advanced",
        choices={"none": "Nothing: every weight is trained", "embeddings": "The embeddings",
                 "half": "The embeddings and the first half of the layers", "all_but_last": "All but the last layers"})
    trained_layers: int = field(2, "Last layers to train", "How many of the last layers are trained. More can learn more and "
                                "need more memory.", group="advanced", when={"freeze": ["all_but_last"]}, ge=1, le=1000)


class Full(Method):
    """All weights."""

    title = "Full fine-tuning"
    summary = "Trains every weight: learns the most, needs about eight times the memory, makes a new model."
    paper = "https://arxiv.org/abs/1801.06146"
    group = "all"
    Recipe = FullRecipe

    @classmethod
    def check(cls, recipe: FullRecipe) -> None:
        from studio.trainers import sft

        sft.check(recipe)

    @classmethod
    def estimate(cls, recipe: FullRecipe) -> Estimate:
        from studio.library.modelinfo import count
        from studio.trainers import plan

        made = plan.estimate(recipe, lora=False)
        trained, total = _weights(recipe) if recipe.freeze != "none" else (0, 0)
        if total:
            made.notes.append(f"{count(trained)} of {count(total)} parameters are trained.")
            made.memory = made.memory and made.memory - (total - trained) * 12  # neither gradient nor moments
        return made

    @classmethod
    def script(cls, recipe: FullRecipe) -> str:
        from studio.trainers import script

        return script.write(recipe)

    @classmethod
    def run(cls, recipe: FullRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import sft

        def freeze(model: Any) -> None:
            weights = dict(model.named_parameters())
            for name in frozen(weights, recipe.freeze, recipe.trained_layers):
                weights[name].requires_grad_(False)

        return sft.run(recipe, ctx, prepare=freeze if recipe.freeze != "none" else None)


def _weights(recipe: FullRecipe) -> tuple[int, int]:
    """(weights that are trained, all of them), from the headers of the files; zeros where they are not on this disk."""
    from studio.library import modelinfo, refs

    try:
        model = refs.resolve_model(recipe.model)
        model = refs.resolve_model(model.base) if model.is_adapter and model.base else model
        sizes = modelinfo.weights(model.path) if model.path else {}
    except StudioError:
        return 0, 0
    if not sizes:
        return 0, 0
    total = sum(sizes.values())
    return total - sum(sizes[name] for name in frozen(sizes, recipe.freeze, recipe.trained_layers)), total
