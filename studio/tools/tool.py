"""What a tool is, and how its arguments are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studio.errors import StudioError

SECONDS = 30.0  # that a call may take


@dataclass(frozen=True)
class Tool:
    """Something a model may call.

    Attributes:
        name: As the model writes it.
        about: What it does, for the model.
        schema: JSON schema of its arguments.
        call: ``call(arguments, place)`` gives the result as text; ``place`` is what the chat was given to work with.
        source: ``studio``, or the name of the MCP server.
        asks: Whether a person confirms each call.
    """

    name: str
    about: str
    schema: dict[str, Any]
    call: Callable[[dict[str, Any], dict[str, Any]], str] = field(repr=False)
    source: str = "studio"
    asks: bool = False

    def described(self) -> dict[str, Any]:
        """As the OpenAI API takes it."""
        return {"type": "function", "function": {"name": self.name, "description": self.about, "parameters": self.schema}}


class BadCall(Exception):
    """A call that cannot be carried out; its words go back to the model, which may mend it."""


def checked(tool: Tool, arguments: Any) -> dict[str, Any]:
    """Arguments that fit the tool's schema.

    Raises:
        BadCall: they do not; says where.
    """
    import jsonschema

    if not isinstance(arguments, dict):
        raise BadCall(f"The arguments of {tool.name} must be an object, e.g. {{\"name\": value}}.")
    try:
        errors = sorted(jsonschema.Draft202012Validator(tool.schema or {}).iter_errors(arguments), key=lambda err: list(map(str, err.path)))
    except Exception as err:  # a schema that an MCP server got wrong can raise anything
        raise BadCall(f"The schema of {tool.name} is broken: {str(err).splitlines()[0][:200]}") from err
    if errors:
        where = ".".join(str(part) for part in errors[0].absolute_path)
        raise BadCall(f"{tool.name}{f': {where}' if where else ''}: {errors[0].message[:300]}")
    return arguments


def named(tools: list[Tool], name: Any) -> Tool:
    """The tool of that name.

    Raises:
        BadCall: there is none; says which there are.
    """
    for tool in tools:
        if tool.name == name:
            return tool
    import difflib

    near = difflib.get_close_matches(str(name), [tool.name for tool in tools], 1)
    raise BadCall(f"There is no tool '{str(name)[:80]}'." + (f" Did you mean {near[0]}?" if near else "")
                  + (f" There are: {', '.join(tool.name for tool in tools)}." if tools else ""))


def told(err: StudioError) -> str:
    """A refusal as the model reads it."""
    return f"{err.message} {err.hint}".strip()
