"""A dataset with its splits and card pushed to a stand-in of the Hub, and read back from there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from studio import hub, registry
from studio.datasets.card import card
from studio.datasets.version import Writer
from studio.errors import StudioError
from studio.jobs.context import Context
from studio.library import artifacts
from studio.recipe import parse
from studio.settings import run_dir
from tests.hub_stand_in import READ_ONLY, TOKEN, Hub, Repo

ROWS = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}."}]}
        for i in range(20)]


@pytest.fixture
def standin(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(hub, "_facts", {})
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    old = {"data/train-00000-of-00002.parquet": b"old", "data/notes.txt": b"keep", "LICENSE": b"keep"}
    with Hub(Repo("lab/old", kind="dataset", files=old)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def version(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    home = (tmp_path / ("a-long-name-" * 9) / "home").resolve()  # longer than what the card shows of a field
    home.mkdir(parents=True)
    monkeypatch.setenv("STUDIO_HOME", str(home))
    with Writer(home / "datasets" / "d", {"short": "are too short"}) as out:
        for row in ROWS:
            out.add(row, f"{home}/a.jsonl", tags={"site": "park"})
        out.reject("short", source="a.jsonl")
        out.rows_in = 21
        out.split = "validation"
        out.add(ROWS[0])
        made = out.close({"method": "import", "sources": [f"{home}/a | b <script>.jsonl"]})
    return artifacts.add("dataset", "Sums", made.path, meta={"version": True})["ref"]


def publish(**values):
    recipe = parse({"kind": "publish", "method": "dataset", "repo_id": "mine", **values})
    method = registry.method("publish", "dataset")
    method.check(recipe)
    ctx = Context(run_dir("rpush1"))
    try:
        return method.run(recipe, ctx)
    finally:
        ctx.close()


def test_splits_and_card_arrive(standin, version, home):
    import pyarrow.parquet as pq

    made = publish(dataset=version, license="cc-by-4.0")
    assert made["url"] == f"{standin.url}/datasets/ann/mine" and made["rows"] == 21 and made["left_out"] == 0
    repo = standin.repos["dataset", "ann/mine"]
    assert repo.private and set(repo.files) == {"data/train-00000-of-00001.parquet",
                                                "data/validation-00000-of-00001.parquet",
                                                "README.md"}
    assert pq.read_table(io.BytesIO(repo.files["data/train-00000-of-00001.parquet"])).to_pylist() == ROWS
    text = repo.files["README.md"].decode()
    assert "license: cc-by-4.0" in text and "size_categories:\n- n<1K" in text and "path: data/validation-*.parquet" in text
    assert "| train | 20 |" in text and "| 1 | **import**" in text and "1 are too short" in text and "| 21 |" in text
    assert "a-long-name" not in text and "<script>" not in text and "a \\| b" in text
    assert not list((run_dir("rpush1") / "parquet").iterdir()), "nothing is left behind on this disk"


def test_what_was_published_can_be_read_again(standin, version, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    publish(dataset=version)
    folder = tmp_path / "copy"
    for name, data in standin.repos["dataset", "ann/mine"].files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "c"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 20, "validation": 1}
    assert found["train"][3] == ROWS[3]


def test_an_older_state_is_replaced_as_a_whole(standin, version):
    publish(dataset=version, repo_id="lab/old", private=False, commit_message="Second")
    files = standin.repos["dataset", "lab/old"].files
    assert "data/train-00000-of-00002.parquet" not in files and {"data/notes.txt", "LICENSE"} <= set(files)
    assert standin.repos["dataset", "lab/old"].messages == ["Second"] and not standin.repos["dataset",
                                                                                            "lab/old"].private


def test_another_format_and_tags(standin, version):
    import pyarrow.parquet as pq

    publish(dataset=version, format="prompt_completion", with_tags=True)
    files = standin.repos["dataset", "ann/mine"].files
    row = pq.read_table(io.BytesIO(files["data/train-00000-of-00001.parquet"])).to_pylist()[0]
    assert row["prompt"] == "0?" and row["completion"] == "0." and row["tags"] == {"site": "park"}
    assert "`source` and `tags`" in files["README.md"].decode()
    with pytest.raises(StudioError, match="No row fits"):
        publish(dataset=version, format="preference")


def test_refused_early(standin, version, home, monkeypatch):
    (home / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    for values, field in (({"dataset": version, "repo_id": ""}, "repo_id"), ({"dataset": "a.jsonl"}, "dataset"),
                          ({"dataset": ""}, "dataset")):
        with pytest.raises(StudioError) as caught:
            publish(**values)
        assert caught.value.field == field and caught.value.hint
    with pytest.raises(StudioError):
        publish(dataset=version, repo_id="../x")
    monkeypatch.setenv("HF_TOKEN", READ_ONLY)
    with pytest.raises(StudioError, match="may not do this") as caught:
        publish(dataset=version)
    assert ("dataset", "ann/mine") not in standin.repos
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    with pytest.raises(StudioError, match="Space cannot publish"):
        publish(dataset=version)


def test_a_stop_changes_nothing(standin, version):
    ctx = Context(run_dir("rstop1"))
    ctx.request_stop()
    recipe = parse({"kind": "publish", "method": "dataset", "repo_id": "lab/old", "dataset": version})
    made = registry.method("publish", "dataset").run(recipe, ctx)
    ctx.close()
    assert made["files"] == 0 and "data/train-00000-of-00002.parquet" in standin.repos["dataset", "lab/old"].files


def test_every_shape_has_its_card(home, tmp_path):
    for number, row in enumerate(({"text": "a"}, {"prompt": "a", "completion": "b"},
                                  {"prompt": "a", "chosen": "b", "rejected": "c"},
                                  {"prompt": "a", "completion": "b", "label": True}, ROWS[0])):
        with Writer(tmp_path / str(number)) as out:
            out.add(row)
            made = out.close({"method": "x"})
        text = card(made, "x", {"train": 1})
        assert text.startswith("---\n") and "No licence was chosen" in text and text.count("\n* `") == 1
