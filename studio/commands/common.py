"""What the commands share: ids, values typed by hand, tables, times."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.recipe import FieldSpec, Recipe, fields, read_values, read_yaml

OK, FAILED, REFUSED, STOPPED = 0, 1, 2, 3
EXIT = {"succeeded": OK, "failed": FAILED, "lost": FAILED, "stopped": STOPPED}
_PREFIXES = ("shipped:", "library:", "run:", "hub:", "http:", "https:")


def find_run(text: str) -> dict[str, Any]:
    """A run by its id, an unambiguous beginning of it, or ``last``.

    Raises:
        StudioError: none or several.
    """
    from studio import api

    found = api.runs(limit=100_000)
    if not found:
        raise StudioError("This workspace has no runs yet.", "Start one: studio run sft/lora --dataset shipped:polite")
    if text == "last":
        return found[0]
    matching = [run for run in found if run["id"] == text] or [run for run in found if text and run["id"].startswith(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise StudioError(f"'{text}' is the beginning of {len(matching)} runs ({matching[0]['id']}, {matching[1]['id']}, ...).",
                          "Type more of the id.")
    raise StudioError(f"There is no run '{text}'.", "See the list: studio ls")


def read_recipe(file: str, changes: list[str] = (), name: str | None = None) -> dict[str, Any]:
    """Values of a recipe file with ``--set`` changes over them and local paths made absolute.

    Raises:
        StudioError: unreadable file, unknown kind or method, or a change that is not ``field=value``.
    """
    values = read_values(file)
    cls = recipe_class(values)
    values |= parse_changes(changes, values, cls)
    if name is not None:
        values["name"] = name
    return with_paths(values, cls, Path(file).resolve().parent)


def recipe_class(values: dict[str, Any]) -> type[Recipe] | None:
    """The recipe class that ``values`` name, or ``None`` if they do not; ``parse`` then says what is missing."""
    from studio.registry import method

    if not values.get("kind") or not values.get("method"):
        return None
    return method(str(values["kind"]), str(values["method"])).Recipe


def parse_changes(changes: list[str], values: dict[str, Any], cls: type[Recipe] | None) -> dict[str, Any]:
    """``["learning_rate=1e-4", "extra.adam_beta2=0.99"]`` -> values; a dotted name sets one row of a table field."""
    specs = {spec.name: spec for spec in fields(cls)} if cls else {}
    made: dict[str, Any] = {}
    for change in changes:
        key, sign, text = change.partition("=")
        key = key.strip()
        if not sign or not key:
            raise StudioError(f"'--set {change}' is not a change.", "Write it as --set learning_rate=1e-4")
        head, dot, row = key.partition(".")
        if dot and head in specs and specs[head].type == "dict":
            old = made.get(head, values.get(head))
            made[head] = (dict(old) if isinstance(old, dict) else {}) | {row: read_yaml(text)}
        else:
            made[key] = typed(text, specs.get(key))
    return made


def typed(text: str, spec: FieldSpec | None) -> Any:
    """A value as typed on a command line, in the type of its field where that needs YAML to be read."""
    if spec is None:
        return text
    if spec.optional and text.strip().lower() in ("none", "null", ""):
        return None
    if spec.type == "dict":
        return read_yaml(text) or {}
    if spec.widget == "rewards":
        value = read_yaml(text) or []
        return value if isinstance(value, list) else [value]
    if spec.type == "list":
        value = read_yaml(text) if text.strip().startswith("[") else [text] if text else []
        return value if isinstance(value, list) else [value]
    return text


def with_paths(values: dict[str, Any], cls: type[Recipe] | None, *beside: Path) -> dict[str, Any]:
    """Local model and dataset paths made absolute: from the current folder, else from beside the recipe file."""
    made = dict(values)
    for spec in fields(cls) if cls else ():
        text = made.get(spec.name)
        if spec.widget in ("model", "dataset") and isinstance(text, str):
            made[spec.name] = local(text, *beside)
    if isinstance(base := made.get("recipe"), dict):  # what a sweep varies
        made["recipe"] = with_paths(base, recipe_class(base), *beside)
    return made


def local(ref: str, *beside: Path) -> str:
    """``ref``, absolute if it is a path that exists relative to the current folder or one of ``beside``."""
    if not ref or ref == "starter" or ref.lower().startswith(_PREFIXES) or Path(ref).is_absolute() or "\x00" in ref:
        return ref
    for folder in (Path.cwd(), *beside):
        try:
            if (found := folder / Path(ref).expanduser()).exists():
                return str(found)
        except OSError:
            continue
    return ref


def out_json(value: Any) -> None:
    """Print JSON; NaN and infinity as null, which is what JSON has for them."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def plain(text: Any) -> str:
    """Text that cannot steer the terminal: what others wrote (names, logs, answers) is shown, not obeyed."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(text))


def table(rows: list[list[Any]], head: list[str]) -> None:
    """Print columns; the last one may be cut to the width of the terminal."""
    import shutil

    cells = [[" ".join(plain("" if c is None else c).split()) for c in row] for row in [head, *rows]]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    most = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 10_000
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(line if len(line) <= most else line[: most - 1] + "…")


def ago(moment: float | None) -> str:
    """``3 min ago``; empty when unknown."""
    return f"{span(time.time() - moment)} ago" if moment else ""


def span(seconds: float | None) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d``; empty when unknown."""
    if seconds is None:
        return ""
    seconds = max(0, int(round(seconds)))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 and seconds < 600 else "")
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h" + (f" {seconds % 3600 // 60} min" if seconds % 3600 // 60 else "")
    return f"{seconds // 86400} d"
