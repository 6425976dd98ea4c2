"""Tasks of lm-evaluation-harness: loaded, asked, and told in the shape of :mod:`studio.evals.results`. For the worker only."""

from __future__ import annotations

import difflib
import importlib.metadata
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api import metrics as theirs
from lm_eval.evaluator import evaluate
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from studio import settings
from studio.errors import StudioError
from studio.evals import tasks as known
from studio.evals.results import Sample
from studio.jobs.files import read_json, write_json

MOST_TEXT = 20_000  # characters of a prompt or an answer that are kept
TAGS = ("category", "subject", "topic", "skill", "level", "type")
_ONE = {theirs.perplexity, theirs.weighted_perplexity, theirs.bits_per_byte, theirs.bleu, theirs.chrf, theirs.chrfpp, theirs.ter}
_SHARES = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1"}


@dataclass
class Job:
    """A task as it is asked.

    Attributes:
        name, title: As results call it.
        task: The library's own object.
        main: Metric of the tables, or empty: the first.
        docs: Questions that are asked.
    """

    name: str
    title: str
    task: Any
    main: str
    docs: int
    about: str = ""

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """How its metrics are read, as far as it is known before it is asked."""
        filters = [one.name for one in self.task._filters]
        return {name if len(filters) == 1 else f"{name},{one}": {"higher_is_better": bool(better)} | (
            {"low": 0.0, "high": 1.0} if name in _SHARES else {}) for name, better in self.task.higher_is_better().items()
            for one in filters}

    @property
    def likelihood(self) -> bool:
        """Whether it needs the likelihood of given texts."""
        return self.task.OUTPUT_TYPE != "generate_until"


def load(recipe: Any, ctx: Any) -> tuple[list[Job], dict[str, Any]]:
    """The tasks of a recipe, each with its data, and the groups whose scores are means of theirs.

    Raises:
        StudioError: in ``tasks``: unknown, broken, or without data.
    """
    made: dict[str, Job] = {}
    groups: dict[str, Any] = {}
    for found in known.all_of(recipe.tasks):
        for name, task in _loaded(found, recipe, groups).items():
            if getattr(task, "UNSAFE_CODE", False) and not recipe.confirm_run_unsafe_code:
                raise StudioError(f"The task {name} runs programs that the models write.", "Turn on 'Run the models' code'; it is "
                                  "confined to the sandbox.", "confirm_run_unsafe_code")
            _set(task, recipe)
            line = known.line(found) if found.path else known.line(known.Found(name, "harness"))
            docs = get_sample_size(task, recipe.limit) or len(task.eval_docs)
            made.setdefault(name, Job(name, line["title"], task, line["main"], min(docs, len(task.eval_docs)), line["about"]))
        if ctx.stop_requested:
            break
    return list(made.values()), {name: group for name, group in groups.items() if group.has_aggregation}


def _loaded(found: known.Found, recipe: Any, groups: dict[str, Any]) -> dict[str, Any]:
    try:
        if found.path is None:
            loaded = _manager(found.name).load([found.name])
            groups |= loaded.get("groups", {})
            return loaded["tasks"]
        config = load_yaml(found.path)
        if "class" in config or "group" in config:
            loaded = TaskManager(include_path=str(found.path.parent), include_defaults=False).load([str(found.path)])
            return loaded["tasks"]
        _nearby(config, found.path)
        [task] = TaskManager(include_defaults=False).load([config])["tasks"].values()
        return {found.name: task}
    except StudioError:
        raise
    except Exception as err:
        raise _no_data(found.name, err) from err


def _nearby(config: dict[str, Any], path: Path) -> None:
    """Places of local data files hold wherever the job runs; beside the YAML unless they are absolute."""
    told = config.get("dataset_kwargs") or {}

    def placed(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: placed(one) for key, one in part.items()}
        if isinstance(part, list):
            return [placed(one) for one in part]
        return str(path.parent / part) if isinstance(part, str) and (path.parent / part).is_file() else part

    if "data_files" in told:
        config["dataset_kwargs"] = told | {"data_files": placed(told["data_files"])}
        for file in known.data_files(path, config):
            if not file.is_file():
                raise StudioError(f"The data of the task {path.stem} are gone: {file.name}.", "Put the file back, or leave the task "
                                  "out.", "tasks")
            if not file.stat().st_size:
                raise StudioError(f"The task {path.stem} has no question: {file.name} is empty.",
                                  "Fill the file, or leave the task out.", "tasks")


def _set(task: Any, recipe: Any) -> None:
    """What ``simple_evaluate`` sets in a task before it is asked."""
    given = {} if recipe.max_gen_toks is None else {"max_gen_toks": recipe.max_gen_toks}
    if (given := given | recipe.gen_kwargs) and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=given, update=True)
    shots = task.get_config("num_fewshot")
    if recipe.num_fewshot is not None and shots != 0:
        task.set_config(key="num_fewshot", value=recipe.num_fewshot)
    elif shots is None:
        task.set_config(key="num_fewshot", value=0)


def _manager(name: str) -> TaskManager:
    """A manager that knows the harness's own tasks.

    The library reads its 14,000 files for that, which takes many seconds; what it found is kept in the workspace.

    Raises:
        StudioError: it has no task of that name.
    """
    import lm_eval

    folder = Path(lm_eval.__file__).parent / "tasks"
    kept = settings.home() / "cache" / f"lm_eval-{importlib.metadata.version('lm_eval')}.json"
    table = (read_json(kept) or {}).get("tasks")
    if not table:
        index = TaskIndex.build([folder])
        table = {key: [one.kind.name, one.yaml_path and str(one.yaml_path.relative_to(folder)), sorted(one.tags)]
                 for key, one in index.items()}
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, {"tasks": table})
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3)
        raise StudioError(f"lm-evaluation-harness has no task '{name}'.",
                          f"Did you mean {' or '.join(near)}?" if near else "See its list of tasks.", "tasks")
    manager = TaskManager(include_defaults=False)
    manager._index = {key: Entry(key, Kind[kind], folder / path if path else None, None, set(tags))
                      for key, (kind, path, tags) in table.items()}
    return manager


def _no_data(name: str, err: Exception) -> StudioError:
    """Why a task cannot be loaded, in a person's words."""
    text = " ".join(str(err).split())[:300] or type(err).__name__
    if isinstance(err, (ConnectionError, FileNotFoundError)) or "Couldn't" in text or "offline" in text.lower():
        return StudioError(f"The data of the task {name} cannot be had: {text}", "It is read from the Hub or a file; check the "
                           "connection, log in where the data are gated, or choose a task whose data are here.", "tasks")
    if isinstance(err, ImportError):
        return StudioError(f"The task {name} needs a package that is not here: {text}", "Install it, or leave the task out.", "tasks")
    if isinstance(err, IndexError) or "did not find any docs" in text:
        return StudioError(f"The task {name} has no question.", "Give its file rows, or leave the task out.", "tasks")
    return StudioError(f"The task {name} cannot be loaded: {type(err).__name__}: {text}", "Correct its YAML file, or leave it out.",
                       "tasks")


def ask(job: Job, lm: Any, recipe: Any, templated: bool) -> dict[str, Any]:
    """Ask a model all questions of a task.

    Args:
        templated: In the model's chat template.

    Returns:
        ``{"samples": [Sample], "scores": {metric: (value, error)}, "metrics": {metric: how it is read}, "main"}``.
    """
    import random

    import torch

    random.seed(recipe.random_seed)
    np.random.seed(recipe.numpy_random_seed)
    torch.manual_seed(recipe.torch_random_seed)
    job.task.set_fewshot_seed(seed=recipe.fewshot_random_seed)
    try:
        found = evaluate(lm, {"tasks": {job.task.task_name: job.task}}, limit=recipe.limit, bootstrap_iters=recipe.bootstrap_iters,
                         system_instruction=recipe.system_instruction or None, apply_chat_template=templated,
                         fewshot_as_multiturn=recipe.fewshot_as_multiturn,
                         confirm_run_unsafe_code=recipe.confirm_run_unsafe_code)
    finally:
        instances, job.task._instances = job.task._instances, None
    figures = found["results"][job.task.task_name]
    filters = list(dict.fromkeys(key.split(",", 1)[1] for key in figures if "," in key))
    scores = {}
    for key, value in figures.items():
        if "," not in key or "_stderr," in key:
            continue
        metric, one = key.split(",", 1)
        error = figures.get(f"{metric}_stderr,{one}")
        scores[metric if len(filters) == 1 else key] = (float(value), float(error) if isinstance(error, (int, float)) else None)
    better = job.task.higher_is_better()
    read = {name: {"higher_is_better": bool(better.get(name.split(",")[0], True))} | (
        {"low": 0.0, "high": 1.0} if name.split(",")[0] in _SHARES or _share(name, found, job) else {}) for name in scores}
    main = next((name for name in scores if name.split(",")[0] == job.main), next(iter(scores), job.main))
    return {"samples": _samples(job, found["samples"][job.task.task_name], filters), "scores": scores, "metrics": read, "main": main,
            "requests": len(instances or []), "figures": {key: value for key, value in figures.items() if not callable(value)}}


def group_scores(group: Any, figures: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Metric -> (value, standard error) of a group, as the library draws them together; empty while one of its tasks is missing.

    Args:
        figures: Task -> what :func:`ask` gave under this name.
    """
    if not {task.task_name for task in group.get_all_tasks()} <= figures.keys():
        return {}
    found = group.aggregate(figures)
    made = {}
    for key, value in found.items():
        if "," in key and "_stderr," not in key and isinstance(value, (int, float)):
            metric, one = key.split(",", 1)
            error = found.get(f"{metric}_stderr,{one}")
            made[metric if one == "none" else key] = (float(value), float(error) if isinstance(error, (int, float)) else None)
    return made


def _share(name: str, found: Any, job: Job) -> bool:
    """Whether a metric is a share: a mean of values from 0 to 1."""
    metric = name.split(",")[0]
    if job.task.aggregation().get(metric) is not theirs.mean:
        return False
    return all(isinstance(line.get(metric), (int, float, bool, np.number)) and 0 <= line[metric] <= 1
               for line in found["samples"][job.task.task_name] if metric in line)


def _samples(job: Job, lines: list[dict[str, Any]], filters: list[str]) -> list[Sample]:
    """The answers, one a question, the filters of a task together."""
    made: dict[Any, Sample] = {}
    seen: dict[str, int] = {}
    for line in lines:
        if line["doc_id"] not in made:
            doc = line["doc"] if isinstance(line["doc"], dict) else {}
            own = doc.get("id")
            name = str(own) if isinstance(own, (str, int)) and str(own) else line["doc_hash"][:16]
            seen[name] = seen.get(name, 0) + 1  # equal questions are told apart by their order
            made[line["doc_id"]] = _sample(job, line, doc, name if seen[name] == 1 else f"{name}~{seen[name]}")
        sample = made[line["doc_id"]]
        for metric in line["metrics"]:
            if (value := _number(job, metric, line[metric])) is not None:
                sample.scores[metric if len(filters) == 1 else f"{metric},{line['filter']}"] = value
        if job.task.OUTPUT_TYPE == "generate_until" and (taken := str(line["filtered_resps"][0])) != sample.answer:
            sample.more.setdefault("taken", {})[line["filter"]] = taken[:MOST_TEXT]
    return list(made.values())


def _sample(job: Job, line: dict[str, Any], doc: dict[str, Any], name: str) -> Sample:
    arguments, kind = line["arguments"], job.task.OUTPUT_TYPE
    tags, more, target = _tags(doc), {}, line["target"]
    if kind == "multiple_choice":
        choices = job.task.doc_to_choice(doc)
        values = [float(one[0][0]) for one in line["resps"][:len(choices)]]
        texts = [str(one) for one in choices]
        prompt = arguments[0][0]
        if job.task.multiple_input:  # the options stand in the prompt, the same words follow
            prompt, target = "\n".join(one[0] for one in arguments[:len(choices)]), job.task.doc_to_text(doc)
        answer = texts[int(np.argmax(values))]
        more["options"] = [[text, value] for text, value in zip(texts, values, strict=False)]
        picked = [target] if not isinstance(target, list) else target
        target = " | ".join(texts[one] if isinstance(one, int) and 0 <= one < len(texts) else str(one) for one in picked)
    elif kind == "loglikelihood":
        prompt, target = arguments[0][0], arguments[0][1]
        value, greedy = line["resps"][0][0]
        answer, more["loglikelihood"] = (target if greedy else ""), float(value)
    elif kind == "loglikelihood_rolling":
        prompt, answer, target = arguments[0][0], "", ""
        more["loglikelihood"] = float(line["resps"][0][0])
    else:
        prompt, answer = arguments[0][0], str(line["resps"][0][0])
        if len(line["resps"][0]) > 1:
            more["answers"] = [str(one)[:MOST_TEXT] for one in line["resps"][0]]
        target = " | ".join(map(str, target)) if isinstance(target, list) else str(target)
    return Sample(name, str(prompt)[-MOST_TEXT:], answer[:MOST_TEXT], str(target)[:MOST_TEXT], {}, tags, more)


def _tags(doc: dict[str, Any]) -> dict[str, str]:
    found = doc.get("tags")
    if isinstance(found, dict):
        return {str(key): str(value) for key, value in found.items() if value is not None}
    made = {"tag": str(found) if isinstance(found, str) else ", ".join(map(str, found))} if found else {}
    return made | {key: str(doc[key]) for key in TAGS if isinstance(doc.get(key), (str, int)) and len(str(doc[key])) <= 60}


def _number(job: Job, metric: str, value: Any) -> float | None:
    """What one answer adds to a metric, as a number of the same kind as the metric of the whole task."""
    aggregate = job.task.aggregation().get(metric)
    if aggregate in _ONE or getattr(aggregate, "__name__", "") == "bleu":  # the second: of a benchmark with words of another script
        try:
            value = aggregate([value])
        except (ValueError, OverflowError, ZeroDivisionError):
            return None
    if not isinstance(value, (int, float, np.number, bool)):
        return None
    return float(value) if math.isfinite(value) else None
