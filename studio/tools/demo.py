"""The studio's own tools: calculator, clock, units, search in a collection, Python in the sandbox. None reaches the network, none
writes anything."""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from studio.errors import StudioError
from studio.tools.tool import BadCall, Tool, told

MOST_DIGITS = 2000  # of a whole number on the way
PYTHON_SECONDS = 10


def everything() -> list[Tool]:
    """The tools that need nothing but the studio."""
    text = {"type": "string", "maxLength": 2000}
    return [
        Tool("calculator", "Works out an arithmetic expression exactly, e.g. 12.5 * (3 + 4) or sqrt(2). Knows + - * / // % **, "
             "sqrt, log, ln, exp, sin, cos, tan, abs, round, floor, ceil, min, max, factorial, pi and e.",
             {"type": "object", "properties": {"expression": {"type": "string", "maxLength": 300}}, "required": ["expression"],
              "additionalProperties": False}, lambda given, _: calculate(given["expression"])),
        Tool("clock", "Tells the date and time now, in a time zone such as Europe/Berlin.",
             {"type": "object", "properties": {"timezone": {"type": "string", "maxLength": 60}}, "additionalProperties": False},
             lambda given, _: clock(given.get("timezone") or "UTC")),
        Tool("convert_units", "Converts a value between units of length, mass, temperature, volume, speed, area, time, energy or data, "
             "e.g. 5 miles to km.",
             {"type": "object", "properties": {"value": {"type": "number"}, "from": {"type": "string", "maxLength": 40},
                                               "to": {"type": "string", "maxLength": 40}},
              "required": ["value", "from", "to"], "additionalProperties": False},
             lambda given, _: convert(given["value"], given["from"], given["to"])),
        Tool("search_documents", "Searches the documents that belong to this chat and gives the parts that fit best, with their sources.",
             {"type": "object", "properties": {"query": text}, "required": ["query"], "additionalProperties": False},
             lambda given, place: documents(given["query"], place)),
        Tool("run_python", "Runs a Python program (standard library only, no files, no network, ten seconds) and gives what it prints, or "
             "the value of its last line.",
             {"type": "object", "properties": {"code": {"type": "string", "maxLength": 20_000}}, "required": ["code"],
              "additionalProperties": False}, lambda given, _: python(given["code"])),
    ]


# ---- calculator

_BINARY: dict[type, Callable] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
                                 ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
_FUNCTIONS: dict[str, Callable] = {
    "sqrt": math.sqrt, "log": math.log10, "ln": math.log, "log2": math.log2, "exp": math.exp, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "asin": math.asin, "acos": math.acos, "atan": math.atan, "abs": abs, "round": round, "floor": math.floor,
    "ceil": math.ceil, "min": min, "max": max, "factorial": lambda n: _factorial(n)}
_NAMES = {"pi": math.pi, "e": math.e}


def calculate(expression: str) -> str:
    """The value of an expression; nothing of it is ever run as Python.

    Raises:
        BadCall: it is none, or too large.
    """
    text = expression.replace("^", "**").replace("×", "*").replace("·", "*").replace("÷", "/").replace("−", "-").replace("π", "pi")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = _value(tree.body, 0)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as err:
        why = str(err).splitlines()[0][:120] if str(err) else "no expression"
        raise BadCall(f"'{expression[:100]}' cannot be worked out: {why}.") from err
    except (ZeroDivisionError, OverflowError) as err:
        raise BadCall("Division by zero." if isinstance(err, ZeroDivisionError) else "The result is too large.") from err
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _value(node: ast.AST, depth: int) -> Any:
    if depth > 60:
        raise ValueError("too deep")
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _small(node.value)
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand, depth + 1)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, depth + 1), _value(node.right, depth + 1)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _BINARY:
            return _small(_BINARY[type(node.op)](left, right))
    known = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if known and not node.keywords and len(node.args) <= 20:
        return _small(_FUNCTIONS[node.func.id](*(_value(arg, depth + 1) for arg in node.args)))
    raise ValueError(f"{ast.unparse(node)[:60]} is no arithmetic")


def _small(value: Any) -> Any:
    if isinstance(value, complex):
        raise ValueError("the result is no real number")
    if isinstance(value, int) and value.bit_length() > MOST_DIGITS * 3.33:
        raise OverflowError
    return value


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and base not in (0, 1, -1) and abs(exponent) * base.bit_length() > MOST_DIGITS * 3.33:
        raise OverflowError
    return _small(base ** exponent)


def _factorial(n: Any) -> int:
    if not isinstance(n, int) or not 0 <= n <= 700:
        raise ValueError("factorial takes whole numbers from 0 to 700")
    return math.factorial(n)


# ---- clock and units

def clock(zone: str) -> str:
    """The time now in a zone, with its weekday.

    Raises:
        BadCall: no such zone.
    """
    known = {name.casefold(): name for name in available_timezones()}
    asked = zone.strip().replace(" ", "_").casefold()
    name = known.get(asked) or next((known[key] for key in sorted(known) if asked and key.endswith(f"/{asked}")), "")
    if not name:
        raise BadCall(f"There is no time zone '{zone[:60]}'. Write one such as Europe/Berlin, Asia/Tokyo or UTC.")
    now = datetime.now(ZoneInfo(name))
    return f"{now:%Y-%m-%d %H:%M:%S %Z (UTC%z), %A} in {name}"


_UNITS: dict[str, dict[str, float]] = {
    "length": {"m": 1, "km": 1e3, "cm": 0.01, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "mi": 1609.344, "yd": 0.9144, "ft": 0.3048,
               "in": 0.0254, "nmi": 1852, "ly": 9.4607304725808e15},
    "mass": {"kg": 1, "g": 1e-3, "mg": 1e-6, "t": 1e3, "lb": 0.45359237, "oz": 0.028349523125, "st": 6.35029318},
    "volume": {"l": 1, "ml": 1e-3, "cl": 0.01, "m3": 1e3, "cm3": 1e-3, "gal": 3.785411784, "qt": 0.946352946, "pt":
               0.473176473, "cup": 0.2365882365, "floz": 0.0295735295625, "tbsp": 0.01478676478125, "tsp": 0.00492892159375},
    "speed": {"m/s": 1, "km/h": 1 / 3.6, "mph": 0.44704, "kn": 1852 / 3600, "ft/s": 0.3048},
    "area": {"m2": 1, "km2": 1e6, "cm2": 1e-4, "ha": 1e4, "acre": 4046.8564224, "ft2": 0.09290304, "mi2": 2589988.110336},
    "time": {"s": 1, "ms": 1e-3, "min": 60, "h": 3600, "d": 86400, "wk": 604800, "yr": 31557600},
    "energy": {"j": 1, "kj": 1e3, "cal": 4.184, "kcal": 4184, "wh": 3600, "kwh": 3.6e6, "ev": 1.602176634e-19, "btu":
               1055.05585262},
    "data": {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "bit": 0.125},
    "pressure": {"pa": 1, "kpa": 1e3, "bar": 1e5, "atm": 101325, "psi": 6894.757293168, "mmhg": 133.322387415}}
_SPELT = {"meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm",
          "millimeter": "mm", "mile": "mi", "yard": "yd", "foot": "ft", "feet": "ft", "inch": "in", "inche": "in", "kilogram":
          "kg", "kilo": "kg", "gram": "g", "milligram": "mg", "tonne": "t", "pound": "lb", "lbs": "lb", "ounce": "oz",
          "stone": "st", "liter": "l", "litre": "l", "milliliter": "ml", "gallon": "gal", "quart": "qt", "pint": "pt", "cups":
          "cup", "tablespoon": "tbsp", "teaspoon": "tsp", "kmh": "km/h", "kph": "km/h", "knot": "kn", "hectare": "ha",
          "acres": "acre", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "day": "d", "week": "wk",
          "year": "yr", "joule": "j", "calorie": "cal", "byte": "b", "kilobyte": "kb", "megabyte": "mb", "gigabyte": "gb",
          "bits": "bit", "celsius": "c", "fahrenheit": "f", "kelvin": "k", "°c": "c", "°f": "f", "m²": "m2", "km²": "km2",
          "m³": "m3"}
_TO_KELVIN: dict[str, Callable[[float], float]] = {"c": lambda t: t + 273.15, "f": lambda t: (t + 459.67) / 1.8, "k": lambda t: t}
_FROM_KELVIN: dict[str, Callable[[float], float]] = {"c": lambda t: t - 273.15, "f": lambda t: t * 1.8 - 459.67, "k": lambda t: t}


def convert(value: float, source: str, target: str) -> str:
    """A value in another unit.

    Raises:
        BadCall: a unit that is not known, or units of different things.
    """
    a, b = _unit(source), _unit(target)
    if a in _TO_KELVIN and b in _TO_KELVIN:
        kelvin = _TO_KELVIN[a](value)
        if kelvin < 0:
            raise BadCall("That is below absolute zero.")
        return f"{value:g} {source} = {_FROM_KELVIN[b](kelvin):.10g} {target}"
    for units in _UNITS.values():
        if a in units and b in units:
            return f"{value:g} {source} = {value * units[a] / units[b]:.10g} {target}"
    known = {unit for units in _UNITS.values() for unit in units} | set(_TO_KELVIN)
    for name, unit in ((source, a), (target, b)):
        if unit not in known:
            raise BadCall(f"The unit '{name[:40]}' is not known.")
    raise BadCall(f"{source} and {target} measure different things.")


def _unit(text: str) -> str:
    name = text.strip().casefold().removeprefix("degrees ").removeprefix("degree ")
    if name in _SPELT:
        return _SPELT[name]
    return _SPELT.get(name[:-1], name) if name.endswith("s") and name[:-1] in _SPELT else name


# ---- documents and Python

def documents(query: str, place: dict[str, Any]) -> str:
    """What a collection has for a query, without what the guard left out.

    Raises:
        BadCall: the chat has no collection, or it has no index.
    """
    from studio.retrieval import asking

    if not place.get("collection"):
        raise BadCall("No collection of documents is chosen in this chat.")
    try:
        found = asking.search(place["collection"], query, asking.options({"sources": 4}), place.get("owner"))
    except StudioError as err:
        raise BadCall(told(err)) from err
    parts = [{"number": one["number"], "source": " · ".join(filter(None, [one["title"], one["place"]])), "text": one["text"]}
             for one in found["sources"]]
    return json.dumps({"results": parts} if parts else {"results": [], "note": "Nothing was found."}, ensure_ascii=False)


def python(code: str) -> str:
    """What a program prints in the sandbox; the value of a last line that is an expression too.

    Raises:
        BadCall: it fails, with the reason and what it printed; or this machine cannot confine it.
    """
    from studio import sandbox

    try:
        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        prints = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and getattr(last.value.func, "id", "") == "print"
        if isinstance(last, ast.Expr) and not prints:
            shown = ast.parse("_shown = 0\nif _shown is not None: print(_shown)").body
            shown[0].value = last.value
            tree.body[-1:] = shown
            code = ast.unparse(ast.fix_missing_locations(tree))
    except (SyntaxError, ValueError, RecursionError):
        pass  # the sandbox says what is wrong with it
    try:
        made = sandbox.run(code, seconds=PYTHON_SECONDS)
    except StudioError as err:
        raise BadCall(told(err)) from err
    if not made.ok:
        raise BadCall("\n".join(filter(None, [made.reason, made.output.strip()[-4000:]])))
    return made.output.strip() or "(it printed nothing)"
