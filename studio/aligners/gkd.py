"""GKD: learns from a teacher's likelihoods, on given answers and on its own. Agarwal et al. 2023.

TRL's stable ``DistillationTrainer`` is the same with ``lmbda`` and ``temperature`` at 1 and nothing else: it has
neither given answers nor answers of the teacher, which a small model that writes badly needs to begin with.
"""

from __future__ import annotations

from typing import ClassVar

from studio.aligners.distill import DistillFields, DistillMethod
from studio.aligners.common import rate
from studio.recipe import field

GKD = "trl.experimental.gkd.GKDConfig"


class GkdRecipe(DistillFields):
    """Fields of a GKD run."""

    method: ClassVar[str] = "gkd"
    config: ClassVar[str] = GKD

    learning_rate: float = rate(5e-4, "1e-5 to 5e-5 (LoRA: ten times that)")
    max_new_tokens: int = field(
        48, "Longest own answer", "The model writes at most this many tokens where it learns from its own answers. 48 "
        "suits the starter; 128 to 1024 is usual for large models.", group="method", library=GKD, unit="tokens", ge=1,
        le=131072)


class Gkd(DistillMethod):
    """Generalized knowledge distillation."""

    title = "GKD"
    summary = "A smaller model learns from a larger one of the same vocabulary, by its likelihoods, word for word."
    paper = "https://arxiv.org/abs/2306.13649"
    group = "teacher"
    Recipe = GkdRecipe
    trainer = "trl.experimental.gkd.GKDTrainer"
    arguments = (*DistillMethod.arguments, "max_new_tokens")
    new_tokens = "max_new_tokens"
    same_words = True
