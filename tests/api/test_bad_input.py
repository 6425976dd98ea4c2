"""Bad input of every kind through the one door: refused at its field before anything starts, or a clean ``failed``
with a hint.

The files themselves are in tests/unit/test_bad_files.py, a full disk in tests/jobs/test_lifecycle.py.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from studio import api, settings
from studio.errors import StudioError
from studio.library.refs import resolve_model
from studio.recipe import read_values
from tests.conftest import end_processes

GOOD = {"kind": "sft", "method": "lora", "dataset": "shipped:polite"}


def chat(i: int, answer: str = "") -> str:
    return json.dumps({"messages": [{"role": "user", "content": f"How many is {i}?"},
                                    {"role": "assistant", "content": answer or f"It is {i}."}]}) + "\n"


def starter(folder: Path) -> Path:
    return Path(shutil.copytree(settings.STARTER, folder))


@pytest.mark.parametrize(("values", "field", "word"), [
    ({"model": "no-such/model"}, "model", "hub:"), ({"model": "startr"}, "model", "starter"),
                                                       ({"model": "/etc"}, "model", "config.json"),
    ({"model": "hub:not a name"}, "model", "Hub id"), ({"model": "library:gone"}, "model", ""),
    ({"model": "run:../../x/output"}, "model", ""), ({"model": "shipped:polite"}, "model", "dataset"),
    ({"dataset": "shipped:polit"}, "dataset", "shipped:polite"), ({"dataset": "starter"}, "dataset", ""),
    ({"dataset": "<script>alert(1)</script>"}, "dataset", ""), ({"dataset": "../" * 40 + "etc/passwd"}, "dataset",
                                                                "extension"),
    ({"learning_rate": math.nan}, "learning_rate", "ordinary number"), ({"learning_rate": "nan"}, "learning_rate", ""),
    ({"learning_rate": math.inf}, "learning_rate", ""), ({"learning_rate": -1}, "learning_rate", "more than 0"),
    ({"max_length": 4096}, "max_length", "512"), ({"name": "../../x"}, "name", "path"),
                                                       ({"name": "<b>x</b>"}, "name", ""),
    ({"extra": {"learning_rat": 1}}, "extra", "learning_rate"), ({"no_such_field": 1}, "no_such_field",
                                                                 "no such field"),
    ({"schema_version": 2}, "schema_version", "Update the studio"), ({"method": "lorra"}, "method", "lora"),
    ({"kind": "stf"}, "kind", "sft"), ({"columns": {"prompt": "question"}}, "columns", "messages"),
    ({"columns": {"boss": "messages"}}, "columns", "Roles"), ({"columns": ["messages"]}, "columns", ""),
])
def test_refused_at_its_field_and_nothing_starts(home, values, field, word):
    answer = api.validate(GOOD | values)
    assert not answer["ok"] and set(answer["errors"]) == {field} and answer["estimate"] is None
    assert word.lower() in answer["errors"][field].lower()
    with pytest.raises(StudioError) as caught:
        api.submit(GOOD | values)
    assert caught.value.field == field
    assert api.runs() == [] and not any((home / "runs").iterdir())


def test_nothing_typed_is_lost_by_a_refusal(home):
    values = GOOD | {"learning_rate": math.nan, "name": "my model"}
    api.validate(values)
    assert values["name"] == "my model" and len(values) == len(GOOD) + 2


@pytest.mark.parametrize(("text", "word"), [
    ("kind: sft\nmethod: lora\nname: !!python/object/apply:os.system ['touch /tmp/atelier-was-here']\n", "YAML"),
    ("kind: sft\nmethod: lora\nextra: &a {b: *a}\n", "alias"),
    ("kind: sft\nmethod: lora\nextra: " + "{a: " * 200 + "1" + "}" * 200, "deep"),
    ("kind: sft\nmethod: lora\nextra: " + "[" * 20_000, ""),
    ("schema_version: 3\nkind: sft\nmethod: lora\nsomething_new: 1\n", "schema_version"),
    ("kind: sft\nmethod: lora\nlearning_rate: .nan\ndataset: shipped:polite\n", "learning_rate"),
    ("<html><body>404</body></html>", ""), ("\x00\x01\x02", ""), ("", "no recipe"),
])
def test_bad_recipe_files_are_refused_by_the_command_line(home, tmp_path, text, word):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(StudioError):
        api.submit(read_values(path))
    done = subprocess.run([sys.executable, "-m", "studio.cli", "run", str(path)], capture_output=True, text=True,
                          timeout=60, cwd=settings.ROOT)
    assert done.returncode not in (0, -11) and "Traceback" not in done.stderr + done.stdout
    assert word in done.stderr + done.stdout
    assert not Path("/tmp/atelier-was-here").exists() and api.runs() == []


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The workspace of an open studio with its warm process, so that several real runs take seconds."""
    from studio.jobs import zygote

    home = tmp_path_factory.mktemp("studio") / "home"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        patch.setenv("ATELIER_SLOTS", "1")
        supervisor = api.supervise()
        until(zygote.ready, 120)
        yield home
        supervisor.stop()
    end_processes(home)


def test_preview_tells_of_a_missing_template_and_of_what_is_cut(studio, tmp_path):
    """A model without a chat template gets ChatML and says so; a sample longer than the limit is shown cut."""
    bare = starter(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    (studio / "long.jsonl").write_text(chat(0, "word " * 300) + "".join(chat(i) for i in range(1, 20)))
    values = {"kind": "sft", "method": "lora", "model": str(bare), "dataset": "long.jsonl", "eval_share": 0.0,
              "max_length": 64}
    seen = api.preview(values, 0)
    assert {"chat-template-added", "truncated"} <= {flag["code"] for flag in seen["flags"]}
    assert seen["kept"] == 64 < seen["length"] and seen["truncated"] == 1
    with pytest.raises(StudioError, match="no chat template") as caught:
        api.preview(values | {"chat_template": "keep"}, 0)
    assert caught.value.field == "model" and caught.value.hint


def until(true: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, [(r["id"], r["state"], r["reason"]) for r in api.runs()]
        time.sleep(0.1)
    return value


def over(id: str) -> dict[str, Any]:
    until(lambda: api.run(id)["state"] in ("succeeded", "failed", "stopped", "lost"), 120)
    return api.run(id)


def test_runs_that_cannot_go_on_fail_cleanly_and_harm_nothing(studio, tmp_path):
    """What only shows in the run: ``failed`` with reason, hint and field; what was made before stays whole."""
    small = {"kind": "sft", "method": "lora", "max_steps": 2, "eval_share": 0.0, "per_device_train_batch_size": 2}
    (studio / "good.jsonl").write_text("".join(chat(i) for i in range(20)))
    first = over(api.submit(small | {"dataset": "good.jsonl", "name": "before"})["id"])
    assert first["state"] == "succeeded", first
    (model,) = [model for model in api.models() if model["label"] == "before"]
    before = {p: p.read_bytes() for p in resolve_model(model["ref"]).path.rglob("*") if p.is_file()}
    assert any(p.suffix == ".safetensors" for p in before)

    bare = starter(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    (studio / "long.jsonl").write_text("".join(json.dumps({"messages": [
        {"role": "user", "content": f"{i} " + "word " * 100}, {"role": "assistant", "content": "Yes."}]}) + "\n"
                                               for i in range(10)))
    (studio / "gone.jsonl").write_text("".join(chat(i) for i in range(20)))
    broken = starter(tmp_path / "broken")
    cases = {
        "template": (small | {"model": str(bare), "dataset": "good.jsonl", "chat_template": "keep"}, "model",
                     "no chat template"),
        "too-long": (small | {"dataset": "long.jsonl", "max_length": 64}, "max_length",
                     "Nothing is left to learn from"),
        "gone": (small | {"dataset": "gone.jsonl"}, "dataset", "no dataset at gone.jsonl"),
        "weights": (small | {"model": str(broken), "dataset": "good.jsonl"}, "model", ""),
    }
    ids = {name: api.submit(values)["id"] for name, (values, _, _) in cases.items()}
    (studio / "gone.jsonl").unlink()
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    for name, (_, field, reason) in cases.items():
        ended = over(ids[name])
        assert ended["state"] == "failed", (name, ended)
        assert ended["field"] == field and reason in ended["reason"] and ended["hint"], (name, ended)
        assert not [model for model in api.models() if model.get("run_id") == ids[name]]
    assert {p: p.read_bytes() for p in before} == before
