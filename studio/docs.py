"""Writes ``docs/reference.md`` from the registry, so that the reference cannot lag behind the code.

``python -m studio.docs`` writes it; a test fails while it is not up to date.
"""

from __future__ import annotations

from studio import registry, settings
from studio.recipe import FieldSpec, Recipe, fields
from studio.rewards import REWARDS

PATH = settings.ROOT / "docs" / "reference.md"
GROUPS = {"basic": "Basic", "training": "Training", "adapter": "Adapter", "watch": "Watching", "advanced": "Advanced"}
HEAD = """# Reference

Every method and every field, made from the code by `python -m studio.docs`. The same fields are the form's controls, the flags of
`studio run KIND/METHOD`, and the lines of a recipe file. A field's name is the name of the library's own argument where it sets one.

References, for every field that takes a model or dataset: `starter` · `shipped:KEY` · `library:ID` · `run:RUNID/checkpoint-N` ·
`hub:owner/name[@revision]` · else a local path.
"""


def reference() -> str:
    """The text of ``docs/reference.md``."""
    parts = [HEAD]
    for family in registry.FAMILIES.values():
        parts.append(f"## {family.title} (`kind: {family.name}`)\n\nMakes {family.made}.\n")
        for name, method in family.items():
            parts.append(f"### {method.title} (`{family.name}/{name}`)\n\n{method.summary}\n")
            if method.paper:
                parts.append(f"Paper: <{method.paper}>\n")
            parts.append(table(method.Recipe))
    parts.append("## Rewards\n\nOptions of a field of rewards, each with its `name`; when to use which is in [rewards](rewards.md).\n")
    for name, reward in REWARDS.items():
        parts.append(f"### {reward.title} (`{name}`)\n\n{reward.help}\n")
        if reward.paper:
            parts.append(f"Paper: <{reward.paper}>\n")
        parts.append(table(reward.Options))
    return "\n".join(parts)


def table(recipe: type[Recipe]) -> str:
    """The fields of a recipe as a Markdown table."""
    rows = ["| Field | Type | Default | What it does |", "|---|---|---|---|"]
    for spec in fields(recipe):
        if spec.widget == "hidden":
            continue
        sets = f" Sets `{spec.library}`." if spec.library else ""
        rows.append(f"| `{spec.name}` | {_type(spec)} | {_default(spec)} | **{_cell(spec.title)}.** {_cell(spec.help)}{sets} |")
    return "\n".join(rows) + "\n"


def _type(spec: FieldSpec) -> str:
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = ", ".join(f"{words[key]} {value:,g}".replace(",", " ") for key, value in spec.bounds.items() if key in words)
    kind = " or ".join(f"`{value}`" for value, _ in spec.choices if value != "") if spec.choices else spec.type
    return _cell(", ".join(filter(None, [kind, bounds, spec.unit, "or nothing" if spec.optional else ""])))


def _default(spec: FieldSpec) -> str:
    return "" if spec.default in ("", None) or spec.default == [] or spec.default == {} else f"`{spec.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    PATH.write_text(reference(), "utf-8")
    print(f"wrote {PATH}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
