"""Several adapters of one base become one adapter. PEFT's ``add_weighted_adapter``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.library import bases, refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

PEFT = "peft.tuners.lora.model.LoraModel.add_weighted_adapter"
ONE_RANK = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")  # add up the factors, so these must match
SPARSE = ("ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd", "magnitude_prune",
          "magnitude_prune_svd")
SVD = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
VOTED = ("ties", "ties_svd", "dare_ties", "dare_ties_svd")


class AdaptersRecipe(Recipe):
    """Which adapters, and how they are added up."""

    kind: ClassVar[str] = "merge"
    method: ClassVar[str] = "adapters"

    adapters: list[str] = field([], "Adapters", "Two or more LoRA adapters that were trained on the same base.",
                                widget="models", max_length=16)
    weights: list[float] = field([], "Weights", "One number for each adapter, in their order: 1 keeps its whole effect, a "
                                 "number below 0 takes it away. Left empty, each counts 1.", widget="lines", max_length=16,
                                 placeholder="1.0")
    combination_type: Literal["cat", "svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties",
                              "dare_ties_svd", "magnitude_prune", "magnitude_prune_svd"] = field(
        "cat", "Combined by", "Side by side is exact and adds the ranks up. SVD is the best copy of a chosen rank. Adding the "
        "factors keeps the rank, and is a rough copy. TIES, DARE and pruning drop small or random changes, so that "
        "adapters disturb each other less.",
        choices={"cat": "Side by side (exact)", "svd": "SVD", "linear": "Adding the factors", "ties": "TIES",
                 "ties_svd": "TIES, then SVD", "dare_linear": "DARE, added", "dare_linear_svd": "DARE, then SVD",
                 "dare_ties": "DARE and TIES", "dare_ties_svd": "DARE and TIES, then SVD",
                 "magnitude_prune": "Pruning by size", "magnitude_prune_svd": "Pruning by size, then SVD"})
    density: float = field(0.5, "Density", "Share of each adapter's numbers that is kept. Lower disturbs less and forgets "
                           "more.", when={"combination_type": list(SPARSE)}, gt=0, le=1)
    majority_sign_method: Literal["total", "frequency"] = field(
        "total", "Signs are settled by", "Where adapters pull in opposite directions: by the sum of what they want, or by "
        "how many want it.", choices={"total": "The sum", "frequency": "The number of adapters"},
        when={"combination_type": list(VOTED)})
    svd_rank: int = field(0, "Rank of the result", "Higher is nearer to the exact sum and larger. 0 = the highest rank of the "
                          "adapters.", when={"combination_type": list(SVD)}, ge=0, le=4096)
    svd_clamp: float = field(0.0, "Clamp", "Cuts the largest numbers of the SVD off at this quantile. 0 = not at all.",
                             group="advanced", when={"combination_type": list(SVD)}, ge=0, lt=1)
    random_seed: int = field(42, "Seed", "DARE drops at random; the same seed drops the same.", group="advanced", ge=0,
                             le=2**32 - 1)
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")


class MergeAdapters(Method):
    """Adapters of one base, added up."""

    title = "Adapters into one"
    group = "adapters"
    summary = "Adds several LoRA adapters of one base up to a single adapter: each brings its skill."
    paper = "https://huggingface.co/docs/peft/developer_guides/model_merging"
    Recipe = AdaptersRecipe

    @classmethod
    def check(cls, recipe: AdaptersRecipe) -> None:
        from studio import hardware

        adapters, base = cls._family(recipe)
        if recipe.combination_type in ONE_RANK:
            ranks = [adapter.meta.get("r") for adapter in adapters]
            if len(set(ranks)) > 1:
                raise StudioError(f"The adapters have different ranks ({', '.join(map(str, ranks))}), and this way needs one.",
                                  "Choose side by side or one with SVD.", "combination_type")
        hardware.need_disk(cls._size(recipe, adapters), "The adapter")

    @classmethod
    def estimate(cls, recipe: AdaptersRecipe) -> Estimate:
        adapters, base = cls._family(recipe)
        parameters = base.meta.get("parameters")
        notes = [text for adapter in adapters if (told := bases.replaced(adapter)) and (text := " ".join(told))]
        if recipe.combination_type == "cat":
            notes.append(f"The result has rank {sum(adapter.meta.get('r') or 0 for adapter in adapters)}.")
        held = sum(adapter.meta.get("size") or 0 for adapter in adapters)
        return Estimate(memory=int(parameters * 4 + held * 3 + 600_000_000) if parameters else None,
                        disk=cls._size(recipe, adapters), notes=[*notes, "Memory is an estimate."])

    @classmethod
    def run(cls, recipe: AdaptersRecipe, ctx: Any) -> dict[str, Any]:
        from studio.mergers import tools
        from studio.trainers import finish, load

        began = time.time()
        load.quiet()
        adapters, base = cls._family(recipe)
        for adapter in adapters:
            if told := bases.replaced(adapter):
                ctx.warning("base-replaced", *told)
        ctx.progress(0, len(adapters) + 2)
        local = [load.fetch(adapter, ctx) for adapter in adapters]
        if None in local or ctx.stop_requested:
            return {}
        bases.keep(ctx.run_dir, base.ref, False)
        model = cls._loaded(recipe, local, ctx)
        if model is None:
            return {}
        combine(model, [f"part{i}" for i in range(len(local))], recipe)
        if ctx.stop_requested:
            return {}
        rank = model.peft_config["default"].r
        parameters = sum(p.numel() for name, p in model.named_parameters() if ".default" in name)
        finish.save(model, load.tokenizer(local[0], recipe.trust_remote_code), ctx.output)
        name = recipe.name or " + ".join(adapter.label for adapter in adapters)[:80]
        weights = recipe.weights or [1.0] * len(adapters)
        intro = (f"{len(adapters)} adapters of {base.label} (`{base.ref}`), added up by PEFT's `add_weighted_adapter` "
                 f"(`{recipe.combination_type}`).")
        rows = [(f"Weight of {adapter.label}", weight) for adapter, weight in zip(adapters, weights, strict=True)]
        (ctx.output / "README.md").write_text(tools.card(recipe, name, intro, [*adapters, base], "peft",
                                                         [*rows, ("Rank", rank)], tags=["lora"]), "utf-8")
        ctx.artifact("adapter", ctx.output, name,
                     {"method": "merge/adapters", "parameters": parameters, "combination": recipe.combination_type}
                     | bases.meta(ctx.run_dir), [(base.ref, "base"), *((ref, "parent") for ref in recipe.adapters)])
        ctx.progress(1, 1)
        return {"adapters": len(adapters), "rank": rank, "parameters": parameters, "seconds": round(time.time() - began, 2)}

    @staticmethod
    def _loaded(recipe: AdaptersRecipe, adapters: list[refs.ModelRef], ctx: Any) -> Any:
        """The base with every adapter on it, named ``part0``, ``part1``, ...; ``None``: stopped."""
        from peft import PeftModel

        from studio.trainers import load

        base = load.fetch(refs.resolve_model(load.base_of(adapters[0])), ctx)
        if base is None:
            return None
        model = load.model(base, "float32", recipe.trust_remote_code, rope=adapters[0].meta.get("rope"))
        for number, adapter in enumerate(adapters):
            if ctx.stop_requested:
                return None
            try:
                if number:
                    model.load_adapter(adapter.source, f"part{number}", revision=adapter.revision)
                else:
                    model = PeftModel.from_pretrained(model, adapter.source, "part0", revision=adapter.revision)
            except (OSError, ValueError, RuntimeError) as err:
                raise StudioError(f"The adapter {adapter.label} does not fit its base {base.label}.",
                                  "Choose adapters that were trained on one base.", "adapters") from err
            ctx.progress(number + 1, len(adapters) + 2)
        return model

    @staticmethod
    def _family(recipe: AdaptersRecipe) -> tuple[list[refs.ModelRef], refs.ModelRef]:
        """(adapters, their one base).

        Raises:
            StudioError: too few, no adapters, of another kind, or of different bases.
        """
        if len(recipe.adapters) < 2:
            raise StudioError("At least two adapters are needed.", "Choose another one.", "adapters")
        if len(set(recipe.adapters)) < len(recipe.adapters):
            raise StudioError("An adapter is listed twice.", "Remove one, and give the other a larger weight.", "adapters")
        if recipe.weights and len(recipe.weights) != len(recipe.adapters):
            raise StudioError(f"There are {len(recipe.weights)} weights for {len(recipe.adapters)} adapters.",
                              "Write one a line, in the order of the adapters, or none at all.", "weights")
        if recipe.weights and not any(recipe.weights):
            raise StudioError("Every weight is 0, so nothing would be left.", "Give one adapter a weight.", "weights")
        found, home = [], []
        for ref in recipe.adapters:
            adapter, base = _adapter(ref)
            found.append(adapter)
            home.append(base)
        for adapter, base in zip(found[1:], home[1:], strict=True):
            _one_base(found[0], home[0], adapter, base)
        return found, home[0]

    @staticmethod
    def _size(recipe: AdaptersRecipe, adapters: list[refs.ModelRef]) -> int:
        """Bytes of the result, in 32 bits."""
        a_rank = [(adapter.meta.get("parameters") or 0) / max(1, adapter.meta.get("r") or 1) for adapter in adapters]
        ranks = [adapter.meta.get("r") or 0 for adapter in adapters]
        rank = sum(ranks) if recipe.combination_type == "cat" else recipe.svd_rank or max(ranks, default=0)
        return int(max(a_rank, default=0) * rank * 4 + 3_000_000)


def combine(model: Any, names: list[str], recipe: AdaptersRecipe) -> None:
    """Adds the adapters ``names`` of a PEFT model up into a new one called ``default``.

    Raises:
        StudioError: PEFT cannot combine these.
    """
    import torch

    torch.manual_seed(recipe.random_seed)
    more: dict[str, Any] = {}
    if recipe.combination_type in SPARSE:
        more["density"] = recipe.density
    if recipe.combination_type in VOTED:
        more["majority_sign_method"] = recipe.majority_sign_method
    if recipe.combination_type in SVD:
        more |= {"svd_rank": recipe.svd_rank or None, "svd_clamp": recipe.svd_clamp or None, "svd_full_matrices": False}
    try:
        model.add_weighted_adapter(names, recipe.weights or [1.0] * len(names), "default",
                                   combination_type=recipe.combination_type, **more)
    except ValueError as err:  # PEFT says what does not go together, e.g. two full copies of one layer
        raise StudioError(f"PEFT cannot combine these adapters: {err}", "Choose another way, or fold each into its base and "
                          "merge the models.", "combination_type") from err
    model.set_adapter("default")


def _adapter(ref: str) -> tuple[refs.ModelRef, refs.ModelRef]:
    from studio.trainers import load

    try:
        adapter = refs.resolve_model(ref)
        refs.check_writes(adapter)
        if not adapter.is_adapter:
            raise StudioError(f"{adapter.label} is a whole model.", "Choose adapters; whole models have ways of their own.")
        if adapter.meta.get("peft_type") != "LORA":
            raise StudioError(f"{adapter.label} is of the kind {adapter.meta.get('peft_type')}; only LoRA adapters can be "
                              "added up.", "Fold each into its base, and merge the models.")
        base = refs.resolve_model(load.base_of(adapter))
        refs.check_weights(base)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "adapters") from err
    return adapter, base


def _one_base(first: refs.ModelRef, base: refs.ModelRef, adapter: refs.ModelRef, other: refs.ModelRef) -> None:
    """Refuse adapters of different bases: their differences are to other weights.

    Raises:
        StudioError: in the field ``adapters``.
    """
    known = [one.meta.get(bases.KEY) for one in (first, adapter)]
    different = _place(base) != _place(other)
    if different and base.path and other.path:
        different = bases.fingerprint(base.path) != bases.fingerprint(other.path)
    if different or (all(known) and known[0] != known[1]):
        raise StudioError(f"{adapter.label} was made for another base than {first.label} ({other.label} instead of "
                          f"{base.label}).", "Choose adapters that were trained on one base.", "adapters")
    if (first.meta.get("rope") or None) != (adapter.meta.get("rope") or None):
        raise StudioError(f"{adapter.label} was trained with another stretch of its positions than {first.label}.",
                          "Choose adapters that were trained with the same longer context.", "adapters")


def _place(model: refs.ModelRef) -> Path | tuple:
    return model.path.resolve() if model.path else (model.hub_id, model.revision)
