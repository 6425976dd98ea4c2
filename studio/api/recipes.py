"""Methods, presets, and what is wrong with a recipe before it starts."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio import registry, settings
from studio.api.who import scope
from studio.errors import StudioError
from studio.recipe import Recipe, RecipeError, fields, parse, read_values


def methods(kind: str = "") -> list[dict[str, Any]]:
    """Every method of every family, or of one: ``{family, family_title, name, title, summary, paper, group, shape, needs_gpu,
    fields}``.

    ``group`` is the heading it stands under in a list of methods, ``shape`` what rows it reads (see
    :class:`studio.aligners.base.AlignMethod`; else empty), ``fields`` are :class:`studio.recipe.FieldSpec` as dicts, in
    the order of the form.
    """
    return [{"family": family.name, "family_title": family.title, "name": name, "title": method.title,
             "summary": method.summary, "paper": method.paper, "group": method.group or getattr(method, "shape", ""),
             "shape": getattr(method, "shape", ""), "needs_gpu": method.needs_gpu,
             "fields": [asdict(spec) for spec in fields(method.Recipe)]}
            for family in registry.FAMILIES.values() if kind in ("", family.name) for name, method in family.items()]


def validate(values: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """What would be refused, field by field, and what the job would take. Starts nothing.

    Returns:
        ``{"ok": bool, "errors": {field: message}, "estimate": dict | None}``; an error that belongs to no field is
        under ``"recipe"``. The estimate is ``None`` while there are errors; where the memory is known it says whether that
        fits and what would (:func:`studio.trainers.advice.room`). Where an optional part is all that is missing,
        ``"install"`` holds its ``{name, title, megabytes}``.
    """
    from studio.extras import MissingExtra, extra
    from studio.trainers import advice

    try:
        recipe = checked(values, owner)
        estimate = registry.method(recipe.kind, recipe.method).estimate(recipe).to_dict()
        if recipe.kind in advice.KINDS and estimate["memory"]:
            estimate |= advice.room(recipe, estimate["memory"], estimate["device"])
    except RecipeError as err:
        return {"ok": False, "errors": err.fields, "estimate": None}
    except StudioError as err:
        found = {"ok": False, "errors": {err.field or "recipe": f"{err.message} {err.hint}".strip()}, "estimate": None}
        if isinstance(err, MissingExtra):
            part = extra(err.extra)
            found["install"] = {"name": err.extra, "title": part.title, "megabytes": part.megabytes}
        return found
    return {"ok": True, "errors": {}, "estimate": estimate}


def checked(values: dict[str, Any], owner: str | None = None) -> Recipe:
    """A recipe that may start.

    Raises:
        StudioError: bad fields, another person's model or data, or what the method itself refuses.
    """
    recipe = parse(values)
    own(recipe, scope(owner))
    registry.method(recipe.kind, recipe.method).check(recipe)
    return recipe


def own(recipe: Recipe, owner: str | None) -> None:
    """Refuse references to what another person made.

    Raises:
        StudioError: naming the field.
    """
    if owner is None:
        return
    from studio.api.rewards import rewards_own
    from studio.library.refs import check_owner

    method = registry.method(recipe.kind, recipe.method)
    further = getattr(method, "others", {})  # fields of a step that name further datasets, maybe a list of them
    for name, ref, _ in recipe.refers_to():
        check_owner(ref, owner, name)
    for spec in fields(type(recipe)):
        if spec.name in further:
            value = getattr(recipe, spec.name)
            for ref in value if isinstance(value, list) else [value]:
                if ref:
                    check_owner(ref, owner, spec.name)
        if spec.widget == "rewards":
            rewards_own(getattr(recipe, spec.name), owner)
    if whose := getattr(method, "whose", None):  # names of the workspace that are no references
        whose(recipe, owner)
    for inner in getattr(method, "inner", lambda recipe: [])(recipe):  # recipes inside a recipe: the trials of a sweep
        own(inner, owner)
    if (recipe.kind, recipe.method) == ("data", "pipeline"):
        from studio.datasets.pipeline import step_recipe

        for values in recipe.steps:
            own(step_recipe(values), owner)


def script(values: dict[str, Any]) -> str:
    """A plain Python script that does what the recipe does, without the studio.

    Raises:
        StudioError: a bad recipe, or a method that has no such script.
    """
    recipe = parse(values)
    method = registry.method(recipe.kind, recipe.method)
    text = method.script(recipe)
    if not text:
        raise StudioError(f"'{method.title}' cannot be written as a plain script.", "Copy the recipe (YAML) instead.")
    return text


def presets(kind: str) -> list[dict[str, Any]]:
    """Ready recipes of a family: ``{name, title, for_whom, values}``.

    A preset is a recipe file: its first comment line is the title, what follows ``For:`` up to an empty one says for whom
    it is.

    Raises:
        StudioError: unknown kind.
    """
    registry.family(kind)
    found = []
    for path in sorted((settings.PRESETS / kind).glob("*.yaml")):
        title, for_whom, values = _preset(path, path.stat().st_mtime_ns)
        found.append({"name": path.stem, "title": title, "for_whom": for_whom, "values": dict(values)})
    return found


@lru_cache(maxsize=256)
def _preset(path: Path, stamp: int) -> tuple[str, str, dict[str, Any]]:
    title, for_whom = "", ""
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").strip()
        title = title or text
        if text.startswith("For:"):
            for_whom = text.removeprefix("For:").strip()
        elif for_whom and not text:
            break
        elif for_whom:
            for_whom += f" {text}"
    return title or path.stem, for_whom, read_values(path)
