"""Sweeps as the page shows them: what may be varied, and how each trial stands."""

from __future__ import annotations

from typing import Any

from studio.errors import StudioError

_CURVE = 60  # points of a trial's curve
_ended: dict[tuple[str, float], dict[str, Any]] = {}  # figures of trials that are over, which do not change


def sweep_fields(kind: str, method: str) -> dict[str, Any]:
    """What a sweep over a method may vary, and what its own settings are.

    Returns:
        ``{"fields": [field, …], "settings": [field, …]}``, fields as in :func:`methods`.

    Raises:
        StudioError: no such method.
    """
    from dataclasses import asdict

    from studio import registry
    from studio.recipe import fields
    from studio.sweeps.common import SweepRecipe
    from studio.sweeps.space import SCALARS

    varied = [asdict(spec) for spec in fields(registry.method(kind, method).Recipe)
              if spec.type in SCALARS and spec.name != "name" and spec.widget != "hidden"]
    return {"fields": varied, "settings": [asdict(spec) for spec in fields(SweepRecipe) if spec.widget != "hidden"]}


def sweep(id: str) -> dict[str, Any]:
    """How a sweep stands, read from its trials as they are now.

    Returns:
        ``{"metric", "direction", "total", "axes": [{"field", "title", "log"}], "best", "trials": [...]}`` with the id
        of the best run or None and, of each trial, ``{"number", "run", "label", "state", "reason", "params", "value",
        "curve": [[step, value], ...], "progress", "started", "ended"}``. A trial that was given up is ``pruned``.

    Raises:
        StudioError: there is no such run, or it is no sweep.
    """
    from studio import registry
    from studio.jobs import children, store
    from studio.recipe import fields, parse
    from studio.sweeps import trials
    from studio.sweeps.common import metric_of

    row = store.get(id)
    if row["kind"] != "sweep":
        raise StudioError("This run is no sweep.", "Open it in the list of runs.")
    recipe = parse(row["recipe"])
    method = registry.method("sweep", row["method"])
    titles = {spec.name: spec.title for spec in fields(type(parse(recipe.recipe)))}
    axes = method.axes(recipe)
    summary = row["summary"] or {}
    metric, direction = (summary["metric"], summary["direction"]) if summary.get("metric") else metric_of(recipe)
    found = []
    for child in sorted(children.of(id), key=trials.number_of):
        state = trials.PRUNED if trials.was_pruned(child) and store.is_final(child["state"]) else child["state"]
        params = {axis.field: child["recipe"].get(axis.field) for axis in axes}
        found.append({"number": trials.number_of(child) + 1, "run": child["id"], "label": child["name"], "state": state,
                      "reason": child["reason"], "params": params,
                      "started": child["started"], "ended": child["ended"], **_figures(child, metric, direction)})
    done = [one for one in found if one["state"] == "succeeded" and one["value"] is not None]
    best = (max if direction == "maximize" else min)(done, key=lambda one: one["value"]) if done else None
    return {"metric": metric, "direction": direction, "total": method.total(recipe, axes), "trials": found,
            "axes": [{"field": axis.field, "title": titles[axis.field], "log": _is_log(axis)} for axis in axes],
            "best": best["run"] if best else None}


def _figures(child: dict[str, Any], metric: str, direction: str) -> dict[str, Any]:
    """Best value, curve and progress of one trial."""
    from studio import series, settings

    key = (child["id"], child["ended"] or 0.0)
    if child["ended"] and key in _ended:
        return _ended[key]
    news = series.snapshot(settings.run_dir(child["id"]), 0)
    points = [[step, value] for step, value in news["series"].get(metric, []) if isinstance(value, int | float)]
    better = max if direction == "maximize" else min
    found = {"value": better((value for _, value in points), default=None),
             "curve": points[::max(1, len(points) // _CURVE)], "progress": news["progress"]}
    if child["ended"]:
        if len(_ended) > 2000:
            _ended.clear()
        _ended[key] = found
    return found


def _is_log(axis: Any) -> bool:
    """Whether a scale of powers suits the axis: values that span more than a power of ten."""
    numbers = [v for v in axis.values or (axis.low, axis.high) if axis.type in ("int", "float") and v is not None]
    return axis.log or (len(numbers) > 1 and min(numbers) > 0 and max(numbers) / min(numbers) >= 20)
