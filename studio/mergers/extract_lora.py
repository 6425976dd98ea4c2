"""What a fine-tuned model learned, as a LoRA on its base. mergekit-extract-lora: a truncated SVD of the difference."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.library import bases, refs
from studio.mergers import tools
from studio.method import Estimate, Method
from studio.recipe import Recipe, field


_OUTPUT = "lm_head.weight"  # not in the files where it is the table of embeddings
_TABLES = ("embed_tokens", "wte", "embed_in", "word_embeddings")


class ExtractLoraRecipe(Recipe):
    """From which model, against which base, at which rank."""

    kind: ClassVar[str] = "merge"
    method: ClassVar[str] = "extract_lora"

    model: str = field("", "Model", "The fine-tuned or merged model. An adapter is folded into its base first, so that its "
                       "rank can be lowered.", widget="model", max_length=1000)
    base_model: str = field("", "Base model", "The model it was made from; the adapter is for this one. Left empty, the one "
                            "that the library knows.", widget="model", max_length=1000)
    max_rank: int = field(32, "Rank", "Higher keeps more of what was learned and makes the adapter larger.", ge=1, le=4096)
    sv_epsilon: float = field(0.0, "Leave out below", "Singular values below this are dropped, so that layers that learned "
                              "little get a lower rank. 0 = none.", group="advanced", ge=0, le=1000)
    skip_unchanged: bool = field(True, "Leave out what did not change", "Embeddings, norms and layers that are the same in both "
                                 "models are left out. Off: embeddings and norms are copied whole, as mergekit does.")
    embed_lora: bool = field(False, "Embeddings by rank too", "On: changed embeddings become part of the low rank, which is "
                             "smaller. Off: they are copied whole, which is exact.")
    distribute_scale: bool = field(True, "Share the scale", "Splits the size of each change evenly between the two factors; "
                                   "best left on where the adapter is trained further.", group="advanced")
    modules_to_save: list[str] = field([], "Copied whole", "Names of modules that are copied instead of taken apart, one a line.",
                                       widget="lines", group="advanced", max_length=50)
    include_regexes: list[str] = field([], "Only modules like", "Regular expressions of module names, one a line; none = all.",
                                       widget="lines", group="advanced", max_length=50)
    exclude_regexes: list[str] = field([], "Not modules like", "Regular expressions of module names, one a line.",
                                       widget="lines", group="advanced", max_length=50)
    skip_undecomposable: bool = field(False, "Leave out norms", "On: layers that cannot be taken apart are left out. Off: they "
                                      "are copied whole.", group="advanced")
    trust_remote_code: bool = field(False, "Run the model's own code", "Some Hub models need Python code from their "
                                    "repository. That code can do anything on this machine: turn on only for an "
                                    "author you trust.", group="advanced")


class ExtractLora(Method):
    """A whole model, taken apart into base and adapter."""

    title = "Extract a LoRA"
    group = "adapters"
    summary = "Turns what a tuned or merged model learned into a small adapter for its base."
    paper = "https://arxiv.org/abs/2403.13257"
    Recipe = ExtractLoraRecipe

    @classmethod
    def check(cls, recipe: ExtractLoraRecipe) -> None:
        from studio import hardware

        model, base = cls._pair(recipe)
        for name in ("include_regexes", "exclude_regexes"):
            for text in getattr(recipe, name):
                try:
                    re.compile(text)
                except re.error as err:
                    raise StudioError(f"'{text}' is no regular expression: {err}.", "Escape dots and brackets, or write a plain "
                                      "name.", name) from err
        if recipe.embed_lora and model.path and not model.is_adapter and _tied(model.path):
            raise StudioError(f"{model.label} reads and writes with one table of embeddings. By rank it would be changed twice "
                              "when the adapter is folded in.", "Leave it off: the table is then copied whole.", "embed_lora")
        hardware.need_disk(cls._bytes(recipe, model, base), "The adapter")

    @classmethod
    def estimate(cls, recipe: ExtractLoraRecipe) -> Estimate:
        model, base = cls._pair(recipe)
        largest = tools.size(base)
        return Estimate(memory=int(largest * 0.3 + 900_000_000) if largest else None, disk=cls._bytes(recipe, model, base) or None,
                        notes=["Memory is an estimate: layers are read one by one. Disk is the most it can take."])

    @classmethod
    def run(cls, recipe: ExtractLoraRecipe, ctx: Any) -> dict[str, Any]:
        from studio.trainers import load

        began = time.time()
        load.quiet()
        model, base = cls._pair(recipe)
        bases.keep(ctx.run_dir, base.ref, False)
        ctx.progress(0, 1)
        try:
            with tools.whole([model, base], ctx, recipe.trust_remote_code) as folders, tools.folder(ctx) as part:
                told = cls._extracted(recipe, ctx, folders, part)
                found = _kept(Path(folders[0]), Path(folders[1]), part, ctx)
                cls._finished(recipe, base, folders, part)
        except tools.Stopped:
            return {}
        for text in told:
            if "modules_to_save" not in text and "unsupported module type" not in text:
                ctx.warning("mergekit", text)
        parameters = tools.parameters(ctx.output)
        rank = (read_json(ctx.output / "adapter_config.json") or {})["r"]
        name = recipe.name or f"{model.label} as LoRA"[:80]
        kept = f"{found['kept']:.1%}" if found["kept"] is not None else None
        intro = (f"A LoRA for {base.label} (`{base.ref}`) with what {model.label} (`{recipe.model}`) learned beyond it, "
                 "extracted by `mergekit-extract-lora`.")
        rows = [("Rank", rank), ("Parameters", parameters), ("Kept of the change (share of its squared size)", kept)]
        (ctx.output / "README.md").write_text(tools.card(recipe, name, intro, [model, base], "peft", rows, tags=["lora"]), "utf-8")
        ctx.artifact("adapter", ctx.output, name, {"method": "merge/extract_lora", "parameters": parameters, "kept": found["kept"]}
                     | bases.meta(ctx.run_dir), [(base.ref, "base"), (recipe.model, "parent")])
        ctx.progress(1, 1)
        return {"rank": rank, "parameters": parameters, **found, "seconds": round(time.time() - began, 2)}

    @classmethod
    def _extracted(cls, recipe: ExtractLoraRecipe, ctx: Any, folders: list[str], part: Path) -> list[str]:
        from mergekit.scripts import extract_lora

        excluded = list(recipe.exclude_regexes)
        if recipe.skip_unchanged:
            same, every = _unchanged(Path(folders[0]), Path(folders[1]))
            if len(same) == every:
                raise StudioError("The two models are the same, so there is nothing to extract.", "Choose the model before and "
                                  "the one after the tuning.", "base_model")
            excluded += [f"^{re.escape(name)}$" for name in same]
        bars = {"Planning operations": (0.05, 0.1), "Executing graph": (0.1, 0.85)}
        with tools.watched(ctx, ["mergekit.scripts.extract_lora", "mergekit.graph"], bars):
            try:
                return tools.script(extract_lora.main, arguments(recipe, folders, part, excluded))
            except (RuntimeError, ValueError, TypeError) as err:
                if isinstance(err, ValueError) and "max()" in str(err):  # of no ranks at all
                    raise StudioError("No module is left to be taken apart.", "Loosen the names that are left out.",
                                      "exclude_regexes") from err
                raise

    @staticmethod
    def _finished(recipe: ExtractLoraRecipe, base: refs.ModelRef, folders: list[str], part: Path) -> None:
        """The base's real name in the config, a tokenizer beside the weights, no card of the library's with paths of this disk."""
        from transformers import AutoTokenizer

        config = read_json(part / "adapter_config.json") or {}
        config["target_modules"] = sorted(config["target_modules"])
        write_json(part / "adapter_config.json", config | {"base_model_name_or_path": base.source, "revision": base.revision})
        AutoTokenizer.from_pretrained(folders[0], trust_remote_code=recipe.trust_remote_code).save_pretrained(part)
        (part / "README.md").unlink(missing_ok=True)

    @staticmethod
    def _pair(recipe: ExtractLoraRecipe) -> tuple[refs.ModelRef, refs.ModelRef]:
        """(model, base).

        Raises:
            StudioError: not known, or of different shapes.
        """
        model = tools.source(recipe.model, "model")
        base = tools.source(recipe.base_model or _known_base(model), "base_model", adapter=False)
        if recipe.model == base.ref:
            raise StudioError("Model and base are the same.", "Choose the model before the tuning as base.", "base_model")
        tools.same([base, model], {"model_type": "architecture", "layers": "number of layers", "widths": "width",
                                   "vocab_size": "vocabulary"}, "base_model")
        return model, base

    @staticmethod
    def _bytes(recipe: ExtractLoraRecipe, model: refs.ModelRef, base: refs.ModelRef) -> int:
        """The most that the adapter can take: every matrix at full rank asked for, embeddings whole."""
        known = tools.facts(base)
        widths, layers = known.get("widths") or [], known.get("layers")
        if len(widths) != 2 or not layers:
            return 0
        hidden, inner = widths
        factors = recipe.max_rank * (4 * 2 * hidden + 3 * (hidden + inner)) * layers
        words = (known.get("vocab_size") or 0) * hidden * 2
        return int(min(factors + words, 2 * (known.get("parameters") or 0) or factors + words) * tools.BYTES.get(
            known.get("dtype") or "", 4))


def arguments(recipe: ExtractLoraRecipe, folders: list[str], out: Path, excluded: list[str]) -> list[str]:
    """Of mergekit's script."""
    switches = {"distribute-scale": recipe.distribute_scale, "embed-lora": recipe.embed_lora}
    made = ["--model", folders[0], "--base-model", folders[1], "--out-path", str(out), "--max-rank", str(recipe.max_rank),
            "--sv-epsilon", str(recipe.sv_epsilon), *(f"--{'' if on else 'no-'}{name}" for name, on in switches.items())]
    for flag, found in (("--save-module", recipe.modules_to_save), ("--include-regex", recipe.include_regexes),
                        ("--exclude-regex", excluded)):
        for text in found:
            made += [flag, text]
    return made + ["--skip-undecomposable"] * recipe.skip_undecomposable + ["--trust-remote-code"] * recipe.trust_remote_code


def _known_base(model: refs.ModelRef) -> str:
    """What the library says a model was made from.

    Raises:
        StudioError: nothing, or several models.
    """
    from studio.library import artifacts

    if model.is_adapter and model.base:
        return model.base
    if model.ref.startswith("library:"):
        found = [p["ref"] for p in artifacts.get(model.ref.removeprefix("library:"), "model")["parents"] if p["role"] == "base"]
        if len(found) == 1:
            return refs.whole_base(found[0]) or found[0]
    raise StudioError(f"It is not known what {model.label} was made from.", "Choose its base.", "base_model")


def _tied(folder: Path) -> bool:
    """Whether the output layer of a model is its table of embeddings, as transformers reads its config."""
    config = read_json(folder / "config.json") or {}
    from studio.library import modelinfo

    return bool(config.get("tie_word_embeddings", _OUTPUT not in modelinfo.weights(folder)))


def _read(folder: Path) -> tuple[dict[str, Path], Any]:
    """(name of tensor -> its file, function that reads one)."""
    from safetensors import safe_open

    where = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            where |= dict.fromkeys(file.keys(), path)

    def read(name: str) -> Any:
        with safe_open(where[name], "pt") as file:
            return file.get_tensor(name)

    return where, read


def _unchanged(model: Path, base: Path) -> tuple[list[str], int]:
    """(modules whose tensors are all the same in both models, number of modules)."""
    import torch

    (mine, read), (theirs, other) = _read(model), _read(base)
    same: dict[str, bool] = {}
    for name in mine:
        module = name.rpartition(".")[0]
        same[module] = same.get(module, True) and name in theirs and torch.equal(read(name), other(name))
    tied = {} if _OUTPUT in mine or _OUTPUT in theirs else {
        _OUTPUT.removesuffix(".weight"): equal for name, equal in same.items() if name.endswith(_TABLES)}
    same |= tied
    return sorted(name for name, equal in same.items() if equal), len(same)


def _kept(model: Path, base: Path, adapter: Path, ctx: Any) -> dict[str, Any]:
    """How much of the difference the adapter holds: share of its squared size, of all matrices taken apart.

    Returns:
        ``kept`` (``None`` where nothing was taken apart), ``modules`` of low rank and ``copied`` whole.
    """
    import torch

    (_, read), (_, other), (found, factor) = _read(model), _read(base), _read(adapter)
    whole = lost = 0.0
    names = [name for name in found if re.search(r"\.lora_(embedding_)?A(\.weight)?$", name)]
    for number, name in enumerate(names):
        if ctx.stop_requested:
            raise tools.Stopped
        weight = re.sub(r"\.lora_(embedding_)?A(\.weight)?$", "", name.removeprefix("base_model.model.")) + ".weight"
        change = (read(weight).float() - other(weight).float())
        product = factor(name.replace("_A", "_B")).float() @ factor(name).float()
        product = product.T if "embedding" in name else product
        whole += float(torch.sum(change.double() ** 2))
        lost += float(torch.sum((change - product).double() ** 2))
        ctx.progress(0.85 + 0.15 * (number + 1) / len(names), 1.0)
    copied = [name for name in found if ".lora_" not in name]
    return {"kept": round(1 - lost / whole, 6) if whole else None, "modules": len(names), "copied": len(copied)}
