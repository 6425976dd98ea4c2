"""Files in and out of the page: what may be taken over from an upload, and what may be fetched by whom."""

from __future__ import annotations

import pytest

from components import data_rpc, serving
from studio import settings
from studio.library import artifacts


@pytest.fixture(autouse=True)
def _no_offers(monkeypatch):
    monkeypatch.setattr(serving, "_offers", {})


def test_an_offer_is_a_secret_that_ends(tmp_path, monkeypatch):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    url = serving.offer(file)
    path = url.removeprefix("studio/")
    assert serving.offered(path) == file
    assert serving.offer(file) != url
    assert serving.offered("download/") is None and serving.offered("download/../rows.jsonl") is None
    assert serving.offered(path.replace("download", "css")) is None
    monkeypatch.setattr(serving.time, "time", lambda: 1e12)
    assert serving.offered(path) is None
    serving.offer(file)
    assert len(serving._offers) == 1, "what has ended is forgotten"


def test_offers_do_not_pile_up(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n")
    for _ in range(serving._MOST_OFFERS + 20):
        serving.offer(file)
    assert len(serving._offers) <= serving._MOST_OFFERS + 1


def test_only_files_of_the_workspace_are_handed_out(home, tmp_path):
    inside = settings.home() / "exports" / "rows"
    inside.mkdir(parents=True)
    (inside / "train.jsonl").write_text("{}\n")
    (inside / ".part").write_text("half")
    row = artifacts.add("file", "rows", inside)
    answer = data_rpc.data_file({"id": row["id"]}, None)["ok"]
    assert [(file["name"], file["size"]) for file in answer] == [("train.jsonl", 3)]
    assert serving.offered(answer[0]["url"].removeprefix("studio/")) == (inside / "train.jsonl").resolve()
    (tmp_path / "elsewhere.jsonl").write_text("secret")
    outside = artifacts.add("file", "elsewhere", tmp_path / "elsewhere.jsonl")
    assert "error" in data_rpc.data_file({"id": outside["id"]}, None)
    assert "error" in data_rpc.data_file({"id": "../../etc/passwd"}, None)


def test_only_a_fresh_upload_is_taken_over(home, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    sent = tmp_path / "gradio" / "abc" / "rows.jsonl"
    sent.parent.mkdir(parents=True)
    sent.write_text('{"text": "a"}\n')
    (tmp_path / "secret.jsonl").write_text("secret")
    for path in (str(tmp_path / "secret.jsonl"), f"{sent.parent}/../../secret.jsonl", "/etc/passwd", ""):
        assert data_rpc.data_upload({"path": path}, None)["error"]["hint"]
    taken = data_rpc.data_upload({"path": str(sent)}, None)["ok"]
    assert (settings.home() / taken["ref"]).read_text() == '{"text": "a"}\n'
    assert not sent.exists(), "it is not kept twice"
