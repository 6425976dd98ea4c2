"""Evolutionary search for the numbers of a merge, with a small evaluation as fitness. Akiba et al. 2024; Deb et al. 2002.

Every candidate is merged by mergekit as it would be written, scored on the training part of the data, and thrown away; each new
best is also scored on a part that the search never sees, so that a search which only fits its questions shows. Candidates stand
in a journal of the run. Optuna's study is made of it anew, and what it suggests follows from the seed, the number of the candidate
and those before, so a search that was killed goes on exactly.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from studio.errors import StudioError
from studio.library import refs
from studio.mergers.mergekit import Mergekit, MergekitRecipe
from studio.method import Estimate
from studio.recipe import field

MOST_AXES = 64
JOURNAL = "candidates.jsonl"


class EvolveRecipe(MergekitRecipe):
    """A merge, which of its numbers are searched, and what makes one better."""

    method: ClassVar[str] = "evolve"

    search: list[str] = field(["weight", "t"], "Searched numbers", "Names of the merge's parameters, one a line, such as weight, t, "
                              "density or lambda. Each place where one stands in the merge becomes a number of its own.",
                              widget="lines", max_length=10)
    points: int = field(1, "Points along the layers", "More than 1 turns each number into a curve over the layers. Every point is "
                        "searched, so the search takes longer and fits its data more closely.", ge=1, le=8)
    low: float = field(0.0, "Lowest", "The lowest value that is tried, for weights and other numbers without a range of their own.",
                       ge=-10, le=10)
    high: float = field(1.0, "Highest", "The highest value that is tried, likewise.", ge=-10, le=10)
    dataset: str = field("shipped:polite-heldout", "Dataset", "What the merged model should do well: questions with good answers, "
                         "or plain texts. A part of it is kept from the search.", widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the data is what, where it is not found out by "
                                    "itself.", widget="hidden")
    eval_share: float = field(0.4, "Kept from the search", "Share of the rows on which the best are scored again. If they are much "
                              "worse there, the search has learned its questions.", gt=0, le=0.9)
    samples: int = field(40, "Rows", "So many rows of each part are used at most. More make the fitness surer and each candidate "
                         "slower.", unit="rows", ge=2, le=10_000)
    goal: Literal["perplexity", "reward"] = field(
        "perplexity", "Judged by", "Perplexity of the right answers tells small differences and is fast. Rewards judge what the "
        "model really says.", choices={"perplexity": "Perplexity of the right answers", "reward": "Rewards of its answers"})
    rewards: list[dict[str, Any]] = field([], "Rewards", "Functions that score each answer; the weighted sum of their means is the "
                                          "fitness.", widget="rewards", when={"goal": ["reward"]}, max_length=20)
    max_new_tokens: int = field(64, "Longest answer", "Answers are cut at so many tokens.", unit="tokens",
                                when={"goal": ["reward"]}, ge=1, le=4096)
    trials: int = field(24, "Candidates", "How many merges are tried; the first is the merge as it is written.", group="training",
                        ge=2, le=1000)
    sampler: Literal["genetic", "tpe", "random"] = field(
        "genetic", "Search by", "Genetic crosses and changes the best of a generation. TPE learns where good values lie and needs the "
        "fewest candidates. Chance is the yardstick for both.", group="training",
        choices={"genetic": "Generations (genetic)", "tpe": "Guided (TPE)", "random": "Chance"})
    population_size: int = field(8, "Generation", "Candidates of one generation. Larger looks around more, smaller improves sooner.",
                                 group="training", library="optuna.samplers.NSGAIISampler", when={"sampler": ["genetic"]}, ge=2,
                                 le=200)
    seed: int = field(42, "Seed of the search", "The same seed draws the same rows and suggests the same candidates.",
                      group="advanced", ge=0, le=2**31 - 1)
    max_length: int = field(1024, "Longest sample", "Right answers are measured up to so many tokens, the question included.",
                            group="advanced", unit="tokens", ge=8, le=131_072)

    def refers_to(self) -> list[tuple[str, str, str]]:
        return [*super().refers_to(), *([("dataset", self.dataset, "dataset")] if self.dataset else [])]

    def referring(self, swap: dict[str, str]) -> dict[str, Any]:
        return super().referring(swap) | {"dataset": swap.get(self.dataset, self.dataset)}


class Axis(NamedTuple):
    """One number that is searched: where it stands in the configuration, what it is called, its start and range."""

    path: tuple[Any, ...]
    name: str
    start: float
    low: float
    high: float


class Evolve(Mergekit):
    """Merges that compete."""

    title = "Evolve a merge"
    summary = "Searches the weights of a merge: tries many, scores each on your data, and writes the best."
    paper = "https://arxiv.org/abs/2403.13187"
    Recipe = EvolveRecipe

    @classmethod
    def check(cls, recipe: EvolveRecipe) -> None:
        from studio import rewards
        from studio.datasets import formats

        super().check(recipe)
        axes(recipe)
        formats.check(recipe.dataset, recipe.columns)
        if recipe.goal == "reward":
            rewards.check(recipe.rewards)

    @classmethod
    def estimate(cls, recipe: EvolveRecipe) -> Estimate:
        plan = cls._plan(recipe)
        told, found = cls._told(recipe, plan), axes(recipe)
        notes = [f"{recipe.trials} candidates, {len(found)} numbers: {', '.join(axis.name for axis in found[:6])}"
                 f"{' and more' if len(found) > 6 else ''}.", "Memory is an estimate. Each candidate is merged, scored and deleted; "
                 "how long that takes is known after the first."]
        if told["ram"] is None:
            return Estimate(notes=notes)
        scoring = int(sum(count for _, count in plan.tensors.values()) * 4 * 1.2 + 700_000_000)
        return Estimate(memory=max(told["ram"], scoring), disk=told["disk"] * 2, notes=notes)

    @classmethod
    def script(cls, recipe: EvolveRecipe) -> str:
        return ""

    @classmethod
    def run(cls, recipe: EvolveRecipe, ctx: Any) -> dict[str, Any]:
        from types import SimpleNamespace

        from studio import rewards
        from studio.mergers import running
        from studio.trainers import load

        load.quiet()
        running.clean(ctx.output)
        if not cls.fetch(MergekitRecipe(config=recipe.config), ctx):
            return {}
        cls.check(recipe)
        plan = cls._plan(recipe)
        train, held = parts(recipe)
        ctx.log(f"{len(train)} rows for the search, {len(held)} kept from it.")
        asking = SimpleNamespace(model=next(iter(plan.parents)), trust_remote_code=recipe.trust_remote_code)
        functions = rewards.build(recipe.rewards, ctx, asking) if recipe.goal == "reward" else []
        try:
            search = Search(recipe, ctx, plan, cls.places(recipe, plan), train, held, functions)
            if not search.follow():
                return search.summary()
            return search.summary() | cls._write(recipe, ctx, plan, search)
        except running.Stopped:
            return search.summary()
        finally:
            rewards.close(functions)
            shutil.rmtree(ctx.run_dir / "candidate", ignore_errors=True)

    @classmethod
    def _write(cls, recipe: EvolveRecipe, ctx: Any, plan: Any, search: Search) -> dict[str, Any]:
        """The best as the run's model, the same as merge/mergekit makes of its configuration."""
        from studio.mergers import finishing, running

        best = recipe.model_copy(update={"config": search.configured(search.best["params"])})
        running.merge(best.config, search.places, ctx.output, recipe.options(), None, lambda: ctx.stop_requested)
        name = recipe.name or f"{cls._name(plan)[:68]}, evolved"
        for line in finishing.finish(ctx.output, best, plan, name):
            ctx.log(line)
        with (ctx.output / "README.md").open("a", encoding="utf-8") as out:
            out.write(search.card())
        parameters = finishing.parameters(ctx.output)
        ctx.artifact("model", ctx.output, name, {"method": "merge/evolve", "parameters": parameters,
                                                 recipe.goal: search.best["value"]},
                     [*cls.lineage(recipe.config, plan), (recipe.dataset, "data")])
        ctx.progress(1, 1)
        return {"parameters": parameters}


class Search:
    """Candidates with their scores, in the order in which they were tried."""

    def __init__(self, recipe: EvolveRecipe, ctx: Any, plan: Any, places: dict, train: list, held: list, functions: list):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.recipe, self.ctx, self.plan, self.places = recipe, ctx, plan, places
        self.train, self.held, self.functions = train, held, functions
        self.axes = axes(recipe)
        self.lower = recipe.goal == "perplexity"
        self.study = optuna.create_study(direction="minimize" if self.lower else "maximize")
        self.space = {axis.name: optuna.distributions.FloatDistribution(axis.low, axis.high) for axis in self.axes}
        self.tried: list[dict[str, Any]] = []
        self.parents: list[dict[str, Any]] = []
        self.journal = ctx.run_dir / JOURNAL
        self.began, self.known = time.monotonic(), 0

    # What was tried before ---------------------------------------------------------------------------------------------

    def recall(self) -> None:
        """Take over the candidates of an attempt before this one: asked for again, and told what they scored.

        Raises:
            StudioError: the journal is that of another search.
        """
        lines = list(_whole_lines(self.journal))
        self.parents = [line for line in lines if "model" in line]
        for line in (line for line in lines if "number" in line):
            asked = self._ask(len(self.tried))
            if asked.params != line["params"]:
                raise StudioError("The candidates of this run do not fit its recipe: other data, models or versions.",
                                  "Start it anew.", "seed")
            self._tell(asked, line)
        self.known = len(self.tried)
        if self.known:
            self.ctx.log(f"Goes on after {self.known} candidates.")

    def _ask(self, number: int) -> Any:
        from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

        seed = self.recipe.seed + number  # what is drawn depends on the number alone, not on the attempt
        self.study.sampler = {
            "genetic": lambda: NSGAIISampler(population_size=self.recipe.population_size, seed=seed),
            "tpe": lambda: TPESampler(seed=seed, n_startup_trials=min(10, max(4, self.recipe.trials // 4))),
            "random": lambda: RandomSampler(seed=seed)}[self.recipe.sampler]()
        if number == 0:
            self.study.enqueue_trial({axis.name: axis.start for axis in self.axes})
        return self.study.ask(self.space)

    def _tell(self, asked: Any, line: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        if line["value"] is None:
            self.study.tell(asked, state=TrialState.FAIL)
        else:
            self.study.tell(asked, line["value"])
        self.tried.append(line)

    # Going on ----------------------------------------------------------------------------------------------------------

    def follow(self) -> bool:
        """Score the parents, then try candidates until all were; False if it was stopped.

        Raises:
            StudioError: none of the candidates gave a number.
        """
        self.recall()
        for pair, parent in list(self.plan.parents.items())[len(self.parents):]:
            if not self._parent(pair, parent):
                return False
        while len(self.tried) < self.recipe.trials:
            if self.ctx.stop_requested or not self._next():
                return False
        if self.best is None:
            raise StudioError("None of the candidates gave a number.", "Try the merge itself first (Merge models), and see what it "
                              "says.", "config")
        self._warn()
        return True

    def _parent(self, pair: str, parent: Any) -> bool:
        from studio.mergers import config

        ref, adapter = config.split(pair)
        model = refs.resolve_model(adapter or ref)
        scored = [self._scored(refs.fetched(model), part) for part in (self.train, self.held)]
        if None in scored:
            return False
        self._keep({"model": pair, "label": parent.label, "value": scored[0], "held_out": scored[1]})
        self.parents.append({"model": pair, "label": parent.label, "value": scored[0], "held_out": scored[1]})
        self.ctx.log(f"{parent.label}: {self.recipe.goal} {scored[0]:.4g}, on what is kept from the search {scored[1]:.4g}")
        return True

    def _next(self) -> bool:
        """Try one candidate; False if it was stopped meanwhile."""
        from studio.mergers import finishing, running

        number = len(self.tried)
        asked = self._ask(number)
        values = self.configured(asked.params)
        folder = self.ctx.run_dir / "candidate"
        shutil.rmtree(folder, ignore_errors=True)
        line: dict[str, Any] = {"number": number, "params": asked.params, "value": None}
        try:
            running.merge(values, self.places, folder, self.recipe.options(), None, lambda: self.ctx.stop_requested)
            finishing.mend(folder, values, self.plan)
        except running.Stopped:
            return False
        except StudioError as err:
            line["reason"] = f"{err.message} {err.hint}".strip()
        else:
            model = refs.resolve_model(str(folder))
            line["value"] = self._scored(model, self.train)
            if line["value"] is None:
                return False
            if not math.isfinite(line["value"]):
                line |= {"value": None, "reason": "it gave no finite number"}
            elif self.best is None or self._better(line["value"], self.best["value"]):
                line["held_out"] = self._scored(model, self.held)
                if line["held_out"] is None:
                    return False
        self._keep(line)
        self._tell(asked, line)
        self._report(line)
        return True

    def _scored(self, model: Any, items: list) -> float | None:
        """Fitness of a model on rows; ``None`` if it was stopped."""
        from studio import rewards
        from studio.evals import compare

        words, net = compare.ready(model, self.recipe.trust_remote_code)
        found = compare.evaluate(net, words, items, self.functions, self.recipe.max_new_tokens, self.recipe.max_length,
                                 stop=lambda: self.ctx.stop_requested)
        if found is None:
            return None
        if self.lower:
            return math.exp(found.loss) if found.loss < 700 else math.inf
        names = [function.__name__ for function in self.functions]
        return math.fsum(weight * (found.mean(name)[0] or 0.0)
                         for name, weight in zip(names, rewards.weights(self.recipe.rewards), strict=True))

    def _better(self, one: float, two: float) -> bool:
        return one < two if self.lower else one > two

    @property
    def best(self) -> dict[str, Any] | None:
        """The best candidate; of equals the first."""
        done = [line for line in self.tried if line["value"] is not None]
        return (min if self.lower else max)(done, key=lambda line: line["value"]) if done else None

    def _keep(self, line: dict[str, Any]) -> None:
        with self.journal.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())

    def _report(self, line: dict[str, Any]) -> None:
        from studio.jobs.context import mark_complete

        step, best = line["number"] + 1, self.best
        words = ", ".join(f"{name} {value:.3g}" for name, value in line["params"].items())
        if line["value"] is None:
            self.ctx.log(f"Candidate {step} ({words}) gave no result: {line['reason']}")
        else:
            kept = f", kept from the search {line['held_out']:.4g}" if "held_out" in line else ""
            self.ctx.log(f"Candidate {step} ({words}): {self.recipe.goal} {line['value']:.4g}{kept}")
        self.ctx.metric(step, {"objective": line["value"], "best": best and best["value"],
                               "best_held_out": best and best["held_out"], **line["params"]})
        done = step - self.known
        spent = time.monotonic() - self.began
        self.ctx.progress(step, self.recipe.trials, spent / done * (self.recipe.trials - step) if done else None)
        folder = self.ctx.checkpoints / f"checkpoint-{step}"  # where the charts of a resumed run go on
        folder.mkdir(exist_ok=True)
        mark_complete(folder)
        shutil.rmtree(self.ctx.checkpoints / f"checkpoint-{step - 1}", ignore_errors=True)

    # What came of it -----------------------------------------------------------------------------------------------------

    def configured(self, params: dict[str, float]) -> dict[str, Any]:
        """The configuration with a candidate's numbers."""
        made = spread(self.recipe)
        for axis in self.axes:
            place = made
            for key in axis.path[:-1]:
                place = place[key]
            place[axis.path[-1]] = params[axis.name]
        return made

    def _warn(self) -> None:
        best, start = self.best, self.tried[0]
        if best is not start and start["value"] is not None and self._better(start["held_out"], best["held_out"]):
            self.ctx.warning("overfitted", f"The best candidate is better on the rows of the search ({best['value']:.4g} after "
                             f"{start['value']:.4g}), but worse on those kept from it ({best['held_out']:.4g} after "
                             f"{start['held_out']:.4g}): the search has learned its rows.",
                             "Use more rows, fewer numbers, or the merge as it was.")
        above = [one for one in self.parents if self._better(one["held_out"], best["held_out"])]
        if above:
            self.ctx.warning("parent-better", f"{above[0]['label']} alone is better on the rows kept from the search "
                             f"({above[0]['held_out']:.4g}) than the best merge ({best['held_out']:.4g}).",
                             "Keep that model, or use data that need the skills of all.")

    def summary(self) -> dict[str, Any]:
        """Every candidate, the parents, and the best with its configuration."""
        made: dict[str, Any] = {"metric": self.recipe.goal, "direction": "minimize" if self.lower else "maximize",
                                "parents": self.parents, "candidates": self.tried, "rows": len(self.train),
                                "held_out_rows": len(self.held)}
        if self.best:
            made |= {"best": self.best, "config": self.configured(self.best["params"])}
        return made

    def card(self) -> str:
        """A section of the model card."""
        rows = [("As it was written", self.tried[0]), (f"The best, candidate {self.best['number'] + 1}", self.best),
                *((f"{one['label']} alone", one) for one in self.parents)]
        head = [f"## Search\n\nThe best of {len(self.tried)} candidates by {self.recipe.goal} on {len(self.train)} rows of "
                f"`{self.recipe.dataset}`; {len(self.held)} other rows were kept from the search.\n",
                "| | rows of the search | kept from it |", "|---|---:|---:|"]
        lines = [f"| {name} | {one['value']:.4g} | {one['held_out']:.4g} |" for name, one in rows if one["value"] is not None]
        return "\n" + "\n".join([*head, *lines]) + "\n"


def spread(recipe: EvolveRecipe) -> dict[str, Any]:
    """The configuration in which every searched number is a curve of so many points, where more than one is asked for."""
    made = copy.deepcopy(recipe.config)
    if recipe.points > 1:
        for path, value in list(_numbers(made, recipe.search)):
            if not isinstance(path[-1], int):  # a curve already
                place = made
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = [value] * recipe.points
    return made


def axes(recipe: EvolveRecipe) -> list[Axis]:
    """The numbers that are searched.

    Raises:
        StudioError: none of the names stands in the configuration with a number, or the range is empty.
    """
    from studio.mergers import spec

    if recipe.low >= recipe.high:
        raise StudioError("The highest value is not above the lowest.", "Widen the range.", "high")
    method = spec.methods().get(recipe.config.get("merge_method", ""), {"parameters": []})
    own = {one["name"]: one for one in method["parameters"]}
    found = []
    for path, value in _numbers(spread(recipe), recipe.search):
        name = next(key for key in reversed(path) if isinstance(key, str) and key in recipe.search)
        low, high = recipe.low, recipe.high
        told = own.get(name, {})
        if name != "weight" and told.get("low") is not None:
            low, high = told["low"], told["high"]
            low = 0.01 if name == "density" else low  # none at all is no merge
        found.append(Axis(path, _called(path, name, recipe.config), value, min(low, value), max(high, value)))
    if not found:
        known = ", ".join(sorted(own)) or "none"
        raise StudioError(f"No number of the merge is called {' or '.join(recipe.search) or 'anything'}.",
                          f"Give the merge a starting value for what is searched; this method knows {known}.", "search")
    if len(found) > MOST_AXES:
        raise StudioError(f"{len(found)} numbers are more than a search can follow ({MOST_AXES}).",
                          "Search fewer names, or fewer points along the layers.", "points")
    names = [axis.name for axis in found]
    return [axis._replace(name=f"{axis.name} #{i + 1}") if names.count(axis.name) > 1 else axis for i, axis in enumerate(found)]


def _numbers(values: Any, names: list[str], path: tuple = (), inside: bool = False) -> Iterator[tuple[tuple, float]]:
    """(path, number) of every searched number of a configuration, in its order."""
    if inside and isinstance(values, int | float) and not isinstance(values, bool):
        yield path, float(values)
    elif isinstance(values, dict):
        for key, one in values.items():
            if inside:
                if key == "value":
                    yield from _numbers(one, names, (*path, key), True)
            elif key == "parameters" and isinstance(one, dict):
                for name, setting in one.items():
                    if name in names:
                        yield from _numbers(setting, names, (*path, key, name), True)
            elif key in ("models", "slices", "sources", "modules") or (path and path[-1] == "modules"):
                yield from _numbers(one, names, (*path, key))
    elif isinstance(values, list):
        for i, one in enumerate(values):
            yield from _numbers(one, names, (*path, i), inside)


def _called(path: tuple, name: str, config: dict[str, Any]) -> str:
    """``weight of Polite, mlp, point 2``: what a person calls a number of the configuration."""
    from studio.mergers.config import pair_of

    words, place, inside = [name], config, False
    for key in path:
        if not isinstance(place, dict | list):
            break
        try:
            place = place[key]
        except (KeyError, IndexError):
            break
        inside = inside or key == "parameters"
        if isinstance(place, dict) and "model" in place and not inside:
            words.append(f"of {_label(pair_of(place['model']))}")
        elif inside and isinstance(key, int) and isinstance(place, dict) and place.get("filter"):
            words.append(str(place["filter"]))
        elif key in ("slices",):
            words.append(f"slice {path[path.index(key) + 1] + 1}")
    numbers = path[path.index(name) + 1:] if name in path else ()
    if numbers and isinstance(numbers[-1], int):
        words.append(f"point {numbers[-1] + 1}")
    return " ".join([words[0], ", ".join(words[1:])]).strip()


def _label(pair: str) -> str:
    from studio.mergers.config import split

    model, adapter = split(pair)
    try:
        return refs.resolve_model(adapter or model).label
    except StudioError:
        return pair


def parts(recipe: EvolveRecipe) -> tuple[list, list]:
    """(rows of the search, rows kept from it), as :func:`studio.evals.compare.scored` gives them.

    Raises:
        StudioError: unreadable, or too few rows (``dataset``).
    """
    from studio.aligners import data
    from studio.datasets import formats
    from studio.evals import compare

    rows = list(data.listed(recipe.dataset, recipe.columns, "prompts")[0])
    if own := formats.own_validation(recipe.dataset):
        train, held = rows, list(data.listed(own, {}, "prompts")[0])
    else:
        train, held = formats.split(rows, recipe.eval_share, recipe.seed)
    made = []
    for part in (train, held):
        items = compare.scored(part)
        if recipe.goal == "reward":
            items = [item for item in items if item.asked]
        chosen = sorted(random.Random(recipe.seed).sample(range(len(items)), min(recipe.samples, len(items))))
        made.append([items[i] for i in chosen])
    if not all(made):
        raise StudioError(f"{data.refs_label(recipe.dataset)} has too few rows to search on one part and check on another.",
                          "Choose a larger dataset" + (" with questions." if recipe.goal == "reward" else "."), "dataset")
    return made[0], made[1]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a journal; one that a kill tore is cut off."""
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = raw[:raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        path.write_bytes(whole)
    for line in whole.splitlines():
        yield json.loads(line)
