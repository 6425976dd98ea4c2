"""Looking at data before anything starts, and taking files in."""

from __future__ import annotations

import filecmp
import re
import shutil
from pathlib import Path
from typing import Any

from studio.api.who import scope, signed_in
from studio.errors import StudioError


def inspect(ref: str, owner: str | None = None, columns: dict[str, str] | None = None, format: str = "auto") -> dict[str, Any]:
    """What a dataset holds: detected format, roles of its columns, rows, findings; see :func:`studio.datasets.inspect.inspect`.

    Args:
        columns: role -> column, overriding what is detected.

    Raises:
        StudioError: unknown, unreadable or empty, or columns that do not fit.
    """
    from studio.datasets import inspect as inspector
    from studio.library.refs import check_owner

    check_owner(ref, scope(owner), "dataset")
    return inspector.inspect(ref, columns=columns, format=format)


def preview(values: dict[str, Any], index: int = 0, owner: str | None = None) -> dict[str, Any]:
    """What the model will see of one sample: its tokens, which of them are trained on, and what was cut.

    Raises:
        StudioError: a bad recipe, or a sample that is not there.
    """
    from studio.api.recipes import own
    from studio.jobs import probe
    from studio.recipe import parse

    recipe = parse(values)
    own(recipe, scope(owner))
    return probe.call("studio.trainers.preview:preview", {"values": recipe.to_dict(), "index": max(int(index), 0)})


def upload(path: str, owner: str | None = None) -> dict[str, Any]:
    """Copy a file into the workspace.

    Returns:
        ``{ref, name, path, size}``; the same file under the same name is kept once.

    Raises:
        StudioError: not a file, empty, or larger than the free disk.
    """
    from studio import hardware, settings
    from studio.api.library import uploads

    source = Path(path).expanduser()
    if not source.is_file():
        raise StudioError(f"{source.name or path} is not a file.", "Choose one file.", "dataset")
    size = source.stat().st_size
    if size == 0:
        raise StudioError(f"{source.name} is empty.", "Choose a file with rows in it.", "dataset")
    hardware.need_disk(size, source.name, "dataset")
    folder = uploads(signed_in(owner))
    folder.mkdir(parents=True, exist_ok=True)
    target = _free_name(folder, safe_name(source.name), source)
    if not target.exists():
        part = folder / f".{target.name}.part"
        try:
            shutil.copyfile(source, part)
            part.replace(target)
        except OSError as err:
            part.unlink(missing_ok=True)
            raise StudioError(f"{source.name} cannot be copied into the workspace: {err.strerror}.",
                              "Free some disk space and try again.", "dataset") from err
    return {"ref": target.relative_to(settings.home()).as_posix(), "name": target.name, "path": str(target), "size": size}


def safe_name(name: str) -> str:
    """A plain file name: no path, no leading dot, no control or shell characters, its ending kept."""
    name = re.sub(r"[^\w.() -]+", "_", Path(name.replace("\\", "/")).name).lstrip(". ").strip()
    stem, dot, ending = name.rpartition(".")
    return f"{stem[:100]}.{ending[:16]}" if dot and stem else name[:100] or "upload"


def _free_name(folder: Path, name: str, source: Path) -> Path:
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, f".{ending}") if dot and stem else (name, "")
    number, target = 2, folder / name
    while target.exists() and not filecmp.cmp(source, target, shallow=False):
        target, number = folder / f"{stem}-{number}{ending}", number + 1
    return target
