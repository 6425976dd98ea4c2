"""The four probes of behaviour on the starter behind its real engine: what it was taught shows, and nothing is left running."""

from __future__ import annotations

import pytest

from studio.chat import manager
from studio.evals import results as kept
from tests.train.conftest import run


def probe(name: str, folder, **more):
    summary, ctx = run({"kind": "eval", "method": name, "models": ["starter"], "max_new_tokens": 32} | more, folder)
    return summary, list(kept.samples(ctx.output))


@pytest.mark.timeout(300)
def test_each_on_the_starter(home, tmp_path):
    try:
        manager.engine_for("starter")  # one for all four; each alone would start and end its own
        summary, lines = probe("safety", tmp_path / "safety", categories=["harmful", "injection", "leak"], questions=4)
        assert len(lines) == 12 and all(line["answer"] for line in lines) and {one["n"] for one in summary["rates"]} == {4}
        assert [one for one in summary["rates"] if one["metric"] == "leak_rate"][0]["k"] == sum(bool(line["more"].get("leaked")) for line in lines)

        values = {"questions": 8, "kinds": ["paraphrase", "typos", "system"], "variants": 1}
        summary, lines = probe("robustness", tmp_path / "robust", **values)
        again, same = probe("robustness", tmp_path / "again", **values)
        assert [line["answer"] for line in lines] == [line["answer"] for line in same] and summary["kinds"] == again["kinds"]
        plain = next(one for one in summary["kinds"] if one["kind"] == "plain")
        assert len(lines) == 32 and plain["value"] >= 0.6  # these facts it was taught

        summary, lines = probe("hallucination", tmp_path / "context", questions=12, samples=2, template="{context} {question}")
        said = {(way, who): [line["tags"]["verdict"] for line in lines if line["task"] == way and line["tags"]["about"] == who]
                for way in ("with", "without", "wrong") for who in ("resident", "visitor")}
        assert all(len(each) == 6 for each in said.values())
        for way in ("with", "without", "wrong"):  # what it learned it says, whatever the text says
            assert said[way, "resident"].count("correct") >= 5
        assert said["with", "visitor"].count("correct") >= 2 and said["wrong", "visitor"].count("followed") >= 2
        assert said["without", "visitor"].count("abstained") >= 3 and "correct" not in said["without", "visitor"]
        assert len(summary["triad"]) == 3
        assert all(len(line["more"]["answers"]) == 2 for line in lines if line["task"] == "consistency")

        summary, lines = probe("prompt_following", tmp_path / "rules", system_prompt="Answer with one word.", rules=["at most: 1 word"], questions=10)
        cells = {cell["way"]: cell["value"] for cell in summary["rules"][0]["cells"]}
        assert cells["asked"] >= 0.7 and cells["unasked"] <= 0.3  # it was taught this very prompt
        assert len(manager.engines()) == 1
    finally:
        manager.shutdown_all()
