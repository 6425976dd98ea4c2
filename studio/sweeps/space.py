"""What a sweep varies: fields of the base recipe, each with a list of values or a range. No Optuna at import.

One axis is written ``{field: learning_rate, values: [1e-4, 1e-3]}`` or ``{field: learning_rate, low: 1e-5, high: 1e-2,
log: true}``; ``step`` makes a range a ladder of values.
"""

from __future__ import annotations

import difflib
import itertools
import math
from dataclasses import dataclass
from typing import Any

from studio.errors import StudioError
from studio.recipe import FieldSpec, Recipe, RecipeError, fields, parse

KEYS = ("field", "values", "low", "high", "step", "log")
SCALARS = ("int", "float", "bool", "str", "choice")
MOST_VALUES, MOST_AXES = 50, 12


@dataclass(frozen=True)
class Axis:
    """One field that is varied: ``values``, or numbers from ``low`` to ``high``."""

    field: str
    type: str
    values: tuple = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False

    def distribution(self) -> Any:
        """This axis as Optuna knows it."""
        from optuna import distributions

        if self.values:
            return distributions.CategoricalDistribution(self.values)
        if self.type == "int":
            return distributions.IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    def listed(self) -> list[Any] | None:
        """Every value, or ``None`` for a range that has no end of them."""
        if self.values:
            return list(self.values)
        if self.step is None and self.type == "float":
            return None
        step = self.step or 1
        found = [self.low + n * step for n in range(int(math.floor((self.high - self.low) / step + 1e-9)) + 1)]
        return [int(v) for v in found] if self.type == "int" else [float(f"{v:.12g}") for v in found]

    def middle(self) -> Any:
        """A typical value, for the estimate."""
        if self.values:
            return self.values[len(self.values) // 2]
        found = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return int(found) if self.type == "int" else found


def axes(base: Recipe, space: list[dict[str, Any]]) -> list[Axis]:
    """The axes of a space, each value tried on the base recipe.

    Raises:
        StudioError: in the field ``space``: nothing to vary, no such field, a value that the recipe refuses, a range
            that is none.
    """
    if not space:
        raise _refusal("A sweep needs at least one setting to vary.", "Add one, e.g. learning_rate with three values.")
    if len(space) > MOST_AXES:
        raise _refusal(f"A sweep varies at most {MOST_AXES} settings; these are {len(space)}.", "Start with the two "
                       "that matter most: learning_rate, and the rank or the epochs.")
    specs = {spec.name: spec for spec in fields(type(base)) if spec.type in SCALARS and spec.name != "name"}
    found = [_axis(base, specs, row) for row in space]
    names = [axis.field for axis in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _refusal(f"'{twice[0]}' is varied twice.", "Put all its values into one line.")
    return found


def _axis(base: Recipe, specs: dict[str, FieldSpec], row: Any) -> Axis:
    if not isinstance(row, dict) or not row.get("field"):
        raise _refusal("Each line of the space names a field.", "Write it as {field: learning_rate, values: [...]}.")
    name = str(row["field"])
    if name not in specs:
        near = difflib.get_close_matches(name, specs, n=1)
        raise _refusal(f"'{name}' is no setting of {base.kind}/{base.method} that can be varied.",
                       f"Did you mean '{near[0]}'?" if near else "Settings that are numbers, choices or switches can.")
    given = {key: value for key, value in row.items() if value is not None}
    if odd := sorted(set(given) - set(KEYS)):
        raise _refusal(f"{name}: '{odd[0]}' means nothing here.", f"Known: {', '.join(KEYS)}.")
    if "values" in given:
        if set(given) & {"low", "high", "step", "log"}:
            raise _refusal(f"{name} has values and a range.", "Give one or the other.")
        return _listed(base, specs[name], given["values"])
    return _range(base, specs[name], given)


def _listed(base: Recipe, spec: FieldSpec, values: Any) -> Axis:
    if not isinstance(values, list) or not values:
        raise _refusal(f"{spec.name} has no values.", "List at least one, better two or three.")
    if len(values) > MOST_VALUES:
        raise _refusal(f"{spec.name} has {len(values)} values; at most {MOST_VALUES} are tried.",
                       "Use a range instead.")
    taken = list(dict.fromkeys(_tried(base, spec.name, value) for value in values))
    return Axis(spec.name, spec.type, tuple(taken))


def _range(base: Recipe, spec: FieldSpec, row: dict[str, Any]) -> Axis:
    name = spec.name
    if spec.type not in ("int", "float"):
        raise _refusal(f"{name} is no number, so it has no range.", "List its values.")
    if "low" not in row or "high" not in row:
        raise _refusal(f"{name} needs values, or a low and a high end.", "E.g. low: 1e-5, high: 1e-3, log: true.")
    low, high = (_tried(base, name, row[end]) for end in ("low", "high"))
    step, log = row.get("step"), row.get("log", False)
    if not low < high:
        raise _refusal(f"{name}: the low end {low:g} is not below the high end {high:g}.", "Swap them.")
    if not isinstance(log, bool):
        raise _refusal(f"{name}: log is true or false.", "True spreads the tries evenly over powers of ten.")
    if log and low <= 0:
        raise _refusal(f"{name}: a log range cannot begin at {low:g}.", "Begin above zero, or leave log out.")
    if step is not None:
        if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step <= high - low:
            raise _refusal(f"{name}: the step must be a number above zero that fits into the range.",
                           "Or leave it out.")
        if spec.type == "int" and step != int(step):
            raise _refusal(f"{name} takes whole numbers, so its step is one too.", "E.g. step: 4.")
        if log:
            raise _refusal(f"{name} has a step and a log scale.", "Give one or the other, or list the values.")
        if (high - low) / step > 10_000:
            raise _refusal(f"{name}: more than 10,000 steps.", "Take a larger step.")
    return Axis(name, spec.type, low=low, high=high, step=step, log=log)


def _tried(base: Recipe, name: str, value: Any) -> Any:
    """The value as the recipe takes it.

    Raises:
        StudioError: what the recipe says against it.
    """
    if isinstance(value, list | dict):
        raise _refusal(f"{name}: a value is a number, a word or true or false, not {value!r}.", "")
    try:
        return getattr(parse(base.to_dict() | {name: value}), name)
    except RecipeError as err:
        raise _refusal(f"{name} = {value}: {err.fields.get(name) or err.message}", err.hint) from err


def combinations(found: list[Axis], most: int | None = None) -> list[dict[str, Any]] | None:
    """Every combination of the axes' values, the last axis fastest; ``None`` if an axis is endless.

    Args:
        most: Give no more than this many.
    """
    lists = [axis.listed() for axis in found]
    if any(values is None for values in lists):
        return None
    return [dict(zip([axis.field for axis in found], values, strict=True))
            for values in itertools.islice(itertools.product(*lists), most)]


def count(found: list[Axis]) -> int | None:
    """How many combinations there are; ``None`` for no end of them."""
    lists = [axis.listed() for axis in found]
    return None if any(values is None for values in lists) else math.prod(len(values) for values in lists)


def _refusal(message: str, hint: str) -> StudioError:
    return StudioError(message, hint, "space")
