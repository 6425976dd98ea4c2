"""Which tasks there are, without torch and without lm-evaluation-harness.

A recipe names a task as ``suite:NAME`` (the studio's own), ``bench:NAME`` (a benchmark of the workspace, folder
``benchmarks/NAME``), a YAML file or a folder of the workspace, or as lm-evaluation-harness calls one of its own.
Every YAML is a task of that library; its ``metadata`` may hold ``title``, ``about``, ``main`` (the metric of tables) and ``owner``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from studio import settings
from studio.errors import StudioError

SUITE = settings.ASSETS / "evals" / "suite"
KINDS = {"multiple_choice": "choice", "loglikelihood": "choice", "generate_until": "text", "loglikelihood_rolling": "loss"}
_NAME = re.compile(r"[\w.:+-]{1,200}")
_CODE = re.compile(r"!function|^\s*class:|^\s*unsafe_code:\s*true", re.MULTILINE)

# Well-known tasks of lm-evaluation-harness. Any other name of its list may be typed as well.
HARNESS: dict[str, tuple[str, str, str, str]] = {
    "arc_easy": ("ARC easy", "Science questions of primary school.", "choice", "acc_norm"),
    "arc_challenge": ("ARC challenge", "The harder science questions of primary school.", "choice", "acc_norm"),
    "boolq": ("BoolQ", "Yes or no, from a paragraph.", "choice", "acc"),
    "commonsense_qa": ("CommonsenseQA", "Everyday knowledge, five options.", "choice", "acc"),
    "hellaswag": ("HellaSwag", "Which sentence goes on from here.", "choice", "acc_norm"),
    "mmlu": ("MMLU", "57 subjects from school to university.", "choice", "acc"),
    "openbookqa": ("OpenBookQA", "Science with one fact and common sense.", "choice", "acc_norm"),
    "piqa": ("PIQA", "How everyday things are done.", "choice", "acc_norm"),
    "race": ("RACE", "Reading tests of English schools in China.", "choice", "acc"),
    "sciq": ("SciQ", "Science exam questions.", "choice", "acc_norm"),
    "truthfulqa_mc2": ("TruthfulQA", "Questions that many people answer wrongly.", "choice", "acc"),
    "winogrande": ("WinoGrande", "Whom a pronoun means.", "choice", "acc"),
    "gpqa_main_zeroshot": ("GPQA", "Graduate questions that a search does not answer.", "choice", "acc_norm"),
    "mmlu_pro": ("MMLU-Pro", "Ten options, reasons written out.", "text", "exact_match"),
    "gsm8k": ("GSM8K", "Grade school maths in words.", "text", "exact_match"),
    "minerva_math": ("MATH", "Competition mathematics.", "text", "exact_match"),
    "bbh": ("BIG-Bench Hard", "27 tasks that need several steps.", "text", "exact_match"),
    "drop": ("DROP", "Counting and sums over a paragraph.", "text", "f1"),
    "ifeval": ("IFEval", "Instructions whose keeping a program checks.", "text", "prompt_level_strict_acc"),
    "triviaqa": ("TriviaQA", "Quiz questions.", "text", "exact_match"),
    "nq_open": ("Natural Questions", "What people asked a search engine.", "text", "exact_match"),
    "humaneval": ("HumanEval", "Python functions, checked by running them.", "text", "pass@1"),
    "mbpp": ("MBPP", "Small Python problems, checked by running them.", "text", "pass_at_1"),
    "lambada_openai": ("LAMBADA", "The last word of a passage.", "choice", "acc"),
    "wikitext": ("WikiText-2", "Perplexity of Wikipedia articles.", "loss", "word_perplexity"),
}


@dataclass(frozen=True)
class Found:
    """A task by one of its names.

    Attributes:
        name: How results call it.
        source: ``suite`` | ``own`` (a benchmark) | ``file`` | ``harness``.
        path: Its YAML file; ``None`` for one of the harness.
    """

    name: str
    source: str
    path: Path | None = None


def benchmarks() -> Path:
    """Folder of the benchmarks that were made here: one folder each."""
    return settings.home() / "benchmarks"


def places() -> list[Path]:
    """Folders that hold task files: what ``lm_eval --include_path`` takes."""
    return [SUITE, *sorted(path for path in benchmarks().glob("*") if (path / f"{path.name}.yaml").is_file())]


def find(name: str, owner: str | None = None) -> list[Found]:
    """The tasks behind a name of a recipe: one, or all those of a folder.

    Args:
        owner: Who asks, where several people share a workspace.

    Raises:
        StudioError: in ``tasks``: there is none of that name.
    """
    name = name.strip()
    kind, _, rest = name.partition(":")
    if kind == "suite":
        if not re.fullmatch(r"\w+", rest) or not (path := SUITE / f"{rest}.yaml").is_file():
            raise _unknown(name, [f"suite:{one.stem}" for one in SUITE.glob("*.yaml")])
        return [Found(name, "suite", path)]
    if kind == "bench":
        path = benchmarks() / rest / f"{rest}.yaml"
        if not rest or "/" in rest or rest.startswith(".") or not path.is_file() or not _may(path, owner):
            raise _unknown(name, [f"bench:{one.name}" for one in places()[1:] if _may(one / f"{one.name}.yaml", owner)])
        return [Found(name, "own", path)]
    if "/" in name or name.endswith((".yaml", ".yml")) or (_NAME.fullmatch(name) and any((settings.home() / name).glob("*.yaml"))):
        return _files(name, owner)
    if not _NAME.fullmatch(name):
        raise StudioError(f"'{name[:80]}' is not the name of a task.", "Choose tasks from the list, or type a name of "
                          "lm-evaluation-harness.", "tasks")
    return [Found(name, "harness")]


def all_of(names: list[str], owner: str | None = None) -> list[Found]:
    """The tasks of a recipe, each once.

    Raises:
        StudioError: in ``tasks``.
    """
    found: dict[str, Found] = {}
    for name in names:
        for one in find(name, owner):
            found.setdefault(one.name, one)
    return list(found.values())


def runs_code(found: Found) -> bool:
    """Whether loading the task runs Python of its folder."""
    return found.path is not None and bool(_CODE.search(found.path.read_text("utf-8")))


def catalogue(owner: str | None = None) -> list[dict[str, Any]]:
    """Every task that a list offers: ``{name, title, about, kind (choice | text | loss), items (or None), source
    (suite | own | harness), main}``."""
    made = [line(Found(f"suite:{path.stem}", "suite", path)) for path in sorted(SUITE.glob("*.yaml"))]
    for folder in places()[1:]:
        path = folder / f"{folder.name}.yaml"
        try:
            if _may(path, owner):
                made.append(line(Found(f"bench:{folder.name}", "own", path)))
        except StudioError:
            continue  # half written, or broken by hand; naming it in a recipe says why
    return made + [{"name": name, "title": title, "about": about, "kind": kind, "items": None, "source": "harness", "main": main}
                   for name, (title, about, kind, main) in HARNESS.items()]


def line(found: Found) -> dict[str, Any]:
    """A task as :func:`catalogue` lists it."""
    if found.path is None:
        title, about, kind, main = HARNESS.get(found.name, (found.name, "", "text", ""))
        return {"name": found.name, "title": title, "about": about, "kind": kind, "items": None, "source": "harness", "main": main}
    values = read(found.path)
    more = values.get("metadata") if isinstance(values.get("metadata"), dict) else {}
    metrics = [str(one["metric"]) for one in values.get("metric_list") or [] if isinstance(one, dict) and "metric" in one]
    kind = KINDS.get(str(values.get("output_type", "generate_until")), "text")
    return {"name": found.name, "title": str(more.get("title") or values.get("task_alias") or values.get("task") or found.path.stem),
            "about": str(more.get("about") or ""), "kind": kind, "items": _items(found.path, values),
            "source": {"file": "own"}.get(found.source, found.source), "main": str(more.get("main") or next(iter(metrics), ""))}


def read(path: Path) -> dict[str, Any]:
    """The values of a task's YAML; functions stay names.

    Raises:
        StudioError: in ``tasks``: unreadable.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise StudioError(f"The task file {path.name} cannot be read: {str(err).splitlines()[0][:200]}",
                          "Correct it, or choose another task.", "tasks") from err


class _Loader(yaml.SafeLoader):
    """Reads ``!function module.name`` as a text."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {loader.construct_scalar(node)}")


@lru_cache(maxsize=512)
def _read(path: Path, stamp: int) -> dict[str, Any]:
    text = path.read_text("utf-8")
    if len(text) > 1 << 20:
        raise ValueError("it is larger than a task")
    values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader subclass
    if not isinstance(values, dict):
        raise ValueError("it holds no task")
    included = values.pop("include", None)
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included] if included else []:
        merged |= read((path.parent / str(name)).resolve())
    return merged | values


def data_files(path: Path, values: dict[str, Any]) -> list[Path]:
    """The local files that a task reads its questions from, places relative to the task's own folder."""
    told = values.get("dataset_kwargs") or {}
    parts = told.get("data_files") or told.get("file") or []
    if isinstance(parts, dict):
        parts = parts.get(str(values.get("test_split") or values.get("validation_split") or "test")) or []
    return [path.parent / str(part) for part in ([parts] if isinstance(parts, str) else parts)]


def _items(path: Path, values: dict[str, Any]) -> int | None:
    files = data_files(path, values)
    if not files or not all(file.is_file() and file.suffix == ".jsonl" for file in files):
        return None
    return sum(_count(file, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=512)
def _count(file: Path, stamp: int) -> int:
    with file.open("rb") as lines:
        return sum(bool(one.strip()) and b'"shot": true' not in one for one in lines)


def _may(path: Path, owner: str | None) -> bool:
    more = read(path).get("metadata")
    whose = more.get("owner") if isinstance(more, dict) else None
    return owner is None or whose == owner


def _files(name: str, owner: str | None) -> list[Found]:
    path = Path(name).expanduser()
    path = path if path.is_absolute() else settings.home() / path
    if settings.shared():
        try:
            path = settings.inside_home(path)
        except StudioError as err:
            raise StudioError(err.message, err.hint, "tasks") from err
    if owner is not None and not path.resolve().is_relative_to(settings.home() / "uploads" / owner):
        raise StudioError(f"There is no task at {name} that you may use.", "Upload its file first.", "tasks")
    if path.is_file():
        return [Found(str(read(path).get("task") or path.stem), "file", path)]
    inside = sorted(path.glob("*.yaml")) if path.is_dir() else []
    found = [Found(str(values["task"]), "file", one) for one in inside if isinstance((values := read(one)).get("task"), str)]
    if not found:
        raise StudioError(f"There is no task at {name}." if not path.is_dir() else f"The folder {name} holds no task file.",
                          "Name a YAML task of lm-evaluation-harness, or a folder with some.", "tasks")
    return found


def _unknown(name: str, known: list[str]) -> StudioError:
    near = difflib.get_close_matches(name, known, n=1)
    return StudioError(f"There is no task '{name}'.", f"Did you mean '{near[0]}'?" if near else
                       f"There are: {', '.join(sorted(known)) or 'none'}.", "tasks")
