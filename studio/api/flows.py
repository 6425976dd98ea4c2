"""Pipelines, as the page draws them."""

from __future__ import annotations

from typing import Any


def flow(id: str) -> dict[str, Any]:
    """How the steps of a pipeline stand.

    Returns:
        ``{steps: [{id, kind, method, title, state, run, progress, reason, uses, result}]}``. ``uses`` are ``{field, ref,
        step}`` of every model and dataset (``step`` is the id of the step that makes it, or empty), ``result`` is
        ``{id, kind, name}`` of what it made in the library, or ``None``. A step that has not begun is ``waiting``.

    Raises:
        StudioError: there is no such run.
    """
    from studio import registry
    from studio.flows import links
    from studio.jobs import store
    from studio.library import artifacts
    from studio.series import snapshot
    from studio.settings import run_dir

    found = {row["tag"]: row for row in store.find(parent=id, limit=1000)}
    steps = []
    for name, recipe in links.checked((store.get(id)["recipe"] or {}).get("steps") or []):
        row = found.get(name)
        uses = [{"field": field, "ref": ref, "step": ref[5:] if ref.startswith(links.PREFIX) else ""}
                for field, ref, _ in recipe.refers_to()]
        made = artifacts.listed(run_id=row["id"]) if row else []
        kinds = ("dataset",) if links.made_by(recipe.kind) == "dataset" else ("model", "adapter", "file")
        result = next(({key: one[key] for key in ("id", "kind", "name")} for one in made if one["kind"] in kinds), None)
        steps.append({"id": name, "kind": recipe.kind, "method": recipe.method,
                      "title": registry.method(recipe.kind, recipe.method).title,
                      "state": row["state"] if row else "waiting", "run": row["id"] if row else None,
                      "reason": row["reason"] if row else "",
                      "progress": snapshot(run_dir(row["id"]))["progress"] if row else None, "uses": uses,
                      "result": result})
    return {"steps": steps}
