"""Push several quantizations of one model into one repository of the Hub, with one card that compares them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import settings
from studio.errors import StudioError
from studio.method import Estimate, Method
from studio.publishers.hub import LICENSES, RepoFields, check_hub, files, send
from studio.recipe import Recipe, field

if TYPE_CHECKING:
    from studio.jobs.context import Context


class VariantsToPush(Recipe):
    """What to publish."""

    models: list[str] = field([], "Variants", "Quantizations of one model, made here. Each gets a line in the card's table.",
                              widget="models", max_length=100)


class PushVariantsRecipe(RepoFields, VariantsToPush):
    """Which quantizations to publish, and where."""

    kind, method = "publish", "variants"

    license: str = field("", "Licence", "Under which others may use it. The licence of the source model goes on to hold.",
                         choices=LICENSES, max_length=60)


class PushVariants(Method):
    title = "Push variants to the Hub"
    summary = "Puts several quantizations of one model into one repository, with a card that compares their size and their answers."
    paper = ""
    Recipe = PushVariantsRecipe

    @classmethod
    def check(cls, recipe: PushVariantsRecipe) -> None:
        check_hub(recipe, "models")
        _parts(recipe)

    @classmethod
    def estimate(cls, recipe: PushVariantsRecipe) -> Estimate:
        from studio.hardware import size

        parts = _parts(recipe)
        total = sum(path.stat().st_size for _, path in parts)
        return Estimate(disk=0, notes=[f"{len(parts)} files, {size(total)}, are sent."])

    @classmethod
    def script(cls, recipe: PushVariantsRecipe) -> str:
        try:
            parts = _parts(recipe)
        except StudioError:
            return ""
        lines = ["from huggingface_hub import CommitOperationAdd, HfApi", "", "api = HfApi()  # logged in with: hf auth login",
                 f"repo = api.create_repo({recipe.repo_id!r}, private={recipe.private}, exist_ok=True)", "files = {"]
        lines += [f"    {name!r}: {str(path)!r}," for name, path in parts]
        return "\n".join([*lines, "}", "api.create_commit(repo.repo_id, [CommitOperationAdd(name, path) for name, path in files.items()],",
                          f"                  commit_message={recipe.commit_message!r}, create_pr={recipe.create_pr})", ""])

    @classmethod
    def run(cls, recipe: PushVariantsRecipe, ctx: Context) -> dict[str, Any]:
        parts: list[tuple[str, Path | bytes]] = [*_parts(recipe)]
        parts.append(("README.md", card(recipe).encode()))
        label = f"{len(recipe.models)} variants of {_source(_rows(recipe))[1]}"
        return send(recipe, parts, label, ctx) | {"variants": len(recipe.models)}


def _rows(recipe: PushVariantsRecipe) -> list[dict[str, Any]]:
    """The variants' entries in the library.

    Raises:
        StudioError: in ``models``: none, something else, or of several models.
    """
    from studio.library import artifacts

    if not recipe.models:
        raise StudioError("No variant is chosen.", "Choose at least one.", "models")
    rows = []
    for ref in dict.fromkeys(recipe.models):
        row = artifacts.get(ref[8:], "models") if ref.startswith("library:") else None
        if row is None or not row["meta"].get("format") or not any(p["role"] == "source" for p in row["parents"]):
            raise StudioError(f"{row['name'] if row else ref} is no quantization made here.",
                              "Choose variants from the Quantize tab; push other models one by one.", "models")
        if not Path(row["path"]).is_dir():
            raise StudioError(f"The files of {row['name']} are gone.", "Leave it out, or make it again.", "models")
        rows.append(row)
    if len({_source([row])[0] for row in rows}) > 1:
        raise StudioError("These are variants of several models.", "One repository holds the variants of one model.", "models")
    return rows


def _source(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """(reference, label) of the model that they were made of."""
    from studio.library import refs

    ref = next(p["ref"] for p in rows[0]["parents"] if p["role"] == "source")
    try:
        return ref, refs.resolve_model(ref).label
    except StudioError:
        return ref, ref.rpartition(":")[2]


def _parts(recipe: PushVariantsRecipe) -> list[tuple[str, Path]]:
    """(name in the repository, file): GGUF files side by side, every other variant in a folder of its own."""
    rows = _rows(recipe)
    title = re.sub(r"[^\w.-]+", "-", _source(rows)[1]).strip("-.") or "model"
    made: dict[str, Path] = {}
    for row in rows:
        word = _word(row)
        for path in files(Path(row["path"])):
            name = f"{title}-{word}.gguf" if path.suffix == ".gguf" else f"{word}/{path.name}"
            if row["meta"]["format"] == "gguf" and path.suffix != ".gguf":
                continue
            if name in made:
                raise StudioError(f"Two variants are called {word}.", "Push one of them, or each into its own repository.", "models")
            made[name] = path
    return list(made.items())


def _word(row: dict[str, Any]) -> str:
    return re.sub(r"[^\w.-]+", "-", str(row["meta"].get("quantization") or row["name"])).strip("-.") or "variant"


def card(recipe: PushVariantsRecipe) -> str:
    """The repository's README: what the variants were made of, and one table that compares them.

    Front matter: https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    import yaml

    from studio.hardware import size

    rows = _rows(recipe)
    ref, label = _source(rows)
    formats = list(dict.fromkeys(row["meta"]["format"] for row in rows))
    front: dict[str, Any] = {"pipeline_tag": "text-generation", "library_name": "gguf" if formats == ["gguf"] else "transformers"}
    if ref.startswith("hub:"):
        front |= {"base_model": ref[4:].partition("@")[0], "base_model_relation": "quantized"}
    front |= {"license": recipe.license} if recipe.license else {}
    front["tags"] = ["atelier", "quantized", *formats]
    origin = f"[{label}](https://huggingface.co/{front['base_model']})" if "base_model" in front else _cell(label)
    names = {row["id"]: next(name for name, path in _parts(recipe) if path.parent == Path(row["path"])) for row in rows}
    head = ["File", "Format", "Quantization", "Bits a weight", "Size", "Perplexity", "KL divergence", "Same first choice", "Tokens/s"]
    lines = [f"# {label}, quantized", "", f"{len(rows)} variants of {origin} in fewer bits.", "", f"| {' | '.join(head)} |",
             f"|{'---|' * 3}{'---:|' * (len(head) - 3)}"]
    for row in sorted(rows, key=lambda row: -row["size"]):
        meta, proof = row["meta"], row["meta"].get("proof") or {}
        name = names[row["id"]]
        shown = name if name.endswith(".gguf") else name.partition("/")[0] + "/"
        link = name if name.endswith(".gguf") else f"tree/main/{shown.rstrip(chr(47))}"
        cells = [f"[{shown}]({link})", meta["format"], _cell(meta.get("quantization")), _number(meta.get("bits"), ".2f"), size(row["size"]),
                 _number((proof.get("perplexity") or {}).get("variant")), _number(proof.get("kl"), ".3g"), _number(proof.get("top1"), ".1%"),
                 _number(proof.get("tokens_per_second"), ".3g")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_measured(rows), *_use(recipe, formats, names, rows)]
    text = "\n".join(lines)
    for place, word in ((settings.home(), "workspace"), (settings.ROOT, "studio"), (Path.home(), "~")):
        text = text.replace(str(place), word)
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{text}\n"


def _measured(rows: list[dict[str, Any]]) -> list[str]:
    """What the figures of the table are and, where it is the same for all, the source's own perplexity."""
    proofs = [row["meta"].get("proof") or {} for row in rows]
    sources = {round(value, 4) for proof in proofs if isinstance(value := (proof.get("perplexity") or {}).get("source"), int | float)}
    if not any(proofs):
        return ["These variants were not compared with their source.", ""]
    told = ["Each file was loaded by the program that runs it and compared with the source on the same texts. KL divergence is in nats a "
            "token; 'same first choice' is how often both think the same next token the most likely. Tokens a second are of the machine "
            "that measured them."]
    if len(sources) == 1:
        told.append(f"Perplexity of the source itself: {_number(sources.pop())}.")
    elif sources:
        told.append("Not all were measured on the same texts, so compare perplexities with care.")
    return [" ".join(told), ""]


def _use(recipe: PushVariantsRecipe, formats: list[str], names: dict[str, str], rows: list[dict[str, Any]]) -> list[str]:
    place = recipe.repo_id if "/" in recipe.repo_id else f"OWNER/{recipe.repo_id}"
    lines = ["## Use", ""]
    if "gguf" in formats:
        row = next(row for row in rows if row["meta"]["format"] == "gguf")
        word = _word(row)
        lines += ["```", f"llama-cli -hf {place}:{word} -cnv", f"ollama run hf.co/{place}:{word}", "```", ""]
    others = [row for row in rows if row["meta"]["format"] in ("bitsandbytes", "compressed-tensors")]
    if others:
        lines += ["```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", "",
                  f'model = AutoModelForCausalLM.from_pretrained("{place}", subfolder="{names[others[0]["id"]].partition("/")[0]}")',
                  f'tokenizer = AutoTokenizer.from_pretrained("{place}", subfolder="{names[others[0]["id"]].partition("/")[0]}")', "```", ""]
    return lines if len(lines) > 2 else []


def _number(value: Any, form: str = ".4g") -> str:
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else "–"


def _cell(text: Any) -> str:
    return re.sub(r"[|<>\[\]\n]", " ", str(text or "–"))
