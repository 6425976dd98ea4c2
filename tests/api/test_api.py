"""The door: what the page, the command line and MCP ask of the core, with real processes where a run is concerned."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio import api, registry, settings
from studio.errors import StudioError
from studio.jobs import events, store
from studio.jobs.supervisor import Supervisor
from studio.library import artifacts
from studio.recipe import RecipeError
from tests.models import make_adapter, make_model

LORA = {"kind": "sft", "method": "lora", "dataset": "shipped:polite"}


@pytest.fixture
def fake(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ATELIER_PLUGINS", "tests.jobs.fake:register")
    monkeypatch.setenv("ATELIER_SLOTS", "1")
    monkeypatch.setenv("PYTHONPATH", str(settings.ROOT))
    registry.load_plugins()
    yield home
    for kind in ("sft", "setup"):
        registry.family(kind).remove("fake")


def until(true: Callable[[], Any], what: str, timeout: float = 40) -> Any:
    supervisor, deadline = Supervisor(warm=False), time.monotonic() + timeout
    while not (value := true()):
        assert time.monotonic() < deadline, what
        supervisor.tick()
        time.sleep(0.03)
    return value


def over(run_id: str) -> dict[str, Any]:
    until(lambda: store.is_final(api.run(run_id)["state"]), f"{run_id} is over")
    return api.run(run_id, details=True)


def test_methods_carry_their_fields() -> None:
    found = {(m["family"], m["name"]): m for m in api.methods()}
    lora = found["sft", "lora"]
    assert lora["title"] == "LoRA" and lora["paper"].startswith("https://") and lora["family_title"] == "Fine-tune"
    rate = next(f for f in lora["fields"] if f["name"] == "learning_rate")
    assert rate["type"] == "float" and rate["bounds"] and rate["help"] and rate["group"] == "training"
    json.dumps([m for m in found.values()])


def test_validate_says_all_and_starts_nothing(home: Path) -> None:
    good = api.validate(LORA | {"max_steps": 10})
    assert good["ok"] and good["errors"] == {} and good["estimate"]["disk"] > 0
    bad = api.validate(LORA | {"r": 0, "learning_rate": float("nan"), "nonsense": 1})
    assert not bad["ok"] and set(bad["errors"]) == {"r", "learning_rate", "nonsense"} and bad["estimate"] is None
    assert set(api.validate(LORA | {"dataset": "shipped:polit"})["errors"]) == {"dataset"}
    assert set(api.validate(LORA | {"model": "nobody/nothing"})["errors"]) == {"model"}
    assert set(api.validate({"kind": "nope"})["errors"]) == {"method"}
    assert set(api.validate({"kind": "sft", "method": "lora"})["errors"]) == {"dataset"}
    for junk in ([], "x", None, {"kind": {}, "method": []}):
        assert not api.validate(junk)["ok"]
    assert api.runs() == [] and not any((home / "runs").iterdir())


def test_validate_is_quick(home: Path) -> None:
    api.validate(LORA)
    began = time.process_time()
    for _ in range(5):
        api.validate(LORA)
    assert (time.process_time() - began) / 5 < 0.2


@pytest.mark.parametrize("kind", list(registry.FAMILIES))
def test_presets_are_recipes(home: Path, kind: str) -> None:
    for preset in api.presets(kind):
        assert preset["title"] and preset["for_whom"] and preset["values"]["kind"] == kind
        errors = api.validate(preset["values"])["errors"]
        assert set(errors) <= {"dataset", "model", "repo_id", "extra", "reward_model", "teacher_model", "config", "answers_from", "models"}, errors  # what the person chooses


def test_submit_run_poll(fake: Path) -> None:
    made = api.submit({"kind": "sft", "method": "fake", "steps": 4, "save_every": 2, "name": "first"})
    assert made["state"] in ("queued", "starting") and made["label"] == "first" and "pid" not in made
    run = over(made["id"])
    assert run["state"] == "succeeded" and run["summary"]["step"] == 4
    assert [c["step"] for c in run["checkpoints"]] == [2, 4] and run["artifacts"][0]["name"] == "weights"
    assert "the worker speaks" in run["log"] and Path(run["dir"]).is_dir()
    news = api.poll(made["id"])
    assert news["reset"] and news["state"] == "succeeded" and news["series"]["loss"] == [[1, 1], [2, 0.5], [3, 0.333333], [4, 0.25]]
    assert news["progress"] == {"done": 4, "total": 4, "eta": None} and "the worker speaks" in news["log"]
    again = api.poll(made["id"], news["cursor"])
    assert again["series"] == {} and not again["reset"] and again["log"] == "" and again["cursor"] == news["cursor"]
    assert len(json.dumps(again)) < 600


def test_poll_survives_what_is_not_a_number(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    run_id = api.submit({"kind": "sft", "method": "fake"})["id"]
    path = settings.run_dir(run_id) / "events.jsonl"
    for step, value in enumerate((float("nan"), float("inf"), float("-inf"), 1.0)):
        events.append(path, "metric", step=step, values={"loss": value})
    events.append(path, "log", text="a word of the method")
    news = api.poll(run_id)
    assert news["series"]["loss"] == [[0, "NaN"], [1, "Infinity"], [2, "-Infinity"], [3, 1]]
    assert "a word of the method" in news["log"]
    json.dumps(news, allow_nan=False)
    for cursor in ("nonsense", "99999999:1", -5, "1:x"):
        assert api.poll(run_id, cursor)["state"] == "queued"


def test_refused_before_anything_is_made(home: Path) -> None:
    for values in (LORA | {"r": 0}, LORA | {"dataset": ""}, {"kind": "sft"}, LORA | {"model": "/nowhere"}):
        with pytest.raises(StudioError):
            api.submit(values)
    with pytest.raises(RecipeError) as caught:
        api.submit(LORA | {"r": 0, "learning_rate": "x"})
    assert set(caught.value.fields) == {"r", "learning_rate"}
    assert api.runs() == [] and not any((home / "runs").iterdir())


def test_a_full_disk_is_told_before_the_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(StudioError, match="of disk"):
        api.submit(LORA)


@pytest.mark.parametrize("call", [api.run, api.poll, api.stop, api.resume, api.remove, api.reorder])
@pytest.mark.parametrize("run_id", ["rnothere22", "../../etc", "", "r" * 100, "R!", None])
def test_ids_from_the_browser(home: Path, call: Callable, run_id: Any) -> None:
    with pytest.raises(StudioError):
        call(run_id)


def test_stop_and_resume(fake: Path) -> None:
    run_id = api.submit({"kind": "sft", "method": "fake", "steps": 3000, "pause": 0.01})["id"]
    until(lambda: api.poll(run_id)["series"].get("loss"), "first loss")
    assert api.stop(run_id)["state"] == "stopping"
    assert over(run_id)["state"] == "stopped"
    with pytest.raises(StudioError, match="resumed"):
        api.resume(api.submit({"kind": "sft", "method": "fake", "pause": 1})["id"])
    step = api.run(run_id, details=True)["checkpoints"][-1]["step"]
    assert api.resume(run_id)["attempt"] == 2
    for waiting in api.runs():
        if waiting["id"] != run_id:
            api.stop(waiting["id"])
    until(lambda: (api.poll(run_id)["series"].get("loss") or [[0]])[-1][0] > step, "goes on")
    points = [point[0] for point in api.poll(run_id)["series"]["loss"]]
    assert points == sorted(set(points))
    api.stop(run_id)
    over(run_id)


def test_queue_reorder_and_remove(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    first, second, third = (api.submit({"kind": "sft", "method": "fake"})["id"] for _ in range(3))
    api.reorder(third, first)
    assert [row["id"] for row in store.queue()] == [third, first, second]
    api.reorder(third)
    assert [row["id"] for row in store.queue()] == [first, second, third]
    api.remove(second)
    assert {run["id"] for run in api.runs()} == {first, third} and not (fake / "runs" / second).exists()
    assert api.stop(first)["state"] == "stopped"
    with pytest.raises(StudioError):
        api.reorder(first)


def test_remove_takes_what_the_run_made(fake: Path) -> None:
    run_id = api.submit({"kind": "sft", "method": "fake", "steps": 1})["id"]
    run = over(run_id)
    assert api.artifact(run["artifacts"][0]["id"])["run_id"] == run_id
    api.remove(run_id)
    assert artifacts.listed() == [] and not (fake / "runs" / run_id).exists()
    with pytest.raises(StudioError):
        api.run(run_id)


def test_a_running_run_is_not_removed(fake: Path) -> None:
    run_id = api.submit({"kind": "sft", "method": "fake", "mode": "wait"})["id"]
    until(lambda: api.run(run_id)["state"] == "running", "running")
    with pytest.raises(StudioError, match="Stop it first"):
        api.remove(run_id)
    api.stop(run_id)
    over(run_id)


def test_many_submitters_lose_nothing(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(api.submit({"kind": "sft", "method": "fake"})["id"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8 and {run["id"] for run in api.runs()} == set(made)


def test_each_person_sees_their_own(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    ann, bob = (api.submit({"kind": "sft", "method": "fake"}, owner=who)["id"] for who in ("ann", "bob"))
    assert [run["id"] for run in api.runs(owner="ann")] == [ann] and len(api.runs()) == 2
    mine = artifacts.add("model", "m", make_model(fake / "models" / "m"), owner="ann")
    assert "m" in {m["label"] for m in api.models("ann")} and "m" not in {m["label"] for m in api.models("bob")}
    (settings.run_dir(ann) / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (settings.run_dir(ann) / "checkpoints" / "checkpoint-1" / "COMPLETE").touch()
    assert f"run:{ann}/checkpoint-1" in {m["ref"] for m in api.models("ann")}
    assert f"run:{ann}/checkpoint-1" not in {m["ref"] for m in api.models("bob")}
    source = fake / "a.jsonl"
    source.write_text('{"text": "mine"}\n')
    ref = api.upload(str(source), owner="ann")["ref"]
    assert ref in {d["ref"] for d in api.datasets("ann")} and ref not in {d["ref"] for d in api.datasets("bob")}
    for call in (lambda: api.artifact(mine["id"], "bob"), lambda: api.rename(mine["id"], "x", "bob"), lambda: api.delete(mine["id"], "bob"),
                 lambda: api.lineage(mine["id"], "bob"), lambda: api.card(mine["id"], "bob"), lambda: api.inspect(ref, owner="bob"),
                 lambda: api.submit(LORA | {"model": mine["ref"]}, owner="bob"), lambda: api.submit(LORA | {"dataset": ref}, owner="bob"),
                 lambda: api.submit(LORA | {"model": f"run:{ann}/checkpoint-1"}, owner="bob"),
                 lambda: api.preview(LORA | {"dataset": ref}, owner="bob")):
        with pytest.raises(StudioError):
            call()
    assert set(api.validate(LORA | {"dataset": ref}, owner="bob")["errors"]) == {"dataset"}
    assert api.artifact(mine["id"], "ann")["id"] == mine["id"] and bob


def test_a_visitor_who_is_not_signed_in_sees_nobodys_things(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_SLOTS", "0")
    run_id = api.submit({"kind": "sft", "method": "fake"}, owner="ann")["id"]
    mine = artifacts.add("model", "m", make_model(fake / "models" / "m"), owner="ann")
    chat = api.chat_save({"columns": []}, title="secret", owner="ann")
    source = fake / "a.jsonl"
    source.write_text('{"text": "mine"}\n')
    ref = api.upload(str(source), owner="ann")["ref"]
    assert {run["id"] for run in api.runs()} == {run_id}
    monkeypatch.setenv("SPACE_ID", "ann/space")
    assert api.runs() == [] and api.chat_list() == []
    assert {m["kind"] for m in api.models()} == {"starter"} and {d["kind"] for d in api.datasets()} == {"shipped"}
    for call in (lambda: api.artifact(mine["id"]), lambda: api.lineage(mine["id"]), lambda: api.delete(mine["id"]),
                 lambda: api.card(mine["id"]), lambda: api.card(run_id), lambda: api.inspect(ref), lambda: api.chat_load(chat["id"]),
                 lambda: api.inspect("/etc/passwd"), lambda: api.submit(LORA), lambda: api.upload(str(source)),
                 lambda: api.engine_for(mine["ref"]), lambda: api.chat_delete(chat["id"])):
        with pytest.raises(StudioError):
            call()
    assert api.inspect("shipped:polite")["rows"] == 200
    assert [run["id"] for run in api.runs(owner="ann")] == [run_id] and api.artifact(mine["id"], "ann")


def test_upload(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "a"}\n')
    made = api.upload(str(source))
    assert made["ref"] == "uploads/rows.jsonl" and made["size"] == 14 and Path(made["path"]).read_text() == source.read_text()
    assert api.upload(str(source))["ref"] == made["ref"]
    source.write_text('{"text": "b"}\n')
    assert api.upload(str(source))["ref"] == "uploads/rows-2.jsonl"
    assert {d["ref"] for d in api.datasets() if d["kind"] == "upload"} == {"uploads/rows.jsonl", "uploads/rows-2.jsonl"}
    assert not [p for p in (home / "uploads").iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize("name", ["..", ".bashrc", "a\nb.jsonl", "a;rm -rf.jsonl", "x" * 240, "..\\..\\win.jsonl", "<b>.csv", "ü.txt",
                                  "-rf", "no ending"])
def test_upload_names_are_made_plain(home: Path, tmp_path: Path, name: str) -> None:
    from studio.api.data import safe_name

    plain = safe_name(f"/some/where/{name}")
    assert plain and "/" not in plain and "\\" not in plain and not plain.startswith(".") and plain.isprintable()
    assert len(plain) <= 120 and not set(plain) & set(";<>\n\"'`$|&")
    if name not in ("..",) and "\\" not in name:
        source = tmp_path / name
        source.write_text("text")
        assert Path(api.upload(str(source))["path"]).parent == home / "uploads"


def test_upload_refuses_what_is_no_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, fifo = tmp_path / "empty.jsonl", tmp_path / "pipe"
    empty.touch()
    os.mkfifo(fifo)
    for path in (empty, fifo, tmp_path, tmp_path / "none"):
        with pytest.raises(StudioError):
            api.upload(str(path))
    import shutil

    full = tmp_path / "full.jsonl"
    full.write_text("x")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(StudioError, match="of disk"):
        api.upload(str(full))
    assert not any((home / "uploads").iterdir())


def test_models_tell_what_a_person_chooses_by(home: Path) -> None:
    artifacts.add("adapter", "polite", make_adapter(home / "models" / "a", "x"), meta={"eval_loss": 1.234, "method": "sft/lora"})
    found = api.models()
    assert found[0]["ref"] == "starter" and found[0]["kind"] == "starter" and "parameters" in found[0]["detail"]
    polite = found[1]
    assert polite["label"] == "polite" and polite["kind"] == "adapter" and "1.234" in polite["detail"] and polite["id"]


def test_inspect_and_script(home: Path) -> None:
    found = api.inspect("shipped:polite")
    assert found["format"] == "messages" and found["rows"] == 200
    with pytest.raises(StudioError):
        api.inspect("/nowhere.jsonl")
    text = api.script(LORA)
    compile(text, "script.py", "exec")
    assert "SFTTrainer" in text and "studio" not in text.lower().replace("atelier", "")
    with pytest.raises(StudioError):
        api.script(LORA | {"r": 0})


def test_preview_shows_what_is_trained(home: Path) -> None:
    found = api.preview(LORA, 0)
    trained = "".join(token["text"] for token in found["tokens"] if token["trained"])
    skipped = "".join(token["text"] for token in found["tokens"] if not token["trained"])
    assert trained.strip().startswith("Of course!") and "Of course!" not in skipped
    with pytest.raises(StudioError):
        api.preview(LORA | {"dataset": "shipped:none"})


def test_cards_and_lineage(fake: Path) -> None:
    run_id = api.submit({"kind": "sft", "method": "fake", "steps": 2})["id"]
    with pytest.raises(StudioError, match="nothing yet"):
        api.card(api.submit({"kind": "sft", "method": "fake", "mode": "wait"})["id"])
    made = over(run_id)["artifacts"][0]
    assert "weights" in api.card(run_id) and api.card(made["id"]) == api.card(run_id)
    assert {"parent": "starter", "child": made["ref"], "role": "base"} in api.lineage(made["id"])["edges"]
    for run in api.runs():
        api.stop(run["id"])


def test_hardware(home: Path) -> None:
    found = api.hardware()
    assert found["cpu"]["cores"] >= 1 and 0 < found["memory"]["used"] < found["memory"]["total"]
    assert found["disk"]["free"] > 0 and isinstance(found["gpus"], list)


def test_gpus_as_the_driver_tells_them() -> None:
    from studio.hardware import parse_smi, size

    text = "NVIDIA H200, 37, 1024, 143771, 41\nTesla, Odd Name, [N/A], 0, 16384, [N/A]\n\nnonsense\n"
    assert parse_smi(text) == [
        {"name": "NVIDIA H200", "percent": 37.0, "used": 2**30, "total": 143771 * 2**20, "temperature": 41.0},
        {"name": "Tesla, Odd Name", "percent": None, "used": 0, "total": 2**34, "temperature": None}]
    assert [size(n) for n in (None, 0, 999, 1500, 2_500_000, 5e9, 3e12)] == [
        "unknown", "0 B", "999 B", "1.5 kB", "2.5 MB", "5 GB", "3 TB"]


def test_supervise_starts_queued_runs_by_itself(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_PRELOAD", "")
    supervisor = api.supervise()
    try:
        run_id = api.submit({"kind": "sft", "method": "fake", "steps": 2})["id"]
        deadline = time.monotonic() + 30
        while api.run(run_id)["state"] != "succeeded":
            assert time.monotonic() < deadline, api.run(run_id)
            time.sleep(0.05)
    finally:
        supervisor.stop()
    run_id = api.submit({"kind": "sft", "method": "fake", "steps": 2})["id"]
    assert api.run(run_id)["state"] != "queued", "where no supervisor is at work any more, submit moves the queue itself"
    assert over(run_id)["state"] == "succeeded"
