"""Hub datasets without the Hub: the worker's reader on a folder, the page's first look on a stand-in viewer."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

from studio.datasets.formats import Rows, detect
from studio.datasets.hubrows import HubReader
from studio.datasets.inspect import inspect
from studio.errors import StudioError

ROWS = [{"question": f"{i}?", "answer": f"{i}."} for i in range(6)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dataset as ``datasets`` reads it from a folder: a train and a test split."""
    pytest.importorskip("datasets")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = tmp_path / "set"
    made.mkdir()
    for split, rows in (("train", ROWS), ("test", ROWS[:2])):
        (made / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return made


def test_train_split_is_read_and_can_be_read_again(folder):
    reader = HubReader(str(folder))
    assert list(reader) == ROWS == list(reader) and reader.count() == 6
    rows = Rows(reader, detect(ROWS))
    assert list(rows) == [{"prompt": r["question"], "completion": r["answer"]} for r in ROWS] and rows.total == 6


def test_another_split(folder):
    assert list(HubReader(str(folder), part="test")) == ROWS[:2]
    assert list(HubReader(str(folder), part="default/test")) == ROWS[:2]
    with pytest.raises(StudioError, match="no split 'valid'") as caught:
        list(HubReader(str(folder), part="valid"))
    assert caught.value.field == "dataset" and "test" in caught.value.hint


def test_a_dataset_that_cannot_be_fetched(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StudioError) as caught:
        list(HubReader(str(tmp_path / "nothing")))
    assert caught.value.field == "dataset" and caught.value.hint


@pytest.fixture
def viewer(monkeypatch):
    """A stand-in of the Hub's dataset viewer; answers by path, and remembers what it was asked."""
    asked = []
    answers = {
        "/splits": {"splits": [{"config": "main", "split": "test"}, {"config": "main", "split": "train"},
                               {"config": "socratic", "split": "train"}]},
        "/first-rows": {"rows": [{"row_idx": i, "row": row} for i, row in enumerate(ROWS)]},
        "/size": {"size": {"split": {"num_rows": 7473}}},
    }

    class Viewer(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlparse(self.path)
            query = {k: v[0] for k, v in parse_qs(url.query).items()}
            asked.append((url.path, query))
            known = query.get("dataset") == "someone/sums" and url.path in answers
            body = json.dumps(answers[url.path] if known else {"error": "not found"}).encode()
            self.send_response(200 if known else 500 if "broken" in query.get("dataset", "") else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Viewer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_DATASETS_SERVER", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield asked
    server.shutdown()
    server.server_close()


def test_first_look_without_download(home, viewer):
    report = inspect("hub:someone/sums")
    assert report["format"] == "prompt_completion" and report["rows"] == 7473 and report["rows_exact"]
    assert report["checked"] == 6 and report["samples"][0] == {"prompt": "0?", "completion": "0."}
    assert {"dataset": "someone/sums", "config": "main", "split": "train"} == dict(viewer)["/first-rows"]


@pytest.mark.parametrize(("part", "rows"), [("main/train[:1000]", 1000), ("main/train[10%:]", 6726), ("main/train[7000:9000]", 473),
                                             ("main/train[8000:]", 0)])
def test_rows_of_a_slice(home, viewer, part, rows):
    assert inspect(f"hub:someone/sums#{part}")["rows"] == (rows or 6), "nothing known: the rows that were shown"


def test_config_and_split_are_chosen_behind_the_hash(home, viewer):
    inspect("hub:someone/sums#socratic/train")
    assert dict(viewer)["/first-rows"]["config"] == "socratic"
    with pytest.raises(StudioError, match="no such config") as caught:
        inspect("hub:someone/sums#easy/train")
    assert "socratic/train" in caught.value.hint


@pytest.mark.parametrize(("ref", "said"),
                         [("hub:someone/nothing", "no dataset"), ("hub:someone/broken", "cannot show"),
                                           ("hub:///x", "not a Hub id")])
def test_refusals(home, viewer, ref, said):
    with pytest.raises(StudioError, match=said) as caught:
        inspect(ref)
    assert caught.value.field == "dataset" and caught.value.hint


def test_viewer_that_is_not_there(home, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_SERVER", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(StudioError, match="cannot be reached"):
        inspect("hub:someone/sums")
