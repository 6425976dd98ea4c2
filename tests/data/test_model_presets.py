"""Presets that ask a model: their recipes do what they say when a model answers, shown by a stand-in."""

from __future__ import annotations

import re

import pytest

from studio import sandbox, settings
from studio.recipe import parse, read_values
from tests.llm_stand_in import Asked, StandIn


def preset(name: str, **over: object) -> dict:
    return read_values(settings.PRESETS / "data" / f"{name}.yaml") | over


def test_distil_and_check_a_prompt(run_step) -> None:
    with StandIn(lambda asked: "Blue." if asked.messages[0]["role"] == "system" else "It is blue.") as server:
        values = preset("distil-a-prompt", generator=server.address)
        made = run_step(values.pop("method"), values.pop("dataset"), **{k: v for k, v in values.items() if k != "kind"})
        assert {m["messages"][-1]["content"] for m in made.rows()} == {"Blue."} and made.count() >= 100
        assert all(m["messages"][0]["role"] == "user" for m in made.rows())
        values = preset("check-the-prompt", generator=server.address, compare="")
        checked = run_step(values.pop("method"), values.pop("dataset"), **{k: v for k, v in values.items() if k != "kind"})
    found = checked.meta["history"][-1]["facts"]
    assert found["questions"] == 40 and found["all"]["asked"]["kept"] == 40 and found["all"]["unasked"]["kept"] == 0


def test_verified_maths(run_step, jsonl) -> None:
    rows = [{"question": f"Tom has {n} apples and gets {n + 1} more. How many?", "answer": f"{n}+{n + 1}={2 * n + 1}\n#### {2 * n + 1}"} for n in range(8)]

    def answer(asked: Asked) -> str:
        n = int(re.findall(r"\d+", asked.last)[0])
        return f"{asked.words(4)}\n#### {2 * n + 1 + (asked.choice % 2 if n else 0)}"

    with StandIn(answer) as server:
        values = preset("verified-maths", generator=server.address, dataset=jsonl("gsm.jsonl", rows))
        made = run_step(values.pop("method"), values.pop("dataset"), **{k: v for k, v in values.items() if k != "kind"})
    assert made.count() == 7 and all(item.score == 0.5 for item in made.items())  # the one that was always right is left out
    assert {m["role"] for m in server.requests[0].messages} == {"system", "user"} and "Think" not in str(list(made.rows()))


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "-")
def test_verified_code(run_step, jsonl) -> None:
    ref = jsonl("mbpp.jsonl", [{"task_id": n, "prompt": f"Write a function f{n} that rounds {n} up.", "code": f"def f{n}(x): return math.ceil(x)",
                                "test_imports": ["import math"], "test_list": [f"assert f{n}(1.5) == 2", f"assert f{n}(2) == 2"]} for n in range(3)])

    def answer(asked: Asked) -> str:
        n = int(re.findall(r"f(\d)", asked.last)[0])
        return f"```python\ndef f{n}(x):\n    return math.{'ceil' if asked.choice % 2 else 'floor'}(x)\n```"

    with StandIn(answer) as server:
        values = preset("verified-code")
        values["steps"][0]["sources"] = [ref]
        values["steps"][1] |= {"references": ref, "generator": server.address, "n": 2}
        made = run_step("pipeline", steps=values["steps"])
    assert made.count() == 3 and all("ceil" in row["completion"] for row in made.rows())
    assert all(item.score == 0.5 for item in made.items())


def test_score_by_a_judge(run_step) -> None:
    with StandIn(lambda asked: f"So so.\nMark: {4 + len(asked.last) % 4}") as server:
        values = preset("score-by-a-judge", generator=server.address)
        made = run_step(values.pop("method"), values.pop("dataset"), **{k: v for k, v in values.items() if k != "kind"})
    assert all(item.score >= 6 and dict(item.tags)["why"] == "So so." for item in made.items())
    assert "invents anything" in server.requests[0].messages[1]["content"]


@pytest.mark.parametrize("name", [p.stem for p in sorted((settings.PRESETS / "data").glob("*.yaml"))])
def test_every_preset_names_fields_that_exist(home, name) -> None:
    assert parse(preset(name)).to_dict(only_changed=True)["method"]
