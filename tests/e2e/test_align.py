"""Aligning by clicks alone: pairs to a chat with what came of it, questions and a score to roll-outs that can be read."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

LONG = 240_000  # milliseconds; two busy cores


def fill(page, **fields) -> None:
    """Type into fields as a person does, one after another."""
    for name, value in fields.items():
        head = page.locator(f".st-section:has(#align-{name}) [data-st-toggle]")
        if head.get_attribute("aria-expanded") == "false":
            head.click()
        page.locator(f"#align-{name} :is(input, textarea)").first.fill(str(value))
        page.keyboard.press("Tab")


def start(page) -> None:
    """Start once the form has been looked at as it stands."""
    expect(page.locator("#align-estimate dd").first).to_have_text("4", timeout=LONG)
    page.click("#align-start")
    expect(page.locator("#align-live .st-pill").first).to_have_text("Done", timeout=LONG)


@pytest.mark.timeout(900)
def test_pairs_from_click_to_chat(page):
    page.locator("#tab-align-button").click()
    page.locator("#align-panel .st-offers").get_by_text("Polite over rude").click()
    sides = page.locator("#align-panel .st-side")
    again = page.locator("#align-panel [data-retry]")  # a busy machine may take longer than a preview is waited for
    for _ in range(3):
        expect(sides.or_(again).first).to_be_visible(timeout=LONG)
        if again.is_visible():
            again.click()
    expect(sides).to_have_count(2, timeout=LONG)
    expect(sides.nth(0)).to_contain_text("Better answer")
    assert sides.nth(1).locator(".st-trained.st-differs").count() > 0
    expect(page.get_by_role("radio", name=re.compile("^DPO"))).to_be_checked()
    fill(page, max_steps=4, logging_steps=1, eval_steps=2)
    start(page)
    chart = page.locator("#align-live [data-chart=preference]")
    expect(chart.locator(".st-summary")).to_contain_text("margin")
    expect(chart.locator(".st-healthy")).to_contain_text("the lines part")
    drawn = "document.querySelector('#align-live [data-chart=preference] .st-plot').data.map((line) => line.name)"
    assert {"better", "worse", "margin"} <= set(page.evaluate(drawn))
    expect(page.locator("#align-live [data-tiles]")).to_contain_text("Pairs told apart")
    expect(page.locator("#align-live .st-more-charts [data-chart=grad_norm]")).to_have_count(1)
    page.locator("#align-live .st-after").get_by_text("Chat with it").click()
    expect(page.locator("#tab-chat-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#chat-view .ch-col")).to_have_count(2, timeout=LONG)


@pytest.mark.timeout(900)
def test_questions_from_click_to_roll_outs(page):
    page.locator("#tab-align-button").click()
    page.get_by_text("Questions, and a way to score answers").click()
    expect(page.get_by_role("radio", name=re.compile("^GRPO"))).to_be_checked()
    page.locator("#align-panel .st-offers").get_by_text("Harder sums").click()
    expect(page.locator("#align-dataset input")).not_to_have_value("", timeout=LONG)
    expect(page.locator("#align-loss_type input")).to_have_value(re.compile("DAPO", re.I), timeout=LONG)  # not that of DPO
    page.locator("#align-rewards [data-add]").click()
    page.locator("#align-rewards [data-pick=number]").click()
    expect(page.locator("#align-rewards .rw-card")).to_have_count(1)
    fill(page, max_completion_length=12, num_generations=4, per_device_train_batch_size=4, max_steps=4, logging_steps=1,
         eval_share=0)
    start(page)
    expect(page.locator("#align-live [data-side=rollouts]")).to_have_attribute("aria-selected", "true")
    rolls = page.locator("#align-live .st-roll")
    expect(rolls.first).to_be_visible(timeout=LONG)
    expect(rolls.first.locator(".st-scores li")).to_have_count(1)
    page.locator("#align-live [data-order=best]").click()
    made = page.evaluate("studio.lives.align.rollouts.all")
    assert len(made) >= 4 and all(one["prompt"] and "number" in str(one["rewards"]) for one in made)
    best = max(one["advantage"] for one in made)
    top = {" ".join(str(one["completion"]).split()) or "nothing" for one in made if one["advantage"] == best}
    assert " ".join(rolls.first.locator(".st-said").inner_text().split()) in top, "the best answer does not stand first"
    expect(page.locator("#align-live [data-chart=reward] .st-healthy")).to_contain_text("roll-outs")
    expect(page.locator("#align-live .st-more-charts [data-chart=loss]")).to_have_count(1)
