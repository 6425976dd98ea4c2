"""May these models be merged and passed on? What their own cards say, in plain words. This is no legal advice.

Sources: the texts of the licences; names as the Hub's cards use them
(https://huggingface.co/docs/hub/repositories-licenses).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from studio import hub
from studio.errors import StudioError
from studio.library import refs
from studio.mergers.parameters import Problem, note, warning

_FREE = re.compile(r"(apache|mit|bsd|isc|zlib|unlicense|cc0|cc-by-[\d.]+|cc-by|artistic|wtfpl|ms-pl|cdla-permissive|odc-by|pddl)"
                   r"[\w.-]*")
_NO_MONEY = re.compile(r"(cc-by-nc|cc-by-nc-sa|cc-by-nc-nd|apple-amlr|apple-ascl|intel-research|c-uda|fair-noncommercial|"
                       r"mnpl|mrl|h-research|qwen-research|stabilityai-nc|cohere-nc)[\w.-]*")
_UNCHANGED = re.compile(r"cc-by(-nc)?-nd[\w.-]*")
_SAME = re.compile(r"(cc-by-(nc-)?sa|gpl|agpl|lgpl|mpl|epl|eupl|osl|cc-by-nc-sa)[\w.-]*")
_TERMS = {"llama": "Meta's Llama licence (the name must begin with 'Llama', 'Built with Llama' must be shown, and very large "
                   "companies need a permission)",
          "gemma": "Google's Gemma terms (its list of forbidden uses goes with every copy)",
          "openrail": "an OpenRAIL licence (its list of forbidden uses goes with every copy)",
          "bigscience": "an OpenRAIL licence (its list of forbidden uses goes with every copy)",
          "creativeml": "an OpenRAIL licence (its list of forbidden uses goes with every copy)",
          "bigcode": "an OpenRAIL licence (its list of forbidden uses goes with every copy)",
          "deepseek": "DeepSeek's licence (its list of forbidden uses goes with every copy)",
          "tongyi": "Alibaba's Qwen licence (very large companies need a permission)",
          "qwen": "Alibaba's Qwen licence (very large companies need a permission)"}


class Licence(NamedTuple):
    """``name`` as on the card, ``None`` where nothing says it; ``of``: the ancestor whose card says it, or empty."""

    name: str | None
    of: str = ""


def of(model: refs.ModelRef, ask: bool = False, depth: int = 0) -> Licence:
    """The licence of a model: its own card's, else that of the model it was made from.

    Args:
        ask: Ask the Hub about ancestors that only a card names; else only what lies on this disk is read.
    """
    folder = model.path or (hub.cached(model.hub_id, model.revision) if model.hub_id else None)
    own = model.meta.get("license") or written(folder)
    if own and str(own).lower() not in ("unknown", "none"):
        return Licence(str(own))
    if depth < 8:
        for ref in _older(model, folder):
            if ref.startswith("hub:") and not ask and not hub.cached(*refs.parse_hub(ref[4:])):
                continue
            try:
                found = of(refs.resolve_model(ref), ask, depth + 1)
            except StudioError:
                continue
            if found.name:
                return Licence(found.name, found.of or refs.resolve_model(ref).label)
    return Licence(None)


def written(folder: Path | None) -> str | None:
    """``license`` in the front matter of a folder's ``README.md`` (``license_name`` where that says 'other')."""
    front = front_matter(folder)
    said = front.get("license")
    if isinstance(said, list):
        said = ", ".join(map(str, said)) or None
    if said == "other" and front.get("license_name"):
        said = front["license_name"]
    return str(said) if said else None


def front_matter(folder: Path | None) -> dict[str, Any]:
    """The YAML head of a folder's ``README.md``; empty where there is none that can be read."""
    import yaml

    try:
        text = (folder / "README.md").read_text("utf-8")[:200_000] if folder else ""
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    try:
        found = yaml.safe_load(text[4:text.index("\n---", 4)])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _older(model: refs.ModelRef, folder: Path | None) -> list[str]:
    """References of what a model was made from, by the library or by its card."""
    found = [model.base] if model.base else []
    if model.ref.startswith("library:"):
        from studio.library import artifacts

        rows = artifacts.get(model.ref.removeprefix("library:"))["parents"]
        found += [row["ref"] for row in rows if row["role"] in ("base", "source", "parent")]
    named = front_matter(folder).get("base_model")
    for one in named if isinstance(named, list) else [named]:
        if isinstance(one, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", one):
            found.append(f"hub:{one}")
    return list(dict.fromkeys(ref for ref in found if ref != model.ref))


def told(parents: list[tuple[str, Licence]]) -> list[Problem]:
    """What the licences of (label, licence) mean for the merged model, as warnings and notes."""
    found = []
    if unknown := [label for label, one in parents if not one.name]:
        found.append(warning(f"The licence of {_and(unknown)} is not known: {'its card says' if len(unknown) == 1 else 'their cards say'} "
                             "none.", "Ask the author before you pass the merged model on.", ""))
    words = [(label, one.name.lower()) for label, one in parents if one.name]
    if held := [label for label, name in words if _UNCHANGED.fullmatch(name)]:
        found.append(warning(f"{_and(held)} may not be passed on changed (no derivatives), and a merge is a change.",
                             "Keep the merged model to yourself, or choose another model.", ""))
    if held := [f"{label} ({name})" for label, name in words if _NO_MONEY.fullmatch(name)]:
        found.append(warning(f"{_and(held)} may not be used to earn money, so neither may the merged model.",
                             "Say so when you pass it on.", ""))
    same = sorted({name for _, name in words if _SAME.fullmatch(name)})
    if len(same) == 1:
        found.append(note(f"The merged model must carry the same licence: {same[0]}.", "", ""))
    if len(same) > 1:
        found.append(warning(f"{_and(same)} each ask that what is made from them carry their own licence.",
                             "They may not go together: ask the authors.", ""))
    terms = {told for _, name in words for key, told in _TERMS.items()
             if name.startswith(key) and not _NO_MONEY.fullmatch(name)}
    for one in sorted(terms):
        found.append(note(f"The merged model stands under {one}.", "Read the licence before you pass it on.", ""))
    if terms and any(name.startswith(("gpl", "agpl")) for name in same):
        found.append(warning("The GPL allows no further conditions, and another parent brings some.",
                             "They may not go together: ask the authors.", ""))
    clear = [name for _, name in words if _FREE.fullmatch(name) or _NO_MONEY.fullmatch(name) or _SAME.fullmatch(name)
             or any(name.startswith(key) for key in _TERMS)]
    for label, name in words:
        if name not in clear:
            found.append(note(f"{label} has the licence '{name}', which this check does not know.",
                              "Read it before you pass the merged model on.", ""))
    return found


def common(parents: list[Licence]) -> str | None:
    """The one licence that all parents have, to be written on the child's card; ``None`` where they differ."""
    names = {one.name for one in parents}
    return names.pop() if len(names) == 1 else None


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
