"""What mergekit can do, read from its own registry: methods, their inputs and parameters, the keys of its configuration.

Importing mergekit takes seconds and brings torch, so the facts are kept in ``methods.json``, made by
``python -m studio.mergers.spec``. Where another mergekit is installed they are read anew, once, in a process of its own, and
kept in the workspace: a newer library's methods appear by themselves.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json
from studio.mergers import words

SHIPPED = Path(__file__).with_name("methods.json")
_log = logging.getLogger(__name__)


def installed() -> str:
    """Version of the installed mergekit; empty without one."""
    try:
        return version("mergekit")
    except PackageNotFoundError:
        return ""


def folder() -> Path | None:
    """Where mergekit's files lie, without importing it."""
    found = importlib.util.find_spec("mergekit")
    return Path(found.origin).parent if found and found.origin else None


def facts() -> dict[str, Any]:
    """``{mergekit: version, methods: {name: …}, keys: {model class: [fields]}}`` of the installed mergekit."""
    return _facts(installed(), str(settings.home()))


@lru_cache(maxsize=4)
def _facts(wanted: str, home: str) -> dict[str, Any]:
    shipped = json.loads(SHIPPED.read_text("utf-8"))
    if wanted in ("", shipped["mergekit"]):
        return shipped
    kept = Path(home) / "cache" / f"mergekit-{wanted}.json"
    if (known := read_json(kept)) and known.get("mergekit") == wanted:
        return known
    from studio.jobs import probe

    try:
        known = probe.call("studio.mergers.spec:collect", timeout=120)
    except StudioError as err:
        _log.warning("The methods of mergekit %s cannot be read (%s); those of %s are shown.", wanted, err,
                     shipped["mergekit"])
        return shipped
    kept.parent.mkdir(exist_ok=True)
    write_json(kept, known)
    return known


def methods() -> dict[str, dict[str, Any]]:
    """Name -> method, in the order of mergekit's registry, with our words added.

    Returns:
        ``name``, ``title``, ``paper``, ``help``, ``base`` (``required`` | ``optional`` | ``ignored`` | ``forbidden``),
        ``min_models``, ``max_models`` (with the base; ``None``: no limit), ``min_non_base``, ``max_non_base`` and
        ``parameters``: ``{name, title, type, scope, required, default, help, low, high, hard}`` each; ``scope`` is
        ``shared`` (one value), ``input`` (one a model) or ``non_base`` (one a model that is not the base).
    """
    found = {}
    for name, raw in facts()["methods"].items():
        parameters = []
        for one in raw["parameters"]:
            told = words.of_parameter(name, one["name"], one["type"])
            parameters.append(one | {"title": told.title, "help": told.help, "low": told.low, "high": told.high,
                                     "hard": told.hard})
        found[name] = raw | words.of_method(name, raw["pretty_name"], raw["reference_url"]) | {"parameters": parameters}
    return found


def keys(model: str) -> list[str]:
    """Fields of one of mergekit's configuration classes, e.g. ``MergeConfiguration``."""
    return facts()["keys"][model]


def templates() -> list[str]:
    """Chat templates that mergekit knows by name."""
    place = folder()
    return sorted(path.stem for path in place.glob("_data/chat_templates/*.jinja")) if place else []


def collect() -> dict[str, Any]:
    """The same facts, asked of mergekit itself; imports it."""
    from mergekit import config
    from mergekit.common import ModelPath, ModelReference
    from mergekit.merge_methods.registry import registered_methods
    from mergekit.tokenizer import config as tokenizer

    made = {}
    for method in registered_methods():
        told, limits = method.spec, method.spec.contract
        made[told.name] = {
            "name": told.name, "pretty_name": told.pretty_name, "reference_url": told.reference_url,
            "base": limits.base.value, "min_models": limits.min_inputs, "max_models": limits.max_inputs,
            "min_non_base": limits.min_non_base, "max_non_base": limits.max_non_base,
            "parameters": [{"name": one.name, "type": _type(one.value_type), "scope": one.scope.value,
                            "required": one.required, "default": None if one.required else one.default}
                           for one in told.parameters]}
    classes = (config.MergeConfiguration, config.OutputModuleDefinition, config.OutputSliceDefinition,
               config.InputSliceDefinition, config.InputModelDefinition, config.ConditionalParameter,
               tokenizer.TokenizerConfig, tokenizer.TokenEmbeddingConfig, tokenizer.ModelTokenEmbedding, ModelReference,
               ModelPath)
    return {"mergekit": version("mergekit"), "methods": made,
            "keys": {one.__name__: sorted(one.model_fields) for one in classes}}


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text.replace("typing.", "").removeprefix("Optional[").removesuffix("]")


def main() -> int:
    """Write ``methods.json`` anew."""
    SHIPPED.write_text(json.dumps(collect(), indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
