"""DPO: raises the better answer of a pair above the worse one. Rafailov et al. 2023."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from studio.aligners import reference
from studio.aligners.base import AlignMethod
from studio.aligners.common import PreferenceRecipe, ReferenceFields, epochs, rate
from studio.errors import StudioError
from studio.recipe import field

LIB = "trl.DPOConfig"
LOSSES = {"sigmoid": "DPO (sigmoid): the original", "sigmoid_norm": "DPO per token: longer answers are not favoured",
          "ipo": "IPO: does not run away on easy pairs", "hinge": "Hinge (SLiC): stops at a margin",
          "robust": "Robust DPO: some pairs are the wrong way round (needs label smoothing)",
          "exo_pair": "EXO (needs label smoothing, 0.001)", "nca_pair": "NCA: also raises the better answer itself",
          "bco_pair": "BCO: each answer judged by itself", "sppo_hard": "SPPO: pushes each towards winning or losing",
          "aot": "AOT: compares the batch as a whole (batch 4 or more)", "aot_unpaired": "AOT, pairs taken apart",
          "apo_zero": "APO zero: the better answers are better than the model's own",
          "apo_down": "APO down: the model's own answers are better than both",
          "discopop": "DiscoPOP: a loss found by search", "sft": "Plain imitation of the better answer",
          "0.8 sigmoid + 0.2 bco_pair + sft": "MPO: DPO, BCO and imitation mixed",
          "sigmoid + 0.2 sft": "DPO that also imitates: keeps the better answer likely (RPO)"}
NAMES = tuple(name for name in LOSSES if "+" not in name)
DIVERGING = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}


def mixed(text: str) -> tuple[list[str], list[float]]:
    """``"sigmoid + 0.5 sft"`` -> (names, weights) as TRL takes them.

    Raises:
        ValueError: not a sum of known losses.
    """
    names, weights = [], []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(?:(\d*\.?\d+)\s*\*?\s*)?([a-z_]+)\s*", part)
        if not match or match[2] not in NAMES:
            raise ValueError(f"'{part.strip()}' is no loss; write one of {', '.join(NAMES)}, or a sum such as "
                             "'sigmoid + 0.5 sft'")
        names.append(match[2])
        weights.append(float(match[1] or 1))
    if len(set(names)) < len(names):
        raise ValueError("each loss may stand in the sum once")
    if not any(weights):
        raise ValueError("at least one loss needs a weight above 0")
    return names, weights


class DpoRecipe(ReferenceFields, PreferenceRecipe):
    """Fields of a DPO run."""

    method: ClassVar[str] = "dpo"
    config: ClassVar[str] = LIB

    learning_rate: float = rate(5e-4, "5e-7 to 5e-6 (LoRA: ten times that)")
    num_train_epochs: float = epochs()
    beta: float = field(
        0.1, "Beta", "How strongly the model is held to what it was. Higher changes less; 0.1 is usual, up to 0.5 "
        "where the answers become odd.", group="method", library=LIB, gt=0, le=10)
    loss_type: str = field(
        "sigmoid", "Loss", "How a pair is learned from. Keep the original to begin with; Robust for noisy pairs, IPO "
        "where the margins run away. Several may be added up: 'sigmoid + 0.5 sft'.", group="method", choices=LOSSES,
        library=LIB, max_length=200)
    label_smoothing: float = field(
        0.0, "Pairs the wrong way round", "For Robust DPO: the share of pairs that you expect to be the wrong way "
        "round, e.g. 0.1. For EXO: 0.001. Other losses do not know it.", group="method", library=LIB, ge=0, lt=0.5)
    use_weighting: bool = field(
        False, "Weigh by likelihood (WPO)", "Pairs that the model itself could have written count more (arXiv "
        "2406.11827): good for pairs from other models.", group="method", library=LIB)
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = field(
        "reverse_kl", "Distance", "How the distance to the reference is measured (f-DPO, arXiv 2309.16240). Keep "
        "reverse KL; Jensen-Shannon keeps answers more varied.", group="advanced", library=LIB,
        choices={"reverse_kl": "Reverse KL", "forward_kl": "Forward KL", "js_divergence": "Jensen-Shannon",
                 "alpha_divergence": "Alpha divergence"})
    f_alpha_divergence_coef: float = field(
        0.5, "Alpha of the distance", "Between reverse (towards 0) and forward KL (towards 1); 0.5 is in the middle.",
        group="advanced", library=LIB, when={"f_divergence_type": ["alpha_divergence"]}, ge=0, le=2)
    ld_alpha: float | None = field(
        None, "Weight of the longer part (LD-DPO)", "What the longer answer says beyond the length of the shorter "
        "one counts this much (arXiv 2409.06411). Lower it where the answers grow long; empty: it counts fully.",
        group="advanced", library=LIB, ge=0, le=1)
    discopop_tau: float = field(0.05, "DiscoPOP temperature", "Shape of the DiscoPOP loss; keep the paper's 0.05.",
                                group="advanced", library=LIB, gt=0, le=10)

    @field_validator("loss_type")
    @classmethod
    def _known_losses(cls, value: str) -> str:
        mixed(value)
        return value


class Dpo(AlignMethod):
    """Direct preference optimization, with its further losses."""

    title = "DPO"
    summary = "Learns from pairs of a better and a worse answer, without a reward model. The one to begin with."
    paper = "https://arxiv.org/abs/2305.18290"
    Recipe = DpoRecipe
    trainer = "trl.DPOTrainer"
    shape = "pairs"
    reference = True
    forwards = 1.25
    arguments = ("beta", "max_length", "label_smoothing", "use_weighting", "f_divergence_type",
                 "f_alpha_divergence_coef", "ld_alpha", "discopop_tau", "precompute_ref_log_probs", "sync_ref_model",
                 "ref_model_mixup_alpha", "ref_model_sync_steps")

    @classmethod
    def settings(cls, recipe: DpoRecipe) -> dict[str, Any]:
        names, weights = mixed(recipe.loss_type)
        return super().settings(recipe) | {"loss_type": names, "loss_weights": weights}

    @classmethod
    def check(cls, recipe: DpoRecipe) -> None:
        names, _ = mixed(recipe.loss_type)
        smoothed = [name for name in names if name in ("robust", "exo_pair")]
        if smoothed and recipe.label_smoothing == 0:
            usual = "0.1" if "robust" in smoothed else "0.001"
            raise StudioError(f"The loss {smoothed[0]} needs a share of pairs that are the wrong way round.",
                              f"Begin with {usual}.", "label_smoothing")
        if recipe.label_smoothing and not smoothed:
            raise StudioError(f"The loss {recipe.loss_type} does not look at the share of wrong pairs.",
                              "Set it to 0, or choose Robust DPO.", "label_smoothing")
        if recipe.f_divergence_type != "reverse_kl" and (odd := [n for n in names if n not in DIVERGING]):
            raise StudioError(f"The loss {odd[0]} is only known for reverse KL.",
                              f"Keep reverse KL, or choose one of {', '.join(sorted(DIVERGING))}.", "f_divergence_type")
        if recipe.use_weighting and (odd := [n for n in names if n.startswith("aot")]):
            raise StudioError(f"The loss {odd[0]} sorts the answers of a batch, so pairs cannot be weighed.",
                              "Turn the weighing off, or choose another loss.", "use_weighting")
        if recipe.use_weighting and "sft" in names:
            raise StudioError("Plain imitation is one number for a batch, so its pairs cannot be weighed.",
                              "Turn the weighing off, or leave sft out of the sum.", "use_weighting")
        if recipe.per_device_train_batch_size < 2 and (odd := [n for n in names if n.startswith("aot")]):
            raise StudioError(f"The loss {odd[0]} compares the answers of a batch with each other.",
                              "Take at least 2, better 8.", "per_device_train_batch_size")
        super().check(recipe)
        reference.check(recipe)

    @classmethod
    def parts(cls, recipe: DpoRecipe, ctx: Any, tokenizer: Any) -> dict[str, Any]:
        return reference.parts(recipe)

    @classmethod
    def wrap(cls, trainer: type) -> type:
        return reference.wrap(trainer)
