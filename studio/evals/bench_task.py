"""A benchmark on the disk: a task of lm-evaluation-harness with its questions, and the scoring of its answers.

    benchmarks/NAME/NAME.yaml      the task; ``lm_eval --include_path WORKSPACE/benchmarks --tasks bench_NAME`` runs it too
                    test.jsonl     the questions, filled in; fewshot.jsonl the examples
                    scoring.py     reads the questions and scores; the same text in every benchmark of a kind of metric
                    builder.json   the form it was made with

Multiple choice, perplexity, exact texts, BLEU, chrF and ROUGE need nothing but that library; ``scoring.py`` of the other metrics
calls :func:`scored`, so the studio must be importable. Nothing that a person typed becomes code: questions are filled in when the
benchmark is saved, and the task names columns alone.
"""

from __future__ import annotations

import atexit
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import yaml

from studio import settings
from studio.errors import StudioError
from studio.evals.bench_items import Items
from studio.evals.metrics import Metric, metric_of
from studio.jobs.files import read_json

BUILDER, TEST, SHOTS, SCORING = "builder.json", "test.jsonl", "fewshot.jsonl", "scoring.py"

_LOAD = '''"""Reads the questions of this benchmark and scores answers. Written by Atelier; saving the benchmark writes it anew."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent


def load(**_):
    """The questions, and the examples where there are some."""
    from datasets import Dataset

    def rows(name):
        return Dataset.from_list([json.loads(line) for line in (HERE / name).open(encoding="utf-8")])

    shots = {"fewshot": rows("fewshot.jsonl")} if (HERE / "fewshot.jsonl").exists() else {}
    return {"test": rows("test.jsonl")} | shots
'''
_EXACT = '''

def process_results(doc, results):
    said = results[0].strip()
    return {"exact_match": float(any(said == text.strip() for text in doc["references"]))}
'''
_ROUGE = '''

def process_results(doc, results):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL", "rouge1", "rouge2"], use_stemmer=STEMMER)
    found = scorer.score_multi(list(doc["references"]), results[0].strip())
    return {name: float(score.fmeasure) for name, score in found.items()}
'''
_PAIRS = '''

def process_results(doc, results):
    """Scored over the whole set, by sacrebleu; each question has as many right answers as any (the first said again)."""
    return {METRIC: (list(doc["references"]), results[0].strip())}
'''
_BLEU = '''

def bleu(items):
    import sacrebleu

    references, answers = zip(*items, strict=True)
    return sacrebleu.corpus_bleu(list(answers), list(zip(*references, strict=True)), tokenize=TOKENIZE).score
'''
_STUDIO = '''

def process_results(doc, results):
    from studio.evals.bench_task import scored

    return scored(HERE, doc, results[0])
'''


class _Function(str):
    """A ``!function`` of a task file."""


class _Dumper(yaml.SafeDumper):
    """Writes :class:`_Function` as its tag, and new lines as \\n."""


_Dumper.add_representer(_Function, lambda dumper, value: dumper.represent_scalar("!function", str(value)))
_Dumper.add_representer(str, lambda dumper, value: dumper.represent_scalar(
    "tag:yaml.org,2002:str", value, style='"' if "\n" in value else None))


def values(bench: Any, metric: Metric, shots: int, owner: str | None) -> dict[str, Any]:
    """The task's values, in the order they are written."""
    name = f"bench_{bench.name}"
    made: dict[str, Any] = {"task": name, "custom_dataset": _Function("scoring.load"), "dataset_kwargs": {"file": TEST},
                            "test_split": "test"}
    if shots:
        made |= {"fewshot_split": "fewshot", "fewshot_config": {"sampler": "first_n"}}
    made["output_type"] = {"choice": "multiple_choice", "text": "generate_until", "loss": "loglikelihood_rolling"}[metric.output]
    if bench.description.strip() and metric.output != "loss":
        made["description"] = "description"  # a column: the text itself would be taken for a template
    made["doc_to_text"] = "prompt" if metric.output != "loss" else ""
    made["doc_to_target"] = {"choice": "gold", "text": "target", "loss": "text"}[metric.output]
    if metric.output == "choice":
        made["doc_to_choice"] = "choices"
    if metric.output != "loss":
        made |= {"target_delimiter": bench.target_delimiter, "num_fewshot": shots}
    if metric.output == "text":
        made["generation_kwargs"] = {"until": list(bench.until), "max_gen_toks": bench.max_gen_toks, "do_sample": False, "temperature": 0.0}
        made["process_results"] = _Function("scoring.process_results")
    made["metric_list"] = [{"metric": one, "aggregation": _aggregation(bench, metric, one), "higher_is_better": how["higher_is_better"]}
                           for one, how in _names(metric).items()]
    made["metadata"] = {"version": 1.0, "title": bench.title or bench.name, "about": bench.about or f"{metric.title}: {metric.help}",
                        "main": next(iter(_names(metric))), "metric": bench.metric, "dataset": bench.dataset}
    if owner:
        made["metadata"]["owner"] = owner
    return made


def lead(bench: Any) -> str:
    """What is said before everything."""
    return f"{bench.description.strip()}\n\n" if bench.description.strip() else ""


def text(made: dict[str, Any]) -> str:
    """A task's values as YAML."""
    return yaml.dump(made, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _names(metric: Metric) -> dict[str, dict[str, Any]]:
    if getattr(metric.options, "word_order", 0) == 2:
        return {"chrf++": metric.names["chrf"]}
    return metric.names


def _aggregation(bench: Any, metric: Metric, name: str) -> str:
    if bench.metric == "bleu":
        return "bleu" if metric.options.tokenize == "13a" else _Function("scoring.bleu")
    if bench.metric == "chrf":
        return name
    if metric.output == "loss":
        return "bits_per_byte" if name == "bits_per_byte" else "weighted_perplexity"
    return "mean"


def helper(bench: Any, metric: Metric) -> str:
    """The text of ``scoring.py``: constant but for choices of a closed list."""
    if metric.output != "text":
        return _LOAD
    if bench.metric == "exact" and not metric.options.loose:
        return _LOAD + _EXACT
    if bench.metric == "rouge" and not metric.options.any_script:
        return _LOAD + _ROUGE.replace("STEMMER", repr(bool(metric.options.use_stemmer)))
    if bench.metric == "bleu":
        return _LOAD + _PAIRS.replace("METRIC", '"bleu"') + _BLEU.replace("TOKENIZE", repr(str(metric.options.tokenize)))
    if bench.metric == "chrf":
        return _LOAD + _PAIRS.replace("METRIC", repr(next(iter(_names(metric)))).replace("'", '"'))
    return _LOAD + _STUDIO


def plain(bench: Any, metric: Metric) -> bool:
    """Whether it runs where the studio is not installed."""
    return "studio.evals" not in helper(bench, metric)


def write(folder: Path, bench: Any, metric: Metric, found: Items, owner: str | None, facts: dict[str, Any]) -> None:
    """Write a benchmark; readers see the old one or the whole new one.

    Raises:
        StudioError: the disk is full.
    """
    part = settings.home() / "exports" / f".bench-{uuid.uuid4().hex}"
    try:
        part.mkdir(parents=True)
        shots = found.fewshot if metric.output != "loss" else []
        said = {"description": lead(bench)} if "description" in values(bench, metric, 0, None) else {}
        _lines(part / TEST, [item | said for item in _even(found.items, bench)])
        if shots:
            _lines(part / SHOTS, [item | said for item in _even(shots, bench)])
        made = values(bench, metric, len(shots), owner)
        head = f"# lm_eval --model hf --model_args pretrained=FOLDER --tasks {made['task']} --include_path THIS_FOLDER\n"
        (part / f"{folder.name}.yaml").write_text(head + text(made), "utf-8")
        (part / SCORING).write_text(helper(bench, metric), "utf-8")
        (part / BUILDER).write_text(json.dumps({"version": 1, "values": bench.model_dump(mode="json"), "owner": owner} | facts,
                                               ensure_ascii=False, indent=1), "utf-8")
        folder.parent.mkdir(exist_ok=True)
        old = part.with_name(f"{part.name}-old")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as err:
        raise StudioError(f"The benchmark cannot be written: {err.strerror}.", "Free some disk space and try again.") from err
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _even(items: list[dict[str, Any]], bench: Any) -> list[dict[str, Any]]:
    """For BLEU and chrF every question has as many right answers as any: the harness drops what is beyond the shortest list."""
    if bench.metric not in ("bleu", "chrf"):
        return items
    most = max(len(item["references"]) for item in items)
    return [item | {"references": (item["references"] + [item["references"][0]] * most)[:most]} for item in items]


def _lines(path: Path, items: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for item in items:
            # a lone half of a surrogate pair, as broken files hold them, is no UTF-8
            out.write(json.dumps(item, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8") + "\n")


_opened: dict[tuple[str, int], Metric] = {}  # of this process, so that a judge or an embedding model is loaded once


def scored(folder: str | Path, doc: dict[str, Any], answer: str) -> dict[str, float]:
    """Metric -> number of one answer, as ``process_results`` of a task file; nothing where nothing can be said.

    Args:
        folder: Of the benchmark.
        doc: A line of ``test.jsonl``.
    """
    metric = _metric(Path(folder))
    row = json.loads(doc["row"]) if isinstance(doc.get("row"), str) else {}
    return metric.score(answer, {"references": list(doc["references"]), "row": row, "prompt": doc["prompt"]}).values


def _metric(folder: Path) -> Metric:
    path = folder / BUILDER
    try:
        key = (str(path), path.stat().st_mtime_ns)
    except OSError as err:
        raise StudioError(f"The benchmark in {folder.name} has lost its {BUILDER}, which says how answers are scored.",
                          "Save the benchmark again in the Eval tab.", "tasks") from err
    if key not in _opened:
        made = (read_json(path) or {}).get("values") or {}
        metric = metric_of(made.get("metric"), made.get("options"))
        metric.open()
        if not _opened:
            atexit.register(close)
        _opened[key] = metric
    return _opened[key]


def close() -> None:
    """End judges and the like that :func:`scored` opened in this process."""
    while _opened:
        _opened.popitem()[1].close()
