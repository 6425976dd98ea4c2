"""Statistics agree with counting by hand; tokens agree with what the trainer feeds the model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio import api, registry
from studio.datasets import report
from studio.datasets.step import opened
from studio.datasets.steps import statistics
from studio.datasets.token_count import Tokens, compiled, folder_of
from studio.datasets.version import Version, Writer
from studio.errors import StudioError
from studio.jobs import store
from studio.jobs.context import Context
from studio.recipe import parse
from studio.settings import ROOT, STARTER, run_dir


@pytest.fixture
def run_report(home: Path):
    """Runs a report as a worker would; returns what was kept."""

    def run(method: str, ref: str, **values: Any) -> dict[str, Any]:
        recipe = parse({"kind": "data", "method": method, "dataset": ref, **values})
        cls = registry.method("data", method)
        cls.check(recipe)
        ctx = Context(run_dir(store.submit(recipe)["id"]))
        try:
            summary = cls.run(recipe, ctx)
            assert not ctx.artifacts or ctx.artifacts[0]["name"] != "report", "a report makes no dataset"
            source, _ = opened(ref, ctx)
        finally:
            ctx.close()
        return report.read(source.hash, method) | {"summary": summary}

    return run


def test_figures_are_those_of_the_rows(run_step, run_report, jsonl) -> None:
    rows = [{"question": f"What is {i % 40}?", "answer": "word " * (i % 40 + 1), "feedback": "good" if i % 3 else "bad",
             "site": "north" if i % 2 else "south"} for i in range(120)]
    made = run_step("import", sources=[jsonl("a.jsonl", rows)], columns={"prompt": "question", "completion": "answer",
                                                                         "label": "feedback"})
    found = run_report("statistics", made.ref)
    items = list(made.items())
    assert found["rows"] == 120 and found["version_hash"] == made.hash and found["formats"] == {"rated": 120}
    assert sum(found["chars"]["counts"]) == 120 and found["chars"]["max"] == max(item.chars for item in items)
    edges, counts = found["chars"]["edges"], found["chars"]["counts"]
    assert len(edges) == len(counts) + 1 and edges == sorted(edges)
    for low, high, n in list(zip(edges, edges[1:], counts, strict=False))[:-1]:
        assert n == sum(low <= item.chars < high for item in items), (low, high)
    assert found["turns"] == {"2": 120} and found["role_patterns"] == {"user>assistant": 120}
    assert found["languages"] == {code or "none": n for code, n in Counter(item.lang for item in items).items()}
    assert found["duplicates"]["exact"] == 120 - len({item.text for item in items})
    assert found["labels"] == {"good": 80, "bad": 40}
    assert found["tags"]["site"]["north"] == {"good": 40, "bad": 20, "none": 0}
    assert found["sources"] == {"a.jsonl": 120}
    words = Counter(w for row in rows for w in (row["question"] + " " + row["answer"]).lower().replace("?", "").split())
    assert dict(found["vocabulary"]["top"])["word"] == words["word"] == found["vocabulary"]["top"][0][1]
    assert found["vocabulary"]["words"] == words.total() and found["vocabulary"]["distinct"] == len(words)
    assert found["vocabulary"]["growth"][-1] == [words.total(), len(words)]
    assert found["tokens"]["rows"] == 120 and not found["tokens"]["estimated"]
    assert found["tokens"]["total"] == sum(Tokens(STARTER).count([item.row for item in items]))
    assert sum(found["tokens"]["histogram"]["counts"]) == 120


def test_rows_over_the_limit_are_counted(run_step, run_report, jsonl) -> None:
    made = run_step("import", sources=[jsonl("a.jsonl", [{"text": "word " * n} for n in (5, 50, 500)])])
    lengths = Tokens(STARTER).count(list(made.rows()))
    found = run_report("statistics", made.ref, max_length=100)["tokens"]
    assert found["limit"] == 100 and found["over"] == sum(n > 100 for n in lengths) == 1
    assert found["max"] == max(lengths)
    assert run_report("statistics", made.ref)["tokens"]["limit"] == json.loads((STARTER / "config.json").read_text())[
        "max_position_embeddings"]


def test_a_sample_is_spread_and_says_so(run_step, run_report, jsonl) -> None:
    """Rows that grow steadily: evenly spread ones give nearly the same mean, and the page can say it is an estimate."""
    made = run_step("import", sources=[jsonl("a.jsonl", [{"text": "word " * (i % 100 + 1)} for i in range(3000)])])
    whole = run_report("statistics", made.ref, look_at=0)["tokens"]
    part = run_report("statistics", made.ref, look_at=300)["tokens"]
    assert part["estimated"] and part["rows"] == 300 and not whole["estimated"] and whole["rows"] == 3000
    assert abs(part["total"] / whole["total"] - 1) < 0.1


def test_all_splits_count(home: Path, run_report) -> None:
    from studio.datasets.step import facts_of
    from studio.library import artifacts

    with Writer(home / "datasets" / "d") as out:
        for split, n in (("train", 5), ("validation", 3)):
            out.split = split
            for i in range(n):
                out.add({"text": f"row {i}"}, score=i / 10)
        version = out.close({"method": "x"})
    ref = artifacts.add("dataset", "d", version.path, meta=facts_of(version))["ref"]
    found = run_report("statistics", ref)
    assert found["splits"] == {"train": 5, "validation": 3} and found["duplicates"]["exact"] == 3
    assert sum(found["scores"]["counts"]) == 8 and found["scores"]["max"] == pytest.approx(0.4)
    assert api.data_report(ref, "statistics")["rows"] == 8
    assert api.data_open(ref)["reports"]["statistics"]["rows"] == 8


def test_what_is_no_version_is_brought_in_first(run_report) -> None:
    found = run_report("statistics", "shipped:tool-calls")
    assert found["rows"] > 0 and any("tool" in pattern for pattern in found["role_patterns"])


@pytest.mark.parametrize(("pattern", "wanted"), [
    ("user>assistant", "user>assistant"), ("user>assistant>user>assistant", "(user>assistant)+"),
    ("system>user>assistant>user>assistant", "system>(user>assistant)+"), ("text", "text"),
    ("user>assistant>tool>assistant", "user>assistant>tool>assistant"), ("user>user", "(user)+")])
def test_repeated_turns_are_written_once(pattern: str, wanted: str) -> None:
    assert statistics.folded(pattern) == wanted


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_every_token_count_has_a_bin(values: list[int]) -> None:
    made = statistics._token_figures(values, len(values), 100)
    edges, counts = made["histogram"]["edges"], made["histogram"]["counts"]
    assert sum(counts) == len(values) and len(edges) == len(counts) + 1 <= statistics.BINS + 2
    assert edges == sorted(edges) and edges[0] <= min(values) and max(values) <= edges[-1]


_chat = st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=6).map(
    lambda texts: {"messages": [{"role": ("user", "assistant")[i % 2], "content": text}
                                for i, text in enumerate(texts[:len(texts) // 2 * 2])]})
_pair = st.builds(lambda p, c: {"prompt": p, "completion": c}, st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
_plain = st.builds(lambda t: {"text": "x" + t}, st.text(max_size=60))


@pytest.fixture(scope="module")
def encoder():
    from transformers import AutoTokenizer

    from studio.trainers.data import Encoder

    recipe = SimpleNamespace(max_length=10_000, assistant_only_loss=False, chat_template="auto")
    return Encoder(AutoTokenizer.from_pretrained(STARTER), recipe, True)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.one_of(_chat, _pair, _plain))
def test_tokens_are_those_of_the_trainer(encoder, row: dict[str, Any]) -> None:
    sample = encoder(row)
    assert Tokens_of_starter().count([row]) == [sample.length if sample else 0]


def test_tokens_of_shipped_sets_are_those_of_the_trainer(encoder) -> None:
    from studio.datasets import formats

    for key in ("polite", "tool-calls", "moon-stories", "rated-answers"):
        rows = list(formats.load_rows(f"shipped:{key}"))[:50]
        lengths = [sample.length for row in rows if (sample := encoder(row))]
        assert Tokens_of_starter().count(rows) == lengths, key


_made: list[Tokens] = []


def Tokens_of_starter() -> Tokens:  # noqa: N802 - read once
    if not _made:
        _made.append(Tokens(STARTER))
    return _made[0]


def test_a_template_that_refuses_is_counted_without(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((STARTER / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('Roles must alternate') }}")
    counter = Tokens(tmp_path)
    assert counter.count([{"prompt": "a", "completion": "b"}])[0] > 0 and counter.unrendered == 1


def test_templates_cannot_reach_out() -> None:
    import jinja2

    for text in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"):
        with pytest.raises(jinja2.TemplateError):
            compiled(text).render(messages=[])
    with pytest.raises(StudioError, match="cannot be read"):
        compiled("{% if %}")
    assert compiled("{%- generation %}a{%- endgeneration %}").render() == "a"


def test_models_without_a_fast_tokenizer_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{broken")
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(StudioError, match="tokenizer.json") as refused:
            Tokens(folder)
        assert refused.value.field == "model"
    assert folder_of("starter") == (STARTER, "Starter", 512)


def test_a_report_that_is_stopped_leaves_nothing(run_step, jsonl, home: Path) -> None:
    made = run_step("import", sources=[jsonl("a.jsonl", [{"text": f"row {i}"} for i in range(3000)])])
    recipe = parse({"kind": "data", "method": "statistics", "dataset": made.ref})
    ctx = Context(run_dir(store.submit(recipe)["id"]))
    ctx.request_stop()
    assert statistics.Statistics.run(recipe, ctx) is None
    ctx.close()
    assert report.read(made.hash, "statistics") is None


def test_statistics_need_no_torch(run_step, jsonl, home: Path) -> None:
    made = run_step("import", sources=[jsonl("a.jsonl", [{"text": f"row {i}"} for i in range(30)])])
    code = f"""
import os, sys
os.environ["STUDIO_HOME"] = {str(home)!r}
from pathlib import Path
from studio.datasets.steps.statistics import Statistics
from studio.jobs.context import Context
from studio.recipe import parse
recipe = parse({{"kind": "data", "method": "statistics", "dataset": {made.ref!r}}})
Statistics.run(recipe, Context(Path({str(home)!r}) / "runs" / "rabcdefgh"))
print([m for m in ("torch", "transformers", "trl", "datasets") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_reports_are_known_by_name(home: Path) -> None:
    with pytest.raises(StudioError, match="no report"):
        report.path_of("0" * 32, "../../x")
    with pytest.raises(StudioError, match="no report"):
        report.path_of("../x", "statistics")
    assert Version


def test_only_the_tokenizer_of_a_hub_model_is_fetched(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights stay where they are; a model without a fast tokenizer is told so; an adapter counts as its base."""
    from tests.hub_stand_in import Hub, Repo
    from tests.models import make_adapter

    files = {p.name: p.read_bytes() for p in STARTER.iterdir() if p.is_file()}
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Hub(Repo("lab/starter", files=files), Repo("lab/slow", files={
            name: files[name] for name in ("config.json", "model.safetensors")})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        folder, label, context = folder_of("hub:lab/starter")
        assert (label, context) == ("lab/starter", 512) and folder.is_relative_to(home)
        assert not [asked for asked in server.requests if "safetensors" in asked]
        with pytest.raises(StudioError, match="lacks a file") as refused:
            folder_of("hub:lab/slow")
        assert refused.value.field == "model"
    rows = [{"prompt": "What colour is grass?", "completion": "Green."}]
    assert Tokens(folder).count(rows) == Tokens(STARTER).count(rows)
    assert not (tmp_path / "cache").exists(), "a folder there would be taken for the whole model"
    adapter = make_adapter(home / "adapter", str(STARTER))
    assert folder_of(str(adapter))[0] == STARTER
