"""The library: every model, adapter, dataset and file that runs made, and what each was made from.

Two tables, ``artifacts`` and ``parents``; an edge points from a child to the *reference* of its parent, so a parent may be
a shipped dataset, a Hub model or a checkpoint that is no artifact itself.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import insert, or_, select, update

from studio import settings
from studio.errors import StudioError
from studio.library.database import reading, writing
from studio.library.tables import artifacts as table
from studio.library.tables import parents

KINDS = ("model", "adapter", "dataset", "file")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_id(prefix: str) -> str:
    """``prefix`` and ten random base32 letters."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(10))


def add(kind: str, name: str, path: str | Path, *, run_id: str | None = None, owner: str | None = None,
        meta: dict[str, Any] | None = None, made_from: list[tuple[str, str]] = ()) -> dict[str, Any]:
    """Register a folder or file. The same path of the same run is registered once; its row is refreshed.

    Args:
        made_from: ``(reference, role)`` of each parent; roles: ``base``, ``dataset``, ``adapter``, ``tokenizer``, ...
    """
    if kind not in KINDS:
        raise ValueError(f"unknown artifact kind {kind!r}")
    stored, meta = _store_path(Path(path)), meta or {}
    with writing() as db:
        old = db.execute(select(table.c.id).where(table.c.path == stored, table.c.run_id == run_id)).scalar()
        values = {"kind": kind, "meta": meta, "size": size_of(Path(path))}
        if old:
            db.execute(update(table).where(table.c.id == old).values(**values))
            db.execute(sql_delete(parents).where(parents.c.child_id == old))
        else:
            taken = set(db.execute(select(table.c.name)).scalars())
            old = new_id("a")
            db.execute(insert(table).values(id=old, name=_unique(name or kind, taken), path=stored, run_id=run_id,
                                            owner=owner, created=time.time(), **values))
        if rows := [{"child_id": old, "ref": ref, "role": role} for ref, role in dict.fromkeys(made_from)]:
            db.execute(insert(parents), rows)
    return get(old)


def register_run(row: Any, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Put what a run made into the library; doing it again changes nothing.

    Args:
        row: The run, as a dict or an object with ``id``, ``name`` and ``owner``.
        result: The run's ``result.json``.
    """
    run = row if isinstance(row, dict) else {key: getattr(row, key, None) for key in ("id", "name", "owner")}
    made = []
    for item in result.get("artifacts") or []:
        path = Path(item["path"])
        if not path.is_absolute():
            path = settings.run_dir(run["id"]) / path
        if not path.exists():
            continue  # the run recorded it and removed it again, or the disk is gone: nothing to offer
        edges = [(p["ref"], p["role"]) for p in item.get("parents") or [] if p.get("ref")]
        made.append(add(item["kind"], item.get("name") or run.get("name") or item["kind"], path, run_id=run["id"],
                        owner=run.get("owner"), meta=item.get("meta"), made_from=edges))
    return made


def get(artifact_id: str, field: str | None = None) -> dict[str, Any]:
    """One artifact with its parents.

    Raises:
        StudioError: if there is none.
    """
    with reading() as db:
        row = db.execute(select(table).where(table.c.id == str(artifact_id))).mappings().first()
        if row is None:
            raise StudioError(f"There is nothing called library:{artifact_id} in this workspace.",
                              "It may have been deleted; pick another.", field)
        edges = db.execute(select(parents.c.ref, parents.c.role).where(parents.c.child_id == row["id"])
                           .order_by(parents.c.role, parents.c.ref)).mappings().all()
    return _public(row) | {"parents": [dict(edge) for edge in edges]}


def listed(kinds: tuple[str, ...] = KINDS, owner: str | None = None, run_id: str | None = None) -> list[dict[str, Any]]:
    """Artifacts, newest first, without parents. ``owner=None`` lists everybody's."""
    query = select(table).where(table.c.kind.in_(kinds)).order_by(table.c.created.desc(), table.c.id)
    if owner is not None:
        query = query.where(table.c.owner == owner)
    if run_id is not None:
        query = query.where(table.c.run_id == run_id)
    with reading() as db:
        return [_public(row) for row in db.execute(query).mappings()]


def parents_of(ids: list[str]) -> dict[str, list[str]]:
    """References of the parents of some artifacts, by id."""
    found: dict[str, list[str]] = {child: [] for child in ids}
    query = select(parents.c.child_id, parents.c.ref).order_by(parents.c.child_id, parents.c.role, parents.c.ref)
    with reading() as db:
        for child, ref in db.execute(query):
            if child in found:
                found[child].append(ref)
    return found


def rename(artifact_id: str, name: str) -> dict[str, Any]:
    """Give an artifact another name; a taken one gets a number behind it.

    Raises:
        StudioError: unknown artifact, or a name that is empty, a path, or too long.
    """
    name = " ".join(str(name).split())
    if not name or len(name) > 80 or any(c in name for c in "/\\<>\"'\x00") or name.startswith("."):
        raise StudioError("That name cannot be used.",
                          "Use up to 80 letters, digits, spaces, dots, dashes and underscores.", "name")
    get(artifact_id)
    with writing() as db:
        taken = set(db.execute(select(table.c.name).where(table.c.id != artifact_id)).scalars())
        db.execute(update(table).where(table.c.id == artifact_id).values(name=_unique(name, taken)))
    return get(artifact_id)


def delete(artifact_id: str) -> None:
    """Forget an artifact; its files are removed too if they lie inside the workspace, and only then.

    Raises:
        StudioError: unknown artifact, adapters that still need it as their base, or files that cannot be removed.
    """
    row = get(artifact_id)
    needing = [child for child in children(row["ref"]) if child["kind"] == "adapter"
               and any(p["ref"] == row["ref"] and p["role"] == "base" for p in child["parents"])]
    if needing:
        raise StudioError(f"'{row['name']}' is the base of {len(needing)} adapter(s), e.g. '{needing[0]['name']}'.",
                          "Merge or delete those first.")
    path = Path(row["path"])
    if _owned(path):
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as err:
            raise StudioError(f"The files of '{row['name']}' cannot be removed: {err.strerror}.",
                              "Close what uses them and try again.") from err
    with writing() as db:
        db.execute(sql_delete(parents).where(parents.c.child_id == artifact_id))
        db.execute(sql_delete(table).where(table.c.id == artifact_id))


def children(*refs: str) -> list[dict[str, Any]]:
    """Artifacts made directly from any of these references, oldest first."""
    match = or_(*(parents.c.ref == ref for ref in refs))
    query = select(table.c.id).where(table.c.id.in_(select(parents.c.child_id).where(match))).order_by(table.c.created)
    with reading() as db:
        ids = list(db.execute(query).scalars())
    return [get(child) for child in ids]


def lineage(artifact_id: str) -> dict[str, Any]:
    """The family of an artifact: everything it came from and everything made from it.

    Returns:
        ``{"nodes": [{"ref", "label", "kind", "id"}], "edges": [{"parent", "child", "role"}]}``; shared ancestors and
        cycles appear once.
    """
    nodes: dict[str, dict[str, Any]] = {}
    edges: dict[tuple[str, str, str], None] = {}
    up, down = [f"library:{artifact_id}"], [f"library:{artifact_id}"]
    get(artifact_id)
    while up:
        ref = up.pop()
        if ref in nodes:
            continue
        nodes[ref], row = _node(ref)
        for parent in row["parents"] if row else checkpoint_parents(ref):
            edges[(parent["ref"], ref, parent["role"])] = None
            up.append(parent["ref"])
    seen: set[str] = set()
    while down:
        ref = down.pop()
        if ref in seen:
            continue
        seen.add(ref)
        for child in children(ref):
            nodes.setdefault(child["ref"], _node(child["ref"])[0])
            edges.update({(p["ref"], child["ref"], p["role"]): None for p in child["parents"] if p["ref"] == ref})
            down.append(child["ref"])
    return {"nodes": list(nodes.values()), "edges": [{"parent": p, "child": c, "role": r} for p, c, r in edges]}


def _node(ref: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    if ref.startswith("library:"):
        try:
            row = get(ref.removeprefix("library:"))
            return {"ref": ref, "label": row["name"], "kind": row["kind"], "id": row["id"]}, row
        except StudioError:
            return {"ref": ref, "label": "deleted", "kind": "deleted", "id": None}, None
    kind = {"starter": "model", "shipped": "dataset", "run": "checkpoint", "hub": "hub"}.get(ref.partition(":")[0], "path")
    label = "Starter" if ref == "starter" else ref.partition(":")[2] or Path(ref).name if kind != "path" else Path(ref).name
    return {"ref": ref, "label": label, "kind": kind, "id": None}, None


def checkpoint_parents(ref: str) -> list[dict[str, str]]:
    """What the run of a checkpoint was started from."""
    if not ref.startswith("run:"):
        return []
    from studio.recipe import read_values

    try:
        values = read_values(settings.run_dir(ref[4:].partition("/")[0]) / "recipe.yaml")
    except StudioError:
        return []
    return [{"ref": str(values[key]), "role": role} for key, role in (("model", "base"), ("dataset", "data"))
            if values.get(key)]


def checkpoints(run_id: str) -> list[dict[str, Any]]:
    """Complete checkpoints of a run, oldest first: ``{ref, name, step, path, size, eval_loss, best}``.

    ``eval_loss`` is the validation loss recorded at that step, ``None`` if none was; ``best`` marks the lowest of them.
    """
    found = []
    for folder in (settings.run_dir(run_id) / "checkpoints").glob("checkpoint-*"):
        step = folder.name.rpartition("-")[2]
        try:
            stamp = (folder / "COMPLETE").stat().st_mtime_ns
        except OSError:
            continue
        if step.isdigit():
            size, loss = _checkpoint_facts(folder, stamp)
            found.append({"ref": f"run:{run_id}/{folder.name}", "name": folder.name, "step": int(step),
                          "path": str(folder), "size": size, "eval_loss": loss})
    found.sort(key=lambda c: c["step"])
    losses = [c["eval_loss"] for c in found if c["eval_loss"] is not None]
    return [c | {"best": bool(losses) and c["eval_loss"] == min(losses)} for c in found]


@lru_cache(maxsize=4096)
def _checkpoint_facts(folder: Path, stamp: int) -> tuple[int, float | None]:
    """(bytes, validation loss); read once, because a complete checkpoint does not change."""
    return size_of(folder), _eval_loss(folder, int(folder.name.rpartition("-")[2]))


def _eval_loss(folder: Path, step: int) -> float | None:
    try:
        state = json.loads((folder / "trainer_state.json").read_text("utf-8"))
        points = [p["eval_loss"] for p in state["log_history"] if p.get("step") == step and "eval_loss" in p]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    loss = points[-1] if points else None
    return float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for part in path.rglob("*"):
        try:
            total += part.lstat().st_size if part.is_file() else 0
        except OSError:
            continue  # removed while we count
    return total


def _unique(name: str, taken: set[str]) -> str:
    name = name.strip()[:80] or "unnamed"
    number, found = 2, name
    while found in taken:
        found, number = f"{name[:74]}-{number}", number + 1
    return found


def _store_path(path: Path) -> str:
    """Relative to the workspace where possible, so that the workspace can be moved."""
    path = path.resolve()
    home = settings.home()
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def _owned(path: Path) -> bool:
    """Inside the workspace and deep enough that removing it cannot take a whole section with it."""
    home = settings.home()
    path = path.resolve()
    return path.is_relative_to(home) and len(path.relative_to(home).parts) >= 2


def _public(row: Any) -> dict[str, Any]:
    path = Path(row["path"])
    return dict(row) | {"ref": f"library:{row['id']}", "path": str(path if path.is_absolute() else settings.home() / path)}
