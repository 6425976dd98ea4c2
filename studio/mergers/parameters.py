"""Parameters of a merge: their form, their bounds, and which value a tensor gets.

A value is a number or word, a curve over the layers (a list), or a list of ``{filter, value}``: the first filter that is
part of a tensor's name decides. mergekit looks at the source first, then its slice, its module and the whole merge.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_NUMBERS = ("float", "int")


class Problem(NamedTuple):
    """One thing to tell. ``path`` is where in the configuration, e.g. ``slices[0].sources[1].layer_range``; ``level`` is
    ``error`` (refused), ``warning`` or ``note``."""

    message: str
    hint: str
    path: str
    level: str


def error(message: str, hint: str, path: str) -> Problem:
    return Problem(message, hint, path, "error")


def warning(message: str, hint: str, path: str) -> Problem:
    return Problem(message, hint, path, "warning")


def note(message: str, hint: str = "", path: str = "") -> Problem:
    return Problem(message, hint, path, "note")


def problems(values: Any, path: str, method: dict[str, Any], model: str | None) -> Iterator[Problem]:
    """What is wrong with the parameters at one place: of one ``model``, or of all (``None``)."""
    if values is None:
        return
    if not isinstance(values, dict):
        yield error("Parameters are written as 'name: value'.", "Put one on each line.", path)
        return
    known = {one["name"]: one for one in method["parameters"]}
    for name, value in values.items():
        where = f"{path}.{name}"
        one = known.get(name)
        if one is None:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            yield error(f"{method['title']} has no parameter '{name}' and mergekit would ignore it.",
                        f"Did you mean '{near[0]}'?" if near else
                        f"It has {', '.join(known) or 'none'}.", where)
        elif one["scope"] == "shared" and model is not None:
            yield error(f"{name} is one value for all models; at a single model it has no effect.",
                        "Move it to the parameters of the merge or of the slice.", where)
        else:
            yield from _setting(value, where, one)


def _setting(value: Any, path: str, one: dict[str, Any]) -> Iterator[Problem]:
    """A number, a curve, or filters with either."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        yield from _scalar(value, path, one)
        return
    if not value:
        yield error("The list is empty.", "Give a number, or leave the parameter out.", path)
    elif not any(isinstance(entry, dict) for entry in value):
        yield from _curve(value, path, one)
    elif not all(isinstance(entry, dict) for entry in value):
        yield error("Numbers and filters are mixed in one list.", "Put a plain number last as '- value: 0.5'.", path)
    else:
        caught = False
        for i, entry in enumerate(value):
            where = f"{path}[{i}]"
            if unknown := sorted(set(map(str, entry)) - {"filter", "value"}):
                yield error(f"'{unknown[0]}' is nothing that a filter has.", "It has filter and value.", where)
            chosen = entry.get("filter")
            if chosen is not None and (not isinstance(chosen, str) or not chosen):
                yield error("A filter is a part of a tensor's name.", "For example self_attn or mlp.", f"{where}.filter")
            if caught:
                yield warning("This value is never used: the one before holds for everything.",
                              "Put the value without a filter last.", where)
            caught = caught or chosen in (None, "*")
            if "value" not in entry:
                yield error("The filter has no value.", "Add 'value:'.", where)
            elif isinstance(entry["value"], list):
                yield from _curve(entry["value"], f"{where}.value", one)
            else:
                yield from _scalar(entry["value"], f"{where}.value", one)


def _curve(values: list[Any], path: str, one: dict[str, Any]) -> Iterator[Problem]:
    if not values:
        yield error("The curve is empty.", "Give at least one number.", path)
    elif one["type"] == "int" and len(values) > 1:
        yield error(f"{one['name']} is a whole number and cannot change over the layers.", "Give one number.", path)
    for i, value in enumerate(values):
        if isinstance(value, list | dict):
            yield error("A curve is a plain list of numbers.", "Write [0, 0.5, 1].", f"{path}[{i}]")
        else:
            yield from _scalar(value, f"{path}[{i}]", one)


def _scalar(value: Any, path: str, one: dict[str, Any]) -> Iterator[Problem]:
    kind, name = one["type"], one["name"]
    if value is None:
        yield error(f"{name} has no value.", "Give one, or leave the parameter out.", path)
    elif kind == "bool":
        if not isinstance(value, bool):
            yield error(f"{name} is true or false, not {value!r}.", "Write true or false.", path)
    elif kind in _NUMBERS:
        found = number(value)
        if found is None or not math.isfinite(found):
            yield error(f"{name} is a number, not {value!r}.", "Write 0.5, say.", path)
        elif kind == "int" and found != int(found):
            yield error(f"{name} is a whole number, not {value!r}.", f"Write {round(found)}, say.", path)
        else:
            yield from _bounds(found, path, one)
    elif not isinstance(value, str | int | float | bool):
        yield error(f"{name} cannot be {value!r}.", "Give a plain value.", path)


def _bounds(value: float, path: str, one: dict[str, Any]) -> Iterator[Problem]:
    low, high = one.get("low"), one.get("high")
    if low is None or low <= value <= high:
        return
    text = f"{one['name']} is usually between {low:g} and {high:g}; it is {value:g}."
    if one.get("hard"):
        yield error(text.replace("is usually", "must be"), "Take a value inside.", path)
    else:
        yield warning(text, "Check that this is meant.", path)


def number(value: Any) -> float | None:
    """A number, also one that YAML reads as text (``1e-5``); ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def of_base(one: Any, base: str | None, method: dict[str, Any]) -> Iterator[Problem]:
    """Values of the base model that have no effect (``one`` is a :class:`studio.mergers.config.Slice`)."""
    names = {spec["name"] for spec in method["parameters"] if spec["scope"] == "non_base"}
    for source in one.sources:
        if source.pair == base and (ignored := [name for name in source.parameters if name in names]):
            yield warning(f"{', '.join(ignored)} of the base model has no effect: {method['title']} measures the others "
                          "against it.", "Leave it out.", f"{source.path}.parameters")


def value_for(name: str, scopes: Iterable[dict[str, Any]], tensor: str, t: float = 0.0) -> tuple[bool, Any]:
    """(given?, value) of a parameter for a tensor, found as mergekit finds it; ``t``: how far through the slice, 0 to 1."""
    for scope in scopes:
        if name in scope:
            found = _evaluated(scope[name], tensor, t)
            if found is not None:
                return True, found
    return False, None


def _evaluated(setting: Any, tensor: str, t: float) -> Any:
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return setting
    if setting and not isinstance(setting[0], dict):
        numbers = [number(one) for one in setting]
        if any(one is None for one in numbers):
            return setting[int(t * (len(setting) - 1))]
        at = t * (len(setting) - 1)
        first = int(at)
        after = min(len(setting) - 1, first + 1)
        return (1 - (at - first)) * numbers[first] + (at - first) * numbers[after]
    for one in setting:
        if one.get("filter") in (None, "*") or one["filter"] in tensor:
            return _evaluated(one["value"], tensor, t)
    return None


def at_tensor(one: Any, tensor: str, inputs: dict[str, str], t: float, method: dict[str, Any],
              base: str | None) -> Iterator[Problem]:
    """What cannot be resolved for one tensor of a slice (``inputs``: source -> name of the tensor in it)."""
    kinds = {spec["name"]: spec for spec in method["parameters"]}
    for name, spec in kinds.items():
        if spec["scope"] == "shared":
            if spec["required"] and not value_for(name, one.scopes, tensor, t)[0]:
                yield error(f"{method['title']} needs {name}, and nothing gives it for {tensor}.",
                            "Add it to the parameters, as the last entry without a filter.", "parameters")
            continue
        for source in one.sources:
            if source.pair == base and spec["scope"] == "non_base" or source.pair not in inputs:
                continue
            given, _ = value_for(name, [source.parameters, *one.scopes], inputs[source.pair], t)
            if spec["required"] and not given:
                yield error(f"{source.pair} needs a {name}, and nothing gives it for {inputs[source.pair]}.",
                            "Give every model one, or one for all in the parameters of the merge.",
                            f"{source.path}.parameters.{name}")
    if method["name"] in ("della", "della_linear"):
        yield from _spread(one, inputs, t, kinds, base)


def _spread(one: Any, inputs: dict[str, str], t: float, kinds: dict[str, Any], base: str | None) -> Iterator[Problem]:
    """DELLA's density plus and minus epsilon has to stay inside 0 and 1."""
    for source in one.sources:
        if source.pair == base or source.pair not in inputs:
            continue
        scopes, told = [source.parameters, *one.scopes], {}
        for name in ("density", "epsilon"):
            given, value = value_for(name, scopes, inputs[source.pair], t)
            told[name] = number(value) if given else kinds[name]["default"]
        density, spread = told["density"], told["epsilon"]
        if density is not None and spread is not None and 0 < density < 1 and not (
                density + spread < 1 and density - spread > 0):
            yield error(f"density {density:g} and epsilon {spread:g} do not go together: their sum must stay below 1, "
                        "their difference above 0.", "Take a smaller epsilon.", f"{source.path}.parameters.epsilon")
