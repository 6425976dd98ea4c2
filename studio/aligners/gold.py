"""GOLD: distillation from a teacher with another tokenizer. Patiño et al. 2025."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from studio.aligners.common import rate
from studio.aligners.distill import DistillFields, DistillMethod
from studio.errors import StudioError
from studio.recipe import field

GOLD = "trl.experimental.gold.GOLDConfig"


class GoldRecipe(DistillFields):
    """Fields of a GOLD run."""

    method: ClassVar[str] = "gold"
    config: ClassVar[str] = GOLD

    learning_rate: float = rate(5e-4, "1e-5 to 5e-5 (LoRA: ten times that)")
    max_completion_length: int = field(
        48, "Longest own answer", "The model writes at most this many tokens where it learns from its own answers. 48 "
        "suits the starter; 128 to 1024 is usual for large models.", group="method", library=GOLD, unit="tokens", ge=1,
        le=131072)
    top_p: float = field(
        0.95, "Top p", "Only the likeliest words that together make up this share are drawn; 1 = all. Less keeps "
        "nonsense out.",
        group="method", library=GOLD, gt=0, le=1)
    use_uld_loss: bool = field(
        False, "Another tokenizer", "On: the teacher cuts words differently, so likelihoods are compared by their "
        "order (ULD). Off: both have the same vocabulary.", group="method", library=GOLD)
    use_extended_uld: bool = field(
        True, "Align the words", "On: words that one of them cuts and the other does not are put together first. Off: "
        "compared place by place, for tokenizers that are not byte-level.", group="method", library=GOLD,
        when={"use_uld_loss": [True]})
    uld_token_merge_strategy: Literal["observed", "bayesian"] = field(
        "observed", "Words put together", "How the likelihood of a word is made of its pieces'. The second follows the "
        "chain rule.", group="method", library=GOLD, when={"use_uld_loss": [True]},
        choices={"observed": "By the pieces that were seen", "bayesian": "By the chain rule"})
    uld_use_hybrid_loss: bool = field(
        False, "Hybrid loss", "On: words that both have are compared as in GKD, only the rest by their order. Better "
        "where the vocabularies have much in common.", group="method", library=GOLD, when={"use_uld_loss": [True]})
    uld_crossentropy_weight: float = field(
        0.0, "Weight of the given answers", "Adds plain fine-tuning on the answers. 0 = only the teacher counts.",
        group="method", library=GOLD, when={"use_uld_loss": [True]}, ge=0, le=100)
    uld_distillation_weight: float = field(
        1.0, "Weight of the teacher", "How much the teacher's likelihoods count beside the given answers.",
        group="method",
        library=GOLD, when={"use_uld_loss": [True]}, ge=0, le=100)


class Gold(DistillMethod):
    """General online logit distillation."""

    title = "GOLD"
    summary = "As GKD, and the teacher may be of another family with another tokenizer."
    paper = "https://huggingface.co/spaces/HuggingFaceH4/on-policy-distillation"
    group = "teacher"
    Recipe = GoldRecipe
    trainer = "trl.experimental.gold.GOLDTrainer"
    arguments = (*DistillMethod.arguments, "max_completion_length", "top_p", "use_uld_loss", "use_extended_uld",
                 "uld_token_merge_strategy", "uld_use_hybrid_loss", "uld_crossentropy_weight",
                 "uld_distillation_weight")

    @classmethod
    def check(cls, recipe: Any) -> None:
        if recipe.max_completion_length >= recipe.max_length:
            raise StudioError(f"Own answers of {recipe.max_completion_length} tokens leave no room in samples of "
                              f"{recipe.max_length}.", "Lower it, or raise 'Longest sample'.", "max_completion_length")
        super().check(recipe)
        if not recipe.use_uld_loss:
            cls.same_vocabulary(recipe, "Turn on 'Another tokenizer'.")

    @classmethod
    def settings(cls, recipe: Any) -> dict[str, Any]:
        from studio.trainers import load

        own = super().settings(recipe)
        if recipe.use_uld_loss:
            own["teacher_tokenizer_name_or_path"] = load.tokenizer(cls.teacher(recipe),
                                                                   recipe.trust_remote_code).name_or_path
        return own
