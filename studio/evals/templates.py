"""Question templates of a benchmark: jinja, as lm-evaluation-harness writes them, but shut in.

A template is rendered when the benchmark is saved, so nothing of it runs later. It sees the columns of one row; of jinja it may
use values, ``if``, one level of ``for``, the filters of :data:`FILTERS` and the text methods of :data:`METHODS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, UndefinedError, nodes
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from studio.errors import StudioError

LONGEST = 200_000  # characters of a rendered text, and of any value on the way
METHODS = {"strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "split", "rsplit", "splitlines", "startswith", "endswith",
           "removeprefix", "removesuffix", "partition", "rpartition", "replace", "items", "keys", "values", "get"}
FILTERS = ("trim", "lower", "upper", "title", "capitalize", "replace", "join", "first", "last", "length", "count", "list", "int", "float",
           "string", "default", "d", "tojson", "sort", "unique", "reverse", "wordcount", "abs", "round")
_ALLOWED = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice,
            nodes.Filter, nodes.Call, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add,
            nodes.Sub, nodes.Concat, nodes.CondExpr, nodes.If, nodes.For, nodes.List, nodes.Tuple, nodes.Keyword, nodes.Test)


class Missing(Exception):
    """The row lacks what the template names."""


class TooLong(Exception):
    """The text would be longer than :data:`LONGEST`."""


class _Environment(ImmutableSandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True)
        self.globals.clear()
        self.filters = {name: _bounded(name, self.filters[name]) for name in FILTERS}

    def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(called, "__name__", "")
        if name not in METHODS:
            raise SecurityError(f"'{name}' cannot be called")
        if name == "replace" and isinstance(text := getattr(called, "__self__", None), str):
            _replaces(text, *args)
        return super().call(context, called, *args, **kwargs)


def _bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that cannot blow a text up."""
    import functools

    @functools.wraps(made)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        values = [*(value for value in args if not isinstance(value, (EvalContext, Environment, Context))), *kwargs.values()]
        if name == "replace":
            _replaces(*map(str, values[:3]))
        if name == "join" and len(values) > 1 and len(list(values[0])) * len(str(values[1])) > LONGEST:
            raise TooLong
        found = made(*args, **kwargs)
        if isinstance(found, str) and len(found) > LONGEST:
            raise TooLong
        return found

    return filtered


def _replaces(text: str, old: str = "", new: str = "", *_: Any) -> None:
    if len(text) + text.count(old) * len(new) > LONGEST:
        raise TooLong


_environment: list[_Environment] = []


def compiled(source: str, field: str) -> Callable[[dict[str, Any]], str]:
    """A template as a function of a row.

    The function raises :class:`Missing` where the row has no such column, :class:`TooLong`, and StudioError where the template cannot
    work on it.

    Raises:
        StudioError: in that field: it is no template, or one that asks for more than it may.
    """
    if not _environment:
        _environment.append(_Environment())
    environment = _environment[0]
    hint = "Write a column's name between double braces, as in {{question}}; {{a | trim}} and {% if a %}…{% endif %} work as in jinja."
    try:
        tree = environment.parse(source)
        _look(tree)
        template = environment.from_string(tree)
    except SecurityError as err:
        raise StudioError(f"The template uses what it may not: {err}.", hint, field) from err
    except TemplateError as err:
        line = f" in line {err.lineno}" if getattr(err, "lineno", None) else ""
        raise StudioError(f"That is no template{line}: {err.message or err}.", hint, field) from err
    except (RecursionError, MemoryError) as err:
        raise StudioError("The template is nested too deep.", hint, field) from err

    def render(row: dict[str, Any]) -> str:
        made, size = [], 0
        try:
            for part in template.generate(row):
                made.append(part)
                size += len(part)
                if size > LONGEST:
                    raise TooLong
        except UndefinedError as err:
            raise Missing(str(err.message or err)) from err
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as err:
            raise StudioError(f"The template cannot be filled in: {err}.", hint, field) from err
        return "".join(made)

    return render


def _look(tree: nodes.Node, loops: int = 0) -> None:
    """Refuse what a question needs none of.

    Raises:
        SecurityError: naming it.
    """
    if not isinstance(tree, _ALLOWED):
        raise SecurityError(f"'{type(tree).__name__.lower()}'")
    if isinstance(tree, nodes.For):
        loops += 1
        if loops > 1 or tree.recursive:
            raise SecurityError("a loop within a loop")
    if isinstance(tree, nodes.Filter) and tree.name not in FILTERS:
        raise SecurityError(f"the filter '{tree.name}'")
    if isinstance(tree, nodes.Call) and not (isinstance(tree.node, nodes.Getattr) and tree.node.attr in METHODS):
        raise SecurityError("a call")
    if isinstance(tree, nodes.Getattr) and tree.attr.startswith("_"):
        raise SecurityError(f"'{tree.attr}'")
    for child in tree.iter_child_nodes():
        _look(child, loops)


def columns(source: str) -> set[str]:
    """Names that a template reads."""
    from jinja2 import meta

    try:
        return meta.find_undeclared_variables(_Environment().parse(source))
    except TemplateError:
        return set()


def as_text(value: Any) -> str:
    """A value of a row as a person would write it."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict, bool)) else str(value)
