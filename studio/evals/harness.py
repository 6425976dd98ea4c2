"""Benchmarks of lm-evaluation-harness on any models: the studio's own offline suite, own benchmarks, and its 14,000 tasks.

Gao et al., https://github.com/EleutherAI/lm-evaluation-harness. A task is loaded once for all models, a model once for all
tasks; each pair is kept as soon as it is whole. Scores and standard errors are those of the library.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from studio.errors import StudioError
from studio.library import refs
from studio.method import Estimate, Method
from studio.recipe import Recipe, field

MOST = 16  # models of one run
NOT_GENERATION = {"until", "max_gen_toks"}


class HarnessRecipe(Recipe):
    """Which models, on which tasks."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "harness"

    models: list[str] = field([], "Models", "Who is asked: models of yours, the starter, hub:owner/name. The first is what the "
                              "others are compared with.", widget="models", max_length=MOST)
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
        from studio.evals import compare, tasks

        if not recipe.models:
            raise StudioError("No model is chosen.", "Choose one or more; comparing needs two.", "models")
        for number, ref in enumerate(recipe.models):
            if ref in recipe.models[:number]:
                raise StudioError(f"{refs.resolve_model(ref).label} is listed twice.", "Remove one of the two.", "models")
            compare.opened(ref)
        if not recipe.tasks and not recipe.dataset:
            raise StudioError("No task is chosen.", "Choose one or more tasks, or a held-out set.", "tasks")
        for found in tasks.all_of(recipe.tasks):
            if found.source == "file" and not recipe.trust_remote_code and tasks.runs_code(found):
                raise StudioError(f"The task {found.name} runs Python code of its folder.", "If you trust who wrote it, turn on 'Run "
                                  "foreign code'.", "trust_remote_code")
        if recipe.dataset:
            formats.check(recipe.dataset, recipe.columns)
        if recipe.rewards:
            rewards.check(recipe.rewards)

    @classmethod
    def estimate(cls, recipe: HarnessRecipe) -> Estimate:
        from studio.evals import compare, tasks

        needs = [compare._memory(compare.opened(ref)) for ref in recipe.models]
        asked = [tasks.line(found)["items"] for found in tasks.all_of(recipe.tasks)]
        notes = ["Memory is an estimate. One model at a time is loaded."]
        if asked and all(asked):
            most = [min(n, int(recipe.limit)) if recipe.limit and recipe.limit >= 1 else n for n in asked]
            notes.append(f"{sum(most)} questions for each of {len(recipe.models)} models.")
        return Estimate(memory=max(needs) if needs and all(needs) else None, notes=notes)

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


class Run:
    """One run's state: what is loaded, how far it is."""

    def __init__(self, recipe: HarnessRecipe, ctx: Any, results: Any):
        self.recipe, self.ctx, self.results = recipe, ctx, results
        self.began = time.monotonic()
        self.done = self.total = self.now = self.fresh = 0.0

    def all(self) -> dict[str, Any]:
        from studio.evals import lm_models, lm_tasks

        recipe, ctx, results = self.recipe, self.ctx, self.results
        watch = lm_models.Watch(lambda: ctx.stop_requested, self.tell)
        with lm_models.quiet(watch):
            jobs = lm_tasks.load(recipe, ctx)
            self.total = sum(job.docs for job in jobs) * len(recipe.models)
            for job in jobs:
                results.task(job.name, job.title, job.main, {}, about=job.about)
            for ref in recipe.models:
                results.model(ref, refs.resolve_model(ref).label)
            for number, ref in enumerate(recipe.models):
                left = [job for job in jobs if not results.finished(number, job.name)]
                self.done += sum(job.docs for job in jobs if job not in left)
                if left and not ctx.stop_requested:
                    self.model(number, ref, left, watch, lm_models, lm_tasks)
        self.describe(jobs)
        return results.finish()

    def model(self, number: int, ref: str, jobs: list[Any], watch: Any, lm_models: Any, lm_tasks: Any) -> None:
        """All tasks that one model has not done yet."""
        recipe, ctx, results = self.recipe, self.ctx, self.results
        if (lm := lm_models.opened(ref, recipe, ctx, watch)) is None:
            return
        label = results.models[number]["label"]
        templated = recipe.apply_chat_template and lm.templated
        if recipe.apply_chat_template and not lm.templated:
            ctx.warning("no-template", f"{label} has no chat template and is asked in plain text.",
                        "Its scores compare with those of chat models only with care.")
        try:
            for job in jobs:
                watch.cut, self.now, began = 0, job.docs, time.monotonic()
                found = lm_tasks.ask(job, lm, recipe, templated)
                results.tasks[job.name] |= {"main": found["main"], "metrics": found["metrics"]}
                if watch.cut:
                    ctx.warning("cut", f"{label}, {job.title}: {watch.cut} of {found['requests']} prompts were longer than the model "
                                f"reads and lost their beginning.", "Choose a model with a longer context, or fewer examples.")
                results.add(number, job.name, found["samples"], found["scores"], seconds=round(time.monotonic() - began, 3),
                            requests=found["requests"], cut=watch.cut, templated=templated,
                            metrics=found["metrics"], main=found["main"])
                self.done, self.fresh, self.now = self.done + job.docs, self.fresh + job.docs, 0
                self.tell(0.0)
        except lm_models.Stopped:
            pass
        finally:
            lm.close()

    def tell(self, share: float) -> None:
        """How far the run is, within the task that is being asked."""
        asked = self.fresh + share * self.now
        left = self.total - self.done - share * self.now
        eta = (time.monotonic() - self.began) / asked * left if asked else None
        self.ctx.progress(self.done + share * self.now, self.total, eta)

    def describe(self, jobs: list[Any]) -> None:
        """How the metrics of tasks that were done before a stop are read."""
        from studio.jobs.files import read_json

        for job in jobs:
            for number in range(len(self.results.models)):
                if not self.results.tasks[job.name]["metrics"] and (kept := read_json(self.results._place(number, job.name))):
                    self.results.tasks[job.name] |= {key: kept["facts"][key] for key in ("main", "metrics")}
