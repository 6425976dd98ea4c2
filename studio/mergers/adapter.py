"""Folds an adapter into its base: a whole model that loads anywhere. PEFT's ``merge_and_unload``."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from studio.errors import StudioError
from studio.library import bases, refs
from studio.library.modelinfo import PROMPT_TYPES
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}


class MergeAdapterRecipe(Recipe):
    """Which adapter, and how the result is stored."""

    kind: ClassVar[str] = "merge"
    method: ClassVar[str] = "adapter"

    model: str = field("", "Adapter", "The adapter to fold into the model it was trained on.", widget="model",
                       max_length=1000)
    save_dtype: Literal["base", "float32", "bfloat16", "float16"] = field(
        "base", "Saved precision", "As the base is the usual choice; 32 bits keeps the adapter's finest changes and "
        "doubles the size.", choices={"base": "As the base", "float32": "32 bits", "bfloat16": "16 bits (bfloat16)",
                                      "float16": "16 bits (float16)"})
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")


class MergeAdapter(Method):
    """Adapter and base into one."""

    title = "Adapter into base"
    group = "adapters"
    summary = "Folds a LoRA or similar adapter into its base, so that the result is one ordinary model."
    paper = "https://arxiv.org/abs/2106.09685"
    Recipe = MergeAdapterRecipe

    @classmethod
    def check(cls, recipe: MergeAdapterRecipe) -> None:
        from studio import hardware

        adapter, base = cls._pair(recipe)
        if base.meta.get("parameters"):
            hardware.need_disk(cls._bytes(recipe, base), f"Merging into {base.label}", "model")

    @classmethod
    def estimate(cls, recipe: MergeAdapterRecipe) -> Estimate:
        adapter, base = cls._pair(recipe)
        parameters, told = base.meta.get("parameters"), bases.replaced(adapter)
        notes = [" ".join(told)] if told else []
        if not parameters:
            return Estimate(notes=notes)
        return Estimate(memory=parameters * 4 + 600_000_000, disk=cls._bytes(recipe, base),
                        notes=[*notes, "Memory is an estimate."])

    @classmethod
    def run(cls, recipe: MergeAdapterRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import finish, load

        began = time.time()
        load.quiet()
        adapter, base = cls._pair(recipe)
        if told := bases.replaced(adapter):
            ctx.warning("base-replaced", *told)
        ctx.progress(0, 3)
        tokenizer = load.tokenizer(adapter, recipe.trust_remote_code)
        model = load.model(adapter, "float32", recipe.trust_remote_code, merge=True)
        ctx.progress(2, 3)
        if ctx.stop_requested:
            return {}
        dtype = finish.native_dtype(base) if recipe.save_dtype == "base" else recipe.save_dtype
        parameters = sum(p.numel() for p in model.parameters())
        finish.save(model, tokenizer, ctx.output, dtype if dtype != "float32" else None)
        name = recipe.name or f"{adapter.label} (merged)"[:80]
        (ctx.output / "README.md").write_text(cls._card(name, recipe, adapter, base, dtype or "float32"), "utf-8")
        ctx.artifact("model", ctx.output, name, {"method": "merge/adapter", "parameters": parameters},
                     [(recipe.model, "adapter"), (adapter.base or base.ref, "base")])
        ctx.progress(3, 3)
        return {"parameters": parameters, "dtype": dtype or "float32", "seconds": round(time.time() - began, 2)}

    @staticmethod
    def _pair(recipe: MergeAdapterRecipe) -> tuple[refs.ModelRef, refs.ModelRef]:
        """(adapter, base).

        Raises:
            StudioError: it is no adapter, of a kind that cannot be merged, or its base is not known.
        """
        from studio.trainers import load

        adapter = refs.resolve_model(recipe.model)
        refs.check_writes(adapter)
        refs.check_weights(adapter)
        if not adapter.is_adapter:
            raise StudioError(f"{adapter.label} is a whole model already; there is nothing to merge.",
                              "Choose an adapter.", "model")
        if adapter.meta.get("peft_type") in PROMPT_TYPES:
            raise StudioError(f"{adapter.label} adds virtual words to the input, which have no place in the weights.",
                              "Use it as an adapter, or train a LoRA instead.", "model")
        return adapter, refs.resolve_model(load.base_of(adapter))

    @staticmethod
    def _bytes(recipe: MergeAdapterRecipe, base: refs.ModelRef) -> int:
        word = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}.get(recipe.save_dtype, base.meta.get("dtype"))
        return int(base.meta["parameters"] * BYTES.get(word, 4))

    @staticmethod
    def _card(name: str, recipe: MergeAdapterRecipe, adapter: refs.ModelRef, base: refs.ModelRef, dtype: str) -> str:
        front = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
        front += [f"base_model: {base.hub_id}"] if base.hub_id else []
        own = ""
        if adapter.path and (adapter.path / "README.md").is_file():
            text = (adapter.path / "README.md").read_text("utf-8")
            own = text.split("---\n", 2)[-1].strip() if text.startswith("---\n") else text.strip()
            own = own.replace("\n# ", "\n### ").removeprefix("# ")
        lines = [*front, "tags:", "- atelier", "- merge", "---", "", f"# {name}", "",
                 f"{base.label} (`{base.ref}`) with the adapter {adapter.label} (`{recipe.model}`) folded into its "
                 "weights, "
                 f"stored in {dtype}.", ""]
        if own:
            lines += ["## The adapter", "", own, ""]
        return "\n".join(lines)
