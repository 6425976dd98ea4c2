"""Fine-tuning methods that train a PEFT adapter: the recipe's fields are the arguments of PEFT's own config class."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from studio.method import Estimate, Method
from studio.recipe import Recipe, field
from studio.trainers.common import SFT, DeeperLoraFields, numbers

RATE = ("How large each step is. Too high: the loss jumps or becomes NaN. Too low: it hardly falls. {starter:g} suits the "
        "starter; {large} is usual for models of a billion and more.")


def rate(starter: float, large: str) -> Any:
    """The learning rate field with the usual values of a method."""
    return field(starter, "Learning rate", RATE.format(starter=starter, large=large), group="training", widget="log",
                 library=SFT, gt=0, le=1.0)


def epochs() -> Any:
    """The epochs field, with what suits the starter."""
    return field(6.0, "Epochs", "How often each example is seen. Small models need more (6 suits the starter), models of a "
                 "billion and more 1 to 3. Too many learn by heart: stop when the validation loss rises.",
                 group="training", library=SFT, gt=0, le=1000)


def targets(library: str, default: str = "all-linear") -> Any:
    """Which layers get an adapter."""
    return field(default, "Where", "Layers that get an adapter: all-linear, or names with commas between them. Fewer layers "
                 "is smaller and learns less.", group="adapter", library=library, max_length=400,
                 choices={"all-linear": "All linear layers", "q_proj,v_proj": "Attention: query and value",
                          "q_proj,k_proj,v_proj,o_proj": "Attention: all four"})


class AdapterMethod(Method):
    """A method whose result is an adapter on a frozen model.

    Attributes:
        peft: Name of the config class in ``peft``.
        arguments: Recipe fields that it takes under their own names.
    """

    group: ClassVar[str] = "adapter"
    peft: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]]

    @classmethod
    def config(cls, recipe: Any) -> dict[str, Any]:
        """Arguments of the PEFT config."""
        values = {name: getattr(recipe, name) for name in cls.arguments}
        if "target_modules" in values:
            names = [part.strip() for part in values["target_modules"].split(",") if part.strip()]
            values["target_modules"] = "all-linear" if names in ([], ["all-linear"]) else names
        return {"task_type": "CAUSAL_LM"} | values

    @classmethod
    def peft_config(cls, recipe: Any, steps: int) -> Any:
        """The PEFT config itself, for a run of so many steps."""
        import peft

        return getattr(peft, cls.peft)(**cls.config(recipe))

    @classmethod
    def quantization(cls, recipe: Any) -> dict[str, Any]:
        """Arguments of transformers' ``BitsAndBytesConfig`` for the frozen base; empty: it is not quantized."""
        return {}

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.trainers import sft

        sft.check(recipe)

    @classmethod
    def estimate(cls, recipe: Any) -> Estimate:
        from studio.trainers import plan

        return plan.estimate(recipe, lora=True)

    @classmethod
    def script(cls, recipe: Any) -> str:
        from studio.trainers import script

        return script.write(recipe, (cls.peft, cls.config(recipe)), cls.quantization(recipe))

    @classmethod
    def run(cls, recipe: Any, ctx: Any) -> dict[str, Any]:
        from studio.trainers import sft

        return sft.run(recipe, ctx, adapter=cls.peft_config, quantization=cls.quantization(recipe))


class LoraMethod(AdapterMethod):
    """LoRA in any of its forms."""

    peft = "LoraConfig"
    arguments = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")

    @classmethod
    def config(cls, recipe: Any) -> dict[str, Any]:
        made = super().config(recipe)
        if not isinstance(recipe, DeeperLoraFields):  # an alignment asks for less
            return made
        start = recipe.init_lora_weights
        if start not in ("default", "loftq"):  # which puts its own values in after the model is wrapped
            made["init_lora_weights"] = start
        if recipe.layers_to_transform:
            made["layers_to_transform"] = numbers(recipe.layers_to_transform)
        if whole := [part.strip() for part in recipe.modules_to_save.split(",") if part.strip()]:
            made |= {"modules_to_save": whole, "ensure_weight_tying": True}
        return made | ({"bias": recipe.bias} if recipe.bias != "none" else {})


class VirtualTokens(Recipe):
    """Methods that put learned tokens before the text."""

    num_virtual_tokens: int = field(20, "Learned tokens", "How many tokens are learned and put before every text. More can "
                                    "learn more and leave less room for the text; 10 to 100 is usual.",
                                    group="adapter", library="peft.PromptTuningConfig", unit="tokens", ge=1, le=1000)

    @model_validator(mode="after")
    def _a_row_each(self) -> VirtualTokens:
        if getattr(self, "packing", False) or getattr(self, "padding_free", False):
            raise ValueError("the learned tokens stand before a whole row, so samples may not share one: turn off packing and "
                             "padding-free")
        return self
