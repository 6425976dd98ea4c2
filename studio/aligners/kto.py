"""KTO: learns from answers that were marked good or bad, each by itself. Ethayarajh et al. 2024."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.aligners import reference
from studio.aligners.base import AlignMethod
from studio.aligners.common import PreferenceRecipe, ReferenceFields, epochs, rate
from studio.errors import StudioError
from studio.method import Estimate
from studio.recipe import field

LIB = "trl.KTOConfig"


class KtoRecipe(ReferenceFields, PreferenceRecipe):
    """Fields of a KTO run."""

    method: ClassVar[str] = "kto"
    config: ClassVar[str] = LIB

    learning_rate: float = rate(5e-4, "5e-7 to 5e-6 (LoRA: ten times that)")
    num_train_epochs: float = epochs(5.0)
    per_device_train_batch_size: int = field(
        8, "Batch size", "Answers a step looks at together; at least 2, because each is compared with the others. 8 "
        "or more is steadier.", group="training", library=LIB, ge=2, le=4096)
    beta: float = field(
        0.1, "Beta", "How strongly the model is held to what it was. Higher changes less; 0.1 is usual.",
        group="method", library=LIB, gt=0, le=10)
    loss_type: Literal["kto", "apo_zero_unpaired"] = field(
        "kto", "Loss", "KTO measures each answer against how far the model has moved; APO does not, and is quicker.",
        group="method", library=LIB, choices={"kto": "KTO",
                                              "apo_zero_unpaired": "APO zero, unpaired (arXiv 2408.06266)"})
    desirable_weight: float = field(
        1.0, "Weight of good answers", "Raise it where good answers are rare. The estimate says which value balances "
        "your data; change only one of the two.", group="method", library=LIB, gt=0, le=100)
    undesirable_weight: float = field(
        1.0, "Weight of bad answers", "Raise it where bad answers are rare. The estimate says which value balances "
        "your data; change only one of the two.", group="method", library=LIB, gt=0, le=100)


class Kto(AlignMethod):
    """Kahneman-Tversky optimization."""

    title = "KTO"
    summary = "Learns from single answers marked good or bad, as logs of a service hold them; pairs are not needed."
    paper = "https://arxiv.org/abs/2402.01306"
    Recipe = KtoRecipe
    trainer = "trl.KTOTrainer"
    shape = "unpaired"
    reference = True
    forwards = 2.0  # the answers to other questions that its KL is estimated on go through both models too
    arguments = ("beta", "max_length", "loss_type", "desirable_weight", "undesirable_weight",
                 "precompute_ref_log_probs", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps")

    @classmethod
    def check(cls, recipe: KtoRecipe) -> None:
        super().check(recipe)
        reference.check(recipe)
        good, bad = marks(recipe)
        if (good or bad) and not (good and bad):
            raise StudioError(f"All of the answers are {'good' if good else 'bad'}; KTO needs both.",
                              "Add answers of the other kind, or fine-tune on the good ones." if good
                              else "Add good answers.", "dataset")

    @classmethod
    def estimate(cls, recipe: KtoRecipe) -> Estimate:
        made = super().estimate(recipe)
        if note := balance(*marks(recipe), recipe):
            made.notes.append(note)
        return made

    @classmethod
    def parts(cls, recipe: KtoRecipe, ctx: Any, tokenizer: Any) -> dict[str, Any]:
        return reference.parts(recipe)

    @classmethod
    def fitting(cls, recipe: KtoRecipe, ctx: Any, tokenizer: Any, rows: list) -> list:
        kept = super().fitting(recipe, ctx, tokenizer, rows)
        good = sum(bool(row["label"]) for row in kept)
        if note := balance(good, len(kept) - good, recipe):
            ctx.warning("unbalanced", note, "Change one of the two weights.")
        return kept

    @classmethod
    def wrap(cls, trainer: type) -> type:
        return reference.wrap(trainer)


def marks(recipe: Any) -> tuple[int, int]:
    """(good, bad) answers among the first rows of the data; (0, 0) where they cannot be read."""
    from studio.aligners import data

    try:
        rows = data.glance(recipe, "unpaired").rows
    except StudioError:
        return 0, 0
    good = sum(bool(row["label"]) for row in rows)
    return good, len(rows) - good


def balance(good: int, bad: int, recipe: Any) -> str:
    """Which weight would balance good and bad answers, or nothing where they are near enough. KTO paper, equation 8:
    the weighted shares should stand between 1 : 1 and 4 : 3."""
    if not (good and bad):
        return ""
    share = recipe.desirable_weight * good / (recipe.undesirable_weight * bad)
    if 1 <= round(share, 2) <= 1.34 or 0.75 <= round(share, 2) <= 1:
        return ""
    name, value = ("Weight of good answers", bad * recipe.undesirable_weight / good) if share < 1 else \
        ("Weight of bad answers", good * recipe.desirable_weight / bad)
    return f"{good} good and {bad} bad answers: '{name}' {value:.2g} would balance them."
