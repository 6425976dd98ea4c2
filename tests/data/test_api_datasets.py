"""The door for datasets: everything the page asks, with real processes where a run is concerned."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio import api
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.supervisor import Supervisor
from studio.library import artifacts
from studio.settings import ROOT

ROWS = [{"prompt": f"Question number {i} of all", "completion": f"Answer {i}"} for i in range(20)]


@pytest.fixture
def made(run_step: Callable, jsonl: Callable) -> Any:
    return run_step("import", sources=[jsonl("a.jsonl", [*ROWS, "{broken"])], name="first")


def over(run_id: str, timeout: float = 90) -> dict[str, Any]:
    supervisor, deadline = Supervisor(warm=False), time.monotonic() + timeout
    while not store.is_final((run := api.run(run_id))["state"]):
        assert time.monotonic() < deadline, run
        supervisor.tick()
        time.sleep(0.05)
    return run


def test_a_story_from_file_to_edited_version(home: Path, jsonl: Callable) -> None:
    """Bring in, look, edit, apply, report, compare, run the pipeline again: each a real job where it is one."""
    run = over(api.submit({"kind": "data", "method": "import", "sources": [jsonl("a.jsonl", [*ROWS, "{broken"])]})["id"])
    assert run["state"] == "succeeded", run["reason"]
    (first,) = api.data_list()
    opened = api.data_open(first["ref"])
    assert (opened["rows"], opened["dropped"], opened["stage"]) == ({"train": 20}, 1, "final")
    assert opened["pipeline"][0]["ref"] == first["ref"] and opened["pipeline"][0]["rows_in"] == 21
    assert api.data_rows(first["ref"], {"split": "dropped"})["rows"][0]["reason"] == "broken_line"
    found = api.data_rows(first["ref"], {"search": "answer 7"})
    assert [row["pos"] for row in found["rows"]] == [7]
    api.data_edit(first["ref"], "train", [{"op": "rewrite", "pos": 7, "text": "Seven"}, {"op": "drop", "pos": 8}])
    run = over(api.submit({"kind": "data", "method": "edits", "dataset": first["ref"], "name": "by hand"})["id"])
    assert run["state"] == "succeeded", run["reason"]
    second = api.data_list()[0]
    assert (second["name"], second["steps"], second["total"], second["parents"]) == ("by hand", 2, 19, [first["ref"]])
    found = api.data_diff(first["ref"], second["ref"])
    assert (found["same"], found["changed"], found["removed"], found["added"]) == (18, 1, 1, 0)
    assert api.data_row(first["ref"], "train", 7)["original"] == ROWS[7]
    run = over(api.submit({"kind": "data", "method": "statistics", "dataset": second["ref"]})["id"])
    assert run["state"] == "succeeded", run["reason"]
    assert api.data_report(second["ref"], "statistics")["rows"] == 19
    assert api.data_open(second["ref"])["reports"]["statistics"]["version_hash"] == second["hash"]
    assert api.data_report(first["ref"], "statistics") is None and len(api.data_list()) == 2
    pipeline = api.data_pipeline(second["ref"])["values"]
    artifacts.delete(second["id"])
    run = over(api.submit(pipeline)["id"])
    assert run["state"] == "succeeded", run["reason"]
    listed = api.data_list()
    assert {row["hash"] for row in listed if row["steps"] == 2} == {second["hash"]}


def test_stages_of_a_pipeline_are_told_apart(run_step: Callable, jsonl: Callable, home: Path) -> None:
    ref = jsonl("a.jsonl", ROWS)
    last = run_step("pipeline", steps=[{"method": "import", "sources": [ref]}, {"method": "import", "sources": [ref]}])
    listed = api.data_list()
    assert [row["stage"] for row in listed].count("step") == len(listed) - 1
    assert next(row for row in listed if row["ref"] == last.ref)["stage"] == "final"
    pickers = [row for row in api.datasets() if row["kind"] == "library"]
    assert {row["ref"]: row["stage"] for row in pickers} == {row["ref"]: row["stage"] for row in listed}


def test_pipelines_are_kept_and_read_back(made: Any, home: Path) -> None:
    kept = api.data_save_pipeline(made.ref, "  My  Début: 1/2 ")
    (listed,) = api.data_pipelines()
    assert listed["name"] == kept["name"] and listed["title"] == "My Début: 1/2" and listed["steps"] == ["Bring in"]
    assert Path(kept["path"]).parent == home / "recipes"
    assert api.validate(listed["values"])["ok"]
    (home / "recipes" / "data-broken.yaml").write_text("{[")
    assert len(api.data_pipelines()) == 1
    for name in ("", "  ", "///", "..."):
        with pytest.raises(StudioError) as refused:
            api.data_save_pipeline(made.ref, name)
        assert refused.value.field == "name"
    outside = api.data_save_pipeline(made.ref, "../../x")
    assert Path(outside["path"]).parent == home / "recipes"


def test_steps_are_forms(home: Path) -> None:
    found = {step["name"]: step for step in api.data_steps()}
    assert {"import", "edits"} <= found.keys() and not {"statistics", "pipeline"} & found.keys()
    assert found["import"]["starts"] and not found["edits"]["starts"]
    assert all(step["group"] and step["title"] and step["summary"] for step in found.values())
    json.dumps(list(found.values()))


@pytest.mark.parametrize("ref", ["shipped:polite", "library:", "library:aaaaaaaaaa", "starter", "", "a.jsonl", "library:../x",
                                 "hub:a/b", "library:a'; DROP TABLE artifacts"])
def test_what_is_no_version_cannot_be_opened(made: Any, ref: str) -> None:
    for function in (api.data_open, api.data_rows, api.data_facets, api.data_undo, api.data_pipeline):
        with pytest.raises(StudioError) as refused:
            function(ref)
        assert refused.value.field == "dataset"


def test_a_version_whose_files_are_gone(made: Any) -> None:
    import shutil

    shutil.rmtree(made.path)
    assert api.data_list() == []
    with pytest.raises(StudioError, match="gone"):
        api.data_open(made.ref)


def test_on_a_space_everybody_sees_their_own(made: Any, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    row = artifacts.add("dataset", "ann's", made.path, owner="ann", meta={"version": True, "hash": made.hash})
    monkeypatch.setenv("SPACE_ID", "x/y")
    assert [r["ref"] for r in api.data_list(owner="ann")] == [row["ref"]]
    assert api.data_list(owner="bob") == [] and api.data_list() == []
    assert api.data_rows(row["ref"], owner="ann")["total"] == 20
    calls: list[tuple[Callable, tuple]] = [
        (api.data_open, ()), (api.data_rows, ()), (api.data_row, ("train", 0)), (api.data_facets, ()), (api.data_undo, ()),
        (api.data_redo, ()), (api.data_edit, ("train", [{"op": "keep", "pos": 0}])), (api.data_report, ("statistics",)),
        (api.data_pipeline, ()), (api.data_save_pipeline, ("x",)), (api.data_diff, (row["ref"],))]
    for function, more in calls:
        for owner in ("bob", None):
            with pytest.raises(StudioError):
                function(row["ref"], *more, owner=owner)
    with pytest.raises(StudioError):
        api.data_diff(made.ref, row["ref"], owner="ann")
    api.data_edit(row["ref"], "train", [{"op": "keep", "pos": 0}], owner="ann")
    assert (home / "edits" / f"{row['id']}.jsonl").read_text().count('"who": "ann"') == 1
    api.data_save_pipeline(row["ref"], "mine", owner="ann")
    assert len(api.data_pipelines(owner="ann")) == 1 and api.data_pipelines(owner="bob") == []
    for values, field in (({"method": "edits", "dataset": "shipped:polite", "log": row["ref"]}, "log"),
                          ({"method": "import", "sources": ["shipped:polite", row["ref"]]}, "sources"),
                          ({"method": "pipeline", "steps": [{"method": "import", "sources": [row["ref"]]}]}, "sources")):
        assert api.validate({"kind": "data", **values}, owner="ann")["errors"].get(field, "").count("may use") == 0
        assert "may use" in api.validate({"kind": "data", **values}, owner="bob")["errors"][field]


def test_every_function_takes_an_owner() -> None:
    for name in api.__all__:
        if name.startswith("data_") and name != "data_steps":
            assert "owner" in inspect.signature(getattr(api, name)).parameters, name


def test_answers_are_plain_json(made: Any) -> None:
    api.data_edit(made.ref, "train", [{"op": "tag", "pos": 1, "key": "k", "value": "v"}])
    for answer in (api.data_list(), api.data_open(made.ref), api.data_rows(made.ref, {"search": "1"}), api.data_facets(made.ref),
                   api.data_row(made.ref, "train", 1), api.data_diff(made.ref, made.ref), api.data_undo(made.ref),
                   api.data_redo(made.ref), api.data_pipeline(made.ref)):
        json.dumps(answer, allow_nan=False)


def test_the_page_stays_light(made: Any, home: Path) -> None:
    """Looking, searching, editing and comparing import no torch and no pandas, and cost little memory."""
    code = f"""
import os, sys
os.environ["STUDIO_HOME"] = {str(home)!r}
import psutil
from studio import api
api.data_list()
before = psutil.Process().memory_info().rss
ref = {made.ref!r}
api.data_open(ref); api.data_rows(ref, {{"search": "answer"}}, "score")
api.data_edit(ref, "train", [{{"op": "tag", "pos": 1, "key": "k", "value": "v"}}, {{"op": "delete", "pos": 2}}])
api.data_rows(ref, {{"state": ["edited"]}}); api.data_facets(ref, {{"search": "answer"}}); api.data_diff(ref, ref); api.data_steps()
print((psutil.Process().memory_info().rss - before) >> 20,
      *[m for m in ("torch", "transformers", "pandas", "pyarrow", "datasets", "gradio", "tokenizers") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    grown, *heavy = done.stdout.split()
    assert not heavy and int(grown) < 160
