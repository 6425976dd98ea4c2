"""How a step of a flow names what an earlier step makes: ``step:ID`` in place of a model or dataset. No torch here."""

from __future__ import annotations

import re
from typing import Any

from studio.errors import StudioError
from studio.recipe import Recipe, RecipeError, parse

PREFIX = "step:"
NOT_A_STEP = ("flow", "sweep", "setup")
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_MAKES = {"data": "dataset", "publish": None, "eval": None, "look": None}  # every other kind makes a model


def made_by(kind: str) -> str | None:
    """What a step of this kind leaves in the library: ``model`` | ``dataset`` | ``None``."""
    return _MAKES.get(kind, "model")


def checked(steps: list[dict[str, Any]]) -> list[tuple[str, Recipe]]:
    """The steps as (id, recipe), with every link leading to an earlier step that makes what is needed.

    Raises:
        StudioError: naming the step, in the field ``steps``.
    """
    known: dict[str, str] = {}
    made = []
    for number, values in enumerate(steps, 1):
        name = str(values.get("id") or f"step-{number}")
        if not _ID.fullmatch(name):
            raise StudioError(f"'{name}' cannot be the id of a step.", "Use small letters, digits and dashes.", "steps")
        if name in known:
            raise StudioError(f"Two steps are called '{name}'.", "Give each an id of its own.", "steps")
        try:
            recipe = parse({key: value for key, value in values.items() if key != "id"})
        except RecipeError as err:
            field, message = next(iter(err.fields.items()))
            raise StudioError(f"Step {number} ({name}), {field}: {message}", "Mend it in the step.", "steps") from err
        except StudioError as err:
            raise StudioError(f"Step {number} ({name}): {err.message}", err.hint, "steps") from err
        if recipe.kind in NOT_A_STEP:
            raise StudioError(f"Step {number} ({name}) is a {recipe.kind}, which cannot be part of a flow.",
                              "Start it by itself.", "steps")
        for field, target, wanted in links(recipe):
            if target not in known:
                raise StudioError(f"Step {number} ({name}) uses '{target}' as its {field}, which is no earlier step.",
                                  f"Earlier steps: {', '.join(known) or 'none'}.", "steps")
            if made_by(known[target]) != wanted:
                raise StudioError(f"Step {number} ({name}) needs a {wanted} for its {field}; '{target}' makes "
                                  f"{'a ' + made_by(known[target]) if made_by(known[target]) else 'nothing to go on with'}.",
                                  "Choose another step.", "steps")
        known[name] = recipe.kind
        made.append((name, recipe))
    return made


def links(recipe: Recipe) -> list[tuple[str, str, str]]:
    """(field, id of the step, ``model`` or ``dataset``) of everything a recipe takes from other steps."""
    return [(field, ref.removeprefix(PREFIX), wanted) for field, ref, wanted in recipe.refers_to()
            if ref.startswith(PREFIX)]


def filled(recipe: Recipe, results: dict[str, str]) -> dict[str, Any]:
    """A recipe's values with every link replaced by the reference of what the step made."""
    return recipe.referring({PREFIX + target: results[target] for _, target, _ in links(recipe)})
