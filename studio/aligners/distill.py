"""What GKD and GOLD share: a teacher, and samples that are given or written. No torch at import."""

from __future__ import annotations

from typing import Any, ClassVar

from studio.aligners.common import AlignRecipe
from studio.aligners.online import OnlineMethod
from studio.errors import StudioError
from studio.recipe import field
from studio.trainers.common import LengthFields

GKD = "trl.experimental.gkd.GKDConfig"


class DistillFields(LengthFields, AlignRecipe):
    """Fields of a distillation."""

    teacher_model: str = field(
        "", "Teacher", "The model that is learned from, usually a larger or a tuned one. It is only read.",
        widget="model",
        max_length=1000)
    lmbda: float = field(
        0.5, "Share of own answers", "How often the model learns from what it wrote itself, instead of from the given "
        "answers. 0 = never, which is quickest; higher mends the mistakes it really makes.", group="method",
        library=GKD, ge=0, le=1)
    beta: float = field(
        0.5, "Beta", "Which divergence is lowered. Towards 0 it covers all that the teacher would say, towards 1 it "
        "settles on what the teacher likes best; 0.5 is between.", group="method", library=GKD, ge=0, le=1)
    temperature: float = field(
        0.9, "Temperature", "How freely its own answers are drawn. Higher explores more.", group="method", library=GKD,
        gt=0,
        le=5)
    seq_kd: bool = field(
        False, "The teacher answers", "On: where the model does not learn from its own answers, the teacher writes "
        "them, instead of those of the data.", group="method", library=GKD)


class DistillMethod(OnlineMethod):
    """GKD and GOLD."""

    shape = "chats"
    arguments = ("lmbda", "beta", "temperature", "seq_kd", "max_length")
    forwards = 1.4
    same_words: ClassVar[bool] = False

    @classmethod
    def teacher(cls, recipe: Any) -> Any:
        from studio.library import refs

        return refs.resolve_model(recipe.teacher_model)

    @classmethod
    def check(cls, recipe: Any) -> None:
        from studio.library import refs

        if not recipe.teacher_model:
            raise StudioError("There is no teacher.", "Choose the model to learn from.", "teacher_model")
        if recipe.chat_template == "none":
            raise StudioError("Distillation reads chats, and the chat template is set to none.",
                              "Set 'Chat template' to automatic.", "chat_template")
        try:
            refs.check_writes(cls.teacher(recipe), "teacher_model")
            refs.check_loads(cls.teacher(recipe), "teacher_model")
        except StudioError as err:
            raise StudioError(err.message, err.hint, "teacher_model") from err
        super().check(recipe)
        if recipe.teacher_model == recipe.model:
            raise StudioError("The teacher is the model itself, which has nothing to learn from it.", "Choose another "
                              "one.",
                              "teacher_model")
        if cls.same_words:
            cls.same_vocabulary(recipe, "Use GOLD, which compares across tokenizers.")

    @classmethod
    def same_vocabulary(cls, recipe: Any, hint: str) -> None:
        """Refuse a teacher with another number of tokens.

        Raises:
            StudioError: in the field ``teacher_model``.
        """
        from studio.library import refs

        sizes = []
        for ref in (recipe.model, recipe.teacher_model):
            model = refs.resolve_model(ref)
            base = refs.resolve_model(model.base) if model.is_adapter and model.base else model
            sizes.append(base.meta.get("vocab_size"))
        if all(sizes) and sizes[0] != sizes[1]:
            raise StudioError(f"The teacher has {sizes[1]} tokens in its vocabulary, the model {sizes[0]}.", hint,
                              "teacher_model")

    @classmethod
    def parts(cls, recipe: Any, ctx: Any, tokenizer: Any) -> dict[str, Any]:
        from studio.library import refs
        from studio.trainers import load, plan, settings

        gpu = settings.has_gpu()
        ref = refs.fetched(cls.teacher(recipe))
        teacher = load.model(ref, plan.load_dtype(recipe, gpu, True), recipe.trust_remote_code, gpu, merge=True)
        return {"teacher_model": teacher.eval().requires_grad_(False)}

    @classmethod
    def outcome(cls, recipe: Any, trainer: Any) -> dict[str, Any]:
        trainer.ctx.artifacts[-1]["parents"].append({"ref": recipe.teacher_model, "role": "teacher"})
        return {}

    @classmethod
    def wrap(cls, trainer: type) -> type:
        from studio.aligners.rollouts import Distilled

        return Distilled.around(trainer)
