"""eval/analyse: where models fail. Failures of finished evaluations by tag, length, topic and kind of error, side by side."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from pydantic import field_validator

from studio import settings
from studio.errors import StudioError
from studio.evals import finished
from studio.evals.kinds import KINDS, kind_of
from studio.jobs.files import read_json, write_json
from studio.method import Method
from studio.recipe import Recipe, field

FILE, FAILURES, VERSION = "analysis.json", "failures.jsonl", 1
MOST_RUNS, MOST_SIDES = 8, 12
LENGTHS = 4  # groups by length
SURE = 0.05  # chance, over all groups together, that a group stands out by accident
_ROLES = re.compile(r"^(system|user|assistant|tool): ", re.MULTILINE)
_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant|tool)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)


class AnalyseRecipe(Recipe):
    """Which evaluations, and how failures are grouped."""

    kind: ClassVar[str] = "eval"
    method: ClassVar[str] = "analyse"

    runs: list[str] = field([], "Evaluations", "Finished evaluations whose failures are grouped; two of them, or one of several "
                            "models, are shown side by side.", max_length=MOST_RUNS, placeholder="run:rabcdefghij")
    models: list[str] = field([], "Only these models", "References of the models to look at; with none, all of them.", group="advanced",
                              max_length=MOST_SIDES)
    tasks: list[str] = field([], "Only these tasks", "Names of the tasks to look at; with none, all of them.", group="advanced",
                             max_length=200)
    threshold: float = field(0.5, "Failed below", "An answer whose score, from 0 to 1, is lower has failed.", ge=0.0, le=1.0)
    worst: float = field(0.25, "Worst part", "Where scores have no such scale, such as a loss, this share of the answers "
                         "counts as failed: the worst.", group="advanced", gt=0.0, le=0.9)
    smallest: int = field(3, "Smallest group", "Groups with fewer questions are not shown.", group="advanced", unit="questions", ge=1,
                          le=1000)
    topics: int | None = field(None, "Topics", "Into how many topics the questions are sorted; left empty, as many as fit "
                               "best. 1 sorts none.", ge=1, le=40)
    embedding: str = field("", "Embedding model", "Folder of a static embedding model on this disk, as model2vec saves it. Without "
                           "one the words of the questions decide.", group="advanced", max_length=1000,
                           placeholder="models/potion-base-8M")
    seed: int = field(0, "Seed", "Where the search for topics begins.", group="advanced", ge=0, le=2**31 - 1)

    @field_validator("runs")
    @classmethod
    def _references(cls, value: list[str]) -> list[str]:
        return [run if not run or ":" in run else f"run:{run}" for run in value]


class Analyse(Method):
    """Failures in groups."""

    title = "Error analysis"
    summary = "Sorts the failed answers of evaluations by tag, length, topic and kind of error, and says which groups stand out."
    Recipe = AnalyseRecipe
    others: ClassVar = {"runs": "evaluation"}  # on a Space they must be one's own

    @classmethod
    def check(cls, recipe: AnalyseRecipe) -> None:
        opened(recipe.runs)
        folder_of(recipe.embedding)

    @classmethod
    def run(cls, recipe: AnalyseRecipe, ctx: Any) -> dict[str, Any]:
        evaluations = opened(recipe.runs)
        sides = sides_of(evaluations, recipe.models)
        questions, rules = gathered(evaluations, sides, recipe)
        if not questions:
            raise StudioError("These evaluations have no scored answers to look at.", "Choose others, or other tasks.", "runs")
        ctx.log(f"{len(questions):,} questions, {sum(bool(q['failed']) for q in questions):,} of them failed by at least one model.")
        for task, rule in rules.items():
            ctx.log(f"{task}: failed is {rule['words']}.")
        if ctx.stop_requested:
            return {}
        topics = _topics(questions, recipe, ctx)
        groups = grouped(questions, sides, topics, recipe.smallest, {task: rule["title"] for task, rule in rules.items()})
        ctx.progress(1, 1)
        return _write(recipe, ctx, sides, questions, groups, rules, topics)


def opened(runs: list[str]) -> list[finished.Evaluation]:
    """The evaluations that ``run:ID`` references name.

    Raises:
        StudioError: in ``runs``: none given, one twice, or one without results.
    """
    if not runs:
        raise StudioError("No evaluation is chosen.", "Choose one or two finished ones.", "runs")
    if len(set(runs)) < len(runs):
        raise StudioError("One evaluation is listed twice.", "Remove one of the two.", "runs")
    try:
        return [finished.opened(ref.removeprefix("run:")) for ref in runs]
    except StudioError as err:
        raise StudioError(err.message, err.hint, "runs") from err


def folder_of(name: str) -> Path | None:
    """Folder of the embedding model, checked; ``None`` without one."""
    if not name:
        return None
    from studio.datasets import embedding

    path = Path(name).expanduser()
    path = path if path.is_absolute() else settings.inside_home(path)
    try:
        if not path.is_dir():
            raise StudioError(f"There is no folder {name}.", "Choose a folder of this disk, or leave it empty.")
        embedding.check(path)
    except StudioError as err:
        raise StudioError(err.message, err.hint, "embedding") from err
    return path


def sides_of(evaluations: list[finished.Evaluation], only: list[str]) -> list[dict[str, Any]]:
    """``{run, model, ref, label, at}`` of every model of every evaluation that is looked at; labels differ.

    Raises:
        StudioError: none is left, or too many (``models``).
    """
    found = [{"run": one.id, "model": number, "ref": model["ref"], "label": model["label"], "at": at}
             for at, one in enumerate(evaluations) for number, model in enumerate(one.models) if not only or model["ref"] in only]
    if not found:
        raise StudioError("None of these models was asked.", "Leave the models empty to see all.", "models")
    if len(found) > MOST_SIDES:
        raise StudioError(f"{len(found)} models are too many to see side by side.", f"Choose {MOST_SIDES} at most.", "models")
    twice = {label for label, n in Counter(one["label"] for one in found).items() if n > 1}
    for side in found:
        if side["label"] in twice:
            run = evaluations[side["at"]].run
            side["label"] += f" · {run['name'] or run['id']}"
    return found


def gathered(evaluations: list[finished.Evaluation], sides: list[dict[str, Any]],
             recipe: AnalyseRecipe) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Every question with the answers of all sides, and the rule of each task that says what has failed.

    A question: ``{task, id, prompt, question, messages?, target, tags, answers: [{side, answer, score, failed, kind}], failed: [sides]}``.
    """
    rules: dict[str, dict[str, Any]] = {}
    made: list[dict[str, Any]] = []
    tasks = dict.fromkeys(task for one in evaluations for task in one.tasks if not recipe.tasks or task in recipe.tasks)
    for task in tasks:
        facts = next(one.tasks[task] for one in evaluations if task in one.tasks)
        lines = [(number, line) for number, side in enumerate(sides) for line in evaluations[side["at"]].answers(side["model"], task)
                 if math.isfinite(line["scores"].get(facts["main"], math.nan))]
        if not lines:
            continue
        rules[task] = rule = _rule(facts, [line["scores"][facts["main"]] for _, line in lines], recipe)
        asked: dict[str, dict[str, Any]] = {}
        shared = common(list({line["prompt"] for _, line in lines}))
        for number, line in lines:
            question = asked.setdefault(line["id"], {"task": task, "id": line["id"], **wording(line, shared), "target": line["target"],
                                                     "tags": line["tags"], "answers": [], "failed": []})
            score = line["scores"][facts["main"]]
            failed = score < rule["limit"] if rule["below"] else score > rule["limit"]
            answer = {"side": number, "answer": line["answer"], "score": score, "failed": failed}
            if failed:
                answer["kind"] = kind_of(line["answer"], line["target"], line["more"], question["question"])
                question["failed"].append(number)
            question["answers"].append(answer)
        made += asked.values()
    return made, rules


def _rule(facts: dict[str, Any], scores: list[float], recipe: AnalyseRecipe) -> dict[str, Any]:
    how = facts["metrics"].get(facts["main"], {})
    below = how.get("higher_is_better", True)
    told = {"title": facts["title"], "metric": facts["main"], "below": below}
    if how.get("low") == 0.0 and how.get("high") == 1.0:
        limit = recipe.threshold if below else 1 - recipe.threshold
        return told | {"limit": limit, "share": True, "words": f"{facts['main']} {'below' if below else 'above'} {limit:g}"}
    ranked = sorted(scores, reverse=not below)
    limit = ranked[min(len(ranked) - 1, math.ceil(recipe.worst * len(ranked)))]
    return told | {"limit": limit, "share": False,
                   "words": f"the worst {recipe.worst:.0%} of the answers, {facts['main']} {'below' if below else 'above'} {limit:.4g}"}


def common(prompts: list[str]) -> tuple[int, int]:
    """How many characters all prompts of a task begin and end with: instructions, examples and signs of a template, which say nothing
    of one question."""
    if len(prompts) < 2:
        return 0, 0
    start, end = os.path.commonprefix(prompts), os.path.commonprefix([prompt[::-1] for prompt in prompts])[::-1]
    cut = max(start.rfind("\n") + 1, start.rfind(">") + 1)  # not amid the words of the question
    end = end[min((place for sign in ("\n", "<") if (place := end.find(sign)) >= 0), default=len(end)):]
    return cut, min(len(end), min(map(len, prompts)) - cut)


def wording(line: dict[str, Any], shared: tuple[int, int]) -> dict[str, Any]:
    """``{prompt, question, messages?}``: what was asked, without what all questions share."""
    prompt, more = line["prompt"], line.get("more") or {}
    messages = more.get("messages") or turns(prompt)
    asked = [turn for turn in messages if turn.get("role") == "user"]
    own = prompt[shared[0]:len(prompt) - shared[1]]
    question = more.get("question") or (str(asked[-1].get("content") or "") if asked else own)
    return {"prompt": prompt, "question": str(question).strip() or prompt.strip()} | ({"messages": messages} if messages else {})


def turns(prompt: str) -> list[dict[str, str]]:
    """The messages of a chat that was written out as text; an empty list where it is none."""
    if "<|im_start|>" in prompt:
        found = [{"role": role, "content": text.strip()} for role, text in _CHATML.findall(prompt)]
    elif _ROLES.match(prompt):
        parts = _ROLES.split(prompt)[1:]
        found = [{"role": role, "content": text.strip()} for role, text in zip(parts[::2], parts[1::2], strict=True)]
    else:
        return []
    while found and (found[-1]["role"] == "assistant" or not found[-1]["content"]):
        found.pop()
    return found


def _topics(questions: list[dict[str, Any]], recipe: AnalyseRecipe, ctx: Any) -> dict[str, Any] | None:
    from studio.evals import topics

    ctx.progress(0.3, 1)
    found = topics.found([q["question"][-2000:] for q in questions], recipe.topics, folder_of(recipe.embedding), recipe.seed)
    if found:
        by = "meaning" if found["by"] == "embedding" else "their words, as no embedding model is chosen"
        ctx.log(f"{len(found['names'])} topics by {by}: {'; '.join(found['names'])}.")
    return found


def grouped(questions: list[dict[str, Any]], sides: list[dict[str, Any]], topics: dict[str, Any] | None,
            smallest: int, titles: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Groups with at least one failure, those that stand out first, then by how many more fail than elsewhere. Each question gets the ids
    of its groups."""
    members: dict[tuple[str, str], list[dict[str, Any]]] = {}
    several = len({q["task"] for q in questions}) > 1
    for number, question in enumerate(questions):
        keys = [("tag", f"{name}: {value}") for name, value in question["tags"].items()]
        keys += [("task", question["task"])] if several else []
        keys += [("topic", topics["names"][topics["labels"][number]])] if topics else []
        keys += [("kind", kind) for kind in {answer["kind"] for answer in question["answers"] if answer["failed"]}]
        question["groups"] = keys
    for question, name in zip(questions, lengths([len(q["question"]) for q in questions]), strict=True):
        if name:
            question["groups"].append(("length", name))
    for question in questions:
        for key in question["groups"]:
            members.setdefault(key, []).append(question)
    made = [_group(key, own, questions, sides) for key, own in members.items()
            if len(own) >= smallest and (key[0] == "kind" or len(own) < len(questions))]
    made = [group for group in made if group["failed"]]
    tested = sum(group["p"] is not None for group in made)
    for group in made:
        group["title"] = (titles or {}).get(group["name"], group["title"]) if group["by"] == "task" else group["title"]
        group["stands_out"] = group["p"] is not None and group["p"] * tested < SURE
    made.sort(key=lambda g: (not g["stands_out"], -(g["rate"] - g["others"]) if g["others"] is not None else 0, -g["failed"], g["name"]))
    ids = {(group["by"], group["name"]): f"g{number}" for number, group in enumerate(made)}
    for group in made:
        group["id"] = ids[group["by"], group["name"]]
    for question in questions:
        question["groups"] = [ids[key] for key in question["groups"] if key in ids]
    return made


def _group(key: tuple[str, str], own: list[dict[str, Any]], questions: list[dict[str, Any]], sides: list[dict[str, Any]]) -> dict[str, Any]:
    by, name = key
    told = []
    for number in range(len(sides)):
        answers = [answer for question in own for answer in question["answers"] if answer["side"] == number]
        failures = sum(answer["failed"] and (by != "kind" or answer["kind"] == name) for answer in answers)
        told.append({"answers": len(answers), "failures": failures})
    failed, all_failed = (sum(bool(question["failed"]) for question in some) for some in (own, questions))
    rest = len(questions) - len(own)
    made = {"by": by, "name": name, "title": KINDS[name] if by == "kind" else name, "questions": len(own), "failed": failed,
            "rate": failed / len(own), "others": None, "p": None, "sides": told}
    if by == "kind":  # nobody fails without a kind, so there is nothing to compare it with
        return made | {"rate": failed / max(1, all_failed)}
    return made | {"others": (all_failed - failed) / rest, "p": more_often(failed, len(own), all_failed - failed, rest)}


def more_often(failed: int, of: int, others: int, of_others: int) -> float:
    """Fisher's exact test, one-sided: how likely so many failures fall into a group by chance (Fisher 1922)."""
    total, every = of + of_others, failed + others
    whole = _ways(total, of)
    return min(1.0, math.fsum(math.exp(_ways(every, k) + _ways(total - every, of - k) - whole)
                              for k in range(max(failed, of - (total - every)), min(of, every) + 1)))


def _ways(of: int, chosen: int) -> float:
    """Logarithm of the binomial coefficient."""
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def lengths(sizes: list[int]) -> list[str]:
    """A name for each: four groups of about the same size by the length in characters; empty where all are alike."""
    ranked = sorted(sizes)
    edges = sorted({ranked[len(ranked) * part // LENGTHS] for part in range(1, LENGTHS)} - {ranked[0]})
    if not edges or len(sizes) < 2 * LENGTHS:
        return [""] * len(sizes)
    bounds = [ranked[0], *edges, ranked[-1] + 1]
    names = [f"{low}–{high - 1} characters" for low, high in zip(bounds, bounds[1:], strict=False)]
    return [next(name for name, high in zip(names, bounds[1:], strict=False) if size < high) for size in sizes]


def _write(recipe: AnalyseRecipe, ctx: Any, sides: list[dict[str, Any]], questions: list[dict[str, Any]], groups: list[dict[str, Any]],
           rules: dict[str, Any], topics: dict[str, Any] | None) -> dict[str, Any]:
    failed = [question for question in questions if question["failed"]]
    with (ctx.output / FAILURES).open("w", encoding="utf-8") as out:
        for question in failed:
            out.write(json.dumps(question, ensure_ascii=False) + "\n")
    told = {"version": VERSION, "sides": sides, "rules": rules, "questions": len(questions), "failed": len(failed),
            "by_all": sum(len(q["failed"]) == len(q["answers"]) for q in failed), "groups": groups,
            "topics": {key: topics[key] for key in ("by", "silhouette")} if topics else None}
    write_json(ctx.output / FILE, told)
    name = recipe.name or f"Errors of {', '.join(side['label'] for side in sides)}"[:80]
    ctx.artifact("file", ctx.output, name, {"method": "eval/analyse", "groups": len(groups)}, [(ref, "analysed") for ref in recipe.runs])
    out = [group for group in groups if group["stands_out"]]
    for group in out[:5]:
        ctx.log(f"{group['by']} '{group['title']}': {group['failed']} of {group['questions']} questions failed, elsewhere {group['others']:.0%}.")
    return {"questions": len(questions), "failed": len(failed), "groups": len(groups), "stand_out": len(out)}


def read(run_id: str) -> dict[str, Any]:
    """``analysis.json`` of a finished analysis.

    Raises:
        StudioError: there is none.
    """
    found = read_json(settings.run_dir(run_id) / "output" / FILE)
    if not found or found.get("version") != VERSION:
        raise StudioError("This run has no error analysis.", "Choose a finished one, or start it.", "run")
    return found


def failures(run_id: str, group: str = "") -> list[dict[str, Any]]:
    """Failed questions of an analysis, of one group where it is given."""
    path = settings.run_dir(run_id) / "output" / FAILURES
    with path.open(encoding="utf-8") as file:
        return [line for line in map(json.loads, file) if not group or group in line["groups"]]
