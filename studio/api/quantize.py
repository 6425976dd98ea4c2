"""Quantization for the page: what can be chosen, how a run stands, the variants of a model, how each is run elsewhere."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import settings
from studio.api.who import scope
from studio.errors import StudioError

_LARGEST = 64_000_000  # bytes of a learn.json that is read
_FACTS = ("format", "quantization", "bits", "parameters", "seconds", "method", "proof", "notes", "variant", "imatrix")


def quantize_types(values: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """What the chosen method can make of the chosen model.

    Args:
        values: A quantization recipe as the form has it; faulty fields other than the model do no harm.

    Returns:
        ``{"fields": {name: {"title", "help", "choices": [...]}}, "makes", "source": {"ref", "label", "size", "parameters"} |
        None}``. A field is one that is picked from a list; each choice has ``{"name", "about", "group", "imatrix", "bits",
        "variant", "size", "needs", "fits"}``: ``imatrix`` marks what needs an importance matrix, sizes are bytes, ``fits``
        GB, and ``None`` where they are not known. ``makes`` is the field whose choices become variants, or empty.

    Raises:
        StudioError: no such method, or another person's model.
    """
    from studio import registry
    from studio.library.refs import check_owner
    from studio.quantizers import plan
    from studio.recipe import fields

    method = registry.method("quantize", str(values.get("method") or ""))
    if ref := str(values.get("model") or ""):
        check_owner(ref, scope(owner), "model")
    recipe = _recipe(method, values)
    specs = {spec.name: spec for spec in fields(method.Recipe) if spec.type == "list" and spec.choices}
    made = {name: {"title": spec.title, "help": spec.help, "choices": _choices(method, spec)} for name, spec in specs.items()}
    makes = (plan.chosen_in(recipe) or "") if hasattr(method, "variants") else ""
    source, told, names = None, {}, {}
    try:
        model = plan.source_of(recipe.model)
        source = {"ref": recipe.model, "label": _label(recipe.model, model.label), "size": model.meta.get("size"),
                  "parameters": model.meta.get("parameters")}
        if makes in made:
            every = [choice["name"] for choice in made[makes]["choices"]]
            whole = recipe.model_copy(update={makes: every})
            names = dict(zip(every, method.variants(whole), strict=True))
            told = {row["variant"]: row for row in plan.sizes(method, whole)}
    except StudioError:
        pass  # the form says what is wrong with the model
    for choice in made.get(makes, {}).get("choices", []):
        size = told.get(names.get(choice["name"]), {})
        choice |= {"variant": names.get(choice["name"]), "bits": size.get("bits", choice["bits"]), "size": size.get("size"),
                   "needs": size.get("needs"), "fits": size.get("fits")}
    return {"fields": made, "makes": makes if makes in made else "", "source": source}


def _recipe(method: Any, values: dict[str, Any]) -> Any:
    """The values that are sound, defaults for the others."""
    from pydantic import ValidationError

    given = {key: value for key, value in values.items() if key in method.Recipe.model_fields}
    for _ in range(3):
        try:
            return method.Recipe.model_validate(given)
        except ValidationError as err:
            given = {key: value for key, value in given.items() if key not in {str(e["loc"][0]) for e in err.errors() if e["loc"]}}
            if any(not e["loc"] for e in err.errors()):
                given = {key: value for key, value in given.items() if key == "model"}
    return method.Recipe()


def _choices(method: Any, spec: Any) -> list[dict[str, Any]]:
    """What a list field may hold, each with what is known of it."""
    facts = _gguf_types() if method.Recipe.method == "gguf" else {}
    made = []
    for value, label in spec.choices:
        known = facts.get(value, {})
        about = known.get("about") or (label if label != str(value) else "")
        made.append({"name": value, "about": about, "group": known.get("kind") or "", "imatrix": bool(known.get("needs_imatrix")),
                     "bits": known.get("bits"), "variant": None, "size": None, "needs": None, "fits": None})
    return made


def _gguf_types() -> dict[str, dict[str, Any]]:
    from studio.gguf.types import TYPES

    return {name: facts._asdict() for name, facts in TYPES.items()}


def _label(ref: str, fallback: str) -> str:
    from studio.library import refs

    try:
        return refs.resolve_model(ref).label
    except StudioError:
        return fallback


def variants(ref: str, owner: str | None = None) -> dict[str, Any]:
    """Every quantization of one model that is in the library.

    Args:
        ref: The model, or one of its variants.

    Returns:
        ``{"source": {"ref", "label", "size", "parameters"}, "variants": [{"ref", "id", "run", "label", "created", "size",
        "format", "quantization", "bits", "parameters", "seconds", "method", "proof"}]}``, the newest first. ``proof`` is
        that of :meth:`studio.quantizers.proof.Reference.compare`, or ``None``.

    Raises:
        StudioError: another person's model.
    """
    from studio.library import artifacts, refs

    refs.check_owner(ref, scope(owner), "model")
    if ref.startswith("library:"):
        try:
            row = artifacts.get(ref[8:])
            ref = next((p["ref"] for p in row["parents"] if p["role"] == "source"), ref)
        except StudioError:
            pass  # typed, and there is none: no variants either
    made = [_variant(row) for row in reversed(artifacts.children(ref))
            if scope(owner) in (None, row["owner"]) and any(p["ref"] == ref and p["role"] == "source" for p in row["parents"])]
    try:
        model = refs.resolve_model(ref)
        source = {"ref": ref, "label": model.label, "size": model.meta.get("size"), "parameters": model.meta.get("parameters")}
    except StudioError:
        source = {"ref": ref, "label": ref, "size": None, "parameters": None}
    return {"source": source, "variants": made}


def _variant(row: dict[str, Any]) -> dict[str, Any]:
    return {"ref": row["ref"], "id": row["id"], "run": row["run_id"], "label": row["name"], "created": row["created"],
            "size": row["size"], **{key: row["meta"].get(key) for key in _FACTS}}


def quantize_run(id: str, owner: str | None = None) -> dict[str, Any]:
    """How a quantization stands, variant by variant.

    Returns:
        ``{"source": {"ref", "label"}, "method", "field", "variants": [...], "doing"}``; of each variant ``{"name", "state", "share",
        "message", "hint", "ref", "label", "size", ...}`` with the facts of :func:`variants` once it is made. ``state`` is
        ``waiting`` | ``make`` | ``prove`` | ``done`` | ``failed`` | ``skipped``; ``ref`` comes with the end of the run.
        ``doing`` is ``reference`` while the source itself is looked at, else empty.

    Raises:
        StudioError: there is no such run, or it is no quantization.
    """
    from studio import registry
    from studio.jobs import store
    from studio.library import artifacts
    from studio.recipe import parse

    row = _run(id, owner)
    recipe = parse(row["recipe"])
    rows = {name: {"name": name, "state": "waiting", "share": 0.0}
            for name in registry.method("quantize", row["method"]).variants(recipe)}
    known = {made["meta"].get("variant"): made for made in artifacts.listed(("model",), run_id=id)}
    now, doing = None, ""
    for event in _events(id):
        if event["e"] == "stage":
            now, doing = str(event.get("variant") or ""), str(event.get("doing") or "")
            if now in rows:
                rows[now] |= {"state": doing, "message": event.get("message", ""), "hint": event.get("hint", "")}
        if event["e"] in ("stage", "progress") and now in rows and rows[now]["state"] in ("make", "prove"):
            done = float(event.get("done") or 0) - list(rows).index(now)
            rows[now]["share"] = max(0.0, min(1.0, done))
        elif event["e"] == "artifact" and isinstance(event.get("meta"), dict):
            meta, name = event["meta"], event["meta"].get("variant")
            made = known.get(name)
            if name in rows:
                rows[name] |= {"state": "done", "share": 1.0, "label": event.get("name"), "size": meta.get("size"),
                               "ref": made["ref"] if made else None, **{key: meta.get(key) for key in _FACTS}}
                if made:
                    rows[name] |= {"label": made["name"], "id": made["id"]}
    if store.is_final(row["state"]):
        doing = ""
        for one in rows.values():
            if one["state"] not in ("done", "failed"):
                one["state"] = "skipped"
    return {"source": {"ref": recipe.model, "label": _label(recipe.model, recipe.model)}, "method": row["method"],
            "variants": list(rows.values()), "doing": doing if doing == "reference" else ""}


def _events(id: str) -> list[dict[str, Any]]:
    from studio.jobs import events

    path, cursor, found = settings.run_dir(id) / "events.jsonl", 0, []
    while True:
        more, after = events.read(path, cursor)
        found += [event for event in more if event["e"] in ("stage", "progress", "artifact")]
        if after == cursor:
            return found
        cursor = after


def _run(id: str, owner: str | None) -> dict[str, Any]:
    from studio.jobs import store

    row = store.get(id)
    if row["kind"] != "quantize" or scope(owner) not in (None, row["owner"]):
        raise StudioError("This run is no quantization.", "Open it in the list of runs.")
    return row


def quantize_learn(id: str, owner: str | None = None) -> dict[str, Any]:
    """What a run of 'Learn it' measured: the content of its ``learn.json`` (:mod:`studio.quantizers.learn`).

    Raises:
        StudioError: no such run, or nothing measured yet.
    """
    _run(id, owner)
    path = settings.run_dir(id) / "output" / "learn.json"
    try:
        if path.stat().st_size > _LARGEST:
            raise StudioError("What this run measured is too much for the page.", "Choose a smaller model.")
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise StudioError("Nothing is measured yet.", "It is shown as soon as the run is done.") from err


def exports(ref: str, owner: str | None = None) -> list[dict[str, Any]]:
    """How a model is run by other programs.

    Returns:
        ``{"target", "title", "possible", "why", "commands": [{"title", "text"}], "files": [{"name", "text"}], "notes"}``
        for llama.cpp, Ollama, LM Studio, vLLM, SGLang and transformers; see :mod:`studio.quantizers.exports`.

    Raises:
        StudioError: an adapter, a model that is not on this machine, or another person's.
    """
    from studio.library import artifacts, refs
    from studio.quantizers import exports as core

    refs.check_owner(ref, scope(owner), "model")
    row = artifacts.get(ref[8:]) if ref.startswith("library:") else None
    model = refs.resolve_model(ref)
    if model.is_adapter:
        raise StudioError(f"{model.label} is an adapter: it needs its base to run.", "Merge it into its base first, then export "
                          "the whole model.", "model")
    if model.path is None:
        raise StudioError(f"{model.label} is on the Hub already.", "Its page there says how to run it.", "model")
    meta = model.meta | (row["meta"] if row else {})
    format = meta.get("format") or ("gguf" if any(model.path.glob("*.gguf")) else "safetensors")
    words = _gguf_words(model.path) if format == "gguf" else core.words_of(model.path)
    source = next((p["ref"] for p in (row or {}).get("parents", []) if p["role"] == "source"), "")
    made = core.Model(row["name"] if row else model.label, model.path, format, meta, _place(source), words)
    return core.exports(made, _chat(words["template"], words["bos"], words["eos"]))


def _place(ref: str) -> str:
    """Where a server finds a model: its folder, or its id on the Hub; empty where that is not known."""
    from studio.library import refs

    try:
        model = refs.resolve_model(ref) if ref else None
    except StudioError:
        return ""
    return "" if model is None or model.is_adapter else model.source


def _gguf_words(folder: Path) -> dict[str, Any]:
    """The same as :func:`studio.quantizers.exports.words_of`, from the metadata of the file itself."""
    from studio.gguf import read

    facts = read.facts(folder)
    tokens = read.read(read.only(folder)).items("tokenizer.ggml.tokens")

    def text(place: Any) -> str:
        return tokens[place].decode("utf-8", "replace") if isinstance(place, int) and 0 <= place < len(tokens) else ""

    return {"template": facts["template"] or "", "bos": text(facts["bos"]), "eos": text(facts["eos"])}


def _chat(template: str, bos: str, eos: str) -> Any:
    """What writes the same as a chat template (:class:`studio.quantizers.go_template.Found`)."""
    from studio.quantizers.go_template import Found

    return Found(**json.loads(_asked(template, bos, eos))) if template else Found()


@lru_cache(maxsize=64)
def _asked(template: str, bos: str, eos: str) -> str:
    from studio.jobs import probe

    given = {"template": template, "bos": bos, "eos": eos}
    return json.dumps(probe.call("studio.quantizers.exports:chat_of", given, 60))
