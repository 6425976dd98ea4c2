"""The models of a merge: what is behind each reference, and how they go together, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import hub
from studio.errors import StudioError
from studio.library import bases, modelinfo, refs
from studio.mergers import architecture, config, licences, shards
from studio.mergers.parameters import Problem, error, note, warning

LATER = "step:"  # an earlier step of a flow is still to make it
_PLAIN = {"hidden_size": "width", "intermediate_size": "width inside its layers (intermediate_size)",
          "num_attention_heads": "number of attention heads", "num_key_value_heads": "number of key-value heads",
          "head_dim": "size of a head", "num_local_experts": "number of experts", "num_experts": "number of experts"}


@dataclass
class Parent:
    """One model of a merge. What is only on the Hub yet has no ``folder``; what is still to be made has no ``model``."""

    pair: str
    path: str  # where the configuration names it first
    model: refs.ModelRef | None = None
    adapter: refs.ModelRef | None = None
    folder: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, shards.Tensor] = field(default_factory=dict)
    arch: architecture.Architecture | None = None

    @property
    def label(self) -> str:
        if self.model is None:
            return self.pair
        return f"{self.model.label} + {self.adapter.label}" if self.adapter else self.model.label

    @property
    def layers(self) -> int | None:
        if self.arch is None or not self.config:
            return self.model.meta.get("layers") if self.model else None
        counts = [one.count(self.config) for one in self.arch.modules.values()]
        return max(counts, default=0)

    @property
    def licence(self) -> licences.Licence:
        found = licences.of(self.model) if self.model else licences.Licence(None)
        return licences.of(self.adapter) if not found.name and self.adapter else found

    def facts(self) -> dict[str, Any]:
        """What a table shows of it."""
        meta = self.model.meta if self.model else {}
        text = text_config(self.config)
        template = shards.template(self.folder) or shards.template(self.adapter.path if self.adapter else None)
        return {"ref": self.pair, "label": self.label, "architecture": meta.get("architecture"), "layers": self.layers,
                "hidden": text.get("hidden_size") or text.get("n_embd"), "vocab": meta.get("vocab_size"),
                "dtype": meta.get("dtype"), "size": meta.get("size"), "parameters": meta.get("parameters"),
                "adapter": self.adapter is not None, "local": self.folder is not None,
                "chat_template": bool(template) if self.folder else bool(meta.get("chat_template")),
                "license": self.licence.name, "license_of": self.licence.of}


def text_config(values: dict[str, Any]) -> dict[str, Any]:
    inner = values.get("text_config")
    return inner if isinstance(inner, dict) else values


def find(values: dict[str, Any], field_name: str = "config") -> tuple[dict[str, Parent], list[Problem]]:
    """(pair -> parent) of every model that is merged or lends its tokenizer, and what is wrong with them."""
    found: dict[str, Parent] = {}
    problems: list[Problem] = []
    places = {source.pair: f"{source.path}.model" if source.path != "base_model" else source.path
              for one in reversed(config.slices(values)) for source in reversed(one.sources)}
    for pair in config.merged_models(values):
        try:
            found[pair] = resolve(pair, places[pair])
        except StudioError as err:
            problems.append(error(err.message, err.hint, places[pair]))
    for path, ref in config.references(values):
        if ref.startswith(LATER) or not path.startswith("tokenizer"):
            continue
        try:
            if refs.resolve_model(ref).is_adapter:
                problems.append(error(f"{ref} is an adapter, which is no source of words.", "Choose a whole model.", path))
        except StudioError as err:
            problems.append(error(err.message, err.hint, path))
    return found, problems


def resolve(pair: str, path: str) -> Parent:
    """One model, read as far as it lies on this disk.

    Raises:
        StudioError: unknown, broken, or of a kind that cannot be merged.
    """
    ref, lora = config.split(pair)
    if ref.startswith(LATER) or (lora or "").startswith(LATER):
        return Parent(pair, path)
    model = refs.resolve_model(ref)
    adapter = refs.resolve_model(lora) if lora else None
    if model.is_adapter and adapter is None:
        if not model.base:
            raise StudioError(f"The adapter {model.label} does not say which model it belongs to.",
                              "Write it as model+adapter.", "config")
        adapter, model = model, refs.resolve_model(model.base)
    if model.is_adapter:
        raise StudioError(f"{model.label} is an adapter and cannot carry another one.", "Fold it into its base first.",
                          "config")
    if adapter is not None:
        _check_adapter(adapter, model)
    refs.check_writes(model, "config")
    refs.check_weights(model, "config")
    folder = model.path or _complete(hub.cached(model.hub_id, model.revision) if model.hub_id else None)
    made = Parent(pair, path, model, adapter, folder)
    if folder is not None:
        made.config = shards.settings_of(folder)
        made.tensors = shards.tensors(folder)
        made.arch = architecture.of_config(made.config)
    return made


def _complete(folder: Path | None) -> Path | None:
    try:
        return folder if folder and modelinfo.describe(folder) else None
    except StudioError:
        return None  # only part of it was fetched so far


def _check_adapter(adapter: refs.ModelRef, model: refs.ModelRef) -> None:
    if not adapter.is_adapter:
        raise StudioError(f"{adapter.label} is a whole model; only an adapter goes behind the '+'.",
                          "Name it as a model of its own.", "config")
    if adapter.meta.get("peft_type") in modelinfo.PROMPT_TYPES:
        raise StudioError(f"{adapter.label} adds virtual words to the input, which have no place in the weights.",
                          "Use a LoRA.", "config")
    if adapter.meta.get("rope"):
        raise StudioError(f"{adapter.label} was trained with stretched positions, which a merge would lose.",
                          "Fold it into its base first (Merge: adapter into base), and merge the result.", "config")
    if (adapter.path and (adapter.path / "tokenizer.json").is_file() and model.path
            and (told := shards.compare(model.path, adapter.path)) and not told.same):
        raise StudioError(f"{adapter.label} changed the words of {model.label} ({_differ(told)}).",
                          "Fold it into its base first (Merge: adapter into base), and merge the result.", "config")


def compatible(values: dict[str, Any], parents: dict[str, Parent], options: dict[str, Any]) -> list[Problem]:
    """Whether the models go together."""
    here = [one for one in parents.values() if one.folder is not None]
    found = [note(f"{one.label} is downloaded when the merge starts; then it is checked as well.", "", one.path)
             for one in parents.values() if one.model is not None and one.folder is None]
    found += [note(f"{one.pair} is made by an earlier step and checked when it is there.", "", one.path)
              for one in parents.values() if one.model is None]
    for one in here:
        known = one.adapter.meta.get(bases.KEY) if one.adapter else None
        if known and bases.fingerprint(one.folder) != known:
            found.append(warning(f"{one.adapter.label} was made for other weights than those of {one.model.label}.",
                                 "On them its answers are not what it learned. Choose the model it was trained on.", one.path))
    if len(here) < 2:
        return found
    base = next((parents[one.base] for one in config.slices(values) if one.base and one.base in parents), here[0])
    if base.folder is None:
        base = here[0]
    for other in here:
        if other is not base:
            found += _pair(values, base, other, options)
    return found


def _pair(values: dict[str, Any], a: Parent, b: Parent, options: dict[str, Any]) -> list[Problem]:
    names = [(one.config.get("architectures") or ["unknown"])[0] for one in (a, b)]
    crimes = bool(options.get("allow_crimes"))
    found = []
    if names[0] != names[1] and (a.arch is None or b.arch is None or a.arch.modules != b.arch.modules):
        said = f"{a.label} is a {names[0]}, {b.label} a {names[1]}: their weights do not correspond."
        hint = "Merge models of one architecture, best tunes of one base."
        if not crimes:
            return [error(said, hint, b.path)]
        found.append(warning(said, "You allowed it: expect nonsense unless you know better.", b.path))
    x, y = text_config(a.config), text_config(b.config)
    for key, plain in _PLAIN.items():
        if x.get(key) != y.get(key) and x.get(key) is not None and y.get(key) is not None:
            return [*found, error(f"The {plain} differs: {a.label} has {x[key]}, {b.label} {y[key]}.",
                                  "Merge models of one size, best tunes of one base.", b.path)]
    if not values.get("slices") and not values.get("modules") and a.layers != b.layers:
        found.append(error(f"{a.label} has {a.layers} layers, {b.label} {b.layers}.",
                           "Choose with slices which layers are merged with which.", b.path))
    if _rope(x) != _rope(y):
        said = " and ".join(f"{kind} {theta:g}" + (f" × {factor:g}" if factor else "")
                            for kind, theta, factor in (_rope(x), _rope(y)))
        found.append(warning(f"{a.label} and {b.label} count positions in different ways (RoPE {said}).",
                             "The merged model takes those of the base, or of the first model; check long texts.", b.path))
    if bool(x.get("tie_word_embeddings")) != bool(y.get("tie_word_embeddings")):
        found.append(warning(f"{a.label if x.get('tie_word_embeddings') else b.label} uses one "
                             "table for the words it reads and writes, the other one two.",
                             "The merged model gets two; check its answers.", b.path))
    return found + _tokenizers(values, a, b, options)


def _rope(values: dict[str, Any]) -> tuple[Any, ...]:
    told = values.get("rope_parameters") or values.get("rope_scaling") or {}
    told = told if isinstance(told, dict) else {}

    def positive(value: Any) -> float | None:
        return float(value) if isinstance(value, int | float) and value else None

    return (str(told.get("rope_type") or told.get("type") or "default"),
            positive(told.get("rope_theta")) or positive(values.get("rope_theta")) or 10000.0, positive(told.get("factor")))


def _tokenizers(values: dict[str, Any], a: Parent, b: Parent, options: dict[str, Any]) -> list[Problem]:
    """Words and their numbers: a merge adds up rows of the same number."""
    aligned = bool(values.get("tokenizer") or values.get("tokenizer_source"))
    rows = [text_config(one.config).get("vocab_size") for one in (a, b)]
    told = shards.compare(a.folder, b.folder)
    ends = [part for part in config.slices(values) if part.sources]
    lending = {source.pair for part in (ends[0], ends[-1]) for source in part.sources} if ends else set()
    if not {a.pair, b.pair} <= lending and not values.get("modules"):
        return []  # one lends inner layers only, and no rows of words
    union = "Set the tokenizer to union (all words of both) or base, so that rows of the same word are merged."
    if told is None:
        if not any((one.folder / "tokenizer.json").is_file() for one in (a, b)):
            return []
        return [warning(f"The tokenizers of {a.label} and {b.label} cannot be compared: one has no tokenizer.json.",
                        "Make sure that they are the same.", b.path)]
    if aligned:
        return [] if told.same else [note(f"The tokenizers of {a.label} and {b.label} differ ({_differ(told)}); their rows "
                                          "are matched by word.", "", "tokenizer")]
    if told.clashes:
        said = (f"The tokenizers of {a.label} and {b.label} disagree: {told.clashes} numbers stand for different words "
                f"({told.example}).")
        if options.get("allow_crimes"):
            return [warning(said, union, "tokenizer")]
        return [error(said, union, "tokenizer")]
    if rows[0] != rows[1]:
        if options.get("unsafe_truncate_embeddings"):
            return [warning(f"{a.label} has {rows[0]} rows of words, {b.label} {rows[1]}; the longer table is cut.", union,
                            "tokenizer")]
        return [error(f"{a.label} has {rows[0]} rows of words, {b.label} {rows[1]}.", union, "tokenizer")]
    if not told.same:
        return [warning(f"The tokenizers of {a.label} and {b.label} differ ({_differ(told)}); the merged model knows only "
                        "the words of the base, or of the first model.", union, "tokenizer")]
    return []


def _differ(told: shards.Words) -> str:
    parts = [f"{told.first_only} words only in the first"] if told.first_only else []
    parts += [f"{told.second_only} only in the second"] if told.second_only else []
    parts += [f"{told.clashes} numbers with another word"] if told.clashes else []
    return ", ".join(parts)
