"""The rules of the house, each as a test: layers, weight of imports, fields, file sizes, the api's approved list, names."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import api, docs
from studio.recipe import FieldSpec, RecipeError, fields, parse, read_yaml
from studio.registry import FAMILIES
from studio.settings import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers", "pandas", "gradio")
METHODS = [(family.name, name) for family in FAMILIES.values() for name in family]
OURS = [path for folder in ("studio", "components", "tests") for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".js", ".css") and "__pycache__" not in path.parts] + [ROOT / "launch.py"]
OURS += [path for folder in ("js", "css") for path in sorted((ROOT / "assets" / folder).rglob("*")) if path.is_file()]

APPROVED = {
    "methods", "validate", "presets", "script", "submit", "runs", "run", "poll", "stop", "resume", "remove", "reorder",
    "supervise", "models", "datasets", "artifact", "rename", "delete", "lineage", "card", "hub_search", "hardware", "inspect",
    "preview", "upload", "engines", "engine_for", "unload", "chat_save", "chat_list", "chat_load", "chat_delete",
    "extra_fields", "workspace", "chat_rename", "chat_ask", "chat_retry", "chat_edit", "chat_setup", "chat_stop", "chat_open",
    "chat_poll", "chat_settings", "chat_branch", "chat_choose", "chat_export", "chat_rows", "rewards_catalogue", "rewards_check", "rewards_score", "rewards_try",
    "arena", "arena_dataset", "arena_poll", "arena_setup", "arena_start", "arena_stop", "arena_table", "arena_vote",
    "bench_delete", "bench_form", "bench_list", "bench_load", "bench_preview", "bench_save", "bench_suggest", "bench_try",
    "eval_against", "eval_methods", "eval_results", "eval_runs", "eval_samples", "eval_tasks", "look_methods",
    "engine_load", "engine_needs", "engines_ended", "serve_key", "serve_list", "serve_snippets", "serve_start", "serve_stop",
    "lab_decode", "lab_speculative", "lab_tokens", "lab_ways", "backends", "backend_check", "keep_token",
    "data_diff", "data_edit", "data_facets", "data_list", "data_open", "data_pipeline", "data_pipelines",
    "sweep", "sweep_fields", "flow", "family",
    "eval_pairs", "errors", "errors_answers", "errors_dataset", "ablation", "leaderboard", "report", "insight_runs",
    "merge_methods", "merge_check", "merge_look", "merge_export", "merge_import",
    "data_redo", "data_report", "data_row", "data_rows", "data_save_pipeline", "data_steps", "data_undo",
    "quantize_types", "quantize_run", "quantize_learn", "variants", "exports",
    "mcp_add", "mcp_remove", "tools", "tools_ask", "tools_decide", "tools_delete", "tools_open", "tools_stop",
    "collections", "collection", "collection_save", "collection_add", "collection_remove", "collection_build", "collection_chunks",
    "collection_document", "collection_let_in", "retrieval_ask", "retrieval_poll", "retrieval_stop",
    "measure", "notify_settings", "notify_save", "notify_test",
}


def loaded_by(code: str) -> tuple[set[str], float]:
    """Top-level modules in memory after ``code`` ran in a fresh interpreter, and the seconds of processor time it took."""
    probe = f"import sys, time\nbegan = time.process_time()\n{code}\n" \
            "print(time.process_time() - began, *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    seconds, *names = done.stdout.split()
    return set(names), float(seconds)


def imports(path: Path) -> list[str]:
    """Every module named by an import statement of a file, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize("path", [p for p in OURS if p.suffix == ".py" and "studio" == p.relative_to(ROOT).parts[0]],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_knows_no_page(path: Path) -> None:
    named = imports(path)
    assert not [name for name in named if name.partition(".")[0] == "gradio"]
    page = [name for name in named if name.partition(".")[0] == "components"]
    assert not page or path.name == "cli.py", "only the word 'ui' of the command line opens the page"


@pytest.mark.parametrize("path", [p for p in OURS if p.suffix == ".py" and "components" == p.relative_to(ROOT).parts[0]],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_the_page_uses_one_door(path: Path) -> None:
    allowed = {"studio.api", "studio.recipe", "studio.registry", "studio.errors"}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "studio" and len(parts) > 1:
            assert ".".join(parts[:2]) in allowed, name


@pytest.mark.parametrize("module", ["studio.api", "studio.cli", "studio.docs", "studio.hub", "studio.series", "studio.jobs.supervisor",
                                    "studio.jobs.store", "studio.library.refs", "studio.hardware"])
def test_light_modules_stay_light(module: str) -> None:
    names, _ = loaded_by(f"import {module}")
    assert not names & set(HEAVY)


def test_no_method_imports_what_it_trains_with() -> None:
    names, _ = loaded_by("from studio.registry import FAMILIES\nfor f in FAMILIES.values():\n    list(f.items())")
    assert not names & set(HEAVY)


def test_looking_at_everything_stays_light(tmp_path: Path) -> None:
    names, _ = loaded_by(
        f"import os; os.environ['STUDIO_HOME'] = {str(tmp_path)!r}\nfrom studio import api\n"
        "api.methods(); api.models(); api.datasets(); api.runs(); api.presets('sft'); api.hardware()\n"
        "api.validate({'kind': 'sft', 'method': 'lora', 'dataset': 'shipped:polite'})\n"
        "api.inspect('shipped:polite'); api.script({'kind': 'sft', 'method': 'lora', 'dataset': 'shipped:polite'})")
    assert not names & set(HEAVY)


def quickest(code: str, times: int = 5) -> float:
    """The least processor time of several tries: what the code costs, whatever else the machine does meanwhile."""
    return min(loaded_by(code)[1] for _ in range(times))


def test_the_door_opens_at_once() -> None:
    assert quickest("import studio.api") < 0.25


def test_the_command_line_starts_at_once() -> None:
    assert quickest("import io, contextlib\nfrom studio.cli import main\n"
                    "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])") < 0.3


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_fields_explain_themselves(kind: str, name: str) -> None:
    specs = fields(FAMILIES[kind].get(name).Recipe)
    for spec in specs:
        assert spec.title and spec.title != spec.name, f"{spec.name} has no title"
        assert len(spec.help) >= 15 and spec.help.rstrip().endswith((".", "?")), f"{spec.name}: {spec.help!r}"
        if spec.type in ("int", "float"):
            assert set(spec.bounds) & {"ge", "gt"} and set(spec.bounds) & {"le", "lt"}, f"{spec.name} has no bounds"
        if spec.type == "str":
            assert "max_length" in spec.bounds, f"{spec.name} has no greatest length"
        assert all(other in {s.name for s in specs} for other in spec.when), spec.name
    assert len({spec.title for spec in specs}) == len(specs), "two fields have one title"


@pytest.mark.parametrize("path", OURS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 600


_MARKS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplemented" + "Error")


@pytest.mark.parametrize("path", [p for p in OURS if p != Path(__file__)], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not _MARKS.findall(path.read_text("utf-8"))


def test_the_api_is_the_approved_list() -> None:
    assert set(api.__all__) == APPROVED
    assert len(api.__all__) == len(set(api.__all__))


@pytest.mark.parametrize("name", sorted(api.__all__))
def test_every_function_of_the_api_says_what_it_does(name: str) -> None:
    function = getattr(api, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def test_the_reference_is_up_to_date() -> None:
    assert docs.PATH.read_text("utf-8") == docs.reference(), "run: python -m studio.docs"


def _number(spec: FieldSpec) -> st.SearchStrategy:
    low, high = spec.bounds.get("ge", spec.bounds.get("gt")), spec.bounds.get("le", spec.bounds.get("lt"))
    if spec.type == "int":
        return st.integers(int(low) + ("gt" in spec.bounds), int(high) - ("lt" in spec.bounds))
    return st.floats(low, high, exclude_min="gt" in spec.bounds, exclude_max="lt" in spec.bounds)


_words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12).map(str.strip)


def _value(spec: FieldSpec) -> st.SearchStrategy[Any]:
    """Any value that the field's own type and bounds allow."""
    if spec.choices:
        made: st.SearchStrategy[Any] = st.sampled_from([value for value, _ in spec.choices])
        if spec.type == "list":
            made = st.lists(made, max_size=3, unique=True)
    else:
        made = {"int": lambda: _number(spec), "float": lambda: _number(spec), "bool": st.booleans, "str": lambda: _words,
                "list": lambda: st.lists(_words, max_size=3),
                "dict": lambda: st.dictionaries(_words, _words, max_size=3)}[spec.type]()
    return st.none() | made if spec.optional else made


@pytest.mark.parametrize(("kind", "name"), METHODS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much,
                                                                   HealthCheck.large_base_example])
@given(data=st.data())
def test_recipe_to_yaml_and_back_is_the_same(kind: str, name: str, data: st.DataObject) -> None:
    specs = fields(FAMILIES[kind].get(name).Recipe)
    values = {"kind": kind, "method": name} | data.draw(st.fixed_dictionaries({}, optional={s.name: _value(s) for s in specs}))
    for _ in specs:  # drop what the recipe's own rules refuse; what is left must survive the trip
        try:
            made = parse(values)
            break
        except RecipeError as err:
            values = {key: value for key, value in values.items() if key not in err.fields and "recipe" not in err.fields
                      or key in ("kind", "method")}
    for only_changed in (False, True):
        assert parse(read_yaml(made.to_yaml(only_changed))) == made


def test_the_clock_of_these_tests_is_honest() -> None:
    code = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    began = time.monotonic()
    assert loaded_by(code)[1] >= 0.2 and time.monotonic() > began
