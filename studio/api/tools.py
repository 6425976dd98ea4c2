"""Tools that models may call, MCP servers, and the conversations that use them."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in


def tools(owner: str | None = None) -> dict[str, Any]:
    """``{tools, servers, chats, mcp, rounds}``; ``mcp`` is false where servers are refused because others reach this studio."""
    from studio import settings
    from studio.tools import agent, servers

    return {"tools": agent.offered(scope(owner)), "servers": servers.listed(), "chats": agent.listed(scope(owner)), "mcp": not settings.shared(),
            "rounds": agent.ROUNDS}


def tools_open(id: str, owner: str | None = None) -> dict[str, Any]:
    """A conversation as it stands; see :func:`studio.tools.agent.load`.

    Raises:
        StudioError: there is none.
    """
    from studio.tools import agent

    return agent.load(id, scope(owner))


def tools_ask(id: str | None, setup: dict[str, Any], text: str, owner: str | None = None) -> dict[str, Any]:
    """Put a message to a conversation with tools (``None``: a new one).

    Raises:
        StudioError: nothing to ask, no model, unknown tools, or an answer is still coming.
    """
    from studio.tools import agent

    return agent.ask(id, setup, text, signed_in(owner))


def tools_decide(id: str, call: str, choice: str, owner: str | None = None) -> dict[str, Any]:
    """Allow a call that waits (``once``, or ``chat`` for all of this tool) or refuse it (``no``).

    Raises:
        StudioError: it does not wait.
    """
    from studio.tools import agent

    return agent.decide(id, call, choice, scope(owner))


def tools_stop(id: str, owner: str | None = None) -> dict[str, Any]:
    """End what is under way in a conversation.

    Raises:
        StudioError: there is none.
    """
    from studio.tools import agent

    return agent.stop(id, scope(owner))


def tools_delete(id: str, owner: str | None = None) -> None:
    """Remove a conversation.

    Raises:
        StudioError: there is none.
    """
    from studio.tools import agent

    agent.delete(id, scope(owner))


def mcp_add(values: dict[str, Any], understood: bool = False, owner: str | None = None) -> dict[str, Any]:
    """Add or change an MCP server; see :func:`studio.tools.servers.add`.

    Raises:
        StudioError: others reach this studio, the risk was not agreed to, incomplete, or it cannot be connected.
    """
    from studio.tools import servers

    return servers.add(values, understood is True)


def mcp_remove(id: str, owner: str | None = None) -> None:
    """Remove an MCP server and end its connection.

    Raises:
        StudioError: others reach this studio, or there is none.
    """
    from studio.tools import servers

    servers.remove(id)
