"""Many sources at once: each detected on its own, told in the history, and none spoiling the others."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest

from studio import api
from studio.datasets.inspect import inspect
from studio.errors import StudioError
from studio.library import artifacts, refs
from tests.data.test_documents import HTML, docx, para, pdf

ALPACA = {"instruction": "Why?", "input": "", "output": "Because."}
LOG = {"question": "Why?", "role": "guide", "site": "park", "level": 2, "answer": "Because.",
       "contexts": ["It rains."],
       "mark": "good", "comment": "Right."}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def mixed(home):
    """A folder, an archive and single files, of six formats."""
    (home / "set" / "deep").mkdir(parents=True)
    (home / "set" / "a.jsonl").write_bytes(lines(ALPACA, ALPACA | {"output": ""}))
    (home / "set" / "deep" / "pairs.csv").write_text("prompt,chosen,rejected\nWhy?,Because.,No.\n")
    (home / "set" / "deep" / "broken.json").write_text('[{"text": "a"}, {"te')
    (home / "set" / "photo.png").write_bytes(b"\x89PNG")
    (home / "log.jsonl.gz").write_bytes(gzip.compress(lines(LOG, LOG | {"mark": "bad", "site": "zoo"})))
    docx(home / "guide.docx", para("Bees", "Heading1") + para("They make honey."))
    with zipfile.ZipFile(home / "all.zip", "w") as made:
        made.writestr("chat.json", json.dumps({"messages": [{"role": "user", "content": "Why?"},
                                                            {"role": "assistant", "content": "Because."}]}))
        made.writestr("docs/guide.docx", (home / "guide.docx").read_bytes())
        made.writestr("docs/guide.pdf", pdf(["Page one."], "Guide"))
        made.writestr("docs/page.html", HTML)
    return home


def test_every_part_of_every_source_is_detected_on_its_own(mixed, run_step):
    made = run_step("import", sources=["set", "all.zip", "log.jsonl.gz", "shipped:polite"], limit=50)
    entry = made.meta["history"][-1]
    assert {s["source"]: (s["format"], s["rows"]) for s in entry["facts"]["sources"]} == {
        "set/a.jsonl": ("alpaca", 1), "set/deep/broken.json": ("", 0), "set/deep/pairs.csv": ("preference", 1),
        "all.zip/chat.json": ("messages", 1), "all.zip/docs/guide.docx": ("text", 1), "all.zip/docs/guide.pdf": ("text", 1),
        "all.zip/docs/page.html": ("text", 2), "log.jsonl.gz": ("rated", 2), refs.resolve_dataset("shipped:polite").label: ("messages", 50)}
    assert entry["facts"]["left_out_files"] == ["set: photo.png"]
    reasons = {r["code"]: r["count"] for r in entry["reasons"]}
    assert reasons == {"empty_answer": 1, "unreadable": 1}
    dropped = [row for batch in made.batches("dropped") for row in batch.to_pylist()]
    assert {d["source"] for d in dropped} == {"set/a.jsonl", "set/deep/broken.json"}
    assert made.meta["format"] == "mixed" and all(s["evidence"] for s in entry["facts"]["sources"])
    edges = {edge["parent"] for edge in artifacts.lineage(made.ref.removeprefix("library:"))["edges"]}
    assert {"set", "all.zip", "log.jsonl.gz", "shipped:polite"} <= edges


def test_a_service_log_keeps_everything(mixed, run_step):
    made = run_step("import", sources=["log.jsonl.gz"])
    first, second = made.items()
    assert first.row == {"prompt": "Why?", "completion": "Because.", "label": True, "contexts": ["It rains."],
                         "comment": "Right.", "tags": {"role": "guide", "site": "park", "level": 2}}
    assert (first.label, second.label) == ("good", "bad") and dict(second.tags)["site"] == "zoo"
    (said,) = made.meta["history"][-1]["facts"]["sources"]
    assert any("A log of a service" in word for word in said["evidence"]) and any("role" in w
                                                                                  for w in said["evidence"])


def test_documents_inside_of_an_archive_bring_their_tags(mixed, run_step):
    made = run_step("import", sources=["all.zip"])
    tags = {item.source: dict(item.tags or []) for item in made.items()}
    assert tags["all.zip/docs/guide.pdf"] == {"title": "Guide", "page": "1"}
    assert tags["all.zip/docs/guide.docx"]["section"] == "Bees"


def test_files_of_one_name_are_told_apart(home, run_step):
    for folder in ("a", "b"):
        (home / folder).mkdir()
        (home / folder / "train.jsonl").write_bytes(lines(ALPACA))
    made = run_step("import", sources=["a/train.jsonl", "b/train.jsonl"])
    assert made.meta["sources"] == {"a/train.jsonl": 1, "b/train.jsonl": 1}


def test_the_first_look_at_a_folder_and_an_archive(mixed):
    report = inspect("all.zip")
    assert "4 files" in report["evidence"][0] and report["file"]["kind"] == "zip"
    assert inspect("set")["file"]["kind"] == "folder"


@pytest.mark.parametrize(("sources", "said"), [
    ([], "Nothing is chosen"), (["nothing.jsonl"], "no dataset at"), (["empty"], "without a file that can be read"),
    (["shipped:polite", "broken.json"], "cut off"), (["hub:lab/sums#train[x]"], "not a config, split or slice"),
    (["https://example.com/a.jsonl"], "Only files of the Hub")])
def test_refused_before_anything_starts(home, sources, said):
    (home / "empty").mkdir()
    (home / "broken.json").write_text('[{"text": "a"}, {"te')
    answer = api.validate({"kind": "data", "method": "import", "sources": sources})
    assert set(answer["errors"]) == {"sources"} and said in str(answer["errors"]["sources"])


def test_a_visitor_of_a_space_brings_in_only_what_is_theirs(home, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    for person in ("ann", "bob"):
        (home / "uploads" / person / "set").mkdir(parents=True)
        (home / "uploads" / person / "set" / "a.jsonl").write_bytes(lines(ALPACA))
    for ref in ("uploads/bob/set", "uploads", ".", "uploads/bob/set/a.jsonl", "/etc"):
        with pytest.raises(StudioError):
            api.submit({"kind": "data", "method": "import", "sources": [ref]}, owner="ann")
    assert api.submit({"kind": "data", "method": "import", "sources": ["uploads/ann/set"]}, owner="ann")["id"]


def test_what_stands_before_a_broken_place_is_kept(home, run_step):
    (home / "set").mkdir()
    whole = json.dumps([ALPACA] * 600)
    (home / "set" / "a.json").write_text(whole[:len(whole) // 2])
    (home / "set" / "b.jsonl").write_bytes(lines(ALPACA))
    made = run_step("import", sources=["set"])
    cut, fine = made.meta["history"][-1]["facts"]["sources"]
    assert cut["rows"] == made.count() - 1 > 290 and cut["evidence"][0].startswith("Only its beginning is in: a.json is cut off")
    assert fine["rows"] == 1
