"""Cards: the one a run wrote beside its result, that of a dataset, or one made from what the library knows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from studio import hardware
from studio.library.modelinfo import count


def card(row: dict[str, Any]) -> str:
    """Markdown for an artifact. Its own ``README.md`` if it has one."""
    path = Path(row["path"])
    own = (path if path.is_dir() else path.parent) / "README.md"
    if path.is_dir() and own.is_file() and own.stat().st_size < 2_000_000:
        return own.read_text("utf-8", "replace")
    if row["meta"].get("version") and path.is_dir():
        from studio.datasets.card import card as of_dataset
        from studio.datasets.version import Version

        version = Version(path)
        return of_dataset(version, row["name"], version.meta["rows"], size=row["size"])
    return made(row)


def made(row: dict[str, Any]) -> str:
    """A card from the library's facts alone, with the Hub's front matter.

    Fields: https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    front = ["---"]
    if row["kind"] in ("model", "adapter"):
        front += [f"library_name: {'peft' if row['kind'] == 'adapter' else 'transformers'}", "pipeline_tag: text-generation"]
    bases = [p["ref"][4:].partition("@")[0] for p in row["parents"] if p["ref"].startswith("hub:") and p["role"] == "base"]
    data = [p["ref"][4:].partition("@")[0] for p in row["parents"] if p["ref"].startswith("hub:") and p["role"] == "data"]
    front += [f"base_model: {bases[0]}"] if bases else []
    front += ["datasets:", *(f"- {name}" for name in data)] if data else []
    front += ["tags:", "- atelier", "---", "", f"# {row['name']}", ""]
    facts = [("Kind", row["kind"]), ("Method", row["meta"].get("method")), ("Parameters", count(row["meta"].get("parameters"))),
             ("Validation loss", row["meta"].get("eval_loss")), ("Size", hardware.size(row["size"])),
             ("Made", time.strftime("%Y-%m-%d", time.localtime(row["created"]))), ("Run", row["run_id"])]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts if value)]
    if row["parents"]:
        lines += ["", "## Made from", "", *(f"- {p['role']}: `{p['ref']}`" for p in row["parents"])]
    return "\n".join([*front, *lines, ""])
