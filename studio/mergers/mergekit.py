"""Merges by mergekit: averages, spheres, task vectors, stacked layers. The recipe holds mergekit's own configuration."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

_SHARDS = {"500M": 500_000_000, "1B": 1_000_000_000, "2B": 2_000_000_000, "5B": 5_000_000_000}
_OPTIONS = ("allow_crimes", "unsafe_truncate_embeddings", "lora_merge_dtype", "random_seed", "out_shard_size", "cuda",
            "trust_remote_code")


def shard_size(word: str | None) -> int:
    """Bytes of a weight file for a choice of ``out_shard_size``."""
    return _SHARDS.get(word or "", _SHARDS["1B"])


class MergekitRecipe(Recipe):
    """What is merged, as mergekit's configuration, and how."""

    kind: ClassVar[str] = "merge"
    method: ClassVar[str] = "mergekit"

    config: dict[str, Any] = field({}, "Merge", "Which models are merged, and how: mergekit's own configuration.",
                                   widget="merge")
    lora_merge_dtype: Literal["", "float32", "bfloat16", "float16"] = field(
        "", "Precision for adapters", "In which an adapter is folded into its base before the merge. As the base is the "
        "usual choice.", choices={"": "As the base", "float32": "32 bits", "bfloat16": "16 bits (bfloat16)",
                                  "float16": "16 bits (float16)"}, group="advanced",
        library="mergekit.options.MergeOptions")
    random_seed: int = field(0, "Seed", "Methods that drop changes at random (DARE, DELLA) make the same model again for the "
                             "same number.", group="advanced", ge=0, le=2**32 - 1, library="mergekit.options.MergeOptions")
    out_shard_size: Literal["500M", "1B", "2B", "5B"] = field(
        "1B", "Size of a weight file", "The weights of one file are held in memory until it is written, so smaller files "
        "need less memory.", choices={"500M": "0.5 GB", "1B": "1 GB", "2B": "2 GB", "5B": "5 GB"}, group="advanced",
        library="mergekit.options.MergeOptions")
    cuda: bool = field(False, "Compute on the GPU", "Faster for TIES, DELLA and Breadcrumbs, which sort all weights.",
                       group="advanced", shown="studio.hardware:some_gpu", library="mergekit.options.MergeOptions")
    allow_crimes: bool = field(False, "Allow what does not fit", "Merge models of different architectures, or whose words "
                               "have different numbers. The result is usually nonsense.", group="advanced",
                               library="mergekit.options.MergeOptions")
    unsafe_truncate_embeddings: bool = field(False, "Cut longer word tables", "Where one model has more rows of words, drop "
                                             "the rows at the end. Right only if all rows before mean the same words.",
                                             group="advanced", library="mergekit.options.MergeOptions")
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")

    def refers_to(self) -> list[tuple[str, str, str]]:
        """Every model and adapter that the configuration names."""
        from studio.mergers.config import references

        return [("config", ref, "model") for ref in dict.fromkeys(ref for _, ref in references(self.config))]

    def referring(self, swap: dict[str, str]) -> dict[str, Any]:
        """The recipe's values with references replaced, also on either side of a ``+``."""
        from studio.mergers.config import mapped

        return self.to_dict() | {"config": mapped(self.config, lambda path, ref: swap.get(ref, ref))}

    def options(self) -> dict[str, Any]:
        """The fields that are arguments of mergekit's ``MergeOptions``."""
        made = {name: getattr(self, name) for name in _OPTIONS}
        return made | {"lora_merge_dtype": self.lora_merge_dtype or None, "out_shard_size": shard_size(self.out_shard_size)}


class Mergekit(Method):
    """Everything that mergekit's configuration can say."""

    title = "Merge models"
    group = "models"
    summary = ("Makes one model of several by mergekit: averages, SLERP, task vectors (TIES, DARE, DELLA), stacked layers. "
               "No training.")
    paper = "https://arxiv.org/abs/2403.13257"
    Recipe = MergekitRecipe

    @classmethod
    def check(cls, recipe: MergekitRecipe) -> None:
        from studio import hardware

        plan = cls._plan(recipe)
        told = cls._told(recipe, plan)
        if told["disk"]:
            hardware.need_disk(told["disk"], "This merge", "config")

    @classmethod
    def estimate(cls, recipe: MergekitRecipe) -> Estimate:
        plan = cls._plan(recipe)
        told = cls._told(recipe, plan)
        notes = [f"{one.message} {one.hint}".strip() for one in plan.problems if one.level == "warning"][:6]
        if told["ram"] is None:
            return Estimate(notes=[*notes, "Time and memory are known once the models are on this machine."])
        return Estimate(seconds=told["seconds"], memory=told["ram"], disk=told["disk"],
                        notes=[*notes, "Time and memory are estimates."])

    @classmethod
    def script(cls, recipe: MergekitRecipe) -> str:
        from studio.mergers.config import exported
        from studio.recipe import write_yaml

        options = [f"    {name}={value!r}," for name, value in recipe.options().items()
                   if value not in (False, None)]
        return "\n".join([
            '"""The merge, with mergekit alone."""', "import yaml", "from mergekit.config import MergeConfiguration",
            "from mergekit.merge import run_merge", "from mergekit.options import MergeOptions", "", 'CONFIG = """',
            write_yaml(exported(recipe.config)).replace("\\", "\\\\").rstrip(), '"""', "",
            'run_merge(MergeConfiguration.model_validate(yaml.safe_load(CONFIG)), "merged", MergeOptions(',
            *options, '    lora_merge_cache="merged-adapters",', "), config_source=CONFIG)", ""])

    @classmethod
    def run(cls, recipe: MergekitRecipe, ctx: Any) -> dict[str, Any]:
        from studio.mergers import finishing, running
        from studio.trainers import load, measure

        began = time.time()
        load.quiet()
        running.clean(ctx.output)
        if not cls.fetch(recipe, ctx):
            return {}
        plan = cls._plan(recipe)  # again: what was downloaded is known only now
        cls.check(recipe)
        for one in plan.problems:
            if one.level == "warning":
                ctx.warning("merge", f"{one.path}: {one.message}" if one.path else one.message, one.hint)
        for one in plan.parents.values():
            if one.adapter is not None:
                ctx.log(f"{one.adapter.label} is folded into {one.model.label} first.")
        sizes = {name: count for name, (_, count) in plan.tensors.items()}
        try:
            running.merge(recipe.config, cls.places(recipe, plan), ctx.output, recipe.options(),
                          running.Clock(ctx, sizes), lambda: ctx.stop_requested)
        except running.Stopped:
            return {}
        name = recipe.name or cls._name(plan)
        for line in finishing.finish(ctx.output, recipe, plan, name):
            ctx.log(line)
        parameters = finishing.parameters(ctx.output)
        ctx.artifact("model", ctx.output, name, {"method": "merge/mergekit", "merge_method": plan.method["name"],
                                                 "parameters": parameters}, cls.lineage(recipe.config, plan))
        kinds = [kind for kind, _ in plan.tensors.values()]
        return {"parameters": parameters, "layers": plan.layers, "merged": kinds.count("merged"),
                "copied": kinds.count("copied"), "dropped": len(plan.dropped), "seconds": round(time.time() - began, 2),
                "peak_memory": measure.peak(recipe.cuda)}

    @staticmethod
    def fetch(recipe: MergekitRecipe, ctx: Any) -> bool:
        """Bring what is on the Hub to this disk, told in tenths. False if the run was stopped."""
        from studio.trainers import load

        wanted = list(dict.fromkeys(ref for _, ref, _ in recipe.refers_to()))
        for ref in wanted:
            model = refs.resolve_model(ref)
            if model.is_adapter and model.base and model.base not in wanted:
                wanted.append(model.base)
            if load.fetch(model, ctx) is None:
                return False
        return not ctx.stop_requested

    @staticmethod
    def places(recipe: MergekitRecipe, plan: Any) -> dict[str, Any]:
        """Folders of every model that the configuration names, a tokenizer's too, as ``running.merge`` wants them."""
        from studio.mergers import config

        found = {pair: (one.folder, refs.fetched(one.adapter).path if one.adapter else None)
                 for pair, one in plan.parents.items()}
        for _, ref in config.references(recipe.config):
            if ref not in found and not (model := refs.resolve_model(ref)).is_adapter:
                found[ref] = (refs.fetched(model).path, None)
        return found

    @staticmethod
    def lineage(values: dict[str, Any], plan: Any) -> list[tuple[str, str]]:
        """(reference, role) of every parent: ``base`` for the base model, ``adapter``, else ``parent``."""
        from studio.mergers import config

        bases = {one.base for one in config.slices(values) if one.base}
        found = []
        for pair, one in plan.parents.items():
            ref, adapter = config.split(pair)
            if one.adapter is not None and adapter is None:
                ref, adapter = one.model.ref, pair
            found.append((ref, "base" if pair in bases else "parent"))
            found += [(adapter, "adapter")] if adapter else []
        return list(dict.fromkeys(found))

    @staticmethod
    def _name(plan: Any) -> str:
        labels = [one.label for one in plan.parents.values()]
        made = " + ".join(labels[:3]) + (" + …" if len(labels) > 3 else "")
        clean = "".join(letter for letter in made if letter not in "/\\<>\"'\x00\n")
        return f"{clean[:55]} ({plan.method['title'].partition(' (')[0]})"[:80]

    @staticmethod
    def _told(recipe: MergekitRecipe, plan: Any) -> dict[str, Any]:
        from studio.mergers.plan import estimate

        return estimate(plan, recipe.config, shard_size(recipe.out_shard_size))

    @staticmethod
    def _plan(recipe: MergekitRecipe) -> Any:
        """The plan of a merge that may start.

        Raises:
            StudioError: the first error, with its place in the configuration.
        """
        from studio.mergers import plan

        made = plan.make(recipe.config, recipe.options())
        if errors := made.errors():
            first = errors[0]
            more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
            raise StudioError((f"{first.path}: " if first.path else "") + first.message + more, first.hint, "config")
        return made
