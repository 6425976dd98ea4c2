"""Recipe fields that the methods of alignment share. Names are those of TRL, transformers and PEFT."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

from studio.recipe import Recipe, field
from studio.trainers.common import (DataFields, ExtraFields, LearnFields, LengthFields, LoraFields, ModelFields,
                                    SpreadFields, WatchFields)


class _Choice(Recipe):
    """What of the model is trained, and how the rest is held."""

    train: Literal["lora", "full"] = field(
        "lora", "Train", "A LoRA adapter needs little memory, and the frozen model beside it serves as the reference "
        "for free. All weights learn more and need several times the memory.", group="adapter",
        choices={"lora": "An adapter (LoRA)", "full": "All weights"})
    quant_type: Literal["none", "nf4", "fp4", "int8"] = field(
        "none", "Base held in", "How the frozen weights are kept in memory. 4 bits take a quarter of 16 bits, so "
        "that a larger model fits.", group="adapter", when={"train": ["lora"]}, choices={"none": "Its own precision",
                                                                                         "nf4": "4 bits (NF4)",
                                                                                         "fp4": "4 bits (FP4)",
                                                                                         "int8": "8 bits (LLM.int8)"})


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
        "auto", "Chat template", "How roles are marked in the text. Keep automatic unless you know that the model "
        "needs another.", group="training",
        choices={'auto': "Automatic: the model's own, ChatML for a base without one", 'keep': "The model's own",
                 "chatml": "ChatML", "none": "None: prompt and answer as plain text"})


class AlignRecipe(ExtraFields, WatchFields, SpreadFields, LearnFields, TrainFields, TemplateFields, DataFields,
                  ModelFields):
    """Everything the methods share."""

    kind: ClassVar[str] = "align"


class PreferenceRecipe(LengthFields, AlignRecipe):
    """Methods that learn from given answers, whose whole samples are cut at a length."""


class ReferenceFields(Recipe):
    """The frozen model that the trained one is compared with."""

    ref_model: str = field(
        "", "Reference model", "What the model is compared with. Left empty, it is the model as it was at the start, "
        "which is right unless you know otherwise.", group="method", widget="model",
        placeholder="the model itself, before the training", max_length=1000)
    precompute_ref_log_probs: bool = field(
        False, "Ask the reference first", "Computes what the reference says of all samples before the training, so "
        "that it need not stay in memory. Slower to begin, faster with several epochs.", group="method",
        library="trl.DPOConfig")
    sync_ref_model: bool = field(
        False, "Reference follows (TR-DPO)", "Moves the reference towards the trained model now and then (arXiv "
        "2404.09656), so that it may go further. Only when all weights are trained.", group="method",
        library="trl.DPOConfig")
    ref_model_mixup_alpha: float = field(
        0.6, "Share taken over", "How much of the trained model the reference takes over each time; 0.6 is the "
        "paper's. 1 makes it the trained model.", group="method", library="trl.DPOConfig",
        when={"sync_ref_model": [True]}, ge=0, le=1)
    ref_model_sync_steps: int = field(
        512, "Follows every", "Steps between two moves of the reference. The paper has 512; a short run needs fewer.",
        group="method", library="trl.DPOConfig", unit="steps", when={"sync_ref_model": [True]}, ge=1, le=10_000_000)


def rate(starter: float, large: str) -> Any:
    """The learning rate field with the usual values of a method."""
    return field(starter, "Learning rate", "How large each step is. Too high: the model forgets how to write. Too low: "
                 f"nothing changes. {starter:g} suits the starter; {large} is usual for models of a billion and more.",
                 group="training", widget="log", library="trl.DPOConfig", gt=0, le=1.0)


def epochs(default: float = 3.0) -> Any:
    """The epochs field, with what suits the starter."""
    return field(default, "Epochs", "How often each example is seen. 1 to 3 is usual; more drifts away from the model it "
                 "began with.", group="training", library="trl.DPOConfig", gt=0, le=1000)
