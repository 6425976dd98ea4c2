"""A mixture of experts from several models of one shape. mergekit-moe.

Attention, embeddings and norms come from the base model, the feed-forward part of each layer from the experts. A gate in
every layer sends each token to the experts whose prompts it resembles; nothing is trained.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from studio.errors import StudioError
from studio.library import refs
from studio.mergers import tools
from studio.method import Estimate, Method
from studio.recipe import Recipe, field, write_yaml

KINDS = {"mixtral": ("llama", "mistral"), "qwen": ("qwen2",), "qwen3": ("qwen3",)}  # family -> model types it is made of
BETWEEN = "|"  # stands between the prompts of one expert
_SAME = {"model_type": "architecture", "layers": "number of layers", "widths": "width", "vocab_size": "vocabulary"}


class MoeRecipe(Recipe):
    """Which experts, and what is sent to them."""

    kind: ClassVar[str] = "merge"
    method: ClassVar[str] = "moe"

    base_model: str = field("starter", "Base model", "Gives everything but the experts: attention, embeddings, tokenizer. "
                            "Best the model that the experts were tuned from.", widget="model", max_length=1000)
    experts: list[str] = field([], "Experts", "Two or more models of the base's shape, each good at something. A power of "
                               "two is needed to run the result in llama.cpp.", widget="models", max_length=64)
    positive_prompts: list[str] = field(
        [], "Prompts for each expert", "One line for each expert, in their order: questions like those it should get, "
        "several with | between them.", widget="lines", max_length=64, placeholder="What is 2 plus 3? | Add 7 and 8.",
        when={"gate_mode": ["hidden", "hidden_avg", "cheap_embed"]})
    negative_prompts: list[str] = field(
        [], "Prompts to keep away", "One line for each expert as above: questions it should not get. Left empty, there are "
        "none; a single - is none for that expert.", widget="lines", max_length=64,
        when={"gate_mode": ["hidden", "hidden_avg", "cheap_embed"]})
    gate_mode: Literal["hidden", "hidden_avg", "cheap_embed", "random"] = field(
        "hidden", "Gates are made from", "The base's inner state at the last token of the prompts is the best, and has to "
        "run the base. Embeddings alone need little memory. Random gates are for training afterwards.",
        choices={"hidden": "The state at the last token", "hidden_avg": "The mean state of the prompt",
                 "cheap_embed": "The mean embedding of the prompt", "random": "Chance"})
    experts_per_token: int = field(2, "Experts for each token", "More is slower, and nearer to an average of all.", ge=1,
                                   le=64)
    dtype: Literal["base", "float32", "bfloat16", "float16"] = field(
        "base", "Saved precision", "As the base is the usual choice.",
        choices={"base": "As the base", "float32": "32 bits", "bfloat16": "16 bits (bfloat16)",
                 "float16": "16 bits (float16)"})
    architecture: Literal["auto", "mixtral", "qwen", "qwen3"] = field(
        "auto", "Made as", "Mixtral from Llama and Mistral models, Qwen MoE from Qwen 2 (with a shared expert), Qwen3 MoE from "
        "Qwen 3.", group="advanced", choices={"auto": "As fits the base", "mixtral": "Mixtral", "qwen": "Qwen MoE",
                                              "qwen3": "Qwen3 MoE"})
    shared_expert: str = field("", "Shared expert", "An expert that every token goes through; only Qwen MoE has one, and "
                               "needs it.", widget="model", group="advanced", max_length=1000)
    shared_prompts: str = field("", "Prompts for the shared expert", "Questions like those it should weigh most in, several "
                                "with | between them.", group="advanced", max_length=10_000)
    noise_scale: float = field(0.0, "Noise", "Adds so much noise to the experts' weights, so that a training afterwards finds "
                               "them different. 0 = none.", group="advanced", ge=0, le=1)
    residual_scale: float = field(1.0, "Weight of the experts' output", "Scales what each expert adds to the layer's result.",
                                  group="advanced", gt=0, le=10)
    allow_all_same: bool = field(False, "Allow the same model for all", "A mixture of equal experts answers as one of them, "
                                 "and is only useful to be trained afterwards.", group="advanced")
    random_seed: int = field(42, "Seed", "For random gates and noise.", group="advanced", ge=0, le=2**32 - 1)
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")

    @model_validator(mode="before")
    @classmethod
    def _as_mergekit_writes_it(cls, values: Any) -> Any:
        """``experts`` as a list of ``{source_model, positive_prompts, negative_prompts}`` is read too."""
        if not isinstance(values, dict) or not isinstance(values.get("experts"), list):
            return values
        experts = values["experts"]
        if not experts or not all(isinstance(one, dict) for one in experts):
            return values
        known = {"source_model", "positive_prompts", "negative_prompts"}
        for one in experts:
            if extra := set(one) - known:
                raise ValueError(f"an expert has {', '.join(sorted(known))}; not {', '.join(sorted(map(str, extra)))}")
        lines = {key: [_line(one.get(key)) for one in experts] for key in ("positive_prompts", "negative_prompts")}
        made = {key: value for key, value in lines.items() if any(line != "-" for line in value)}
        return values | made | {"experts": [str(one.get("source_model", "")) for one in experts]}


class Moe(Method):
    """Models of one shape as experts of one model."""

    title = "Mixture of experts"
    group = "experts"
    summary = "Puts several tuned models side by side into one; each token goes to the experts it fits."
    paper = "https://arxiv.org/abs/2403.13257"
    Recipe = MoeRecipe

    @classmethod
    def check(cls, recipe: MoeRecipe) -> None:
        from studio import hardware

        models = cls._models(recipe)
        _prompts(recipe)
        _family(recipe, models)
        count = len(recipe.experts)
        if recipe.experts_per_token > count:
            raise StudioError(f"A token cannot go to {recipe.experts_per_token} of {count} experts.",
                              "Lower it, or add experts.", "experts_per_token")
        if len(set(recipe.experts)) == 1 and not recipe.allow_all_same:
            raise StudioError("All experts are the same model, so the result would answer as that one does.",
                              "Choose different models, or allow it to train the result afterwards.", "experts")
        if needed := cls._bytes(recipe, models):
            hardware.need_disk(needed, "The mixture", "experts")

    @classmethod
    def estimate(cls, recipe: MoeRecipe) -> Estimate:
        models = cls._models(recipe)
        parameters, needed = cls._parameters(recipe, models), cls._bytes(recipe, models)
        notes = []
        if parameters:
            one = tools.facts(models[0])["parameters"]
            notes = [f"The result has about {parameters / 1e6:,.1f} million weights, {parameters / one:.1f} times the base's; "
                     f"each token uses those of {recipe.experts_per_token} experts.", "Memory is an estimate."]
        count = len(recipe.experts)
        if count & (count - 1):
            notes.append(f"{count} experts are no power of two: llama.cpp cannot run the result.")
        held = int((tools.size(models[0], "bfloat16") if recipe.gate_mode.startswith("hidden") else 0) + 700_000_000)
        return Estimate(memory=held + needed // 4 if needed else None, disk=needed or None, notes=notes)

    @classmethod
    def run(cls, recipe: MoeRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import load

        began = time.time()
        load.quiet()
        models = cls._models(recipe)
        ctx.progress(0, 1)
        try:
            with tools.whole(models, ctx, recipe.trust_remote_code) as folders, tools.folder(ctx) as part:
                told = cls._built(recipe, ctx, models, folders, part)
                parameters = cls._finished(recipe, models, folders, part)
        except tools.Stopped:
            return {}
        for text in told:
            ctx.warning("mergekit", text)
        name = recipe.name or f"{models[0].label} × {len(recipe.experts)} experts"[:80]
        family = _family(recipe, models)
        rows = [("Parameters", parameters), ("Experts", len(recipe.experts)), ("Experts for each token",
                recipe.experts_per_token), ("Gates from", recipe.gate_mode)]
        intro = (f"A mixture of {len(recipe.experts)} experts on {models[0].label} (`{recipe.base_model}`), made by "
                 f"`mergekit-moe` as {family}. Its gates come from prompts and are not trained.")
        (ctx.output / "README.md").write_text(tools.card(recipe, name, intro, models, rows=rows, tags=["moe"]), "utf-8")
        ctx.artifact("model", ctx.output, name, {"method": "merge/moe", "parameters": parameters, "experts": len(recipe.experts)},
                     [(recipe.base_model, "base"), *((ref, "parent") for ref in dict.fromkeys(recipe.experts)),
                      *([(recipe.shared_expert, "parent")] if recipe.shared_expert else [])])
        ctx.progress(1, 1)
        return {"parameters": parameters, "experts": len(recipe.experts), "architecture": family,
                "seconds": round(time.time() - began, 2)}

    @classmethod
    def _built(cls, recipe: MoeRecipe, ctx: Any, models: list, folders: list[str], part: Path) -> list[str]:
        """Runs the script; returns what it warned of."""
        from mergekit.scripts import moe

        path = ctx.run_dir / "mergekit_moe.yml"
        path.write_text(write_yaml(config(recipe, folders, _family(recipe, models))), "utf-8")
        arguments = [str(path), str(part), "--no-copy-tokenizer", "--no-write-model-card", "--random-seed",
                     str(recipe.random_seed), *(["--trust-remote-code"] if recipe.trust_remote_code else []),
                     *(["--i-understand-this-is-not-useful-without-training"] if recipe.allow_all_same else [])]
        bars = {"expert prompts": (0.1, 0.5), "Weights": (0.5, 0.6), "Expert weights": (0.6, 0.95),
                "Router weights": (0.95, 1.0)}
        modules = [f"mergekit.moe.{name}" for name in ("router", "common", "mixtral", "qwen", "qwen3")]
        with tools.watched(ctx, modules, bars):
            return tools.script(moe.main, arguments)

    @staticmethod
    def _finished(recipe: MoeRecipe, models: list, folders: list[str], part: Path) -> int:
        """The base's own tokenizer (the script's is padded for its prompts) and generation settings beside the weights."""
        from transformers import AutoTokenizer, GenerationConfig

        AutoTokenizer.from_pretrained(folders[0], trust_remote_code=recipe.trust_remote_code).save_pretrained(part)
        if (Path(folders[0]) / "generation_config.json").is_file():
            GenerationConfig.from_pretrained(folders[0]).save_pretrained(part)
        return tools.parameters(part)

    @staticmethod
    def _models(recipe: MoeRecipe) -> list[refs.ModelRef]:
        """Base, experts, shared expert.

        Raises:
            StudioError: too few, or of different shapes.
        """
        if len(recipe.experts) < 2:
            raise StudioError("A mixture needs at least two experts.", "Choose more models.", "experts")
        base = tools.source(recipe.base_model, "base_model")
        models = [base, *(tools.source(ref, "experts") for ref in recipe.experts)]
        tools.same(models, _SAME, "experts")
        if recipe.shared_expert:
            models.append(tools.source(recipe.shared_expert, "shared_expert"))
            tools.same([base, models[-1]], _SAME, "shared_expert")
        return models

    @staticmethod
    def _parameters(recipe: MoeRecipe, models: list) -> int:
        """Weights of the result; 0 where the base's shape is not known."""
        known = tools.facts(models[0])
        widths, layers = known.get("widths") or [], known.get("layers")
        if len(widths) != 2 or not layers or not known.get("parameters"):
            return 0
        expert, count = 3 * widths[0] * widths[1] * layers, len(recipe.experts) - 1 + bool(recipe.shared_expert)
        return known["parameters"] + expert * count + widths[0] * len(recipe.experts) * layers

    @classmethod
    def _bytes(cls, recipe: MoeRecipe, models: list) -> int:
        word = recipe.dtype if recipe.dtype != "base" else tools.facts(models[0]).get("dtype") or ""
        return cls._parameters(recipe, models) * tools.BYTES.get(word, 4)


def config(recipe: MoeRecipe, folders: list[str], family: str) -> dict[str, Any]:
    """The configuration that mergekit-moe reads, with the folders of :func:`studio.mergers.tools.whole`."""
    positive, negative = _prompts(recipe)
    more = {key: value for key, value, plain in (("noise_scale", recipe.noise_scale, 0.0),
                                                ("residual_scale", recipe.residual_scale, 1.0)) if value != plain}
    experts = [{"source_model": folders[number + 1]} | ({"positive_prompts": positive[number]} if positive[number] else {})
               | ({"negative_prompts": negative[number]} if negative[number] else {}) | more
               for number in range(len(recipe.experts))]
    made: dict[str, Any] = {"base_model": folders[0], "gate_mode": recipe.gate_mode, "architecture": _NAMES[family],
                            "experts_per_token": recipe.experts_per_token, "experts": experts}
    if recipe.dtype != "base":
        made["dtype"] = recipe.dtype
    if recipe.shared_expert:
        prompts = _split(recipe.shared_prompts)
        made["shared_experts"] = [{"source_model": folders[-1]} | ({"positive_prompts": prompts} if prompts else {}) | more]
    return made


_NAMES = {"mixtral": "Mixtral", "qwen": "Qwen MoE", "qwen3": "Qwen3 MoE"}  # as mergekit calls them


def _family(recipe: MoeRecipe, models: list) -> str:
    """What kind of mixture is made.

    Raises:
        StudioError: mergekit has none for these models, or lacks what it needs.
    """
    kind = tools.facts(models[0]).get("model_type")
    fits = next((family for family, kinds in KINDS.items() if kind in kinds), "")
    if not fits and kind is not None:
        raise StudioError(f"A mixture can be made of Llama, Mistral, Qwen 2 and Qwen 3 models; {models[0].label} is {kind}.",
                          "Choose another base and experts tuned from it.", "base_model")
    family = recipe.architecture if recipe.architecture != "auto" else fits or "mixtral"
    if fits and family != fits:
        raise StudioError(f"{_NAMES[family]} cannot be made of {kind} models.", "Leave it at what fits the base.",
                          "architecture")
    if family == "qwen" and not recipe.shared_expert:
        raise StudioError("A Qwen MoE has an expert that every token goes through.",
                          "Choose a shared expert; the base itself will do.", "shared_expert")
    if family == "qwen" and recipe.gate_mode != "random" and not _split(recipe.shared_prompts):
        raise StudioError("The shared expert has no prompts.", "Write some of the questions it should weigh most in.",
                          "shared_prompts")
    if family != "qwen" and recipe.shared_expert:
        raise StudioError(f"{_NAMES[family]} has no shared expert.", "Leave it empty, or use Qwen 2 models.", "shared_expert")
    return family


def _prompts(recipe: MoeRecipe) -> tuple[list[list[str]], list[list[str]]]:
    """(positive, negative) prompts of each expert.

    Raises:
        StudioError: missing, too many, or the same for all.
    """
    count = len(recipe.experts)
    none: list[list[str]] = [[] for _ in range(count)]
    if recipe.gate_mode == "random":
        return none, none
    for name, word in (("positive_prompts", "prompts"), ("negative_prompts", "prompts to keep away")):
        lines = getattr(recipe, name)
        if len(lines) != count and (lines or name == "positive_prompts"):
            raise StudioError(f"There are {len(lines)} lines of {word} for {count} experts.", "Write one line for each expert, "
                              "in their order.", name)
    positive, negative = [_split(line) for line in recipe.positive_prompts], [_split(line) for line in recipe.negative_prompts]
    for number, prompts in enumerate(positive):
        if not prompts:
            raise StudioError(f"Expert {number + 1} has no prompt, so nothing would be sent to it.",
                              "Write a question it should get.", "positive_prompts")
    negative = negative or none
    if all(pair == (positive[0], negative[0]) for pair in zip(positive, negative, strict=True)):
        raise StudioError("All experts have the same prompts, so nothing tells them apart.",
                          "Write for each what it is good at.", "positive_prompts")
    return positive, negative


def _split(line: str) -> list[str]:
    return [prompt for part in line.split(BETWEEN) if (prompt := part.strip()) and prompt != "-"]


def _line(prompts: Any) -> str:
    """mergekit's list of prompts as one line."""
    if isinstance(prompts, str):
        prompts = [prompts]
    if prompts and any(BETWEEN in str(prompt) for prompt in prompts):
        raise ValueError(f"a prompt may not contain {BETWEEN}, which stands between prompts")
    return f" {BETWEEN} ".join(" ".join(str(prompt).split()) for prompt in prompts or []) or "-"
