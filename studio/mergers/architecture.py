"""Which weights an architecture has, from mergekit's own lists of names (JSON), read without importing it.

mergekit merges exactly the weights on its list. For an architecture that it has none for, it goes by the names in the
files, and so do we.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from studio.mergers import spec

_SLOT = re.compile(r"\$\{(layer_index|num_layers)([+-]1)?\}")
_LAYER = re.compile(r"\.(\d+)\.")


class Weight(NamedTuple):
    """A weight by name, with ``${layer_index}`` in place of the layer's number."""

    name: str
    optional: bool
    others: tuple[str, ...]  # further names under which a file may hold it
    tied: tuple[str, ...]  # where its values lie when it is shared with another
    words: bool  # one row (or column) a word

    def at(self, layer: int, layers: int) -> Weight:
        def fill(text: str) -> str:
            return _SLOT.sub(lambda m: str((layer if m[1] == "layer_index" else layers) + int(m[2] or 0)), text)

        return self._replace(name=fill(self.name), others=tuple(map(fill, self.others)), tied=tuple(map(fill, self.tied)))


class Module(NamedTuple):
    """Weights before the layers, of each layer, and behind them."""

    before: list[Weight]
    layer: list[Weight]
    after: list[Weight]
    layers_key: str | None
    layers: int | None  # where the architecture fixes it

    def count(self, config: dict[str, Any]) -> int:
        """Number of layers of a model with this ``config.json``."""
        if self.layers is not None:
            return self.layers
        value: Any = config
        for key in (self.layers_key or "num_hidden_layers").split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value if type(value) is int else 0


class Architecture(NamedTuple):
    """``known``: on mergekit's list; else read off a model's files."""

    name: str
    modules: dict[str, Module]
    known: bool


@lru_cache(maxsize=4)
def _lists(version: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    folder = spec.folder()
    for path in sorted(folder.glob("_data/architectures/*.json")) if folder else []:
        told = json.loads(path.read_text("utf-8")) | {"file": path.stem}
        for name in told.get("architectures", []):
            found.setdefault(name, []).append(told)
    return found


def of_config(config: dict[str, Any]) -> Architecture | None:
    """mergekit's list for a ``config.json``; ``None`` where it has none."""
    names = config.get("architectures") or [None]
    made = _lists(spec.installed()).get(names[0], [])
    told = made[0] if len(made) == 1 else next((one for one in made if one.get("model_type") == config.get("model_type")),
                                               None)
    if told is None:
        return None
    if told.get("kind", "module") == "module":
        return Architecture(told["file"], {"default": _module(told, "")}, True)
    return Architecture(told["file"], {name: _module(one["architecture"], one.get("weight_prefix") or "")
                                       for name, one in told["modules"].items()}, True)


def _module(told: dict[str, Any], prefix: str) -> Module:
    def weight(one: dict[str, Any]) -> Weight:
        return Weight(prefix + one["name"], bool(one.get("optional")), tuple(prefix + n for n in one.get("aliases") or ()),
                      tuple(prefix + n for n in one.get("tied_names") or ()), one.get("vocabulary_axis") is not None)

    return Module([weight(one) for one in told["pre_weights"]],
                  [weight(one) for one in told["layer_templates"]["weights"]],
                  [weight(one) for one in told["post_weights"]], told.get("num_layers_config_key"),
                  told.get("override_num_layers"))


def of_names(names: set[str], everywhere: set[str], rows: int | None, shapes: dict[str, tuple[int, ...]]) -> Architecture:
    """A list made of the names in the files, for an architecture that mergekit has no list for.

    Args:
        everywhere: Names that every model has; the others are optional.
        rows: Size of the vocabulary, by which weights with one row a word are known.
    """
    prefixes: dict[str, tuple[int, set[str]]] = {}
    loose = []
    for name in sorted(names):
        if match := _LAYER.search(name):
            count, templates = prefixes.get(name[:match.start()], (0, set()))
            templates.add(_LAYER.sub(".${layer_index}.", name, count=1))
            prefixes[name[:match.start()]] = (max(count, int(match[1]) + 1), templates)
        else:
            loose.append(name)

    def weight(name: str, layers: int = 0) -> Weight:
        real = [name.replace("${layer_index}", str(i)) for i in range(layers)] or [name]
        shape = shapes.get(real[0], ())
        return Weight(name, not all(one in everywhere for one in real), (), (),
                      not layers and len(shape) == 2 and shape[0] == rows)

    if len(prefixes) == 1:
        count, templates = next(iter(prefixes.values()))
        return Architecture("", {"default": Module([weight(n) for n in loose], [weight(n, count) for n in sorted(templates)],
                                                   [], None, count)}, False)
    modules = {prefix: Module([], [weight(n, count) for n in sorted(templates)], [], None, count)
               for prefix, (count, templates) in prefixes.items()}
    return Architecture("", modules | {"default": Module([weight(n) for n in loose], [], [], None, 0)}, False)
