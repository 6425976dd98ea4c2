"""Facts put into words and order: the sections of a report."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from studio import hardware
from studio.errors import StudioError
from studio.evals import ablation, analysis, finished, paired
from studio.evals.reporting import charts, facts, reasons
from studio.evals.reporting.blocks import (Answers, Cell, Chart, Code, Points, Section, Table, Text, duration, number, signed,
                                           value_text)

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "lm_eval", "numpy")
MOST_CURVES, MOST_GROUPS, MOST_WARNINGS = 5, 14, 8


@dataclass
class Document:
    """A report in order. ``front`` is the front matter of the model card."""

    title: str
    about: list[str]
    sections: list[Section]
    footer: str
    front: dict[str, Any]


def made(found: facts.Facts, recipe: Any, warn: Callable[[str], None] = lambda text: None) -> Document:
    """The whole report of :class:`studio.evals.report.ReportRecipe`."""
    title = recipe.title or facts.label(found, found.subject) or "Report"
    pairs = differences(found)
    sections = [_short(found, pairs), *([Section("Notes", [Text(line) for line in recipe.notes.split("\n") if line.strip()])] if recipe.notes.strip() else [])]
    sections += [_process(found), *_settings(found), *_curves(found, warn), *_scores(found), *_differences(pairs, recipe.flips), *_ablation(found),
                 *_errors(found), *_samples(found, recipe), *_warnings(found), _made_with(found)]
    sections = [section for section in sections if section.blocks or section.level == 1 and section.title == "Settings"]
    made_on = time.strftime("%d %B %Y, %H:%M")
    about = [f"Written on {made_on} from {len(found.runs)} runs of an Atelier workspace."]
    return Document(title, about, sections, f"{title} · {made_on} · Atelier", front(found, pairs))


def differences(found: facts.Facts) -> list[dict[str, Any]]:
    """``{title, base, tuned, lines}`` for each evaluation and each of its models beside the first; two evaluations of one model
    each are compared with each other."""
    told = []
    for one in found.evaluations:
        for number_ in range(1, len(one.models)):
            if lines := paired.pairs(one, 0, one, number_):
                told.append({"base": one.label(0), "tuned": one.label(number_), "ref": one.models[number_]["ref"], "lines": lines})
    single = [one for one in found.evaluations if len(one.models) == 1]
    for other in single[1:]:
        if lines := paired.pairs(single[0], 0, other, 0):
            told.append({"base": single[0].label(0), "tuned": other.label(0), "ref": other.models[0]["ref"], "lines": lines})
    return told


def _short(found: facts.Facts, pairs: list[dict[str, Any]]) -> Section:
    """What one should take away, in a few lines, the bad news included."""
    lines = []
    if found.subject:
        line = [facts.label(found, one) for one in _line_of(found, found.subject)]
        lines.append("Lineage: " + " → ".join(line) if len(line) > 1 else f"About {facts.label(found, found.subject)}.")
    for row in found.making[-3:]:
        summary = row["summary"] or {}
        if summary.get("eval_loss") is not None and summary.get("eval_loss_before") is not None:
            lines.append(f"{_name(found, row)}: validation loss {number(summary['eval_loss_before'])} before, {number(summary['eval_loss'])} after, "
                         f"in {duration(facts.seconds(row))}.")
    for pair in pairs:
        main = [line for line in pair["lines"] if line["main"]]
        sure = [line for line in main if line["sure"]]
        for word, worse in (("worse", True), ("better", False)):
            if own := [line for line in sure if line["worse"] == worse]:
                lines.append(f"{pair['tuned']} is {word} than {pair['base']} at " + "; ".join(
                    f"{line['title']} ({line['metric']} {signed(line['delta'])}, {_interval(line)})" for line in own) + ".")
        if main and not sure:
            lines.append(f"{pair['tuned']} and {pair['base']}: no difference that these questions show for certain.")
    for row, told in found.analyses:
        if out := [group for group in told["groups"] if group["stands_out"]]:
            lines.append("Failures gather at " + "; ".join(f"{group['by']} '{group['title']}' ({group['failed']} of {group['questions']})" for group in out[:4]) + ".")
    return Section("In short", [Points(lines)] if lines else [Text("These runs leave nothing to compare.", "muted")])


def _line_of(found: facts.Facts, ref: str) -> list[str]:
    line = [ref]
    while True:
        up = [edge for edge in found.edges if edge["child"] == line[0] and edge["role"] not in facts._DATA and edge["parent"] not in line]
        if not up:
            return line
        line.insert(0, next((edge["parent"] for edge in up if edge["role"] == "base"), up[0]["parent"]))


def _name(found: facts.Facts, row: dict[str, Any]) -> str:
    made_ = [one["name"] for one in found.models.values() if one["run_id"] == row["id"]]
    return row["name"] or (made_[0] if made_ else f"{_title(row)} {row['id']}")


def _title(row: dict[str, Any]) -> str:
    from studio.registry import method

    try:
        return method(row["kind"], row["method"]).title
    except StudioError:
        return f"{row['kind']}/{row['method']}"


def _process(found: facts.Facts) -> Section:
    section = Section("Process and lineage")
    if found.edges:
        depth = max(node["y"] for node in found.nodes) - min(node["y"] for node in found.nodes)
        alt = "; ".join(f"{facts.label(found, e['child'])} from {facts.label(found, e['parent'])} ({e['role']})" for e in found.edges)
        section.blocks.append(Chart(charts.lineage(found.nodes, found.edges), f"Lineage: {alt}", min(8.0, 1.5 + 0.75 * depth)))
    rows = []
    for row in found.runs:
        recipe, summary = row["recipe"] or {}, row["summary"] or {}
        read = [facts.label(found, str(ref)) for ref in [recipe.get("model"), *(recipe.get("models") or []), recipe.get("dataset")] if ref]
        device = str(summary.get("device") or "")
        rows.append([time.strftime("%d %b %H:%M", time.localtime(row["created"])), _name(found, row), _title(row), ", ".join(dict.fromkeys(read)),
                     duration(facts.seconds(row)), device or "–", Cell(row["state"], "bad" if row["state"] in ("failed", "lost") else "")])
    section.blocks.append(Table(["When", "Run", "What", "From", "Time", "Device", "State"], rows, (4,), (13, 22, 18, 26, 11, 8, 12)))
    models = [[one["name"], one["kind"], _count(one["meta"].get("parameters")), hardware.size(one["size"]),
               ", ".join(f"{facts.label(found, p['ref'])} ({p['role']})" for p in one["parents"]), ref] for ref, one in found.models.items()]
    if models:
        section.blocks.append(Table(["Model", "Kind", "Parameters", "Size", "Made from", "Reference"], models, (2, 3)))
    return section


def _count(parameters: Any) -> str:
    from studio.library.modelinfo import count

    return count(parameters) or "–"


def _settings(found: facts.Facts) -> list[Section]:
    sections = [Section("Settings", [Text("What is not the studio's default, and where it came from. Whole recipes fold out.", "muted")])]
    for row in found.runs:
        if row["method"] in ("report", "analyse") and row["kind"] == "eval":
            continue
        changed = reasons.changed(row)
        blocks: list[Any] = []
        if changed:
            blocks.append(Table(["Setting", "Value", "Default", "Why"], [[one["title"] if f"({one['name']})" in one["title"] else f"{one['title']} ({one['name']})", value_text(one["value"])[:400],
                                                                            Cell(value_text(one["default"])[:200], "muted"), one["why"]] for one in changed],
                                wide=(30, 28, 18, 24)))
        else:
            blocks.append(Text("Every setting is the default.", "muted"))
        if told := reasons.estimated(row) if row["kind"] in facts.MAKES else "":
            blocks.append(Text(told, "muted"))
        blocks.append(Code("The whole recipe", _yaml(row)))
        sections.append(Section(f"{_name(found, row)} · {_title(row)}", blocks, 2))
    return sections if len(sections) > 1 else []


def _yaml(row: dict[str, Any]) -> str:
    from studio.recipe import parse, write_yaml

    try:
        return parse(row["recipe"]).to_yaml(only_changed=True)
    except StudioError:
        return write_yaml(row["recipe"] or {})


def _curves(found: facts.Facts, warn: Callable[[str], None]) -> list[Section]:
    sections = []
    validation: list[tuple[str, list, str]] = []
    for row in found.making:
        told, blocks = facts.curves(row), []
        color = charts.SERIES[len(validation) % len(charts.SERIES)]
        if told.get("eval_loss"):
            validation.append((_name(found, row), told["eval_loss"], color))
        bases = dict.fromkeys(name.removeprefix("eval_") for name in told)
        shown = [name for name in ("loss", "reward", "rewards/margins", "rewards/accuracies", "mean_token_accuracy", "accuracy") if name in bases]
        for base in shown[:MOST_CURVES]:
            lines = [(label, told[name], color_) for name, label, color_ in ((base, "training", charts.SERIES[0]),
                                                                             (f"eval_{base}", "validation", charts.SERIES[1])) if told.get(name)]
            ends = "; ".join(f"{label} {number(points[0][1])} at step {points[0][0]:g}, {number(points[-1][1])} at step {points[-1][0]:g}"
                             for label, points, _ in lines)
            title = "Loss" if base == "loss" else base.replace("_", " ").capitalize()
            blocks += [Chart(charts.curves(lines, title), f"{title}: {ends}", 2.5), Text(f"{title}: {ends}.", "muted")]
        if blocks:
            sections.append(Section(_name(found, row), blocks, 2))
        elif row["kind"] in ("pretrain", "sft", "align"):
            warn(f"{_name(found, row)} has no curve: its events are not there.")
    if len(validation) > 1:
        sections.insert(0, Section("Validation loss of all runs", [Chart(charts.curves(validation, "Validation loss"), "Validation loss of all runs", 2.8)], 2))
    return [Section("Training and validation", [Text("What each run measured while it learned.", "muted")]), *sections] if sections else []


def _scores(found: facts.Facts) -> list[Section]:
    sections = []
    for one in found.evaluations:
        names = [(task, metric) for task, about in one.tasks.items() for metric in about["metrics"]]
        rows = []
        for task, metric in names:
            scores = [one.score(place, task, metric) for place in range(len(one.models))]
            if not any(score and score["value"] is not None for score in scores):
                continue
            higher = one.tasks[task]["metrics"][metric].get("higher_is_better", True)
            known = [score["value"] for score in scores if score and score["value"] is not None]
            best = (max if higher else min)(known) if len(set(known)) > 1 else None
            count = next((score["n"] for score in scores if score and score["n"]), None)
            rows.append([one.tasks[task]["title"], metric + ("" if higher else " ↓"), number(count),
                         *(Cell(_with_error(score), "best" if score and score["value"] == best and best is not None else "") for score in scores)])
        if not rows:
            continue
        blocks: list[Any] = [Table(["Task", "Metric", "Questions", *(model["label"] for model in one.models)], rows,
                                   (2, *range(3, 3 + len(one.models))))]
        if any("↓" in row[1] for row in rows):
            blocks.append(Text("↓: less is better. ±: standard error.", "muted"))
        shares = [(task, about) for task, about in one.tasks.items() if _is_share(about)]
        if shares and len(one.models) * len(shares) <= 80:
            groups = [(model["label"], [_value(one, place, task, about["main"], "value") for task, about in shares],
                       [_value(one, place, task, about["main"], "stderr") for task, about in shares]) for place, model in enumerate(one.models)]
            blocks.append(Chart(charts.bars([about["title"] for _, about in shares], groups, "Main scores with standard errors", 1.0),
                                "Main scores as bars; the numbers stand in the table", 3.2))
        sections.append(Section(_name(found, one.run), blocks, 2))
    return [Section("Scores", [Text("Each model on the same questions; the best of a line is bold.", "muted")]), *sections] if sections else []


def _is_share(about: dict[str, Any]) -> bool:
    how = about["metrics"].get(about["main"], {})
    return how.get("low") == 0.0 and how.get("high") == 1.0


def _value(one: finished.Evaluation, model: int, task: str, metric: str, key: str) -> float | None:
    score = one.score(model, task, metric)
    return score[key] if score else None


def _with_error(score: dict[str, Any] | None) -> str:
    if not score or score["value"] is None:
        return "–"
    return number(score["value"]) + (f" ± {number(score['stderr'], 2)}" if score["stderr"] is not None else "")


def _interval(line: dict[str, Any]) -> str:
    return "no interval" if line["low"] is None else f"{signed(line['low'])} to {signed(line['high'])}"


def _differences(pairs: list[dict[str, Any]], flips: int) -> list[Section]:
    sections = []
    for pair in pairs:
        rows, examples = [], []
        for line in pair["lines"]:
            tone = "" if not line["sure"] else "bad" if line["worse"] else "good"
            p = "–" if line["p"] is None else f"{line['p']:.3f}" if line["p"] >= 0.001 else "< 0.001"
            rows.append([line["title"], line["metric"], number(line["a"]), number(line["b"]), Cell(signed(line["delta"]), tone), _interval(line), p,
                         f"{line['better_answers']} / {line['worse_answers']}"])
            if line["main"]:
                for kind in ("worse", "better"):
                    own = [flip for flip in line["flips"] if flip["kind"] == kind][:flips]
                    share = all(flip["a_score"] in (0, 1) and flip["b_score"] in (0, 1) for flip in own)
                    examples += [Answers(_readable(flip["prompt"]), flip["target"], [(pair["base"], flip["a"], bool(flip["a_score"]) if share else None),
                                                                          (pair["tuned"], flip["b"], bool(flip["b_score"]) if share else None)],
                                         f"{line['title']}: {kind} ({line['metric']} {number(flip['a_score'])} → {number(flip['b_score'])})") for flip in own]
        blocks: list[Any] = [Table(["Task", "Metric", pair["base"], pair["tuned"], "Difference", "95 % interval", "p", "Better / worse"], rows,
                                   (2, 3, 4, 5, 6, 7))]
        shown = [(f"{line['title']} · {line['metric']}", line["delta"], line["low"], line["high"], line["worse"]) for line in pair["lines"]
                 if line["low_bound"] == 0.0 and line["high_bound"] == 1.0][:30]
        if shown:
            blocks.append(Chart(charts.forest(shown, f"{pair['tuned']} against {pair['base']}"), "Differences with their intervals; the numbers stand in the table",
                                0.9 + 0.26 * len(shown)))
        sections.append(Section(f"{pair['tuned']} against {pair['base']}", blocks, 2))
        if examples:
            sections.append(Section("Answers that changed", examples, 2))
    about = ("Paired: both models answered the same questions. The interval is of the difference, by 2,000 bootstrap samples of the questions; p of "
             "no difference is by the exact McNemar test for right and wrong, and by random signs else. Coloured where the interval leaves out zero.")
    return [Section("Differences", [Text(about, "muted")]), *sections] if sections else []


def _ablation(found: facts.Facts) -> list[Section]:
    """What changed in the recipe and in the score, where several runs of one kind are told of."""
    rows = [row for row in found.making if row["kind"] in ("sft", "align", "pretrain") and row["state"] == "succeeded"]
    if len(rows) < 2:
        return []
    made_ = {row["id"]: [ref for ref, one in found.models.items() if one["run_id"] == row["id"]] for row in rows}
    told = ablation.table(rows, found.evaluations[::-1], made_, {row["id"]: _name(found, row) for row in rows})
    head = ["", *(entry["label"] for entry in told["entries"])]
    lines: list[list[Any]] = [[one["title"], *(value_text(value)[:60] for value in one["values"])] for one in told["fields"]]
    for score in told["scores"]:
        name = f"{score['title']} {score['metric']}".strip() + ("" if score["higher_is_better"] else " ↓")
        lines.append([name, *(Cell("–" if not one else number(one["value"]), "best" if place == score["best"] else "bad" if one and one.get("sure") and one["worse"] else "")
                              for place, one in enumerate(score["values"]))])
    return [Section("What changed", [Text("Settings that are not the same in all trainings, and their scores. The first is what the others are compared with.", "muted"),
                                     Table(head, lines, tuple(range(1, len(head))))])]


def _errors(found: facts.Facts) -> list[Section]:
    sections = []
    for row, told in found.analyses:
        labels = [side["label"] for side in told["sides"]]
        rows = [[Cell(group["title"], "bad" if group["stands_out"] else ""), group["by"], number(group["questions"]),
                 *(f"{side['failures']} of {side['answers']}" for side in group["sides"]), f"{group['rate']:.0%}",
                 "–" if group["others"] is None else f"{group['others']:.0%}"] for group in told["groups"][:MOST_GROUPS]]
        rules = "; ".join(f"{rule['title']}: {rule['words']}" for rule in told["rules"].values())
        blocks: list[Any] = [Text(f"{told['failed']:,} of {told['questions']:,} questions were failed by at least one model, {told['by_all']:,} by all. Failed is: {rules}.")]
        if rows:
            blocks.append(Table(["Group", "By", "Questions", *labels, "Failed", "Elsewhere"], rows, tuple(range(2, 5 + len(labels)))))
        if any(group["stands_out"] for group in told["groups"]):
            blocks.append(Text("Red: fails more often than elsewhere by more than chance (Fisher's exact test, for all groups together at 5 %).", "muted"))
        sections.append(Section(_name(found, row), blocks, 2))
    return [Section("Errors", [Text("Failed answers in groups.", "muted")]), *sections] if sections else []


def _samples(found: facts.Facts, recipe: Any) -> list[Section]:
    sections = []
    draw = random.Random(recipe.seed)
    for one in found.evaluations:
        asked: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        for line in one.answers():
            asked.setdefault((line["task"], line["id"]), {})[line["model"]] = line
        keys = [key for key, answers in asked.items() if any(answer["answer"] for answer in answers.values())]
        blocks = []
        for key in sorted(draw.sample(keys, min(recipe.samples, len(keys)))):
            answers = asked[key]
            about = one.tasks[key[0]]
            first = next(iter(answers.values()))
            told = [(one.label(place), line["answer"][:4000], _right(line, about)) for place, line in sorted(answers.items())]
            blocks.append(Answers(_readable(first["prompt"])[-4000:], first["target"], told, about["title"]))
        if blocks:
            sections.append(Section(_name(found, one.run), blocks, 2))
    for row in found.making:
        samples = [sample for sample in facts.said(row)["samples"] if sample.get("prompt")]
        last = {sample["prompt"]: sample for sample in samples}
        first = {sample["prompt"]: sample for sample in reversed(samples)}
        blocks = [Answers(prompt, "", [(f"step {one['step']}", one.get("text", ""), None) for one in ([first[prompt]] if first[prompt] is not end else []) + [end]])
                  for prompt, end in list(last.items())[:recipe.samples]]
        if blocks:
            sections.append(Section(f"While learning: {_name(found, row)}", blocks, 2))
    return [Section("Samples", [Text(f"Drawn by seed {recipe.seed}, not chosen.", "muted")]), *sections] if sections else []


def _readable(prompt: str) -> str:
    """A chat by its roles, without the signs of its template; anything else as it is."""
    turns = analysis.turns(prompt)
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns) if turns else prompt


def _right(line: dict[str, Any], about: dict[str, Any]) -> bool | None:
    score = line["scores"].get(about["main"])
    return bool(score) if _is_share(about) and score in (0, 1) else None


def _warnings(found: facts.Facts) -> list[Section]:
    lines = []
    for row in found.runs:
        lines += [f"{_name(found, row)}: {one['message']} {one.get('hint') or ''}".strip() for one in facts.said(row)["warnings"][:MOST_WARNINGS]]
        if row["state"] in ("failed", "lost") and row["reason"]:
            lines.append(f"{_name(found, row)} {row['state']}: {row['reason']}")
    return [Section("What the studio warned of", [Points(lines)])] if lines else []


def _made_with(found: facts.Facts) -> Section:
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    seeds = {_name(found, row): row["recipe"].get("seed") for row in found.runs if (row["recipe"] or {}).get("seed") is not None}
    lines = [f"Libraries when this was written: {', '.join(versions)}.", *([f"Seeds: {', '.join(f'{name}: {seed}' for name, seed in seeds.items())}."] if seeds else []),
             f"Runs: {', '.join(row['id'] for row in found.runs)}."]
    return Section("Made with", [Points(lines)])


def front(found: facts.Facts, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Front matter of the model card: base, data, scores."""
    one = found.models.get(found.subject)
    made_: dict[str, Any] = {}
    if one:
        made_ |= {"library_name": "peft" if one["kind"] == "adapter" else "transformers", "pipeline_tag": "text-generation"}
        for key, role, wanted in (("base_model", ("base",), False), ("datasets", ("data", "dataset"), True)):
            names = [p["ref"][4:].partition("@")[0] for p in one["parents"] if p["ref"].startswith("hub:") and p["role"] in role]
            made_ |= {key: names if wanted else names[0]} if names else {}
    made_["tags"] = ["atelier", *([one["meta"]["method"].replace("/", "-")] if one and one["meta"].get("method") else [])]
    results = []
    for evaluation in found.evaluations:
        place = next((n for n, model in enumerate(evaluation.models) if model["ref"] == found.subject), None)
        for task, about in evaluation.tasks.items() if place is not None else ():
            score = evaluation.score(place, task, about["main"])
            if score and score["value"] is not None and math.isfinite(score["value"]):
                results.append({"task": {"type": "text-generation"}, "dataset": {"name": about["title"], "type": task},
                                "metrics": [{"type": about["main"], "name": about["main"], "value": score["value"]}]})
    if results:
        made_["model-index"] = [{"name": facts.label(found, found.subject), "results": results}]
    return made_
