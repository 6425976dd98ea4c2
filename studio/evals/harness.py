"""Benchmarks of lm-evaluation-harness on any models: the studio's own offline suite, own benchmarks, and its 14,000 tasks.

Gao et al., https://github.com/EleutherAI/lm-evaluation-harness. A task is loaded once for all models, a model once for all
tasks; each pair is kept as soon as it is whole. Scores and standard errors are those of the library.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, ClassVar

from studio import settings
from studio.errors import StudioError
from studio.evals.results import SHARE
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST = 16  # models of one run


class HarnessRecipe(Recipe):
    """Which models, on which tasks."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "harness"

    models: list[str] = field([], "Models", "Who is asked: models of yours, GGUF files too, hub:owner/name, or the address of an "
                              "OpenAI-compatible server. The first is what the others are compared with.", widget="models", max_length=MOST)
    tasks: list[str] = field(["suite:facts", "suite:sums"], "Tasks", "suite:NAME of the studio's own, bench:NAME of your own, a "
                             "task file of the workspace, or any name of lm-evaluation-harness.", widget="lines", max_length=200)
    dataset: str = field("", "Own held-out set", "Rows with good answers that no model learned from. Their loss is measured "
                         "beside the tasks.", widget="dataset", max_length=1000)
    columns: dict[str, str] = field({}, "Columns", "Which column of the held-out set is what, where it is not found out by "
                                    "itself.", widget="hidden")
    rewards: list[dict[str, Any]] = field([], "Rewards", "Functions that score each answer to the held-out set; with none, only "
                                          "its loss is measured.", widget="rewards", max_length=20)
    num_fewshot: int | None = field(None, "Examples in the prompt", "How many solved examples stand before each question. Left "
                                    "empty, as many as the task says.", ge=0, le=100)
    limit: float | None = field(None, "Questions", "Ask only so many of each task, or below 1 that share. Left empty, all: only "
                                "then do scores compare with published ones.", gt=0, le=1_000_000)
    apply_chat_template: bool = field(True, "Chat template", "Ask in the model's own chat form. A model without one is asked in "
                                      "plain text.")
    batch_size: int = field(16, "Questions at once", "More is faster and needs more memory.", group="advanced", ge=1, le=1024)
    max_length: int | None = field(None, "Context", "Prompts are cut to so many tokens from their beginning. Left empty, as many as "
                                   "the model reads.", group="advanced", unit="tokens", ge=8, le=1_048_576)
    max_gen_toks: int | None = field(None, "Longest answer", "Answers are cut at so many tokens. Left empty, as the task says.",
                                     group="advanced", unit="tokens", ge=1, le=131_072)
    gen_kwargs: dict[str, Any] = field({}, "Generation settings", "Settings of generate() in place of the task's, such as "
                                       "temperature and do_sample.", group="advanced", widget="table")
    system_instruction: str = field("", "System prompt", "Stands before every question.", group="advanced", widget="text",
                                    max_length=20_000)
    fewshot_as_multiturn: bool = field(True, "Examples as turns", "Examples are turns of the chat; off, they stand in one message.",
                                       group="advanced")
    bootstrap_iters: int = field(100_000, "Resamples", "Draws behind the standard error of metrics that are no mean, such as F1. "
                                 "Fewer are faster, 0 leaves these errors out.", group="advanced", ge=0, le=1_000_000)
    random_seed: int = field(0, "Seed", "Of Python's random numbers.", group="advanced", ge=0, le=2**32 - 1)
    numpy_random_seed: int = field(1234, "Seed of NumPy", "Of the random numbers of NumPy.", group="advanced", ge=0, le=2**32 - 1)
    torch_random_seed: int = field(1234, "Seed of torch", "Of answers that are drawn.", group="advanced", ge=0, le=2**32 - 1)
    fewshot_random_seed: int = field(1234, "Seed of examples", "Which solved examples are drawn.", group="advanced", ge=0,
                                     le=2**32 - 1)
    confirm_run_unsafe_code: bool = field(False, "Run the models' code", "Some tasks run what a model wrote, HumanEval for one. It "
                                          "runs in the sandbox.", group="advanced")
    trust_remote_code: bool = field(False, "Run foreign code", "Some Hub models, and tasks with functions of their own, bring "
                                    "Python code that can do anything on this machine. Turn on only for an author you trust.",
                                    group="advanced")


class Harness(Method):
    """Tasks of lm-evaluation-harness."""

    title = "Benchmarks"
    summary = "Asks models the questions of known or own benchmarks and scores the answers, with standard errors."
    paper = "https://arxiv.org/abs/2405.14782"
    Recipe = HarnessRecipe

    @classmethod
    def check(cls, recipe: HarnessRecipe) -> None:
        from studio import rewards
        from studio.datasets import formats
        from studio.evals import tasks

        if not recipe.models:
            raise StudioError("No model is chosen.", "Choose one or more; comparing needs two.", "models")
        for number, ref in enumerate(recipe.models):
            if ref in recipe.models[:number]:
                raise StudioError(f"{asked(ref)[0]} is listed twice.", "Remove one of the two.", "models")
            asked(ref)
        if not recipe.tasks and not recipe.dataset:
            raise StudioError("No task is chosen.", "Choose one or more tasks, or a held-out set.", "tasks")
        for found in tasks.all_of(recipe.tasks):
            if found.source == "file" and settings.shared() and tasks.runs_code(found):
                raise StudioError(f"The task {found.name} runs Python code of its folder, which is off where others can reach the studio.",
                                  "Make a benchmark in the form instead; it needs no code.", "tasks")
            if found.source == "file" and not recipe.trust_remote_code and tasks.runs_code(found):
                raise StudioError(f"The task {found.name} runs Python code of its folder.", "If you trust who wrote it, turn on 'Run "
                                  "foreign code'.", "trust_remote_code")
        if recipe.dataset:
            formats.check(recipe.dataset, recipe.columns)
        if recipe.rewards:
            rewards.check(recipe.rewards)

    @classmethod
    def whose(cls, recipe: HarnessRecipe, owner: str) -> None:
        """Refuse tasks of another person.

        Raises:
            StudioError: in ``tasks``; it does not tell whether the task exists.
        """
        from studio.evals import tasks

        tasks.all_of(recipe.tasks, owner)

    @classmethod
    def estimate(cls, recipe: HarnessRecipe) -> Estimate:
        from studio.evals import tasks

        needs = [asked(ref)[1] for ref in recipe.models]
        items = [tasks.line(found)["items"] for found in tasks.all_of(recipe.tasks)]
        notes = ["Memory is an estimate. One model at a time is loaded."]
        if items and all(items):
            most = [min(n, int(recipe.limit)) if recipe.limit and recipe.limit >= 1 else n for n in items]
            notes.append(f"{sum(most)} questions for each of {len(recipe.models)} models.")
        return Estimate(memory=None if None in needs else max(needs, default=None), notes=notes)

    @classmethod
    def script(cls, recipe: HarnessRecipe) -> str:
        from studio.evals import tasks

        found = tasks.all_of(recipe.tasks)
        names = [one.name if one.path is None else str(tasks.read(one.path).get("task")) for one in found]
        models = [_arguments(ref) for ref in recipe.models]
        if not names or None in models:
            return ""  # own rows, GGUF files and servers are scored by the studio itself
        places = sorted({str(one.path.parent) for one in found if one.path})
        given = {} if recipe.max_gen_toks is None else {"max_gen_toks": recipe.max_gen_toks}
        values = {"tasks": names, "num_fewshot": recipe.num_fewshot, "batch_size": recipe.batch_size, "limit": recipe.limit,
                  "bootstrap_iters": recipe.bootstrap_iters, "system_instruction": recipe.system_instruction or None,
                  "apply_chat_template": recipe.apply_chat_template, "fewshot_as_multiturn": recipe.fewshot_as_multiturn,
                  "gen_kwargs": given | recipe.gen_kwargs or None, "random_seed": recipe.random_seed,
                  "numpy_random_seed": recipe.numpy_random_seed, "torch_random_seed": recipe.torch_random_seed,
                  "fewshot_random_seed": recipe.fewshot_random_seed, "confirm_run_unsafe_code": recipe.confirm_run_unsafe_code}
        more = {"max_length": recipe.max_length} if recipe.max_length else {}
        lines = "".join(f"        {name}={value!r},\n" for name, value in values.items() if value is not None)
        own = all(one.path for one in found)
        return (f"import torch\nfrom lm_eval import simple_evaluate\nfrom lm_eval.tasks import TaskManager\nfrom lm_eval.utils import make_table\n\n"
                f"manager = TaskManager(include_path={places!r}, include_defaults={not own})\n"
                f"for model in {[model | more for model in models]!r}:\n"
                f"    found = simple_evaluate(\n        \"hf\",\n        model,\n        task_manager=manager,\n"
                f"        device=\"cuda\" if torch.cuda.is_available() else \"cpu\",\n{lines}    )\n"
                f"    print(make_table(found))\n")

    @classmethod
    def run(cls, recipe: HarnessRecipe, ctx: Any) -> dict[str, Any]:
        from studio.evals import bench_task
        from studio.evals.results import Results
        from studio.trainers import load

        load.quiet()
        try:
            return Run(recipe, ctx, Results(ctx, recipe)).all()
        finally:
            bench_task.close()  # judges of own benchmarks


def asked(ref: str) -> tuple[str, int | None]:
    """(label, bytes of memory, ``None`` where it is not known) of a model that can be asked, without loading it.

    Raises:
        StudioError: in ``models``.
    """
    from studio.chat import address
    from studio.evals import compare
    from studio.gguf import read

    try:
        if address.is_address(ref):
            address.checked(ref)
            return address.label(ref), 0
        model = refs.resolve_model(ref)
        if model.meta.get("format") == "gguf":
            file = read.only(model.path) if model.path.is_dir() else model.path
            return model.label, int(file.stat().st_size * 1.2) + 300_000_000
    except StudioError as err:
        raise StudioError(err.message, err.hint, "models") from err
    return model.label, compare._memory(compare.opened(ref)) or None


def _arguments(ref: str) -> dict[str, Any] | None:
    """``model_args`` of lm-evaluation-harness for a model, or ``None`` where transformers does not load it."""
    from studio.chat import address

    if address.is_address(ref) or (model := refs.resolve_model(ref)).meta.get("format") == "gguf":
        return None
    if model.is_adapter and model.base:
        return {"pretrained": refs.resolve_model(model.base).source, "peft": model.source, "dtype": "float32"}
    return {"pretrained": model.source, "dtype": "float32"}


class Run:
    """One run's state: what is loaded, how far it is."""

    def __init__(self, recipe: HarnessRecipe, ctx: Any, results: Any):
        self.recipe, self.ctx, self.results = recipe, ctx, results
        self.began = time.monotonic()
        self.done = self.total = self.now = self.fresh = 0.0
        self.refused: StudioError | None = None

    def all(self) -> dict[str, Any]:
        from studio import rewards
        from studio.aligners import data
        from studio.evals import compare, lm_heldout, lm_models, lm_tasks

        recipe, ctx, results = self.recipe, self.ctx, self.results
        watch = lm_models.Watch(lambda: ctx.stop_requested, self.tell)
        functions = rewards.build(recipe.rewards, ctx, SimpleNamespace(model=recipe.models[0], trust_remote_code=recipe.trust_remote_code)
                                  ) if recipe.dataset and recipe.rewards else []
        try:
            with lm_models.quiet(watch):
                jobs, groups = lm_tasks.load(recipe, ctx)
                for ref in recipe.models:
                    results.model(ref, asked(ref)[0])
                for job in jobs:
                    results.task(job.name, job.title, job.main, job.metrics, about=job.about)
                items = lm_heldout.rows(recipe, ctx) if recipe.dataset else []
                if items:
                    results.task(compare.TASK, data.refs_label(recipe.dataset), "loss", compare.metrics(functions))
                sizes = {job.name: job.docs for job in jobs} | ({compare.TASK: len(items)} if items else {})
                self.total = sum(sizes.values()) * len(recipe.models)
                for number in range(len(recipe.models)):
                    left = [name for name in sizes if not results.finished(number, name)]
                    self.done += sum(size for name, size in sizes.items() if name not in left)
                    if left and not ctx.stop_requested:
                        self.model(number, [job for job in jobs if job.name in left], items if compare.TASK in left else [],
                                   functions, watch)
        except lm_models.Stopped:
            pass  # while the tasks were loading
        finally:
            rewards.close(functions)
        if not any(results.finished(number, name) for number in range(len(results.models)) for name in results.tasks):
            if self.refused and not ctx.stop_requested:
                raise self.refused
            return {"table": [], "tasks": results.tasks}
        self.groups(groups, lm_tasks)
        self.describe()
        return results.finish([(recipe.dataset, "data")] if recipe.dataset else [])

    def model(self, number: int, jobs: list[Any], items: list[Any], functions: list, watch: Any) -> None:
        """All that one model has not done yet."""
        from studio.evals import lm_models

        recipe, label = self.recipe, self.results.models[number]["label"]
        if (lm := lm_models.opened(recipe.models[number], recipe, self.ctx, watch)) is None:
            return
        if recipe.apply_chat_template and not lm.templated:
            self.ctx.warning("no-template", f"{label} has no chat template and is asked in plain text.",
                             "Its scores compare with those of chat models only with care.")
        try:
            for job in jobs:
                self.pair(number, job, lm, label)
            if items:
                self.heldout(number, items, functions, lm, label)
        except lm_models.Stopped:
            pass
        finally:
            lm.close()

    def pair(self, number: int, job: Any, lm: Any, label: str) -> None:
        """One model, one task."""
        from studio.evals import lm_served, lm_tasks

        recipe, watch, began = self.recipe, lm.watch, time.monotonic()
        watch.cut, self.now = 0, job.docs
        templated = recipe.apply_chat_template and lm.templated and (lm.likelihoods or not job.likelihood)
        try:
            found = lm_tasks.ask(job, lm, recipe, templated)
        except lm_served.Refused as err:
            self.refused = self.refused or err
            self.ctx.warning("not-asked", f"{label} is not asked {job.title}: {err.message}", err.hint)
            self.step(job.docs, 0)
            return
        self.results.task(job.name, job.title, found["main"], found["metrics"], about=job.about)
        if silent := sum(not sample.scores for sample in found["samples"]):
            self.ctx.warning("undecided", f"{label}, {job.title}: {silent} of {len(found['samples'])} answers have no score.",
                             "Of a benchmark with a judge: it never gave a mark in form. Choose another judge.")
        if watch.cut:
            self.ctx.warning("cut", f"{label}, {job.title}: {watch.cut} of {found['requests']} prompts were longer than the model reads "
                             "and lost their beginning.", "Choose a model with a longer context, or fewer examples.")
        self.results.add(number, job.name, found["samples"], found["scores"], seconds=round(time.monotonic() - began, 3),
                         requests=found["requests"], cut=watch.cut, templated=templated, main=found["main"],
                         metrics=found["metrics"], figures=found["figures"])
        self.step(job.docs, job.docs)

    def heldout(self, number: int, items: list[Any], functions: list, lm: Any, label: str) -> None:
        """One model, the person's own rows."""
        from studio.evals import compare, lm_heldout

        began, self.now = time.monotonic(), len(items)
        if not lm.likelihoods and not functions:
            self.ctx.warning("not-asked", f"{label} does not tell how likely a given text is, so the held-out set is left out.",
                             "Choose rewards: then its answers are scored.")
            self.step(len(items), 0)
            return
        scores = lm_heldout.score(lm, items, functions, self.recipe,
                                  lambda code, text, hint: self.ctx.warning(code, f"{label}: {text}", hint))
        if scores is not None:
            self.results.add(number, compare.TASK, compare.told(items, scores), scores.figures(),
                             seconds=round(time.monotonic() - began, 3), tokens=sum(scores.tokens), main="loss",
                             metrics=compare.metrics(functions))
            self.step(len(items), len(items))

    def step(self, docs: float, fresh: float) -> None:
        """So many questions are behind, ``fresh`` of them asked now."""
        self.done, self.fresh, self.now = self.done + docs, self.fresh + fresh, 0
        self.tell(0.0)

    def tell(self, share: float) -> None:
        """How far the run is, within the task that is being asked."""
        ended = self.fresh + share * self.now
        left = self.total - self.done - share * self.now
        eta = (time.monotonic() - self.began) / ended * left if ended else None
        self.ctx.progress(self.done + share * self.now, self.total, eta)

    def groups(self, groups: dict[str, Any], lm_tasks: Any) -> None:
        """Scores of groups, where all their tasks are done."""
        for name, group in groups.items():
            for number in range(len(self.results.models)):
                kept = {task: self.results.facts_of(number, task)["figures"] for task in list(self.results.tasks)
                        if "figures" in self.results.facts_of(number, task)}
                if scores := lm_tasks.group_scores(group, kept):
                    shares = {metric: SHARE for metric in scores}
                    self.results.task(name, group.alias or name, next(iter(scores)), shares, group=[
                        task.task_name for task in group.get_all_tasks()])
                    self.results.add(number, name, [], scores)

    def describe(self) -> None:
        """How the metrics of tasks that were done before a stop are read."""
        for name, task in self.results.tasks.items():
            for number in range(len(self.results.models)):
                if "metrics" in (kept := self.results.facts_of(number, name)):
                    task |= {"main": kept["main"], "metrics": task["metrics"] | kept["metrics"]}
