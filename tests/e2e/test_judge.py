"""A judge and more answers from the dialog to their panels: a judge of known character is described as what it is."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from tests.llm_stand_in import Asked, StandIn  # noqa: E402

LONG = 180_000  # ms; a worker starts on two busy cores


def first(asked: Asked) -> str:
    """Prefers what stands first, and does not judge the third question at all."""
    return "Hm." if "Question 3?" in asked.messages[1]["content"] else "The first is fine.\nVerdict: A"


def guesses(asked: Asked) -> str:
    a, b = map(int, re.findall(r"\d+", asked.last)[:2])
    off = 0 if not asked.body["temperature"] else random.Random(f"{asked.last}{asked.seed}").choice([0, 0, 1, -1])
    return f"It is {a + b + off}."


def started(page, values: dict) -> None:
    """The dialog with these values, sent."""
    page.evaluate("(values) => studio.evalStart(values)", values)
    dialog = page.locator("dialog.ev-dialog")
    expect(dialog).to_be_visible()
    dialog.locator("[type=submit]").click()


def fits(page) -> None:
    """Nothing of the panel is wider than a telephone."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator(".ev-special .jd").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    assert page.evaluate("[...document.querySelectorAll('.jd *')].filter((one) => !one.closest('.jd-scroll') && one.getBoundingClientRect().right > innerWidth + 1).length") == 0
    page.set_viewport_size({"width": 1440, "height": 900})


@pytest.mark.timeout(400)
def test_a_judge_is_described_as_what_it_is(open_page, home: Path) -> None:
    data = home / "uploads" / "pairs.jsonl"
    data.parent.mkdir(exist_ok=True)
    data.write_text("".join(json.dumps({"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": f"No, never {i}."}) + "\n" for i in range(12)))
    page = open_page("?tab=eval")
    values = {"method": "judge", "mode": "pairwise", "answers_from": "columns", "answer_columns": ["chosen", "rejected"], "dataset": str(data), "samples": 12}
    started(page, values)
    expect(page.locator("dialog.ev-dialog [data-field=judge] .st-error")).to_contain_text("No judge is chosen")
    page.locator("dialog.ev-dialog [data-cancel]").click()
    with StandIn(first) as judge:
        started(page, values | {"judge": judge.address})
        panel = page.locator(".ev-special .jd")
        expect(panel).to_be_visible(timeout=LONG)
    assert len(judge.requests) == 11 * 2 + 2 * 3
    place = panel.locator("[data-line=position]")
    expect(place).to_have_class(re.compile("jd-is-bad"))
    expect(place).to_contain_text("Whichever stood first won both times in 11, whichever stood second in 0. That is more than chance")
    expect(panel.locator("[data-line=people]")).to_contain_text("nobody has voted in the arena yet")
    expect(panel.locator("[data-line=form]")).to_contain_text("2 of 24 judgements could not be used")
    expect(panel.locator("[data-line=form]")).to_contain_text("'Hm.'")
    expect(panel.locator(".ar-matrix tbody td[style]")).to_have_text(["50 %", "50 %"])
    expect(page.locator(".ev-warnings")).to_contain_text("prefers whichever answer stands first")
    fits(page)


@pytest.mark.timeout(400)
def test_more_answers_are_plotted_against_what_they_cost(open_page) -> None:
    page = open_page("?tab=eval")
    with StandIn(guesses) as model:
        started(page, {"method": "budget", "models": [model.address], "dataset": "shipped:sums", "samples": 16, "n": [1, 2, 4, 8]})
        panel = page.locator(".ev-special .jd")
        expect(panel).to_be_visible(timeout=LONG)
    assert len(model.requests) == 16 * 9
    found = page.evaluate("studio.call('eval_results', {run: studio.param('run')})")["facts"]["curve"]
    value = {(one["method"], one["n"]): f"{100 * one['value']:.1f} %" for one in found}
    expect(panel.locator(".jd-say")).to_contain_text(f"one answer is right {value['pass_at_k', 1]} of the time. The majority of 8 answers: {value['self_consistency', 8]}.")
    expect(panel.locator(".st-plot[data-drawn]")).to_be_visible()
    titles = "document.querySelector('.jd .st-plot').layout.xaxis.title.text"
    assert page.evaluate(titles) == "tokens written for a question"
    panel.get_by_label("Along the axis").select_option("n")
    page.wait_for_function(f"{titles} === 'answers to a question'")
    lines = page.evaluate("document.querySelector('.jd .st-plot').data.map((line) => [line.name, line.x, line.error_y.array.length])")
    assert [["any is right (pass@k)", [1, 2, 4, 8], 4], ["the majority", [1, 2, 4, 8], 4], ["the likeliest answer", [1], 1]] == lines
    panel.locator("summary").click()
    expect(panel.locator("tbody tr")).to_have_count(9)
    fits(page)
