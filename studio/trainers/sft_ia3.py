"""(IA)³: learned factors on keys, values and feed-forward activations. Liu et al. 2022."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.recipe import field
from studio.trainers.adapters import AdapterMethod, epochs, rate
from studio.trainers.common import SFTRecipe

_LIB = "peft.IA3Config"


class Ia3Recipe(SFTRecipe):
    """Fields of an (IA)³ run."""

    method: ClassVar[str] = "ia3"

    learning_rate: float = rate(3e-2, "3e-3 to 8e-3")
    num_train_epochs: float = epochs()
    target_modules: str = field("", "Where", "Layers whose output is scaled, with commas between the names. Empty: those PEFT "
                                "knows for the model's type.", group="adapter", library=_LIB, max_length=400,
                                placeholder="k_proj,v_proj,down_proj")
    feedforward_modules: str = field("", "Of them feed-forward", "Those of the layers above whose input is scaled instead. "
                                     "Empty with the field above.", group="adapter", library=_LIB, max_length=400,
                                     placeholder="down_proj")


class Ia3(AdapterMethod):
    """A handful of factors."""

    title = "(IA)³"
    summary = "Learns only a factor per channel: a few thousand numbers. The smallest adapters; for light changes of style."
    paper = "https://arxiv.org/abs/2205.05638"
    Recipe = Ia3Recipe
    peft = "IA3Config"
    arguments = ()

    @classmethod
    def config(cls, recipe: Ia3Recipe) -> dict[str, Any]:
        named = {name: [part.strip() for part in getattr(recipe, name).split(",") if part.strip()]
                 for name in ("target_modules", "feedforward_modules")}
        return super().config(recipe) | (named if named["target_modules"] else {})
