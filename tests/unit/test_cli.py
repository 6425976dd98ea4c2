"""The command line: words, refusals, exit codes, JSON answers as documented, and real runs watched in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from studio import api, cli, registry, settings
from studio.jobs import events, store

ROOT = settings.ROOT
DOCS = (ROOT / "docs" / "cli.md").read_text("utf-8")
SCHEMAS = {name: json.loads(text) for name, text in re.findall(r"```json schema=(\w+)\n(.*?)```", DOCS, re.DOTALL)}


@pytest.fixture
def fake(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A quick method from outside, so that runs take no training."""
    monkeypatch.setenv("ATELIER_PLUGINS", "tests.jobs.fake:register")
    monkeypatch.setenv("ATELIER_SLOTS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    registry.load_plugins()
    yield home
    for kind in ("sft", "setup"):
        registry.family(kind).remove("fake")


def studio(*argv: str, **more: Any) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "studio.cli", *argv], capture_output=True, text=True, cwd=more.pop("cwd", ROOT),
                          timeout=60, **more)


def answer(capsys: pytest.CaptureFixture, schema: str, *argv: str, code: int = 0) -> Any:
    """The JSON answer of a command, checked against its documented schema."""
    capsys.readouterr()
    assert cli.main([*argv]) == code
    value = json.loads(capsys.readouterr().out)
    jsonschema.validate(value, SCHEMAS[schema])
    return value


def recipe_file(tmp_path: Path, text: str = "") -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("kind: sft\nmethod: lora\ndataset: shipped:polite\n" + text)
    return path


def test_version_and_help(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("atelier 0.")
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for word in ("ui", "run", "ls", "show", "stop", "resume", "validate", "schema", "methods", "script", "inspect", "doctor"):
        assert re.search(rf"^    {word}\b", text, re.MULTILINE), word
        assert f"studio {word}" in DOCS


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["ls", "--nonsense"], ["show"], ["run"], ["ls", "-n", "x"]])
def test_a_wrong_line_is_refused(home: Path, capsys: pytest.CaptureFixture, argv: list[str]) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert "usage:" in captured.err + captured.out and "Traceback" not in captured.err


@pytest.mark.parametrize(("argv", "word"), [
    (["show", "rabc"], "no runs yet"), (["stop", "last"], "no runs yet"), (["resume", "x"], "no runs yet"),
    (["run", "none.yaml"], "no recipe file"), (["validate", "none.yaml"], "cannot be read"), (["schema", "sftt"], "'sft'"),
    (["schema", "sft/lorra"], "'lora'"), (["run", "sft/lorra"], "'lora'"), (["inspect", "none.jsonl"], "no dataset"),
    (["script", "none.yaml"], "cannot be read"), (["run", "sft/lora"], "dataset"),
    (["run", "sft/lora", "--dataset", "shipped:polite", "--learning_rate", "nan"], "learning_rate: Must be an ordinary number"),
    (["run", "sft/lora", "--dataset", "shipped:polite", "--set", "r"], "not a change"),
    (["run", "sft/lora", "--dataset", "shipped:polit"], "dataset: There is no shipped dataset 'polit'."),
    (["run", "sft/lora", "--dataset", "shipped:polite", "--set", "rr=3"], "Did you mean 'r'?")])
def test_refusals_are_one_line_and_start_nothing(home: Path, capsys: pytest.CaptureFixture, argv: list[str], word: str) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert word in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert api.runs() == []


def test_every_bad_field_has_its_line(home: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run", "sft/lora", "--r", "0", "--learning-rate", "fast", "--dataset", "shipped:polite"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["learning_rate", "r"]


def test_refusals_as_json(home: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert answer(capsys, "error", "show", "x", "--json", code=2)["error"]["message"]
    value = answer(capsys, "validate", "validate", str(recipe_file(tmp_path, "r: 0\nlearning_rate: x\n")), "--json", code=2)
    assert set(value["errors"]) == {"r", "learning_rate"} and not value["ok"]


def test_validate(home: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "max_steps: 20\n")
    value = answer(capsys, "validate", "validate", str(path), "--json")
    assert value["ok"] and value["estimate"]["disk"] > 0
    assert cli.main(["validate", str(path)]) == 0
    assert capsys.readouterr().out.startswith("Good.")
    assert cli.main(["validate", str(path), "--set", "r=0"]) == 2
    assert capsys.readouterr().err == "r: Must be at least 1; it is 0.\n"


@pytest.mark.parametrize("text", ["kind: sft\nmethod: lora\nschema_version: 9\n", "a: &x 1\nb: *x\n", "!!python/name:os.system\n", "\0"])
def test_validate_hostile_files(home: Path, capsys: pytest.CaptureFixture, tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert not answer(capsys, "validate", "validate", str(path), "--json", code=2)["ok"]
    assert cli.main(["validate", str(path)]) == 2


def test_methods(capsys: pytest.CaptureFixture) -> None:
    value = answer(capsys, "methods", "methods", "--json")
    assert set(value) == set(registry.FAMILIES)
    assert {m["name"] for m in value["sft"]} >= {"lora", "full"}
    assert next(m for m in value["sft"] if m["name"] == "lora")["paper"] == "https://arxiv.org/abs/2106.09685"


@pytest.mark.parametrize(("kind", "name"), [(f.name, name) for f in registry.FAMILIES.values() for name in f])
def test_schema_accepts_what_the_recipe_accepts(capsys: pytest.CaptureFixture, kind: str, name: str) -> None:
    assert cli.main(["schema", f"{kind}/{name}"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    values = registry.method(kind, name).Recipe().to_dict()
    jsonschema.validate(values, schema)
    for bad in (values | {"nonsense": 1}, values | {"method": "other"}, values | {"schema_version": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_schema_of_a_family(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["schema", "sft"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate({"kind": "sft", "method": "full", "dataset": "x"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"kind": "sft", "method": "none"}, schema)


def test_models_and_datasets(home: Path, capsys: pytest.CaptureFixture) -> None:
    assert answer(capsys, "models", "models", "--json")["models"][0]["ref"] == "starter"
    assert "shipped:polite" in {d["ref"] for d in answer(capsys, "datasets", "datasets", "--json")["datasets"]}
    assert cli.main(["models"]) == 0 and cli.main(["datasets"]) == 0
    assert "starter" in capsys.readouterr().out


def test_inspect(home: Path, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a b", "completion": "c d"}\n' * 5)
    monkeypatch.chdir(tmp_path)
    value = answer(capsys, "inspect", "inspect", "rows.jsonl", "--json")
    assert value["format"] == "prompt_completion" and value["rows"] == 5
    assert value["roles"] == {"prompt": "prompt", "completion": "completion"}
    assert cli.main(["inspect", "rows.jsonl"]) == 0
    assert "format: prompt_completion" in capsys.readouterr().out


def test_doctor(home: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    checks = {c["name"]: c for c in answer(capsys, "doctor", "doctor", "--json")["checks"]}
    assert checks["hub"]["state"] == "warn" and checks["hub"]["todo"]
    assert checks["python"]["state"] == checks["workspace"]["state"] == checks["database"]["state"] == "ok"
    assert checks["packages"]["state"] in ("ok", "warn")
    assert all(c["todo"] for c in checks.values() if c["state"] != "ok")


def test_doctor_finds_what_is_ill(home: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (home / "studio.db").write_bytes(b"this is no database, " * 100)
    checks = {c["name"]: c for c in answer(capsys, "doctor", "doctor", "--json", code=1)["checks"]}
    assert checks["database"]["state"] == "fail" and checks["python"]["state"] == "ok"


def test_doctor_finds_runs_that_nothing_runs(fake: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.jobs.files import write_json
    from studio.recipe import parse

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = store.submit(parse({"kind": "sft", "method": "fake"}))
    store.claim(1)
    write_json(settings.run_dir(made["id"]) / "guardian.json", {"pid": 2**22 + 1, "started": 1.0})
    checks = {c["name"]: c for c in answer(capsys, "doctor", "doctor", "--json")["checks"]}
    assert checks["runs"]["state"] == "warn" and made["id"] in checks["runs"]["detail"]


def test_run_a_file_to_its_end(fake: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("kind: sft\nmethod: fake\nsteps: 3\nsave_every: 1\n")
    assert cli.main(["run", str(path), "--name", "mine", "--set", "steps=4"]) == 0
    out = capsys.readouterr().out
    assert "4/4" in out and "loss 0.25" in out and "succeeded" in out and "library:" in out
    (run,) = answer(capsys, "ls", "ls", "--json")["runs"]
    assert run["state"] == "succeeded" and run["name"] == "mine" and run["summary"]["step"] == 4
    shown = answer(capsys, "show", "show", "last", "--json")
    assert shown["metrics"]["loss"] == {"step": 4, "value": 0.25} and [c["step"] for c in shown["checkpoints"]] == [1, 2, 3, 4]
    assert shown["artifacts"][0]["name"] == "weights" and shown["recipe"]["steps"] == 4
    assert cli.main(["show", run["id"][:6]]) == 0
    assert "checkpoint-4" in capsys.readouterr().out
    assert cli.main(["ls", "--state", "failed"]) == 0
    assert run["id"] not in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["fail", "bug", "suicide"])
def test_a_failed_run(fake: Path, capsys: pytest.CaptureFixture, mode: str) -> None:
    assert cli.main(["run", "sft/fake", "--mode", mode]) == 1
    captured = capsys.readouterr()
    assert "failed" in captured.out and captured.err.strip()
    assert cli.main(["show", "last"]) == 0
    assert "reason:" in capsys.readouterr().out


def test_detach_stop_resume(fake: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run", "sft/fake", "--steps", "2000", "--pause", "0.01", "--detach"]) == 0
    run_id = capsys.readouterr().out.split()[0]
    _until(lambda: api.poll(run_id)["series"].get("loss"), "first loss")
    assert cli.main(["stop", run_id[:7]]) == 0
    assert "saves a checkpoint" in capsys.readouterr().out
    _until(lambda: store.is_final(_tick(run_id)), "stopped")
    assert api.run(run_id)["state"] == "stopped"
    reached = api.poll(run_id)["series"]["loss"][-1][0]
    assert cli.main(["stop", run_id]) == 0 and "already over" in capsys.readouterr().out
    assert cli.main(["resume", "last", "--detach"]) == 0
    _until(lambda: (api.poll(run_id)["series"].get("loss") or [[0]])[-1][0] > reached, "goes on", tick=run_id)
    api.stop(run_id)
    _until(lambda: store.is_final(_tick(run_id)), "stopped again")


def _tick(run_id: str) -> str:
    from studio.jobs.supervisor import Supervisor

    Supervisor(warm=False).tick()
    return store.get(run_id)["state"]


def _until(true: Callable[[], Any], what: str, timeout: float = 120, tick: str = "") -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, what
        if tick:
            _tick(tick)
        time.sleep(0.05)


def test_ids_are_unambiguous(fake: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    for _ in range(2):
        assert cli.main(["run", "sft/fake", "--detach"]) == 0
    capsys.readouterr()
    assert cli.main(["show", "r"]) == 2
    assert "2 runs" in capsys.readouterr().err
    newest = api.runs()[0]["id"]
    assert answer(capsys, "show", "show", "last", "--json")["id"] == newest


class Terminal:
    """``studio ...`` in a real terminal, with the keys a person presses."""

    def __init__(self, *argv: str):
        main, side = pty.openpty()
        self.screen = main
        env = os.environ | {"TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
        self.process = subprocess.Popen([sys.executable, "-m", "studio.cli", *argv], stdin=side, stdout=side, stderr=side, cwd=ROOT,
                                        env=env, start_new_session=True, close_fds=True)
        os.close(side)
        os.set_blocking(main, False)
        self.text = ""

    def read(self) -> str:
        try:
            self.text += os.read(self.screen, 65536).decode("utf-8", "replace")
        except (BlockingIOError, OSError):
            pass
        return self.text

    def until(self, word: str, timeout: float = 40) -> None:
        _until(lambda: word in self.read(), f"{word!r} on screen:\n{self.text[-2000:]}", timeout)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def close(self) -> int:
        try:
            code = self.process.wait(40)
            self.read()
            return code
        finally:
            self.process.kill()
            os.close(self.screen)


def test_ctrl_c_stops_gracefully(fake: Path) -> None:
    terminal = Terminal("run", "sft/fake", "--steps", "3000", "--pause", "0.01")
    terminal.until("loss 0.")
    terminal.interrupt()
    terminal.until("Stopping")
    assert terminal.close() == 3, terminal.text
    assert "stopped after" in terminal.text
    run = api.runs()[0]
    assert run["state"] == "stopped" and api.run(run["id"], details=True)["checkpoints"]


def test_a_second_ctrl_c_leaves_the_run_alone(fake: Path) -> None:
    terminal = Terminal("run", "sft/fake", "--mode", "stubborn", "--steps", "3000")
    _until(lambda: any("worker speaks" in path.read_text() for path in fake.glob("runs/*/worker.log")), "it runs")
    terminal.until("running")
    terminal.interrupt()
    terminal.until("Stopping")
    terminal.interrupt()
    terminal.until("in the background")
    assert terminal.close() == 0
    run = api.runs()[0]
    assert run["state"] in ("running", "stopping")


def test_closing_the_terminal_does_not_end_the_run(fake: Path) -> None:
    terminal = Terminal("run", "sft/fake", "--steps", "400", "--pause", "0.01")
    terminal.until("loss 0.")
    os.killpg(terminal.process.pid, signal.SIGHUP)
    terminal.close()
    run_id = api.runs()[0]["id"]
    _until(lambda: _tick(run_id) == "succeeded", "the run ends by itself")


def test_relative_paths(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.commands import common

    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / f"{folder.name}.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.chdir(here)
    path = beside / "r.yaml"
    path.write_text("kind: sft\nmethod: lora\ndataset: beside.jsonl\n")
    assert common.read_recipe(str(path))["dataset"] == str(beside / "beside.jsonl")
    assert common.read_recipe(str(path), ["dataset=here.jsonl"])["dataset"] == str(here / "here.jsonl")
    assert common.read_recipe(str(path), ["dataset=uploads/x.jsonl"])["dataset"] == "uploads/x.jsonl"
    (here / "starter").mkdir()
    assert common.read_recipe(str(path), ["model=starter"])["model"] == "starter"


def test_changes_reach_tables_and_lists(home: Path, tmp_path: Path) -> None:
    from studio.commands import common
    from studio.recipe import parse

    path = recipe_file(tmp_path, "columns: {prompt: q}\n")
    values = common.read_recipe(str(path), ["columns.completion=a", "sample_prompts=[Hello, Bye]", "packing=true", "learning_rate=1e-5"])
    made = parse(values)
    assert made.columns == {"prompt": "q", "completion": "a"} and made.sample_prompts == ["Hello", "Bye"]
    assert made.packing is True and made.learning_rate == 1e-5


def test_flags_of_every_kind(home: Path) -> None:
    from studio.commands import run
    from studio.recipe import parse
    from studio.registry import method

    lora = method("sft", "lora")
    given = run._parser("sft/lora", lora).parse_args(
        ["--learning-rate", "1e-5", "--r=4", "--packing", "--no-assistant_only_loss", "--sample_prompts", "one, two",
         "--sample_prompts", "three", "--columns", "prompt=q", "--columns", "completion=a", "--name", "my run"])
    made = parse({"kind": "sft", "method": "lora"} | run._from_flags(given, lora.Recipe))
    assert (made.learning_rate, made.r, made.packing, made.assistant_only_loss, made.name) == (1e-5, 4, True, False, "my run")
    assert made.sample_prompts == ["one, two", "three"] and made.columns == {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize(("kind", "name"), [(f.name, name) for f in registry.FAMILIES.values() for name in f])
def test_every_method_has_flags_with_help(capsys: pytest.CaptureFixture, kind: str, name: str) -> None:
    assert cli.main(["run", f"{kind}/{name}", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{field}" in text for field in registry.method(kind, name).Recipe.model_fields)


def test_names_of_others_do_not_steer_the_terminal(home: Path, capsys: pytest.CaptureFixture) -> None:
    from studio.library import artifacts

    (home / "models").mkdir(exist_ok=True)
    artifacts.add("model", "evil\x1b[2Jname\x07", home / "models")
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "evil" in out and "\x1b" not in out and "\x07" not in out


def test_nan_is_told_in_words(fake: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    assert cli.main(["run", "sft/fake", "--detach"]) == 0
    run_id = capsys.readouterr().out.split()[0]
    events.append(settings.run_dir(run_id) / "events.jsonl", "metric", step=1, values={"loss": float("nan")})
    assert answer(capsys, "show", "show", run_id, "--json")["metrics"]["loss"]["value"] == "NaN"


def test_a_reader_that_has_seen_enough(home: Path) -> None:
    done = subprocess.run(f"{sys.executable} -m studio.cli schema sft | head -1", shell=True, capture_output=True, text=True,
                          cwd=ROOT, timeout=60)
    assert done.stdout == "{\n" and done.stderr == ""


def test_ui_is_handed_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    seen: list = []
    monkeypatch.setitem(sys.modules, "components.app", types.SimpleNamespace(main=lambda argv: seen.append(argv) or 7))
    assert cli.main(["ui", "--port", "1", "--no-browser"]) == 7 and seen == [["--port", "1", "--no-browser"]]
