"""The sweep at work: asks for settings, queues them as child runs, follows their curves, gives up hopeless ones, keeps the
best.

Nothing is stored that is not in the children already: which settings, how they went and what was stopped as hopeless
are read again from their rows and events, so a sweep that was killed goes on where it was.
"""

from __future__ import annotations

import math
import shutil
import time
from typing import Any

from studio import settings
from studio.errors import StudioError
from studio.jobs import children, events, store
from studio.jobs.model import State
from studio.recipe import parse
from studio.sweeps.common import metric_of

TELL = 5.0  # seconds between two words on the progress of a trial
PRUNED = "pruned"  # behind the tag of a trial that the sweep stopped as hopeless


def tag(number: int) -> str:
    """Name of a trial among the children; people count from 1."""
    return f"trial {number + 1}"


def number_of(row: dict[str, Any]) -> int:
    """The inverse of :func:`tag`, with or without the mark of a pruned one."""
    return int(row["tag"].split()[1]) - 1


def was_pruned(row: dict[str, Any]) -> bool:
    return row["tag"].endswith(PRUNED) and row["state"] != State.SUCCEEDED


class Trial:
    """One child run and its counterpart in Optuna's study.

    Attributes:
        points: The metric in the order in which it was measured; ``inf`` and NaN included.
        best: The best finite point, or ``None``.
    """

    def __init__(self, number: int, run_id: str, params: dict[str, Any], asked: Any, metric: str, upwards: bool):
        self.number, self.run_id, self.params, self.asked = number, run_id, params, asked
        self._metric, self._better = metric, max if upwards else min
        self._cursor = 0
        self.points: list[tuple[int, float]] = []
        self.names: set[str] = set()
        self.share, self.reported = 0.0, 0
        self.over = False

    def read(self) -> None:
        """Take in what the run said since."""
        path = settings.run_dir(self.run_id) / "events.jsonl"
        while True:
            found, cursor = events.read(path, self._cursor)
            for event in found:
                self._take(event)
            if cursor == self._cursor:
                return
            self._cursor = cursor

    def _take(self, event: dict[str, Any]) -> None:
        if event["e"] == "metric":
            self.names |= event["values"].keys()
            if isinstance(value := event["values"].get(self._metric), int | float):
                self.points.append((event["step"], float(value)))
        elif event["e"] == "progress" and event.get("total"):
            self.share = event["done"] / event["total"]
        elif event["e"] == "resume":
            self.points = [point for point in self.points if point[0] <= event["step"]]

    @property
    def best(self) -> float | None:
        finite = [value for _, value in self.points if math.isfinite(value)]
        return self._better(finite) if finite else None

    def hopeless(self) -> bool:
        """Tell Optuna the points since; true if its pruner gives the trial up."""
        verdict = False
        for place in range(self.reported, len(self.points)):
            self.asked.report(self.points[place][1], place)
            verdict = self.asked.should_prune() or verdict
        self.reported = max(self.reported, len(self.points))
        return verdict


class Search:
    """A study with its trials."""

    def __init__(self, method: Any, recipe: Any, ctx: Any):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.method, self.recipe, self.ctx = method, recipe, ctx
        self.axes = method.axes(recipe)
        self.total = method.total(recipe, self.axes)
        self.metric, self.direction = metric_of(recipe)
        self.study = optuna.create_study(direction=self.direction, pruner=_pruner(recipe))
        self.label = recipe.name or _label(recipe.recipe)
        self.trials: dict[int, Trial] = {}
        self.refused: dict[int, str] = {}  # settings that could not even be queued
        self.rows: dict[str, dict[str, Any]] = {}
        self.began = time.monotonic()
        self._done_before = 0
        self._stopping = False
        self._told = (-1, 0.0)  # (trials over, when) of the last word on progress

    # Beginning -------------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over the trials of an attempt before this one."""
        before = children.adopt(self.ctx, lambda row: (row["state"] in (State.STOPPED, State.LOST)
                                                       and not was_pruned(row)))
        for row in sorted(before, key=number_of):
            params = {axis.field: row["recipe"][axis.field] for axis in self.axes}
            asked = self._known(params)
            self._add(number_of(row), row["id"], params, asked)
            self.rows[row["id"]] = row
        if before:
            self._look()
            self._done_before = sum(trial.over for trial in self.trials.values())
            self.ctx.log(f"Goes on with {len(before)} trials of before; {self._done_before} are over.")

    def _known(self, params: dict[str, Any]) -> Any:
        """The trial of the study for settings that ran already."""
        distributions = {axis.field: axis.distribution() for axis in self.axes}
        self.study.enqueue_trial(params)
        try:
            return self.study.ask(distributions)
        except ValueError:  # a setting outside the space: the run lowered it itself when memory was short
            return self.study.ask(distributions)

    def fill(self) -> None:
        """Queue trials until as many wait or run as may."""
        for number in range(self.total):
            if len(self.running()) >= self.recipe.parallel:
                return
            if number in self.trials or number in self.refused:
                continue
            known = [trial.params for trial in self.trials.values()]
            asked = self.method.suggest(self.study, self.recipe, self.axes, number, known)
            values = self.recipe.recipe | asked.params | {"name": f"{self.label[:68]} · {number + 1}"}
            try:
                run_id = children.submit(self.ctx, values, tag(number))
            except StudioError as err:
                self._refuse(number, asked, err)
                continue
            self._add(number, run_id, asked.params, asked)

    def _add(self, number: int, run_id: str, params: dict[str, Any], asked: Any) -> None:
        self.trials[number] = Trial(number, run_id, params, asked, self.metric, self.direction == "maximize")

    def _refuse(self, number: int, asked: Any, err: StudioError) -> None:
        import optuna

        self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        self.refused[number] = f"{err.message} {err.hint}".strip()
        self.ctx.log(f"Trial {number + 1} ({_words(asked.params)}) was refused: {self.refused[number]}")

    # Watching --------------------------------------------------------------------------------------------------------

    def running(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.over]

    def follow(self) -> None:
        """Queue, watch and judge until every trial is over or the person asked to stop."""
        self.fill()
        waiting = [trial.run_id for trial in self.running()]
        while waiting:
            for rows in children.watch(waiting):
                self._take(rows, waiting)
                waiting[:] = [trial.run_id for trial in self.running()]
            if self.ctx.stop_requested:
                return

    def _take(self, rows: dict[str, dict[str, Any]], waiting: list[str]) -> None:
        """What one look at the children that are waited for brings."""
        self.rows |= rows
        for run_id in set(waiting) - rows.keys():  # somebody removed it
            gone = {"state": State.LOST, "reason": "It was removed.", "attempt": None}
            self.rows[run_id] = self.rows.get(run_id, {"tag": ""}) | gone
        self._look()
        if not self.ctx.stop_requested:
            self.fill()
        elif not self._stopping:
            self._stopping = True
            children.stop(waiting, "Stopped together with the sweep; resuming that goes on with it.")
        self._progress()

    def _look(self) -> None:
        for trial in self.trials.values():
            row = self.rows.get(trial.run_id)
            if trial.over or row is None:
                continue
            trial.read()  # after the row: a final state is judged with all that was said
            hopeless = trial.hopeless()
            if store.is_final(row["state"]):
                self._finish(trial, row)
            elif hopeless and row["state"] == State.RUNNING and trial.share < 1 and not self.ctx.stop_requested:
                self._prune(trial)

    def _prune(self, trial: Trial) -> None:
        figure = "no number" if trial.best is None else f"{trial.best:.4g}"
        why = f"Pruned by the sweep: {self.metric} {figure} after {len(trial.points)} points was not among the best."
        store.note(trial.run_id, tag=f"{tag(trial.number)} {PRUNED}")  # first: a resume must not take it up again
        children.stop([trial.run_id], why)
        self.ctx.log(f"Trial {trial.number + 1} ({_words(trial.params)}) is stopped as hopeless.")

    def _finish(self, trial: Trial, row: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        if row["state"] in (State.STOPPED, State.LOST) and self.ctx.stop_requested and not was_pruned(row):
            return  # stopped together with the sweep: no verdict, a resume goes on with it
        if row["state"] == State.LOST and row.get("attempt") == 1:  # no fault of its settings: once more
            self.rows[trial.run_id] = store.resume(trial.run_id)
            return
        trial.over = True
        if row["state"] == State.SUCCEEDED and trial.best is not None:
            self.study.tell(trial.asked, trial.best)
            self.ctx.log(f"Trial {trial.number + 1} ({_words(trial.params)}): {self.metric} {trial.best:.4g}")
        elif was_pruned(row):
            self.study.tell(trial.asked, state=TrialState.PRUNED)
        else:
            self.study.tell(trial.asked, state=TrialState.FAIL)
            self.ctx.log(f"Trial {trial.number + 1} ({_words(trial.params)}) gave no result: {self.why(trial)}")
        best = self.best()
        self.ctx.metric(trial.number + 1, objective=trial.best, best=best.best if best else None)
        if self.recipe.only_best:
            self._tidy()

    def why(self, trial: Trial) -> str:
        row = self.rows[trial.run_id]
        if row["state"] == State.SUCCEEDED:
            return (f"it recorded no {self.metric}. It recorded "
                    f"{', '.join(sorted(trial.names - {'epoch', 'step'})[:8]) or 'no curve at all'}.")
        return row.get("reason") or f"it is {row['state']}."

    def _progress(self) -> None:
        done = sum(trial.over for trial in self.trials.values()) + len(self.refused)
        now = time.monotonic()
        if done == self._told[0] and now - self._told[1] < TELL:
            return
        self._told = done, now
        share = done + sum(trial.share for trial in self.running()) - self._done_before
        spent = now - self.began
        left = self.total - self._done_before - share
        self.ctx.progress(done, self.total, max(0.0, spent / share * left) if share > 0.05 else None)

    # Ending ----------------------------------------------------------------------------------------------------------

    def best(self) -> Trial | None:
        """The best of the trials that ran to their end."""
        done = [trial for trial in self.trials.values() if trial.over and trial.best is not None
                and self.rows[trial.run_id]["state"] == State.SUCCEEDED]
        if not done:
            return None
        return (max if self.direction == "maximize" else min)(done, key=lambda trial: trial.best)

    def _tidy(self) -> None:
        """Delete models and checkpoints of trials that are over and not the best."""
        from studio.library import artifacts

        best = self.best()
        for trial in self.trials.values():
            if best is None or trial is best or not trial.over:
                continue
            for made in artifacts.listed(run_id=trial.run_id):
                try:
                    artifacts.delete(made["id"])
                except StudioError as err:  # somebody built on it meanwhile: it stays
                    self.ctx.log(f"{err.message} It is kept.")
            shutil.rmtree(settings.run_dir(trial.run_id) / "checkpoints", ignore_errors=True)

    def promote(self) -> str | None:
        """Give the best trial's model the name of the sweep; returns its reference, or ``None`` if it made none."""
        from studio.library import artifacts

        made = artifacts.listed(("model", "adapter"), run_id=self.best().run_id)
        if not made:
            return None
        if self.recipe.promote:
            artifacts.rename(made[0]["id"], f"{self.label[:56]} · best of {len(self.trials)}")
        return made[0]["ref"]

    def summary(self) -> dict[str, Any]:
        """What is stored with the run: the best, its settings, and all trials."""
        best = self.best()
        told = []
        for trial in sorted(self.trials.values(), key=lambda trial: trial.number):
            row = self.rows.get(trial.run_id, {})
            state = PRUNED if row and was_pruned(row) else str(row.get("state", State.QUEUED))
            told.append({"number": trial.number + 1, "run": trial.run_id, "state": state, "value": trial.best,
                         "params": trial.params, "reason": row.get("reason") or ""})
        told += [{"number": number + 1, "run": None, "state": "refused", "value": None, "params": {}, "reason": why}
                 for number, why in self.refused.items()]
        states = [one["state"] for one in told]
        found = {"metric": self.metric, "direction": self.direction, "trials": told,
                 "finished": states.count(State.SUCCEEDED), "pruned": states.count(PRUNED)}
        if best:
            found |= {"best_run": best.run_id, "best_trial": best.number + 1, "best_value": best.best,
                      "best_params": best.params}
        return found


def run(method: Any, recipe: Any, ctx: Any) -> dict[str, Any]:
    """The whole sweep in the worker; returns its summary.

    Raises:
        StudioError: no trial gave a result.
    """
    search = Search(method, recipe, ctx)
    search.adopt()
    search.follow()
    if ctx.stop_requested:
        return search.summary()
    if search.best() is None:
        reasons = [search.why(trial) for trial in search.trials.values()] + list(search.refused.values())
        raise StudioError(f"None of the {search.total} trials gave a result. The first: {reasons[0]}",
                          "Start the base recipe by itself first, and see what it says.",
                          "metric" if "recorded no" in reasons[0] else "space")
    ref = search.promote()
    return search.summary() | ({"best_model": ref} if ref else {})


def _pruner(recipe: Any) -> Any:
    """Optuna's pruner, fed with the place of a point on the curve (0, 1, …): steps differ where batches do."""
    from optuna import pruners

    if recipe.pruner == "median":
        return pruners.MedianPruner(recipe.n_startup_trials, recipe.n_warmup_steps)
    if recipe.pruner == "successive_halving":
        return pruners.SuccessiveHalvingPruner(max(1, recipe.n_warmup_steps), recipe.reduction_factor)
    return pruners.NopPruner()


def _label(base: dict[str, Any]) -> str:
    """``Starter · Polite answers``: what a run of the base recipe is called."""
    from studio.library import refs
    from studio.trainers.finish import default_name

    recipe = parse(base)
    if recipe.name:
        return recipe.name
    if not hasattr(recipe, "dataset"):
        return f"{recipe.kind} {recipe.method}"
    try:
        model = refs.resolve_model(recipe.model)
    except (AttributeError, StudioError):  # a model from nothing, or one that a trial brings
        model = None
    return "".join("-" if c in "/\\<>\"'" else c for c in default_name(recipe, model)).lstrip(".")


def _words(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in params.items())
