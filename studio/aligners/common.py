"""Recipe fields that the methods of alignment share. Names are those of TRL, transformers and PEFT."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

from studio.recipe import Recipe, field
from studio.trainers.common import (DataFields, ExtraFields, LearnFields, LengthFields, LoraFields, ModelFields,
                                    WatchFields)


class _Choice(Recipe):
    """What of the model is trained, and how the rest is held."""

    train: Literal["lora", "full"] = field(
        "lora", "Train", "A LoRA adapter needs little memory, and the frozen model beside it serves as the reference for "
        "free. All weights learn more and need several times the memory.", group="adapter",
        choices={"lora": "An adapter (LoRA)", "full": "All weights"})
    quant_type: Literal["none", "nf4", "fp4", "int8"] = field(
        "none", "Base held in", "How the frozen weights are kept in memory. 4 bits take a quarter of 16 bits, so that a "
        "larger model fits.", group="adapter", when={"train": ["lora"]},
        choices={"none": "Its own precision", "nf4": "4 bits (NF4)", "fp4": "4 bits (FP4)", "int8": "8 bits (LLM.int8)"})


class TrainFields(LoraFields, _Choice):
    """What of the model is trained: an adapter, which is the default, or all of its weights."""


def only_when(recipe: type[Recipe], names: Any, when: dict[str, list]) -> None:
    """Show inherited fields only while others have these values; the class they come from stays as it is."""
    for name in names:
        info = copy.copy(recipe.model_fields[name])
        info.json_schema_extra = info.json_schema_extra | {"when": info.json_schema_extra["when"] | when}
        recipe.__pydantic_fields__[name] = info


only_when(TrainFields, [name for name in LoraFields.model_fields if name != "name"], {"train": ["lora"]})


class TemplateFields(Recipe):
    """How conversations are written for the model."""

    chat_template: Literal["auto", "keep", "chatml", "none"] = field(
        "auto", "Chat template", "How roles are marked in the text. Keep automatic unless you know that the model needs "
        "another.", group="training",
        choices={"auto": "Automatic: the model's own, ChatML for a base without one", "keep": "The model's own",
                 "chatml": "ChatML", "none": "None: prompt and answer as plain text"})


class AlignRecipe(ExtraFields, WatchFields, LearnFields, TrainFields, TemplateFields, DataFields, ModelFields):
    """Everything the methods share."""

    kind: ClassVar[str] = "align"


class PreferenceRecipe(LengthFields, AlignRecipe):
    """Methods that learn from given answers, whose whole samples are cut at a length."""


def rate(starter: float, large: str) -> Any:
    """The learning rate field with the usual values of a method."""
    return field(starter, "Learning rate", "How large each step is. Too high: the model forgets how to write. Too low: "
                 f"nothing changes. {starter:g} suits the starter; {large} is usual for models of a billion and more.",
                 group="training", widget="log", library="trl.DPOConfig", gt=0, le=1.0)


def epochs(default: float = 3.0) -> Any:
    """The epochs field, with what suits the starter."""
    return field(default, "Epochs", "How often each example is seen. 1 to 3 is usual; more drifts away from the model it "
                 "began with.", group="training", library="trl.DPOConfig", gt=0, le=1000)
