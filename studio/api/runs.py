"""Runs: submit, watch, stop, resume."""

from __future__ import annotations

from typing import Any

from studio import settings
from studio.api.who import scope, signed_in
from studio.errors import StudioError

_HIDDEN = ("pid", "pid_started", "slot")


def submit(values: dict[str, Any], owner: str | None = None, backend: dict[str, Any] | None = None) -> dict[str, Any]:
    """Check a recipe and put it at the end of the queue; it starts as soon as there is a slot.

    Args:
        backend: Where it computes: ``{"name": "local"}``, ``{"name": "ray", "address": …}`` or ``{"name": "hf_jobs",
            "flavor": …, "hours": …, "agreed": dollars}``; see :func:`backends`.

    Returns:
        The run, as :func:`run` gives it.

    Raises:
        StudioError: a bad recipe (:class:`studio.recipe.RecipeError` with one message a field), no disk left, or a place
            that cannot be used (``field="backend"``).
    """
    from studio import hardware, registry
    from studio.api.recipes import checked
    from studio.jobs import backends, store
    from studio.jobs.backends import tokens

    recipe = checked(values, signed_in(owner))
    estimate = registry.method(recipe.kind, recipe.method).estimate(recipe)
    hardware.need_disk(estimate.disk or 0, "This run")
    made = store.submit(recipe, owner, backend=backends.check(backend, recipe, tokens.of(scope(owner))))
    _advance()
    return _public(made)


def runs(kind: str | None = None, owner: str | None = None, limit: int = 200,
         parent: str | None = None) -> list[dict[str, Any]]:
    """Runs, the newest first, as :func:`run` gives them.

    Args:
        kind: Only of this family.
        parent: Only the runs that this one started (a sweep's trials); ``""``: only those that a person started.
    """
    from studio.jobs import store

    return [_public(row) for row in store.find(kind=kind, owner=scope(owner), limit=limit, parent=parent)]


def run(id: str, details: bool = False) -> dict[str, Any]:
    """One run: ``{id, kind, method, name, label, state, recipe, owner, created, started, ended, attempt, exit_code, signal,
    reason, hint, field, summary, threads, resume, position, parent, tag, backend, place}``; ``parent`` is the run that started this one,
    ``place`` says in words where it computes, and is empty for this machine.

    Args:
        details: Add ``dir``, ``checkpoints``, ``artifacts`` and ``log`` (the end of the worker's output).

    Raises:
        StudioError: there is none.
    """
    from studio.jobs import store

    found = _public(store.get(id))
    if details:
        from studio import series
        from studio.library import artifacts

        folder = settings.run_dir(id)
        found |= {"dir": str(folder), "checkpoints": artifacts.checkpoints(id),
                  "artifacts": artifacts.listed(run_id=id), "log": series.log_since(folder / "worker.log", -1)[0]}
    return found


def poll(id: str, cursor: str | int = 0) -> dict[str, Any]:
    """What a run said since ``cursor`` (0 at first: everything, thinned), and its state.

    Returns:
        ``{cursor, reset, series, progress, samples, rollouts, warnings, notes, log, state, reason, hint, offer}``; see
        :func:`studio.series.snapshot`. ``offer``: {field: value} with which a run that ran out of memory may go on. ``notes`` are the method's own lines, ``log`` those and the output of its process.

    Raises:
        StudioError: there is no such run.
    """
    from studio import series
    from studio.jobs import store

    row = store.get(id)  # before the events: a final state is only told together with all that was said
    news = series.snapshot(settings.run_dir(id), cursor)
    news["log"] = "".join(f"{note}\n" for note in news["notes"]) + news["log"]
    return news | {"state": row["state"], "reason": row["reason"], "hint": row["hint"],
                   "offer": (row["summary"] or {}).get("offer")}


def stop(id: str) -> dict[str, Any]:
    """Ask a run to stop; it saves a checkpoint first. A queued one is taken from the queue.

    Raises:
        StudioError: there is none.
    """
    from studio.jobs import supervisor

    return _public(supervisor.stop(id))


def resume(id: str, changes: dict[str, Any] | None = None, here: bool = False) -> dict[str, Any]:
    """Queue a stopped, failed or lost run again; it goes on from its newest complete checkpoint.

    Args:
        changes: The setting it was offered when memory ran out (``offer`` of :func:`poll`); its recipe is changed by it.
        here: Go on on this machine, wherever it computed before.

    Raises:
        StudioError: there is none, it cannot be resumed, or something else was to be changed.
    """
    from studio.jobs import backends, store

    row = store.resume(id, change=dict(changes) if changes else None, backend=backends.LOCAL if here else None)
    _advance()
    return _public(row)


def remove(id: str) -> None:
    """Delete a run that is over, its folder and what the library holds of it; with it the runs that it started.

    Raises:
        StudioError: it or one it started still goes on, or an adapter elsewhere needs its model.
    """
    from studio.jobs import backends, children, store
    from studio.library import artifacts

    own = store.get(id)
    doomed = [*children.of(id), own]  # the parent last: what is refused half-way can be deleted again
    if any(row["state"] in ("starting", "running", "stopping") for row in doomed):
        raise StudioError("This run is still going." if len(doomed) == 1 else "A run of this one is still going.",
                          "Stop it first.")
    for row in doomed:
        backends.abandon(row)
        for made in artifacts.listed(run_id=row["id"]):
            artifacts.delete(made["id"])
        store.remove(row["id"])


def reorder(id: str, before_id: str | None = None) -> None:
    """Move a queued run in front of another queued one, or to the end.

    Raises:
        StudioError: one of them is not queued.
    """
    from studio.jobs import store

    store.get(id)
    store.reorder(id, before_id)


def supervise() -> Any:
    """Start supervising in this process, with a warm worker; the caller ends it with ``.stop()``. For the page only."""
    from studio.jobs.supervisor import Supervisor

    supervisor = Supervisor(warm=True)
    supervisor.start()
    return supervisor


def _advance() -> None:
    """Let the queue move at once: wake this process's supervisor, or do one round without one."""
    from studio.jobs import supervisor

    if not supervisor.wake():
        supervisor.Supervisor(warm=False).tick()


def _public(row: dict[str, Any]) -> dict[str, Any]:
    from studio.jobs import backends

    found = {str(key): value for key, value in row.items() if key not in _HIDDEN}  # plain str, not SQLAlchemy's own
    found["place"] = backends.label(row["backend"])
    return found | {"label": _label(row) if row["kind"] == "data" or not row["name"] else row["name"]}


def _label(row: dict[str, Any]) -> str:
    """``Starter · Polite answers`` for a run without a name, ``Statistics · Polite answers`` for work on a dataset.

    From the references alone, so it is quick.
    """
    from studio.library.refs import shipped_datasets

    recipe = row.get("recipe") or {}
    if row["kind"] == "flow":
        return " → ".join(_title(step) for step in recipe.get("steps") or [])[:80] or "flow"
    recipe = recipe.get("recipe") or recipe  # a sweep is called after what it varies
    if row["kind"] == "eval" and isinstance(recipe.get("models"), list) and recipe["models"]:
        asked = recipe["models"]
        return f"{_title(row)} · {', '.join(filter(None, map(_model, asked[:2])))}" + (f" + {len(asked) - 2}" if len(asked) > 2 else "")
    model = str(recipe.get("model") or "")
    if row["kind"] == "look":
        return f"{_title(row)} · {_model(model)}"
    data = str(recipe.get("dataset") or next(iter(recipe.get("sources") or []), ""))
    if data.startswith("shipped:"):
        data = shipped_datasets().get(data[8:], {}).get("title", data[8:])
    first = _title(row) if row["kind"] == "data" else _model(model)
    words = [first, _title(row) if row["kind"] == "quantize" else (row["kind"] == "data" and row["name"]) or _short(data)]
    return " · ".join(word for word in words if word) or _title(row)


def _title(row: dict[str, Any]) -> str:
    from studio import registry

    family = registry.family(row["kind"])
    return family.get(row["method"]).title if row["method"] in family else row["method"]


def _model(ref: Any) -> str:
    return "Starter" if ref == "starter" else _short(str(ref))


def _short(ref: str) -> str:
    if ref.startswith("library:"):
        from studio.library import artifacts

        try:
            return artifacts.get(ref[8:].partition("#")[0])["name"]
        except StudioError:
            return ""
    return ref.removeprefix("hub:").rpartition("/")[2]
