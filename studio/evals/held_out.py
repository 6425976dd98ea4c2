"""What a run was not trained on: the rows that base and tuned model may be compared on. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.recipe import parse

KINDS = ("sft", "align", "pretrain")
FILE = "held_out.jsonl"
MOST_BYTES = 200 << 20  # of a dataset that is split while somebody waits for a dialog
MOST_ROWS = 2000  # written down; a comparison draws from them


def of_run(row: dict[str, Any], owner: str | None = None) -> dict[str, Any] | None:
    """The validation rows of a training run as a dataset: ``{ref, kind, rows}``, or ``None`` where it kept none.

    ``kind`` is ``own`` for a dataset named in the recipe, ``split`` for the validation part of a version, and ``share``
    for the share that was cut off: that one is cut off again, by the same hash and seed, and written beside the run.

    Args:
        owner: The person on a Space, already scoped; there it is written among that person's uploads.

    Raises:
        StudioError: the run's data are not there any more or cannot be read.
    """
    from studio.datasets import formats
    from studio.library import refs

    recipe = row.get("recipe") or {}
    if row["kind"] not in KINDS or not recipe.get("dataset"):
        return None
    if recipe.get("eval_dataset"):
        return {"ref": recipe["eval_dataset"], "kind": "own", "rows": None}
    if own := formats.own_validation(recipe["dataset"]):
        return {"ref": own, "kind": "split", "rows": None}
    path = refs.resolve_dataset(recipe["dataset"]).path
    if not recipe.get("eval_share") or path is None or _size(path) > MOST_BYTES:
        return None
    place = _place(row["id"], owner)
    if not place.is_file():
        held = _cut(parse(recipe), row["kind"])
        if not held:
            return None
        place.parent.mkdir(parents=True, exist_ok=True)
        made = place.with_suffix(".partial")
        made.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in held[:MOST_ROWS]), "utf-8")
        made.replace(place)
    with place.open(encoding="utf-8") as file:
        rows = sum(1 for _ in file)
    return {"ref": place.relative_to(settings.home()).as_posix(), "kind": "share", "rows": rows}


def _cut(recipe: Any, kind: str) -> list[dict[str, Any]]:
    if kind == "align":
        from studio.aligners import data
        from studio.registry import method

        return data.read(recipe, method(recipe.kind, recipe.method).shape).held
    from studio.trainers import data as trained

    return trained.read(recipe)[1]


def _place(run: str, owner: str | None) -> Path:
    if owner:
        from studio.api.library import uploads

        return uploads(owner) / f"held-out-{run}.jsonl"
    return settings.run_dir(run) / FILE


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    except OSError as err:
        raise StudioError("The run's data cannot be read any more.", "Choose other data.", "dataset") from err
