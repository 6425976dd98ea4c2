"""A merge as mergekit's configuration in plain values, whose models are studio references.

``base+adapter`` is a model with a LoRA, as in mergekit. mergekit ignores keys and parameters that it does not know, so
everything is checked here by name; each :class:`Problem` says where it is. No torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from studio import settings
from studio.errors import StudioError
from studio.mergers import parameters, spec
from studio.mergers.parameters import Problem, error, warning

DTYPES = ("bfloat16", "float16", "float32", "float64")
FORMS = ("models", "slices", "modules")
MOST = 2000  # slices or models; more is a broken file
_SCHEME = re.compile(r"(starter|library:\w+|run:[\w/-]+|step:[\w-]+|hub:[\w./@-]+)")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


class Source(NamedTuple):
    """One model that is read: ``pair`` is its reference, maybe ``base+adapter``; ``parameters`` its own; ``layers`` the
    range in a slice (``None``: all)."""

    pair: str
    parameters: dict[str, Any]
    layers: tuple[int, int] | None
    path: str


class Slice(NamedTuple):
    """Layers of the result that are made of the same sources; ``scopes`` are the settings for all of them, nearest first."""

    sources: list[Source]
    base: str | None
    scopes: list[dict[str, Any]]
    path: str


def split(pair: str) -> tuple[str, str | None]:
    """``base+adapter`` -> (base, adapter). A ``+`` in the name of a folder is no separator."""
    if "+" not in pair or _there(pair):
        return pair.strip(), None
    cuts = [i for i, letter in enumerate(pair) if letter == "+"]
    for cut in cuts:
        left, right = pair[:cut].strip(), pair[cut + 1:].strip()
        if _SCHEME.fullmatch(left) or (_there(left) and (right == "" or _SCHEME.match(right) or _there(right))):
            return left, right
    return pair[:cuts[0]].strip(), pair[cuts[0] + 1:].strip()


def _there(ref: str) -> bool:
    path = Path(ref).expanduser()
    try:
        return (path if path.is_absolute() else settings.home() / path).exists()
    except OSError:
        return False


def pair_of(value: Any) -> str:
    """A model as the configuration writes it (text, or a dict with ``model`` and ``lora``) as one text."""
    if isinstance(value, dict):
        lora = value.get("lora")
        return f"{value.get('model') or ''}" + (f"+{lora}" if lora else "")
    return value.strip() if isinstance(value, str) else ""


def mapped(config: Any, change: Callable[[str, str], str]) -> Any:
    """A copy of a configuration in which ``change(path, reference)`` replaced each reference, an adapter's too.

    What is malformed is copied as it is; :func:`problems` tells of it.
    """
    def text(path: str, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            model, adapter = split(value)
            made = change(path, model) if model else model
            return made if adapter is None else f"{made}+{change(path, adapter) if adapter else ''}"
        if isinstance(value, dict):
            return {key: change(f"{path}.{key}", inner) if key in ("model", "lora") and isinstance(inner, str) and inner
                    else inner for key, inner in value.items()}
        return value

    def entries(path: str, values: Any, inner: Callable[[str, dict], dict]) -> Any:
        if not isinstance(values, list):
            return values
        return [inner(f"{path}[{i}]", dict(one)) if isinstance(one, dict) else one for i, one in enumerate(values)]

    def model(path: str, entry: dict) -> dict:
        return entry | ({"model": text(f"{path}.model", entry["model"])} if "model" in entry else {})

    def slice_(path: str, entry: dict) -> dict:
        return based(path, entry) | ({"sources": entries(f"{path}.sources", entry["sources"], model)}
                                     if "sources" in entry else {})

    def based(path: str, entry: dict) -> dict:
        key = f"{path}.base_model".lstrip(".")
        return entry | ({"base_model": text(key, entry["base_model"])} if "base_model" in entry else {})

    def forms(path: str, entry: dict) -> dict:
        lead = f"{path}." if path else ""
        if "models" in entry:
            entry["models"] = entries(f"{lead}models", entry["models"], model)
        if "slices" in entry:
            entry["slices"] = entries(f"{lead}slices", entry["slices"], slice_)
        return entry

    def word(path: str, value: Any) -> Any:
        return value if value in ("union", "base") else text(path, value)

    if not isinstance(config, dict):
        return config
    made = forms("", based("", dict(config)))
    if isinstance(made.get("modules"), dict):
        made["modules"] = {name: forms(f"modules.{name}", dict(one)) if isinstance(one, dict) else one
                           for name, one in made["modules"].items()}
    if "tokenizer_source" in made:
        made["tokenizer_source"] = word("tokenizer_source", made["tokenizer_source"])
    if isinstance(made.get("tokenizer"), dict):
        told = made["tokenizer"] = dict(made["tokenizer"])
        if "source" in told:
            told["source"] = word("tokenizer.source", told["source"])
        if isinstance(told.get("tokens"), dict):
            told["tokens"] = {token: _token(text, f"tokenizer.tokens.{token}", one)
                              for token, one in told["tokens"].items()}
    return made


def _token(text: Callable[[str, Any], Any], path: str, value: Any) -> Any:
    if not isinstance(value, dict) or "source" not in value:
        return value
    source = value["source"]
    if isinstance(source, dict) and "kind" in source:
        source = source | ({"model": text(f"{path}.source.model", source["model"])} if "model" in source else {})
    else:
        source = text(f"{path}.source", source)
    return value | {"source": source}


def references(config: Any) -> list[tuple[str, str]]:
    """(path, reference) of every model and adapter that a configuration names, in the order of the file."""
    found: list[tuple[str, str]] = []
    mapped(config, lambda path, ref: found.append((path, ref)) or ref)
    return found


def slices(config: dict[str, Any]) -> list[Slice]:
    """What is merged with what, of a configuration without errors: one slice for whole models."""
    found = []
    shared = config.get("parameters") or {}
    for path, part in parts(config):
        lead = f"{path}." if path else ""
        base = pair_of(config.get("base_model")) or None
        scopes = [shared] if not path else [part.get("parameters") or {}, shared]
        if part.get("models"):
            sources = [Source(pair_of(one["model"]), one.get("parameters") or {}, None, f"{lead}models[{i}]")
                       for i, one in enumerate(part["models"])]
            if base and base not in [one.pair for one in sources]:
                sources.append(Source(base, {}, None, "base_model"))  # as mergekit does
            found.append(Slice(sources, base, scopes, f"{lead}models"))
        for i, one in enumerate(part.get("slices") or []):
            where = f"{lead}slices[{i}]"
            sources = [Source(pair_of(inner["model"]), inner.get("parameters") or {}, tuple(inner["layer_range"]),
                              f"{where}.sources[{j}]") for j, inner in enumerate(one["sources"])]
            found.append(Slice(sources, pair_of(one.get("base_model")) or base, [one.get("parameters") or {}, *scopes],
                               where))
    return found


def parts(config: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(path, settings) of each module of a configuration, or of itself where it has none."""
    modules = config.get("modules")
    return [(f"modules.{name}", one) for name, one in modules.items()] if isinstance(modules, dict) and modules else [("", config)]


def merged_models(config: dict[str, Any]) -> list[str]:
    """Every model that is read (``base+adapter`` as one), in the order of the file, the base model last unless named."""
    return list(dict.fromkeys(source.pair for one in slices(config) for source in one.sources))


def problems(config: Any) -> list[Problem]:
    """What is wrong with the form of a configuration, whatever its models hold."""
    if not isinstance(config, dict) or not config:
        return [error("The merge is empty.", "Choose a method and models, or import a mergekit YAML.", "")]
    return list(_problems(config))


def _problems(config: dict[str, Any]) -> Iterator[Problem]:
    yield from _unknown(config, "MergeConfiguration", "")
    methods = spec.methods()
    name = config.get("merge_method")
    if not name:
        yield error("The merge method is missing.", f"Write merge_method: with one of {', '.join(methods)}.", "merge_method")
        return
    if not isinstance(name, str) or name not in methods:
        near = difflib.get_close_matches(str(name), methods, n=1)
        yield error(f"There is no merge method '{name}'.",
                    f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(methods)}.", "merge_method")
        return
    given = [form for form in FORMS if config.get(form)]
    if len(given) != 1:
        yield error("Nothing says what is merged." if not given else f"{' and '.join(given)} cannot stand together.",
                    "Give models (whole models), slices (layers) or modules, one of them.", given[1] if given else "models")
        return
    if given == ["modules"] and not isinstance(config["modules"], dict):
        yield error("modules is a list of named parts.", "Write 'default:' under it, with models or slices.", "modules")
        return
    method = methods[name]
    shaped = True
    for path, part in parts(config):
        for problem in _part(part, path, method):
            shaped = shaped and problem.level != "error"
            yield problem
    if "base_model" in config:
        yield from _model(config["base_model"], "base_model")
    yield from parameters.problems(config.get("parameters"), "parameters", method, None)
    yield from _words(config)
    if shaped:
        yield from _inputs(config, method)


def _part(part: Any, path: str, method: dict[str, Any]) -> Iterator[Problem]:
    """``models`` or ``slices`` of the configuration or of one of its modules."""
    lead = f"{path}." if path else ""
    if not isinstance(part, dict):
        yield error("A module is a list of settings.", "Give it models: or slices:.", path)
        return
    if path:
        yield from _unknown(part, "OutputModuleDefinition", path)
        if bool(part.get("models")) == bool(part.get("slices")):
            yield error("A module needs models or slices, and not both.", "Keep one of them.", path)
            return
        yield from parameters.problems(part.get("parameters"), f"{lead}parameters", method, None)
    for form in ("models", "slices"):
        entries = part.get(form)
        if not entries:
            continue
        if not isinstance(entries, list) or len(entries) > MOST:
            yield error(f"{form} is a list of at most {MOST}.", "Begin each entry with '-'.", f"{lead}{form}")
            continue
        for i, entry in enumerate(entries):
            yield from (_entry if form == "models" else _slice)(entry, f"{lead}{form}[{i}]", method)


def _entry(entry: Any, path: str, method: dict[str, Any], of: str = "InputModelDefinition") -> Iterator[Problem]:
    if not isinstance(entry, dict):
        yield error("This is not a model with its settings.", "Write it as '- model: starter'.", path)
        return
    yield from _unknown(entry, of, path)
    yield from _model(entry.get("model"), f"{path}.model")
    yield from parameters.problems(entry.get("parameters"), f"{path}.parameters", method, pair_of(entry.get("model")))


def _slice(entry: Any, path: str, method: dict[str, Any]) -> Iterator[Problem]:
    if not isinstance(entry, dict) or not isinstance(entry.get("sources"), list) or not entry["sources"]:
        yield error("A slice needs sources.", "Write 'sources:' with a model and its layer_range for each.", path)
        return
    yield from _unknown(entry, "OutputSliceDefinition", path)
    if entry.get("residual_weight") is not None:
        yield error("residual_weight has no effect in mergekit.", "Leave it out; scale the output weights by a parameter.",
                    f"{path}.residual_weight")
    if "base_model" in entry:
        yield from _model(entry["base_model"], f"{path}.base_model")
    yield from parameters.problems(entry.get("parameters"), f"{path}.parameters", method, None)
    lengths = set()
    for j, source in enumerate(entry["sources"]):
        where = f"{path}.sources[{j}]"
        yield from _entry(source, where, method, "InputSliceDefinition")
        if not isinstance(source, dict):
            continue
        span = source.get("layer_range")
        if not (isinstance(span, list | tuple) and len(span) == 2 and all(type(n) is int for n in span)):
            yield error("A layer range is two whole numbers.", "Write [0, 8] for the first eight layers.",
                        f"{where}.layer_range")
        elif not 0 <= span[0] < span[1]:
            yield error(f"The layer range {list(span)} holds no layer.", "The second number is the first layer that is "
                        "not taken.", f"{where}.layer_range")
        else:
            lengths.add(span[1] - span[0])
    if len(lengths) > 1:
        yield error("The sources of a slice differ in their number of layers.",
                    f"They have {' and '.join(map(str, sorted(lengths)))}; give all the same.", path)


def _model(value: Any, path: str) -> Iterator[Problem]:
    if isinstance(value, dict):
        yield from _unknown(value, "ModelReference", path)
        if not all(isinstance(value.get(key) or "", str) for key in ("model", "lora", "override_architecture")):
            yield error("A model is named by text.", "Write model: starter, say.", path)
            return
    elif not isinstance(value, str):
        yield error("No model is chosen.", "Choose a model.", path)
        return
    model, adapter = split(pair_of(value))
    if not model:
        yield error("No model is chosen.", "Choose a model.", path)
    elif adapter is not None and (not adapter or "+" in adapter and not _there(adapter)):
        yield error("One adapter belongs behind the '+'.", "Fold further ones into the model first.", path)


def _words(config: dict[str, Any]) -> Iterator[Problem]:
    """Precision, tokenizer and chat template."""
    for key in ("dtype", "out_dtype"):
        value = config.get(key)
        if value is not None and str(value).removeprefix("torch.") not in DTYPES:
            yield error(f"'{value}' is no precision that weights can be merged in.", f"Known: {', '.join(DTYPES)}.", key)
    if config.get("tokenizer") is not None:
        if config.get("tokenizer_source"):
            yield error("tokenizer and tokenizer_source cannot stand together.", "Leave tokenizer_source out.",
                        "tokenizer_source")
        yield from _tokenizer(config["tokenizer"])
    if (source := config.get("tokenizer_source")) and source not in ("union", "base"):
        yield from _model(source, "tokenizer_source")
    template = config.get("chat_template")
    if template is None:
        return
    known = ["auto", *spec.templates()]
    if not isinstance(template, str) or not template:
        yield error("A chat template is text.", f"Known by name: {', '.join(known)}.", "chat_template")
    elif template not in known:
        if "{" not in template or len(template) < 20:
            near = difflib.get_close_matches(template, known, n=1)
            yield error(f"There is no chat template '{template[:40]}'.",
                        f"Did you mean '{near[0]}'?" if near else f"Known by name: {', '.join(known)}; or write a whole one.",
                        "chat_template")
        elif said := _jinja(template):
            yield error(f"The chat template cannot be read: {said}.", "Mend it, or choose one by name.", "chat_template")


def _jinja(template: str) -> str:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(
            re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template))
    except TemplateSyntaxError as err:
        return str(err.message or err).rstrip(".")
    return ""


def _tokenizer(value: Any) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield error("tokenizer holds settings.", "Write 'source: union' under it.", "tokenizer")
        return
    yield from _unknown(value, "TokenizerConfig", "tokenizer")
    source = value.get("source", "union")
    if source not in ("union", "base"):
        yield from _model(source, "tokenizer.source")
    multiple = value.get("pad_to_multiple_of")
    if multiple is not None and (type(multiple) is not int or not 1 <= multiple <= 65536):
        yield error("pad_to_multiple_of is a whole number.", "64 is usual.", "tokenizer.pad_to_multiple_of")
    tokens = value.get("tokens")
    if tokens is not None and not isinstance(tokens, dict):
        yield error("tokens are written as 'token:' with settings.", "See docs/merge.md.", "tokenizer.tokens")
        return
    for token, one in (tokens or {}).items():
        path = f"tokenizer.tokens.{token}"
        if not isinstance(one, dict):
            yield error("A token needs a source.", "Write 'source:' and the model whose word it is.", path)
            continue
        yield from _unknown(one, "TokenEmbeddingConfig", path)
        inner = one.get("source")
        if isinstance(inner, dict) and "kind" in inner:
            if inner["kind"] not in ("zero", "model_token"):
                yield error(f"There is no kind '{inner['kind']}'.", "Known: zero, model_token.", f"{path}.source.kind")
            elif inner["kind"] == "model_token":
                yield from _unknown(inner, "ModelTokenEmbedding", f"{path}.source")
                yield from _model(inner.get("model"), f"{path}.source.model")
                if (inner.get("token") is None) == (inner.get("token_id") is None):
                    yield error("Either a token or a token_id names the word.", "Give one of them.", f"{path}.source")
        elif inner is not None:
            yield from _model(inner, f"{path}.source")


def _inputs(config: dict[str, Any], method: dict[str, Any]) -> Iterator[Problem]:
    """How many models the method takes, and which of them is the base."""
    title, wanted = method["title"], method["base"]
    for one in slices(config):
        pairs = [source.pair for source in one.sources]
        if len(set(pairs)) < len(pairs):
            twice = next(pair for pair in pairs if pairs.count(pair) > 1)
            yield error(f"{twice} stands twice among the sources.", "Name each model once and give it more weight.", one.path)
            continue
        base = one.base if wanted != "ignored" else None
        if wanted == "required" and not base:
            yield error(f"{title} needs a base model.", "Say which of the models is the base, or choose the one that the "
                        "others were tuned from.", "base_model")
            continue
        if base and base not in pairs:
            yield error(f"The base model {base} is not among the sources of this slice.", "Add it with the same number of "
                        "layers.", one.path)
            continue
        if wanted == "forbidden" and base:
            yield error(f"{title} takes no base model.", "Leave it out.", "base_model")
        if wanted == "ignored" and one.base and not config.get("slices"):
            named = any(source.path == "base_model" for source in one.sources)
            if named:
                yield error(f"{title} knows no base model, and would merge it as one more model.",
                            "Leave base_model out, or add it to the models with its own settings.", "base_model")
                continue
        others = len(pairs) - (base is not None)
        for count, low, high, what in ((len(pairs), method["min_models"], method["max_models"], "models"),
                                       (others, method["min_non_base"], method["max_non_base"],
                                        "models besides the base")):
            if low is not None and count < low or high is not None and count > high:
                limit = f"exactly {low}" if low == high else f"at least {low}" if count < (low or 0) else f"at most {high}"
                with_base = " (the base is one of them)" if base and what == "models" else ""
                yield error(f"{title} takes {limit} {what}{with_base}; there {'is' if count == 1 else 'are'} {count}.",
                            "Choose other models or another method.", one.path)
                break
        else:
            if len(pairs) == 1 and wanted != "ignored":
                yield warning("There is nothing to merge but the base itself.", "Add a model.", one.path)
        yield from parameters.of_base(one, base, method)
    made = slices(config)
    if len(made) > 1 and len(made[0].sources) < len(made[-1].sources) and not config.get("modules"):
        yield error("The last slice has more sources than the first one, and mergekit would take only as many for the "
                    "final weights.", "Give the first slice as many sources.", made[-1].path)


def _unknown(values: dict[str, Any], model: str, path: str) -> Iterator[Problem]:
    known = spec.keys(model)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            yield error(f"mergekit knows no '{key}' here and would ignore it.",
                        f"Did you mean '{near[0]}'?" if near else f"Known here: {', '.join(known)}.",
                        f"{path}.{key}" if path else str(key))


def is_mergekit(values: Any) -> bool:
    """These are mergekit's own settings, not a recipe of the studio."""
    return isinstance(values, dict) and "merge_method" in values and "kind" not in values and "method" not in values


def imported(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration as mergekit writes it with studio references: what is on the Hub gets ``hub:``, folders of the
    library and the starter their names."""
    return mapped(_plain_models(values), lambda path, ref: _reference(ref))


def _plain_models(values: Any) -> Any:
    """mergekit's long way to write a model (``{model: {path, revision}, lora: …}``) as text where that says the same."""
    if isinstance(values, list):
        return [_plain_models(one) for one in values]
    if not isinstance(values, dict):
        return values
    if set(values) <= {"path", "revision"} and isinstance(values.get("path"), str):
        return values["path"] + (f"@{values['revision']}" if values.get("revision") else "")
    made = {key: _plain_models(one) for key, one in values.items()}
    if "model" in made and set(made) <= {"model", "lora"} and isinstance(made["model"], str) and "lora" in made:
        return made["model"] + (f"+{made['lora']}" if made["lora"] else "")
    return made


def _reference(ref: str) -> str:
    if _SCHEME.fullmatch(ref) or ref.startswith(("library:", "run:", "step:", "hub:")):
        return ref
    if _HUB.fullmatch(ref) and not _there(ref):
        return f"hub:{ref}"
    path = Path(ref).expanduser()
    if path.is_absolute():
        return _known_folders().get(path.resolve(), ref)
    return ref


def _known_folders() -> dict[Path, str]:
    from studio.library import artifacts

    rows = artifacts.listed(("model", "adapter"))
    return {Path(row["path"]).resolve(): row["ref"] for row in rows} | {settings.STARTER.resolve(): "starter"}


def exported(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration for mergekit's own command line: references become folders of this disk or ids of the Hub.

    Raises:
        StudioError: a model is not there, or an earlier step is still to make it.
    """
    from studio.library import refs

    def place(path: str, ref: str) -> str:
        if ref.startswith("step:"):
            raise StudioError(f"{path}: {ref} is made by an earlier step and has no folder yet.",
                              "Export it when the step is through.", "config")
        found = refs.resolve_model(ref)
        if found.path is None:
            return f"{found.hub_id}@{found.revision}" if found.revision else str(found.hub_id)
        if any(sign in str(found.path) for sign in "+@"):
            raise StudioError(f"mergekit cannot read the folder {found.path}, because of the '+' or '@' in its name.",
                              "Rename the folder.", "config")
        return str(found.path.resolve())

    return mapped(_whole(config), place)


def _whole(config: dict[str, Any]) -> dict[str, Any]:
    """Adapters that stand alone get their base in front: mergekit needs ``base+adapter``."""
    from studio.library import refs

    alone: dict[str, str] = {}
    for _, ref in references(config):
        if not ref.startswith("step:") and (found := refs.resolve_model(ref)).is_adapter and found.base:
            alone[ref] = f"{found.base}+{ref}"

    def pairs(value: Any) -> Any:
        if isinstance(value, list):
            return [pairs(one) for one in value]
        if isinstance(value, dict):
            return {key: pairs(one) for key, one in value.items()}
        return alone.get(value, value) if isinstance(value, str) else value

    return pairs(config) if alone else config
