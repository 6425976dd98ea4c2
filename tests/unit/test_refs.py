"""References: what each form resolves to, and how what cannot be used is refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from studio import settings
from studio.errors import StudioError
from studio.library import artifacts, modelinfo, refs
from tests.models import make_adapter, make_model, tensor_file


def refused(ref: object, field: str = "model") -> StudioError:
    resolve = refs.resolve_model if field == "model" else refs.resolve_dataset
    with pytest.raises(StudioError) as caught:
        resolve(ref)
    assert caught.value.field == field
    assert caught.value.message and caught.value.hint
    return caught.value


def test_starter(home: Path) -> None:
    found = refs.resolve_model("starter")
    assert found.path == settings.STARTER and not found.is_adapter and found.base is None
    assert 1e6 < found.meta["parameters"] < 4e6 and found.meta["chat_template"]
    assert found.source == str(settings.STARTER)


@pytest.mark.parametrize("how", ["absolute", "relative", "home"])
def test_local_folder(home: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    folder = make_model(home / "models" / "mine")
    monkeypatch.setenv("HOME", str(home))
    ref = {"absolute": str(folder), "relative": "models/mine", "home": "~/models/mine"}[how]
    found = refs.resolve_model(ref)
    assert found.path == folder and found.label == "mine"
    assert found.meta["parameters"] == 6 and found.meta["dtype"] == "F32" and found.meta["context"] == 128


def test_facts_follow_the_files(home: Path) -> None:
    folder = make_model(home / "models" / "mine")
    assert modelinfo.describe(folder)["parameters"] == 6
    tensor_file(folder / "model.safetensors", (10, 10))
    assert modelinfo.describe(folder)["parameters"] == 100


def test_sharded_weights(home: Path) -> None:
    folder = make_model(home / "models" / "big")
    (folder / "model.safetensors").unlink()
    for n in (1, 2):
        tensor_file(folder / f"model-{n}-of-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}))
    assert refs.resolve_model(str(folder)).meta["parameters"] == 12
    (folder / "model-2-of-2.safetensors").unlink()
    assert "1 of 2 weight files" in refused(str(folder)).message


def test_adapter_names_its_base(home: Path) -> None:
    base = make_model(home / "models" / "base")
    written = make_adapter(home / "models" / "a", str(base))
    assert refs.resolve_model(str(written)).base == str(base)
    assert refs.resolve_model(str(make_adapter(home / "models" / "b", str(settings.STARTER)))).base == "starter"
    assert refs.resolve_model(str(make_adapter(home / "models" / "c", "owner/name"))).base == "hub:owner/name"
    assert refs.resolve_model(str(written)).is_adapter


def test_library_lineage_wins_over_the_written_base(home: Path) -> None:
    folder = make_adapter(home / "models" / "a", "/gone/elsewhere")
    row = artifacts.add("adapter", "mine", folder, made_from=[("starter", "base"), ("shipped:polite", "data")])
    found = refs.resolve_model(row["ref"])
    assert found.base == "starter" and found.is_adapter and found.label == "mine"


def test_an_adapter_trained_further_belongs_to_the_first_base(home: Path) -> None:
    first = artifacts.add("adapter", "one", make_adapter(home / "models" / "a", "x"), made_from=[("starter", "base")])
    second = artifacts.add("adapter", "two", make_adapter(home / "models" / "b", "x"), made_from=[(first["ref"], "base")])
    third = artifacts.add("adapter", "three", make_adapter(home / "models" / "c", "x"), made_from=[(second["ref"], "base")])
    assert refs.resolve_model(third["ref"]).base == "starter"


def test_checkpoint(home: Path) -> None:
    folder = home / "runs" / "rabc1"
    make_adapter(folder / "checkpoints" / "checkpoint-10", "whatever")
    (folder / "recipe.yaml").write_text("kind: sft\nmethod: lora\nmodel: starter\nname: Polite\n")
    assert "not complete" in refused("run:rabc1/checkpoint-10").message
    (folder / "checkpoints" / "checkpoint-10" / "COMPLETE").touch()
    found = refs.resolve_model("run:rabc1/checkpoint-10")
    assert found.base == "starter" and found.is_adapter and "checkpoint-10" in found.label and "Polite" in found.label
    assert "not there" in refused("run:rabc1/checkpoint-11").message


@pytest.mark.parametrize("ref", ["run:rabc1", "run:../../etc/checkpoint-1", "run:rabc1/checkpoint-x", "run:rabc1/../x",
                                 "library:", "library:nope", "library:../../etc", "shipped:polite", "", "   ", None, 7,
                                 "a\x00b", "a\nb", "x" * 5000, "/nowhere/at/all", "hub:", "hub:../x", "hub:a/b/c", "hub:a b"])
def test_refused_models(home: Path, ref: object) -> None:
    refused(ref)


@pytest.mark.parametrize("ref", ["shipped:", "shipped:../../x", "library:nope", "run:rabc1/checkpoint-1", "", None, "a\x00b",
                                 "/nowhere.jsonl", "hub:", "hub:a b", "x" * 5000])
def test_refused_datasets(home: Path, ref: object) -> None:
    refused(ref, "dataset")


def test_near_misses_are_named(home: Path) -> None:
    make_model(home / "models" / "assistant")
    assert "models/assistant" in refused("models/asistant").hint
    assert "'starter'" in refused("startr").hint
    assert "hub:owner/name" in refused("owner/name").hint
    assert "shipped:polite" in refused("shipped:polit", "dataset").hint
    assert "hub:" not in refused("data/rows.jsonl", "dataset").hint


def test_what_is_no_model(home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no config.json" in refused(str(empty)).message
    (empty / "model.gguf").write_bytes(b"GGUF")
    assert "GGUF" in refused(str(empty)).message
    file = tmp_path / "file.txt"
    file.write_text("x")
    assert "a file" in refused(str(file)).message


def test_pickles_are_refused(home: Path) -> None:
    folder = make_model(home / "models" / "old")
    (folder / "model.safetensors").unlink()
    assert "no weights" in refused(str(folder)).message
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "pickle" in refused(str(folder)).message


@pytest.mark.parametrize("damage", ["cut", "empty", "no header", "huge header", "not json", "wrong shapes"])
def test_broken_weights(home: Path, damage: str) -> None:
    folder = make_model(home / "models" / "broken")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-4], "empty": b"", "no header": b"abc", "huge header": struct.pack("<Q", 2**60) + b"{}",
                      "not json": struct.pack("<Q", 4) + b"nope", "wrong shapes": struct.pack("<Q", 7) + b'{"w":1}'}[damage])
    assert "broken" in refused(str(folder)).message


@pytest.mark.parametrize("text", ["{", "[]", "\udcff", "[" * 100_000])
def test_broken_config(home: Path, text: str) -> None:
    folder = make_model(home / "models" / "broken")
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "config.json" in refused(str(folder)).message


def test_datasets(home: Path, tmp_path: Path) -> None:
    shipped = refs.resolve_dataset("shipped:polite")
    assert shipped.path.is_file() and shipped.label == "Polite answers" and shipped.meta["rows"] == 200
    file = tmp_path / "rows.jsonl"
    file.write_text("")
    assert "empty" in refused(str(file), "dataset").message
    file.write_text('{"text": "a"}\n')
    assert refs.resolve_dataset(str(file)).path == file
    row = artifacts.add("dataset", "made", file)
    assert refs.resolve_dataset(row["ref"]).label == "made"
    file.unlink()
    assert "moved or deleted" in refused(row["ref"], "dataset").message
    found = refs.resolve_dataset("hub:lab/rows@main#default/train")
    assert (found.hub_id, found.revision, found.label) == ("lab/rows", "main", "lab/rows")


def test_every_shipped_dataset_is_there(home: Path) -> None:
    keys = refs.shipped_datasets()
    assert len(keys) >= 8
    for key in keys:
        assert refs.resolve_dataset(f"shipped:{key}").path.is_file()


def test_a_model_is_no_dataset(home: Path) -> None:
    row = artifacts.add("model", "m", make_model(home / "models" / "m"))
    assert "not a dataset" in refused(row["ref"], "dataset").message
    file = home / "datasets" / "d.jsonl"
    file.write_text("{}\n")
    assert "not a model" in refused(artifacts.add("dataset", "d", file)["ref"]).message


def test_a_visitor_of_a_space_reads_only_the_workspace(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "secret.jsonl"
    outside.write_text("{}\n")
    (home / "uploads").mkdir(exist_ok=True)
    link = home / "uploads" / "link2.jsonl"
    link.symlink_to(outside)
    assert refs.resolve_dataset(str(outside)).path == outside
    monkeypatch.setenv("SPACE_ID", "ann/space")
    for ref in (str(outside), "../secret.jsonl", "uploads/link2.jsonl", "/etc/passwd"):
        assert "outside the workspace" in refused(ref, "dataset").message


def test_owners(home: Path) -> None:
    mine = artifacts.add("model", "m", make_model(home / "models" / "m"), owner="ann")
    (home / "uploads" / "ann").mkdir(parents=True)
    (home / "uploads" / "ann" / "a.jsonl").write_text("{}\n")
    for ref in (mine["ref"], "starter", "shipped:polite", "hub:a/b", "uploads/ann/a.jsonl"):
        refs.check_owner(ref, "ann", "model")
        refs.check_owner(ref, None, "model")
    for ref in (mine["ref"], "uploads/ann/a.jsonl", "uploads/bob/../ann/a.jsonl", "/etc/passwd", str(home / "studio.db")):
        with pytest.raises(StudioError):
            refs.check_owner(ref, "bob", "model")


def test_an_artifact_survives_a_moved_workspace(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = artifacts.add("model", "m", make_model(home / "models" / "m"))
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    monkeypatch.setenv("STUDIO_HOME", str(moved))
    assert refs.resolve_model(row["ref"]).path == moved / "models" / "m"
