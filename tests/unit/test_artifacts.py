"""The library: registering what runs made, names, deletion, lineage, checkpoints; chat history; cards."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.library import artifacts, cards, chats
from tests.models import make_adapter, make_model


def folder(home: Path, name: str, text: str = "hello") -> Path:
    path = home / "models" / name
    path.mkdir(parents=True)
    (path / "file.txt").write_text(text)
    return path


def result(home: Path, run: str = "rabc1") -> dict:
    out = home / "runs" / run / "output"
    out.mkdir(parents=True, exist_ok=True)
    (out / "adapter_model.safetensors").write_bytes(b"x" * 100)
    return {"state": "succeeded", "artifacts": [
        {"kind": "adapter", "path": str(out), "name": "polite", "meta": {"step": 3},
         "parents": [{"ref": "starter", "role": "base"}, {"ref": "shipped:polite", "role": "data"}]},
        {"kind": "file", "path": str(home / "runs" / run / "gone.txt"), "name": "gone", "meta": {}, "parents": []}]}


def test_register_run_twice_is_once(home: Path) -> None:
    row = {"id": "rabc1", "name": "polite", "owner": "ann"}
    first = artifacts.register_run(row, result(home))
    again = artifacts.register_run(row, result(home))
    assert [a["id"] for a in first] == [a["id"] for a in again]
    (made,) = artifacts.listed()
    assert made["run_id"] == "rabc1" and made["owner"] == "ann" and made["size"] == 100 and made["meta"] == {"step": 3}
    assert first[0]["parents"] == [{"ref": "starter", "role": "base"}, {"ref": "shipped:polite", "role": "data"}]


def test_register_a_row_with_attributes(home: Path) -> None:
    class Row:
        id, name, owner = "rabc1", "n", None

    assert len(artifacts.register_run(Row(), result(home))) == 1
    assert artifacts.register_run(Row(), {"state": "failed"}) == []


def test_concurrent_registration_makes_one_row(home: Path) -> None:
    made = result(home)
    threads = [threading.Thread(target=artifacts.register_run, args=({"id": "rabc1", "name": "", "owner": None}, made))
               for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(artifacts.listed()) == 1


def test_names_are_unique(home: Path) -> None:
    names = [artifacts.add("model", "polite", folder(home, f"m{n}"))["name"] for n in range(3)]
    assert names == ["polite", "polite-2", "polite-3"]
    long = [artifacts.add("model", "x" * 200, folder(home, f"l{n}"))["name"] for n in range(2)]
    assert len(set(long)) == 2 and all(len(name) <= 80 for name in long)


def test_rename(home: Path) -> None:
    one, two = (artifacts.add("model", name, folder(home, name)) for name in ("one", "two"))
    assert artifacts.rename(one["id"], "  fresh   name ")["name"] == "fresh name"
    assert artifacts.rename(one["id"], "fresh name")["name"] == "fresh name"
    assert artifacts.rename(two["id"], "fresh name")["name"] == "fresh name-2"
    for bad in ("", "  ", "a/b", "..", ".hidden", "<script>", "x" * 81, "a\x00b"):
        with pytest.raises(StudioError):
            artifacts.rename(one["id"], bad)
    with pytest.raises(StudioError):
        artifacts.rename("nope", "x")


def test_delete_removes_files_of_the_workspace_only(home: Path, tmp_path: Path) -> None:
    inside, outside = folder(home, "in"), tmp_path / "out"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine")
    for path in (inside, outside):
        artifacts.delete(artifacts.add("model", "m", path)["id"])
    assert not inside.exists() and (outside / "precious.txt").read_text() == "mine"
    assert artifacts.listed() == []


def test_delete_never_takes_a_section_of_the_workspace(home: Path, tmp_path: Path) -> None:
    folder(home, "keep")
    artifacts.delete(artifacts.add("model", "odd", home / "models")["id"])
    artifacts.delete(artifacts.add("model", "odder", home)["id"])
    assert (home / "models" / "keep" / "file.txt").exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (home / "models" / "link").symlink_to(precious)
    artifacts.delete(artifacts.add("model", "link", home / "models" / "link")["id"])
    assert precious.exists()


def test_a_base_in_use_is_kept(home: Path) -> None:
    base = artifacts.add("model", "base", make_model(home / "models" / "b"))
    child = artifacts.add("adapter", "child", make_adapter(home / "models" / "a", "x"), made_from=[(base["ref"], "base")])
    with pytest.raises(StudioError, match="child"):
        artifacts.delete(base["id"])
    assert Path(base["path"]).exists()
    artifacts.delete(child["id"])
    artifacts.delete(base["id"])


def test_lineage_up_and_down(home: Path) -> None:
    base = artifacts.add("model", "base", folder(home, "b"), made_from=[("shipped:moon-stories", "data")])
    tuned = artifacts.add("adapter", "tuned", folder(home, "t"), made_from=[(base["ref"], "base"), ("shipped:polite", "data")])
    merged = artifacts.add("model", "merged", folder(home, "m"), made_from=[(base["ref"], "base"), (tuned["ref"], "adapter")])
    family = artifacts.lineage(tuned["id"])
    labels = {node["label"] for node in family["nodes"]}
    assert labels == {"base", "tuned", "merged", "polite", "moon-stories"}
    edges = {(e["parent"], e["child"], e["role"]) for e in family["edges"]}
    assert edges == {("shipped:moon-stories", base["ref"], "data"), (base["ref"], tuned["ref"], "base"),
                     ("shipped:polite", tuned["ref"], "data"), (tuned["ref"], merged["ref"], "adapter")}
    artifacts.delete(tuned["id"])
    assert any(node["kind"] == "deleted" for node in artifacts.lineage(merged["id"])["nodes"])


def test_lineage_passes_through_checkpoints_and_ends_in_a_cycle(home: Path) -> None:
    run = home / "runs" / "rabc1"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("kind: sft\nmethod: lora\nmodel: starter\ndataset: shipped:polite\n")
    made = artifacts.add("adapter", "a", folder(home, "a"), made_from=[("run:rabc1/checkpoint-5", "base")])
    assert {n["ref"] for n in artifacts.lineage(made["id"])["nodes"]} == {
        made["ref"], "run:rabc1/checkpoint-5", "starter", "shipped:polite"}
    artifacts.add("adapter", "a", Path(made["path"]), made_from=[(made["ref"], "base")])
    assert len(artifacts.lineage(made["id"])["nodes"]) == 1


def test_checkpoints(home: Path) -> None:
    base = home / "runs" / "rabc1" / "checkpoints"
    for step, loss in ((5, 2.0), (10, 1.5), (15, None), (20, 1.7)):
        path = base / f"checkpoint-{step}"
        path.mkdir(parents=True)
        history = [{"step": step, "loss": 9.0}] + ([{"step": step, "eval_loss": loss}] if loss else [])
        (path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
        (path / "COMPLETE").touch()
    (base / "checkpoint-20" / "COMPLETE").unlink()
    found = artifacts.checkpoints("rabc1")
    assert [(c["step"], c["eval_loss"], c["best"]) for c in found] == [(5, 2.0, False), (10, 1.5, True), (15, None, False)]
    assert found[0]["ref"] == "run:rabc1/checkpoint-5"
    assert artifacts.checkpoints("rnone1") == []


def test_owner_sees_own(home: Path) -> None:
    artifacts.add("model", "a", folder(home, "a"), owner="ann")
    artifacts.add("model", "b", folder(home, "b"), owner="bob")
    assert [row["name"] for row in artifacts.listed(owner="ann")] == ["a"]
    assert len(artifacts.listed()) == 2


def test_cards(home: Path) -> None:
    path = folder(home, "a")
    row = artifacts.add("adapter", "a", path, meta={"method": "sft/lora", "eval_loss": 1.25, "parameters": 3_000_000},
                        made_from=[("hub:lab/base@main", "base"), ("hub:lab/rows", "data")])
    text = cards.card(row)
    assert "base_model: lab/base\n" in text and "- lab/rows" in text and "library_name: peft" in text and "1.25" in text
    (path / "README.md").write_text("# My own words")
    assert cards.card(row) == "# My own words"


def test_chats(home: Path) -> None:
    data = {"columns": [{"ref": "starter", "messages": [{"role": "user", "content": "hello  there"}]}]}
    made = chats.save(data, owner="ann")
    assert made["title"] == "hello there" and chats.load(made["id"])["data"] == data
    again = chats.save({"columns": []}, made["id"], "Renamed", owner="ann")
    assert again["id"] == made["id"] and again["title"] == "Renamed" and again["data"] == {"columns": []}
    assert [chat["id"] for chat in chats.listed("ann")] == [made["id"]] and chats.listed("bob") == []
    for refused in (lambda: chats.load(made["id"], "bob"), lambda: chats.delete(made["id"], "bob"),
                    lambda: chats.save({}, made["id"], owner="bob"), lambda: chats.load("nope"),
                    lambda: chats.save({"x": "y" * 9_000_000}), lambda: chats.save({"x": object()})):
        with pytest.raises(StudioError):
            refused()
    chats.delete(made["id"], "ann")
    assert chats.listed() == []
