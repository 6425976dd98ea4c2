"""Recipes: one typed model from which the form, the CLI, the YAML file and the docs are all made.

A recipe file is YAML (or JSON) with ``kind:``, ``method:`` and the method's own fields. Reading one never runs anything:
``load`` only builds plain values, checks size and depth, and hands them to the method's pydantic model.
"""

from __future__ import annotations

import difflib
import importlib
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import StudioError

SCHEMA_VERSION = 1
MAX_BYTES = 256 * 1024
MAX_DEPTH = 12


def field(default: Any, title: str, help: str, *, group: str = "basic", widget: str | None = None,
          choices: dict[Any, str] | None = None, library: str | None = None, unit: str = "",
          placeholder: str = "", when: dict[str, list] | None = None, shown: str = "", **bounds: Any) -> Any:
    """A recipe field with everything its control, its CLI flag and its docs row need.

    Args:
        default: Default value; a list or dict is copied per recipe.
        title: Label in plain words.
        help: What it does and which way to turn it, one or two sentences.
        group: Section of the form: ``basic`` | ``method`` | ``adapter`` | ``training`` | ``watch`` | ``advanced``.
        widget: Control when the type alone does not say it: ``model`` | ``models`` (a list) | ``dataset`` | ``text`` |
            ``log`` (a number on a log scale) | ``lines`` (list of strings, one a line) | ``table`` (dict of scalars) |
            ``rewards`` (list of :mod:`studio.rewards`) | ``merge`` (a configuration of mergekit) | ``hidden``.
        choices: value -> label, for strings that are picked from a list but may also be typed. A list with choices is picked
            by switching each of them on or off.
        library: ``module.Class`` whose argument of the same name this sets; a test checks that it exists there.
        unit: Shown behind the number, e.g. ``tokens``.
        when: Show only while other fields have one of these values, e.g. ``{"packing": [True]}``.
        shown: ``module:function`` that says whether this machine has what the field is for; without it the form leaves
            the field out. YAML and command line take it all the same.
        **bounds: ``ge``, ``gt``, ``le``, ``lt``, ``min_length``, ``max_length`` as in pydantic.
    """
    extra = {"group": group, "widget": widget, "library": library, "unit": unit, "placeholder": placeholder,
             "when": when or {}, "shown": shown, "choices": [[k, v] for k, v in (choices or {}).items()]}
    made = {"default_factory": default.copy} if isinstance(default, (list, dict)) else {"default": default}
    return Field(**made, title=title, description=help, json_schema_extra=extra, **bounds)


class Recipe(BaseModel):
    """Base of every recipe. Subclasses set ``kind`` and ``method`` as class constants."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=False, str_strip_whitespace=True)

    kind: ClassVar[str]
    method: ClassVar[str]

    name: str = field("", "Name", "What to call the result. Left empty, the studio makes one from model and data.",
                      max_length=80, placeholder="my-first-model")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if any(c in value for c in "/\\<>\"'\x00\n") or value.startswith("."):
            raise ValueError("use letters, digits, spaces, dots, dashes and underscores; not a path")
        return value

    def to_dict(self, only_changed: bool = False) -> dict[str, Any]:
        """Plain values with ``kind``, ``method`` and ``schema_version`` first."""
        head = {"schema_version": SCHEMA_VERSION, "kind": self.kind, "method": self.method}
        return head | self.model_dump(mode="json", exclude_defaults=only_changed)

    def to_yaml(self, only_changed: bool = False) -> str:
        return write_yaml(self.to_dict(only_changed))

    def refers_to(self) -> list[tuple[str, str, str]]:
        """(field, reference, ``model`` or ``dataset``) of every model and dataset that the recipe names.

        A recipe that names some deeper than in a field of its own overrides this together with :meth:`referring`.
        """
        found = []
        for spec in fields(type(self)):
            wanted = {"models": "model"}.get(spec.widget or "", spec.widget)
            if spec.name in ("sources", "eval_dataset"):
                wanted = "dataset"
            if wanted in ("model", "dataset"):
                value = getattr(self, spec.name)
                found += [(spec.name, ref, wanted) for ref in (value if isinstance(value, list) else [value]) if ref]
        return found

    def referring(self, swap: dict[str, str]) -> dict[str, Any]:
        """The recipe's values with references replaced: ``swap`` maps old ones to new ones."""
        values = self.to_dict()
        for name in {name for name, _, _ in self.refers_to()}:
            held = values[name]
            values[name] = [swap.get(ref, ref) for ref in held] if isinstance(held, list) else swap.get(held, held)
        return values


@dataclass(frozen=True)
class FieldSpec:
    """One field as a form, CLI or docs table sees it."""

    name: str
    title: str
    help: str
    type: str  # int | float | bool | str | choice | list | dict
    default: Any
    optional: bool
    choices: list[tuple[Any, str]]
    group: str
    widget: str | None
    library: str | None
    unit: str
    placeholder: str
    when: dict[str, list]
    bounds: dict[str, float]


def fields(recipe: type[Recipe]) -> list[FieldSpec]:
    """Every field of a recipe class, in the order of declaration, the ones of the base classes first."""
    return [_spec(name, info) for name, info in recipe.model_fields.items()]


def _spec(name: str, info: Any) -> FieldSpec:
    extra = info.json_schema_extra or {}
    kind, optional, choices = _shape(info.annotation)
    labels = {k: v for k, v in extra.get("choices", [])}
    if choices:
        pairs = [(c, labels.get(c, str(c))) for c in choices]
    else:
        pairs = list(labels.items())
    bounds = {}
    for constraint in info.metadata:
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            if (value := getattr(constraint, key, None)) is not None:
                bounds[key] = value
    return FieldSpec(name=name, title=info.title or name, help=info.description or "", type=kind, optional=optional,
                     default=info.get_default(call_default_factory=True), choices=pairs,
                     group=extra.get("group", "basic"), widget=_widget(extra), library=extra.get("library"),
                     unit=extra.get("unit", ""), placeholder=extra.get("placeholder", ""),
                     when=extra.get("when", {}), bounds=bounds)


def _widget(extra: dict[str, Any]) -> str | None:
    if target := extra.get("shown"):
        module, _, name = target.partition(":")
        if not getattr(importlib.import_module(module), name)():
            return "hidden"
    return extra.get("widget")


def _shape(annotation: Any) -> tuple[str, bool, list]:
    """(type word, optional?, literal choices) of an annotation."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        rest = [a for a in args if a is not type(None)]
        kind, _, choices = _shape(rest[0])
        return kind, len(rest) < len(args), choices
    if origin is Literal:
        return "choice", False, list(args)
    if origin is list and args and typing.get_origin(args[0]) is Literal:
        return "list", False, list(typing.get_args(args[0]))
    word = {int: "int", float: "float", bool: "bool", str: "str"}.get(annotation)
    return word or {list: "list", dict: "dict"}.get(origin or annotation, "str"), False, []


def parse(values: dict[str, Any], default_kind: str = "", default_method: str = "") -> Recipe:
    """Plain values -> a checked recipe. A configuration of mergekit itself becomes the recipe of that merge.

    Raises:
        StudioError: for an unknown kind or method, or a file of a newer studio.
        RecipeError: with one message per bad field.
    """
    from studio.registry import method

    if not isinstance(values, dict):
        raise StudioError("A recipe is a list of 'field: value' lines.", "Start it with 'kind: sft' and 'method: lora'.")
    values = dict(values)
    if "merge_method" in values and not default_kind:
        from studio.mergers.config import imported, is_mergekit

        if is_mergekit(values):
            values = {"kind": "merge", "method": "mergekit", "config": imported(values)}
    version = values.pop("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version > SCHEMA_VERSION:
        raise StudioError(f"This recipe has schema_version {version}; this studio reads up to {SCHEMA_VERSION}.",
                          "Update the studio, or export the recipe from the older one.", "schema_version")
    kind, name = values.pop("kind", default_kind), values.pop("method", default_method)
    if not kind or not name:
        raise StudioError("The recipe does not say its kind and method.", "Add 'kind: sft' and 'method: lora', say.",
                          "method" if kind else "kind")
    cls = method(str(kind), str(name)).Recipe
    try:
        return cls.model_validate(values)
    except ValidationError as err:
        raise RecipeError(err, cls) from err


class RecipeError(StudioError):
    """A recipe with bad fields; ``fields`` maps each to what is wrong with it."""

    def __init__(self, err: ValidationError, cls: type[Recipe]):
        self.fields: dict[str, str] = {}
        specs = {spec.name: spec for spec in fields(cls)}
        for item in err.errors():
            name = str(item["loc"][0]) if item["loc"] else "recipe"
            self.fields.setdefault(name, _plain(item, specs))
        first = next(iter(self.fields))
        more = f" ({len(self.fields) - 1} more)" if len(self.fields) > 1 else ""
        super().__init__(self.fields[first] + more, field=first)


def _plain(item: dict, specs: dict[str, FieldSpec]) -> str:
    """A pydantic error in a person's words."""
    context, kind = item.get("ctx", {}), item["type"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][0]), specs, n=1)
        return "There is no such field." + (f" Did you mean '{near[0]}'?" if near else "")
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        word = {"greater_than_equal": "at least", "greater_than": "more than", "less_than_equal": "at most",
                "less_than": "less than"}[kind]
        limit = next(v for k, v in context.items() if k in ("ge", "gt", "le", "lt"))
        return f"Must be {word} {limit:g}; it is {item['input']}."
    if kind == "finite_number":
        return f"Must be an ordinary number, not {item['input']}."
    if kind == "literal_error":
        return f"Must be one of {context['expected']}; it is {item['input']!r}."
    if kind in ("int_parsing", "int_type", "int_from_float"):
        return f"Must be a whole number; it is {item['input']!r}."
    if kind in ("float_parsing", "float_type"):
        return f"Must be a number; it is {item['input']!r}."
    if kind == "missing":
        return "Is needed."
    message = item["msg"].removeprefix("Value error, ")
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?")) else ".")


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses aliases, which can blow a small file up to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise StudioError("The recipe uses a YAML alias (*name).", "Write the value out instead.")
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """SafeDumper that knows of 1e-4 too, and so puts the string '1e-4' in quotes."""


for _side in (_PlainLoader, _PlainDumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float",
                                re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def write_yaml(values: Any) -> str:
    """Plain values -> YAML text that :func:`read_yaml` reads back as the same values."""
    return yaml.dump(values, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=110)


def read_yaml(text: str) -> Any:
    """YAML or JSON text -> plain values.

    Raises:
        StudioError: too large, too deep, hostile tags, aliases, or not YAML at all.
    """
    if len(text) > MAX_BYTES:
        raise StudioError(f"A recipe is at most {MAX_BYTES // 1024} kB.", "Is this a dataset rather than a recipe?")
    depth = deepest = 0
    try:
        for event in yaml.parse(text, Loader=_PlainLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                raise StudioError(f"The recipe is nested more than {MAX_DEPTH} levels deep.", "Recipes are flat.")
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader subclass
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(err, "problem", None) or "cannot be read"
        raise StudioError(f"Not a valid YAML recipe{where}: {problem}.", "Only plain values are allowed.") from err


def read_values(path: str | Path) -> dict[str, Any]:
    """Plain values of a recipe file, unchecked.

    Raises:
        StudioError: missing, binary, empty, too large, or not YAML.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StudioError(f"{path.name} is larger than {MAX_BYTES // 1024} kB.", "Is this a dataset?")
        text = path.read_text("utf-8")
    except UnicodeDecodeError as err:
        raise StudioError(f"{path.name} is not a text file.", "A recipe is UTF-8 YAML.") from err
    except OSError as err:
        raise StudioError(f"{path} cannot be read: {err.strerror}.", "Check the path.") from err
    values = read_yaml(text)
    if not isinstance(values, dict):
        raise StudioError(f"{path.name} holds no recipe.", "A recipe starts with 'kind:' and 'method:'.")
    return values


def load(path: str | Path) -> Recipe:
    """A checked recipe from a YAML or JSON file.

    Raises:
        StudioError: see :func:`read_values` and :func:`parse`.
    """
    return parse(read_values(path))
