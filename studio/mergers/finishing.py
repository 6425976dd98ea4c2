"""What mergekit leaves to do after a merge: numbers of special words, precision and chat template, and the model card."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from studio.jobs.files import read_json
from studio.mergers import config, licences, shards

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_WORDS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def parameters(folder: Path) -> int:
    """Number of values of all weights."""
    return sum(one.values for one in shards.tensors(folder).values())


def finish(folder: Path, recipe: Any, plan: Any, name: str) -> list[str]:
    """Mend the settings of a merged model and write its card.

    Returns:
        What was changed beyond what mergekit wrote, as sentences.
    """
    told = mend(folder, recipe.config, plan)
    (folder / "mergekit_config.yml").write_text(_yaml(recipe.config), "utf-8")
    (folder / "README.md").write_text(card(name, recipe, plan), "utf-8")
    return told


def mend(folder: Path, values: dict[str, Any], plan: Any) -> list[str]:
    """Mend the settings of a merged model; returns what was changed beyond what mergekit wrote, as sentences."""
    donor = _donor(values, plan)
    return _settings(folder, values, donor) + _template(folder, values, donor, plan)


def _donor(values: dict[str, Any], plan: Any) -> Any:
    """Whose ``config.json`` the result got: the base model's, else the first model's."""
    base = config.pair_of(values.get("base_model"))
    return plan.parents.get(base) or next(iter(plan.parents.values()))


def _settings(folder: Path, values: dict[str, Any], donor: Any) -> list[str]:
    made, told = read_json(folder / "config.json") or {}, []
    weights = shards.tensors(folder)
    counts: dict[str, int] = {}
    for one in weights.values():
        counts[one.dtype] = counts.get(one.dtype, 0) + one.values
    if stored := _WORDS.get(max(counts, key=counts.get)):
        made.pop("torch_dtype", None)
        made["dtype"] = stored  # else loading would round what was merged more finely
    head, table = weights.get("lm_head.weight"), weights.get("model.embed_tokens.weight")
    if made.get("tie_word_embeddings") and head and table and not _same(head, table):
        made["tie_word_embeddings"] = False
        told.append("Its words to read and to write are two tables now, as in one of its parents.")
    ids = None
    if values.get("tokenizer") or values.get("tokenizer_source"):
        ids = _renumbered(folder, donor.folder)
        told += _apply(made, ids, "config.json")
    (folder / "config.json").write_text(json.dumps(made, indent=2, sort_keys=True) + "\n", "utf-8")
    generation = folder / "generation_config.json"
    if not generation.is_file() and (donor.folder / generation.name).is_file():
        shutil.copy(donor.folder / generation.name, generation)
    if ids is not None and generation.is_file():
        made = read_json(generation) or {}
        _apply(made, ids, generation.name)
        generation.write_text(json.dumps(made, indent=2, sort_keys=True) + "\n", "utf-8")
    return told


def _same(a: shards.Tensor, b: shards.Tensor) -> bool:
    """Two weights hold the same bytes."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with a.file.open("rb") as first, b.file.open("rb") as second:
        first.seek(a.begin)
        second.seek(b.begin)
        for _ in range(math.ceil(a.size / 2**20)):
            size = min(2**20, a.begin + a.size - first.tell())
            if first.read(size) != second.read(size):
                return False
    return True


def _renumbered(folder: Path, donor: Path) -> dict[int, int]:
    """Number of a word in the donor's tokenizer -> its number in the result's, where that is another."""
    before, after = shards.vocabulary(donor), shards.vocabulary(folder)
    if not before or not after:
        return {}
    return {number: after[word] for word, number in before.items() if word in after and after[word] != number}


def _apply(values: dict[str, Any], ids: dict[int, int], name: str) -> list[str]:
    """Special words by their new numbers."""
    changed = False
    for key in _IDS:
        old = values.get(key)
        new = [ids.get(one, one) for one in old] if isinstance(old, list) else ids.get(old, old) if isinstance(old, int) \
            else old
        changed, values[key] = changed or new != old, new
        if old is None:
            values.pop(key)
    return [f"The numbers of its special words in {name} follow the new tokenizer."] if changed else []


def _template(folder: Path, values: dict[str, Any], donor: Any, plan: Any) -> list[str]:
    """A chat template where mergekit left none but a parent has one; an adapter's comes before its base's."""
    if values.get("chat_template") or not (folder / "tokenizer_config.json").is_file():
        return []
    order = [donor, *(one for one in plan.parents.values() if one is not donor)]
    own = shards.template(donor.adapter.path) if donor.adapter is not None else None
    if shards.template(folder) and (own is None or own == shards.template(folder)):
        return []
    for one in order:
        text = (shards.template(one.adapter.path) if one.adapter is not None else None) or shards.template(one.folder)
        if text:
            (folder / "chat_template.jinja").write_text(text, "utf-8")
            return [f"It has the chat template of {one.label}."]
    return []


def _yaml(values: dict[str, Any]) -> str:
    """The configuration as it may be shown to others: Hub ids plain, no folders of this machine."""
    from studio.recipe import write_yaml

    def public(path: str, ref: str) -> str:
        return ref[4:] if ref.startswith("hub:") else Path(ref).name if "/" in ref and not ref.startswith("run:") else ref

    return write_yaml(config.mapped(values, public))


def card(name: str, recipe: Any, plan: Any) -> str:
    """The model card: parents, configuration, and what their licences mean.

    Front matter: https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    hubs = list(dict.fromkeys(one.hub_id for parent in plan.parents.values() for one in (parent.model, parent.adapter)
                              if one is not None and one.hub_id))
    found = [(one.label, _licence(one)) for one in plan.parents.values()]
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    front += ["base_model:", *(f"- {one}" for one in hubs), "base_model_relation: merge"] if hubs else []
    shared = licences.common([one for _, one in found])
    front += [f"license: {shared}"] if shared else []
    lines = [*front, "tags:", "- atelier", "- mergekit", "- merge", "---", "", f"# {name}", "",
             f"Made by [mergekit](https://github.com/arcee-ai/mergekit) with {plan.method['title']}"
             + (f" ({plan.method['paper']})." if plan.method["paper"] else "."), "", "## Parents", "",
             "| model | reference | licence |", "|---|---|---|"]
    for (label, licence), parent in zip(found, plan.parents.values(), strict=True):
        said = f"{licence.name} (of {licence.of})" if licence.name and licence.of else licence.name or "not known"
        ref = parent.pair if "/" not in parent.pair or parent.pair.startswith("hub:") else "a folder"
        lines.append(f"| {label} | `{ref}` | {said} |")
    told = licences.told(found)
    lines += ["", "## Licence", ""]
    lines += [f"- {one.message} {one.hint}".rstrip() for one in told] if told else \
        ["- Nothing in the parents' licences was found to forbid or limit passing this model on."]
    lines += ["", "This was found from the parents' cards and is no legal advice.", "", "## Configuration", "", "```yaml",
              _yaml(recipe.config).rstrip(), "```", ""]
    return "\n".join(lines)


def _licence(parent: Any) -> licences.Licence:
    found = licences.of(parent.model, ask=True)
    return licences.of(parent.adapter, ask=True) if not found.name and parent.adapter is not None else found
