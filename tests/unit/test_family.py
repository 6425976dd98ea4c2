"""The family tree: who stands where, what is left out, circles, and what the Hub's cards add."""

from __future__ import annotations

import time

import pytest

from studio import api, hub
from studio.library import artifacts
from tests.hub_stand_in import Hub, Repo


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here has a workspace of its own."""


def add(home, name: str, made_from: list[tuple[str, str]], kind: str = "model", **meta) -> str:
    folder = home / "things" / name
    folder.mkdir(parents=True)
    return artifacts.add(kind, name, folder, meta=meta, made_from=made_from)["ref"]


def by_label(found: dict) -> dict[str, dict]:
    return {node["label"]: node for node in found["nodes"]}


def test_a_child_stands_behind_both_parents(home):
    sums = add(home, "sums", [("starter", "base"), ("shipped:sums", "data")], "adapter", method="sft/lora")
    polite = add(home, "polite", [("starter", "base"), ("shipped:polite", "data")], method="sft/full")
    both = add(home, "both", [(sums, "parent"), (polite, "parent"), ("starter", "base")], method="merge/mergekit")
    add(home, "small", [(both, "source")], method="quantize/gguf", format="gguf", quantization="Q4_K_M")
    found = api.family()
    nodes = by_label(found)
    assert {label: (node["kind"], node["x"]) for label, node in nodes.items()} == {
        "Starter": ("starter", 0), "sums": ("adapter", 1), "polite": ("model", 1), "both": ("merge", 2),
        "small": ("quantized", 3)}
    assert nodes["small"]["method"] == "Q4_K_M"
    assert {(e["parent"], e["role"]) for e in found["edges"] if e["child"] == both} == {
        (sums, "parent"), (polite, "parent"), ("starter", "base")}
    assert abs(nodes["sums"]["y"] - nodes["polite"]["y"]) >= 1, "two in one generation lie apart"
    assert nodes["sums"]["y"] <= nodes["both"]["y"] <= nodes["polite"]["y"] or \
        nodes["polite"]["y"] <= nodes["both"]["y"] <= nodes["sums"]["y"]
    data = {node["ref"]: (node["kind"], node["x"]) for node in api.family(datasets=True)["nodes"]}
    assert data["shipped:sums"] == data["shipped:polite"] == ("dataset", 0) and data[sums] == ("adapter", 1)


def test_a_checkpoint_and_what_was_deleted_are_shown_as_such(home):
    run = home / "runs" / "rabcdefghij"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("kind: sft\nmethod: lora\nmodel: starter\ndataset: shipped:polite\n")
    add(home, "on", [("run:rabcdefghij/checkpoint-20", "base")], "adapter")
    add(home, "orphan", [("library:agone", "base")])
    nodes = by_label(api.family())
    assert nodes["checkpoint-20"]["kind"] == "checkpoint" and nodes["Starter"]["x"] == 0
    assert (nodes["checkpoint-20"]["x"], nodes["on"]["x"]) == (1, 2)
    assert nodes[""]["kind"] == "deleted" and nodes["orphan"]["x"] == 1


def test_a_circle_is_marked_and_drawn_all_the_same(home):
    one = add(home, "one", [])
    two = add(home, "two", [(one, "base")])
    artifacts.add("model", "one", home / "things" / "one", made_from=[(two, "base")])
    found = api.family()
    assert len(found["nodes"]) == 2 and len(found["edges"]) == 2
    assert [bool(edge.get("circle")) for edge in found["edges"]].count(True) == 1
    assert sorted(node["x"] for node in found["nodes"]) == [0, 1]


def test_a_person_on_a_space_sees_only_their_own(home, monkeypatch):
    for name in ("ann", "bob"):
        folder = home / "of" / name
        folder.mkdir(parents=True)
        artifacts.add("model", f"{name}s", folder, owner=name)
    monkeypatch.setenv("SPACE_ID", "lab/studio")
    assert [node["label"] for node in api.family("ann")["nodes"]] == ["anns"]
    assert not api.family(None)["nodes"]


def test_a_long_line_and_a_large_library_are_quick(home):
    folder = home / "things" / "many"
    folder.mkdir(parents=True)
    before = "starter"
    for i in range(300):
        (folder / str(i)).mkdir()
        before = artifacts.add("model", f"m{i}", folder / str(i), made_from=[(before, "base")])["ref"]
    began = time.process_time()
    found = api.family()
    assert time.process_time() - began < 1
    assert max(node["x"] for node in found["nodes"]) == 300


def test_cards_of_the_hub_add_grandparents(home, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    repos = [Repo("lab/tuned", card={"base_model": "lab/base"}),
             Repo("lab/merged", card={"base_model": ["lab/tuned", "lab/other"], "base_model_relation": "merge"}),
             Repo("lab/base"), Repo("lab/other", card={"base_model": "lab/merged"})]
    with Hub(*repos) as there:
        monkeypatch.setenv("HF_ENDPOINT", there.url)
        add(home, "mine", [("hub:lab/merged@main", "base")], "adapter")
        assert {node["label"] for node in api.family()["nodes"]} == {"mine", "lab/merged"}
        found = api.family(outside=True)
        nodes = by_label(found)
        assert set(nodes) == {"mine", "lab/merged", "lab/tuned", "lab/base", "lab/other"} and len(found["nodes"]) == 5
        roles = {(e["parent"], e["child"]): e["role"] for e in found["edges"]}
        assert roles["hub:lab/tuned", "hub:lab/merged@main"] == "merge" and roles["hub:lab/base", "hub:lab/tuned"] == "base"
        asked = len(there.requests)
        api.family(outside=True)
        assert len(there.requests) == asked, "the Hub was asked twice for what it had told"


def test_without_the_hub_the_tree_is_what_is_here(home, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    add(home, "mine", [("hub:lab/nowhere", "base")])
    assert {node["label"] for node in api.family(outside=True)["nodes"]} == {"mine", "lab/nowhere"}
    assert hub.bases("lab/nowhere") == []


def test_a_card_in_the_cache_is_enough(home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--lab--kept" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text("abc")
    (folder / "README.md").write_text("---\nbase_model: lab/root\nbase_model_relation: finetune\n---\n# Kept\n")
    assert hub.bases("lab/kept") == [("lab/root", "finetune")]
