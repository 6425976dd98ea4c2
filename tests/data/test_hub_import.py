"""Datasets and single files of the Hub (a stand-in of it) by config, split, slice and address."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from studio.datasets.hubrows import part_of
from studio.datasets.inspect import inspect
from studio.errors import StudioError
from studio.library import artifacts, refs
from tests.hub_stand_in import Hub, Repo


def lines(count: int, word: str = "") -> bytes:
    return "".join(json.dumps({"question": f"{word}{i}?", "answer": f"{i}."}) + "\n" for i in range(count)).encode()


CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train.jsonl}
---
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A dataset with two configs on a stand-in of the Hub; the ``datasets`` library is pointed at it."""
    import datasets
    import huggingface_hub.constants as constants

    repo = Repo("lab/sums", kind="dataset", files={
        "README.md": CARD, "train.jsonl": lines(50), "test.jsonl": lines(5), "socratic/train.jsonl": lines(7, "s"),
        "data/more.jsonl.gz": gzip.compress(lines(9, "m"))})
    with Hub(repo, Repo("lab/secret", kind="dataset", files={"a.jsonl": lines(3)}, gated="auto")) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.setenv(name, str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url
                            + "/{repo_id}/resolve/{revision}/{filename}")
        yield server


@pytest.mark.parametrize(("part", "parts"), [
    ("", ("", "", None)), ("test", ("", "test", None)), ("main/test", ("main", "test", None)),
    ("train[:10]", ("", "train", ("", "10"))), ("a/b/train[5:10%]", ("a/b", "train", ("5", "10%"))),
                                             ("[3:]", ("", "", ("3", "")))])
def test_what_stands_behind_the_name(part, parts):
    assert part_of(part) == parts


@pytest.mark.parametrize("part", ["train[", "train[1:2:3]", "train[-5:]", "train[a:b]", "tr ain"])
def test_other_ways_of_writing_it_are_refused(part):
    with pytest.raises(StudioError, match="not a config, split or slice") as caught:
        part_of(part)
    assert caught.value.hint


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("part", "first", "count"), [
    ("main", "0?", 50), ("socratic", "s0?", 7), ("socratic[2:4]", "s2?", 2), ("main/train", "0?", 50), ("main/test", "0?", 5), ("socratic/train", "s0?", 7),
    ("main/train[:3]", "0?", 3), ("main/train[40:]", "40?", 10), ("main/train[10:20]", "10?", 10),
                                                      ("main/train[50%:60%]", "25?", 5),
    ("main/[:4]", "0?", 4)])
def test_configs_splits_and_slices(hub, run_step, part, first, count):
    made = run_step("import", sources=[f"hub:lab/sums#{part}"])
    rows = list(made.rows())
    assert len(rows) == count and rows[0]["prompt"] == first
    (edge,) = artifacts.lineage(made.ref.removeprefix("library:"))["edges"]
    assert edge["parent"] == f"hub:lab/sums#{part}"


@pytest.mark.timeout(60)
def test_several_configs_and_none_is_named(hub, run_step):
    with pytest.raises(StudioError, match="several configs") as caught:
        run_step("import", sources=["hub:lab/sums"])
    assert "main" in caught.value.message


@pytest.mark.timeout(60)
def test_a_slice_beyond_the_end(hub, run_step):
    with pytest.raises(StudioError, match="has no rows"):
        run_step("import", sources=["hub:lab/sums#main/train[90:99]"])


@pytest.mark.timeout(60)
def test_files_by_their_address(hub, run_step, home):
    addresses = ["hf://datasets/lab/sums/socratic/train.jsonl",
                 f"{hub.url}/datasets/lab/sums/resolve/main/test.jsonl?download=true",
                 f"{hub.url}/datasets/lab/sums/blob/main/data/more.jsonl.gz"]
    made = run_step("import", sources=addresses)
    assert made.meta["sources"] == {"train.jsonl": 7, "test.jsonl": 5, "more.jsonl.gz": 9}
    said = made.meta["history"][-1]["facts"]["sources"]
    assert [entry["format"] for entry in said] == ["prompt_completion"] * 3 and all(entry["evidence"]
                                                                                    for entry in said)
    report = inspect(addresses[0])
    assert report["rows"] == 7 and report["format"] == "prompt_completion"
    with pytest.raises(StudioError, match="lacks a file"):
        inspect("hf://datasets/lab/sums/nothing.jsonl")
    with pytest.raises(StudioError, match="gated"):
        inspect("hf://datasets/lab/secret/a.jsonl")


def test_a_large_file_is_not_fetched_for_a_first_look(hub, home, monkeypatch):
    from studio.datasets import inspect as inspector

    monkeypatch.setattr(inspector, "FETCHED", 100)
    with pytest.raises(StudioError, match="looked at once it is brought in"):
        inspect("hf://datasets/lab/sums/train.jsonl")
    assert not any(asked.startswith("GET") and "train.jsonl" in asked for asked in hub.requests)


@pytest.mark.parametrize(("ref", "said"), [
    ("https://example.com/x.jsonl", "Only files of the Hub"), ("http://127.0.0.1:1/x.jsonl", "Only files of the Hub"),
    ("https://huggingface.co/lab/model", "not the address of a dataset"),
                                           ("hf://datasets/lab/sums", "not the address of a file"),
    ("hf://models/lab/x/y", "not the address of a file"),
                                           ("https://huggingface.co/datasets/lab/sums/resolve/main", "names no file"),
    ("https://huggingface.co/datasets/lab/sums/resolve/main/../../x", "not the address of a file"),
    ("hf://datasets/lab/sums/../x.jsonl", "not the address of a file")])
def test_other_addresses_are_refused(home, monkeypatch, ref, said):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(StudioError, match=said) as caught:
        refs.resolve_dataset(ref)
    assert caught.value.field == "dataset"


def test_pages_of_the_hub_stand_for_their_dataset(home, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    base = "https://huggingface.co/datasets/lab/sums"
    assert refs.resolve_dataset(base).hub_id == "lab/sums"
    assert refs.resolve_dataset(f"{base}/viewer/main/test").meta == {"part": "main/test"}
    assert refs.resolve_dataset(f"{base}/tree/v2").revision == "v2"
    found = refs.resolve_dataset("hf://datasets/lab/sums@v2/a/b.jsonl")
    assert (found.hub_id, found.revision, found.meta, found.label) == ("lab/sums", "v2", {"file": "a/b.jsonl"},
                                                                       "b.jsonl")
    refs.check_owner(f"{base}/resolve/main/a.jsonl", "someone", "dataset")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["main/valid[:3]", "main/valid[:10%]", "main/valid"])
def test_a_split_that_is_not_there(hub, run_step, part):
    with pytest.raises(StudioError, match="no (such )?split") as caught:
        run_step("import", sources=[f"hub:lab/sums#{part}"])
    assert caught.value.field == "sources" and "test" in caught.value.message + caught.value.hint
