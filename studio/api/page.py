"""What the page needs to know beyond the recipes: the workspace, and the names its table of more settings may hold."""

from __future__ import annotations

from typing import Any


def workspace() -> str:
    """The workspace folder."""
    from studio import settings

    return str(settings.home())


def extra_fields(kind: str, method: str) -> dict[str, dict[str, str]]:
    """Names that a recipe's ``extra`` table takes: ``{name: {"type", "help"}}``; empty for a method without such a table.

    Raises:
        StudioError: unknown kind or method.
    """
    from studio import registry

    recipe: Any = registry.method(kind, method).Recipe
    if "extra" not in recipe.model_fields:
        return {}
    from studio.trainers import extras

    return {name: entry for name, entry in extras.table(recipe.config).items()
            if name not in extras.RESERVED and name not in recipe.model_fields}
