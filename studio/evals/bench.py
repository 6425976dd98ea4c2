"""Benchmarks of one's own, built from a dataset in a form and kept in the workspace.

    save({"title": "Sums", "dataset": "library:ab12", "prompt": "{{question}}", "target": "{{answer}}", "metric": "number"})
    listed(), load("sums"), delete("sums")

How they lie on the disk: :mod:`studio.evals.bench_task`; how rows become questions: :mod:`studio.evals.bench_items`.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from studio import settings
from studio.errors import StudioError
from studio.evals import bench_items, bench_task
from studio.evals.metrics import METRICS, Metric, metric_of
from studio.jobs.files import read_json
from studio.recipe import RecipeError, field

SHOWN = 5  # questions of a preview
LONG = 4000  # characters of a text in it
_NAME = re.compile(r"[\w][\w-]{0,59}")
_TITLES = {name: METRICS.get(name).title for name in METRICS}


class Benchmark(BaseModel):
    """The filled form."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=False)

    title: str = field("", "Name", "What to call the benchmark. Its folder and task get this name in small letters.", max_length=80,
                       placeholder="Sums in words")
    name: str = field("", "Folder", "Set by the studio from the name.", widget="hidden", max_length=60)
    about: str = field("", "About", "One sentence for the list of tasks, for yourself and others.", max_length=300, group="advanced")
    dataset: str = field("", "Dataset", "Where the questions come from: a dataset of the library, a sample set, or a file of the "
                         "workspace.", widget="dataset", max_length=1000)
    metric: Literal[tuple(_TITLES)] = field(  # type: ignore[valid-type]
        "exact", "Metric", "How an answer is scored.", choices=_TITLES)
    prompt: str = field("{{question}}", "Question", "What the model is asked. {{name}} stands for a column of the data; jinja works as in "
                        "lm-evaluation-harness, e.g. {{text | trim}} or {% if hint %}…{% endif %}.", widget="text", max_length=20_000)
    target: str = field("{{answer}}", "Right answer", "A column or a template. Of a column with a list, any is right. For multiple choice: "
                        "the option's text, letter or number.", max_length=4000,
                        when={"metric": [name for name in _TITLES if name != "perplexity"]})
    choices: str = field("", "Options", "A column with a list; several columns, as A, B, C, D; or a template with one option a line. Left "
                         "empty, the options listed in the question as (A), (B) … are taken.", widget="text", max_length=4000,
                         when={"metric": ["multiple_choice"]})
    num_fewshot: int = field(0, "Examples", "Solved examples shown before each question. Untuned models need some to see the form.",
                             ge=0, le=32)
    fewshot_dataset: str = field("", "Examples from", "Another dataset with the same columns, e.g. a training part. Left empty, rows of "
                                 "the dataset are set aside for them.", widget="dataset", group="advanced", max_length=1000)
    max_gen_toks: int = field(128, "Longest answer", "Answers are cut at so many tokens.", unit="tokens", ge=1, le=8192,
                              when={"metric": [name for name in _TITLES if METRICS.get(name).output == "text"]})
    until: list[str] = field(["\n\n"], "Stop at", "Texts that end an answer, one a line; \\n is a new line. Untuned models go on with "
                             "questions of their own otherwise.", widget="lines", max_length=8,
                             when={"metric": [name for name in _TITLES if METRICS.get(name).output == "text"]})
    limit: int = field(200, "Questions", "How many at most. Four times as many halve the standard error.", ge=1, le=20_000)
    description: str = field("", "Before everything", "Said once before the examples and the question, as a system message where models "
                             "have one.", widget="text", max_length=20_000)
    tags: list[str] = field([], "Group by", "Columns by which results can be grouped later: topic, level, source.", widget="lines",
                            group="advanced", max_length=12)
    shuffle: bool = field(True, "Drawn at random", "Rows are drawn by the seed. Off: the first ones, in the order of the file.",
                          group="advanced")
    seed: int = field(0, "Seed", "Which rows are drawn.", group="advanced", ge=0, le=2**31 - 1)
    between: Literal["blank", "line", "nothing"] = field(
        "blank", "Between question and answer", "What stands between them in the examples and before options, where no chat template does.",
        group="advanced", choices={"blank": "A blank", "line": "A new line", "nothing": "Nothing"})
    options: dict[str, Any] = field({}, "Options of the metric", "What the metric is told besides.", widget="hidden")

    @property
    def target_delimiter(self) -> str:
        return {"blank": " ", "line": "\n", "nothing": ""}[self.between]


def parse(values: Any) -> tuple[Benchmark, Metric]:
    """The form, checked, and its metric; light.

    Raises:
        StudioError: in the field that is wrong; an option of the metric as ``options.NAME``.
    """
    if not isinstance(values, dict):
        raise StudioError("A benchmark is a form with fields.", "Start with a title and a dataset.")
    try:
        bench = Benchmark.model_validate(values)
    except ValidationError as err:
        raise RecipeError(err, Benchmark) from err
    metric = _of(bench, lambda: metric_of(bench.metric, bench.options))
    if not bench.dataset.strip():
        raise StudioError("No dataset is chosen.", "Choose where the questions come from.", "dataset")
    return bench, metric


def _of(bench: Benchmark, made: Any) -> Any:
    """Refusals of a metric's options, in the field of the form."""
    try:
        return made()
    except StudioError as err:
        kind = METRICS.get(bench.metric)
        inside = err.field in kind.Options.model_fields
        raise StudioError(err.message, err.hint, f"options.{err.field}" if inside else err.field) from err


def named(title: str) -> str:
    """A folder's name for a title.

    Raises:
        StudioError: with ``field="title"``: it has no letters, digits.
    """
    name = re.sub(r"[^\w]+", "-", " ".join(str(title).split()).lower()).strip("-_")[:60].strip("-_")
    if not name:
        raise StudioError("A benchmark needs a name with letters or digits in it.", "Type one.", "title")
    return name


def folder(name: str) -> Path:
    """Folder of a benchmark. Names arrive from the browser, so they are checked.

    Raises:
        StudioError: that is no name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StudioError("That is not the name of a benchmark.", "Choose one from the list.", "name")
    return settings.home() / "benchmarks" / name


def _mine(path: Path, owner: str | None) -> dict[str, Any]:
    """What is known of a benchmark, if ``owner`` may see it.

    Raises:
        StudioError: there is none.
    """
    kept = read_json(path / bench_task.BUILDER)
    if kept is None or owner is not None and kept.get("owner") != owner:
        raise StudioError(f"There is no benchmark '{path.name}'.", "Choose one from the list.", "name")
    return kept


def save(values: dict[str, Any], owner: str | None = None, replace: str = "") -> dict[str, Any]:
    """Write a benchmark.

    Args:
        replace: The benchmark that is being edited; another one of the same name is never overwritten.

    Returns:
        ``{name, title, task, items, fewshot, left_out, notes, plain}``.

    Raises:
        StudioError: in the field that is wrong; the name is taken.
    """
    bench, metric = parse(values)
    _of(bench, metric.check)
    bench = bench.model_copy(update={"name": named(bench.title)})
    place = folder(bench.name)
    if replace:
        _mine(folder(replace), owner)
    if place.exists() and replace != bench.name:
        raise StudioError(f"There is a benchmark '{bench.title.strip()}' already.", "Give this one another name, or edit that one.",
                          "title")
    found = bench_items.gather(bench, metric, bench.limit)
    facts = {"made": time.time(), "items": len(found.items), "fewshot": len(found.fewshot), "read": found.read, "left_out": found.told(),
             "notes": found.notes, "plain": bench_task.plain(bench, metric)}
    bench_task.write(place, bench, metric, found, owner, facts)
    if replace and replace != bench.name:
        shutil.rmtree(folder(replace), ignore_errors=True)
    return {"name": bench.name, "title": bench.title, "task": f"bench:{bench.name}"} | {key: facts[key] for key in (
        "items", "fewshot", "left_out", "notes", "plain")}


def load(name: str, owner: str | None = None) -> dict[str, Any]:
    """The form a benchmark was made with: its values.

    Raises:
        StudioError: there is none of that name.
    """
    return _mine(folder(name), owner)["values"]


def listed(owner: str | None = None) -> list[dict[str, Any]]:
    """Every benchmark, the newest first: ``{name, title, about, task, metric, metric_title, dataset, items, fewshot, made, plain, edit}``;
    ``edit`` is false of a task that was put into the folder by hand."""
    found = []
    for path in (settings.home() / "benchmarks").glob("*/*.yaml"):
        if path.stem != path.parent.name or not _NAME.fullmatch(path.stem):
            continue
        kept = read_json(path.parent / bench_task.BUILDER)
        if owner is not None and (kept or {}).get("owner") != owner:
            continue
        values = kept.get("values") if kept else None
        made = kept["made"] if kept and isinstance(kept.get("made"), (int, float)) else path.stat().st_mtime
        line = {"name": path.stem, "title": path.stem, "about": "", "task": f"bench:{path.stem}", "metric": "", "metric_title": "",
                "dataset": "", "items": None, "fewshot": 0, "made": made, "plain": False, "edit": False}
        if isinstance(values, dict):
            metric = values.get("metric", "")
            line |= {"title": values.get("title") or path.stem, "about": values.get("about", ""), "metric": metric,
                     "metric_title": _TITLES.get(metric, metric), "dataset": values.get("dataset", ""), "items": kept.get("items"),
                     "fewshot": kept.get("fewshot", 0), "plain": bool(kept.get("plain")), "edit": True}
        found.append(line)
    return sorted(found, key=lambda one: -one["made"])


def delete(name: str, owner: str | None = None) -> None:
    """Remove a benchmark with its questions. Results of runs stay.

    Raises:
        StudioError: there is none of that name.
    """
    path = folder(name)
    _mine(path, owner)
    shutil.rmtree(path, ignore_errors=True)


def text_of(name: str, owner: str | None = None) -> str:
    """The task file of a benchmark, as text.

    Raises:
        StudioError: there is none of that name.
    """
    path = folder(name)
    _mine(path, owner)
    return (path / f"{name}.yaml").read_text("utf-8")


def preview(values: dict[str, Any]) -> dict[str, Any]:
    """The first questions as the model would see them; nothing is scored and nothing written.

    Returns:
        ``{columns, items: [{id, prompt, shown (with description and examples), target, references, choices, gold, tags}], read,
        left_out, notes (how it was understood), doubts, yaml}``.

    Raises:
        StudioError: as :func:`save`.
    """
    bench, metric = parse(values)
    found = bench_items.gather(bench, metric, min(SHOWN, bench.limit))
    named_ = bench.model_copy(update={"name": bench.name or re.sub(r"\W+", "-", bench.title.lower()).strip("-") or "mine"})
    shots = found.fewshot if metric.output != "loss" else []
    lead = shown(bench, metric, shots)
    items = [{"id": item["id"], "prompt": _cut(item["prompt"]), "shown": _cut(item.get("text") or lead + item["prompt"]),
              "target": _cut(item.get("target", "")), "references": [_cut(text) for text in item.get("references", [])[:8]],
              "choices": [_cut(text) for text in item.get("choices", [])[:40]], "gold": item.get("gold"), "tags": item["tags"]}
             for item in found.items]
    text = bench_task.text(bench_task.values(named_, metric, len(shots), None))
    return {"columns": found.columns[:200], "items": items, "read": found.read, "left_out": found.told(), "notes": found.notes,
            "doubts": _doubts(bench, found), "yaml": text}


def shown(bench: Benchmark, metric: Metric, shots: list[dict[str, Any]]) -> str:
    """What stands before a question, as lm-evaluation-harness puts it for models without a chat template."""
    if metric.output == "loss":
        return ""
    head = bench_task.lead(bench)
    answer = (lambda one: one["choices"][one["gold"]]) if metric.output == "choice" else (lambda one: one["target"])
    return head + "".join(f"{one['prompt']}{bench.target_delimiter}{answer(one)}\n\n" if answer(one) else one["prompt"] for one in shots)


def _cut(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def _doubts(bench: Benchmark, found: bench_items.Items) -> list[str]:
    """What a careful person would notice."""
    notes = []
    right = [text for item in found.items for text in item.get("references", [])]
    unseen = right and not any(re.search("[a-z0-9]", text.lower()) for text in right)
    if bench.metric == "rouge" and unseen and not bench.options.get("any_script"):
        notes.append("These answers have no Latin letters, which ROUGE does not see: tick 'Any script'.")
    if bench.metric in ("exact", "fuzzy") and right and sum(len(text.split()) for text in right) / len(right) > 30:
        notes.append("The right answers are long: few models write them letter by letter. ROUGE or a judge suits them better.")
    east = any(re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text) for text in right)
    if bench.metric == "bleu" and bench.options.get("tokenize", "13a") in ("13a", "intl") and east:
        notes.append("Chinese and Japanese have no blanks between words: choose 'Every letter' or 'Chinese' under Words, or chrF.")
    if bench.num_fewshot and any("\n\n" in item["prompt"] for item in found.items) and "\n\n" in bench.until:
        notes.append("Questions hold empty lines, which also part the examples and stop an answer.")
    return notes


def tried(values: dict[str, Any], answer: str | None = None, index: int = 0) -> dict[str, Any]:
    """Score trial answers to the first questions. Runs in a probe, because tests, judges and embeddings are not light.

    Args:
        answer: What a person typed to question number ``index``; else each question's right answer and one made wrong.

    Returns:
        ``{"rows": [{index, kind: typed | right | wrong, answer, scores: {metric: value}, reason}], "notes": […]}``.

    Raises:
        StudioError: as :func:`save`; a metric that scores no written answers.
    """
    from studio.rewards.bench import damaged

    bench, metric = parse(values)
    if metric.output != "text":
        raise StudioError(f"'{metric.title}' scores no written answer.", "Save it and run it on a model.", "metric")
    _of(bench, metric.check)
    items = bench_items.gather(bench, metric, min(SHOWN, bench.limit)).items
    if answer is None:
        tries = [(number, kind, text) for number, item in enumerate(items) if item["references"]
                 for kind, text in (("right", item["references"][0]), ("wrong", damaged(item["references"][0])))]
    else:
        tries = [(max(0, min(int(index), len(items) - 1)), "typed", answer)]
    rows: list[dict[str, Any]] = []
    metric.open()
    try:
        for number, kind, text in tries:
            item = items[number]
            made = metric.score(text, {"references": item["references"], "row": json.loads(item["row"]), "prompt": item["prompt"]})
            rows.append({"index": number, "kind": kind, "answer": _cut(text), "scores": made.values, "reason": made.reason})
    finally:
        metric.close()
    return {"rows": rows, "notes": _unlike(rows, next(iter(metric.names)))}


def _unlike(rows: list[dict[str, Any]], main: str) -> list[str]:
    pairs = [(one["scores"].get(main), other["scores"].get(main)) for one, other in zip(rows[::2], rows[1::2], strict=False)
             if (one["kind"], other["kind"]) == ("right", "wrong")]
    lost = [right for right, wrong in pairs if right is None or wrong is None or right <= wrong]
    return [f"{len(lost)} of {len(pairs)} right answers score no higher than the same answer made wrong: this metric does not tell right "
            "from wrong here."] if lost else []
