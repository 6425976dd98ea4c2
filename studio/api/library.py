"""What there is to start from, and what became of it: models, datasets, lineage, cards; the Hub; the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio import settings
from studio.api.who import scope
from studio.errors import StudioError

SCORERS = ("align/reward", "align/prm")  # methods whose models give a number in place of words


def models(owner: str | None = None) -> list[dict[str, Any]]:
    """Every model at hand, the starter first, then the newest.

    Returns:
        ``{ref, label, kind, detail, id, run_id, created, size, meta, warning}`` each; ``kind`` is ``starter``, ``model``,
        ``adapter`` or ``checkpoint``; ``detail`` one line for a list; ``meta["reward"]`` for one that cannot write;
        ``warning`` what is wrong with an adapter (its base was replaced since it was trained), else empty.
    """
    from studio.library import artifacts, bases, refs

    found: list[dict[str, Any]] = []
    try:
        starter = refs.resolve_model("starter")
        found.append(_model("starter", starter.label, "starter", starter.meta, detail=_facts(starter.meta)))
    except StudioError:
        pass  # an installation without it still lists the rest
    for row in artifacts.listed(("model", "adapter"), scope(owner)):
        meta = row["meta"] | ({"reward": True} if row["meta"].get("method") in SCORERS else {})
        made = _model(row["ref"], row["name"], row["kind"], meta, row, _facts(meta))
        if row["meta"].get(bases.KEY):
            made["warning"] = " ".join(bases.replaced_by_ref(row["ref"]) or ())
        found.append(made)
    for run in _runs_with_checkpoints(owner):
        for point in reversed(artifacts.checkpoints(run["id"])):
            loss = f"validation loss {point['eval_loss']:.3f}" if point["eval_loss"] is not None else ""
            detail = " · ".join(part for part in (loss, "best" if point["best"] else "") if part)
            label = f"{run['label']} · step {point['step']}"
            reward = f"{run['kind']}/{run['method']}" in SCORERS
            row = {"id": None, "run_id": run["id"], "created": run["created"], "size": point["size"]}
            found.append(_model(point["ref"], label, "checkpoint", {"eval_loss": point["eval_loss"], "best": point["best"],
                                                                    "step": point["step"], "reward": reward}, row, detail))
    return found


def _model(ref: str, label: str, kind: str, meta: dict, row: dict | None = None, detail: str = "") -> dict[str, Any]:
    row = row or {}
    return {"ref": ref, "label": label, "kind": kind, "detail": detail, "id": row.get("id"), "run_id": row.get("run_id"),
            "created": row.get("created"), "size": row.get("size", meta.get("size")), "meta": meta, "warning": ""}


def _facts(meta: dict[str, Any]) -> str:
    from studio.hardware import size
    from studio.library.modelinfo import count
    from studio.library.quantized import called

    parts = [kind, size(meta["size"]) if meta.get("size") else ""] if (kind := called(meta)) else []
    parts += [f"{n} parameters" if (n := count(meta.get("parameters"))) else "", "" if kind else str(meta.get("method") or "")]
    if isinstance(meta.get("eval_loss"), float):
        parts.append(f"validation loss {meta['eval_loss']:.3f}")
    return " · ".join(part for part in parts if part)


def _runs_with_checkpoints(owner: str | None) -> list[dict[str, Any]]:
    from studio.api.runs import runs

    return [run for run in runs(owner=owner) if (settings.run_dir(run["id"]) / "checkpoints").is_dir()]


def datasets(owner: str | None = None) -> list[dict[str, Any]]:
    """Every dataset at hand: shipped, made here, uploaded.

    Returns:
        ``{ref, label, kind, detail, format, rows, id, created, size}`` each; ``kind`` is ``shipped``, ``library`` or
        ``upload``; unknown ones are ``None``. Those made here also have ``version``, ``stage`` (``step`` for what a
        pipeline left on its way) and ``rows`` by split.
    """
    from studio.library import artifacts, refs

    found = [{"ref": f"shipped:{key}", "label": entry.get("title", key), "kind": "shipped",
              "detail": entry.get("description", ""), "format": entry.get("format"), "rows": entry.get("rows"),
              "id": None, "created": None, "size": None} for key, entry in refs.shipped_datasets().items()]
    for row in artifacts.listed(("dataset",), scope(owner)):
        found.append({"ref": row["ref"], "label": row["name"], "kind": "library", "detail": row["meta"].get("summary", ""),
                      "format": row["meta"].get("format"), "rows": row["meta"].get("rows"), "id": row["id"],
                      "created": row["created"], "size": row["size"], "run_id": row["run_id"],
                      "version": bool(row["meta"].get("version")), "stage": row["meta"].get("stage", "final")})
    folder = uploads(scope(owner))
    files = [p for p in (folder.iterdir() if folder.is_dir() else ()) if p.is_file() and not p.name.startswith(".")]
    for path in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True):
        info = path.stat()
        found.append({"ref": path.relative_to(settings.home()).as_posix(), "label": path.name, "kind": "upload",
                      "detail": "", "format": None, "rows": None, "id": None, "created": info.st_mtime,
                      "size": info.st_size})
    return found


def uploads(owner: str | None) -> Path:
    """Folder of a person's uploads."""
    folder = settings.home() / "uploads"
    return folder / owner if owner else folder


def keep_rows(stem: str, rows: list[dict[str, Any]], owner: str | None, what: str = "rows") -> Path:
    """Write rows as JSON lines among a person's uploads, beside those of the same name.

    Args:
        stem: Name without its ending; made safe here.
        what: What a refusal calls them.

    Raises:
        StudioError: the disk is full; nothing is left behind then.
    """
    from studio.api.data import safe_name
    from studio.jobs.files import write_lines

    folder, stem = uploads(owner), safe_name(stem)
    folder.mkdir(parents=True, exist_ok=True)
    target = next(path for n in range(1, 10_000) if not (path := folder / f"{stem}{f'-{n}' if n > 1 else ''}.jsonl").exists())
    try:
        write_lines(target, rows)
    except OSError as err:
        raise StudioError(f"The {what} cannot be written: {err.strerror}.", "Free some disk space and try again.") from err
    return target


def artifact(id: str, owner: str | None = None) -> dict[str, Any]:
    """``{id, ref, kind, name, path, run_id, owner, created, size, meta, parents}``.

    Raises:
        StudioError: there is none, or it is another person's.
    """
    from studio.library import artifacts

    row = artifacts.get(id)
    if scope(owner) not in (None, row["owner"]):
        raise StudioError(f"There is nothing called library:{id} in this workspace.", "Pick another.")
    return row


def rename(id: str, name: str, owner: str | None = None) -> dict[str, Any]:
    """Rename an artifact; a taken name gets a number behind it.

    Raises:
        StudioError: unknown artifact or unusable name.
    """
    from studio.library import artifacts

    artifact(id, owner)
    return artifacts.rename(id, name)


def delete(id: str, owner: str | None = None) -> None:
    """Remove an artifact, and its files if they lie in the workspace.

    Raises:
        StudioError: unknown, or still needed by an adapter.
    """
    from studio.library import artifacts

    artifact(id, owner)
    artifacts.delete(id)


def lineage(id: str, owner: str | None = None) -> dict[str, Any]:
    """What an artifact came from and what was made of it: ``{"nodes": [...], "edges": [...]}``.

    Raises:
        StudioError: unknown artifact.
    """
    from studio.library import artifacts

    artifact(id, owner)
    return artifacts.lineage(id)


def card(id: str, owner: str | None = None) -> str:
    """The card (Markdown) of an artifact, or of what a run made.

    Raises:
        StudioError: unknown id, or a run that made nothing.
    """
    from studio.library import artifacts, cards

    if id.startswith("r"):
        from studio.jobs import store

        run = store.get(id)
        made = artifacts.listed(owner=scope(owner), run_id=run["id"])
        if not made:
            raise StudioError(f"This run is {run['state']} and has made nothing yet.", "Its card comes with its result.")
        id = made[0]["id"]
    return cards.card(artifact(id, owner))


def hub_search(kind: str, query: str) -> list[dict[str, Any]]:
    """Models or datasets on the Hub; see :func:`studio.hub.search`.

    Raises:
        StudioError: the Hub cannot be reached.
    """
    from studio import hub

    return hub.search(kind, query)


def hardware() -> dict[str, Any]:
    """How busy the machine is; see :func:`studio.hardware.snapshot`."""
    from studio import hardware as machine

    return machine.snapshot()
