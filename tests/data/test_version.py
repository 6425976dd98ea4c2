"""Versions of datasets: brought in, stored, read again, trained on, chained in a pipeline."""

from __future__ import annotations


from pathlib import Path

import pytest

from studio.datasets import formats
from studio.datasets.version import META, Version, Writer, item_of
from studio.errors import StudioError
from studio.library import artifacts
from studio.recipe import parse


def test_bring_in_keeps_rows_and_tells_what_was_left_out(run_step, jsonl):
    """Usable rows come back as they were read; the rest is kept aside with its reason."""
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(10)]
    made = run_step("import", sources=[jsonl("a.jsonl", [*rows, {"prompt": "x", "completion": ""}, "{broken"])])
    assert list(made.rows()) == rows and made.meta["format"] == "prompt_completion"
    entry = made.meta["history"][-1]
    assert (entry["rows_in"], entry["rows_out"], entry["dropped"]) == (12, 10, 2)
    assert {r["code"]: r["count"] for r in entry["reasons"]} == {"empty_answer": 1, "broken_line": 1}
    dropped = next(made.batches("dropped")).to_pylist()
    assert {d["reason"] for d in dropped} == {"empty_answer", "broken_line"}
    (item,) = [i for i in made.items() if i.row == rows[3]]
    assert item.chars == len("Question 3?Answer 3.") and item.turns == 2 and item.source == "a.jsonl"


def test_every_shipped_set_comes_in_and_goes_out_unchanged(run_step):
    """The store holds every shape; reading it for training gives the rows the file itself would."""
    from studio.library.refs import shipped_datasets

    for key in shipped_datasets():
        try:
            wanted = list(formats.load_rows(f"shipped:{key}", purpose="as_is"))
        except StudioError:
            continue
        made = run_step("import", sources=[f"shipped:{key}"])
        assert list(made.rows()) == wanted, key
        assert list(formats.load_rows(made.ref)) == list(formats.load_rows(f"shipped:{key}")), key


def test_hash_says_the_content(run_step, jsonl):
    rows = [{"text": f"Line {i}."} for i in range(5)]
    one, two = run_step("import", sources=[jsonl("a.jsonl", rows)]), run_step("import", sources=[jsonl("b.jsonl", rows)])
    three = run_step("import", sources=[jsonl("c.jsonl", rows[:4] + [{"text": "Other."}])])
    assert one.hash == two.hash != three.hash


def test_an_unfinished_folder_is_no_dataset(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "d") as out:
        out.add({"text": "hello"})
        1 / 0  # noqa: B018 - a step that fails half-way
    assert list((tmp_path / "d").iterdir()) == []
    with pytest.raises(StudioError, match="not finished"):
        Version(tmp_path / "d")


def test_nothing_left_is_a_refusal(tmp_path: Path):
    with pytest.raises(StudioError, match="2 too short"), Writer(tmp_path / "d", {"short": "too short"}) as out:
        for text in ("a", "b"):
            out.drop(item_of({"text": text}), "short")
        out.close({"method": "x"})
    assert not (tmp_path / "d" / META).exists()


def test_big_rows_make_small_groups(tmp_path: Path):
    """Row groups stay within a few megabytes, so that reading needs little memory whatever the rows."""
    import pyarrow.parquet as pq

    with Writer(tmp_path / "d") as out:
        for i in range(12):
            out.add({"text": f"{i} " + "x" * (2 << 20)})
        made = out.close({"method": "x"})
    assert pq.ParquetFile(made.file()).metadata.num_row_groups >= 3
    assert [len(row["text"]) > 2 << 20 for row in made.rows()] == [True] * 12


def test_odd_content_survives(tmp_path: Path):
    rows = [{"text": "nul \x00 and \ud800 lone"}, {"text": "😀 \u2028"}, {"prompt": "p", "completion": "c", "label": True,
            "tags": {"site": "A", "level": 3}}]
    with Writer(tmp_path / "d") as out:
        for row in rows:
            out.add(row)
        made = out.close({"method": "x"})
    assert made.meta["format"] == "mixed"
    read = list(made.items())
    assert [item.row for item in read] == [{"text": "nul \x00 and ? lone"}, *rows[1:]]
    assert read[2].label == "good" and dict(read[2].tags) == {"site": "A", "level": "3"}


def test_pipeline_reuses_what_is_unchanged(run_step, jsonl):
    ref = jsonl("a.jsonl", [{"text": f"Line {i}."} for i in range(5)])
    made = run_step("pipeline", steps=[{"method": "import", "sources": [ref]}, {"method": "import", "sources": [ref]}])
    assert [e["step"]["method"] for e in made.meta["history"]][0] == "import"
    lineage = artifacts.lineage(made.ref.removeprefix("library:"))
    assert any(node["ref"] == ref for node in lineage["nodes"])


@pytest.mark.parametrize(("steps", "word"), [
    ([{"method": "nonsense"}], "step 1"), ([{"method": "pipeline", "steps": []}], "step 1"),
    ([{"method": "import", "sources": ["x"], "wrong": 1}], "no such field")])
def test_bad_pipelines_are_refused_at_their_step(home, steps, word):
    with pytest.raises(StudioError, match=f"(?i){word}"):
        parse({"kind": "data", "method": "pipeline", "dataset": "shipped:polite", "steps": steps})


def test_a_split_dataset_brings_its_validation_rows(home, tmp_path):
    """Training on a dataset that was split validates on its own validation rows, not on a share of the rest."""
    from studio.trainers import data

    with Writer(home / "datasets" / "d") as out:
        for i in range(8):
            out.add({"prompt": f"Q{i}", "completion": f"A{i}"})
        out.split = "validation"
        out.add({"prompt": "held", "completion": "out"})
        made = out.close({"method": "x"})
    ref = artifacts.add("dataset", "d", made.path, meta={"version": True})["ref"]
    train, held, _ = data.read(parse({"kind": "sft", "method": "lora", "dataset": ref}))
    assert len(train) == 8 and held == [{"prompt": "held", "completion": "out"}]


